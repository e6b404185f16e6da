//! The disks of the sample volume, sparse and in memory, with a history: what a hostile writer works on.
//!
//! A run starts from an image that all runs share and keeps only the blocks that it wrote, so that a fresh
//! volume costs nothing. What holds: a block is always whole 4,096 bytes; damage happens between requests,
//! or tears one block. Not here: time and order (`hostile_disk`).

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use storage_mapping::{
    BlockCount, BlockDevice, BlockSize, BufferPool, Cancelled, CopyFate, DeviceEvent, Effect, Geometry,
    Instant, IoCompletion, IoRequest, IoTag, Operation, RefusalReason, Refused,
};
use volume::header::{Page, seal_page};
use volume::record::Field;
use volume::sync::Waiter;
use volume::{BLOCK_BYTES, create};

use super::input::Input;
use super::sample::sample;

/// Old contents that can be replayed, at most.
const HISTORY_MAX: usize = 400;
/// Requests in flight, at most.
const QUEUE_DEPTH: usize = 1024;

/// A block: device, and number on it.
pub type Key = (u16, u64);

/// Blocks that are not zeros.
pub type Image = BTreeMap<Key, Box<Page>>;

#[derive(Debug, Default)]
struct Blocks {
    base: Arc<Image>,
    written: Image,
    history: Vec<(Key, Box<Page>)>,
}

impl Blocks {
    fn page(&self, key: Key) -> Page {
        self.written.get(&key).or_else(|| self.base.get(&key)).map_or([0; BLOCK_BYTES], |page| **page)
    }

    fn put(&mut self, key: Key, page: Page) {
        if self.history.len() < HISTORY_MAX {
            self.history.push((key, Box::new(self.page(key))));
        }
        match self.written.get_mut(&key) {
            Some(place) => **place = page,
            None => drop(self.written.insert(key, Box::new(page))),
        }
    }

    /// A block that was written in this run; with `any` also one of the image.
    fn pick(&self, input: &mut Input<'_>, any: bool) -> Option<Key> {
        let count = self.written.len() + if any { self.base.len() } else { 0 };
        if count == 0 {
            return None;
        }
        self.written.keys().chain(self.base.keys()).nth(input.index(count)).copied()
    }
}

/// The disks. A clone is the same disks.
#[derive(Clone, Debug, Default)]
pub struct Disks(Arc<Mutex<Blocks>>);

/// The image of the sample volume as it was created.
#[must_use]
pub fn created() -> Arc<Image> {
    static IMAGE: OnceLock<Arc<Image>> = OnceLock::new();
    Arc::clone(IMAGE.get_or_init(|| {
        let disks = Disks::default();
        let sample = sample();
        let rows: Vec<_> = sample.hosts.iter().flatten().flat_map(|row| row.pages(&sample.layout)).collect();
        create::create(&Waiter::idle(), disks.devices(), &sample.layout, &rows)
            .expect("memory takes every write");
        disks.image()
    }))
}

impl Disks {
    /// Disks that hold `image`.
    #[must_use]
    pub fn new(image: Arc<Image>) -> Self {
        Self(Arc::new(Mutex::new(Blocks { base: image, ..Blocks::default() })))
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands on them now, as an image to start from.
    #[must_use]
    pub fn image(&self) -> Arc<Image> {
        let blocks = self.blocks();
        let mut image = (*blocks.base).clone();
        image.extend(blocks.written.iter().map(|(key, page)| (*key, page.clone())));
        image.retain(|_, page| page.iter().any(|byte| *byte != 0));
        Arc::new(image)
    }

    /// Puts the blocks of the image back, as an admin would.
    pub fn restore_image(&self) {
        let mut blocks = self.blocks();
        let base = Arc::clone(&blocks.base);
        blocks.written.retain(|key, _| !base.contains_key(key));
    }

    /// The devices, for whoever opens a volume.
    #[must_use]
    pub fn devices(&self) -> Vec<Box<dyn BlockDevice>> {
        let rows = sample().layout.table.rows.iter();
        rows.map(|row| {
            let device = Device {
                disks: self.clone(),
                number: row.device_index,
                blocks: row.device_size,
                queue: VecDeque::new(),
            };
            Box::new(device) as Box<dyn BlockDevice>
        })
        .collect()
    }

    /// Carries out a request whose address is a block of the volume.
    pub fn execute(&self, device: u16, operation: &mut Operation) {
        let mut blocks = self.blocks();
        match operation {
            Operation::Read { lba, buffer } => {
                for (offset, place) in (0..).zip(buffer.chunks_exact_mut(BLOCK_BYTES)) {
                    place.copy_from_slice(&blocks.page((device, lba.0 + offset)));
                }
            }
            Operation::Write { lba, data, .. } => {
                for (offset, page) in (0..).zip(data.chunks_exact(BLOCK_BYTES)) {
                    blocks.put((device, lba.0 + offset), page.try_into().expect("a whole block"));
                }
            }
            Operation::Flush => {}
        }
    }

    /// One act of a hostile writer; `fields` are places worth hitting.
    pub fn attack(&self, input: &mut Input<'_>, fields: &[Field]) {
        let mut blocks = self.blocks();
        let kind = input.byte();
        let any = kind & 0x80 != 0;
        let Some(key) = blocks.pick(input, any) else { return };
        let mut page = blocks.page(key);
        match kind % 8 {
            0 => {
                let at = usize::from(input.short()) % BLOCK_BYTES;
                page[at] ^= 1 << (kind >> 3 & 7);
            }
            1 => page = [0; BLOCK_BYTES],
            2 => {
                let Some(from) = blocks.pick(input, any) else { return };
                page = blocks.page(from);
            }
            3 => {
                // A replay: an older content of the same block, or of any.
                let old: Vec<_> =
                    blocks.history.iter().filter(|(at, _)| kind & 8 != 0 || *at == key).collect();
                let Some((_, old)) = old.get(input.index(old.len().max(1))) else { return };
                page = **old;
            }
            4 => {
                let Some(other) = blocks.pick(input, any) else { return };
                let mine = std::mem::replace(&mut page, blocks.page(other));
                blocks.put(other, mine);
            }
            5 => page.fill(input.byte()),
            6 => {
                // Torn: new up to a sector, an older content behind it.
                let old = blocks.history.iter().rev().find(|(at, _)| *at == key);
                let old = old.map_or([0; BLOCK_BYTES], |(_, old)| **old);
                let at = 512 * input.index(8);
                page[at..].copy_from_slice(&old[at..]);
            }
            _ => {
                let count = usize::from(input.byte() % 32);
                Input::new(input.take(count)).patch(&mut page, fields);
                if kind & 8 != 0 {
                    seal_page(&mut page, None);
                }
            }
        }
        blocks.put(key, page);
    }
}

/// One disk, opened.
#[derive(Debug)]
struct Device {
    disks: Disks,
    number: u16,
    blocks: u64,
    queue: VecDeque<IoRequest>,
}

impl BlockDevice for Device {
    fn geometry(&self) -> Geometry {
        Geometry {
            block_size: BlockSize::B4096,
            block_count: BlockCount(self.blocks),
            transfer_max_bytes: 64 << 20,
            buffer_alignment_bytes: 4096,
            queue_depth: QUEUE_DEPTH,
        }
    }

    fn submit(&mut self, _now: Instant, request: IoRequest) -> Result<(), Refused> {
        let fits = match &request.operation {
            Operation::Read { lba, buffer } => self.geometry().admits(*lba, buffer.len()),
            Operation::Write { lba, data, .. } => self.geometry().admits(*lba, data.len()),
            Operation::Flush => true,
        };
        if fits && self.queue.len() < QUEUE_DEPTH {
            self.queue.push_back(request);
            return Ok(());
        }
        let reason = if fits { RefusalReason::Busy } else { RefusalReason::Invalid };
        Err(Refused { reason, request })
    }

    fn poll(&mut self, _now: Instant) -> Option<IoCompletion> {
        let mut request = self.queue.pop_front()?;
        self.disks.execute(self.number, &mut request.operation);
        Some(request.complete(Ok(()), Effect::Full, CopyFate::Dead))
    }

    fn poll_event(&mut self, _now: Instant) -> Option<DeviceEvent> {
        None
    }

    fn next_wakeup(&self) -> Option<Instant> {
        (!self.queue.is_empty()).then_some(Instant::ZERO)
    }

    fn cancel(&mut self, _now: Instant, tag: IoTag) -> Cancelled {
        let found = self.queue.iter().position(|queued| queued.tag == tag);
        found.and_then(|index| self.queue.remove(index)).map_or(Cancelled::NotHere, Cancelled::Withdrawn)
    }

    fn attach_pool(&mut self, _pool: &BufferPool) {}

    fn wait_on(&self, _descriptors: &mut Vec<RawFd>) {}
}
