//! READ CAPACITY of 10 and 16 bytes (SBC-5 5.16, 5.17).
//!
//! Keeps true: a size that the short form cannot tell is no size. Not here: whether it changed (`multipath`).

use super::number::{put, u16_at, u32_at, u64_at};
use super::{command, opcode};
use crate::control_port::{Cdb, ControlCommand, Transfer};

/// Bytes of the short reply.
const SHORT_BYTES: usize = 8;
/// Bytes of the long reply.
const LONG_BYTES: usize = 32;

/// READ CAPACITY(10) or, with an allocation length, (16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadCapacity {
    /// 10 bytes; reply [`ShortCapacity`].
    Short,
    /// 16 bytes; reply [`Capacity`].
    Long {
        /// The most bytes that may come.
        allocation: u32,
    },
}

impl ReadCapacity {
    /// The long form for a whole reply.
    pub const LONG: Self = Self::Long { allocation: LONG_BYTES as u32 };

    /// The command.
    #[must_use]
    pub fn command(self) -> ControlCommand {
        let Self::Long { allocation } = self else {
            let cdb = [opcode::READ_CAPACITY_10, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            return command(&cdb, Transfer::In(SHORT_BYTES));
        };
        let mut cdb = [0; 16];
        cdb[0] = opcode::SERVICE_ACTION_IN_16;
        cdb[1] = opcode::service_action_in_16::READ_CAPACITY_16 as u8;
        put(&mut cdb, 10, 4, allocation);
        command(&cdb, Transfer::In(allocation as usize))
    }

    /// Reads the command; `None` where it is another one.
    #[must_use]
    pub fn parse(cdb: &Cdb) -> Option<Self> {
        let action = opcode::service_action(cdb);
        match (cdb.opcode(), cdb.bytes().len()) {
            (opcode::READ_CAPACITY_10, 10) => Some(Self::Short),
            (opcode::SERVICE_ACTION_IN_16, 16)
                if action == Some(opcode::service_action_in_16::READ_CAPACITY_16) =>
            {
                Some(Self::Long { allocation: u32_at(cdb.bytes(), 10)? })
            }
            _ => None,
        }
    }
}

/// The reply to READ CAPACITY(10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ShortCapacity {
    /// The last block; `None` where it is beyond what the short form can tell.
    pub last_block: Option<u32>,
    /// Bytes of a block.
    pub block_bytes: u32,
}

impl ShortCapacity {
    /// Reads it; `None` where it did not come whole.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (last, block_bytes) = (u32_at(bytes, 0)?, u32_at(bytes, 4)?);
        Some(Self { last_block: Some(last).filter(|last| *last != u32::MAX), block_bytes })
    }

    /// Its bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; SHORT_BYTES];
        put(&mut bytes, 0, 4, self.last_block.unwrap_or(u32::MAX));
        put(&mut bytes, 4, 4, self.block_bytes);
        bytes
    }
}

/// The reply to READ CAPACITY(16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Capacity {
    /// The last block.
    pub last_block: u64,
    /// Bytes of a block.
    pub block_bytes: u32,
    /// P_TYPE (3 bits), where protection is enabled.
    pub protection_type: Option<u8>,
    /// P_I_EXPONENT, 4 bits: 2 to the power of it protection intervals in a block.
    pub protection_exponent: u8,
    /// LBPPBE, 4 bits: 2 to the power of it blocks are one physical block.
    pub physical_exponent: u8,
    /// LBPME: blocks can be unmapped.
    pub provisioned: bool,
    /// LBPRZ: they read as zeros then.
    pub reads_zeros: bool,
    /// The first block that begins a physical one, 14 bits.
    pub lowest_aligned: u16,
    /// Whether all 32 bytes came.
    pub is_whole: bool,
}

impl Capacity {
    /// Reads it; `None` where size and block size did not come.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
        let lowest = u16_at(bytes, 14).unwrap_or_default();
        Some(Self {
            last_block: u64_at(bytes, 0)?,
            block_bytes: u32_at(bytes, 8)?,
            protection_type: (byte(12) & 1 != 0).then_some(byte(12) >> 1 & 7),
            protection_exponent: byte(13) >> 4,
            physical_exponent: byte(13) & 0xf,
            provisioned: lowest & 0x8000 != 0,
            reads_zeros: lowest & 0x4000 != 0,
            lowest_aligned: lowest & 0x3fff,
            is_whole: bytes.len() >= LONG_BYTES,
        })
    }

    /// Its bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; LONG_BYTES];
        put(&mut bytes, 0, 8, self.last_block);
        put(&mut bytes, 8, 4, self.block_bytes);
        bytes[12] = self.protection_type.map_or(0, |kind| (kind & 7) << 1 | 1);
        bytes[13] = self.protection_exponent << 4 | self.physical_exponent & 0xf;
        let flags = u16::from(self.provisioned) << 15 | u16::from(self.reads_zeros) << 14;
        put(&mut bytes, 14, 2, flags | self.lowest_aligned & 0x3fff);
        bytes
    }
}
