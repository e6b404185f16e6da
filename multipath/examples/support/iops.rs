//! Random reads of 4 KiB a second through the layer and without it, in turns: what the examples share.

use std::error::Error;
use std::time::Duration;

use multipath::{FailoverConfig, MultipathDevice};
use storage_mapping::{BlockDevice, Buffer, Instant, IoRequest, IoTag, Lba, wait};

const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_millis(500);

/// The head of the table of which [`compare`] prints a row.
pub(crate) fn print_head() {
    println!("{:>6}{:>7}{:>14}{:>14}{:>10}", "depth", "paths", "direct", "layer", "ratio");
}

/// Compares the first path with the layer over so many of them; `open` opens the one of a number.
pub(crate) fn compare(
    depth: u64,
    paths: usize,
    open: &dyn Fn(usize) -> Result<Box<dyn BlockDevice>, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let (mut direct, mut layer, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        direct.push(iops(&mut *open(0)?, depth));
        let below = (0..paths).map(open).collect::<Result<Vec<_>, _>>()?;
        layer.push(iops(&mut MultipathDevice::new(below, FailoverConfig::default())?, depth));
        ratios.push(layer[layer.len() - 1] / direct[direct.len() - 1]);
    }
    let (direct, layer, ratio) = (median(direct), median(layer), median(ratios));
    println!("{depth:>6}{paths:>7}{direct:>14.0}{layer:>14.0}{ratio:>10.3}");
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
    let blocks = device.geometry().block_count.0;
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
            let read = IoRequest::read(IoTag(tag), Lba(chance % blocks), buffer);
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
