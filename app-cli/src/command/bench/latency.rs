//! `diskwire bench latency`: a small request and its answer on an open connection, beside the four device I/Os that they are.
//!
//! The request is a message of 64 bytes, which travels in the pointer table: the caller writes its table (4 KiB), the answerer
//! reads the pair (8 KiB), writes its own, and the caller reads that. Keeps true: what stands beside it are these four I/Os, one
//! after the other on the same device, opened the same way in the same run. Not here: sessions and files, which no small request
//! needs; hosts that are not connected yet are shown as first answers.

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use storage_mapping::{BlockDevice, Buffer, IoRequest, IoTag, Lba, wait};
use system_tests::multipath_goals::figure::Target;
use transfer_core::driver::clock::Clock;
use transfer_core::loopback::Process;
use transfer_core::protocol::connection::ConnectionId;
use volume::BLOCK_BYTES;

use super::super::CommandError;
use super::disks::{Disks, open_file};
use super::idle::first_answers;
use super::report::{Report, Row};
use super::rounds::{processor, spinner};
use super::world::{Extent, HOSTS, World, failed};
use crate::args::bench::BenchLatencyArgs;
use crate::exit::Exit;

/// What a volume of this measurement has.
const EXTENT: Extent = Extent { connections: 4, segments: 8, secondaries: 1 };
/// Bytes of a request and of an answer.
const MESSAGE: [u8; 64] = [42; 64];
/// What a request may take, in times of its four I/Os.
const GOAL: f64 = 1.5;
/// Requests of a round before time is taken: the connection has been quiet.
const WARM_UP: usize = 20;
/// Between calls: a host opens no more than eight handshakes of another one in a second.
const CALL_PAUSE: Duration = Duration::from_millis(150);
/// Bytes of the file that the bare I/Os go to.
const BARE_BYTES: u64 = 16 << 20;

struct Effort {
    rounds: usize,
    requests: usize,
    calls: usize,
    cold: u32,
}

impl Effort {
    fn of(quick: bool) -> Self {
        if quick {
            Self { rounds: 3, requests: 50, calls: 2, cold: 2 }
        } else {
            Self { rounds: 15, requests: 500, calls: 15, cold: 15 }
        }
    }
}

pub(super) fn run(args: &BenchLatencyArgs) -> Result<Exit, CommandError> {
    let spinner = spinner(args.json);
    let effort = Effort::of(args.quick);
    let disks = Disks::new(Some(&args.folder))?;
    let world = World::create(&EXTENT, disks.devices("disk", &EXTENT.device_bytes(), "")?)?;
    let bare = disks.file("bare", BARE_BYTES)?;
    let mut rows = requests(&world, &bare, &effort, &spinner)?;
    spinner.set_message("first answers in virtual time");
    for (what, minutes) in [("first answer, 2 min later", 2), ("first answer, 20 min later", 20)] {
        let samples = first_answers(Duration::from_secs(60 * minutes), effort.cold)?;
        rows.push(Row::new(what, "ms", samples));
    }
    spinner.finish_and_clear();
    let mut conditions = vec![processor()];
    conditions.extend(disks.conditions()?);
    conditions.push(format!("{} rounds of {} requests, one after the other", effort.rounds, effort.requests));
    conditions.push("four I/Os: write 4 KiB, read 8 KiB, write 4 KiB, read 8 KiB".to_owned());
    conditions.push("first answer: call, handshake, request and answer; the last two in".to_owned());
    conditions.push("virtual time, on disks without latency: what waiting for the bell costs".to_owned());
    Report { bench: "latency", conditions, rows, quick: args.quick }.finish(args.json)
}

/// Starts both hosts; the second answers whatever it hears, in a thread that ends with the last of `calls` connections.
fn start(world: &World, calls: usize) -> Result<(Process, JoinHandle<()>), CommandError> {
    let process = |host| {
        let clock = Clock::new();
        let (endpoint, volume, pool) = world.endpoint(host, clock.now())?;
        Ok::<_, CommandError>(Process::of(endpoint, volume, pool, clock))
    };
    let (caller, mut answerer) = (process(0)?, process(1)?);
    let thread = std::thread::spawn(move || {
        for _ in 0..calls {
            let connection = answerer.accept();
            while let Some(request) = answerer.receive(connection) {
                answerer.say(connection, request.payload.bytes());
            }
        }
    });
    Ok((caller, thread))
}

fn requests(
    world: &World,
    bare: &Path,
    effort: &Effort,
    spinner: &ProgressBar,
) -> Result<Vec<Row>, CommandError> {
    // One connection for requests, and the others for first answers.
    let (mut caller, answerer) = start(world, effort.calls + 1)?;
    let mut four = FourIos::new(bare)?;
    let connection = caller.connect(HOSTS[1])?;
    let (mut answers, mut ios, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut tails = Vec::new();
    for round in 1..=effort.rounds {
        spinner.set_message(format!("round {round} of {}", effort.rounds));
        repeat(WARM_UP, || ask(&mut caller, connection))?;
        let asked = repeat(effort.requests, || ask(&mut caller, connection))?;
        let bare = repeat(effort.requests, || four.run())?;
        answers.push(middle(&asked));
        tails.push(asked[asked.len() * 99 / 100]);
        ios.push(middle(&bare));
        ratios.push(middle(&asked) / middle(&bare));
    }
    caller.close(connection);
    let mut first = Vec::new();
    for call in 1..=effort.calls {
        spinner.set_message(format!("first answer {call} of {}", effort.calls));
        let start = Instant::now();
        let connection = caller.connect(HOSTS[1])?;
        ask(&mut caller, connection)?;
        first.push(start.elapsed().as_secs_f64() * 1e3);
        caller.close(connection);
        std::thread::sleep(CALL_PAUSE);
    }
    answerer.join().map_err(|_| failed("the host that answers has ended"))?;
    Ok(vec![
        Row::new("request and answer", "us", answers),
        Row::new("the same, 99th percentile", "us", tails),
        Row::new("its four I/Os", "us", ios),
        Row::new("request / four I/Os", "", ratios).with_goal(Target::AtMost(GOAL)),
        Row::new("first answer, warm", "ms", first),
    ])
}

/// One request and its answer.
fn ask(caller: &mut Process, connection: ConnectionId) -> Result<(), CommandError> {
    caller.say(connection, &MESSAGE);
    let answer = caller.receive(connection).ok_or_else(|| failed("the connection was lost"))?;
    if answer.payload.bytes() == MESSAGE {
        Ok(())
    } else {
        Err(failed("an answer is not what was asked for"))
    }
}

/// Microseconds of each of so many runs, the shortest first.
fn repeat(
    count: usize,
    mut once: impl FnMut() -> Result<(), CommandError>,
) -> Result<Vec<f64>, CommandError> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        once()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn middle(times: &[f64]) -> f64 {
    times[times.len() / 2]
}

/// The I/Os of a request and its answer, by two openings of a file as two hosts have them.
struct FourIos {
    sides: [Side; 2],
}

struct Side {
    device: Box<dyn BlockDevice>,
    descriptors: Vec<RawFd>,
    clock: Clock,
}

impl FourIos {
    fn new(file: &Path) -> Result<Self, CommandError> {
        let file: PathBuf = file.to_owned();
        Ok(Self { sides: [Side::new(&file)?, Side::new(&file)?] })
    }

    /// Each side's table is written by it and read by the other.
    fn run(&mut self) -> Result<(), CommandError> {
        for writer in [0, 1] {
            let place = writer as u64 * 2;
            let page = Buffer::copy_of(&[7; BLOCK_BYTES]).freeze();
            self.sides[writer].run(|lba| IoRequest::write(IoTag(1), lba, page, false), place)?;
            let pair = Buffer::zeroed(2 * BLOCK_BYTES);
            self.sides[1 - writer].run(|lba| IoRequest::read(IoTag(1), lba, pair), place)?;
        }
        Ok(())
    }
}

impl Side {
    fn new(file: &Path) -> Result<Self, CommandError> {
        let device = open_file(file)?;
        let mut descriptors = Vec::new();
        device.wait_on(&mut descriptors);
        Ok(Self { device, descriptors, clock: Clock::new() })
    }

    /// One request at a block of 4,096 bytes, to its end.
    fn run(&mut self, request: impl FnOnce(Lba) -> IoRequest, block: u64) -> Result<(), CommandError> {
        let lba = Lba(block * (BLOCK_BYTES / self.device.geometry().block_size.bytes()) as u64);
        assert!(self.device.submit(self.clock.now(), request(lba)).is_ok(), "nothing else is under way");
        loop {
            if let Some(completion) = self.device.poll(self.clock.now()) {
                return completion.outcome.map_err(failed);
            }
            wait::wait(&self.descriptors, Some(Duration::from_millis(100)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_ios_write_two_tables() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("disk");
        std::fs::write(&file, vec![0; 1 << 20]).unwrap();
        FourIos::new(&file).unwrap().run().unwrap();
        let bytes = std::fs::read(&file).unwrap();
        let written =
            |block: usize| bytes[block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES].iter().all(|b| *b == 7);
        assert_eq!([0, 1, 2, 3].map(written), [true, false, true, false]);
    }
}
