//! `diskwire bench file`: one large file.
//!
//! Not here: how a copy is timed (`arena`), what is made of it (`standing`).

use storage_mapping::ByteSize;
use system_tests::multipath_goals::figure::Target;

use super::super::report::{Report, Row};
use super::arena::Arena;
use super::content::make_file;
use super::contestant::Contestant;
use super::fio::{self, Ceiling};
use super::standing::{Amount, Goal, Run, Standing};
use super::{chosen, described};
use crate::args::bench::BenchFileArgs;
use crate::command::CommandError;
use crate::exit::Exit;

/// Size of the file, and for a look.
const BYTES: u64 = 2 << 30;
const BYTES_QUICK: u64 = 32 << 20;
/// Who is compared, in this order.
const OTHERS: [Contestant; 5] =
    [Contestant::Scp, Contestant::RsyncWhole, Contestant::RsyncArchive, Contestant::Tar, Contestant::Nbdcopy];
/// What is aimed at, of a file of at least [`BYTES`] in memory.
const GOALS: [Goal; 2] = [
    Goal { contestant: Contestant::Scp, time: Some(4.0), cpu: Some(2.0) },
    Goal { contestant: Contestant::RsyncWhole, time: Some(5.0), cpu: None },
];
/// What is aimed at of what fio gets, the volume on a disk.
const OF_CEILING_MIN: f64 = 0.9;

pub(in super::super) fn run(args: &BenchFileArgs) -> Result<Exit, CommandError> {
    let default = if args.compare.quick { BYTES_QUICK } else { BYTES };
    let size = args.size.unwrap_or(ByteSize(default));
    let (contestants, missing) = chosen(&args.compare, &OTHERS);
    let mut arena = Arena::new(&args.compare, &contestants, |path| make_file(path, size.0))?;
    let is_on_disk = !arena.places().is_volume_in_memory();
    let has_ceiling = is_on_disk && fio::is_there();
    let mut ceilings = Vec::new();
    let rounds = if args.compare.quick { 1 } else { args.compare.rounds };
    let runs = arena.rounds(rounds, &contestants, |places| {
        if has_ceiling {
            ceilings.push(fio::measure(places.volume(), args.compare.quick)?);
        }
        Ok(())
    })?;
    let is_in_memory = !is_on_disk && arena.places().are_ends_in_memory();
    let is_judged = is_in_memory && size.0 >= BYTES && !args.compare.quick;
    let standing = Standing {
        contestants: &contestants,
        runs: &runs,
        amount: Amount::Bytes(size.0),
        goals: if is_judged { &GOALS } else { &[] },
    };
    let mut rows = standing.rows();
    rows.extend(standing.ours());
    rows.extend(standing.ratios());
    // With source and target on the same disk it has more to do than to write and to read the volume.
    let is_ceiling_judged = arena.places().are_ends_in_memory() && !args.compare.quick;
    rows.extend(ceiling_rows(&ceilings, &runs[0], size, is_ceiling_judged));
    let mut conditions = described(&args.compare, &arena, &contestants, rounds, &format!("a file of {size}"));
    conditions.extend(missing);
    if has_ceiling {
        conditions.push("fio: a writer and a reader at once, O_DIRECT, 1 MiB, depth 16 each;".to_owned());
        conditions.push("its ceiling is the half of both rates together".to_owned());
    } else if is_on_disk {
        conditions.push("not measured: the ceiling of the disk, fio is not installed".to_owned());
    }
    Report { bench: "file", conditions, rows, quick: args.compare.quick }.finish(args.compare.json)
}

/// What fio got, and what of it diskwire got in the same round.
fn ceiling_rows(ceilings: &[Ceiling], diskwire: &[Run], size: ByteSize, is_judged: bool) -> Vec<Row> {
    if ceilings.is_empty() {
        return Vec::new();
    }
    let of = |value: &dyn Fn(&Ceiling) -> f64| ceilings.iter().map(value).collect::<Vec<_>>();
    let mib = size.0 as f64 / f64::from(1 << 20);
    let ratio = ceilings.iter().zip(diskwire).map(|(ceiling, run)| mib / run.seconds / ceiling.through());
    let ratio = Row::new("diskwire / ceiling", "", ratio.collect());
    vec![
        Row::new("fio, writer", "MiB/s", of(&|ceiling| ceiling.write)),
        Row::new("fio, reader", "MiB/s", of(&|ceiling| ceiling.read)),
        if is_judged { ratio.with_goal(Target::AtLeast(OF_CEILING_MIN)) } else { ratio },
    ]
}
