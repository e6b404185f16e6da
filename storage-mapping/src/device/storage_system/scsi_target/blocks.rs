//! READ, WRITE and SYNCHRONIZE CACHE as commands: what the disks have to do for them.
//!
//! Keeps true: a range beyond the end of the unit, or data of another length than the range, reach no disk. Not here: the
//! disks (`core::service`).

use super::answer::{Answer, BlockWork, Step};
use super::unit::{Call, Done, LogicalUnit};
use crate::block::address::Lba;
use crate::scsi::opcode;

/// FUA, in byte 1.
const FUA: u8 = 0x08;

/// A big-endian number of up to 8 bytes.
pub(super) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// First block, number of blocks, and where the latter stands.
fn range(cdb: &[u8]) -> (u64, u64, u16) {
    match cdb.len() {
        10 => (number(&cdb[2..6]), number(&cdb[7..9]), 7),
        _ => (number(&cdb[2..10]), number(&cdb[10..14]), 10),
    }
}

impl LogicalUnit {
    pub(super) fn blocks(&self, call: &Call<'_>) -> Done {
        let (lba, count, length_field) = range(call.cdb);
        if lba.checked_add(count).is_none_or(|end| end > self.name.block_count.0) {
            return Done::answer(Answer::illegal(0x21, 0x00));
        }
        let (lba, fua) = (Lba(lba), call.cdb[1] & FUA != 0);
        let bytes =
            usize::try_from(count).ok().and_then(|count| count.checked_mul(self.name.block_size.bytes()));
        let Some(bytes) = bytes.filter(|bytes| *bytes <= self.name.transfer_max_bytes || is_flush(call.cdb))
        else {
            return Done::answer(Answer::wrong_field(length_field));
        };
        let (changed, work) = match call.cdb[0] {
            _ if is_flush(call.cdb) => (true, BlockWork::Flush),
            _ if bytes == 0 => return Done::good(false),
            opcode::READ_10 | opcode::READ_16 => (false, BlockWork::Read { lba, bytes }),
            _ if call.data.len() != bytes => return Done::answer(Answer::wrong_length()),
            _ => (true, BlockWork::Write { lba, data: call.data.to_vec(), fua }),
        };
        Done { step: Step::Blocks(work), changed, ..Done::good(changed) }
    }
}

fn is_flush(cdb: &[u8]) -> bool {
    matches!(cdb[0], opcode::SYNCHRONIZE_CACHE_10 | opcode::SYNCHRONIZE_CACHE_16)
}
