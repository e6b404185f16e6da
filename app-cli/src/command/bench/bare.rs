//! The bare device beside a measurement: one writer and one reader at once, without any layer; and the same by `fio`.
//!
//! Keeps true: files, sizes and depth are those of the measurement that stands beside it, and so is the way the device is opened.
//! Writer and reader have a thread and an opening each. Not here: volumes, and what the ratio means.

use std::os::fd::RawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use storage_mapping::scheduling::take_turns_as_usual;
use storage_mapping::{BlockDevice, Buffer, BufferPool, IoRequest, IoTag, Lba, SharedBuffer, wait};
use transfer_core::driver::clock::Clock;

use super::super::CommandError;
use super::disks::open_file;
use super::rounds::MIB;
use super::world::failed;

/// What is read or written at once.
pub(super) const REQUEST_BYTES: usize = 1 << 20;
/// Requests in flight: as many as a session has payloads in hand, or as many as the device takes.
pub(super) const DEPTH: usize = 12;

/// A part of a file that is gone through again and again.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// First byte.
    start: u64,
    /// Bytes; a multiple of a request.
    bytes: u64,
}

/// The first half of a file for the writer, the second for the reader.
fn halves(bytes: u64) -> [Span; 2] {
    let half = bytes / 2 / REQUEST_BYTES as u64 * REQUEST_BYTES as u64;
    [Span { start: 0, bytes: half }, Span { start: half, bytes: half }]
}

/// MiB a second when `size` bytes are written and as many read at once, from the start until both are done.
pub(super) fn at_once(file: &Path, size: u64) -> Result<f64, CommandError> {
    let spans = halves(file.metadata().map_err(failed)?.len());
    let (writer, reader) = (open_file(file)?, open_file(file)?);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| Mover::new(writer, spans[0]).write(size));
        let reading = scope.spawn(|| Mover::new(reader, spans[1]).read(size));
        writing.join().expect("a writer does not panic")?;
        reading.join().expect("a reader does not panic")
    })?;
    Ok(size as f64 / MIB / start.elapsed().as_secs_f64())
}

/// One device, one direction.
struct Mover {
    device: Box<dyn BlockDevice>,
    span: Span,
    clock: Clock,
    descriptors: Vec<RawFd>,
    depth: usize,
    next: u64,
}

impl Mover {
    fn new(device: Box<dyn BlockDevice>, span: Span) -> Self {
        let mut descriptors = Vec::new();
        device.wait_on(&mut descriptors);
        let depth = DEPTH.min(device.geometry().queue_depth);
        Self { device, span, clock: Clock::new(), descriptors, depth, next: 0 }
    }

    fn write(mut self, size: u64) -> Result<(), CommandError> {
        let data: Vec<SharedBuffer> = self.buffers().into_iter().map(Buffer::freeze).collect();
        self.run(
            size,
            data,
            |tag, lba, data| IoRequest::write(tag, lba, data, false),
            |done| match done.buffer {
                storage_mapping::IoBuffer::Write(data) => Some(data),
                _ => None,
            },
        )
    }

    fn read(mut self, size: u64) -> Result<(), CommandError> {
        let buffers = self.buffers();
        self.run(size, buffers, IoRequest::read, |done| done.buffer.into_read())
    }

    /// Memory of the same kind as that of a transfer.
    fn buffers(&self) -> Vec<Buffer> {
        let pool = BufferPool::new();
        let buffer = |_| {
            let mut buffer = pool.take(REQUEST_BYTES);
            buffer.fill(7);
            buffer
        };
        (0..self.depth).map(buffer).collect()
    }

    fn lba(&self) -> Lba {
        let block = self.device.geometry().block_size.bytes() as u64;
        Lba((self.span.start + self.next * REQUEST_BYTES as u64 % self.span.bytes) / block)
    }

    /// Keeps all of `hands` in flight until `size` bytes are through.
    fn run<B>(
        &mut self,
        size: u64,
        mut hands: Vec<B>,
        request: impl Fn(IoTag, Lba, B) -> IoRequest,
        give_back: impl Fn(storage_mapping::IoCompletion) -> Option<B>,
    ) -> Result<(), CommandError> {
        let count = size / REQUEST_BYTES as u64;
        let (mut done, all) = (0, hands.len());
        while done < count || hands.len() < all {
            while self.next < count
                && let Some(hand) = hands.pop()
            {
                let request = request(IoTag(self.next), self.lba(), hand);
                assert!(self.device.submit(self.clock.now(), request).is_ok(), "the queue is not full");
                self.next += 1;
            }
            let mut has_come = false;
            while let Some(completion) = self.device.poll(self.clock.now()) {
                completion.outcome.map_err(failed)?;
                hands.extend(give_back(completion));
                done += 1;
                has_come = true;
            }
            if !has_come {
                wait::wait(&self.descriptors, Some(Duration::from_millis(100)));
            }
        }
        Ok(())
    }
}

/// Whether `fio` is there to be asked.
pub(super) fn has_fio() -> bool {
    Command::new("fio").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// The same as [`at_once`] by `fio`.
pub(super) fn fio(file: &Path, size: u64) -> Result<f64, CommandError> {
    let spans = halves(file.metadata().map_err(failed)?.len());
    let mut command = Command::new("fio");
    command.args(["--output-format=json", "--thread", "--direct=1", "--ioengine=io_uring"]);
    command.arg(format!("--bs={REQUEST_BYTES}")).arg(format!("--iodepth={DEPTH}"));
    command.arg(format!("--filename={}", file.display())).arg(format!("--io_size={size}"));
    for (name, kind, span) in [("writer", "write", spans[0]), ("reader", "read", spans[1])] {
        command.arg(format!("--name={name}")).arg(format!("--rw={kind}"));
        command.arg(format!("--offset={}", span.start)).arg(format!("--size={}", span.bytes));
    }
    let run = || {
        // Not as the loop that was measured before in this thread.
        take_turns_as_usual();
        command.stdin(Stdio::null()).output()
    };
    let output = std::thread::scope(|scope| scope.spawn(run).join()).expect("it does not panic");
    let output = output.map_err(failed)?;
    if !output.status.success() {
        return Err(failed(format!("fio ended with {}", output.status)));
    }
    let report: Value = serde_json::from_slice(&output.stdout).map_err(failed)?;
    let seconds = fio_seconds(&report).ok_or_else(|| failed("fio's report has no run times"))?;
    Ok(size as f64 / MIB / seconds)
}

/// The longer of the two run times.
fn fio_seconds(report: &Value) -> Option<f64> {
    let jobs = report["jobs"].as_array()?;
    let time = |job: &Value| {
        let of = |kind: &str| job[kind]["runtime"].as_f64().unwrap_or(0.0);
        of("write").max(of("read")) / 1e3
    };
    let longest = jobs.iter().map(time).fold(0.0, f64::max);
    (jobs.len() == 2 && longest > 0.0).then_some(longest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_bytes_are_written_to_the_first_half_and_the_second_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, vec![1; 6 << 20]).unwrap();
        assert!(at_once(&path, 9 << 20).unwrap() > 0.0);
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes[..3 << 20].iter().all(|byte| *byte == 7));
        assert!(bytes[3 << 20..].iter().all(|byte| *byte == 1));
    }

    #[test]
    fn the_longer_job_of_fio_counts() {
        let report = json!({ "jobs": [
            { "write": { "runtime": 1500 }, "read": { "runtime": 0 } },
            { "write": { "runtime": 0 }, "read": { "runtime": 2000 } },
        ]});
        assert_eq!(fio_seconds(&report), Some(2.0));
        assert_eq!(fio_seconds(&json!({ "jobs": [] })), None);
    }
}
