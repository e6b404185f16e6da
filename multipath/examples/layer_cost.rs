//! What the layer costs: nanoseconds for one I/O through it, beyond the same I/O without it.
//!
//! `cargo run --release -p multipath --example layer_cost`
//!
//! Paths are null devices: they keep a request and complete it at the next poll, and copy nothing. Each figure is the quickest
//! of nine rounds in processor time of the thread, since other load only adds; with the layer and without it in turns.
//! Time is a counter: the layer reads no clock. A read of 4 KiB each, whose buffer goes round; writes share one buffer.

#[path = "../tests/support/null_device.rs"]
mod null_device;

use std::error::Error;

use multipath::selector::{Selector, SelectorKind};
use multipath::{FailoverConfig, MultipathDevice, PathConfig};
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use null_device::NullDevice;
use storage_mapping::{
    BlockDevice, Buffer, FencePolicy, Instant, IoBuffer, IoRequest, IoTag, Lba, SharedBuffer,
};

const REQUESTS: u64 = 200_000;
const ROUNDS: usize = 9;
const BYTES: usize = 4096;

/// How a device is used.
#[derive(Clone, Copy)]
struct Load {
    depth: u64,
    fence: Option<FencePolicy>,
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("{:<46}{:>12}{:>12}{:>12}", "ns per I/O", "direct", "layer", "added");
    let read = Load { depth: 1, fence: None };
    let deep = Load { depth: 32, fence: None };
    let write = |depth| Load { depth, fence: Some(FencePolicy::Fence) };
    for (load_name, load) in [
        ("read, depth 1", read),
        ("read, depth 32", deep),
        ("fenced write, depth 1", write(1)),
        ("fenced write, depth 32", write(32)),
    ] {
        for (word, paths, explains) in [
            ("round-robin", 1, false),
            ("round-robin", 2, false),
            ("latency", 2, false),
            ("latency", 4, false),
            ("latency", 2, true),
        ] {
            let kind: SelectorKind = word.parse()?;
            let (mut direct, mut layer) = (f64::INFINITY, f64::INFINITY);
            for _ in 0..ROUNDS {
                direct = direct.min(cost(&mut NullDevice::default(), load)?);
                let paths = (0..paths).map(|_| {
                    (PathConfig::default(), Box::new(NullDevice::default()) as Box<dyn BlockDevice>)
                });
                let selector = Selector::new(Instant::ZERO, kind.clone());
                let mut device =
                    MultipathDevice::with_selector(paths.collect(), selector, FailoverConfig::default())?;
                device.explain(explains);
                layer = layer.min(cost(&mut device, load)?);
            }
            let name = format!("{load_name}, {paths} × {word}{}", if explains { ", explained" } else { "" });
            println!("{name:<46}{direct:>12.1}{layer:>12.1}{:>12.1}", layer - direct);
        }
    }
    Ok(())
}

/// Nanoseconds for one I/O.
fn cost(device: &mut dyn BlockDevice, load: Load) -> Result<f64, Errno> {
    let shared = Buffer::zeroed(BYTES).freeze();
    let mut buffers: Vec<Buffer> = (0..load.depth).map(|_| Buffer::zeroed(BYTES)).collect();
    let mut done = 0;
    let started = processor_time()?;
    let mut tag = 0;
    while done < REQUESTS {
        let now = Instant(tag * 1000);
        while tag < done + load.depth {
            let request = request(load, tag, &shared, &mut buffers);
            assert!(device.submit(now, request).is_ok(), "there is room");
            tag += 1;
        }
        while let Some(completion) = device.poll(now) {
            done += 1;
            if let IoBuffer::Read(buffer) = completion.buffer {
                buffers.push(buffer);
            }
        }
    }
    Ok((processor_time()? - started) as f64 / done as f64)
}

fn request(load: Load, tag: u64, shared: &SharedBuffer, buffers: &mut Vec<Buffer>) -> IoRequest {
    let lba = Lba(tag % 1024);
    match (load.fence, buffers.pop()) {
        (None, Some(buffer)) => IoRequest::read(IoTag(tag), lba, buffer),
        (fence, _) => {
            let fence = fence.unwrap_or_default();
            IoRequest { fence, ..IoRequest::write(IoTag(tag), lba, shared.clone(), false) }
        }
    }
}

/// Processor time of this thread in nanoseconds.
fn processor_time() -> Result<u64, Errno> {
    let time: TimeSpec = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0))
}
