//! Arguments of `bench`. Not here: what is measured.

use std::path::PathBuf;

use clap::{Args, Subcommand};

mod compare;
mod measure;

pub use compare::{BenchChartsArgs, BenchFileArgs, BenchMeterArgs, BenchSmallFilesArgs, CompareArgs};
pub use measure::{BenchChannelArgs, BenchCryptoArgs, BenchIdleArgs, BenchLatencyArgs, BenchScalingArgs};

const MULTIPATH_EXAMPLES: &str = "\
Examples:
  diskwire bench multipath               every goal that is measured here
  diskwire bench multipath --quick       a look at each: not to be quoted
  diskwire bench multipath --goal 5 --goal 13
  diskwire bench multipath --folder /mnt/disk --goal 2
  diskwire bench multipath --json | jq '.figures[] | select(.met | not)'

Figures in virtual time are the same on every machine, and the worst of all
seeds must reach the target. Of those in real time the median must: leave the
machine alone meanwhile. The exit code is 1 if a target is missed.";

/// Measures.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub command: BenchCommand,
}

/// The commands of `bench`.
#[derive(Clone, Debug, Subcommand)]
#[expect(missing_docs, reason = "described at its arguments, where its help comes from")]
pub enum BenchCommand {
    Channel(BenchChannelArgs),
    Charts(BenchChartsArgs),
    Crypto(BenchCryptoArgs),
    #[command(alias = "transfer")]
    File(BenchFileArgs),
    Idle(BenchIdleArgs),
    Latency(BenchLatencyArgs),
    #[command(hide = true)]
    Meter(BenchMeterArgs),
    Multipath(BenchMultipathArgs),
    Scaling(BenchScalingArgs),
    SmallFiles(BenchSmallFilesArgs),
}

/// Measures the multipath layer against its goals, each beside its target.
#[derive(Args, Clone, Debug)]
#[command(after_help = MULTIPATH_EXAMPLES)]
pub struct BenchMultipathArgs {
    /// Measure this goal only; may be given several times.
    #[arg(long = "goal", value_name = "N")]
    pub goals: Vec<u8>,
    /// Few and short runs.
    #[arg(long)]
    pub quick: bool,
    /// Where the file of goal 2 is made: on a disk, not in memory.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub folder: PathBuf,
    /// Print the figures as one JSON object.
    #[arg(long)]
    pub json: bool,
}
