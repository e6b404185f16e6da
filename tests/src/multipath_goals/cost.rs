//! What the layer costs: nanoseconds of the processor for one I/O through it, beyond the same I/O without it (goals 1 and 21).
//!
//! Paths are null devices: they keep a request and complete it at the next poll, and copy nothing. Each value is the quickest of
//! a few parts in processor time of the thread, since other load only adds; with the layer and without it in turns. Time is a
//! counter: the layer reads no clock. A read of 4 KiB each, whose buffer goes round; writes share one buffer. Not here: what a
//! selector alone costs (`multipath/examples/selector_cost.rs`).

use multipath::selector::{Selector, SelectorKind};
use multipath::{FailoverConfig, MultipathDevice, PathConfig};
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use storage_mapping::device::NullDevice;
use storage_mapping::{BlockDevice, Buffer, Instant, IoBuffer, IoRequest, IoTag, Lba, SharedBuffer};

use super::Effort;
use super::error::MeasureError;
use super::figure::{Figure, Target};

const BYTES: usize = 4096;
const PATHS: usize = 2;
/// Parts of a round of which the quickest counts.
const PARTS: usize = 5;

/// How a device is used, one request at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Reads,
    FencedWrites,
}

/// Goals 1 and 21.
///
/// # Errors
/// When the clock of the processor does not answer.
pub fn goals_1_and_21(effort: &Effort) -> Result<Vec<Figure>, MeasureError> {
    let latency = SelectorKind::default();
    let mut figures = Vec::new();
    for (kind, word, most) in
        [(&SelectorKind::RoundRobin, "round robin", 150.0), (&latency, "by latency", 300.0)]
    {
        for (used, what) in [(Use::Reads, "read"), (Use::FencedWrites, "fenced write")] {
            let values = rounds(effort, |requests| {
                Ok(layer(kind, used, false, requests)? - cost(&mut NullDevice::default(), used, requests)?)
            })?;
            let what = format!("added to a {what} over null paths, {word}");
            figures.push(Figure::of_rounds(1, &what, "ns", Target::AtMost(most), values));
        }
    }
    let explained = rounds(effort, |requests| {
        Ok(layer(&latency, Use::Reads, true, requests)? - layer(&latency, Use::Reads, false, requests)?)
    })?;
    let what = "decisions kept, added to a read";
    figures.push(Figure::of_rounds(21, what, "ns", Target::AtMost(200.0), explained));
    Ok(figures)
}

fn rounds(effort: &Effort, one: impl Fn(u64) -> Result<f64, MeasureError>) -> Result<Vec<f64>, MeasureError> {
    (0..effort.rounds).map(|_| one(effort.requests)).collect()
}

/// Through the layer.
fn layer(kind: &SelectorKind, used: Use, explains: bool, requests: u64) -> Result<f64, MeasureError> {
    let path = |_| (PathConfig::default(), Box::new(NullDevice::default()) as Box<dyn BlockDevice>);
    let selector = Selector::new(Instant::ZERO, kind.clone());
    let paths = (0..PATHS).map(path).collect();
    let mut device = MultipathDevice::with_selector(paths, selector, FailoverConfig::default())?;
    device.explain(explains);
    cost(&mut device, used, requests)
}

/// Nanoseconds for one I/O: of the quickest part.
fn cost(device: &mut dyn BlockDevice, used: Use, requests: u64) -> Result<f64, MeasureError> {
    let shared = Buffer::zeroed(BYTES).freeze();
    let mut spare = Some(Buffer::zeroed(BYTES));
    let part = (requests / PARTS as u64).max(1);
    let mut quickest = f64::INFINITY;
    for first in (0..PARTS as u64).map(|at| at * part) {
        let started = processor_time()?;
        for tag in first..first + part {
            one(device, used, tag, &shared, &mut spare);
        }
        let nanos = processor_time()?.saturating_sub(started);
        quickest = quickest.min(nanos as f64 / part as f64);
    }
    Ok(quickest)
}

/// One request from its start to its end.
fn one(device: &mut dyn BlockDevice, used: Use, tag: u64, shared: &SharedBuffer, spare: &mut Option<Buffer>) {
    let (now, lba) = (Instant(tag * 1000), Lba(tag % 1024));
    let request = match used {
        Use::Reads => IoRequest::read(IoTag(tag), lba, spare.take().expect("it came back")),
        Use::FencedWrites => IoRequest::write(IoTag(tag), lba, shared.clone(), false),
    };
    assert!(device.submit(now, request).is_ok(), "there is room");
    let done = device.poll(now).expect("a null device answers at the next poll");
    if let IoBuffer::Read(buffer) = done.buffer {
        *spare = Some(buffer);
    }
}

/// Processor time of this thread in nanoseconds.
pub(super) fn processor_time() -> Result<u64, Errno> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    Ok(part(time.tv_sec()) * 1_000_000_000 + part(time.tv_nsec()))
}
