//! I/Os a second through the layer, beside the same device without it: random reads of a file with O_DIRECT.
//!
//! `cargo run --release -p multipath --example file_iops -- [FOLDER]`
//!
//! Two openings of one file of 256 MiB as paths, io_uring, blocks of 4 KiB; with the layer and without it in turns, eleven rounds
//! of half a second each; the median of the ratios of neighbours counts, since other load comes and goes.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use multipath::{FailoverConfig, MultipathDevice};
use storage_mapping::{BlockDevice, Buffer, Instant, IoRequest, IoTag, Lba, PathAddress, path_address, wait};

const BLOCKS: u64 = 65_536;
const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_millis(500);

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    for _ in 0..256 {
        file.write_all(&[7; 1 << 20])?;
    }
    file.as_file().sync_all()?;
    let address: PathAddress = format!("file:{}", file.path().display()).parse()?;
    println!("{:>6}{:>14}{:>14}{:>10}", "depth", "direct", "layer", "ratio");
    for depth in [1, 32] {
        let mut ratios = Vec::new();
        let (mut direct, mut layer) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let mut bare = path_address::open(&address)?.device;
            direct.push(iops(&mut *bare, depth));
            let paths = [path_address::open(&address)?.device, path_address::open(&address)?.device];
            let mut device = MultipathDevice::new(paths.into(), FailoverConfig::default())?;
            layer.push(iops(&mut device, depth));
            ratios.push(layer[layer.len() - 1] / direct[direct.len() - 1]);
        }
        println!("{depth:>6}{:>14.0}{:>14.0}{:>10.3}", median(direct), median(layer), median(ratios));
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Reads of random blocks a second.
fn iops(device: &mut dyn BlockDevice, depth: u64) -> f64 {
    let start = std::time::Instant::now();
    let clock = || Instant(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    let mut descriptors = Vec::new();
    device.wait_on(&mut descriptors);
    let mut buffers: Vec<Buffer> = (0..depth).map(|_| Buffer::zeroed(4096)).collect();
    let (mut tag, mut done, mut chance) = (0, 0_u64, 0x9e37_79b9_7f4a_7c15_u64);
    while start.elapsed() < ROUND || buffers.len() < usize::try_from(depth).unwrap_or(0) {
        let now = clock();
        while start.elapsed() < ROUND
            && let Some(buffer) = buffers.pop()
        {
            // xorshift64: any spread will do.
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            tag += 1;
            let read = IoRequest::read(IoTag(tag), Lba(chance % BLOCKS), buffer);
            assert!(device.submit(now, read).is_ok(), "the queue is deeper");
        }
        let mut has_come = false;
        while let Some(completion) = device.poll(clock()) {
            assert!(completion.outcome.is_ok(), "{:?}", completion.outcome);
            buffers.extend(completion.buffer.into_read());
            done += 1;
            has_come = true;
        }
        if !has_come {
            wait::wait(&descriptors, Some(Duration::from_millis(100)));
        }
    }
    // Counts that f64 holds exactly.
    done as f64 / start.elapsed().as_secs_f64()
}
