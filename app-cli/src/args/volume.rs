//! Arguments of `volume`. Not here: VOLUME.toml (`config::volume`).

use std::path::PathBuf;

use clap::{Args, Subcommand};

const CREATE_EXAMPLES: &str = "\
Example:
  diskwire volume create VOLUME.toml
      prints the volume's id and the admin's public key for each HOST.toml

VOLUME.toml:
  admin_key = \"admin.key\"             # made by `diskwire keygen --admin`
  segment_size = \"1MiB\"
  connections = 8                     # of one lane, each way
  lanes = 7                           # commands at once, beside `serve`
  [[device]]                          # the first is the master
  id = \"disk0\"
  paths = [\"block:/dev/disk/by-id/wwn-0x5000c500a1b2c3d4\"]
  [[host]]
  name = \"alpha\"
  key = \"64 hex digits: what `diskwire keygen` printed on alpha\"

A device in use, or with a partition table or file system on it, is refused;
--force DEVICE lays it out all the same, and what was on it is lost.";

const INSPECT_EXAMPLES: &str = "\
Examples:
  diskwire volume inspect VOLUME.toml
  diskwire -c alpha.toml volume inspect --json";

const CHECK_EXAMPLES: &str = "\
Examples:
  diskwire volume check VOLUME.toml && echo sound
  diskwire -c alpha.toml volume check --json";

/// Lays out, prints and verifies transfer volumes.
#[derive(Args, Clone, Debug)]
pub struct VolumeArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: VolumeCommand,
}

/// The commands of `volume`.
#[derive(Clone, Debug, Subcommand)]
#[expect(missing_docs, reason = "described at their arguments, where their help comes from")]
pub enum VolumeCommand {
    Create(VolumeCreateArgs),
    Inspect(VolumeInspectArgs),
    Check(VolumeCheckArgs),
}

/// Lays out a volume on the devices of VOLUME.toml.
///
/// What was on them is lost.
#[derive(Args, Clone, Debug)]
#[command(after_help = CREATE_EXAMPLES)]
pub struct VolumeCreateArgs {
    /// The volume's configuration [default: that of -c].
    #[arg(value_name = "VOLUME.toml")]
    pub volume: Option<PathBuf>,
    /// Lay out this device although something is on it, once for each.
    #[arg(long, value_name = "DEVICE")]
    pub force: Vec<PathBuf>,
    /// Print the result as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Prints the tables of a volume, field by field.
#[derive(Args, Clone, Debug)]
#[command(after_help = INSPECT_EXAMPLES)]
pub struct VolumeInspectArgs {
    /// VOLUME.toml or HOST.toml [default: that of -c].
    #[arg(value_name = "FILE")]
    pub volume: Option<PathBuf>,
    /// Print the tables as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Verifies every structure of a volume; changes nothing.
#[derive(Args, Clone, Debug)]
#[command(after_help = CHECK_EXAMPLES)]
pub struct VolumeCheckArgs {
    /// VOLUME.toml or HOST.toml [default: that of -c].
    #[arg(value_name = "FILE")]
    pub volume: Option<PathBuf>,
    /// Print the findings as one JSON object.
    #[arg(long)]
    pub json: bool,
}
