//! The hosts of a soak round: their serves, the slots that transfer, and the chaos that befalls both.
//!
//! What holds: a serve that ends is started again at once; a transfer that was cut is run again until it
//! is done; a process ends by itself only in a way that is documented. What is done to whom follows from
//! the seed; only when it happens within a transfer depends on the machine. Not here: how rounds are laid
//! out and what is asserted at their end.

use std::fs::{DirEntry, read_dir};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Done, Lab, Numbers, Running};
use crate::transfer::{Pair, Transfer};
use crate::watch::{PARTIAL, Watch};

/// Exit codes of a command that something happened to: done, in doubt, try again.
const CODES: [i32; 3] = [0, 4, 75];
/// No command runs longer, whatever happens to it: it ends and says why.
const COMMAND_MAX: Duration = Duration::from_secs(150);
/// A serve that is asked to end and is not stopped ends within this.
const SERVE_ENDS_MAX: Duration = Duration::from_secs(10);
/// A partial folder that nobody needs goes within this.
const PARTIAL_GOES_MAX: Duration = Duration::from_secs(8);
/// The longest pause between two acts of chaos.
const CHAOS_PAUSE_MAX: Duration = Duration::from_millis(300);
/// How long a process is stopped, mostly, and now and then.
const STOP_SHORT: Duration = Duration::from_millis(1500);
const STOP_LONG: Duration = Duration::from_secs(9);

/// What happened, for the summary.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Transfers that are done.
    pub(crate) transfers: u64,
    /// Files in them.
    pub(crate) files: u64,
    /// Bytes in them.
    pub(crate) bytes: u64,
    /// Processes ended by SIGKILL.
    pub(crate) kills: u64,
    /// Processes stopped and continued.
    pub(crate) stops: u64,
    /// Processes sent SIGINT or SIGTERM.
    pub(crate) asked: u64,
    /// Commands given again.
    pub(crate) re_runs: u64,
    /// From the first trouble of a transfer to its end, at most.
    pub(crate) longest_recovery: Duration,
}

impl Counts {
    /// Adds those of another round.
    pub(crate) fn add(&mut self, other: &Self) {
        self.transfers += other.transfers;
        self.files += other.files;
        self.bytes += other.bytes;
        self.kills += other.kills;
        self.stops += other.stops;
        self.asked += other.asked;
        self.re_runs += other.re_runs;
        self.longest_recovery = self.longest_recovery.max(other.longest_recovery);
    }
}

/// A process that chaos may befall.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Command(usize),
    Serve(usize),
}

/// What was done to a process.
#[derive(Clone, Copy, Debug, Default)]
struct Hurt {
    killed: bool,
    asked: Option<Instant>,
    stopped: bool,
}

/// A host's `serve`.
struct Serve {
    process: Running,
    hurt: Hurt,
}

/// One transfer after another from one host.
struct Slot {
    host: usize,
    numbers: Numbers,
    number: u64,
    transfer: Option<Transfer>,
    command: Option<Running>,
    hurt: Hurt,
    started: Instant,
    again_at: Instant,
    trouble_since: Option<Instant>,
}

/// Events that are shown where a round fails.
const LOG_SHOWN: usize = 1000;

/// All hosts of one round.
pub(crate) struct World<'a> {
    lab: &'a Lab,
    hosts: &'a [String],
    watch: Arc<Watch>,
    serves: Vec<Serve>,
    slots: Vec<Slot>,
    chaos: Numbers,
    start: Instant,
    /// What was done and what ended how: shown where the round fails.
    log: Vec<String>,
    /// When stopped processes go on.
    wakes: Vec<(Instant, Victim)>,
    /// What happened.
    pub(crate) counts: Counts,
}

impl<'a> World<'a> {
    /// Starts the serves of `hosts`; `slots` transfers run at once.
    pub(crate) fn start(
        lab: &'a Lab,
        hosts: &'a [String],
        slots: usize,
        seed: u64,
        watch: Arc<Watch>,
    ) -> Self {
        let serve = |host: &String| Serve { process: lab.serve(host), hurt: Hurt::default() };
        let slot = |slot: usize| Slot {
            host: slot % hosts.len(),
            numbers: Numbers::new(seed.wrapping_mul(1_000).wrapping_add(slot as u64)),
            number: 0,
            transfer: None,
            command: None,
            hurt: Hurt::default(),
            started: Instant::now(),
            again_at: Instant::now(),
            trouble_since: None,
        };
        Self {
            lab,
            hosts,
            watch,
            serves: hosts.iter().map(serve).collect(),
            slots: (0..slots).map(slot).collect(),
            chaos: Numbers::new(!seed),
            start: Instant::now(),
            log: Vec::new(),
            wakes: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Transfers and chaos for so long.
    pub(crate) fn chaos(&mut self, length: Duration) {
        let end = Instant::now() + length;
        let mut next = Instant::now();
        while Instant::now() < end {
            if Instant::now() >= next {
                next = Instant::now() + self.chaos.pause(CHAOS_PAUSE_MAX);
                self.act();
            }
            self.wake(Instant::now());
            self.step(true);
        }
    }

    /// No more chaos, no new transfers: until those that are under way are done, within `limit`.
    pub(crate) fn settle(&mut self, limit: Duration) -> Duration {
        let start = Instant::now();
        self.wake(start + STOP_LONG);
        while self.slots.iter().any(|slot| slot.transfer.is_some()) {
            self.step(false);
            let left = || {
                let titles = self.slots.iter().filter_map(|slot| slot.transfer.as_ref());
                titles.map(|transfer| transfer.title.clone()).collect::<Vec<_>>()
            };
            assert!(start.elapsed() < limit, "not done {limit:?} after the chaos: {:?}", left());
        }
        start.elapsed()
    }

    /// Ends all serves, in order.
    pub(crate) fn end(mut self) {
        for (serve, host) in std::mem::take(&mut self.serves).into_iter().zip(self.hosts) {
            serve.process.signal(Signal::TERM);
            let done = serve.process.wait(SERVE_ENDS_MAX);
            assert_eq!(done.code(), Some(0), "serve of {host}: {done:#?}");
        }
    }

    /// Asserts that no partial file is left, soon.
    pub(crate) fn assert_no_partial(&self, folders: &[PathBuf]) {
        for folder in folders {
            let partial = folder.join(PARTIAL);
            let deadline = Instant::now() + PARTIAL_GOES_MAX;
            while partial.exists() {
                let left: Vec<_> = read_dir(&partial).into_iter().flatten().flatten().collect();
                let late = Instant::now() >= deadline;
                let left: Vec<_> = left.iter().map(|entry| self.describe(entry)).collect();
                assert!(!late, "{}: {left:#?}", partial.display());
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// What a left-over is and when it was made, to be found in the log.
    fn describe(&self, entry: &DirEntry) -> String {
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else { return format!("{} is gone", path.display()) };
        let age = metadata.created().ok().and_then(|born| born.elapsed().ok()).unwrap_or_default();
        let born = self.start.elapsed().saturating_sub(age);
        format!("{}: {} bytes, made at {born:.3?}", path.display(), metadata.len())
    }

    fn note(&mut self, what: &str) {
        self.log.push(format!("{:8.3} {what}", self.start.elapsed().as_secs_f64()));
    }

    // ---- chaos --------------------------------------------------------------------------------------

    fn victim(&mut self, of_ten: u64) -> Victim {
        let place = self.chaos.below(1 << 32) as usize;
        match self.chaos.below(10) < of_ten {
            true => Victim::Command(place % self.slots.len()),
            false => Victim::Serve(place % self.serves.len()),
        }
    }

    fn act(&mut self) {
        let what = self.chaos.below(20);
        let pause = self.chaos.pause(STOP_SHORT);
        match what {
            0..=7 => {
                let victim = self.victim(6);
                self.kill(victim);
            }
            8 => {
                // Both sides at once.
                let (command, serve) = (self.victim(10), self.victim(0));
                self.kill(command);
                self.kill(serve);
            }
            9..=14 => {
                let victim = self.victim(5);
                self.stop(victim, pause);
            }
            15 => {
                let victim = self.victim(3);
                self.stop(victim, pause.mul_f64(STOP_LONG.as_secs_f64() / STOP_SHORT.as_secs_f64()));
            }
            16 | 17 => {
                let victim = self.victim(8);
                self.ask(victim, Signal::INT);
            }
            _ => {
                let victim = self.victim(5);
                self.ask(victim, Signal::TERM);
            }
        }
    }

    /// The process of a victim, if one runs.
    fn process(&mut self, victim: Victim) -> Option<(&mut Running, &mut Hurt)> {
        match victim {
            Victim::Command(slot) => {
                let slot = &mut self.slots[slot];
                let command = slot.command.as_mut()?;
                slot.trouble_since.get_or_insert_with(Instant::now);
                Some((command, &mut slot.hurt))
            }
            Victim::Serve(host) => {
                let serve = &mut self.serves[host];
                Some((&mut serve.process, &mut serve.hurt))
            }
        }
    }

    fn kill(&mut self, victim: Victim) {
        let Some((process, hurt)) = self.process(victim) else { return };
        process.signal(Signal::KILL);
        hurt.killed = true;
        self.counts.kills += 1;
        self.note(&format!("SIGKILL to {victim:?}"));
        self.watch.look();
    }

    fn stop(&mut self, victim: Victim, pause: Duration) {
        let Some((process, hurt)) = self.process(victim) else { return };
        process.signal(Signal::STOP);
        hurt.stopped = true;
        self.counts.stops += 1;
        self.note(&format!("SIGSTOP for {pause:?} to {victim:?}"));
        self.wakes.push((Instant::now() + pause, victim));
    }

    fn ask(&mut self, victim: Victim, signal: Signal) {
        let Some((process, hurt)) = self.process(victim) else { return };
        process.signal(signal);
        hurt.asked.get_or_insert_with(Instant::now);
        self.counts.asked += 1;
        self.note(&format!("{signal:?} to {victim:?}"));
    }

    /// Continues those that were stopped until `now`.
    fn wake(&mut self, now: Instant) {
        let (due, later) = std::mem::take(&mut self.wakes).into_iter().partition(|(at, _)| *at <= now);
        self.wakes = later;
        let due: Vec<_> = due;
        for (_, victim) in due {
            // Another stop of the same process may be longer: that one ends here, too.
            if let Some((process, _)) = self.process(victim) {
                process.signal(Signal::CONT);
            }
        }
    }

    // ---- progress -----------------------------------------------------------------------------------

    /// Looks after every process once.
    fn step(&mut self, more: bool) {
        for host in 0..self.serves.len() {
            self.tend_serve(host);
        }
        for slot in 0..self.slots.len() {
            self.tend_slot(slot, more);
        }
        let wrong = self.watch.wrong();
        assert!(wrong.is_empty(), "{wrong:#?}");
        std::thread::sleep(Duration::from_millis(3));
    }

    fn tend_serve(&mut self, host: usize) {
        let name = &self.hosts[host];
        let serve = &mut self.serves[host];
        if !serve.process.has_ended() {
            let late = |asked: Instant| !serve.hurt.stopped && asked.elapsed() > SERVE_ENDS_MAX;
            let said = serve.process.said();
            assert!(!serve.hurt.asked.is_some_and(late), "serve of {name} does not end: {said}");
            return;
        }
        let new = Serve { process: self.lab.start(name, "serve"), hurt: Hurt::default() };
        let old = std::mem::replace(serve, new);
        let done = old.process.wait(SERVE_ENDS_MAX);
        let is_fine = match done.code() {
            Some(code) => code == 0 && old.hurt.asked.is_some(),
            None => old.hurt.ends_by(&done),
        };
        assert!(is_fine && !done.stderr.contains("panicked"), "serve of {name}, {:?}: {done:#?}", old.hurt);
    }

    fn tend_slot(&mut self, index: usize, more: bool) {
        let slot = &mut self.slots[index];
        if let Some(command) = &mut slot.command {
            if command.has_ended() {
                self.take_result(index);
            } else {
                let title = slot.transfer.as_ref().map(|transfer| &transfer.title);
                let late = slot.started.elapsed() > COMMAND_MAX;
                assert!(!late, "{title:?} neither goes on nor ends: {}", command.said());
            }
            return;
        }
        if slot.transfer.is_none() && more {
            let others = self.hosts.len() as u64 - 1;
            let to = (slot.host + 1 + slot.numbers.below(others) as usize) % self.hosts.len();
            let pair = Pair { hosts: self.hosts, from: slot.host, to, slot: index };
            let transfer = Transfer::plan(self.lab, &pair, slot.number, &mut slot.numbers, &self.watch);
            slot.number += 1;
            slot.transfer = Some(transfer);
        }
        if let Some(transfer) = &slot.transfer
            && Instant::now() >= slot.again_at
        {
            slot.command = Some(transfer.start(self.lab));
            let started = format!("starts {}", transfer.title);
            slot.started = Instant::now();
            slot.hurt = Hurt::default();
            self.note(&started);
        }
    }

    /// A command has ended: it is done and all is there, or it is run again.
    fn take_result(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let (Some(command), Some(transfer)) = (slot.command.take(), slot.transfer.take()) else { return };
        let done = command.wait(COMMAND_MAX);
        let title = format!("{}, {:?}", transfer.title, slot.hurt);
        let ended = format!("{title}: {}", brief(&done).trim_end());
        self.note(&ended);
        let slot = &mut self.slots[index];
        assert!(!done.stderr.contains("panicked"), "{title}: {done:#?}");
        match done.code() {
            Some(0) => {
                let judged = transfer.judge(&done.stdout, &self.watch);
                assert_eq!(judged, Ok(()), "{:?}", done.stderr);
                let recovery = slot.trouble_since.take().map_or(Duration::ZERO, |since| since.elapsed());
                self.counts.longest_recovery = self.counts.longest_recovery.max(recovery);
                self.counts.transfers += 1;
                self.counts.files += transfer.files() as u64;
                self.counts.bytes += transfer.bytes;
                return;
            }
            Some(code) => assert!(CODES.contains(&code), "{title}: {}", brief(&done)),
            None => assert!(slot.hurt.ends_by(&done), "{title}: {}", brief(&done)),
        }
        slot.trouble_since.get_or_insert_with(Instant::now);
        slot.again_at = Instant::now() + slot.numbers.pause(Duration::from_millis(100));
        slot.transfer = Some(transfer);
        self.counts.re_runs += 1;
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let shown = self.log.len().saturating_sub(LOG_SHOWN);
            eprintln!("{}", self.log[shown..].join("\n"));
        }
    }
}

impl Hurt {
    /// Whether a signal that ended a process was ours.
    fn ends_by(&self, done: &Done) -> bool {
        match done.status.signal() {
            Some(signal) if signal == Signal::KILL.as_raw() => self.killed,
            // Before the program has asked for its signals they end it as any other.
            Some(signal) => {
                self.asked.is_some()
                    && [Signal::INT, Signal::TERM].map(|ours| ours.as_raw()).contains(&signal)
            }
            None => false,
        }
    }
}

fn brief(done: &Done) -> String {
    format!("{} after {:?}: {}", done.status, done.took, done.stderr)
}
