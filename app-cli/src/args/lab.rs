//! Arguments of `lab` and `demo`. Not here: the world that they make (`lab`).

use std::path::PathBuf;

use clap::{Args, Subcommand};
use storage_mapping::ByteSize;

use super::{name, size};
use crate::name::Name;

const CREATE_EXAMPLES: &str = "\
Examples:
  diskwire lab create world
      hosts alpha and beta on one file-backed volume, all in ./world
  diskwire lab create world --host a --host b --host c --paths 2
      three hosts that see every device over two paths
  diskwire lab create world --master /dev/sdb --secondary /dev/sdc
      on real devices; what is on them is lost

Then, in two shells:
  diskwire -c world/beta.toml serve
  diskwire -c world/alpha.toml cp FILE beta:inbox/";

const DEMO_EXAMPLES: &str = "\
Examples:
  diskwire demo            the program itself goes from host to host
  diskwire demo big.iso    your file instead
  diskwire demo --keep     keep the folder, to look at what is in it";

/// Small worlds to try things in.
#[derive(Args, Clone, Debug)]
pub struct LabArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: LabCommand,
}

/// The commands of `lab`.
#[derive(Clone, Debug, Subcommand)]
#[expect(missing_docs, reason = "described at its arguments, where its help comes from")]
pub enum LabCommand {
    Create(LabCreateArgs),
}

/// Makes a complete small world in one folder.
///
/// Devices, a volume on them, keys, and a configuration for each host.
#[derive(Args, Clone, Debug)]
#[command(after_help = CREATE_EXAMPLES)]
pub struct LabCreateArgs {
    /// The folder: a new one, or an empty one.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// A host of the world, once for each [default: alpha beta].
    #[arg(long = "host", value_name = "NAME", value_parser = name)]
    pub hosts: Vec<Name>,
    /// Devices for data beside the master; 0 puts the data on the master.
    #[arg(long, value_name = "N", default_value_t = 2, conflicts_with = "master")]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=61))]
    pub secondaries: u16,
    /// Paths to every device, all over the same file.
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=16))]
    pub paths: u16,
    /// Size of all devices together.
    #[arg(long, value_name = "BYTES", default_value = "512MiB", value_parser = size)]
    #[arg(conflicts_with = "master")]
    pub size: ByteSize,
    /// Commands that may run on a host at once, beside its `serve`.
    #[arg(long, value_name = "P", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=63))]
    pub lanes: u16,
    /// Use this block device or file as the master, instead of making files.
    #[arg(long, value_name = "DEV")]
    pub master: Option<PathBuf>,
    /// Use this one for data, once for each.
    #[arg(long = "secondary", value_name = "DEV", requires = "master")]
    pub secondary: Vec<PathBuf>,
    /// Lay out this device although something is on it, once for each.
    #[arg(long, value_name = "DEV", requires = "master")]
    pub force: Vec<PathBuf>,
}

/// Shows a transfer from nothing: a lab, two hosts, one file, the proof; cleans up.
#[derive(Args, Clone, Debug)]
#[command(after_help = DEMO_EXAMPLES)]
pub struct DemoArgs {
    /// The file to carry [default: the program itself].
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Keep the folder and say where it is.
    #[arg(long)]
    pub keep: bool,
}
