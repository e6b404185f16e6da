//! Commands in `pro_dtd` and `InitM`: their bodies are sealed under the command key of the direction.
//!
//! A command number names one plaintext for ever; opcode, request and length are readable by everybody
//! and bound by the seal. An entry that is written again carries the same command, bit by bit, and is
//! taken once. Not here: when a command may be placed (rule 27, in `own_view`).

use crate::format::process_id_table::{CommandStructure, ProcessFlags, ProcessIdEntry};
use crate::format::segment::Direction;
use crate::protocol::seal::DirectionKeys;

/// A command that waits for its place in `pro_dtd` or `InitM`.
#[derive(Debug)]
pub struct PendingCommand {
    /// What it asks.
    pub opcode: u16,
    /// Request it belongs to.
    pub request: u64,
    /// Body, at most [`COMMAND_BODY_MAX_BYTES`](crate::format::process_id_table::COMMAND_BODY_MAX_BYTES).
    pub body: Vec<u8>,
}

/// What a newer entry of the peer says about its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Announced {
    /// The one after the last taken: it is to be taken.
    Next,
    /// The last taken (or none, where none was): the entry was written again.
    Same,
    /// Any other: the peer broke the protocol.
    Wrong,
}

/// Rule 28, for an entry under the keys, newer than the last one; `taken` is the last number taken.
pub(super) fn judge_command(entry: &ProcessIdEntry, taken: u64) -> Announced {
    let present = entry.pro_flag_process.contains(ProcessFlags::COMMAND);
    let number = if present { entry.pro_dtd.command_number } else { 0 };
    match number.checked_sub(taken) {
        Some(0) => Announced::Same,
        Some(1) => Announced::Next,
        _ => Announced::Wrong,
    }
}

fn command_associated(
    volume_id: [u8; 16],
    connection_id: [u8; 16],
    direction: Direction,
    command: &CommandStructure,
) -> Vec<u8> {
    let mut bytes = [&volume_id[..], &connection_id, &[direction.code()]].concat();
    bytes.extend_from_slice(&command.opcode.to_le_bytes());
    bytes.extend_from_slice(&command.body_length.to_le_bytes());
    bytes.extend_from_slice(&command.request_id.to_le_bytes());
    bytes.extend_from_slice(&command.command_number.to_le_bytes());
    bytes
}

/// Seals `pending` as command `number` of its connection and direction.
#[must_use]
pub fn seal_command(
    keys: &DirectionKeys,
    volume_id: [u8; 16],
    connection_id: [u8; 16],
    direction: Direction,
    number: u64,
    pending: &PendingCommand,
    nonce: [u8; 24],
) -> CommandStructure {
    let length = pending.body.len();
    let mut command = CommandStructure {
        opcode: pending.opcode,
        body_length: u16::try_from(length).expect("checked when it was queued"),
        flags: 1,
        request_id: pending.request,
        command_number: number,
        nonce,
        ..CommandStructure::none()
    };
    let associated = command_associated(volume_id, connection_id, direction, &command);
    command.body[..length].copy_from_slice(&pending.body);
    command.tag = keys.command.seal(&nonce, &associated, &mut command.body[..length]);
    command
}

/// The body of a command, if it is sealed as one of this connection and direction.
#[must_use]
pub fn open_command(
    keys: &DirectionKeys,
    volume_id: [u8; 16],
    connection_id: [u8; 16],
    direction: Direction,
    command: &CommandStructure,
) -> Option<Vec<u8>> {
    let mut body = command.body.get(..usize::from(command.body_length))?.to_vec();
    let associated = command_associated(volume_id, connection_id, direction, command);
    keys.command.open(&command.nonce, &associated, &command.tag, &mut body).then_some(body)
}

#[cfg(test)]
mod tests {
    use volume::header::{Edition, Header, Place, RecordType};

    use super::*;
    use crate::format::process_id_table::{EntryState, Role};

    fn entry(number: Option<u64>) -> ProcessIdEntry {
        let place = Place { volume_id: [1; 16], owner: 2, index: 0, device: 0, block: 7 };
        let edition = Edition { incarnation: 3, nonce_low: 4, version: 5 };
        let header = Header::new::<ProcessIdEntry>(RecordType::ProcessIdEntry, place, edition);
        let mut entry = ProcessIdEntry::unused(header, 0, Role::Initiator, EntryState::Established);
        if let Some(number) = number {
            entry.pro_flag_process.set(ProcessFlags::COMMAND, true);
            entry.pro_dtd.command_number = number;
        }
        entry
    }

    #[test]
    fn only_the_next_command_is_taken_and_only_the_last_may_come_again() {
        let judged = |number, taken| judge_command(&entry(number), taken);
        assert_eq!(judged(None, 0), Announced::Same);
        assert_eq!(judged(Some(1), 0), Announced::Next);
        assert_eq!(judged(Some(5), 5), Announced::Same);
        assert_eq!(judged(Some(6), 5), Announced::Next);
        for number in [None, Some(0), Some(1), Some(4), Some(7), Some(u64::MAX)] {
            assert_eq!(judged(number, 5), Announced::Wrong, "{number:?}");
        }
        assert_eq!(judged(Some(0), u64::MAX), Announced::Wrong);
    }
}
