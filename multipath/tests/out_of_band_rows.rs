//! A command for every row of the shipped SCSI table, at every point of failure, in every mode, over the simulated target:
//! what must not be repeated arrives once at most, and nothing is reported as executed that was not.
//!
//! The target is the judge: it counts what arrived, what it executed and what that changed. What it does not know it
//! refuses (5/20/00), which is an outcome like another. Not here: effects looked at one by one (`out_of_band_pairs`), NVMe
//! (`out_of_band_nvme`).

mod out_of_band_support;

use multipath::out_of_band::command_table::{
    CommandTable, DISK, Lookup, Named, Parameter, Repeat, Row, Words, shipped,
};
use multipath::out_of_band::{Certainty, CommandOutcome, CommandRequest, Mode};
use out_of_band_support::{Bench, KIND, PATIENCE, faults, out};
use storage_mapping::PathIndex;
use storage_mapping::control_port::{Cdb, CommandBytes, ControlCommand, Transfer};
use storage_mapping::device::storage_system::{CommandFault, Executions};
use storage_mapping::scsi::reservations::ReserveOutAction;

/// A command that fits the row, with a parameter list where there is one.
fn command(row: &Row) -> ControlCommand {
    let opcode = row.opcodes.0;
    let length = match opcode >> 5 {
        0 => 6,
        _ if opcode == 0x7f => 32,
        4 => 16,
        5 => 12,
        _ => 10,
    };
    let mut cdb = vec![0; length];
    cdb[0] = opcode;
    for bits in row.bits {
        cdb[usize::from(bits.at)] |= u8::try_from(bits.value).expect("a byte");
    }
    let transfer = match opcode {
        0x5f => reserve(&mut cdb, row.parameter),
        0x15 | 0x55 => mode_select(&mut cdb, row.parameter),
        // The group of path 1: non-optimized.
        0xa4 => {
            cdb[9] = 8;
            Transfer::Out(vec![0, 0, 0, 0, 1, 0, 0, 2])
        }
        0x2a => {
            cdb[8] = 1;
            Transfer::Out(vec![7; 512])
        }
        0x03 | 0x12 | 0x1a => {
            if row.name == "INQUIRY another page" {
                cdb[2] = 0xc0;
            }
            cdb[4] = 252;
            Transfer::In(252)
        }
        0x25 => Transfer::In(8),
        0x4d | 0x5a | 0x5e => {
            cdb[8] = 252;
            Transfer::In(252)
        }
        0xa0 | 0xa3 => {
            cdb[9] = 252;
            Transfer::In(252)
        }
        0x9e => {
            cdb[13] = 32;
            Transfer::In(32)
        }
        _ => Transfer::None,
    };
    ControlCommand { bytes: CommandBytes::Scsi(Cdb::new(&cdb).expect("a length of the standard")), transfer }
}

/// PERSISTENT RESERVE OUT of path 0, whose key is 1.
fn reserve(cdb: &mut [u8], parameter: Parameter) -> Transfer {
    let mut list = vec![0; 24];
    (list[7], list[15]) = (1, 2);
    match cdb[1] {
        0 | 6 if parameter == Parameter::NoNewKey => list[15] = 0,
        0 | 6 => list[15] = 0x77,
        1..=3 => list[15] = 0,
        _ => {}
    }
    (cdb[2], cdb[8]) = (KIND.number(), 24);
    Transfer::Out(list)
}

fn mode_select(cdb: &mut [u8], parameter: Parameter) -> Transfer {
    let page = if let Parameter::ModePage(page) = parameter { page } else { 0x0a };
    let header = if cdb[0] == 0x15 { 4 } else { 8 };
    let mut list = vec![0; header];
    list.extend([page, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    cdb[1] |= 0x10;
    cdb[if cdb[0] == 0x15 { 4 } else { 8 }] = u8::try_from(list.len()).expect("a short list");
    Transfer::Out(list)
}

/// Two paths with keys 1 and 2; the first holds a reservation where the command gives one up.
fn prepared(row: &Row) -> Bench {
    let mut bench = Bench::new(2, "");
    for path in 0..2 {
        bench.register(path, path as u64 + 1);
    }
    if row.opcodes.0 == 0x5f && row.name.ends_with("RELEASE") {
        assert!(bench.over(0, out(ReserveOutAction::Reserve, 1, 0), Mode::Exact).is_done());
    }
    bench
}

fn counts(bench: &Bench, command: &ControlCommand) -> Executions {
    let CommandBytes::Scsi(cdb) = command.bytes else { unreachable!("a row of SCSI") };
    let all = bench.system.executions("v0").expect("a volume");
    let mut sum = Executions::default();
    let has_action = matches!(cdb.opcode(), 0x5e | 0x5f | 0x83 | 0x84 | 0x9e | 0x9f | 0xa3 | 0xa4 | 0xab);
    for ((opcode, action), count) in all {
        if opcode == cdb.opcode()
            && (!has_action || action.is_none_or(|known| known == cdb.bytes()[1] & 0x1f))
        {
            sum.arrived += count.arrived;
            sum.good += count.good;
            sum.effective += count.effective;
        }
    }
    sum
}

struct Run {
    outcome: CommandOutcome,
    /// By the end of the command, and long after it.
    then: Executions,
    later: Executions,
}

fn run(row: &Row, fault: Option<CommandFault>, mode: Mode) -> Run {
    let mut bench = prepared(row);
    let command = command(row);
    let before = counts(&bench, &command);
    if let Some(fault) = fault {
        bench.arm(0, row.opcodes.0, fault);
    }
    let path = (row.named != Named::No).then_some(PathIndex(0));
    let request = CommandRequest::new(command.clone(), path, PATIENCE).with_mode(mode);
    let outcome = bench.run(request);
    let since = |now: Executions| Executions {
        arrived: now.arrived - before.arrived,
        good: now.good - before.good,
        effective: now.effective - before.effective,
    };
    let then = since(counts(&bench, &command));
    bench.wait(PATIENCE * 3);
    Run { outcome, then, later: since(counts(&bench, &command)) }
}

fn executed(outcome: &CommandOutcome) -> u64 {
    outcome.conclusions.iter().filter(|step| step.certainty == Certainty::Executed).count() as u64
}

#[test]
fn a_command_of_every_row_at_every_point_of_failure() {
    let table = CommandTable::default();
    let (mut rows, mut known, mut pairs, mut runs) = (0, 0, 0, 0);
    for row in shipped().filter(|row| row.words == Words::Scsi) {
        let command = command(row);
        let is_named = row.named != Named::No;
        let found = table.row(&Lookup { command: &command, device_type: DISK, is_named });
        assert_eq!(found.name, row.name, "{:?}", command.bytes);
        rows += 1;
        let mut is_known = false;
        for mode in Mode::ALL.into_iter().filter(|mode| is_named || *mode != Mode::Exact) {
            let plain = run(row, None, mode);
            is_known |= plain.then.good > 0;
            let changes = plain.then.effective >= executed(&plain.outcome);
            for fault in faults() {
                let Run { outcome, then, later } = run(row, fault, mode);
                let fault = fault.map_or_else(|| "no fault".to_owned(), |fault| fault.to_string());
                let what = || {
                    format!(
                        "{} under {fault} in {}: {then:?}, {later:?}\n{}",
                        row.name,
                        mode.word(),
                        outcome.record
                    )
                };
                assert!(row.repeat != Repeat::Never || later.arrived <= 1, "{}", what());
                assert!(executed(&outcome) <= then.good, "reported, and not executed: {}", what());
                let is_there = !changes || executed(&outcome) <= then.effective;
                assert!(is_there, "reported, and without effect: {}", what());
                runs += 1;
            }
        }
        known += usize::from(is_known);
        pairs += faults().len();
    }
    println!(
        "{rows} rows ({known} of them known to the target), {pairs} pairs of row and fault, {runs} runs"
    );
    assert!(rows > 150 && known > 25 && runs > 10_000, "{rows} {known} {runs}");
}
