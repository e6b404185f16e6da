//! Arguments of the measurements that run in one process. Not here: what is measured.

use std::path::PathBuf;

use clap::Args;
use storage_mapping::ByteSize;

use super::super::size;

const CHANNEL_EXAMPLES: &str = "\
Examples:
  diskwire bench channel                     a volume in memory
  diskwire bench channel --folder /mnt/disk  a volume of files on a disk
  diskwire bench channel --secondaries 4 --size 4GiB
  diskwire bench channel --quick             a look: not to be quoted

The ratio to the bare device has a goal where the folder is on a disk. The exit
code is 1 if it is missed. Leave the machine alone meanwhile.";

const CRYPTO_EXAMPLES: &str = "\
Examples:
  diskwire bench crypto                  every suite on this CPU, one thread
  diskwire bench crypto --quick          a look: not to be quoted
  diskwire bench crypto --json | jq '.rows[] | {what, median}'";

/// Measures a volume with a sender and a receiver at once, beside the bare device.
#[derive(Args, Clone, Debug)]
#[command(after_help = CHANNEL_EXAMPLES)]
pub struct BenchChannelArgs {
    /// Where the volume's files are made; in memory unless it is named.
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Bytes of one round.
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = size)]
    pub size: ByteSize,
    /// Devices with segments.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=16))]
    pub secondaries: u8,
    /// Few and short rounds.
    #[arg(long)]
    pub quick: bool,
    /// Print the figures as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Measures ciphers and hashes on this CPU, by segments of 1 MiB.
#[derive(Args, Clone, Debug)]
#[command(after_help = CRYPTO_EXAMPLES)]
pub struct BenchCryptoArgs {
    /// Few and short rounds.
    #[arg(long)]
    pub quick: bool,
    /// Print the figures as one JSON object.
    #[arg(long)]
    pub json: bool,
}

const IDLE_EXAMPLES: &str = "\
Examples:
  diskwire bench idle                    two minutes, and hours in virtual time
  diskwire bench idle --quick            the virtual hours, and two seconds
  diskwire bench idle --folder /mnt/disk --json

The exit code is 1 if a goal is missed.";

/// Counts what a host that serves costs while nobody calls.
#[derive(Args, Clone, Debug)]
#[command(after_help = IDLE_EXAMPLES)]
pub struct BenchIdleArgs {
    /// Where the files for the count in real time are made; in memory unless named.
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Fewer hours and less real time.
    #[arg(long)]
    pub quick: bool,
    /// Print the figures as one JSON object.
    #[arg(long)]
    pub json: bool,
}

const LATENCY_EXAMPLES: &str = "\
Examples:
  diskwire bench latency                     files on the disk of this folder
  diskwire bench latency --folder /mnt/disk
  diskwire bench latency --quick --json

The exit code is 1 if the goal is missed. Leave the machine alone meanwhile.";

/// Measures a small request and its answer beside the four I/Os that they are.
#[derive(Args, Clone, Debug)]
#[command(after_help = LATENCY_EXAMPLES)]
pub struct BenchLatencyArgs {
    /// Where the volume's files are made: on a disk, not in memory.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub folder: PathBuf,
    /// Few and short rounds.
    #[arg(long)]
    pub quick: bool,
    /// Print the figures as one JSON object.
    #[arg(long)]
    pub json: bool,
}

const SCALING_EXAMPLES: &str = "\
Examples:
  diskwire bench scaling                       connections, then devices
  diskwire bench scaling --connections 1,64
  diskwire bench scaling --secondaries 1,2,4,8 --rate 25MiB
  diskwire bench scaling --quick --json

The goal is that of the most connections, against one. The exit code is 1 if it
is missed. Leave the machine alone meanwhile.";

/// Measures one connection against many, and one device against several.
#[derive(Args, Clone, Debug)]
#[command(after_help = SCALING_EXAMPLES)]
pub struct BenchScalingArgs {
    /// Connections at once, separated by commas [default: 1,2,4,8,16,32,64].
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=128))]
    pub connections: Vec<u16>,
    /// Devices with segments, separated by commas [default: 1,2,4,8].
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=16))]
    pub secondaries: Vec<u8>,
    /// Bytes a second that one of these devices is throttled to.
    #[arg(long, value_name = "BYTES", default_value = "50MiB", value_parser = size)]
    pub rate: ByteSize,
    /// Bytes of all connections together in one round.
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = size)]
    pub size: ByteSize,
    /// Where the volume's files are made; in memory unless it is named.
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Few and short rounds.
    #[arg(long)]
    pub quick: bool,
    /// Print the figures as one JSON object.
    #[arg(long)]
    pub json: bool,
}
