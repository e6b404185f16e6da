//! Commands of few words: TEST UNIT READY, REQUEST SENSE, START STOP UNIT, SYNCHRONIZE CACHE, RESERVE and RELEASE of the
//! old kind (SPC-2), and READ and WRITE.
//!
//! Keeps true: `parse` gives back what `cdb` made; what a field cannot carry is a panic of the caller, not another value.
//! Not here: sense data (`sense`), persistent reservations (`reservations`).

use super::number::{put, put_length, u16_at, u32_at, u64_at};
use super::{command, opcode};
use crate::control_port::{Cdb, ControlCommand, Transfer};

/// A command without data, or with data of a fixed direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BasicCommand {
    /// TEST UNIT READY.
    TestUnitReady,
    /// REQUEST SENSE.
    RequestSense {
        /// DESC: asks for descriptor format.
        descriptors: bool,
        /// The most bytes that may come.
        allocation: u8,
    },
    /// START STOP UNIT.
    StartStopUnit(StartStop),
    /// SYNCHRONIZE CACHE(10).
    SynchronizeCache10 {
        /// IMMED: answers before it is done.
        immediate: bool,
        /// First block.
        lba: u32,
        /// How many; 0: to the end.
        blocks: u16,
    },
    /// SYNCHRONIZE CACHE(16).
    SynchronizeCache16 {
        /// IMMED.
        immediate: bool,
        /// First block.
        lba: u64,
        /// How many; 0: to the end.
        blocks: u32,
    },
    /// RESERVE(6): the whole unit for this nexus.
    Reserve6,
    /// RELEASE(6).
    Release6,
    /// RESERVE(10), the whole unit, for this nexus.
    Reserve10,
    /// RELEASE(10).
    Release10,
    /// PREVENT ALLOW MEDIUM REMOVAL.
    PreventRemoval(bool),
}

/// START STOP UNIT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StartStop {
    /// IMMED: answers before it is done.
    pub immediate: bool,
    /// POWER CONDITION, 4 bits; 0: `start` counts.
    pub power_condition: u8,
    /// NO_FLUSH.
    pub no_flush: bool,
    /// LOEJ: load or eject.
    pub load_eject: bool,
    /// START, else stop.
    pub start: bool,
}

impl BasicCommand {
    /// The whole cache, answered when it is on the medium.
    pub const FLUSH: Self = Self::SynchronizeCache10 { immediate: false, lba: 0, blocks: 0 };

    /// The command.
    #[must_use]
    pub fn command(self) -> ControlCommand {
        let transfer = match self {
            Self::RequestSense { allocation, .. } => Transfer::In(allocation.into()),
            _ => Transfer::None,
        };
        match self {
            Self::TestUnitReady => command(&[opcode::TEST_UNIT_READY, 0, 0, 0, 0, 0], transfer),
            Self::RequestSense { descriptors, allocation } => {
                command(&[opcode::REQUEST_SENSE, u8::from(descriptors), 0, 0, allocation, 0], transfer)
            }
            Self::StartStopUnit(options) => {
                let last = options.power_condition << 4
                    | u8::from(options.no_flush) << 2
                    | u8::from(options.load_eject) << 1
                    | u8::from(options.start);
                command(&[opcode::START_STOP_UNIT, u8::from(options.immediate), 0, 0, last, 0], transfer)
            }
            Self::SynchronizeCache10 { immediate, lba, blocks } => {
                let mut cdb =
                    [opcode::SYNCHRONIZE_CACHE_10, u8::from(immediate) << 1, 0, 0, 0, 0, 0, 0, 0, 0];
                put(&mut cdb, 2, 4, lba);
                put(&mut cdb, 7, 2, blocks);
                command(&cdb, transfer)
            }
            Self::SynchronizeCache16 { immediate, lba, blocks } => {
                let mut cdb = [0; 16];
                (cdb[0], cdb[1]) = (opcode::SYNCHRONIZE_CACHE_16, u8::from(immediate) << 1);
                put(&mut cdb, 2, 8, lba);
                put(&mut cdb, 10, 4, blocks);
                command(&cdb, transfer)
            }
            Self::Reserve6 => command(&[opcode::RESERVE_6, 0, 0, 0, 0, 0], transfer),
            Self::Release6 => command(&[opcode::RELEASE_6, 0, 0, 0, 0, 0], transfer),
            Self::Reserve10 => command(&[opcode::RESERVE_10, 0, 0, 0, 0, 0, 0, 0, 0, 0], transfer),
            Self::Release10 => command(&[opcode::RELEASE_10, 0, 0, 0, 0, 0, 0, 0, 0, 0], transfer),
            Self::PreventRemoval(prevent) => {
                let cdb = [opcode::PREVENT_ALLOW_MEDIUM_REMOVAL, 0, 0, 0, u8::from(prevent), 0];
                command(&cdb, transfer)
            }
        }
    }

    /// Reads the command; `None` where it is another one, or one that asks for an extent or a third party.
    #[must_use]
    pub fn parse(cdb: &Cdb) -> Option<Self> {
        let bytes = cdb.bytes();
        if opcode::cdb_bytes(cdb.opcode()) != Some(bytes.len()) {
            return None;
        }
        let is_plain = bytes[1] & 0x1f == 0;
        Some(match cdb.opcode() {
            opcode::TEST_UNIT_READY => Self::TestUnitReady,
            opcode::REQUEST_SENSE => {
                Self::RequestSense { descriptors: bytes[1] & 1 != 0, allocation: bytes[4] }
            }
            opcode::START_STOP_UNIT => Self::StartStopUnit(StartStop {
                immediate: bytes[1] & 1 != 0,
                power_condition: bytes[4] >> 4,
                no_flush: bytes[4] & 4 != 0,
                load_eject: bytes[4] & 2 != 0,
                start: bytes[4] & 1 != 0,
            }),
            opcode::SYNCHRONIZE_CACHE_10 => Self::SynchronizeCache10 {
                immediate: bytes[1] & 2 != 0,
                lba: u32_at(bytes, 2)?,
                blocks: u16_at(bytes, 7)?,
            },
            opcode::SYNCHRONIZE_CACHE_16 => Self::SynchronizeCache16 {
                immediate: bytes[1] & 2 != 0,
                lba: u64_at(bytes, 2)?,
                blocks: u32_at(bytes, 10)?,
            },
            opcode::RESERVE_6 if is_plain => Self::Reserve6,
            opcode::RELEASE_6 if is_plain => Self::Release6,
            opcode::RESERVE_10 if is_plain => Self::Reserve10,
            opcode::RELEASE_10 if is_plain => Self::Release10,
            opcode::PREVENT_ALLOW_MEDIUM_REMOVAL => Self::PreventRemoval(bytes[4] & 3 != 0),
            _ => return None,
        })
    }
}

/// Which form a READ or WRITE has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockForm {
    /// 10 bytes: 32 bits of address, 16 bits of length.
    Ten,
    /// 16 bytes: 64 bits of address, 32 bits of length.
    Sixteen,
}

/// READ or WRITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockTransfer {
    /// WRITE, else READ.
    pub is_write: bool,
    /// 10 or 16 bytes.
    pub form: BlockForm,
    /// FUA: past the cache.
    pub fua: bool,
    /// First block.
    pub lba: u64,
    /// How many.
    pub blocks: u32,
}

impl BlockTransfer {
    /// The shortest form that carries it.
    #[must_use]
    pub fn new(is_write: bool, lba: u64, blocks: u32) -> Self {
        let is_short =
            lba.saturating_add(blocks.into()) <= u64::from(u32::MAX) && u16::try_from(blocks).is_ok();
        let form = if is_short { BlockForm::Ten } else { BlockForm::Sixteen };
        Self { is_write, form, fua: false, lba, blocks }
    }

    /// The command with its data, whose length is the caller's.
    ///
    /// # Panics
    /// If address or length do not fit the form.
    #[must_use]
    pub fn command(self, transfer: Transfer) -> ControlCommand {
        let flags = u8::from(self.fua) << 3;
        match self.form {
            BlockForm::Ten => {
                let code = if self.is_write { opcode::WRITE_10 } else { opcode::READ_10 };
                let mut cdb = [code, flags, 0, 0, 0, 0, 0, 0, 0, 0];
                put(&mut cdb, 2, 4, u32::try_from(self.lba).expect("an address of 32 bits"));
                put_length(&mut cdb, 7, 2, self.blocks as usize);
                command(&cdb, transfer)
            }
            BlockForm::Sixteen => {
                let mut cdb = [0; 16];
                cdb[0] = if self.is_write { opcode::WRITE_16 } else { opcode::READ_16 };
                cdb[1] = flags;
                put(&mut cdb, 2, 8, self.lba);
                put(&mut cdb, 10, 4, self.blocks);
                command(&cdb, transfer)
            }
        }
    }

    /// Reads the command; `None` where it is another one.
    #[must_use]
    pub fn parse(cdb: &Cdb) -> Option<Self> {
        let bytes = cdb.bytes();
        let (is_write, form) = match (cdb.opcode(), bytes.len()) {
            (opcode::READ_10, 10) => (false, BlockForm::Ten),
            (opcode::WRITE_10, 10) => (true, BlockForm::Ten),
            (opcode::READ_16, 16) => (false, BlockForm::Sixteen),
            (opcode::WRITE_16, 16) => (true, BlockForm::Sixteen),
            _ => return None,
        };
        let (lba, blocks) = match form {
            BlockForm::Ten => (u32_at(bytes, 2)?.into(), u16_at(bytes, 7)?.into()),
            BlockForm::Sixteen => (u64_at(bytes, 2)?, u32_at(bytes, 10)?),
        };
        Some(Self { is_write, form, fua: bytes[1] & 8 != 0, lba, blocks })
    }
}
