//! What a logical unit answers, and what blocks have to do before it can.
//!
//! Keeps true: an answer that is not GOOD says why in sense data where the standard has a word for it.

use super::attention::Attention;
use crate::block::address::Lba;
use crate::control_port::ControlReply;
use crate::scsi::sense::{KeySpecific, Sense, key};
use crate::scsi::status;

/// Status, sense and data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Answer {
    pub(in super::super) status: u8,
    pub(super) sense: Option<Sense>,
    pub(super) data: Vec<u8>,
}

impl Answer {
    /// GOOD with data.
    pub(super) fn data(data: Vec<u8>) -> Self {
        Self { status: status::GOOD, sense: None, data }
    }

    pub(super) fn good() -> Self {
        Self::data(Vec::new())
    }

    /// A status without sense.
    pub(in super::super) fn status(status: u8) -> Self {
        Self { status, sense: None, data: Vec::new() }
    }

    pub(super) fn conflict() -> Self {
        Self::status(status::RESERVATION_CONFLICT)
    }

    pub(super) fn check(sense: Sense) -> Self {
        Self { status: status::CHECK_CONDITION, sense: Some(sense), data: Vec::new() }
    }

    pub(super) fn attention(attention: Attention) -> Self {
        Self::check(Sense::new(key::UNIT_ATTENTION, attention.asc, attention.ascq))
    }

    pub(super) fn illegal(asc: u8, ascq: u8) -> Self {
        Self::check(Sense::new(key::ILLEGAL_REQUEST, asc, ascq))
    }

    /// INVALID FIELD IN CDB.
    pub(super) fn wrong_field(byte: u16) -> Self {
        Self::pointed(0x24, true, byte)
    }

    /// INVALID FIELD IN PARAMETER LIST.
    pub(super) fn wrong_parameter(byte: u16) -> Self {
        Self::pointed(0x26, false, byte)
    }

    /// PARAMETER LIST LENGTH ERROR.
    pub(super) fn wrong_length() -> Self {
        Self::illegal(0x1a, 0x00)
    }

    fn pointed(asc: u8, in_cdb: bool, byte: u16) -> Self {
        let pointer = KeySpecific::FieldPointer { in_cdb, bit: None, byte };
        Self::check(Sense { key_specific: Some(pointer), ..Sense::new(key::ILLEGAL_REQUEST, asc, 0) })
    }

    /// MEDIUM ERROR: a disk below failed.
    pub(in super::super) fn medium_error() -> Self {
        Self::check(Sense::new(key::MEDIUM_ERROR, 0x11, 0x00))
    }

    /// Data as they were read from the disks.
    pub(in super::super) fn read(data: Vec<u8>) -> Self {
        Self::data(data)
    }

    /// As the port hands it out: sense in the layout that the unit is set to, data cut to what was asked for.
    pub(in super::super) fn into_reply(mut self, has_descriptors: bool, limit: usize) -> ControlReply {
        self.data.truncate(limit);
        let sense = self.sense.map(|sense| if has_descriptors { sense.as_descriptors() } else { sense });
        let sense = sense.as_ref().map(Sense::emit).unwrap_or_default();
        ControlReply::Scsi { status: self.status, sense, data: self.data }
    }
}

/// What the disks have to do for a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum BlockWork {
    Read { lba: Lba, bytes: usize },
    Write { lba: Lba, data: Vec<u8>, fua: bool },
    Flush,
}

/// How a command goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Step {
    Answer(Answer),
    /// GOOD, once the disks have done this.
    Blocks(BlockWork),
}

impl From<Answer> for Step {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}
