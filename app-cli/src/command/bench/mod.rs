//! `diskwire bench`: figures of this program on this machine.
//!
//! Not here: what is measured (`compare` for whole processes, and `multipath` with the goals of the package `system-tests`), what
//! the figures mean (`docs/performance.md`).

mod bare;
mod channel;
mod charts;
mod compare;
mod counted;
mod crypto;
mod disks;
mod idle;
mod latency;
mod memory_store;
mod multipath;
mod report;
mod rounds;
mod scaling;
mod virtual_time;
mod world;

use super::CommandError;
use crate::args::bench::{BenchArgs, BenchCommand};
use crate::exit::Exit;

pub(super) fn run(args: &BenchArgs) -> Result<Exit, CommandError> {
    match &args.command {
        BenchCommand::Channel(args) => channel::run(args),
        BenchCommand::Charts(args) => charts::run(args),
        BenchCommand::Crypto(args) => crypto::run(args),
        BenchCommand::File(args) => compare::file::run(args),
        BenchCommand::Idle(args) => idle::run(args),
        BenchCommand::Latency(args) => latency::run(args),
        BenchCommand::Meter(args) => compare::meter::run(args),
        BenchCommand::Multipath(args) => multipath::run(args),
        BenchCommand::Scaling(args) => scaling::run(args),
        BenchCommand::SmallFiles(args) => compare::small_files::run(args),
    }
}
