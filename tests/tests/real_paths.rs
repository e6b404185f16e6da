//! One device over real servers, failed on purpose: nothing is lost or wrong, nothing fails while one path is good,
//! and no request waits without end.
//!
//! The bounds on times are ten times what the program `real-paths` shows on an idle machine: here a machine with other
//! things to do must pass, too. Skipped where nbdkit or qemu-nbd is missing; `DISKWIRE_NO_SKIP=1` makes that a failure.

use std::path::PathBuf;
use std::time::Duration;

use storage_mapping::FencePolicy;
use system_tests::real_paths::drill::{ATTEMPT_TIMEOUT, Drill};
use system_tests::real_paths::figures::Figures;
use system_tests::real_paths::ghost::{self, Ghost};
use system_tests::real_paths::stage::RelayProgram;
use system_tests::real_paths::{Fault, Layout, missing_program, skip};

/// How much longer than on an idle machine things may take.
const SLACK: u32 = 10;

fn relay() -> RelayProgram {
    RelayProgram { program: PathBuf::from(env!("CARGO_BIN_EXE_relay")), arguments: Vec::new() }
}

/// One drill of each; checks what must hold for every fault.
fn drill(test: &str, drills: &[(Fault, Layout)]) -> Option<Figures> {
    if let Some(reason) = missing_program() {
        skip(test, &reason);
        return None;
    }
    let mut figures = Figures::default();
    for (seed, (fault, layout)) in (0..).zip(drills.iter().copied()) {
        let outcome = Drill { layout, fault, seed }.run(&relay()).expect("the device gets on");
        let name = layout.name;
        assert_eq!(outcome.wrong, Vec::<String>::new(), "{fault}, {name}");
        assert_eq!(outcome.errors, Vec::<String>::new(), "{fault}, {name}");
        assert_eq!(outcome.late_landings, 0, "{fault}, {name}");
        assert!(outcome.blocks_checked > 4096, "all blocks at the end, and some before");
        let is_after = outcome.done.iter().any(|done| done.submitted > outcome.heal_at);
        assert!(is_after, "{fault}, {name}: the load goes on to the end");
        figures.add(&outcome);
    }
    Some(figures)
}

#[test]
fn what_dies_is_noticed_at_once() {
    let drills = [
        (Fault::RelayKilled, Layout::ONE_NBDKIT),
        (Fault::RelayCut, Layout::NBDKIT_AND_QEMU),
        (Fault::ServerKilled, Layout::TWO_NBDKIT),
        (Fault::ServerKilled, Layout::NBDKIT_AND_QEMU),
        (Fault::ServerKilled, Layout::FILE_AND_NBDKIT),
    ];
    let Some(figures) = drill("what_dies_is_noticed_at_once", &drills) else { return };
    assert!(figures.times.resubmit.count() > 0, "requests were on the paths that died");
    let resubmit = figures.times.resubmit.quantile(0.99).expect("some");
    assert!(resubmit <= SLACK * Duration::from_millis(1), "{resubmit:?}");
    // Without a time-out, or with a few that a busy machine makes.
    let stuck = figures.stuck.iter().max().expect("some");
    assert!(*stuck <= SLACK * ATTEMPT_TIMEOUT, "{:?}", figures.stuck);
}

#[test]
fn what_hangs_is_given_up_on_in_time_and_its_late_copies_do_no_harm() {
    let drills = [
        (Fault::ServerStopped, Layout::TWO_NBDKIT),
        (Fault::ServerStopped, Layout::NBDKIT_AND_QEMU),
        (Fault::ServerStopped, Layout::FILE_AND_NBDKIT),
        (Fault::RelayPaused, Layout::ONE_NBDKIT),
    ];
    let test = "what_hangs_is_given_up_on_in_time_and_its_late_copies_do_no_harm";
    let Some(figures) = drill(test, &drills) else { return };
    assert!(figures.times.detect.max() >= ATTEMPT_TIMEOUT, "something did hang");
    assert!(figures.ghosts > 0, "and writes landed late");
    let slowest = figures.slowest.iter().max().expect("some");
    assert!(*slowest <= SLACK * ATTEMPT_TIMEOUT * 5 / 4, "{:?}", figures.slowest);
}

#[test]
fn what_is_slow_gets_less() {
    let drills = [(Fault::Throttled, Layout::ONE_NBDKIT), (Fault::Delayed, Layout::ONE_NBDKIT)];
    let Some(figures) = drill("what_is_slow_gets_less", &drills) else { return };
    for [before, after] in figures.shares {
        assert!(before > 0.1 && after < before / 2.0, "share of the slow path: {before} and then {after}");
    }
}

#[test]
fn an_old_write_lands_on_newer_data_where_nothing_holds_that_one() {
    let test = "an_old_write_lands_on_newer_data_where_nothing_holds_that_one";
    if let Some(reason) = missing_program() {
        return skip(test, &reason);
    }
    let unfenced = ghost::make(&relay(), FencePolicy::Unsafe).expect("it happens");
    assert_eq!(unfenced, Ghost { was_held: false, was_read_back: true, is_newer: false });
    let fenced = ghost::make(&relay(), FencePolicy::Fence).expect("it happens");
    assert_eq!(fenced, Ghost { was_held: true, was_read_back: false, is_newer: true });
}
