//! What a shared disk holds, and what happens to it in the order of time.
//!
//! Blocks that were never written take no memory. A block that was written may keep its content of before,
//! for stale looks. Keeps true: what lands is what was submitted, byte for byte, however much later; a
//! write buffer that changed or was used again while a copy of it could still land ends the run.
//! Not here: which fault a request meets (`disk`).

use std::collections::BTreeMap;
use std::sync::Arc;

use storage_mapping::{Buffer, Instant, SharedBuffer};

use super::{BLOCK_BYTES, SECTOR_BYTES};
use crate::fault::{Fault, FaultCounters};
use crate::plan::DiskFaults;

/// The content of one block.
pub type Block = [u8; BLOCK_BYTES];

/// Content that many disks begin with.
pub type Image = Arc<BTreeMap<usize, Box<Block>>>;

const ZEROS: Block = [0; BLOCK_BYTES];

/// What happens at a moment.
#[derive(Debug)]
pub(super) enum Moment {
    /// A write takes effect.
    Land(Landing),
    /// A read takes effect.
    Look(Look),
}

/// A write, or what is left of it.
#[derive(Debug)]
pub(super) struct Landing {
    /// First byte on the disk.
    pub start: usize,
    /// The bytes.
    pub data: SharedBuffer,
    /// How many of them land.
    pub length: usize,
    /// The sum of all of them when they were submitted.
    pub sum: u64,
    /// When they were submitted.
    pub submitted: Instant,
}

/// A read.
#[derive(Debug)]
pub(super) struct Look {
    /// Which.
    pub number: u64,
    /// First byte on the disk.
    pub start: usize,
    /// What is wrong with it.
    pub fault: LookFault,
}

/// What is wrong with a read.
#[derive(Clone, Copy, Debug)]
pub(super) enum LookFault {
    /// Nothing.
    None,
    /// It sees what was there before the last write.
    Stale,
    /// One bit is wrong.
    Flip(u64),
    /// It sees what stands here.
    Elsewhere(usize),
}

/// The content of a disk, and what is on its way to it.
#[derive(Debug)]
pub(super) struct Medium {
    blocks: Vec<Option<Box<Block>>>,
    image: Option<Image>,
    /// Content of blocks before their last write, kept where looks may be stale.
    before: Option<BTreeMap<usize, Box<Block>>>,
    /// When what stands in a block was submitted, kept where writes may overtake each other.
    youngest: BTreeMap<usize, Instant>,
    moments: BTreeMap<(Instant, u64), Moment>,
    /// Buffers of looks until their completion.
    looks: BTreeMap<u64, Buffer>,
    next: u64,
    /// A write that lands once more when it is told to.
    kept: Option<Landing>,
    /// Blocks below this one are the admin's: nothing but a fault writes them.
    pub(super) guarded: usize,
    /// Changes of guarded blocks.
    pub(super) guarded_changes: u64,
    pub(super) faults: DiskFaults,
    pub(super) counters: FaultCounters,
}

impl Medium {
    /// A disk of `blocks` blocks of zeros.
    pub(super) fn new(blocks: usize, faults: DiskFaults) -> Self {
        Self {
            blocks: (0..blocks).map(|_| None).collect(),
            image: None,
            before: (faults.stale > 0).then(BTreeMap::new),
            youngest: BTreeMap::new(),
            moments: BTreeMap::new(),
            looks: BTreeMap::new(),
            next: 0,
            kept: None,
            guarded: 0,
            guarded_changes: 0,
            faults,
            counters: FaultCounters::default(),
        }
    }

    /// From now on blocks keep their content of before.
    pub(super) fn keep_before(&mut self) {
        self.before.get_or_insert_default();
    }

    /// A write is to land once more when it is told to.
    pub(super) fn keep(&mut self, landing: Landing) {
        self.kept = Some(landing);
    }

    /// The write that was kept lands.
    pub(super) fn land_kept(&mut self, now: Instant) {
        self.advance(now);
        if let Some(landing) = self.kept.take() {
            self.land_at(now, landing);
        }
    }

    /// What was written so far, to begin other disks with.
    pub(super) fn to_image(&self) -> Image {
        let written = |(number, block): (usize, &Option<Box<Block>>)| Some((number, block.clone()?));
        Arc::new(self.blocks.iter().enumerate().filter_map(written).collect())
    }

    /// Begins with `image`.
    pub(super) fn set_image(&mut self, image: Image) {
        self.image = Some(image);
    }

    /// What stands in a block.
    pub(super) fn block(&self, number: usize) -> &Block {
        let own = self.blocks[number].as_ref();
        own.or_else(|| self.image.as_ref()?.get(&number)).map_or(&ZEROS, |block| block)
    }

    /// Overwrites a block at once, as somebody would who does not follow the protocol.
    pub(super) fn set_block(&mut self, number: usize, content: &Block) {
        self.guarded_changes += u64::from(number < self.guarded);
        self.put(number, content);
    }

    /// Overwrites every guarded block with what the disk began with, as an administrator would.
    pub(super) fn restore_guarded(&mut self) {
        if self.guarded_changes == 0 {
            return;
        }
        self.guarded_changes += 1;
        for number in 0..self.guarded.min(self.blocks.len()) {
            self.blocks[number] = None;
        }
    }

    fn put(&mut self, number: usize, content: &[u8]) {
        if let Some(before) = &mut self.before {
            let old = match self.blocks[number].take() {
                Some(old) => old,
                None => {
                    Box::new(*self.image.as_ref().and_then(|image| image.get(&number)).map_or(&ZEROS, |b| b))
                }
            };
            // The box of the content before the last is the room for the new one.
            self.blocks[number] = before.insert(number, old);
        }
        if content.len() == BLOCK_BYTES {
            let block = self.blocks[number].get_or_insert_with(|| Box::new(ZEROS));
            block.copy_from_slice(content);
            return;
        }
        let old = match &self.before {
            Some(before) => *before[&number],
            None => *self.block(number),
        };
        let block = self.blocks[number].get_or_insert_with(|| Box::new(ZEROS));
        block.copy_from_slice(&old);
        block[..content.len()].copy_from_slice(content);
    }

    /// Lets everything happen that is due.
    pub(super) fn advance(&mut self, now: Instant) {
        while let Some(first) = self.moments.first_entry() {
            if first.key().0 > now {
                return;
            }
            match first.remove() {
                Moment::Land(landing) => self.land(&landing),
                Moment::Look(look) => self.look(&look),
            }
        }
    }

    fn land(&mut self, landing: &Landing) {
        assert!(sum(&landing.data) == landing.sum, "a write buffer changed while it could still land");
        let watch = self.faults.may_overtake;
        let mut overtaken = false;
        for (index, content) in landing.data[..landing.length].chunks(BLOCK_BYTES).enumerate() {
            let number = landing.start / BLOCK_BYTES + index;
            self.guarded_changes += u64::from(number < self.guarded);
            self.put(number, content);
            if watch {
                let youngest = self.youngest.entry(number).or_insert(landing.submitted);
                overtaken |= *youngest > landing.submitted;
                *youngest = landing.submitted;
            }
        }
        if overtaken {
            self.counters.count(Fault::Overtaken);
        }
    }

    fn look(&mut self, look: &Look) {
        let Some(mut buffer) = self.looks.remove(&look.number) else { return };
        let start = match look.fault {
            LookFault::Elsewhere(start) => start,
            _ => look.start,
        };
        self.copy_out(start, &mut buffer, matches!(look.fault, LookFault::Stale));
        if let LookFault::Flip(bit) = look.fault {
            let bit = usize::try_from(bit).unwrap_or(0) % (buffer.len() * 8);
            buffer[bit / 8] ^= 1 << (bit % 8);
        }
        self.looks.insert(look.number, buffer);
    }

    fn copy_out(&self, start: usize, buffer: &mut Buffer, stale: bool) {
        let length = buffer.len();
        let mut done = 0;
        while done < length {
            let at = start + done;
            let (number, offset) = (at / BLOCK_BYTES, at % BLOCK_BYTES);
            let part = (BLOCK_BYTES - offset).min(length - done);
            let whole = part == BLOCK_BYTES;
            let old = if stale && whole { self.before.as_ref().and_then(|b| b.get(&number)) } else { None };
            let block = old.map_or_else(|| self.block(number), Box::as_ref);
            buffer[done..done + part].copy_from_slice(&block[offset..offset + part]);
            done += part;
        }
    }

    /// A write will land then.
    pub(super) fn land_at(&mut self, time: Instant, landing: Landing) {
        debug_assert!(landing.length.is_multiple_of(SECTOR_BYTES));
        self.at(time, Moment::Land(landing));
    }

    /// A read will look then; gives its number.
    pub(super) fn look_at(&mut self, time: Instant, start: usize, fault: LookFault, buffer: Buffer) -> u64 {
        self.next += 1;
        let number = self.next;
        self.looks.insert(number, buffer);
        self.at(time, Moment::Look(Look { number, start, fault }));
        number
    }

    /// Gives the buffer of a look back.
    pub(super) fn take_look(&mut self, number: u64) -> Option<Buffer> {
        self.looks.remove(&number)
    }

    fn at(&mut self, time: Instant, moment: Moment) {
        self.next += 1;
        self.moments.insert((time, self.next), moment);
    }
}

/// A number that stands for `bytes`; other bytes give another one, but for chance.
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let mut lanes = [bytes.len() as u64, 1, 2, 3];
    let parts = bytes.chunks_exact(32);
    let rest = parts.remainder();
    for part in parts {
        for (lane, bytes) in lanes.iter_mut().zip(part.chunks_exact(8)) {
            *lane = (*lane ^ word(bytes)).wrapping_mul(FACTOR).rotate_left(29);
        }
    }
    let rest =
        rest.iter().fold(0_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(FACTOR).rotate_left(29));
    lanes.iter().fold(rest, |sum, lane| (sum ^ lane).wrapping_mul(FACTOR).rotate_left(31))
}
