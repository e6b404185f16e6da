//! The simulated SCSI target over its paths: attentions once per nexus, reservations against commands and blocks, and
//! every fault at every point with what was executed.

mod target_support;

use std::time::Duration;

use storage_mapping::control_port::{ControlCancelled, ControlEvent, ControlReply, ControlRequest};
use storage_mapping::device::storage_system::{Attention, CommandFault, Schedule};
use storage_mapping::scsi::reservations::{ReservationType, ReserveOut, ReserveOutAction};
use storage_mapping::{
    BlockDevice, Buffer, ControlPort, CopyFate, Effect, ErrorSource, IoError, IoRequest, IoTag, Lba,
};
use target_support::{Bench, C0, TUR, inquiry, register, release, reserve, sense_of, status_of};

#[test]
fn a_new_nexus_meets_one_attention_and_inquiry_none() {
    let mut bench = Bench::new("");
    let mut path = bench.raw_path("host1", "p0");
    assert_eq!(status_of(&bench.run(&mut path, inquiry(None))), 0);
    assert_eq!(sense_of(&bench.run(&mut path, TUR())), Some((6, 0x29, 0x00)));
    assert_eq!(status_of(&bench.run(&mut path, TUR())), 0);
    let mut other = bench.path("host1", "p1");
    bench.system.raise_attention("v0", Attention::CAPACITY_CHANGED).unwrap();
    bench.system.raise_attention("v0", Attention::LUNS_CHANGED).unwrap();
    for path in [&mut path, &mut other] {
        assert_eq!(status_of(&bench.run(path, inquiry(Some(0x83)))), 0);
        assert_eq!(sense_of(&bench.run(path, TUR())), Some((6, 0x2a, 0x09)));
        assert_eq!(sense_of(&bench.run(path, TUR())), Some((6, 0x3f, 0x0e)));
        assert_eq!(status_of(&bench.run(path, TUR())), 0);
    }
}

#[test]
fn a_registration_belongs_to_one_nexus_and_its_reservation_binds_commands_and_blocks() {
    let mut bench = Bench::new("");
    let mut holder = bench.path("host1", "p0");
    let mut stranger = bench.path("host2", "p1");
    assert_eq!(status_of(&bench.run(&mut holder, register(0, 0xa))), 0);
    assert_eq!(status_of(&bench.run(&mut stranger, reserve(0xa, EXCLUSIVE))), 0x18, "it is not registered");
    assert_eq!(status_of(&bench.run(&mut holder, reserve(0xa, EXCLUSIVE))), 0);
    let status = bench.full_status(&mut stranger);
    let [registrant] = &status.registrants[..] else { panic!("{status:?}") };
    assert_eq!((registrant.key, registrant.is_holder, registrant.kind), (0xa, true, EXCLUSIVE));
    assert_eq!(registrant.relative_port, 1);
    assert_eq!(registrant.initiator.as_ref().unwrap().to_string(), holder.nexus().initiator);

    assert_eq!(status_of(&bench.run(&mut stranger, C0())), 0x18);
    assert_eq!(block_outcome(&bench, &mut stranger, true), Err(CONFLICT));
    assert_eq!(block_outcome(&bench, &mut stranger, false), Err(CONFLICT));
    assert_eq!(block_outcome(&bench, &mut holder, true), Ok(()));

    assert_eq!(status_of(&bench.run(&mut stranger, register(0, 0xb))), 0);
    assert_eq!(status_of(&bench.run(&mut stranger, release(0xb, EXCLUSIVE))), 0, "GOOD, and no effect");
    let released = bench.executions(0x5f, Some(2));
    assert_eq!((released.arrived, released.good, released.effective), (1, 1, 0));
    assert_eq!(block_outcome(&bench, &mut stranger, true), Err(CONFLICT));
    assert_eq!(status_of(&bench.run(&mut holder, release(0xa, EXCLUSIVE))), 0);
    assert_eq!(bench.executions(0x5f, Some(2)).effective, 1);
    assert_eq!(block_outcome(&bench, &mut stranger, true), Ok(()));
}

#[test]
fn a_write_that_was_held_in_the_port_does_not_land_once_its_key_is_gone() {
    let mut bench = Bench::new("");
    let (mut old, mut new) = (bench.path("host1", "p0"), bench.path("host2", "p1"));
    for (path, key) in [(&mut old, 1), (&mut new, 2)] {
        assert_eq!(status_of(&bench.run(path, register(0, key))), 0);
    }
    bench.system.apply(bench.now, &"path host1/p0/v0 hang 5s".parse().unwrap()).unwrap();
    let data = Buffer::copy_of(&[9; 512]).freeze();
    old.submit(bench.now, IoRequest::write(IoTag(900), Lba(5), data, false)).unwrap();
    let kind = ReservationType::WriteExclusiveRegistrantsOnly;
    assert_eq!(status_of(&bench.run(&mut new, reserve(2, kind))), 0);
    let preempt = ReserveOut::new(ReserveOutAction::Preempt, kind, 2, 1).command();
    assert_eq!(status_of(&bench.run(&mut new, preempt)), 0);
    bench.now = bench.now + Duration::from_secs(6);
    assert_eq!(old.poll(bench.now).unwrap().outcome, Err(CONFLICT));
    let disk = bench.system.memory_disk("d0").unwrap();
    disk.with_bytes(|bytes| assert_eq!(bytes[5 * 512], 0, "it landed"));
}

#[test]
fn registrations_outlive_a_login_or_stay_behind_as_orphans() {
    for (lines, is_kept) in [("target registrations=name", true), ("target registrations=login", false)] {
        let mut bench = Bench::new(lines);
        let (mut path, mut other) = (bench.path("host1", "p0"), bench.path("host1", "p1"));
        assert_eq!(status_of(&bench.run(&mut path, register(0, 7))), 0);
        assert_eq!(status_of(&bench.run(&mut path, reserve(7, EXCLUSIVE))), 0);
        bench.system.apply(bench.now, &"path host1/p0/v0 end-nexus".parse().unwrap()).unwrap();
        assert_eq!(path.nexus().generation, 2);
        let events: Vec<_> = std::iter::from_fn(|| path.poll_control_event(bench.now)).collect();
        assert_eq!(events, [ControlEvent::NexusLost, ControlEvent::NexusBegun]);
        assert_eq!(sense_of(&bench.run(&mut path, TUR())), Some((6, 0x29, 0)));
        let outcome = block_outcome(&bench, &mut path, true);
        assert_eq!(outcome.is_ok(), is_kept, "{outcome:?}");
        assert_eq!(bench.full_status(&mut other).registrants.len(), 1, "it is there, of use or not");
        let next = status_of(&bench.run(&mut path, register(if is_kept { 7 } else { 0 }, 8)));
        assert_eq!(next, 0);
        assert_eq!(bench.full_status(&mut other).registrants.len(), if is_kept { 1 } else { 2 });
    }
}

/// What a caller sees of a fault, and what the target did by then and by the end.
struct Case {
    fault: CommandFault,
    /// Status and sense, an error, or no answer at all.
    seen: Seen,
    /// Executions when the caller has its answer, and when all is over.
    executed: (u64, u64),
    copy: Option<CopyFate>,
}

#[derive(Debug, PartialEq)]
enum Seen {
    Status(u8),
    Sense(u8, u8, u8),
    Lost { sent: bool },
    Nothing,
}

#[test]
fn every_fault_at_every_point_executes_as_often_as_it_says() {
    let second = Duration::from_secs(1);
    let standby = "standby".parse().unwrap();
    let case = |fault, seen, executed, copy| Case { fault, seen, executed, copy };
    let (dead, lives) = (Some(CopyFate::Dead), Some(CopyFate::MayLand));
    let cases = [
        case(CommandFault::NotSent, Seen::Lost { sent: false }, (0, 0), dead),
        case(CommandFault::Lost { lands: None }, Seen::Lost { sent: true }, (0, 0), lives),
        case(CommandFault::Lost { lands: Some(second) }, Seen::Lost { sent: true }, (0, 1), lives),
        case(CommandFault::Hang(Some(second)), Seen::Status(0), (1, 1), dead),
        case(CommandFault::Hang(None), Seen::Nothing, (0, 0), None),
        case(CommandFault::Busy, Seen::Status(0x08), (0, 0), dead),
        case(CommandFault::TaskSetFull, Seen::Status(0x28), (0, 0), dead),
        case(CommandFault::Attention(Attention::CAPACITY_CHANGED), Seen::Sense(6, 0x2a, 9), (0, 0), dead),
        case(CommandFault::Deferred(Attention { asc: 0x11, ascq: 0 }), Seen::Sense(3, 0x11, 0), (0, 0), dead),
        case(CommandFault::NexusLost, Seen::Lost { sent: true }, (0, 0), lives),
        case(CommandFault::Access(standby), Seen::Sense(6, 0x2a, 6), (0, 0), dead),
        case(CommandFault::AnswerLost, Seen::Lost { sent: true }, (1, 1), lives),
        case(CommandFault::AnswerHang(Some(second)), Seen::Status(0), (1, 1), dead),
        case(CommandFault::AnswerHang(None), Seen::Nothing, (1, 1), None),
        case(CommandFault::NexusLostAfter, Seen::Lost { sent: true }, (1, 1), lives),
        case(CommandFault::AccessAfter(standby), Seen::Status(0), (1, 1), dead),
    ];
    for Case { fault, seen, executed, copy } in cases {
        let mut bench = Bench::new("");
        let mut path = bench.path("host1", "p0");
        bench.arm(&path, 0xc0, fault);
        let tag = bench.submit(&mut path, C0());
        let done = bench.wait(&mut path, Duration::from_secs(100));
        let early = if seen == Seen::Nothing { None } else { Some(()) };
        assert_eq!(done.as_ref().map(|_| ()), early, "{fault}");
        let found = done.as_ref().map_or(Seen::Nothing, |done| match &done.outcome {
            Ok(ControlReply::Scsi { status: 2, .. }) => {
                let (key, asc, ascq) = sense_of(done.outcome.as_ref().unwrap()).unwrap();
                Seen::Sense(key, asc, ascq)
            }
            Ok(reply) => Seen::Status(status_of(reply)),
            Err(IoError { source_code: ErrorSource::ConnectionLost { sent } }) => Seen::Lost { sent: *sent },
            Err(error) => panic!("{fault}: {error}"),
        });
        assert_eq!(found, seen, "{fault}");
        assert_eq!(done.map(|done| done.copy), copy, "{fault}");
        assert_eq!(bench.executions(0xc0, None).effective, executed.0, "{fault}: by then");
        assert!(bench.wait(&mut path, Duration::from_secs(100)).is_none(), "{fault}: one answer");
        assert_eq!(bench.executions(0xc0, None).effective, executed.1, "{fault}: in the end");
        if seen == Seen::Nothing {
            assert_eq!(path.cancel_control(bench.now, tag), ControlCancelled::Requested);
            let aborted = path.poll_control(bench.now).expect("the abort was answered");
            assert_eq!((aborted.effect, aborted.copy), (Effect::Unknown, CopyFate::Dead), "{fault}");
            bench.now = bench.now + Duration::from_secs(100);
            bench.system.advance(bench.now);
            assert_eq!(bench.executions(0xc0, None).effective, executed.1, "{fault}: after the abort");
        }
    }
}

#[test]
fn a_refused_command_was_not_sent() {
    let mut bench = Bench::new("");
    let mut path = bench.path("host1", "p0");
    bench.arm(&path, 0xc0, CommandFault::Refused);
    let tag = bench.tag();
    let request = ControlRequest { tag, command: C0() };
    assert!(path.submit_control(bench.now, request).is_err());
    assert_eq!(status_of(&bench.run(&mut path, C0())), 0);
    assert_eq!(bench.executions(0xc0, None).arrived, 1);
}

#[test]
fn an_ended_nexus_settles_what_it_lost() {
    let mut bench = Bench::new("port p9 latency=1ms");
    let mut path = bench.path("host1", "p9");
    let tag = bench.submit(&mut path, C0());
    bench.system.apply(bench.now, &"port p9 end-nexus".parse().unwrap()).unwrap();
    let done = path.poll_control(bench.now).unwrap();
    assert_eq!((done.tag, done.effect, done.copy), (tag, Effect::Unknown, CopyFate::MayLand));
    let events: Vec<_> = std::iter::from_fn(|| path.poll_control_event(bench.now)).collect();
    assert_eq!(events, [ControlEvent::NexusLost, ControlEvent::NexusBegun, ControlEvent::Settled(tag)]);
    assert_eq!(bench.executions(0xc0, None).arrived, 0);
}

const EXCLUSIVE: ReservationType = ReservationType::ExclusiveAccess;
const CONFLICT: IoError = IoError {
    source_code: ErrorSource::Scsi { status: 0x18, host_status: 0, key: 0, asc: 0, ascq: 0, deferred: false },
};

fn block_outcome(bench: &Bench, path: &mut impl BlockDevice, is_write: bool) -> Result<(), IoError> {
    let request = if is_write {
        IoRequest::write(IoTag(1_000_000), Lba(3), Buffer::copy_of(&[1; 512]).freeze(), false)
    } else {
        IoRequest::read(IoTag(1_000_000), Lba(3), Buffer::zeroed(512))
    };
    path.submit(bench.now, request).expect("there is room");
    path.poll(bench.now).expect("at once").outcome
}

/// Runs commands over four paths under faults of links and of commands; gives the hash of all events, and how
/// many commands were executed and lost.
fn swarm(seed: u64) -> (u64, u64, u64) {
    let mut bench = Bench::new(&format!("seed {seed}"));
    let span = Duration::from_secs(10);
    let parts = bench.system.description().parts();
    bench.system.run(bench.now, &Schedule::random(seed, &parts, span, 10)).expect("its own parts");
    let opcodes = [0x00, 0x5f, 0xc0];
    bench
        .system
        .run(bench.now, &Schedule::random_commands(seed, &parts, &opcodes, span, 40))
        .expect("its own parts");
    let mut paths: Vec<_> = ["p0", "p1", "p2", "p3"].map(|port| bench.raw_path("host1", port)).into();
    // Of the vendor command: sent, answered with GOOD, lost with unknown effect, and without any answer.
    let (mut sent, mut good, mut lost, mut silent) = (0, 0, 0, 0);
    for round in 0..100_u64 {
        for (index, path) in paths.iter_mut().enumerate() {
            let tag = IoTag(round * 10 + index as u64);
            let command = [C0(), TUR(), register(0, 1)][(round % 3) as usize].clone();
            let is_vendor = round % 3 == 0;
            if path.submit_control(bench.now, ControlRequest { tag, command }).is_ok() && is_vendor {
                sent += 1;
                silent += 1;
            }
        }
        bench.now = bench.now + Duration::from_millis(200);
        for path in &mut paths {
            while path.poll_control_event(bench.now).is_some() {}
            while let Some(done) = path.poll_control(bench.now) {
                if (done.tag.0 / 10) % 3 == 0 {
                    silent -= 1;
                    good += u64::from(matches!(&done.outcome, Ok(reply) if status_of(reply) == 0));
                    lost += u64::from(done.outcome.is_err() && done.effect == Effect::Unknown);
                }
            }
        }
    }
    let executed = bench.executions(0xc0, None);
    assert!(executed.effective >= good, "seed {seed}: {good} were told to be done: {executed:?}");
    assert!(
        executed.effective <= good + lost + silent,
        "seed {seed}: {good} done, {lost} lost, {silent} silent: {executed:?}"
    );
    assert!(executed.arrived <= sent, "seed {seed}: {sent} sent: {executed:?}");
    (bench.system.event_hash(), executed.effective, lost)
}

#[test]
fn no_command_is_executed_twice_under_random_faults_and_a_seed_repeats_itself() {
    let (mut executed, mut lost) = (0, 0);
    for seed in 0..200 {
        let run = swarm(seed);
        if seed % 20 == 0 {
            assert_eq!(swarm(seed), run, "seed {seed}");
        }
        (executed, lost) = (executed + run.1, lost + run.2);
    }
    assert!(executed > 1000 && lost > 100, "{executed} executed, {lost} lost: the faults did not bite");
}
