//! Commands in `pro_dtd` and `InitM`: their bodies are sealed under the command key of the direction.
//!
//! A command number names one plaintext for ever; opcode, request and length are readable by everybody
//! and bound by the seal. Not here: when a command may be placed or taken (rules 27 and 28, in
//! `own_view` and `peer_view`).

use crate::format::process_id_table::CommandStructure;
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
