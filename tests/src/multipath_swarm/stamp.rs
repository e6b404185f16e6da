//! What a block holds: the write that filled it, and the address that it was meant for.
//!
//! Keeps true: no two writes, and no two addresses, give the same bytes, so that a block that is old, torn or at the
//! wrong place is told apart from a good one. A block of zeros was never written. Not here: which write a block may
//! hold (`truth`).

use storage_mapping::Lba;

/// Size of a block, in bytes.
pub(super) const BLOCK_BYTES: usize = 512;

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// It is made of parts of several.
    Torn,
    /// It is whole, and belongs to this address.
    Elsewhere(u64),
}

fn word(write: u64, lba: u64, index: u64) -> u64 {
    let mixed = write.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ lba.wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    mixed.wrapping_add(index.wrapping_mul(0x1656_67b1_9e37_79f9))
}

/// Fills a block on behalf of a write; numbers of writes begin with 1.
pub(super) fn fill(block: &mut [u8], write: u64, lba: Lba) {
    let words = [write, lba.0].into_iter().chain((2..).map(|index| word(write, lba.0, index)));
    for (place, word) in block.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
}

/// The write that filled a block of any address, and that address; `None` where no write did, and an error where the
/// block is torn.
pub(super) fn origin(block: &[u8]) -> Result<Option<(u64, Lba)>, Damage> {
    let mut words = block.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
    let (write, lba) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
    if write == 0 {
        let is_blank = lba == 0 && words.all(|word| word == 0);
        return if is_blank { Ok(None) } else { Err(Damage::Torn) };
    }
    let is_whole = words.zip(2..).all(|(found, index)| found == word(write, lba, index));
    if is_whole { Ok(Some((write, Lba(lba)))) } else { Err(Damage::Torn) }
}

/// The write that filled the block of an address; 0 where none did.
pub(super) fn read(block: &[u8], lba: Lba) -> Result<u64, Damage> {
    match origin(block)? {
        None => Ok(0),
        Some((write, place)) if place == lba => Ok(write),
        Some((_, place)) => Err(Damage::Elsewhere(place.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_torn_and_misplaced_blocks_are_told_apart() {
        let (mut one, mut other) = ([0; BLOCK_BYTES], [0; BLOCK_BYTES]);
        assert_eq!(read(&one, Lba(7)), Ok(0));
        fill(&mut one, 3, Lba(7));
        fill(&mut other, 4, Lba(7));
        assert_eq!((read(&one, Lba(7)), read(&other, Lba(7))), (Ok(3), Ok(4)));
        assert_eq!(read(&one, Lba(8)), Err(Damage::Elsewhere(7)));
        for cut in (8..BLOCK_BYTES).step_by(8) {
            let mut torn = one;
            torn[cut..].copy_from_slice(&other[cut..]);
            assert_eq!(read(&torn, Lba(7)), Err(Damage::Torn), "{cut}");
        }
    }
}
