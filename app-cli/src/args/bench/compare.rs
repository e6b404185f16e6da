//! Arguments of the measurements of whole processes, of their comparison with other programs, and of the charts.
//!
//! Not here: what is measured (`command::bench::compare`).

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use storage_mapping::ByteSize;

use crate::args::size;

const FILE_EXAMPLES: &str = "\
Examples:
  diskwire bench file
  diskwire bench file --compare
      the same file by scp, rsync, tar | ssh and nbdcopy, in turns
  diskwire bench file --compare --folder /mnt/disk --sync
  diskwire bench file --folder /mnt/disk --ends /dev/shm
      the volume on a disk, beside what fio writes and reads there at once

The exit code is 1 if a goal is missed. Copies are verified; that is not timed.";

const SMALL_FILES_EXAMPLES: &str = "\
Examples:
  diskwire bench small-files
  diskwire bench small-files --compare
      the same tree by rsync -a, rsync -a --fsync and tar | ssh, in turns
  diskwire bench small-files --files 2000 --bytes 64KiB --folder /mnt/disk

The exit code is 1 if a goal is missed. Copies are verified; that is not timed.";

const CHARTS_EXAMPLES: &str = "\
Examples:
  diskwire bench file --compare --json > file.json
  diskwire bench charts --out pictures file.json
      makes pictures/file.svg
  diskwire bench charts --unit s --unit ratio file.json";

const METER_EXAMPLES: &str = "\
Examples:
  diskwire bench meter -- sleep 1
  diskwire bench meter --daemon -- diskwire -c beta.toml serve < pipe";

/// What both comparisons take.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// How often each is measured, in turns.
    #[arg(long, value_name = "N", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rounds: u16,
    /// Where source, volume and target lie; in memory if it is not given.
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Where source and target lie, if not where the volume lies.
    #[arg(long, value_name = "DIR")]
    pub ends: Option<PathBuf>,
    /// Measure the other programs too, each that is installed.
    #[arg(long)]
    pub compare: bool,
    /// Count a sync of the target's file system too, in rows of its own.
    ///
    /// What diskwire has copied is on the disk when it ends; of the other
    /// programs this is so after the sync.
    #[arg(long)]
    pub sync: bool,
    /// One round of little: to see that it works.
    #[arg(long)]
    pub quick: bool,
    /// Print the figures as one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Measures one large file from host to host: time, CPU, memory.
#[derive(Args, Clone, Debug)]
#[command(after_help = FILE_EXAMPLES)]
pub struct BenchFileArgs {
    /// Size of the file [default: 2GiB; with --quick 32MiB].
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub size: Option<ByteSize>,
    /// What both comparisons take.
    #[command(flatten)]
    pub compare: CompareArgs,
}

/// Measures a tree of small files from host to host, every file committed.
#[derive(Args, Clone, Debug)]
#[command(after_help = SMALL_FILES_EXAMPLES)]
pub struct BenchSmallFilesArgs {
    /// How many files [default: 20000; with --quick 300].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub files: Option<u32>,
    /// Size of each.
    #[arg(long, value_name = "BYTES", default_value = "4096", value_parser = size)]
    pub bytes: ByteSize,
    /// What both comparisons take.
    #[command(flatten)]
    pub compare: CompareArgs,
}

/// Draws the bars of former measurements as SVG, a file for each report.
#[derive(Args, Clone, Debug)]
#[command(after_help = CHARTS_EXAMPLES)]
pub struct BenchChartsArgs {
    /// Where the pictures go, named as the reports.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
    /// Draw the rows of this unit only, of ratios by `ratio`; may be repeated.
    #[arg(long = "unit", value_name = "UNIT")]
    pub units: Vec<String>,
    /// What `diskwire bench ... --json` printed.
    #[arg(value_name = "REPORT", required = true)]
    pub reports: Vec<PathBuf>,
}

/// Runs a program and prints what it and all that it started cost.
///
/// The other measurements run what they measure in this way: so the CPU time
/// of a process that outlives its parent is counted too.
#[derive(Args, Clone, Debug)]
#[command(after_help = METER_EXAMPLES)]
pub struct BenchMeterArgs {
    /// End the program by SIGTERM when standard input ends.
    #[arg(long)]
    pub daemon: bool,
    /// The program and its arguments.
    #[arg(value_name = "PROGRAM", required = true, last = true)]
    pub program: Vec<OsString>,
}
