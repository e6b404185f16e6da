//! `diskwire bench small-files`: a tree of small files, each published with the full commit protocol.
//!
//! Not here: how a copy is timed (`arena`), what is made of it (`standing`).

use super::super::report::Report;
use super::arena::Arena;
use super::content::make_tree;
use super::contestant::Contestant;
use super::standing::{Amount, Goal, Standing};
use super::{chosen, described};
use crate::args::bench::BenchSmallFilesArgs;
use crate::command::CommandError;
use crate::exit::Exit;

/// How many files, and for a look.
const FILES: u32 = 20_000;
const FILES_QUICK: u32 = 300;
/// Size of those that the goals are about.
const BYTES: u64 = 4096;
/// Who is compared, in this order.
const OTHERS: [Contestant; 3] = [Contestant::RsyncFsync, Contestant::RsyncArchive, Contestant::Tar];
/// What is aimed at, of at least [`FILES`] of [`BYTES`].
const GOALS: [Goal; 2] = [
    Goal { contestant: Contestant::RsyncFsync, time: Some(2.0), cpu: None },
    Goal { contestant: Contestant::RsyncArchive, time: Some(1.0), cpu: None },
];

pub(in super::super) fn run(args: &BenchSmallFilesArgs) -> Result<Exit, CommandError> {
    let quick = args.compare.quick;
    let files = args.files.unwrap_or(if quick { FILES_QUICK } else { FILES });
    let (contestants, missing) = chosen(&args.compare, &OTHERS);
    let mut arena = Arena::new(&args.compare, &contestants, |path| make_tree(path, files, args.bytes.0))?;
    let rounds = if quick { 1 } else { args.compare.rounds };
    let runs = arena.rounds(rounds, &contestants, |_| Ok(()))?;
    let is_judged = files >= FILES && args.bytes.0 == BYTES && !quick;
    let standing = Standing {
        contestants: &contestants,
        runs: &runs,
        amount: Amount::Files(files),
        goals: if is_judged { &GOALS } else { &[] },
    };
    let mut rows = standing.rows();
    rows.extend(standing.ours());
    rows.extend(standing.ratios());
    let what = format!("{files} files of {} in folders of 100, diskwire cp -r -p", args.bytes);
    let mut conditions = described(&args.compare, &arena, &contestants, rounds, &what);
    conditions.extend(missing);
    Report { bench: "small-files", conditions, rows, quick }.finish(args.compare.json)
}
