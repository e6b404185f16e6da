//! `diskwire bench`: figures of this program on this machine.
//!
//! Not here: what is measured (`compare` for whole processes, and `multipath` with the goals of the package `system-tests`), what
//! the figures mean (`docs/performance.md`).

mod charts;
mod compare;
mod multipath;
mod report;

use super::CommandError;
use crate::args::bench::{BenchArgs, BenchCommand};
use crate::exit::Exit;

pub(super) fn run(args: &BenchArgs) -> Result<Exit, CommandError> {
    match &args.command {
        BenchCommand::Charts(args) => charts::run(args),
        BenchCommand::File(args) => compare::file::run(args),
        BenchCommand::Meter(args) => compare::meter::run(args),
        BenchCommand::Multipath(args) => multipath::run(args),
        BenchCommand::SmallFiles(args) => compare::small_files::run(args),
    }
}
