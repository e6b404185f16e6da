//! Checks of many paths in real time: what they take of the processor, and how late they are (goal 22).
//!
//! Four devices of 64 paths each over one simulated storage system, every path checked each second, driven by one thread with a
//! real clock, as a host would; once with all paths well, once with every second one hung. What the simulated paths cost is in
//! the figure. A check is late by the time from when it was due (a second after the last answer) until the path got it.
//!
//! Not here: what a check finds (`multipath/tests/path_health.rs`).

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use multipath::{FailoverConfig, MultipathDevice, PATH_COUNT_MAX};
use storage_mapping::block::time::earliest;
use storage_mapping::device::StorageSystem;
use storage_mapping::device::storage_system::Description;
use storage_mapping::{
    BlockDevice, BufferPool, ByteSize, Cancelled, DeviceEvent, Geometry, Instant, IoCompletion, IoRequest,
    IoTag, Refused,
};

use super::cost::processor_time;
use super::error::MeasureError;
use super::figure::{Figure, Target};
use super::{Effort, ms};

const DEVICES: usize = 4;
const INTERVAL: Duration = Duration::from_secs(1);

/// What checking took.
#[derive(Clone, Copy, Debug)]
struct Checked {
    /// Processor time of the thread, of the time that passed.
    part: f64,
    latest: Duration,
    checks: u64,
}

/// Goal 22.
///
/// # Errors
/// When no device can be made.
pub fn goal_22(effort: &Effort) -> Result<Vec<Figure>, MeasureError> {
    let mut figures = Vec::new();
    for (hangs, word) in [(false, "all well"), (true, "half of them hung")] {
        let runs = (0..CHECK_ROUNDS).map(|_| check(hangs, effort.checking));
        let runs = runs.collect::<Result<Vec<Checked>, _>>()?;
        let what = format!("256 paths checked each second, {word}: part of a core");
        let parts = runs.iter().map(|run| run.part * 100.0).collect();
        figures.push(Figure::of_rounds(22, &what, "%", Target::AtMost(1.0), parts));
        let what =
            format!("the same: the latest of {} checks", runs.iter().map(|run| run.checks).sum::<u64>());
        let latest = runs.iter().map(|run| ms(run.latest)).collect();
        figures.push(Figure::of_rounds(22, &what, "ms", Target::AtMost(10.0), latest));
    }
    Ok(figures)
}

/// Rounds: each takes its time.
const CHECK_ROUNDS: usize = 3;

/// What the paths see of their checks.
#[derive(Default)]
struct Seen {
    latest_nanos: AtomicU64,
    checks: AtomicU64,
}

/// A path that notes how late it is checked.
struct Watched<D> {
    path: D,
    clock: std::time::Instant,
    /// When the next check is due, once one was answered.
    due: Option<Duration>,
    seen: Arc<Seen>,
}

impl<D: BlockDevice> BlockDevice for Watched<D> {
    fn geometry(&self) -> Geometry {
        self.path.geometry()
    }

    fn submit(&mut self, now: Instant, request: IoRequest) -> Result<(), Refused> {
        if let Some(due) = self.due.take() {
            let late = self.clock.elapsed().saturating_sub(due);
            let nanos = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
            self.seen.latest_nanos.fetch_max(nanos, Ordering::Relaxed);
            self.seen.checks.fetch_add(1, Ordering::Relaxed);
        }
        self.path.submit(now, request)
    }

    fn poll(&mut self, now: Instant) -> Option<IoCompletion> {
        let done = self.path.poll(now)?;
        // The device counts from the time that it was told.
        self.due = Some(Duration::from_nanos(now.0) + INTERVAL);
        Some(done)
    }

    fn poll_event(&mut self, now: Instant) -> Option<DeviceEvent> {
        self.path.poll_event(now)
    }

    fn next_wakeup(&self) -> Option<Instant> {
        self.path.next_wakeup()
    }

    fn cancel(&mut self, now: Instant, tag: IoTag) -> Cancelled {
        self.path.cancel(now, tag)
    }

    fn attach_pool(&mut self, pool: &BufferPool) {
        self.path.attach_pool(pool);
    }

    fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        self.path.wait_on(descriptors);
    }
}

/// Checks for so long.
fn check(hangs: bool, time: Duration) -> Result<Checked, MeasureError> {
    let description = Description::simple("v", ByteSize(1 << 20), PATH_COUNT_MAX as u32);
    let system = StorageSystem::new(&description).expect("its parts fit together");
    system.keep_event_lines(0);
    for port in 0..PATH_COUNT_MAX {
        let apply = |line: String| {
            let action = line.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
            system.apply(Instant::ZERO, &action).expect("it names what is there");
        };
        apply(format!("port p{port} latency 200us"));
        if hangs && port % 2 == 1 {
            apply(format!("port p{port} hang forever"));
        }
    }
    let (clock, seen) = (std::time::Instant::now(), Arc::new(Seen::default()));
    let config = FailoverConfig {
        check_interval: Some(INTERVAL),
        // As on a host that is in use.
        deep_idle_after: Duration::from_secs(3600),
        ..FailoverConfig::default()
    };
    let mut devices = Vec::new();
    for host in 0..DEVICES {
        let path = |port: usize| {
            let path = system.path(&format!("h{host}"), &format!("p{port}"), "v").expect("the port is there");
            Box::new(Watched { path, clock, due: None, seen: Arc::clone(&seen) }) as Box<dyn BlockDevice>
        };
        devices.push(MultipathDevice::new((0..PATH_COUNT_MAX).map(path).collect(), config)?);
    }
    let started = processor_time()?;
    while clock.elapsed() < time {
        let now = Instant(u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX));
        for device in devices.iter_mut().filter(|device| device.next_wakeup().is_some_and(|at| at <= now)) {
            while device.poll(now).is_some() || device.poll_event(now).is_some() {}
        }
        let next = devices.iter().map(MultipathDevice::next_wakeup).fold(None, earliest);
        let until = next.map_or(time, |at| Duration::from_nanos(at.0)).min(time);
        // Nothing but time changes anything here.
        std::thread::sleep(until.saturating_sub(clock.elapsed()));
    }
    let spent = Duration::from_nanos(processor_time()?.saturating_sub(started));
    Ok(Checked {
        part: spent.as_secs_f64() / clock.elapsed().as_secs_f64(),
        latest: Duration::from_nanos(seen.latest_nanos.load(Ordering::Relaxed)),
        checks: seen.checks.load(Ordering::Relaxed),
    })
}
