//! Reservations on N paths with k of them down, in random schedules beside a model (goal 19): once all paths are back,
//! READ FULL STATUS is what the model says, and no I/O met a path without its key.
//!
//! One path at least answers at any time, and an operation begins once every path that answers is in use; those that do
//! not may still be taken for such. It is asked for once, with a minute's time, and has to be done. Where a target keeps
//! the registrations of nexuses that are gone, keys are counted once. Not here: commands that are lost with their
//! connection and land after the path has got its key again (`reset` of a link).

mod out_of_band_support;

use std::time::Duration;

use multipath::PathState;
use multipath::out_of_band::{ReservationOperation, ReservationOutcome, ReservationResult};
use out_of_band_support::{Bench, KIND, PATIENCE};
use storage_mapping::BlockDevice;
use storage_mapping::device::storage_system::CommandFault;

const BASE: u64 = 0x1000;

/// Numbers that look random and are the same for the same seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, count: u64) -> u64 {
        self.next() % count
    }
}

fn reserve(bench: &mut Bench, operation: ReservationOperation) -> ReservationOutcome {
    let id = bench.device.submit_reservation(bench.now, operation, PATIENCE * 6);
    let end = bench.now + PATIENCE * 7;
    loop {
        bench.turn();
        if let Some(outcome) = bench.device.poll_reservation(bench.now) {
            assert_eq!(outcome.id, id);
            return outcome;
        }
        assert!(bench.now < end, "nothing long after the deadline");
        bench.step(end);
    }
}

#[test]
fn an_operation_that_ends_while_commands_are_fetched_wakes_who_waits_for_it() {
    let mut bench = Bench::new(2, "target registrations=name");
    bench.device.submit_reservation(bench.now, ReservationOperation::Register { base: BASE }, PATIENCE);
    let end = bench.now + PATIENCE;
    // Two registrations, and the keys that are read.
    while bench.device.command_records().count() < 3 {
        assert!(bench.now < end, "it does not end");
        bench.turn();
        assert_eq!(bench.device.poll_command(bench.now), None);
        bench.step(end);
    }
    assert!(bench.device.next_wakeup().is_some_and(|at| at <= bench.now), "nobody comes for it");
    assert!(bench.device.poll_reservation(bench.now).is_some());
}

/// What the target should hold for this host.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Model {
    is_registered: bool,
    is_reserved: bool,
}

impl Model {
    fn apply(&mut self, operation: ReservationOperation) {
        match operation {
            ReservationOperation::Register { .. } => self.is_registered = true,
            ReservationOperation::Reserve { .. } => self.is_reserved = true,
            ReservationOperation::Release => self.is_reserved = false,
            ReservationOperation::Unregister | ReservationOperation::Clear => *self = Self::default(),
            ReservationOperation::Preempt { .. } => {}
        }
    }
}

fn is_in_use(state: PathState) -> bool {
    matches!(state, PathState::Active | PathState::Isolated)
}

/// Until every path that answers is in use, which one that hangs does not keep it from.
fn wait_for_live(bench: &mut Bench, down: &[bool], history: &[String], seed: u64) {
    let end = bench.now + Duration::from_secs(60);
    let is_out = |(path, is_down): (_, &bool)| !is_down && !is_in_use(path);
    while bench.device.status().iter().map(|path| path.state).zip(down).any(is_out) {
        assert!(
            bench.now < end,
            "seed {seed}: a path that answers is not in use: {history:#?}\n{:#?}",
            bench.device.explanation().events().collect::<Vec<_>>()
        );
        bench.wait(Duration::from_secs(1));
    }
}

fn schedule(seed: u64) {
    let mut chance = Chance(seed);
    let paths = 2 + chance.below(7) as usize;
    let kept = if chance.below(2) == 0 { "target registrations=name" } else { "target registrations=login" };
    let mut bench = Bench::new(paths, kept);
    let mut model = Model::default();
    let mut down = vec![false; paths];
    let mut history = Vec::new();
    for _ in 0..8 {
        let path = chance.below(paths as u64) as usize;
        let has_other = (0..paths).any(|other| other != path && !down[other]);
        let change = match chance.below(6) {
            0 if has_other && !down[path] => "down",
            1 if has_other && !down[path] => "dead",
            2 if has_other && !down[path] => "hang forever",
            3 | 4 if down[path] => "clear",
            5 if has_other && !down[path] => "end-nexus",
            _ => "",
        };
        if !change.is_empty() {
            bench.apply(&format!("path host1/p{path}/v0 {change}"));
            down[path] = change != "clear" && change != "end-nexus";
            history.push(format!("{path} {change}"));
        }
        if change == "clear" || change == "end-nexus" {
            // As soon as the layer can know: a path that has lost its key, or may have, must not carry it.
            bench.turn();
            let done = bench.io(true, Duration::from_secs(90)).map(|done| done.outcome);
            assert_eq!(done, Some(Ok(())), "seed {seed}: {history:#?}");
        }
        // What hangs may still be taken for a path in use; what answers is one soon.
        bench.wait(Duration::from_secs(3));
        wait_for_live(&mut bench, &down, &history, seed);
        let operation = match chance.below(6) {
            0 | 1 => ReservationOperation::Register { base: BASE },
            2 | 3 if model.is_registered => ReservationOperation::Reserve { kind: KIND },
            4 if model.is_registered => ReservationOperation::Release,
            5 if model.is_registered => ReservationOperation::Unregister,
            _ => continue,
        };
        let outcome = reserve(&mut bench, operation);
        history.push(format!("{operation:?}: {:?}", outcome.result));
        assert_eq!(outcome.result, ReservationResult::Done, "seed {seed}: {history:#?} {outcome:#?}");
        model.apply(operation);
        let done = bench.io(true, Duration::from_secs(90));
        let outcome = done.map(|done| done.outcome);
        assert_eq!(
            outcome,
            Some(Ok(())),
            "seed {seed}: {history:#?}\n{}",
            bench.system.event_lines().join("\n")
        );
    }
    for (path, _) in down.iter().enumerate().filter(|(_, is_down)| **is_down) {
        bench.apply(&format!("path host1/p{path}/v0 clear"));
    }
    bench.wait(Duration::from_secs(120));
    assert!(bench.device.status().iter().all(|path| is_in_use(path.state)), "seed {seed}: {history:#?}");
    let keys: Vec<u64> =
        if model.is_registered { (0..paths as u64).map(|path| BASE + path).collect() } else { Vec::new() };
    let mut found = bench.keys();
    if kept.ends_with("login") {
        // Such a target keeps the registrations of nexuses that are gone; their keys are the same.
        found.dedup();
    }
    assert_eq!(found, keys, "seed {seed}: {history:#?}\n{}", bench.system.event_lines().join("\n"));
    assert_eq!(bench.holder().is_some(), model.is_reserved, "seed {seed}: {history:#?}");
    let lines = bench.system.event_lines();
    let name = |line: &str| line.split(' ').skip(2).take(2).collect::<Vec<_>>().join(" ");
    // What was sent over a path that hung lands late, and is to find no key.
    let was_held = |of: &str| lines.iter().any(|line| name(line) == of && line.ends_with(" held"));
    for line in lines.iter().filter(|line| line.contains("failed: SCSI status 18h")) {
        assert!(
            was_held(&name(line)),
            "seed {seed}: a path without its key: {line}\n{history:#?}\n{}",
            lines.join("\n")
        );
    }
}

#[test]
fn reservations_on_paths_of_which_some_are_down_end_as_the_model_says() {
    let count = if std::env::var_os("DISKWIRE_FULL").is_some() { 10_000 } else { 300 };
    let first = std::env::var("DISKWIRE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    (first..first + count).for_each(schedule);
}

#[test]
fn what_may_still_land_changes_nothing_behind_a_later_operation() {
    let mut bench = Bench::new(2, "");
    assert_eq!(
        reserve(&mut bench, ReservationOperation::Register { base: BASE }).result,
        ReservationResult::Done
    );
    bench.apply("path host1/p0/v0 hang forever");
    // Over the path that hangs first, as that is not known yet.
    let outcome = reserve(&mut bench, ReservationOperation::Reserve { kind: KIND });
    assert_eq!(outcome.result, ReservationResult::Done);
    let steps: Vec<usize> = outcome.steps.iter().map(|(path, _)| path.0).collect();
    assert_eq!(steps[..2], [0, 1], "{outcome:?}");
    assert_eq!(bench.keys(), [BASE + 1], "what comes over path 0 is to conflict");
    assert_eq!(reserve(&mut bench, ReservationOperation::Release).result, ReservationResult::Done);
    bench.apply("path host1/p0/v0 clear");
    bench.wait(Duration::from_secs(60));
    assert_eq!(bench.holder(), None, "the RESERVE of before did not land");
    assert_eq!(bench.keys(), [BASE, BASE + 1]);
}

#[test]
fn a_path_whose_key_takes_its_time_to_come_back_carries_nothing_meanwhile() {
    let mut bench = Bench::new(2, "target registrations=login");
    let operations =
        [ReservationOperation::Register { base: BASE }, ReservationOperation::Reserve { kind: KIND }];
    for operation in operations {
        assert_eq!(reserve(&mut bench, operation).result, ReservationResult::Done);
    }
    bench.apply("path host1/p1/v0 end-nexus");
    bench.turn();
    // The registration is put back after a second; the path answers probes at once.
    bench.arm(1, 0x5f, CommandFault::Hang(Some(Duration::from_secs(1))));
    let end = bench.now + Duration::from_secs(3);
    let mut count = 0;
    while bench.now < end {
        let done = bench.io(true, Duration::from_secs(1)).expect("the other path carries it");
        assert_eq!(done.outcome, Ok(()));
        bench.wait(Duration::from_millis(10));
        count += 1;
    }
    let lines = bench.system.event_lines();
    assert!(!lines.iter().any(|line| line.contains("failed: SCSI status 18h")), "{}", lines.join("\n"));
    assert!(count > 100 && lines.iter().any(|line| line.contains("host1/p1/v0") && line.contains("landed")));
    assert_eq!(bench.device.status()[1].state, PathState::Active);
}
