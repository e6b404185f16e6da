//! One I/O over null devices from its start to its end, without the layer and with it; and the choice of a path. How it is called:
//! `support/turns.rs`.

#[path = "support/turns.rs"]
mod turns;

use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

use multipath::selector::{PathSelector, Selector, SelectorKind};
use multipath::{FailoverConfig, MultipathDevice, PathConfig, PathSet};
use storage_mapping::device::NullDevice;
use storage_mapping::{BlockDevice, Buffer, Instant, IoBuffer, IoRequest, IoTag, Lba, PathIndex};
use turns::{HotFunction, Turn};

const BYTES: usize = 4096;
const PATHS: usize = 2;
/// From one turn to the next.
const TURN_NANOS: u64 = 1000;

const HOT_FUNCTIONS: [HotFunction; 10] = [
    ("null_read", || reads(bare())),
    ("null_write", || writes(bare())),
    ("multipath_read_round_robin", || reads(layer(SelectorKind::RoundRobin, false))),
    ("multipath_write_round_robin", || writes(layer(SelectorKind::RoundRobin, false))),
    ("multipath_read_latency", || reads(layer(SelectorKind::default(), false))),
    ("multipath_write_latency", || writes(layer(SelectorKind::default(), false))),
    ("multipath_read_explained", || reads(layer(SelectorKind::default(), true))),
    ("multipath_idle_poll", || idle_polls(layer(SelectorKind::default(), false))),
    ("select_round_robin", || choices(SelectorKind::RoundRobin)),
    ("select_latency", || choices(SelectorKind::default())),
];

fn main() -> Result<(), Box<dyn Error>> {
    turns::run(&HOT_FUNCTIONS)
}

fn bare() -> Box<dyn BlockDevice> {
    Box::new(NullDevice::default())
}

fn layer(kind: SelectorKind, explains: bool) -> Box<dyn BlockDevice> {
    let paths = (0..PATHS).map(|_| (PathConfig::default(), bare())).collect();
    let selector = Selector::new(Instant::ZERO, kind);
    let device = MultipathDevice::with_selector(paths, selector, FailoverConfig::default());
    let mut device = device.expect("equal paths make a device");
    device.explain(explains);
    Box::new(device)
}

fn at(turn: u64) -> Instant {
    Instant(turn * TURN_NANOS)
}

/// A read, whose buffer goes round.
fn reads(mut device: Box<dyn BlockDevice>) -> Turn {
    let mut spare = Some(Buffer::zeroed(BYTES));
    Box::new(move |turn| {
        let buffer = spare.take().expect("it came back");
        let read = IoRequest::read(IoTag(turn), Lba(turn % 1024), buffer);
        assert!(device.submit(at(turn), read).is_ok(), "there is room");
        let done = device.poll(at(turn)).expect("a null device answers at the next poll");
        if let IoBuffer::Read(buffer) = done.buffer {
            spare = Some(buffer);
        }
    })
}

/// A fenced write of a shared buffer.
fn writes(mut device: Box<dyn BlockDevice>) -> Turn {
    let shared = Buffer::zeroed(BYTES).freeze();
    Box::new(move |turn| {
        let write = IoRequest::write(IoTag(turn), Lba(turn % 1024), shared.clone(), false);
        assert!(device.submit(at(turn), write).is_ok(), "there is room");
        drop(device.poll(at(turn)).expect("a null device answers at the next poll"));
    })
}

fn idle_polls(mut device: Box<dyn BlockDevice>) -> Turn {
    Box::new(move |turn| assert!(device.poll(at(turn)).is_none(), "nothing was sent"))
}

/// A path is chosen, has a request, and gives it back.
fn choices(kind: SelectorKind) -> Turn {
    let candidates: PathSet = (0..PATHS).map(PathIndex).collect();
    let mut selector = Selector::new(Instant::ZERO, kind);
    Box::new(move |turn| {
        let path = selector.select_path(at(turn), black_box(candidates), BYTES).expect("there are two");
        selector.start_io(at(turn), path, BYTES);
        selector.end_io(at(turn + 1), path, BYTES, Duration::from_nanos(TURN_NANOS), true);
    })
}
