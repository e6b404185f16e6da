//! What looking at devices takes, and what paths take of memory (goals 20 and 23).
//!
//! Keeps true: what is timed is a snapshot and its JSON text, as `path show --json` has them. Not here: the socket on which
//! they travel (`app-cli`), which serves them in the loop that moves data.

use multipath::{FailoverConfig, MultipathDevice, PATH_COUNT_MAX};
use storage_mapping::device::NullDevice;
use storage_mapping::{BlockDevice, Buffer, Instant, IoRequest, IoTag, Lba};

use super::error::MeasureError;
use super::figure::{Figure, Target};
use super::load::{Load, Pace};
use super::stage::{Setting, Stage};
use super::{Effort, millis, ms};

/// Paths of goal 20.
const MANY: usize = 1000;
/// Devices whose memory is counted, a round.
const DEVICES: usize = 4;

/// Goal 20.
///
/// # Errors
/// When no device can be made.
pub fn goal_20(effort: &Effort) -> Result<Vec<Figure>, MeasureError> {
    let mut stage = Stage::new(&Setting::equal(PATH_COUNT_MAX, "latency=200us", 1));
    let load = Load::reads(Pace::Depth(PATH_COUNT_MAX * 4));
    stage.run_requests(&load, 100_000);
    (0..PATH_COUNT_MAX).for_each(|path| stage.apply(&format!("port p{path} hang forever")));
    stage.run_for(&load, millis(100));
    let unknown = (0..effort.rounds).map(|_| snapshot_time(&[stage.device()], stage.now()));
    let hung = unknown.collect::<Result<Vec<f64>, _>>()?;
    stage.run_for(&load, millis(10_000));
    let known = (0..effort.rounds).map(|_| snapshot_time(&[stage.device()], stage.now()));
    let failed = known.collect::<Result<Vec<f64>, _>>()?;
    let healthy = many_devices(MANY)?;
    let devices: Vec<&MultipathDevice> = healthy.iter().collect();
    let many = (0..effort.rounds).map(|_| snapshot_time(&devices, Instant(1)));
    let many = many.collect::<Result<Vec<f64>, _>>()?;
    let figure = |what: &str, most, values| Figure::of_rounds(20, what, "ms", Target::AtMost(most), values);
    Ok(vec![
        figure("JSON status, all 64 paths hang", 50.0, hung),
        figure("the same, and have failed", 50.0, failed),
        figure("JSON status of 16 devices with 1000 healthy paths", 10.0, many),
    ])
}

/// How long it takes to say how these devices stand, in milliseconds.
fn snapshot_time(devices: &[&MultipathDevice], now: Instant) -> Result<f64, MeasureError> {
    let addresses: Vec<String> = (0..PATH_COUNT_MAX).map(|path| format!("file:/dev/path{path}")).collect();
    let start = std::time::Instant::now();
    let mut bytes = 0;
    for device in devices {
        let snapshot = device.snapshot(now, "disk", &addresses[..device.path_count()]);
        bytes += serde_json::to_string(&snapshot).map_err(MeasureError::Json)?.len();
    }
    std::hint::black_box(bytes);
    Ok(ms(start.elapsed()))
}

/// Devices that have so many paths together, each of which carried something.
fn many_devices(paths: usize) -> Result<Vec<MultipathDevice>, MeasureError> {
    let mut left = paths;
    let mut devices = Vec::new();
    while left > 0 {
        let count = left.min(PATH_COUNT_MAX);
        left -= count;
        devices.push(used_device(count)?);
    }
    Ok(devices)
}

/// A device over null devices that has read and written.
fn used_device(paths: usize) -> Result<MultipathDevice, MeasureError> {
    let path = |_| Box::new(NullDevice::default()) as Box<dyn BlockDevice>;
    let mut device = MultipathDevice::new((0..paths).map(path).collect(), FailoverConfig::default())?;
    let data = Buffer::zeroed(4096).freeze();
    for number in 0..paths as u64 * 64 {
        let (tag, lba, now) = (IoTag(number), Lba(number), Instant(number * 1000));
        let request = if number.is_multiple_of(2) {
            IoRequest::read(tag, lba, Buffer::zeroed(4096))
        } else {
            IoRequest::write(tag, lba, data.clone(), false)
        };
        assert!(device.submit(now, request).is_ok(), "there is room");
        device
            .poll(now)
            .expect("a null device answers at the next poll")
            .outcome
            .map_err(MeasureError::Failed)?;
    }
    Ok(device)
}

/// Goal 23.
///
/// # Errors
/// When no device can be made, or the kernel does not say how much memory is used.
pub fn goal_23(effort: &Effort) -> Result<Vec<Figure>, MeasureError> {
    // Kept to the end: memory that was given back would be used again and not be seen.
    let (mut kept, mut values) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let before = resident_bytes()?;
        for _ in 0..DEVICES {
            kept.push(used_device(PATH_COUNT_MAX)?);
        }
        let more = resident_bytes()?.saturating_sub(before);
        // None at all is no figure: it was there from before.
        let kib = (more > 0).then(|| more as f64 / (DEVICES * PATH_COUNT_MAX) as f64 / 1024.0);
        values.push(kib.unwrap_or(f64::NAN));
    }
    let what = "memory of a path, its part of the device included";
    Ok(vec![Figure::of_rounds(23, what, "KiB", Target::AtMost(64.0), values)])
}

/// Memory of this process that is in use, as `/proc/self/statm` says.
fn resident_bytes() -> Result<u64, MeasureError> {
    let text = std::fs::read_to_string("/proc/self/statm")
        .map_err(|source| MeasureError::Io { what: "cannot read /proc/self/statm".to_owned(), source })?;
    let pages: u64 = text.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let page_bytes = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?.unwrap_or(4096);
    Ok(pages * u64::try_from(page_bytes).unwrap_or(4096))
}
