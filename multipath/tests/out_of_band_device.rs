//! Control commands over a multipath device: rerouting, path state shared with I/O, attentions once, replay and fence.

mod out_of_band_support;

use std::time::Duration;

use multipath::PathState;
use multipath::out_of_band::{Certainty, CommandRequest, Mode, Rejection, Remark, RouterConfig};
use out_of_band_support::{Bench, KIND, PATIENCE, inquiry, out, raw, register};
use storage_mapping::control_port::{ControlReply, Transfer};
use storage_mapping::device::storage_system::{Attention, CommandFault};
use storage_mapping::scsi::reservations::{ReserveOut, ReserveOutAction};
use storage_mapping::{ErrorSource, IoError, PathIndex};

const CONFLICT: u8 = 0x18;

fn status(reply: Option<&ControlReply>) -> Option<u8> {
    match reply? {
        ControlReply::Scsi { status, .. } => Some(*status),
        ControlReply::Nvme { .. } => None,
    }
}

fn timed(bench: &mut Bench, path: usize) -> Duration {
    let start = bench.now;
    let outcome = bench.over(path, inquiry(), Mode::Prefer);
    assert!(outcome.is_done(), "{}", outcome.record);
    bench.now.since(start)
}

/// Goal 17: a portable command with a dead named path, and with one that hangs.
#[test]
fn a_portable_command_is_answered_over_a_live_path() {
    let mut bench = Bench::new(2, "");
    let direct = timed(&mut bench, 1);
    assert_eq!(direct, Duration::from_millis(1));
    bench.apply("path host1/p0/v0 dead");
    bench.wait(Duration::from_secs(3));
    assert_ne!(bench.device.status()[0].state, PathState::Active, "probes find it");
    let mut worst = Duration::ZERO;
    for _ in 0..100 {
        worst = worst.max(timed(&mut bench, 0));
    }
    assert!(worst <= direct * 12 / 10, "{worst:?} for {direct:?}");
    let record = bench.over(0, inquiry(), Mode::Prefer).record;
    assert_eq!((record.chosen, record.named), (Some(PathIndex(1)), Some(PathIndex(0))));
    assert_eq!(record.why_not_named, Some(Rejection::State(PathState::Failed)));

    let mut bench = Bench::new(2, "");
    bench.apply("path host1/p0/v0 hang forever");
    let took = timed(&mut bench, 0);
    let attempt = RouterConfig::default().attempt_timeout;
    assert!(took <= attempt + direct * 12 / 10, "{took:?} for {attempt:?} and {direct:?}");
    // A deadline that is nearer leaves half of its time for the other path; without one, it is the end.
    let mut bench = Bench::new(2, "");
    bench.apply("path host1/p0/v0 hang forever");
    for (mode, is_done) in [(Mode::Prefer, true), (Mode::Exact, false)] {
        let (start, deadline) = (bench.now, attempt / 2);
        let request = CommandRequest::new(inquiry(), Some(PathIndex(0)), deadline).with_mode(mode);
        assert_eq!(bench.run(request).is_done(), is_done);
        let took = bench.now.since(start);
        let bound = if is_done { deadline / 2 + direct * 12 / 10 } else { deadline };
        assert!(took <= bound, "{took:?} in {} for a deadline of {deadline:?}", mode.word());
    }
}

#[test]
fn a_dry_run_sends_nothing_and_exact_takes_no_other_path() {
    let mut bench = Bench::new(2, "");
    let request = CommandRequest::new(inquiry(), Some(PathIndex(1)), PATIENCE);
    let outcome = bench.run(CommandRequest { is_dry_run: true, ..request });
    assert_eq!((outcome.record.chosen, outcome.conclusions.len()), (Some(PathIndex(1)), 0));
    assert_eq!(bench.executions(0x12, None).arrived, 0);
    bench.apply("path host1/p0/v0 hang forever");
    let outcome = bench.over(0, inquiry(), Mode::Exact);
    assert_eq!(outcome.conclusions[0].certainty, Certainty::Unknown);
    assert_eq!(bench.executions(0x12, None).arrived, 0);
}

#[test]
fn a_command_that_shows_a_path_dead_tells_io_so() {
    let mut bench = Bench::new(2, "");
    bench.arm(0, 0x12, CommandFault::NotSent);
    bench.apply("path host1/p0/v0 hang forever");
    assert!(bench.over(0, inquiry(), Mode::Prefer).is_done());
    bench.wait(Duration::from_secs(20));
    assert_ne!(bench.device.status()[0].state, PathState::Active, "no I/O was sent but probes");
}

/// Section 7 of the reference: what a probe takes, the caller gets once.
#[test]
fn an_attention_comes_once_for_the_device_and_once_as_sense() {
    let mut bench = Bench::new(2, "");
    bench.over(0, raw(&[0; 6], Transfer::None), Mode::Prefer);
    bench.over(1, raw(&[0; 6], Transfer::None), Mode::Prefer);
    let mut cursor = 0;
    while bench.device.poll_attention(&mut cursor).is_some() {}
    bench.system.raise_attention("v0", Attention::CAPACITY_CHANGED).unwrap();
    for path in [0, 1] {
        assert!(bench.over(path, raw(&[0; 6], Transfer::None), Mode::Prefer).is_done());
    }
    let first = bench.device.poll_attention(&mut cursor).expect("it was met");
    assert_eq!((first.event.asc, first.event.ascq, first.is_own), (0x2a, 0x09, false));
    assert_eq!(bench.device.poll_attention(&mut cursor), None, "the second path told nothing new");

    // What went before owes its sense to a caller of one path; the first login's too.
    let mut seen = Vec::new();
    for _ in 0..3 {
        let outcome = bench.over(1, raw(&[0; 6], Transfer::None), Mode::Exact);
        if outcome.record.remarks.contains(&Remark::EarlierAttention) {
            let Some(ControlReply::Scsi { sense, .. }) = outcome.reply() else { panic!("a sense") };
            seen.push((sense[12], sense[13]));
        }
    }
    assert_eq!(seen, [(0x29, 0x00), (0x2a, 0x09)]);
}

/// Two paths with the keys 1 and 2.
fn registered() -> Bench {
    let mut bench = Bench::new(2, "");
    for path in 0..2 {
        bench.register(path, path as u64 + 1);
    }
    bench
}

#[test]
fn a_release_over_the_wrong_nexus_goes_to_the_holder_or_is_caught() {
    let release = || out(ReserveOutAction::Release, 2, 0);
    let mut bench = registered();
    assert!(bench.over(1, out(ReserveOutAction::Reserve, 2, 0), Mode::Exact).is_done());
    // Insisting on the wrong nexus: GOOD, and nothing changed.
    let outcome = bench.over(0, out(ReserveOutAction::Release, 1, 0), Mode::Exact);
    assert_eq!(status(outcome.reply()), Some(0));
    assert_eq!(outcome.conclusions[0].certainty, Certainty::NoEffect, "{}", outcome.record);
    assert!(!outcome.is_done());
    assert_eq!(bench.holder(), Some(2));
    let outcome = bench.over(0, release(), Mode::Prefer);
    assert!(outcome.is_done(), "{}", outcome.record);
    assert_eq!(outcome.record.chosen, Some(PathIndex(1)));
    assert_eq!(outcome.record.why_not_named, Some(Rejection::NotHolder(PathIndex(1))));
    assert_eq!(bench.holder(), None);
}

#[test]
fn a_returning_path_has_its_key_before_it_carries_io() {
    let mut bench = Bench::new(2, "target registrations=login");
    for path in 0..2 {
        bench.register(path, path as u64 + 1);
    }
    assert!(bench.over(0, out(ReserveOutAction::Reserve, 1, 0), Mode::Exact).is_done());
    for _ in 0..5 {
        bench.apply("path host1/p1/v0 end-nexus");
        for _ in 0..20 {
            let done = bench.io(true, Duration::from_secs(5)).expect("a path carries it");
            assert_eq!(done.outcome, Ok(()), "no conflict on a path without its key");
        }
        bench.wait(Duration::from_secs(2));
        assert!(!bench.device.nexus_ledger().nexus(PathIndex(1)).is_bare);
    }
    // Five losses within seconds are what flap damping is for.
    let states: Vec<PathState> = bench.device.status().iter().map(|path| path.state).collect();
    assert_eq!(states, [PathState::Active, PathState::Isolated]);
}

#[test]
fn a_device_whose_keys_another_host_took_is_fenced_until_a_caller_registers() {
    let mut bench = registered();
    assert_eq!(bench.io(true, Duration::from_secs(5)).unwrap().outcome, Ok(()));
    let host2 = |key| ReserveOut::new(ReserveOutAction::RegisterAndIgnore, KIND, 0, key).command();
    assert_eq!(status(Some(&bench.watch(host2(9)))), Some(0));
    assert_eq!(
        status(Some(&bench.watch(ReserveOut::new(ReserveOutAction::Reserve, KIND, 9, 0).command()))),
        Some(0)
    );
    for victim in [1, 2] {
        let preempt = ReserveOut::new(ReserveOutAction::Preempt, KIND, 9, victim).command();
        assert_eq!(status(Some(&bench.watch(preempt))), Some(0));
    }
    // The first write meets the unit attention, and then the fence.
    let conflict = |outcome: Result<(), IoError>| {
        matches!(outcome, Err(IoError { source_code: ErrorSource::Scsi { status: CONFLICT, .. } }))
    };
    let done = bench.io(true, Duration::from_secs(5)).expect("an answer");
    assert!(conflict(done.outcome), "{done:?}");
    bench.wait(Duration::from_secs(90));
    assert_eq!(bench.keys(), [9], "nothing was registered on our own account");
    assert!(bench.device.nexus_ledger().is_fenced());
    assert!(conflict(bench.io(true, Duration::from_secs(5)).unwrap().outcome));
    // The caller's attentions come before his answer in `exact`, so that he asks in the default mode.
    let outcome = bench.over(0, register(5), Mode::Prefer);
    assert!(outcome.is_done(), "{}", outcome.record);
    assert!(!bench.device.nexus_ledger().is_fenced());
    assert_eq!(bench.io(true, Duration::from_secs(5)).unwrap().outcome, Ok(()));
}
