//! How to find out whether a command was executed, and what was found.
//!
//! Keeps true: only what the reply proves is *done* or *undone*; a reply that is cut short, or of which another host could
//! be the cause, is *undecided*. Not here: when it is asked (`router`).

use storage_mapping::PathIndex;
use storage_mapping::control_port::{Cdb, CommandBytes, ControlCommand, ControlReply, NvmeFields, Transfer};
use storage_mapping::scsi::reservations::{
    KeyList, ReservationReport, ReserveIn, ReserveInAction, ReserveOut, ReserveOutAction,
};

use super::command_table::{Verify, mode_page, parameters};
use super::ledger::Ledger;

/// The most that a verify command reads, in bytes.
const ALLOCATION: u16 = 4096;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It was executed, and its effect is there.
    Done,
    /// The reply does not tell.
    Undecided,
    /// Its effect is not there.
    Undone,
}

/// The target said GOOD, and the question is whether that had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WasGood {
    /// The nexus was known to hold the reservation before.
    pub did_hold: bool,
    /// The key that the nexus had before, and how many others of ours may have had it then.
    pub had_key: Option<(u64, usize)>,
}

/// The PERSISTENT RESERVE OUT that a command is.
#[must_use]
pub fn reserve_out(command: &ControlCommand) -> Option<ReserveOut> {
    let CommandBytes::Scsi(cdb) = &command.bytes else { return None };
    ReserveOut::parse(cdb, parameters(command)).ok()
}

fn scsi(bytes: &[u8], length: usize) -> ControlCommand {
    let bytes = CommandBytes::Scsi(Cdb::new(bytes).expect("a length of the standard"));
    ControlCommand { bytes, transfer: if length == 0 { Transfer::None } else { Transfer::In(length) } }
}

/// The command that verifies `command`, where there is one that a program can read.
#[must_use]
pub fn command_for(verify: Verify, command: &ControlCommand) -> Option<ControlCommand> {
    let nvme =
        |fields, length| ControlCommand { bytes: CommandBytes::Nvme(fields), transfer: Transfer::In(length) };
    match (verify, &command.bytes) {
        (Verify::ReadKeys, _) => {
            Some(ReserveIn { action: ReserveInAction::ReadKeys, allocation: ALLOCATION }.command())
        }
        (Verify::ReadReservation, _) => {
            Some(ReserveIn { action: ReserveInAction::ReadReservation, allocation: 24 }.command())
        }
        (Verify::ReportTargetPortGroups, _) => {
            Some(scsi(&[0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0], ALLOCATION.into()))
        }
        (Verify::ModeSense, CommandBytes::Scsi(cdb)) => {
            let page = mode_page(cdb.opcode(), parameters(command))?;
            // Without block descriptors.
            Some(scsi(&[0x5a, 0x08, page, 0, 0, 0, 0, 0, 0xff, 0], 0xff))
        }
        (Verify::TestUnitReady, _) => Some(scsi(&[0; 6], 0)),
        (Verify::GetFeatures, CommandBytes::Nvme(fields)) => {
            let cdw10 = [fields.cdw10[0] & 0xff, 0, 0, 0, 0, 0];
            Some(nvme(NvmeFields { opcode: 0x0a, cdw10, ..*fields }, 0))
        }
        (Verify::ReservationReport, CommandBytes::Nvme(fields)) => {
            // Extended data structure: Host IDs of 128 bits.
            let cdw10 = [u32::from(ALLOCATION) / 4 - 1, 1, 0, 0, 0, 0];
            let report =
                NvmeFields { is_io: true, opcode: 0x0e, namespace: fields.namespace, cdw10, cdw2: [0; 2] };
            Some(nvme(report, ALLOCATION.into()))
        }
        _ => None,
    }
}

/// What a verify reply says of `command`, which went over `path`.
#[must_use]
pub fn judge(
    verify: Verify,
    (command, path): (&ControlCommand, PathIndex),
    ledger: &Ledger,
    reply: &ControlReply,
    was_good: Option<WasGood>,
) -> Found {
    let (data, result) = match reply {
        ControlReply::Scsi { data, .. } => (data.as_slice(), 0),
        ControlReply::Nvme { data, result, .. } => (data.as_slice(), *result),
    };
    match verify {
        Verify::ReadKeys => judge_keys(command, path, ledger, data, was_good),
        Verify::ReadReservation => judge_reservation(command, data, was_good),
        Verify::ReportTargetPortGroups => judge_port_groups(parameters(command), data),
        Verify::ModeSense => judge_mode(command, data),
        // The nexus is let through, so that the same once more does no harm.
        Verify::TestUnitReady => Found::Undone,
        Verify::GetFeatures => match &command.bytes {
            CommandBytes::Nvme(fields) if u64::from(fields.cdw10[1]) == result & 0xffff_ffff => Found::Done,
            _ => Found::Undone,
        },
        Verify::ReservationReport => judge_nvme(command, data),
        Verify::LogSense | Verify::None => Found::Undecided,
    }
}

fn judge_keys(
    command: &ControlCommand,
    path: PathIndex,
    ledger: &Ledger,
    data: &[u8],
    was_good: Option<WasGood>,
) -> Found {
    let (Some(out), Some(list)) = (reserve_out(command), KeyList::parse(data)) else {
        return Found::Undecided;
    };
    if !list.is_whole {
        return Found::Undecided;
    }
    let (key, action_key) = out.list.keys();
    let count = |key| list.keys.iter().filter(|known| **known == key).count();
    match out.action {
        ReserveOutAction::Register | ReserveOutAction::RegisterAndIgnore if action_key != 0 => {
            let (certain, perhaps) = ledger.others_with(path, action_key);
            match count(action_key) {
                found if found > perhaps => Found::Done,
                found if found <= certain => Found::Undone,
                _ => Found::Undecided,
            }
        }
        ReserveOutAction::Register | ReserveOutAction::RegisterAndIgnore => {
            if list.keys.is_empty() {
                return Found::Done;
            }
            // After a GOOD the ledger has noted it: what it said before counts.
            let had = was_good.and_then(|before| before.had_key);
            let known = ledger.nexus(path).key.or(had.map(|(key, _)| key));
            let Some(old) = Some(key).filter(|key| *key != 0).or(known) else {
                return Found::Undecided;
            };
            let (certain, perhaps) = ledger.others_with(path, old);
            // Another one that unregistered meanwhile may still have had it when the keys were read.
            let perhaps = perhaps.max(had.filter(|(key, _)| *key == old).map_or(0, |(_, others)| others));
            match count(old) {
                // A nexus that is gone, or another host, may have the same key: the target's word stands against it.
                found if found > perhaps && was_good.is_some() => Found::Undecided,
                found if found > perhaps => Found::Undone,
                found if found <= certain => Found::Done,
                _ => Found::Undecided,
            }
        }
        ReserveOutAction::Clear if count(key) > 0 => Found::Undone,
        ReserveOutAction::Clear => Found::Done,
        ReserveOutAction::Preempt | ReserveOutAction::PreemptAndAbort => {
            // Who pre-empts his own key keeps one registration.
            let left = usize::from(action_key == key);
            if count(action_key) > left { Found::Undone } else { Found::Done }
        }
        _ => Found::Undecided,
    }
}

fn judge_reservation(command: &ControlCommand, data: &[u8], was_good: Option<WasGood>) -> Found {
    let (Some(out), Some(report)) = (reserve_out(command), ReservationReport::parse(data)) else {
        return Found::Undecided;
    };
    if !report.is_whole {
        return Found::Undecided;
    }
    let (key, _) = out.list.keys();
    let is_ours = report.reservation.is_some_and(|held| held.key == key || held.kind.is_all_registrants());
    match (out.action, report.reservation) {
        (ReserveOutAction::Reserve, Some(held)) if is_ours && held.kind == out.kind => Found::Done,
        (ReserveOutAction::Reserve, _) => Found::Undone,
        (ReserveOutAction::Release, None) => Found::Done,
        (ReserveOutAction::Release, Some(_)) if is_ours => Found::Undone,
        // Another host holds it: it took it after us, or it had it all the time.
        (ReserveOutAction::Release, Some(_)) if was_good.is_some_and(|before| !before.did_hold) => {
            Found::Undone
        }
        _ => Found::Undecided,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from(*bytes.get(at)?) << 8 | u16::from(*bytes.get(at + 1)?))
}

/// SET TARGET PORT GROUPS (SPC-5 6.45) against REPORT TARGET PORT GROUPS (6.36).
fn judge_port_groups(wanted: &[u8], reported: &[u8]) -> Found {
    let mut states = Vec::new();
    let mut at = 4;
    while let (Some(state), Some(group), Some(ports)) =
        (reported.get(at), u16_at(reported, at + 2), reported.get(at + 7))
    {
        states.push((group, state & 0x0f));
        at += 8 + 4 * usize::from(*ports);
    }
    let mut found = Found::Done;
    for descriptor in wanted.get(4..).unwrap_or(&[]).chunks_exact(4) {
        let group = u16_at(descriptor, 2).unwrap_or(0);
        match states.iter().find(|(known, _)| *known == group) {
            Some((_, state)) if *state == descriptor[0] & 0x0f => {}
            Some(_) => found = Found::Undone,
            None => return Found::Undecided,
        }
    }
    found
}

/// MODE SELECT against MODE SENSE(10) of the same page (SPC-5 7.5.7).
fn judge_mode(command: &ControlCommand, sensed: &[u8]) -> Found {
    let CommandBytes::Scsi(cdb) = &command.bytes else { return Found::Undecided };
    let page = |opcode, list: &[u8]| -> Option<Vec<u8>> {
        let at = super::command_table::mode_page_at(opcode, list)?;
        let length = usize::from(*list.get(at + 1)?);
        let page = list.get(at..at + 2 + length)?;
        // Whether a page can be saved is no value of it.
        Some([&[page[0] & 0x7f], &page[1..]].concat())
    };
    match (page(cdb.opcode(), parameters(command)), page(0x5a, sensed)) {
        (Some(wanted), Some(found)) if wanted == found => Found::Done,
        (Some(wanted), Some(found)) if wanted[0] == found[0] => Found::Undone,
        _ => Found::Undecided,
    }
}

fn u64_le(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// NVMe reservations against the extended Reservation Report.
fn judge_nvme(command: &ControlCommand, data: &[u8]) -> Found {
    let CommandBytes::Nvme(fields) = &command.bytes else { return Found::Undecided };
    let list = parameters(command);
    let (Some(kind), Some(current)) = (data.get(4), u64_le(list, 0)) else { return Found::Undecided };
    // A descriptor: controller, status, reserved, key at byte 8, Host ID.
    let registrants: Vec<(bool, u64)> = data
        .get(64..)
        .unwrap_or(&[])
        .chunks_exact(64)
        .filter_map(|one| Some((one[2] & 1 != 0, u64_le(one, 8)?)))
        .filter(|(_, key)| *key != 0)
        .collect();
    let has = |key| registrants.iter().any(|(_, known)| *known == key);
    let holds = |key| registrants.iter().any(|(is_holder, known)| *is_holder && *known == key);
    let is_done = match (fields.opcode, fields.cdw10[0] & 0x07) {
        // Register or replace; unregister.
        (0x0d, 0 | 2) => u64_le(list, 8).is_some_and(has),
        (0x0d, 1) => !has(current),
        // Acquire; pre-empt.
        (0x11, 0) => holds(current),
        (0x11, 1 | 2) => !u64_le(list, 8).is_some_and(has),
        // Release; clear.
        (0x15, 0) => *kind == 0 || !holds(current),
        (0x15, 1) => registrants.is_empty(),
        _ => return Found::Undecided,
    };
    if is_done { Found::Done } else { Found::Undone }
}

#[cfg(test)]
mod tests {
    use storage_mapping::scsi::reservations::ReservationType;

    use super::*;

    fn keys(keys: &[u64]) -> ControlReply {
        let data = KeyList { generation: 1, keys: keys.to_vec(), is_whole: true }.emit();
        ControlReply::Scsi { status: 0, sense: Vec::new(), data }
    }

    #[test]
    fn a_registration_is_found_by_its_key() {
        let ledger = Ledger::new(2);
        let kind = ReservationType::NONE;
        let register = ReserveOut::new(ReserveOutAction::Register, kind, 0, 0x11).command();
        let judged = |list: &[u64], command: &ControlCommand| {
            judge(Verify::ReadKeys, (command, PathIndex(0)), &ledger, &keys(list), None)
        };
        assert_eq!(judged(&[0x22, 0x11], &register), Found::Done);
        assert_eq!(judged(&[0x22], &register), Found::Undone);
        let unregister = ReserveOut::new(ReserveOutAction::Register, kind, 0x11, 0).command();
        assert_eq!((judged(&[0x11], &unregister), judged(&[], &unregister)), (Found::Undone, Found::Done));
        let after_good = |list: &[u64]| {
            let was_good = Some(WasGood { did_hold: false, had_key: None });
            judge(Verify::ReadKeys, (&unregister, PathIndex(0)), &ledger, &keys(list), was_good)
        };
        // Registrations with the same key that a target kept of nexuses of before.
        assert_eq!((after_good(&[0x11, 0x11]), after_good(&[0x22])), (Found::Undecided, Found::Done));
        // Of no key that is named, after a GOOD: what the nexus had before tells.
        let ignoring = ReserveOut::new(ReserveOutAction::RegisterAndIgnore, kind, 0, 0).command();
        let had_key = |others| Some(WasGood { did_hold: false, had_key: Some((0x11, others)) });
        let judged_after = |list: &[u64], was_good| {
            judge(Verify::ReadKeys, (&ignoring, PathIndex(0)), &ledger, &keys(list), was_good)
        };
        assert_eq!(judged_after(&[], None), Found::Done);
        assert_eq!(judged_after(&[0x22], None), Found::Undecided);
        assert_eq!(judged_after(&[0x22], had_key(0)), Found::Done);
        assert_eq!(
            judged_after(&[0x11], had_key(0)),
            Found::Undecided,
            "it may be that of a nexus of before"
        );
        assert_eq!(judged_after(&[0x11], had_key(1)), Found::Undecided, "it may be that of the other nexus");
        let preempt = ReserveOut::new(ReserveOutAction::Preempt, kind, 0x11, 0x22).command();
        assert_eq!((judged(&[0x22], &preempt), judged(&[0x11], &preempt)), (Found::Undone, Found::Done));
    }

    /// A target that keeps registrations by login keeps that of the nexus of before, too.
    #[test]
    fn a_key_that_an_earlier_login_left_proves_nothing() {
        let (path, kind) = (PathIndex(0), ReservationType::NONE);
        let mut ledger = Ledger::new(2);
        ledger.handle_login(storage_mapping::Instant(1), path, 1);
        ledger.handle_login(storage_mapping::Instant(2), path, 3);
        let judged = |key, new, list: &[u64], was_good| {
            let command = ReserveOut::new(ReserveOutAction::Register, kind, key, new).command();
            judge(Verify::ReadKeys, (&command, path), &ledger, &keys(list), was_good)
        };
        assert_eq!(judged(0, 0x11, &[0x11], None), Found::Undecided);
        assert_eq!(judged(0, 0x11, &[0x11, 0x11], None), Found::Undecided, "of two earlier logins");
        let was_good = Some(WasGood { did_hold: false, had_key: Some((0x11, 0)) });
        assert_eq!(judged(0x11, 0, &[0x11], was_good), Found::Undecided);
    }

    #[test]
    fn a_mode_page_is_compared_whatever_stands_before_it() {
        let select = scsi(&[0x15, 0x10, 0, 0, 16, 0], 0);
        let list = vec![0, 0, 0, 0, 0x0a, 2, 7, 9];
        let select = ControlCommand { transfer: Transfer::Out(list), ..select };
        let sensed = |value| [vec![0; 8], vec![0x8a, 2, 7, value]].concat();
        assert_eq!(judge_mode(&select, &sensed(9)), Found::Done);
        assert_eq!(judge_mode(&select, &sensed(8)), Found::Undone);
        assert_eq!(judge_mode(&select, &[0; 5]), Found::Undecided);
    }

    #[test]
    fn port_groups_are_compared_one_by_one() {
        let wanted = [0, 0, 0, 0, 0x02, 0, 0, 1];
        let reported = |state| [[0; 4].as_slice(), &[state, 0, 0, 1, 0, 0, 0, 1], &[0, 0, 0, 1]].concat();
        assert_eq!(judge_port_groups(&wanted, &reported(2)), Found::Done);
        assert_eq!(judge_port_groups(&wanted, &reported(0)), Found::Undone);
        assert_eq!(judge_port_groups(&wanted, &[0; 4]), Found::Undecided);
    }
}
