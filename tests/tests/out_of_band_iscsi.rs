//! Control commands over two paths to a real iSCSI target, each through a relay that can pause and die: what is
//! answered over which path and how soon, persistent reservations, unit attentions, and paths that return.
//!
//! The target (`tgt`) has no READ FULL STATUS: reservations are judged by READ KEYS, READ RESERVATION and a WRITE over
//! each nexus. Built with the feature `iscsi`. Skipped where `tgtd` or root is missing; `DISKWIRE_NO_SKIP=1` makes that a
//! failure.

#![cfg(feature = "iscsi")]

mod iscsi_support;
#[path = "../../storage-mapping/tests/support/programs.rs"]
mod programs;
#[path = "../../storage-mapping/tests/support/tgt.rs"]
mod tgt;

use std::time::Duration;

use iscsi_support::{
    Answer, Bench, CONFLICT, GOOD, KIND, LONG, Other, compare_and_write, inquiry, out, probe_write, register,
    test_unit_ready,
};
use multipath::PathState;
use multipath::out_of_band::command_table::UserRows;
use multipath::out_of_band::{
    Attention, Certainty, CommandOutcome, CommandRequest, CommandTable, Mode, Rejection, Remark,
};
use programs::skip;
use storage_mapping::control_port::{ControlCommand, ControlReply};
use storage_mapping::scsi::reservations::{ReserveOut, ReserveOutAction as Action};
use storage_mapping::{ErrorSource, PathIndex};
use system_tests::relay::command::{Command, Direction, Ways};

macro_rules! bench_or_skip {
    ($test:expr) => {
        match Bench::start() {
            Ok(bench) => bench,
            Err(reason) => return skip($test, &reason),
        }
    };
}

const A: PathIndex = PathIndex(0);
const B: PathIndex = PathIndex(1);
/// Beyond a deadline, on a machine with other things to do.
const SLACK: Duration = Duration::from_millis(500);

fn data(outcome: &CommandOutcome) -> Vec<u8> {
    outcome.reply().unwrap_or_else(|| panic!("{}", outcome.record)).data().to_vec()
}

fn status(outcome: &CommandOutcome) -> Option<u8> {
    match outcome.reply()? {
        ControlReply::Scsi { status, .. } => Some(*status),
        ControlReply::Nvme { .. } => None,
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn a_command_named_for_a_dead_portal_is_answered_over_the_live_one() {
    const ROUNDS: usize = 101;
    let mut bench = bench_or_skip!("a_command_named_for_a_dead_portal_is_answered_over_the_live_one");
    let expected = data(&bench.over(0, inquiry(), Mode::Exact));
    assert!(expected.len() >= 36 && expected[8..16] == *b"IET     ", "{expected:?}");
    bench.tell(0, Command::Kill);
    bench.wait_until_active(0, false);
    let (mut direct, mut rerouted) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let turns = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for named in turns {
            let request = CommandRequest::new(inquiry(), Some(PathIndex(named)), LONG);
            let (outcome, took) = bench.run(request);
            assert!(outcome.is_done(), "{}", outcome.record);
            assert_eq!((data(&outcome), outcome.record.chosen), (expected.clone(), Some(B)));
            assert_eq!(outcome.record.attempts.len(), 1, "{}", outcome.record);
            if named == 0 {
                assert_eq!(outcome.record.why_not_named, Some(Rejection::State(PathState::Failed)));
                let said = outcome.record.to_string();
                assert!(
                    said.contains(
                        "path 0 was named, mode prefer: path 1 was taken\nnot path 0: it is failed\n"
                    ),
                    "{said}"
                );
                rerouted.push(took);
            } else {
                assert_eq!(outcome.record.why_not_named, None);
                direct.push(took);
            }
        }
    }
    let (direct, rerouted) = (median(direct), median(rerouted));
    println!(
        "INQUIRY, medians of {ROUNDS}: {direct:?} named for the live path, {rerouted:?} for the dead one: {:.3}",
        rerouted.as_secs_f64() / direct.as_secs_f64()
    );
    assert!(rerouted <= direct * 3 + Duration::from_millis(5), "{rerouted:?}, {direct:?}");
}

#[test]
fn a_command_named_for_a_hung_path_is_answered_before_its_deadline() {
    let mut bench = bench_or_skip!("a_command_named_for_a_hung_path_is_answered_before_its_deadline");
    bench.tell(0, Command::Pause(Ways::Both));
    let deadline = Duration::from_secs(2);
    let (outcome, took) = bench.run(CommandRequest::new(inquiry(), Some(A), deadline));
    println!("INQUIRY named for a path that hangs: {took:?} of {deadline:?}");
    assert!(outcome.is_done(), "{}", outcome.record);
    assert!(took <= deadline, "{took:?}: {}", outcome.record);
    let paths: Vec<PathIndex> = outcome.record.attempts.iter().map(|attempt| attempt.path).collect();
    assert_eq!((paths, outcome.record.chosen), (vec![A, B], Some(B)), "{}", outcome.record);
}

#[test]
fn a_page_that_describes_a_port_says_which_port_it_is() {
    let mut bench = bench_or_skip!("a_page_that_describes_a_port_says_which_port_it_is");
    let page = storage_mapping::scsi::inquiry::InquiryCommand { page: Some(0x83), allocation: 1024 };
    bench.tell(0, Command::Kill);
    bench.wait_until_active(0, false);
    // By default the page of the other port is no answer.
    let outcome = bench.over(0, page.command(), Mode::Prefer);
    assert!(!outcome.is_done());
    assert!(outcome.record.rejected.contains(&(B, Rejection::OtherPort)), "{}", outcome.record);
    let outcome = bench.over(0, page.command(), Mode::Any);
    assert!(outcome.is_done(), "{}", outcome.record);
    assert_eq!(outcome.record.remarks, [Remark::OtherPortDescribed { answered: B, named: A }]);
}

const OURS: u64 = 0xd15c_0001;
const FOREIGN: u64 = 0xf0e1;

/// Keys, holder, and what a WRITE over each of our nexuses and over the other one gets.
#[track_caller]
fn assert_state(bench: &mut Bench, other: &mut Other, keys: &[u64], holder: Option<u64>, writes: [u8; 3]) {
    assert_eq!(other.keys(), keys);
    assert_eq!(other.holder(), holder);
    assert_eq!(bench.probe_writes(other), writes);
}

#[test]
fn reservations_over_two_nexuses_end_in_the_state_that_the_target_shows() {
    let mut bench = bench_or_skip!("reservations_over_two_nexuses_end_in_the_state_that_the_target_shows");
    let (mut watch, mut host2) = (bench.other("watch", 0), bench.other("host2", 1));
    assert_state(&mut bench, &mut watch, &[], None, [GOOD; 3]);

    let outcome = bench.does(register(OURS));
    assert_eq!(outcome.conclusions.len(), 2, "one registration for each nexus");
    assert_state(&mut bench, &mut watch, &[OURS; 2], None, [GOOD; 3]);

    bench.does(out(Action::Reserve, OURS, 0));
    assert_state(&mut bench, &mut watch, &[OURS; 2], Some(OURS), [GOOD, GOOD, CONFLICT]);

    let holder = bench.device.nexus_ledger().holder().expect("the ledger knows it");
    let wrong = 1 - holder.0;
    let outcome = bench.over(wrong, out(Action::Release, OURS, 0), Mode::Prefer);
    assert!(outcome.is_done(), "{}", outcome.record);
    assert_eq!(outcome.record.chosen, Some(holder));
    assert_state(&mut bench, &mut watch, &[OURS; 2], None, [GOOD; 3]);

    // Another host takes it, and we take it from that host.
    assert_eq!(host2.ask(register(FOREIGN)).status, GOOD);
    assert_eq!(host2.ask(out(Action::Reserve, FOREIGN, 0)).status, GOOD);
    assert_state(&mut bench, &mut watch, &[FOREIGN, OURS, OURS], Some(FOREIGN), [GOOD, GOOD, CONFLICT]);
    bench.does(out(Action::Preempt, OURS, FOREIGN));
    assert_state(&mut bench, &mut watch, &[OURS; 2], Some(OURS), [GOOD, GOOD, CONFLICT]);
    let Answer { status, attentions, .. } = host2.ask(probe_write());
    println!("the pre-empted host meets {attentions:02x?}");
    assert_eq!(status, CONFLICT);

    bench.does(register(0));
    assert_state(&mut bench, &mut watch, &[], None, [GOOD; 3]);
}

#[test]
fn a_nexus_can_take_what_another_one_of_ours_holds() {
    let mut bench = bench_or_skip!("a_nexus_can_take_what_another_one_of_ours_holds");
    let mut watch = bench.other("watch", 0);
    (0..2).for_each(|path| bench.register_over(path, path as u64 + 1));
    assert_eq!(bench.exact(0, &out(Action::Reserve, 1, 0)).status, GOOD);
    assert_state(&mut bench, &mut watch, &[1, 2], Some(1), [GOOD, GOOD, CONFLICT]);
    let outcome = bench.over(1, out(Action::Preempt, 2, 1), Mode::Exact);
    assert!(outcome.is_done(), "{}", outcome.record);
    assert_eq!(bench.device.nexus_ledger().holder(), Some(B));
    assert_state(&mut bench, &mut watch, &[2], Some(2), [CONFLICT, GOOD, CONFLICT]);
    let outcome = bench.over(1, out(Action::Clear, 2, 0), Mode::Prefer);
    assert!(outcome.is_done(), "{}", outcome.record);
    assert_state(&mut bench, &mut watch, &[], None, [GOOD; 3]);
}

#[test]
fn a_release_over_the_wrong_nexus_is_good_for_the_target_and_caught_here() {
    let mut bench = bench_or_skip!("a_release_over_the_wrong_nexus_is_good_for_the_target_and_caught_here");
    // The target itself: GOOD, and the reservation stands.
    let (mut one, mut two) = (bench.other("one", 0), bench.other("two", 1));
    assert_eq!((one.ask(register(1)).status, two.ask(register(2)).status), (GOOD, GOOD));
    assert_eq!(one.ask(out(Action::Reserve, 1, 0)).status, GOOD);
    assert_eq!(two.ask(out(Action::Release, 2, 0)).status, GOOD);
    assert_eq!(one.holder(), Some(1), "GOOD had no effect");
    assert_eq!(one.ask(out(Action::Clear, 1, 0)).status, GOOD);

    (0..2).for_each(|path| bench.register_over(path, path as u64 + 1));
    assert_eq!(bench.exact(1, &out(Action::Reserve, 2, 0)).status, GOOD);
    // Insisting on the wrong nexus: the same GOOD, and a certainty that says what it is worth.
    let outcome = bench.over(0, out(Action::Release, 1, 0), Mode::Exact);
    assert_eq!((status(&outcome), outcome.is_done()), (Some(GOOD), false), "{}", outcome.record);
    assert_eq!(outcome.conclusions[0].certainty, Certainty::NoEffect);
    assert!(outcome.record.remarks.contains(&Remark::NoEffect));
    assert_eq!(one.holder(), Some(2));
    // In the default mode it goes to the nexus that holds.
    let outcome = bench.over(0, out(Action::Release, 2, 0), Mode::Prefer);
    assert!(outcome.is_done(), "{}", outcome.record);
    assert_eq!(outcome.record.chosen, Some(B));
    assert_eq!(outcome.record.why_not_named, Some(Rejection::NotHolder(B)));
    assert_eq!(one.holder(), None);
}

/// Everything that a subscriber has not seen so far.
fn news(bench: &Bench, cursor: &mut u64) -> Vec<(u8, u8, bool)> {
    let code = |Attention { event, is_own, .. }| (event.asc, event.ascq, is_own);
    std::iter::from_fn(|| bench.device.poll_attention(cursor)).map(code).collect()
}

/// Lets every nexus meet what is pending there.
fn meet(bench: &mut Bench) {
    for path in 0..2 {
        let outcome = bench.over(path, test_unit_ready(), Mode::Prefer);
        assert!(outcome.is_done(), "{}", outcome.record);
    }
}

#[test]
fn an_attention_comes_once_to_each_subscriber_and_an_own_one_is_marked() {
    let mut bench = bench_or_skip!("an_attention_comes_once_to_each_subscriber_and_an_own_one_is_marked");
    let mut host2 = bench.other("host2", 1);
    bench.does(register(OURS));
    meet(&mut bench);
    let (mut first, mut second) = (0, 0);
    println!("before: {:02x?}", news(&bench, &mut first));
    news(&bench, &mut second);

    // Another host clears everything: both of our nexuses hear of it.
    assert_eq!(host2.ask(register(FOREIGN)).status, GOOD);
    assert_eq!(host2.ask(out(Action::Clear, FOREIGN, 0)).status, GOOD);
    meet(&mut bench);
    let met = news(&bench, &mut first);
    println!("after a CLEAR of another host: {met:02x?}");
    assert_eq!(met, [(0x2a, 0x03, false)], "two nexuses, one event");
    meet(&mut bench);
    assert_eq!(news(&bench, &mut first), []);
    assert_eq!(news(&bench, &mut second), met, "and to each subscriber");
    // What those commands took is owed to who talks to one path, once.
    for path in 0..2 {
        assert_eq!(bench.exact(path, &test_unit_ready()).attentions, [(0x2a, 0x03)]);
        assert_eq!(bench.exact(path, &test_unit_ready()).attentions, []);
    }

    // Another host pre-empts our key.
    bench.does(register(OURS));
    bench.does(out(Action::Reserve, OURS, 0));
    assert_eq!(host2.ask(register(FOREIGN)).status, GOOD);
    meet(&mut bench);
    println!("before: {:02x?}", news(&bench, &mut first));
    assert_eq!(host2.ask(out(Action::Preempt, FOREIGN, OURS)).status, GOOD);
    meet(&mut bench);
    let met = news(&bench, &mut first);
    println!("after a PREEMPT of another host: {met:02x?}");
    // Whether the registration or the reservation is named as pre-empted differs between targets.
    assert!(matches!(met[..], [(0x2a, 0x03 | 0x05, false)]), "two nexuses, one event: {met:02x?}");
    assert!(bench.device.nexus_ledger().is_fenced());
    assert_eq!(host2.ask(out(Action::Clear, FOREIGN, 0)).status, GOOD);
    meet(&mut bench);
    news(&bench, &mut first);

    // And what we do ourselves is our own.
    (0..2).for_each(|path| bench.register_over(path, path as u64 + 1));
    meet(&mut bench);
    news(&bench, &mut first);
    assert_eq!(bench.exact(0, &out(Action::Preempt, 1, 2)).status, GOOD);
    meet(&mut bench);
    let met = news(&bench, &mut first);
    println!("after a PREEMPT of our own: {met:02x?}");
    assert!(matches!(met[..], [(0x2a, 0x03 | 0x05, true)]), "{met:02x?}");
    bench.register_over(1, 2);
    assert_eq!(bench.exact(0, &out(Action::Clear, 1, 0)).status, GOOD);
    meet(&mut bench);
    let met = news(&bench, &mut first);
    println!("after a CLEAR of our own: {met:02x?}");
    assert_eq!(met, [(0x2a, 0x03, true)]);
}

/// Sends a command over a path that hangs; its outcome within the deadline.
fn within_deadline(bench: &mut Bench, command: ControlCommand, mode: Mode) -> CommandOutcome {
    let deadline = Duration::from_secs(1);
    let request = CommandRequest::new(command, Some(A), deadline).with_mode(mode);
    let (outcome, took) = bench.run(request);
    println!("{} over a path that hangs: {took:?} of {deadline:?}", outcome.record.name);
    assert!(took <= deadline + SLACK, "{took:?}: {}", outcome.record);
    outcome
}

#[test]
fn a_hung_path_costs_no_more_than_the_deadline_and_nothing_is_done_twice() {
    let mut bench = bench_or_skip!("a_hung_path_costs_no_more_than_the_deadline_and_nothing_is_done_twice");
    let mut watch = bench.other("watch", 1);
    // A command that every path could carry, that must not be repeated, and that the target counts.
    let rows = UserRows::parse(["scsi 5f 1:1f=06 override portable never counted registration"]);
    bench.device.set_command_table(CommandTable::with_user_rows(rows.expect("a row")));
    let before = watch.key_list().generation;
    for (ways, executed) in [(Direction::ToServer, 0), (Direction::ToClient, 1)] {
        // A path that gave cause for doubt is not taken for a while.
        bench.until("trust in the path", |bench| {
            let request = CommandRequest::new(register(OURS), Some(A), LONG);
            let (outcome, _) = bench.run(CommandRequest { is_dry_run: true, ..request });
            (outcome.record.chosen == Some(A)).then_some(())
        });
        let before = watch.key_list().generation;
        bench.tell(0, Command::Pause(Ways::One(ways)));
        // While the path counts as active: the commands that must not be repeated.
        let outcome = within_deadline(&mut bench, register(OURS), Mode::Prefer);
        assert_eq!(outcome.conclusions[0].certainty, Certainty::Unknown, "{}", outcome.record);
        assert_eq!(outcome.record.attempts.len(), 1, "{}", outcome.record);
        assert!(outcome.record.remarks.contains(&Remark::NeverRepeated));
        assert!(outcome.record.remarks.contains(&Remark::MayLand(A)));
        assert_eq!(watch.key_list().generation - before, executed, "held towards {ways:?}");
        bench.tell(0, Command::Resume(Ways::One(ways)));
        bench.until("the late end of it", |bench| {
            let answered = bench.exact(0, &test_unit_ready()).status == GOOD;
            answered.then_some(())
        });
        let count = watch.key_list().generation - before;
        println!("held towards {ways:?}: {count} registrations");
        // It ran once at most; the layer itself puts the key back on the path that returned, which counts as well.
        assert!(count <= 1 + 1);
    }
    assert!(watch.key_list().generation - before <= 2 * (1 + 1));
}

#[test]
fn a_hung_path_costs_commands_of_every_class_no_more_than_the_deadline() {
    let mut bench = bench_or_skip!("a_hung_path_costs_commands_of_every_class_no_more_than_the_deadline");
    let mut watch = bench.other("watch", 1);
    (0..2).for_each(|path| bench.register_over(path, path as u64 + 1));
    assert_eq!(bench.exact(0, &out(Action::Reserve, 1, 0)).status, GOOD);
    bench.tell(0, Command::Pause(Ways::Both));
    let outcome = within_deadline(&mut bench, compare_and_write(9), Mode::Prefer);
    assert_eq!(outcome.conclusions[0].certainty, Certainty::Unknown, "{}", outcome.record);
    assert_eq!(outcome.record.attempts.len(), 1, "{}", outcome.record);
    assert_eq!(watch.first_byte(9), 0, "no other path carried it");
    // Of one nexus: it waits for its path, and is told to be unknown, or not to have been sent.
    let outcome = within_deadline(&mut bench, out(Action::Release, 1, 0), Mode::Exact);
    assert!(!outcome.is_done(), "{}", outcome.record);
    let outcome = within_deadline(&mut bench, test_unit_ready(), Mode::Prefer);
    assert!(!outcome.is_done(), "{}", outcome.record);
    // Portable.
    let outcome = within_deadline(&mut bench, inquiry(), Mode::Prefer);
    assert!(outcome.is_done(), "{}", outcome.record);
    // For any nexus that is registered.
    let outcome = within_deadline(&mut bench, out(Action::Preempt, 2, 1), Mode::Prefer);
    println!("{}", outcome.record);
    assert!(outcome.is_done(), "{}", outcome.record);
    assert_eq!((watch.keys(), watch.holder()), (vec![2], Some(2)));
    // For every nexus.
    let outcome = within_deadline(&mut bench, register(3), Mode::Prefer);
    assert!(!outcome.is_done(), "one of them hangs");
    println!("{}", outcome.record);
    bench.tell(0, Command::Resume(Ways::Both));
    bench.wait_until_active(0, true);
    bench.until("the key on both nexuses", |_| (watch.keys() == [3, 3]).then_some(()));
    assert!(watch.first_byte(9) <= 1);
}

/// Kills the first path under a load of writes and lets it return; what the target has registered then.
fn die_and_return(bench: &mut Bench, watch: &mut Other) -> Vec<u64> {
    bench.tell(0, Command::Kill);
    bench.wait_until_active(0, false);
    let before = bench.device.status()[0].requests;
    bench.tell(0, Command::Revive);
    let mut sent = 0;
    bench.submit_write();
    bench.until("the return of the path", |bench| {
        for done in bench.take_done() {
            assert_eq!(done.outcome, Ok(()), "no conflict over a path without its key");
            sent += 1;
            bench.submit_write();
        }
        let status = &bench.device.status()[0];
        if bench.device.nexus_ledger().nexus(A).is_bare {
            assert_eq!(status.requests, before, "no I/O before the registration is in place");
        }
        (status.requests > before + 20).then_some(())
    });
    println!("{sent} writes while it returned");
    watch.keys()
}

#[test]
fn a_returning_path_has_its_registration_before_it_carries_io() {
    let mut bench = bench_or_skip!("a_returning_path_has_its_registration_before_it_carries_io");
    let mut watch = bench.other("watch", 1);
    (0..2).for_each(|path| bench.register_over(path, path as u64 + 1));
    assert_eq!(bench.exact(1, &out(Action::Reserve, 2, 0)).status, GOOD);
    assert_eq!(bench.probe_writes(&mut watch), [GOOD, GOOD, CONFLICT]);
    let keys = die_and_return(&mut bench, &mut watch);
    println!("keys after the return: {keys:?}; ledger: {:?}", bench.device.nexus_ledger().nexus(A));
    // The key of the nexus of before may stay in the target.
    let mut distinct = keys.clone();
    distinct.dedup();
    assert_eq!((distinct, watch.holder()), (vec![1, 2], Some(2)));
    let own: Vec<&str> = bench.device.command_records().map(|record| record.name.as_str()).collect();
    println!("commands of the layer and of the test: {own:?}");
    assert_eq!(bench.probe_writes(&mut watch), [GOOD, GOOD, CONFLICT]);
    assert!(bench.device.nexus_ledger().is_registered(A));
    if keys.len() > 2 {
        // What the nexus of before left in this target outlives the key of the new one, until somebody pre-empts it.
        let outcome = bench.over(0, ReserveOut::new(Action::Register, KIND, 1, 0).command(), Mode::Exact);
        println!("{}outcome: {:?}", outcome.record, outcome.conclusions[0].certainty);
        assert_eq!((status(&outcome), watch.keys()), (Some(GOOD), vec![1, 2]));
        assert_eq!(bench.probe_writes(&mut watch), [CONFLICT, GOOD, CONFLICT]);
        assert_eq!(bench.exact(1, &out(Action::Preempt, 2, 1)).status, GOOD);
        assert_eq!((watch.keys(), watch.holder()), (vec![2], Some(2)));
    }
}

#[test]
fn a_returning_path_gets_no_key_that_another_host_took() {
    let mut bench = bench_or_skip!("a_returning_path_gets_no_key_that_another_host_took");
    let mut host2 = bench.other("host2", 1);
    (0..2).for_each(|path| bench.register_over(path, path as u64 + 1));
    assert_eq!(bench.exact(1, &out(Action::Reserve, 2, 0)).status, GOOD);
    bench.tell(0, Command::Kill);
    bench.wait_until_active(0, false);
    assert_eq!(host2.ask(register(FOREIGN)).status, GOOD);
    for victim in [1, 2] {
        assert_eq!(host2.ask(out(Action::Preempt, FOREIGN, victim)).status, GOOD);
    }
    bench.tell(0, Command::Revive);
    let is_conflict = |done: &storage_mapping::IoCompletion| {
        let source = done.outcome.map_err(|error| error.source_code);
        matches!(source, Err(ErrorSource::Scsi { status: CONFLICT, .. }))
    };
    for _ in 0..20 {
        let done = bench.write();
        assert!(is_conflict(&done), "{done:?}");
    }
    assert!(bench.device.nexus_ledger().is_fenced());
    assert_eq!((host2.keys(), host2.holder()), (vec![FOREIGN], Some(FOREIGN)));
    // Until a caller registers.
    let outcome = bench.over(1, register(OURS), Mode::Prefer);
    assert!(outcome.conclusions.iter().any(|one| one.path == Some(B) && one.is_done()), "{}", outcome.record);
    let done = bench.write();
    assert_eq!(done.outcome, Ok(()));
    bench.until("the return of the path", |bench| {
        (bench.device.status()[0].state == PathState::Active).then_some(())
    });
    println!("keys after a caller registered: {:x?}", host2.keys());
}
