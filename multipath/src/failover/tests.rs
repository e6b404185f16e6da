//! What the failover core decides, step by step.

use nix::errno::Errno;

use super::health::FOREIGN_INTERVAL;
use super::*;
use crate::error_class::{IoKind, RequestFacts, Sent, classify};
use crate::selector::RoundRobin;

const NOW: Instant = Instant::ZERO;
const A: PathIndex = PathIndex(0);
const B: PathIndex = PathIndex(1);

fn over(paths: &[PathConfig]) -> Failover<RoundRobin> {
    let paths: Vec<_> = paths.iter().map(|path| (*path, 32)).collect();
    Failover::new(NOW, &paths, RoundRobin::default(), FailoverConfig::default()).unwrap()
}

/// What an error of a write says.
fn says(source: ErrorSource) -> Classified {
    let facts = RequestFacts { kind: IoKind::Write, sent: Sent::Yes, address_checked: true };
    classify(&source.into(), &facts)
}

/// The request of this number fails over a path. Says whether the path failed with it.
fn fail(core: &mut Failover<RoundRobin>, now: Instant, path: PathIndex, tag: u64, code: Errno) -> bool {
    let source = ErrorSource::Errno(code as i32);
    let was = core.state(path);
    core.handle_error(now, path, (IoTag(tag), now), &says(source), source.into());
    was != core.state(path)
}

fn two_paths() -> Failover<RoundRobin> {
    over(&[PathConfig::default(); 2])
}

fn failed_write(effect: Effect, copy: CopyFate, fence: FencePolicy) -> FailedAttempt {
    let classified = Classified { effect, copy, ..says(ErrorSource::Errno(Errno::EIO as i32)) };
    FailedAttempt { classified, is_write: true, fence, attempts: 1 }
}

#[test]
fn a_write_in_doubt_is_not_sent_again_where_its_sender_wants_to_know() {
    let core = two_paths();
    let doubt = failed_write(Effect::Unknown, CopyFate::MayLand, FencePolicy::Fail);
    assert_eq!(core.judge(&doubt), Verdict::Answer);
    assert_eq!(core.judge(&FailedAttempt { is_write: false, ..doubt }), Verdict::Elsewhere);
    for fence in [FencePolicy::Fence, FencePolicy::Wait, FencePolicy::Unsafe] {
        assert_eq!(core.judge(&FailedAttempt { fence, ..doubt }), Verdict::Elsewhere);
    }
    for fence in [FencePolicy::Fence, FencePolicy::Wait, FencePolicy::Fail, FencePolicy::Unsafe] {
        for (effect, copy) in [(Effect::None, CopyFate::Dead), (Effect::Unknown, CopyFate::Dead)] {
            assert_eq!(core.judge(&failed_write(effect, copy, fence)), Verdict::Elsewhere);
        }
        let answered = failed_write(Effect::Full, CopyFate::Dead, fence);
        assert_eq!(core.judge(&answered), Verdict::Answer);
    }
}

#[test]
fn attempts_have_a_limit() {
    let core = two_paths();
    let classified = says(ErrorSource::Errno(Errno::EAGAIN as i32));
    let attempts = core.config().attempts_max;
    let last = FailedAttempt { classified, is_write: false, fence: FencePolicy::Fence, attempts };
    assert_eq!(core.judge(&last), Verdict::Answer);
    let delay = core.config().busy_delay;
    assert_eq!(core.judge(&FailedAttempt { attempts: 1, ..last }), Verdict::Later(delay));
}

#[test]
fn what_the_storage_side_wants_decides_when_and_where() {
    let core = two_paths();
    let verdict = |source, attempts| {
        core.judge(&FailedAttempt {
            classified: says(source),
            is_write: true,
            fence: FencePolicy::Fence,
            attempts,
        })
    };
    let sense =
        |key, asc, ascq| ErrorSource::Scsi { status: 2, host_status: 0, key, asc, ascq, deferred: false };
    assert_eq!(verdict(sense(6, 0x29, 0), 1), Verdict::Again, "a unit attention");
    assert_eq!(verdict(sense(2, 4, 0x0b), 1), Verdict::Elsewhere, "standby");
    assert_eq!(verdict(sense(5, 0x20, 0), 1), Verdict::Answer, "not supported");
    let later = ErrorSource::Nvme { sct: 0, sc: 0x82, dnr: false, crd: 0 };
    assert!(matches!(verdict(later, 1), Verdict::Later(_)));
}

#[test]
fn a_suspect_path_fails_the_second_time_and_comes_back_by_a_probe_and_a_comparison() {
    let mut core = two_paths();
    assert!(!fail(&mut core, NOW, A, 11, Errno::EIO));
    core.handle_success(NOW, A, IoTag(0));
    assert!(!fail(&mut core, NOW, A, 12, Errno::EIO), "a success forgives");
    assert!(fail(&mut core, NOW, A, 13, Errno::EIO));
    assert_eq!(core.select_path(NOW, PathSet::EMPTY, 1), Some(B));
    assert_eq!(core.select_path(NOW, PathSet::EMPTY, 1), Some(B));
    assert_eq!(core.poll_probe(NOW), None);
    let due = core.next_timeout().unwrap();
    assert_eq!(core.poll_probe(due), Some(A));
    assert_eq!(core.poll_probe(due), None, "one probe at a time");
    core.handle_failed_probe(due, A);
    assert!(core.next_timeout().unwrap() > due);
    core.handle_success(due, A, IoTag(0));
    assert_eq!(core.state(A), PathState::Failed, "what was sent long ago proves nothing");
    assert_eq!(core.poll_probe(due), Some(A), "but a probe is worth while");
    assert_eq!(core.handle_probe_success(due, A, IoTag(0)), AfterProbe::Compare(B));
    core.handle_proof(due, A);
    assert_eq!((core.state(A), core.active().len()), (PathState::Active, 2));
}

#[test]
fn a_path_to_other_data_stays_out_and_is_compared_again() {
    let mut core = two_paths();
    assert!(fail(&mut core, NOW, A, 1, Errno::ENOLINK));
    let due = core.next_timeout().unwrap();
    assert_eq!(core.poll_probe(due), Some(A));
    assert_eq!(core.handle_probe_success(due, A, IoTag(0)), AfterProbe::Compare(B));
    core.handle_foreign(due, A, Reason::Differs(B));
    core.handle_success(due, A, IoTag(0));
    assert_eq!((core.state(A), core.poll_probe(due)), (PathState::Foreign, None));
    let later = due + FOREIGN_INTERVAL;
    assert_eq!(core.poll_probe(later), Some(A));
    assert_eq!(core.handle_probe_success(later, A, IoTag(0)), AfterProbe::Compare(B));
    core.handle_proof(later, A);
    assert_eq!(core.state(A), PathState::Active);
}

#[test]
fn without_another_path_a_probe_is_enough() {
    let mut core = two_paths();
    let later = NOW + Duration::from_millis(100);
    assert!(fail(&mut core, NOW, A, 1, Errno::ENOLINK) && fail(&mut core, later, B, 1, Errno::ENOLINK));
    let due = later + core.config().probe_interval;
    assert_eq!((core.poll_probe(due), core.poll_probe(due)), (Some(A), Some(B)));
    assert_eq!(core.handle_probe_success(due, B, IoTag(0)), AfterProbe::Reinstated);
    assert_eq!(core.handle_probe_success(due, A, IoTag(0)), AfterProbe::Compare(B));
}

#[test]
fn silent_paths_are_checked_and_busy_ones_are_not() {
    let mut core = two_paths();
    let second = |count| NOW + Duration::from_secs(count);
    core.handle_start(second(15), B, 1);
    core.handle_success(second(15), B, IoTag(0));
    assert_eq!(core.next_timeout(), Some(second(20)));
    assert_eq!((core.poll_probe(second(20)), core.poll_probe(second(20))), (Some(A), None));
    assert_eq!(core.handle_probe_success(second(20), A, IoTag(0)), AfterProbe::Nothing);
    assert_eq!(core.next_timeout(), Some(second(35)));
    assert_eq!(core.poll_probe(second(35)), Some(B));
    core.handle_failed_probe(second(35), B);
    // Sixty seconds after the last use it is one check a minute for both together.
    assert_eq!(core.poll_probe(second(36)), Some(B), "after a failure it is seen again soon");
    core.handle_probe_success(second(36), B, IoTag(0));
    for (at, path) in [(140, A), (156, B)] {
        assert_eq!((core.poll_probe(second(at - 1)), core.poll_probe(second(at))), (None, Some(path)));
        core.handle_probe_success(second(at), path, IoTag(0));
    }
}

#[test]
fn what_shares_a_fault_domain_with_a_dead_path_is_probed_at_once() {
    let domain = |number| PathConfig { fault_domain: Some(number), ..PathConfig::default() };
    let paths = [domain(1), domain(1), domain(2)];
    let mut core = over(&paths);
    core.handle_success(NOW, B, IoTag(0));
    assert!(fail(&mut core, NOW, A, 1, Errno::ENOLINK));
    assert_eq!((core.poll_probe(NOW), core.poll_probe(NOW)), (Some(B), None));
    assert_eq!(core.state(B), PathState::Active);
}

#[test]
fn the_better_group_is_used_and_the_other_for_what_it_refused() {
    let paths = [10, 20].map(|priority| PathConfig { priority, ..PathConfig::default() });
    let mut core = over(&paths);
    for _ in 0..4 {
        assert_eq!(core.select_path(NOW, PathSet::EMPTY, 1), Some(B));
    }
    let tried: PathSet = [B].into_iter().collect();
    assert_eq!(core.select_path(NOW, tried, 1), Some(A));
    assert!(core.switch_group(10));
    assert_eq!(core.select_path(NOW, PathSet::EMPTY, 1), Some(A));
}

#[test]
fn the_last_path_fails_only_when_it_is_dead() {
    let mut core = two_paths();
    let later = NOW + Duration::from_secs(1);
    assert!(fail(&mut core, NOW, A, 1, Errno::ENOLINK));
    for tag in 2..12 {
        assert!(!fail(&mut core, later, B, tag, Errno::EIO));
    }
    core.handle_success(later, B, IoTag(12));
    assert!(fail(&mut core, later, B, 13, Errno::ENOLINK));
    assert!(core.select_path(later, PathSet::EMPTY, 1).is_none() && !core.has_path());
}

#[test]
fn what_all_paths_say_at_once_fails_none_of_them() {
    let mut core = two_paths();
    assert!(fail(&mut core, NOW, A, 1, Errno::ECONNREFUSED));
    fail(&mut core, NOW, B, 1, Errno::ECONNREFUSED);
    assert_eq!((core.state(A), core.state(B)), (PathState::Active, PathState::Active));
    assert!(!core.has_path(), "but nothing is sent before one of them answers");
    assert_eq!((core.poll_probe(NOW), core.poll_probe(NOW)), (Some(A), Some(B)));
    core.handle_failed_probe(NOW, A);
    core.handle_failed_probe(NOW, B);
    assert!(!core.has_path());
    // In use and idle, they are asked again all the same: nothing else would end it.
    let due = NOW + core.config().probe_interval;
    assert_eq!((core.poll_probe(due), core.poll_probe(due)), (Some(A), Some(B)));
    assert_eq!(core.handle_probe_success(due, B, IoTag(0)), AfterProbe::Nothing);
    assert!(core.has_path());
}

#[test]
fn a_second_path_that_says_the_same_of_a_request_clears_the_first() {
    let mut core = two_paths();
    let eio = ErrorSource::Errno(Errno::EIO as i32);
    for tag in 0..10 {
        let at = NOW + Duration::from_secs(tag);
        assert!(!core.handle_error(at, A, (IoTag(tag), at), &says(eio), eio.into()));
        assert!(core.handle_error(at, B, (IoTag(tag), at), &says(eio), eio.into()), "it is the answer");
    }
    assert_eq!(core.active().len(), 2);
}

#[test]
fn a_path_on_standby_is_asked_until_it_is_not() {
    let mut core = two_paths();
    let standby = ErrorSource::Scsi { status: 2, host_status: 0, key: 2, asc: 4, ascq: 0xb, deferred: false };
    core.handle_error(NOW, A, (IoTag(1), NOW), &says(standby), standby.into());
    assert_eq!((core.state(A), core.active().len()), (PathState::Standby, 1));
    let due = core.next_timeout().unwrap();
    assert_eq!(core.poll_probe(due), Some(A));
    assert_eq!(core.handle_probe_success(due, A, IoTag(2)), AfterProbe::Compare(B));
    core.handle_proof(due, A);
    assert_eq!(core.state(A), PathState::Active);
}

#[test]
fn a_path_that_flaps_is_used_only_where_no_other_is_left() {
    let mut core = two_paths();
    let mut now = NOW;
    for round in 1..=2 {
        now = now + Duration::from_secs(5);
        assert!(fail(&mut core, now, A, round, Errno::ENOLINK));
        now = now + Duration::from_secs(1);
        assert_eq!(core.poll_probe(now), Some(A));
        core.handle_probe_success(now, A, IoTag(0));
        core.handle_proof(now, A);
    }
    assert_eq!((core.state(A), core.active().len(), core.has_path()), (PathState::Isolated, 1, true));
    assert_eq!(core.select_path(now, PathSet::EMPTY, 1), Some(B));
    assert!(fail(&mut core, now, B, 9, Errno::ENOLINK));
    assert_eq!((core.select_path(now, PathSet::EMPTY, 1), core.has_path()), (Some(A), true));
    // It stays up, and is forgiven in the end.
    for _ in 0..300 {
        now = now + Duration::from_secs(1);
        while let Some(path) = core.poll_probe(now) {
            if path == A {
                core.handle_probe_success(now, A, IoTag(0));
            } else {
                core.handle_failed_probe(now, B);
            }
        }
    }
    assert_eq!(core.state(A), PathState::Active);
}

#[test]
fn a_disabled_path_stays_out_until_the_operator_wants_it() {
    let mut core = two_paths();
    let now = Instant::ZERO;
    core.disable_path(now, A);
    core.handle_success(now, A, IoTag(0));
    assert_eq!((core.state(A), core.poll_probe(now)), (PathState::Disabled, None));
    core.reinstate_path(now, A);
    assert_eq!(core.active().len(), 2);
}

#[test]
fn a_slow_path_carries_what_no_other_can_and_is_back_when_it_is_quick_again() {
    let mut core = two_paths();
    let at = |millis: u64| Instant(millis * 1_000_000);
    let carry = |core: &mut Failover<RoundRobin>, path, millis: u64, took: u64| {
        core.handle_start(at(millis), path, 4096);
        core.handle_end(at(millis + took), path, 4096, at(millis), true);
    };
    for turn in 0..120 {
        carry(&mut core, A, turn * 100, 1);
        carry(&mut core, B, turn * 100, 50);
    }
    assert_eq!((core.state(A), core.state(B)), (PathState::Active, PathState::Slow));
    let story = core.explain().events().last().map(|event| event.reason.to_string()).unwrap();
    assert_eq!(story, "its I/O takes 50.00 ms, that of the others 1.00 ms: used only if no other is left");
    let now = at(13_000);
    assert!((0..10).all(|_| core.select_path(now, PathSet::EMPTY, 4096) == Some(A)));
    core.handle_link_down(now, A);
    assert_eq!(core.select_path(now, PathSet::EMPTY, 4096), Some(B), "no other is left");
    core.reinstate_path(now, A);
    let mut back = None;
    for second in 14..20 {
        let now = at(second * 1000);
        assert_eq!(core.poll_probe(now), Some(B));
        core.handle_probe_time(now, B, Duration::from_millis(if second == 14 { 50 } else { 1 }));
        assert_eq!(core.handle_probe_success(now, B, IoTag(0)), AfterProbe::Nothing);
        if core.state(B) == PathState::Active {
            back = Some(second);
            break;
        }
    }
    assert_eq!(back, Some(17), "well from 15 s on, for 2 s");
    assert_eq!(core.groups().current().len(), 2);
}
