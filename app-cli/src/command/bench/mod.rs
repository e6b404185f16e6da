//! `diskwire bench`: figures of this program on this machine.
//!
//! Not here: what is measured (`transfer`, and `multipath` with the goals of the package `system-tests`), what the figures mean
//! (`docs/performance.md`).

mod multipath;
mod report;
mod transfer;

use super::CommandError;
use crate::args::bench::{BenchArgs, BenchCommand};
use crate::exit::Exit;

pub(super) fn run(args: &BenchArgs) -> Result<Exit, CommandError> {
    match &args.command {
        BenchCommand::Multipath(args) => multipath::run(args),
        BenchCommand::Transfer(args) => transfer::run(args),
    }
}
