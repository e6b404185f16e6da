//! How fast the simulated storage system is: simulated I/Os per second of one core, and virtual time against
//! the time of that core.
//!
//! ```text
//! cargo run --release -p storage-mapping --example storage_system_speed
//! ```
//!
//! Four ports, two striped disks, reads and writes of 4 KiB, 200 µs on the link with jitter: at queue depth 1
//! and 32 on each path, and at 1000 I/Os a second altogether. Time is the CPU time of the one thread, so that
//! other load on the machine counts little. The median of five runs is printed with all of them beside.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use storage_mapping::device::StorageSystem;
use storage_mapping::{BlockDevice, Buffer, Instant, IoBuffer, IoRequest, IoTag, Lba, Operation};

const SYSTEM: &str = "
    seed 7
    disk d0 4MiB latency=100us
    disk d1 4MiB latency=100us
    port p0 latency=200us jitter=50us
    port p1 latency=200us jitter=50us
    port p2 latency=200us jitter=50us
    port p3 latency=200us jitter=50us
    volume v0 striped unit=64KiB d0@0+4MiB d1@0+4MiB
";
const REQUESTS: u64 = 1_000_000;

fn cpu_time() -> nix::Result<Duration> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from)
}

/// Virtual time and CPU time of a run.
fn run(depth: usize, latency: &str) -> Result<(Duration, Duration), Box<dyn std::error::Error>> {
    let system = StorageSystem::new(&SYSTEM.parse()?)?;
    system.keep_event_lines(0);
    let mut paths = Vec::new();
    for port in ["p0", "p1", "p2", "p3"] {
        paths.push(system.path("host1", port, "v0")?);
    }
    for port in ["p0", "p1", "p2", "p3"] {
        system.apply(Instant::ZERO, &format!("port {port} latency {latency}").parse()?)?;
    }
    let start = cpu_time()?;
    let (mut now, mut tag, mut done) = (Instant::ZERO, 0_u64, 0_u64);
    let mut submit = |path: &mut dyn BlockDevice, now, buffer: IoBuffer| {
        tag += 1;
        let lba = Lba(tag.wrapping_mul(0x9e37_79b9) % 2048);
        let operation = match buffer {
            IoBuffer::Read(buffer) => Operation::Read { lba, buffer },
            IoBuffer::Write(data) => Operation::Write { lba, data, fua: false },
            IoBuffer::None => Operation::Flush,
        };
        let request = IoRequest { operation, ..IoRequest::flush(IoTag(tag)) };
        path.submit(now, request).map_err(|refused| refused.reason)
    };
    for path in &mut paths {
        for index in 0..depth {
            let buffer = Buffer::zeroed(4096);
            let buffer =
                if index % 4 == 3 { IoBuffer::Write(buffer.freeze()) } else { IoBuffer::Read(buffer) };
            submit(path, now, buffer)?;
        }
    }
    while done < REQUESTS {
        for path in &mut paths {
            while let Some(completion) = path.poll(now) {
                completion.outcome?;
                done += 1;
                submit(path, now, completion.buffer)?;
            }
        }
        now = now.max(system.next_wakeup().ok_or("nothing is to come")?);
    }
    Ok((now.since(Instant::ZERO), cpu_time()? - start))
}

#[expect(clippy::cast_precision_loss, reason = "printed with few digits")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (depth, latency) in [(1, "200us"), (32, "200us"), (1, "3900us")] {
        let mut runs = Vec::new();
        for _ in 0..5 {
            let (simulated, real) = run(depth, latency)?;
            runs.push((
                REQUESTS as f64 / real.as_secs_f64() / 1e6,
                simulated.as_secs_f64() / real.as_secs_f64(),
            ));
        }
        runs.sort_by(|a, b| b.0.total_cmp(&a.0));
        let all: Vec<_> = runs.iter().map(|(rate, _)| format!("{rate:.2}")).collect();
        let (rate, ratio) = runs[2];
        println!(
            "4 paths, depth {depth}, latency {latency}: {rate:.2} M I/Os/s, {ratio:.0} x real time (all: {})",
            all.join(" ")
        );
    }
    Ok(())
}
