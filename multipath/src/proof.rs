//! Does a path that comes back lead to the same data as the others?
//!
//! A path that was away may come back with another logical unit behind it: a cable in another port, a target that was
//! set up anew. So a few blocks are read over it and over a path in use, and compared, before it carries I/O:
//!
//! ```text
//!             both answers are there, equal        after the last block
//!   Read(b) ────────────────────────────▶ Read(b+1) ─────────────────▶ Same
//!     ▲  │  different                          either read failed
//!     └──┴──────────── again, some times        ────────────────────▶ Undecided
//!                      different every time     ────────────────────▶ Foreign
//! ```
//!
//! Keeps true: [`Step::Same`] only after every block was equal once, read over both paths at the same time;
//! [`Step::Foreign`] only after one block differed [`TRIES`] times with no write of ours to it on its way. Writes of
//! other hosts may make a block differ now and then, and no more. Nothing is written. Not here: names that the
//! storage side gives (a WWID); empty devices look all alike to this.

use storage_mapping::{Buffer, Lba, PathIndex};

/// Times that a block may differ before the path is taken for foreign.
const TRIES: u32 = 5;
/// Blocks that are compared.
pub(crate) const BLOCKS: u64 = 5;

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Wait for the other answer.
    Wait,
    /// Read this block over both paths.
    Read(Lba),
    /// The path leads to the same data.
    Same,
    /// It leads to other data.
    Foreign,
    /// A read failed, or writes were in the way: it is not known.
    Undecided,
}

/// One comparison under way.
#[derive(Debug)]
pub(crate) struct Proof {
    /// The path that came back.
    pub(crate) path: PathIndex,
    /// The path in use that it is compared with.
    pub(crate) witness: PathIndex,
    block_count: u64,
    next: u64,
    tries: u32,
    answer: Option<Buffer>,
}

impl Proof {
    /// Compares `path` with `witness` on a device of so many blocks.
    pub(crate) fn new(path: PathIndex, witness: PathIndex, block_count: u64) -> Self {
        Self { path, witness, block_count, next: 0, tries: 0, answer: None }
    }

    /// The block that is being compared: the first, where a volume has its master control block, the last, and some
    /// between.
    pub(crate) fn block(&self) -> Lba {
        let last = self.block_count.saturating_sub(1);
        let part = u128::from(last) * u128::from(self.next) / u128::from(BLOCKS - 1);
        Lba(u64::try_from(part).unwrap_or(last))
    }

    /// One of the two reads ended. `is_written`: a write of ours to the block is on its way.
    pub(crate) fn handle_answer(&mut self, answer: Option<Buffer>, is_written: bool) -> Step {
        let Some(answer) = answer else { return Step::Undecided };
        let Some(other) = self.answer.take() else {
            self.answer = Some(answer);
            return Step::Wait;
        };
        if other[..] == answer[..] {
            self.tries = 0;
            self.next += 1;
            return if self.next == BLOCKS { Step::Same } else { Step::Read(self.block()) };
        }
        self.tries += 1;
        match (self.tries < TRIES, is_written) {
            (true, _) => Step::Read(self.block()),
            (false, true) => Step::Undecided,
            (false, false) => Step::Foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(block_count: u64) -> Proof {
        Proof::new(PathIndex(0), PathIndex(1), block_count)
    }

    fn block(value: u8) -> Option<Buffer> {
        Some(Buffer::copy_of(&[value; 512]))
    }

    #[test]
    fn equal_blocks_from_the_first_to_the_last_prove_a_path() {
        let mut proof = proof(1001);
        let mut blocks = vec![proof.block().0];
        loop {
            assert_eq!(proof.handle_answer(block(1), false), Step::Wait);
            match proof.handle_answer(block(1), false) {
                Step::Read(lba) => blocks.push(lba.0),
                step => break assert_eq!(step, Step::Same),
            }
        }
        assert_eq!(blocks, [0, 250, 500, 750, 1000]);
    }

    #[test]
    fn a_block_that_always_differs_is_another_device() {
        let mut proof = proof(1);
        for _ in 1..TRIES {
            proof.handle_answer(block(1), false);
            assert_eq!(proof.handle_answer(block(2), false), Step::Read(Lba(0)));
        }
        proof.handle_answer(block(1), false);
        assert_eq!(proof.handle_answer(block(2), false), Step::Foreign);
    }

    #[test]
    fn one_that_differs_once_was_written_in_between() {
        let mut proof = proof(9);
        proof.handle_answer(block(1), true);
        assert_eq!(proof.handle_answer(block(2), true), Step::Read(Lba(0)));
        proof.handle_answer(block(2), false);
        assert_eq!(proof.handle_answer(block(2), false), Step::Read(Lba(2)));
    }

    #[test]
    fn a_failed_read_or_our_own_writes_leave_it_open() {
        assert_eq!(proof(9).handle_answer(None, false), Step::Undecided);
        let mut proof = proof(9);
        let steps: Vec<Step> = (0..2 * TRIES).map(|at| proof.handle_answer(block(at as u8), true)).collect();
        assert_eq!(steps.last(), Some(&Step::Undecided));
    }
}
