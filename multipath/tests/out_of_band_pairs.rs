//! Every command at every point of failure, over the simulated target: nothing that must not be repeated arrives twice, and
//! nothing is reported as done that is not there.

mod out_of_band_support;

use multipath::out_of_band::{Certainty, CommandOutcome, Mode};
use out_of_band_support::{Bench, PATIENCE, faults, inquiry, out, raw, register};
use storage_mapping::control_port::{ControlCommand, Transfer};
use storage_mapping::scsi::reservations::ReserveOutAction;

/// A command, how it is counted, and whether its effect is there.
struct Case {
    name: &'static str,
    command: ControlCommand,
    action: Option<u8>,
    is_never: bool,
    /// Whether the target is as the command makes it.
    is_there: fn(&mut Bench) -> bool,
}

fn always(_: &mut Bench) -> bool {
    true
}

fn cases() -> Vec<Case> {
    let case = |name, command, action, is_never, is_there| Case { name, command, action, is_never, is_there };
    let six = |opcode| raw(&[opcode, 0, 0, 0, 0, 0], Transfer::None);
    vec![
        case("TEST UNIT READY", six(0x00), None, false, always),
        case("REQUEST SENSE", raw(&[3, 0, 0, 0, 252, 0], Transfer::In(252)), None, true, always),
        case("INQUIRY", inquiry(), None, false, always),
        case("READ KEYS", raw(&[0x5e, 0, 0, 0, 0, 0, 0, 1, 0, 0], Transfer::In(256)), Some(0), false, always),
        case("vendor command", raw(&[0xc0, 0, 0, 0, 0, 0], Transfer::In(8)), None, true, |bench| {
            bench.executions(0xc0, None).effective == 1
        }),
        case("START STOP UNIT", raw(&[0x1b, 0, 0, 0, 1, 0], Transfer::None), None, true, always),
        case(
            "SYNCHRONIZE CACHE",
            raw(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], Transfer::None),
            None,
            false,
            always,
        ),
        case(
            "WRITE",
            raw(&[0x2a, 0, 0, 0, 0, 9, 0, 0, 1, 0], Transfer::Out(vec![7; 512])),
            None,
            false,
            |bench| {
                let disk = bench.system.memory_disk("d0").expect("it is in memory");
                disk.with_bytes(|bytes| bytes[9 * 512] == 7)
            },
        ),
        case("REGISTER", register(0x77), Some(6), false, |bench| bench.keys().contains(&0x77)),
        case("unregister", out(ReserveOutAction::Register, 1, 0), Some(0), false, |bench| {
            !bench.keys().contains(&1)
        }),
        case("RESERVE", out(ReserveOutAction::Reserve, 1, 0), Some(1), false, |bench| {
            matches!(bench.holder(), Some(1))
        }),
        case("RELEASE", out(ReserveOutAction::Release, 1, 0), Some(2), false, |bench| {
            bench.holder().is_none()
        }),
        case("CLEAR", out(ReserveOutAction::Clear, 1, 0), Some(3), false, |bench| bench.keys().is_empty()),
        case("PREEMPT", out(ReserveOutAction::Preempt, 1, 2), Some(4), false, |bench| {
            !bench.keys().contains(&2)
        }),
        case("PREEMPT AND ABORT", out(ReserveOutAction::PreemptAndAbort, 1, 2), Some(5), true, |bench| {
            !bench.keys().contains(&2)
        }),
    ]
}

/// Two paths with keys 1 and 2; the first holds a reservation where the command is a RELEASE.
fn prepared(case: &Case) -> Bench {
    let mut bench = Bench::new(2, "");
    for path in 0..2 {
        bench.register(path, path as u64 + 1);
    }
    if case.name == "RELEASE" {
        assert!(bench.over(0, out(ReserveOutAction::Reserve, 1, 0), Mode::Exact).is_done());
    }
    bench
}

#[test]
fn every_command_at_every_point_of_failure() {
    let mut pairs = 0;
    for case in cases() {
        for fault in faults() {
            for mode in [Mode::Prefer, Mode::Any, Mode::Exact] {
                let mut bench = prepared(&case);
                let opcode = case.command.bytes;
                let storage_mapping::control_port::CommandBytes::Scsi(cdb) = opcode else { unreachable!() };
                let before = bench.executions(cdb.opcode(), case.action);
                if let Some(fault) = fault {
                    bench.arm(0, cdb.opcode(), fault);
                }
                let outcome = bench.over(0, case.command.clone(), mode);
                let fault = fault.map_or_else(|| "no fault".to_owned(), |fault| fault.to_string());
                let what = format!("{} under {fault} in {}:\n{}", case.name, mode.word(), outcome.record);
                check(&mut bench, &case, &outcome, &what);
                // A copy that lands late is no second sending.
                bench.wait(PATIENCE * 3);
                let arrived = bench.executions(cdb.opcode(), case.action).arrived - before.arrived;
                assert!(!case.is_never || arrived <= 1, "{what}arrived {arrived} times");
                pairs += 1;
            }
        }
    }
    assert_eq!(pairs, 15 * 21 * 3);
}

fn check(bench: &mut Bench, case: &Case, outcome: &CommandOutcome, what: &str) {
    let is_there = (case.is_there)(bench);
    for conclusion in &outcome.conclusions {
        if conclusion.certainty == Certainty::Executed {
            assert!(is_there, "{what}reported as done, and it is not there: keys {:?}", bench.keys());
        }
    }
    if outcome.is_done() {
        assert!(is_there, "{what}");
    }
    assert!(what.lines().count() > 2, "{what}");
}
