//! One device over two openings of a file, driven by hand: written over whichever path, read back after one is out of use.
//!
//! `cargo run -p multipath --example two_files -- [FILE]`
//!
//! A file that does not exist is made, with 1 MiB; of one that does, the first block is written over.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use multipath::{FailoverConfig, MultipathDevice};
use storage_mapping::{
    BlockDevice, Buffer, Instant, IoCompletion, IoRequest, IoTag, Lba, PathAddress, PathIndex, path_address,
    wait,
};

fn main() -> Result<(), Box<dyn Error>> {
    let scratch = tempfile::tempdir()?;
    let file = std::env::args_os().nth(1).map_or_else(|| scratch.path().join("disk.img"), PathBuf::from);
    if !file.exists() {
        std::fs::File::create(&file)?.set_len(1 << 20)?;
    }
    let address: PathAddress = format!("file:{}", file.display()).parse()?;
    let paths = vec![path_address::open(&address)?.device, path_address::open(&address)?.device];
    let mut device = MultipathDevice::new(paths, FailoverConfig::default())?;
    let start = std::time::Instant::now();
    let block_bytes = device.geometry().block_size.bytes();

    let data = Buffer::copy_of(&vec![7; block_bytes]).freeze();
    run(&mut device, start, IoRequest::write(IoTag(1), Lba(0), data, true))?.outcome?;
    device.fail_path(now(start), PathIndex(0));
    let done = run(&mut device, start, IoRequest::read(IoTag(2), Lba(0), Buffer::zeroed(block_bytes)))?;
    done.outcome?;
    assert!(done.buffer.into_read().is_some_and(|buffer| buffer.iter().all(|byte| *byte == 7)));
    for path in device.status() {
        println!("path {}: {}, {} requests", path.path.0, path.state.word(), path.requests);
    }
    Ok(())
}

/// The layer reads no clock; who drives it does.
fn now(start: std::time::Instant) -> Instant {
    Instant(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// One request from its start to its end. A real loop has many on their way, and waits for all at once.
fn run(
    device: &mut MultipathDevice,
    start: std::time::Instant,
    request: IoRequest,
) -> Result<IoCompletion, Box<dyn Error>> {
    device.submit(now(start), request).map_err(|refused| format!("refused: {:?}", refused.reason))?;
    let mut descriptors = Vec::new();
    device.wait_on(&mut descriptors);
    loop {
        if let Some(done) = device.poll(now(start)) {
            return Ok(done);
        }
        let wakeup = device.next_wakeup().map(|at| at.since(now(start)));
        wait::wait(&descriptors, Some(wakeup.unwrap_or(Duration::MAX).min(Duration::from_secs(1))));
    }
}
