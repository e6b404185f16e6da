//! `diskwire bench scaling`: one connection against many at once, and one device against several that are equally slow.
//!
//! Keeps true: the bytes of all connections together are the same for every count, and so are both hosts, so a ratio says what
//! it costs to divide the work; counts take turns in every round. Devices are throttled below the multipath layer, each opening
//! by itself, so that the devices are the limit and not the processor. Not here: one connection beside the bare device (`channel`).

use indicatif::ProgressBar;
use storage_mapping::ByteSize;
use system_tests::multipath_goals::figure::Target;

use super::super::CommandError;
use super::channel::Pair;
use super::disks::Disks;
use super::report::{Report, Row};
use super::rounds::{MIB, peak_memory_mib, processor, reset_peak_memory, spinner};
use super::world::{Extent, SEGMENT_BYTES, World};
use crate::args::bench::BenchScalingArgs;
use crate::exit::Exit;

/// Connections that are measured unless others are asked for.
const CONNECTIONS: [u16; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Devices, likewise.
const SECONDARIES: [u8; 4] = [1, 2, 4, 8];
/// What many connections are to reach together, of one.
const GOAL: f64 = 0.9;
/// Segments of a host: a window, and for each connection what it can always hold.
const SEGMENTS: u64 = 64;
const SEGMENTS_PER_CONNECTION: u64 = 3;

/// Samples of one count.
#[derive(Clone, Default)]
struct Samples {
    rate: Vec<f64>,
    memory: Vec<f64>,
}

/// How much is done.
struct Effort {
    rounds: usize,
    /// Bytes of all connections together.
    size: u64,
}

pub(super) fn run(args: &BenchScalingArgs) -> Result<Exit, CommandError> {
    let spinner = spinner(args.json);
    let size = if args.quick { args.size.0.min(64 << 20) } else { args.size.0 };
    let effort = Effort { rounds: if args.quick { 1 } else { 5 }, size };
    let is_named = !args.connections.is_empty() || !args.secondaries.is_empty();
    let or_all = |named: &[u16], all: &[u16]| if is_named { named.to_vec() } else { all.to_vec() };
    let secondaries: Vec<u16> = args.secondaries.iter().copied().map(u16::from).collect();
    let connections = or_all(&args.connections, &CONNECTIONS);
    let secondaries = or_all(&secondaries, &SECONDARIES.map(u16::from));
    let disks = Disks::new(args.folder.as_deref())?;
    let mut rows = Vec::new();
    let mut conditions = vec![processor()];
    conditions.extend(disks.conditions()?);
    conditions.push(format!("{} rounds of {}, all connections together", effort.rounds, ByteSize(size)));
    if !connections.is_empty() {
        rows.extend(over_connections(&disks, &connections, &effort, &spinner)?);
        conditions.push("connections: all from one host to one other, memory of both hosts".to_owned());
    }
    if !secondaries.is_empty() {
        rows.extend(over_secondaries(&disks, &secondaries, args.rate, &effort, &spinner)?);
        conditions.push(format!("devices: each opening throttled to {} a second", args.rate));
    }
    spinner.finish_and_clear();
    Report { bench: "scaling", conditions, rows, quick: args.quick }.finish(args.json)
}

fn over_connections(
    disks: &Disks,
    counts: &[u16],
    effort: &Effort,
    spinner: &ProgressBar,
) -> Result<Vec<Row>, CommandError> {
    let most = counts.iter().copied().max().unwrap_or(1);
    let segments = SEGMENTS + SEGMENTS_PER_CONNECTION * u64::from(most);
    let extent = Extent { connections: most, segments, secondaries: 1 };
    let world = World::create(&extent, disks.devices("connections", &extent.device_bytes(), "")?)?;
    let mut pair = Pair::start(&world)?;
    spinner.set_message("warming up");
    rate_of(&mut pair, 1, effort.size)?;
    let mut samples = vec![Samples::default(); counts.len()];
    for round in 1..=effort.rounds {
        for (count, samples) in counts.iter().zip(&mut samples) {
            let plural = if *count == 1 { "" } else { "s" };
            spinner.set_message(format!("round {round} of {}: {count} connection{plural}", effort.rounds));
            reset_peak_memory();
            samples.rate.push(rate_of(&mut pair, *count, effort.size)?);
            samples.memory.extend(peak_memory_mib());
        }
    }
    pair.end()?;
    Ok(rows("conn.", counts, samples, Some((most, Target::AtLeast(GOAL)))))
}

fn over_secondaries(
    disks: &Disks,
    counts: &[u16],
    rate: ByteSize,
    effort: &Effort,
    spinner: &ProgressBar,
) -> Result<Vec<Row>, CommandError> {
    let mut pairs = Vec::new();
    for count in counts {
        let extent = Extent { connections: 2, segments: SEGMENTS, secondaries: usize::from(*count) };
        let open = disks.devices(
            &format!("secondaries-{count}"),
            &extent.device_bytes(),
            &format!("?rate={}", rate.0),
        )?;
        pairs.push(Pair::start(&World::create(&extent, open)?)?);
    }
    let mut samples = vec![Samples::default(); counts.len()];
    for round in 1..=effort.rounds {
        for ((count, pair), samples) in counts.iter().zip(&mut pairs).zip(&mut samples) {
            let plural = if *count == 1 { "" } else { "s" };
            spinner.set_message(format!("round {round} of {}: {count} device{plural}", effort.rounds));
            // As long for every count, or nearly: the more devices the more bytes.
            let size = (effort.size / 8).max(32 << 20) * u64::from(*count);
            samples.rate.push(rate_of(pair, 1, size)?);
        }
    }
    pairs.into_iter().try_for_each(Pair::end)?;
    let limit = rate.0 as f64 / MIB;
    let shares = counts.iter().zip(&samples).map(|(count, samples)| {
        let share = samples.rate.iter().map(|rate| rate / limit / f64::from(*count)).collect();
        Row::new(format!("{count} dev., of their rates"), "", share)
    });
    let shares: Vec<_> = shares.collect();
    let mut rows = rows("dev.", counts, samples, None);
    rows.extend(shares);
    Ok(rows)
}

/// Sends `size` bytes over so many connections; MiB a second.
fn rate_of(pair: &mut Pair, count: u16, size: u64) -> Result<f64, CommandError> {
    let segment = u64::from(SEGMENT_BYTES);
    let each = (size / u64::from(count)).max(2 * segment).next_multiple_of(segment);
    let carried = pair.carry(count.into(), each)?;
    Ok(each as f64 * f64::from(count) / MIB / carried.seconds)
}

/// A row for the rate of each count and one for its memory, and the ratios to the first count, round by round.
fn rows(name: &str, counts: &[u16], samples: Vec<Samples>, goal: Option<(u16, Target)>) -> Vec<Row> {
    let (mut rates, mut ratios, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    let first = samples.first().map(|first| first.rate.clone()).unwrap_or_default();
    for (count, samples) in counts.iter().zip(samples) {
        if *count != counts[0] {
            let ratio = samples.rate.iter().zip(&first).map(|(rate, first)| rate / first).collect();
            let row = Row::new(format!("{count} {name} / {} {name}", counts[0]), "", ratio);
            ratios.push(match goal {
                Some((judged, goal)) if judged == *count && counts[0] == 1 => row.with_goal(goal),
                _ => row,
            });
        }
        rates.push(Row::new(format!("{count} {name}"), "MiB/s", samples.rate));
        // The hosts of several volumes live at once: what they hold together says nothing of one.
        if !samples.memory.is_empty() {
            memory.push(Row::new(format!("{count} {name}, memory"), "MiB", samples.memory));
        }
    }
    rates.into_iter().chain(ratios).chain(memory).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_connections_are_judged_against_one_of_the_same_round() {
        let samples = |rate: [f64; 3]| Samples { rate: rate.to_vec(), memory: vec![1.0] };
        let all = vec![samples([10.0, 20.0, 40.0]), samples([20.0, 10.0, 40.0]), samples([9.0, 10.0, 38.0])];
        let found = rows("conn.", &[1, 2, 4], all, Some((4, Target::AtLeast(0.9))));
        assert_eq!(found.len(), 3 + 2 + 3);
        let judged: Vec<_> = found.iter().filter(|row| row.is_met().is_some()).collect();
        assert_eq!(judged.len(), 1);
        assert_eq!((judged[0].median(), judged[0].is_met()), (0.9, Some(true)));
    }
}
