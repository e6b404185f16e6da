//! Arguments of `sim`. Not here: the simulator (the package `system-tests`).

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  diskwire sim                           1,000 runs, with a summary
  diskwire sim --seeds 100000            many more
  diskwire sim --seed 42 --trace         one run, a line for each event
  diskwire sim --seeds 5000 --json       the summary for a program

A seed decides everything about its run: hosts, disks, paths, files, and every
fault. The same seed gives the same run on any machine, with the same hash.";

/// Runs the simulator: hosts that share disks, every kind of fault, in virtual
/// time, with the program's own code.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct SimArgs {
    /// How many seeds to run.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// The first of them.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub from: u64,
    /// Run this one seed.
    #[arg(long, value_name = "S", conflicts_with_all = ["seeds", "from"])]
    pub seed: Option<u64>,
    /// Begin no further seed after the first that broke a promise.
    #[arg(long, conflicts_with = "seed")]
    pub stop_at_first: bool,
    /// Show every event of the seed, with its time.
    #[arg(long, requires = "seed")]
    pub trace: bool,
    /// How many run at once [default: one for each processor].
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
    /// One JSON object on standard output instead of text.
    #[arg(long)]
    pub json: bool,
    /// No progress bar.
    #[arg(short, long)]
    pub quiet: bool,
}
