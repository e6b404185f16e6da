//! Reads of a real file with the layer and without it, in turns in one loop: how many a second, and how often the thread had to
//! wait (goals 2 and 3).
//!
//! Random blocks of 4 KiB of a file with O_DIRECT over io_uring; two openings of it are the paths. A round is so many slices of
//! each; its value is the median of the slices with the layer by the median of those without it, since other load comes and
//! goes. Not here: allocations (`multipath/tests/no_allocations.rs`).

use std::io::Write;
use std::os::fd::RawFd;
use std::path::Path;
use std::time::Duration;

use multipath::{FailoverConfig, MultipathDevice};
use nix::sys::resource::{UsageWho, getrusage};
use storage_mapping::{BlockDevice, Buffer, Instant, IoRequest, IoTag, Lba, PathAddress, path_address, wait};

use super::error::MeasureError;
use super::figure::{Figure, Target};
use super::{Effort, Measured, median};
use crate::chance::Chance;

const BYTES: usize = 4096;
const DEPTHS: [(usize, f64); 2] = [(1, 0.97), (32, 0.95)];

/// Goals 2 and 3; and what is to be known of the file, such as that it was not opened with O_DIRECT.
///
/// # Errors
/// When no file can be made in `folder`, or it cannot be read.
pub fn goals_2_and_3(effort: &Effort, folder: &Path) -> Result<Measured, MeasureError> {
    let file = make_file(effort.file_bytes, folder)?;
    let address: PathAddress = format!("file:{}", file.path().display())
        .parse()
        .map_err(|error| MeasureError::path(file.path(), error))?;
    let open = || path_address::open(&address).map_err(|error| MeasureError::path(file.path(), error));
    let (bare, first, second) = (open()?, open()?, open()?);
    let notices = bare.notices.iter().map(ToString::to_string).collect();
    let layer = MultipathDevice::new(vec![first.device, second.device], FailoverConfig::default())?;
    let blocks = effort.file_bytes / BYTES as u64;
    let mut both = [Reader::new(bare.device, blocks), Reader::new(Box::new(layer), blocks)];
    let (mut figures, mut waits) = (Vec::new(), Vec::new());
    for (depth, least) in DEPTHS {
        let (mut ratios, mut extra) = (Vec::new(), Vec::new());
        for _ in 0..effort.rounds {
            let mut slices: [Vec<Slice>; 2] = Default::default();
            for _ in 0..effort.slices {
                for (reader, slices) in both.iter_mut().zip(&mut slices) {
                    slices.push(reader.run(depth, effort.slice)?);
                }
            }
            let [bare, layer] = slices;
            let rate = |slices: &[Slice]| median(slices.iter().map(|slice| slice.per_second).collect());
            let waits = |slices: &[Slice]| median(slices.iter().map(|slice| slice.waits).collect());
            ratios.push(rate(&layer) / rate(&bare));
            extra.push(waits(&layer) - waits(&bare));
        }
        let what = format!("reads of a file, depth {depth}: with the layer / without");
        figures.push(Figure::of_rounds(2, &what, "", Target::AtLeast(least), ratios));
        let what = format!("waits of the thread for one read, depth {depth}: added");
        waits.push(Figure::of_rounds(3, &what, "", Target::AtMost(0.01), extra));
    }
    figures.extend(waits);
    Ok(Measured { figures, notices })
}

fn make_file(bytes: u64, folder: &Path) -> Result<tempfile::NamedTempFile, MeasureError> {
    let wrong =
        |source| MeasureError::Io { what: format!("cannot make a file in {}", folder.display()), source };
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(wrong)?;
    for _ in 0..bytes >> 20 {
        file.write_all(&[7; 1 << 20]).map_err(wrong)?;
    }
    file.as_file().sync_all().map_err(wrong)?;
    Ok(file)
}

/// What was seen in a short time.
struct Slice {
    per_second: f64,
    /// Times that the thread gave up the processor to wait, for each read.
    waits: f64,
}

/// A device that is read.
struct Reader {
    device: Box<dyn BlockDevice>,
    blocks: u64,
    descriptors: Vec<RawFd>,
    buffers: Vec<Buffer>,
    chance: Chance,
    start: std::time::Instant,
    tag: u64,
}

impl Reader {
    fn new(device: Box<dyn BlockDevice>, blocks: u64) -> Self {
        let mut descriptors = Vec::new();
        device.wait_on(&mut descriptors);
        let (buffers, start) = (Vec::new(), std::time::Instant::now());
        Self { device, blocks, descriptors, buffers, chance: Chance::new(1), start, tag: 0 }
    }

    fn now(&self) -> Instant {
        Instant(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Reads for so long, and until all that were sent are back.
    fn run(&mut self, depth: usize, time: Duration) -> Result<Slice, MeasureError> {
        self.buffers.resize_with(depth, || Buffer::zeroed(BYTES));
        let (start, waits) = (std::time::Instant::now(), voluntary_waits()?);
        let mut done = 0_u64;
        while start.elapsed() < time || self.buffers.len() < depth {
            let now = self.now();
            while start.elapsed() < time
                && let Some(buffer) = self.buffers.pop()
            {
                self.tag += 1;
                let read = IoRequest::read(IoTag(self.tag), Lba(self.chance.below(self.blocks)), buffer);
                assert!(self.device.submit(now, read).is_ok(), "the queue is deeper");
            }
            let mut has_come = false;
            while let Some(completion) = self.device.poll(self.now()) {
                completion.outcome.map_err(MeasureError::Failed)?;
                self.buffers.extend(completion.buffer.into_read());
                done += 1;
                has_come = true;
            }
            if !has_come {
                wait::wait(&self.descriptors, Some(Duration::from_millis(100)));
            }
        }
        let per_second = done as f64 / start.elapsed().as_secs_f64();
        Ok(Slice { per_second, waits: (voluntary_waits()? - waits) as f64 / done.max(1) as f64 })
    }
}

/// How often this thread has given up the processor to wait.
fn voluntary_waits() -> Result<i64, MeasureError> {
    Ok(getrusage(UsageWho::RUSAGE_THREAD)?.voluntary_context_switches())
}
