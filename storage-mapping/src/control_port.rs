//! The seam for out-of-band control commands: a port of one path that takes SCSI or NVMe commands and gives replies.
//!
//! A path is a [`BlockDevice`](crate::BlockDevice) and, where its transport can do it, a [`ControlPort`]
//! ([`BlockDevice::control_port`](crate::BlockDevice::control_port)): commands pass by the layers for blocks (FIG. 13), each
//! names its path, and the port sends it over that path alone.
//!
//! What every implementation keeps true:
//!
//! * an accepted command completes exactly once, or stays in flight for ever (a path that hangs); no method blocks, sleeps or
//!   reads a clock;
//! * a command is sent at most once: a port never repeats one, not after a new login either;
//! * whatever the target answered is an `Ok` reply with its status; an `Err` means that no answer came, and says with *effect*
//!   and *copy* what is known of the command then;
//! * what `submit_control` does not take was not sent;
//! * a unit attention that the port met on its own account (after a login) is kept and handed out as an event.
//!
//! Not here: what a command means, which path it takes, whether it may be repeated (`multipath::out_of_band`); what its bytes
//! are ([`scsi`](crate::scsi), [`nvme`](crate::nvme)).

use std::fmt;
use std::os::fd::RawFd;

use thiserror::Error;

use crate::block::request::{CopyFate, Effect, IoError, IoTag, RefusalReason};
use crate::block::time::Instant;

/// The longest command descriptor block that is carried, in bytes.
pub const CDB_MAX_BYTES: usize = 32;
/// The most data of one command, in bytes, either way.
pub const TRANSFER_MAX_BYTES: usize = 1 << 20;
/// The most sense data, in bytes (SPC-5: additional length of one byte, at most 252 in all).
pub const SENSE_MAX_BYTES: usize = 252;

/// A command descriptor block of 6, 10, 12, 16 or (opcode 7Fh) up to 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cdb {
    bytes: [u8; CDB_MAX_BYTES],
    length: u8,
}

/// Bytes that are no command descriptor block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0} bytes are no command descriptor block: it has 6, 10, 12, 16 or 32")]
pub struct CdbLengthError(pub usize);

impl Cdb {
    /// A command descriptor block as it is sent.
    ///
    /// # Errors
    /// [`CdbLengthError`] where it has another length than 6, 10, 12, 16 or 32 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, CdbLengthError> {
        let (6 | 10 | 12 | 16 | 32) = bytes.len() else { return Err(CdbLengthError(bytes.len())) };
        let mut own = [0; CDB_MAX_BYTES];
        own[..bytes.len()].copy_from_slice(bytes);
        Ok(Self { bytes: own, length: u8::try_from(bytes.len()).expect("at most 32") })
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Its first byte.
    #[must_use]
    pub fn opcode(&self) -> u8 {
        self.bytes[0]
    }
}

impl fmt::Debug for Cdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Cdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.bytes().iter().enumerate() {
            write!(f, "{}{byte:02x}", if place == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// An NVMe admin (or reservation) command without what the driver fills in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NvmeFields {
    /// Whether it goes to an I/O queue (reservations) and not to the admin queue.
    pub is_io: bool,
    /// Opcode.
    pub opcode: u8,
    /// Namespace.
    pub namespace: u32,
    /// Command dwords 2 and 3.
    pub cdw2: [u32; 2],
    /// Command dwords 10 to 15.
    pub cdw10: [u32; 6],
}

/// The command itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandBytes {
    /// SCSI.
    Scsi(Cdb),
    /// NVMe.
    Nvme(NvmeFields),
}

/// The data of a command.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Transfer {
    /// None.
    None,
    /// From the device, at most so many bytes.
    In(usize),
    /// To the device.
    Out(Vec<u8>),
}

/// What a command asks of a device: its bytes and its data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ControlCommand {
    /// The command.
    pub bytes: CommandBytes,
    /// Its data.
    pub transfer: Transfer,
}

/// One command for one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlRequest {
    /// The submitter's name for it; unique among those in flight on one port, and apart from those of blocks.
    pub tag: IoTag,
    /// The command.
    pub command: ControlCommand,
}

/// What a target answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlReply {
    /// A SCSI target.
    Scsi {
        /// Status byte (00h GOOD, 02h CHECK CONDITION, 18h RESERVATION CONFLICT, …).
        status: u8,
        /// Sense data as it came; empty where none came.
        sense: Vec<u8>,
        /// The data that came, which may be less than asked for.
        data: Vec<u8>,
    },
    /// An NVMe controller.
    Nvme {
        /// Status code type.
        sct: u8,
        /// Status code.
        sc: u8,
        /// Do not retry.
        dnr: bool,
        /// Command retry delay index.
        crd: u8,
        /// Dwords 0 and 1 of the completion.
        result: u64,
        /// The data that came.
        data: Vec<u8>,
    },
}

impl ControlReply {
    /// Whether the target's status is a success, in the words of the layers for blocks.
    ///
    /// # Errors
    /// The status, with its sense (`scsi::status::outcome`, `nvme::status::outcome`).
    pub fn outcome(&self) -> Result<(), IoError> {
        match self {
            Self::Scsi { status, sense, .. } => crate::scsi::status::outcome(*status, sense),
            Self::Nvme { sct, sc, dnr, crd, .. } => crate::nvme::status::outcome(*sct, *sc, *dnr, *crd),
        }
    }

    /// The data that came.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        match self {
            Self::Scsi { data, .. } | Self::Nvme { data, .. } => data,
        }
    }
}

/// One finished command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlCompletion {
    /// The submitter's name for it.
    pub tag: IoTag,
    /// The target's answer, or why none came.
    pub outcome: Result<ControlReply, IoError>,
    /// Did the target act on it? `Full` says no more than that an answer came: what the answer proves, its status tells.
    pub effect: Effect,
    /// May it still be executed?
    pub copy: CopyFate,
}

/// What a port reports on its own account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlEvent {
    /// The nexus is gone: what the target kept for it may be gone too.
    NexusLost,
    /// A nexus stands, of a new [`NexusId::generation`].
    NexusBegun,
    /// A unit attention (SCSI) that the port consumed after a login.
    Attention {
        /// Sense key.
        key: u8,
        /// Additional sense code.
        asc: u8,
        /// Additional sense code qualifier.
        ascq: u8,
    },
    /// A command that was cancelled or had lost its nexus can no longer be executed.
    Settled(IoTag),
}

/// Who speaks to whom: what the target keeps registrations, reservations and attentions by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NexusId {
    /// The initiator port, in the words of the transport (iSCSI: name and session id; SG_IO: host adapter; NVMe: Host ID).
    pub initiator: String,
    /// The target port (iSCSI: name and portal; SG_IO: address of the target; NVMe: controller).
    pub target_port: String,
    /// Counts logins, from 1.
    pub generation: u64,
}

/// Which words a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandSet {
    /// SCSI.
    Scsi,
    /// NVMe.
    Nvme,
}

/// The end of one path that takes control commands. The contract stands at the head of this module.
pub trait ControlPort {
    /// Which commands it takes.
    fn command_set(&self) -> CommandSet;

    /// Who speaks to whom.
    fn nexus(&self) -> NexusId;

    /// Takes a command.
    ///
    /// # Errors
    /// Why it was not taken; nothing was sent. `Invalid`: of the other command set, or longer than the limits of this module.
    fn submit_control(&mut self, now: Instant, request: ControlRequest) -> Result<(), RefusalReason>;

    /// Hands out one finished command, or `None`. To be called until `None`. What wakes a
    /// [`BlockDevice`](crate::BlockDevice) wakes its port.
    fn poll_control(&mut self, now: Instant) -> Option<ControlCompletion>;

    /// Hands out one event, or `None`. To be called until `None`.
    fn poll_control_event(&mut self, now: Instant) -> Option<ControlEvent>;

    /// Tries to withdraw a command.
    fn cancel_control(&mut self, now: Instant, tag: IoTag) -> ControlCancelled;

    /// When `poll_control` wants to be called although nothing came in.
    fn next_control_wakeup(&self) -> Option<Instant>;

    /// Adds the descriptors that become readable when `poll_control` has something new.
    fn control_wait_on(&self, descriptors: &mut Vec<RawFd>);
}

/// The answer to [`ControlPort::cancel_control`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlCancelled {
    /// Its first byte had not left. It will not complete.
    Withdrawn,
    /// It has left; the target was asked to drop it where that can be. It completes in any case, or hangs.
    Requested,
    /// No such command.
    NotHere,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_descriptor_block_has_one_of_five_lengths() {
        for length in 0..40 {
            let is_valid = matches!(length, 6 | 10 | 12 | 16 | 32);
            assert_eq!(Cdb::new(&vec![0x12; length]).is_ok(), is_valid, "{length}");
        }
        let inquiry = Cdb::new(&[0x12, 1, 0x83, 0, 0xff, 0]).unwrap();
        assert_eq!((inquiry.opcode(), inquiry.to_string().as_str()), (0x12, "12 01 83 00 ff 00"));
    }
}
