//! The way from an operator to a running device: commands go in from any thread, answers come out.
//!
//! ```text
//!   thread of an operator                         thread of the event loop
//!   Control::ask ──▶ queue, bell ──▶ Controlled::poll ──▶ MultipathDevice
//!        ◀───────────── answer ◀──────────┘
//! ```
//!
//! Keeps true: the loop never waits for an operator, and takes at most [`COMMANDS_PER_POLL`] commands before it looks at its
//! I/O again; an operator never waits longer than he said; looking at a device waits for no path. Not here: sockets, and
//! what a command looks like to a user.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use storage_mapping::block::time::earliest;
use storage_mapping::hand_off::{Giver, Taker, results};
use storage_mapping::{
    BlockDevice, BufferPool, Cancelled, DeviceEvent, FencePolicy, Geometry, Instant, IoCompletion, IoRequest,
    IoTag, PathIndex, Refused,
};
use thiserror::Error;

use crate::explain::Decision;
use crate::fence::LivingCopy;
use crate::multipath_device::{DrillConfig, DrillError, DrillReport, DrillSample, MultipathDevice};
use crate::out_of_band::{
    Attention, CommandId, CommandOutcome, CommandRequest, Ledger, Record, ReservationOperation,
    ReservationOutcome,
};
use crate::plan::Plan;
use crate::report::Snapshot;
use crate::selector::SelectorKind;

/// Commands that are taken in one go.
pub const COMMANDS_PER_POLL: usize = 16;

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The device as it stands.
    Show,
    /// Takes a path out of use.
    Fail(PathIndex),
    /// Puts a path into use.
    Reinstate(PathIndex),
    /// Chooses among paths in another way.
    Policy(SelectorKind),
    /// Uses the group of paths of this priority.
    SwitchGroup(u16),
    /// Begins or ends to keep decisions.
    Explain(bool),
    /// How long the worst case of each fault takes.
    Plan {
        /// What a path takes at most; without it, the longest that was measured.
        service_time: Option<Duration>,
    },
    /// Lets a path fail on purpose for a time.
    Drill(DrillConfig),
    /// What the drill that goes on has shown, or the last one.
    DrillReport,
    /// The requests that ended during it.
    DrillSamples,
    /// The decisions that were kept, the newest `most`, oldest first.
    Decisions {
        /// How many.
        most: usize,
    },
    /// An out-of-band control command over one of the paths. Its answer comes when it ends: who asks waits a little longer
    /// than its patience.
    Send(Box<CommandRequest>),
    /// Persistent reservations over all paths together. Its answer comes when it ends.
    Reserve {
        /// What is wanted.
        operation: ReservationOperation,
        /// How long it may take.
        patience: Duration,
    },
    /// Why control commands took the paths they took, the newest `most`, oldest first.
    CommandRecords {
        /// How many.
        most: usize,
    },
    /// What the target keeps for each path, as far as it is known, and the unit attentions that were met.
    Nexuses,
}

/// What comes back.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It was done.
    Done,
    /// To [`Command::Show`].
    Shown(Box<Snapshot>),
    /// To [`Command::Plan`].
    Plan(Box<Plan>),
    /// To [`Command::DrillReport`]; `None`: there was none.
    Drill(Box<Option<DrillReport>>),
    /// To [`Command::DrillSamples`], oldest first.
    DrillSamples(Vec<DrillSample>),
    /// To [`Command::Decisions`]; `is_kept` says whether they are kept at all.
    Decisions {
        /// The decisions.
        decisions: Vec<Decision>,
        /// Whether more are kept from now on.
        is_kept: bool,
    },
    /// To [`Command::Send`].
    Sent(Box<CommandOutcome>),
    /// To [`Command::Reserve`].
    Reserved(Box<ReservationOutcome>),
    /// To [`Command::CommandRecords`].
    CommandRecords(Vec<Record>),
    /// To [`Command::Nexuses`].
    Nexuses {
        /// The ledger.
        ledger: Box<Ledger>,
        /// Unit attentions, each once for the device, oldest first.
        attentions: Vec<Attention>,
    },
}

/// Why a command was not done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ControlError {
    /// A place that no path has.
    #[error("device {device} has no path {path}: its paths are 0 to {last}")]
    NoSuchPath {
        /// The device.
        device: String,
        /// The place.
        path: usize,
        /// The last place.
        last: usize,
    },
    /// No usable path has this priority.
    #[error("device {device} has no usable path of priority {priority}")]
    NoSuchGroup {
        /// The device.
        device: String,
        /// The priority.
        priority: u16,
    },
    /// There is no drill now.
    #[error("device {device}: {source}")]
    Drill {
        /// The device.
        device: String,
        /// Why.
        source: DrillError,
    },
    /// The loop did not answer in time.
    #[error("device {device} did not answer within {waited:?}: its event loop is stuck")]
    Silent {
        /// The device.
        device: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The device is closed.
    #[error("device {device} is closed")]
    Closed {
        /// The device.
        device: String,
    },
}

/// Between two times that somebody is told of living copies, at least.
pub const COPIES_INTERVAL: Duration = Duration::from_secs(1);

/// A command on its way, with where the answer goes.
struct Job {
    command: Command,
    reply: Reply,
}

/// Where an answer goes.
type Reply = mpsc::SyncSender<Result<Answer, ControlError>>;

/// The operator's end. A clone is another end of the same device.
#[derive(Clone)]
pub struct Control {
    device: String,
    jobs: Giver<Job>,
    /// Set after the bell was rung, so that a poll without commands costs no system call.
    has_jobs: Arc<AtomicBool>,
}

impl Control {
    /// What the device is called.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Has a command done, and waits for the answer, at most for `patience`.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn ask(&self, command: Command, patience: Duration) -> Result<Answer, ControlError> {
        let (reply, answer) = mpsc::sync_channel(1);
        let device = || self.device.clone();
        if !self.jobs.give(Job { command, reply }) {
            return Err(ControlError::Closed { device: device() });
        }
        self.has_jobs.store(true, Ordering::Release);
        match answer.recv_timeout(patience) {
            Ok(answer) => answer,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(ControlError::Silent { device: device(), waited: patience })
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(ControlError::Closed { device: device() }),
        }
    }
}

/// Told of the copies that may still land, those of unsafe writes left out, and of the time. Says whether it took them; if
/// not it is told again later.
pub type CopyObserver = Box<dyn FnMut(Instant, &[LivingCopy]) -> bool + Send>;

/// Who wants to know when the living copies change.
struct CopyWatch {
    observer: CopyObserver,
    /// What it was told last.
    seen: u64,
    /// It is not told before this.
    not_before: Instant,
}

/// A multipath device that operators reach.
pub struct Controlled {
    inner: MultipathDevice,
    device: String,
    addresses: Vec<String>,
    jobs: Taker<Job>,
    has_jobs: Arc<AtomicBool>,
    /// Operators who wait for the end of a control command.
    waiting: BTreeMap<CommandId, Reply>,
    copies: Option<CopyWatch>,
}

impl Controlled {
    /// Puts an operator's end on a device; `addresses` are what its paths are called, by place.
    ///
    /// # Errors
    /// Where the kernel has no descriptor left.
    pub fn new(inner: MultipathDevice, device: &str, addresses: Vec<String>) -> io::Result<(Self, Control)> {
        let (giver, jobs) = results()?;
        let has_jobs = Arc::new(AtomicBool::new(false));
        let control = Control { device: device.to_owned(), jobs: giver, has_jobs: Arc::clone(&has_jobs) };
        let (device, waiting) = (device.to_owned(), BTreeMap::new());
        Ok((Self { inner, device, addresses, jobs, has_jobs, waiting, copies: None }, control))
    }

    /// Has somebody told when the copies that may still land change, once in [`COPIES_INTERVAL`] at most.
    pub fn watch_copies(&mut self, observer: CopyObserver) {
        self.copies = Some(CopyWatch { observer, seen: 0, not_before: Instant::ZERO });
    }

    /// Tells who wants to know of the copies.
    fn tell_of_copies(&mut self, now: Instant) {
        let generation = self.inner.copies_generation();
        let Some(watch) = &mut self.copies else { return };
        if watch.seen == generation || now < watch.not_before {
            return;
        }
        watch.not_before = now + COPIES_INTERVAL;
        let mut copies = self.inner.living_copies();
        copies.retain(|copy| copy.policy != FencePolicy::Unsafe);
        if (watch.observer)(now, &copies) {
            watch.seen = generation;
        }
    }

    /// When somebody is to be told of copies.
    fn copies_wakeup(&self) -> Option<Instant> {
        let watch = self.copies.as_ref()?;
        (watch.seen != self.inner.copies_generation()).then_some(watch.not_before)
    }

    /// Takes in what operators want.
    fn take_commands(&mut self, now: Instant) {
        // Whoever waits on the bell comes back until it is cleared, which is when the last command was taken.
        if !self.has_jobs.swap(false, Ordering::Acquire) {
            return;
        }
        for _ in 0..COMMANDS_PER_POLL {
            let Some(Job { command, reply }) = self.jobs.take() else { return };
            // Whoever went away does not want to know.
            match command {
                Command::Send(request) => self.send(now, *request, reply),
                Command::Reserve { operation, patience } => {
                    let id = self.inner.submit_reservation(now, operation, patience);
                    self.waiting.insert(id, reply);
                }
                command => drop(reply.try_send(self.execute(now, command))),
            }
        }
        self.has_jobs.store(true, Ordering::Relaxed);
    }

    /// A control command goes its way; its operator is answered when it ends.
    fn send(&mut self, now: Instant, request: CommandRequest, reply: Reply) {
        match request.path.map(|path| self.path(path)) {
            Some(Err(error)) => drop(reply.try_send(Err(error))),
            Some(Ok(_)) | None => {
                let id = self.inner.submit_command(now, request);
                self.waiting.insert(id, reply);
            }
        }
    }

    /// Answers operators whose commands have ended.
    fn answer_commands(&mut self, now: Instant) {
        if self.waiting.is_empty() {
            return;
        }
        while let Some(outcome) = self.inner.poll_reservation(now) {
            if let Some(reply) = self.waiting.remove(&outcome.id) {
                let _ = reply.try_send(Ok(Answer::Reserved(Box::new(outcome))));
            }
        }
        while let Some(outcome) = self.inner.poll_command(now) {
            if let Some(reply) = self.waiting.remove(&outcome.id) {
                let _ = reply.try_send(Ok(Answer::Sent(Box::new(outcome))));
            }
        }
    }

    fn execute(&mut self, now: Instant, command: Command) -> Result<Answer, ControlError> {
        match command {
            Command::Show => {
                let snapshot = self.inner.snapshot(now, &self.device, &self.addresses);
                return Ok(Answer::Shown(Box::new(snapshot)));
            }
            Command::Fail(path) => self.inner.fail_path(now, self.path(path)?),
            Command::Reinstate(path) => self.inner.reinstate_path(now, self.path(path)?),
            Command::Policy(kind) => self.inner.switch_selector(now, kind),
            Command::SwitchGroup(priority) => {
                if !self.inner.switch_group(priority) {
                    return Err(ControlError::NoSuchGroup { device: self.device.clone(), priority });
                }
            }
            Command::Explain(wanted) => self.inner.explain(wanted),
            Command::Plan { service_time } => {
                return Ok(Answer::Plan(Box::new(self.inner.plan(service_time))));
            }
            Command::Drill(config) => {
                self.path(config.path)?;
                let error = |source| ControlError::Drill { device: self.device.clone(), source };
                self.inner.start_drill(now, config).map_err(error)?;
            }
            Command::DrillReport => return Ok(Answer::Drill(Box::new(self.inner.drill_report()))),
            Command::DrillSamples => {
                return Ok(Answer::DrillSamples(self.inner.drill_samples().copied().collect()));
            }
            Command::Decisions { most } => {
                let explain = self.inner.explanation();
                let left_out = explain.decisions().count().saturating_sub(most);
                let decisions = explain.decisions().skip(left_out).copied().collect();
                return Ok(Answer::Decisions { decisions, is_kept: explain.keeps_decisions() });
            }
            Command::Send(_) | Command::Reserve { .. } => {
                unreachable!("it is sent, and answered when it ends")
            }
            Command::CommandRecords { most } => {
                let left_out = self.inner.command_records().count().saturating_sub(most);
                let records = self.inner.command_records().skip(left_out).cloned().collect();
                return Ok(Answer::CommandRecords(records));
            }
            Command::Nexuses => {
                let ledger = Box::new(self.inner.nexus_ledger().clone());
                let mut cursor = 0;
                let attentions = std::iter::from_fn(|| self.inner.poll_attention(&mut cursor)).collect();
                return Ok(Answer::Nexuses { ledger, attentions });
            }
        }
        Ok(Answer::Done)
    }

    fn path(&self, path: PathIndex) -> Result<PathIndex, ControlError> {
        let count = self.inner.path_count();
        if path.0 < count {
            return Ok(path);
        }
        let device = self.device.clone();
        Err(ControlError::NoSuchPath { device, path: path.0, last: count.saturating_sub(1) })
    }
}

impl BlockDevice for Controlled {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, now: Instant, request: IoRequest) -> Result<(), Refused> {
        self.inner.submit(now, request)
    }

    fn poll(&mut self, now: Instant) -> Option<IoCompletion> {
        self.take_commands(now);
        let done = self.inner.poll(now);
        self.answer_commands(now);
        self.tell_of_copies(now);
        done
    }

    fn poll_event(&mut self, now: Instant) -> Option<DeviceEvent> {
        self.inner.poll_event(now)
    }

    fn next_wakeup(&self) -> Option<Instant> {
        earliest(self.inner.next_wakeup(), self.copies_wakeup())
    }

    fn cancel(&mut self, now: Instant, tag: IoTag) -> Cancelled {
        self.inner.cancel(now, tag)
    }

    fn attach_pool(&mut self, pool: &BufferPool) {
        self.inner.attach_pool(pool);
    }

    fn wait_on(&self, descriptors: &mut Vec<RawFd>) {
        descriptors.push(self.jobs.descriptor());
        self.inner.wait_on(descriptors);
    }
}

/// The operator's ends of all devices of a process, by what they are called.
pub type Controls = BTreeMap<String, Control>;

#[cfg(test)]
mod tests {
    use std::thread;

    use storage_mapping::control_port::{Cdb, CommandBytes, ControlCommand, Transfer};
    use storage_mapping::device::{Faults, FaultyDevice, Hang, MemoryDisk, StorageSystem};
    use storage_mapping::scsi::reservations::ReservationType;
    use storage_mapping::{BlockCount, BlockSize, Buffer, Lba, wait};

    use super::*;
    use crate::failover::FailoverConfig;
    use crate::out_of_band::ReservationResult;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Two paths, the first of which never answers, with a read under way over it.
    fn stuck() -> (Controlled, Control) {
        let disk = MemoryDisk::new(BlockSize::B4096, BlockCount(8));
        let hang = Hang::After { requests: 0, duration: None };
        let hung = FaultyDevice::new(disk.device(), Faults { hang, ..Faults::default() }, 1);
        let paths: Vec<Box<dyn BlockDevice>> = vec![Box::new(hung), Box::new(disk.device())];
        let device = MultipathDevice::new(paths, FailoverConfig::default()).unwrap();
        let addresses = vec!["mem:a".to_owned(), "mem:b".to_owned()];
        let (mut device, control) = Controlled::new(device, "0", addresses).unwrap();
        let read = IoRequest::read(IoTag(1), Lba(0), Buffer::zeroed(4096));
        device.submit(Instant::ZERO, IoRequest { path: Some(PathIndex(0)), ..read }).unwrap();
        (device, control)
    }

    /// A loop that sleeps until something wakes it; time stands still, so that nothing but the bell does.
    fn serve(mut device: Controlled, until: mpsc::Receiver<()>) {
        let mut descriptors = Vec::new();
        device.wait_on(&mut descriptors);
        while until.try_recv() == Err(mpsc::TryRecvError::Empty) {
            assert!(device.poll(Instant::ZERO).is_none());
            while device.poll_event(Instant::ZERO).is_some() {}
            wait::wait(&descriptors, Some(Duration::from_millis(100)));
        }
    }

    #[test]
    fn an_operator_is_answered_while_a_path_hangs() {
        let (device, control) = stuck();
        let (stop, until) = mpsc::channel();
        let event_loop = thread::spawn(move || serve(device, until));
        let shown = || match control.ask(Command::Show, PATIENCE) {
            Ok(Answer::Shown(snapshot)) => snapshot,
            other => panic!("{other:?}"),
        };
        let snapshot = shown();
        assert_eq!(
            (snapshot.device.as_str(), snapshot.in_flight, snapshot.policy.as_str()),
            ("0", 1, "latency")
        );
        assert_eq!((snapshot.paths[0].address.as_str(), snapshot.paths[0].in_flight), ("mem:a", 1));
        for command in [
            Command::Fail(PathIndex(0)),
            Command::Policy(SelectorKind::QueueLength),
            Command::SwitchGroup(0),
            Command::Explain(true),
        ] {
            assert!(matches!(control.ask(command, PATIENCE), Ok(Answer::Done)));
        }
        let snapshot = shown();
        assert_eq!((snapshot.paths[0].state, snapshot.policy.as_str()), ("disabled", "queue-length"));
        assert_eq!(snapshot.paths[0].reason.as_deref(), Some("an operator wanted it"));
        assert!(matches!(control.ask(Command::Reinstate(PathIndex(0)), PATIENCE), Ok(Answer::Done)));
        assert_eq!(shown().paths[0].state, "active");
        let answer = control.ask(Command::Decisions { most: 5 }, PATIENCE).unwrap();
        assert!(matches!(answer, Answer::Decisions { decisions, is_kept: true } if decisions.is_empty()));
        stop.send(()).unwrap();
        event_loop.join().unwrap();
        assert!(matches!(control.ask(Command::Show, PATIENCE), Err(ControlError::Closed { .. })));
    }

    #[test]
    fn whoever_watches_copies_is_told_of_every_change_but_not_more_often_than_once_a_second() {
        let disk = MemoryDisk::new(BlockSize::B4096, BlockCount(8));
        let hang = Hang::After { requests: 0, duration: None };
        let hung = FaultyDevice::new(disk.device(), Faults { hang, ..Faults::default() }, 1);
        let paths: Vec<Box<dyn BlockDevice>> = vec![Box::new(hung), Box::new(disk.device())];
        let seconds = |number| Instant::ZERO + Duration::from_secs(number);
        let config = FailoverConfig {
            attempt_timeout: Duration::from_secs(1),
            quiesce_time: Duration::from_secs(20),
            ..FailoverConfig::default()
        };
        let device = MultipathDevice::new(paths, config).unwrap();
        let (mut device, _control) = Controlled::new(device, "0", Vec::new()).unwrap();
        let (tell, told) = mpsc::channel();
        let mut refusals = 1;
        device.watch_copies(Box::new(move |now, copies| {
            tell.send((now, copies.iter().map(|copy| copy.range.first().0).collect::<Vec<_>>())).unwrap();
            refusals -= 1;
            refusals < 0
        }));
        for (tag, fence) in [(1, FencePolicy::Fence), (2, FencePolicy::Unsafe)] {
            let data = Buffer::zeroed(4096).freeze();
            let write = IoRequest::write(IoTag(tag), Lba(tag), data, false);
            device.submit(seconds(0), IoRequest { path: Some(PathIndex(0)), fence, ..write }).unwrap();
        }
        for half in 0..60 {
            let now = Instant::ZERO + Duration::from_millis(500 * half);
            while device.poll(now).is_some() {}
            while device.poll_event(now).is_some() {}
        }
        // The refused one, the same once more after a second, and the end of the quiesce time.
        let told: Vec<_> = told.try_iter().collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!(
            told.iter().map(|(_, copies)| copies.as_slice()).collect::<Vec<_>>(),
            [&[1][..], &[1], &[]]
        );
        assert_eq!(told[1].0.since(told[0].0), COPIES_INTERVAL);
        assert_eq!(device.copies_wakeup(), None);
    }

    #[test]
    fn mistakes_are_named_and_nobody_waits_for_ever() {
        let (mut device, control) = stuck();
        let silent = control.ask(Command::Show, Duration::from_millis(1)).unwrap_err();
        assert!(matches!(silent, ControlError::Silent { .. }), "{silent}");
        let said = |device: &mut Controlled, command| {
            device.execute(Instant::ZERO, command).unwrap_err().to_string()
        };
        let message = said(&mut device, Command::Fail(PathIndex(2)));
        assert_eq!(message, "device 0 has no path 2: its paths are 0 to 1");
        assert!(said(&mut device, Command::SwitchGroup(7)).contains("priority 7"));
        // The one who did not wait is no harm to the next poll.
        assert!(device.poll(Instant::ZERO).is_none());
    }

    /// Two paths of a simulated unit that take control commands, each answered after 1 ms.
    fn simulated() -> (Controlled, Control) {
        let text = "block 512\ndisk d0 1MiB\ngroup g0\nport p0 group=g0 latency=1ms\n\
                    port p1 group=g0 latency=1ms\nvolume v0 concatenated d0@0+1MiB\n";
        let system = StorageSystem::new(&text.parse().unwrap()).unwrap();
        let path = |port| Box::new(system.path("host1", port, "v0").unwrap()) as Box<dyn BlockDevice>;
        let device = MultipathDevice::new(vec![path("p0"), path("p1")], FailoverConfig::default()).unwrap();
        Controlled::new(device, "0", vec!["sim:a".to_owned(), "sim:b".to_owned()]).unwrap()
    }

    /// Lets an operator ask in a thread of his own, and virtual time go on until he is answered.
    fn asked(device: &mut Controlled, control: &Control, command: Command) -> Result<Answer, ControlError> {
        let operator = {
            let control = control.clone();
            thread::spawn(move || control.ask(command, PATIENCE))
        };
        let mut descriptors = Vec::new();
        device.wait_on(&mut descriptors);
        let mut now = Instant::ZERO;
        while !operator.is_finished() {
            assert!(device.poll(now).is_none());
            while device.poll_event(now).is_some() {}
            if device.waiting.is_empty() {
                // Until he has asked, or has his answer.
                wait::wait(&descriptors, Some(Duration::from_millis(10)));
            } else {
                now = device.next_wakeup().map_or(now, |at| at.max(now));
            }
        }
        operator.join().unwrap()
    }

    fn inquiry(path: usize) -> Command {
        let bytes = CommandBytes::Scsi(Cdb::new(&[0x12, 0, 0, 0, 96, 0]).unwrap());
        let command = ControlCommand { bytes, transfer: Transfer::In(96) };
        Command::Send(Box::new(CommandRequest::new(command, Some(PathIndex(path)), Duration::from_secs(1))))
    }

    #[test]
    fn a_control_command_is_answered_when_it_ends() {
        let (mut device, control) = simulated();
        let Ok(Answer::Sent(outcome)) = asked(&mut device, &control, inquiry(1)) else {
            panic!("no outcome")
        };
        assert!(outcome.is_done(), "{}", outcome.record);
        assert_eq!(outcome.record.chosen, Some(PathIndex(1)));
        let Ok(Answer::CommandRecords(records)) =
            asked(&mut device, &control, Command::CommandRecords { most: 5 })
        else {
            panic!("no records")
        };
        assert_eq!(records.len(), 1);
        let error = asked(&mut device, &control, inquiry(2)).unwrap_err();
        assert_eq!(error.to_string(), "device 0 has no path 2: its paths are 0 to 1");
        assert!(device.waiting.is_empty(), "nobody waits any more");
    }

    #[test]
    fn reservations_are_answered_when_all_their_steps_have_ended() {
        let (mut device, control) = simulated();
        let kind = ReservationType::WriteExclusiveRegistrantsOnly;
        for operation in [
            ReservationOperation::Reserve { kind },
            ReservationOperation::Register { base: 0x10 },
            ReservationOperation::Reserve { kind },
            ReservationOperation::Release,
        ] {
            let command = Command::Reserve { operation, patience: Duration::from_secs(1) };
            let Ok(Answer::Reserved(outcome)) = asked(&mut device, &control, command) else {
                panic!("no outcome")
            };
            let has_key = device.inner.nexus_ledger().is_registered(PathIndex(1));
            let expected = if has_key { ReservationResult::Done } else { ReservationResult::NoPath };
            assert_eq!(outcome.result, expected, "{operation:?}: {outcome:?}");
        }
        let Ok(Answer::Nexuses { ledger, .. }) = asked(&mut device, &control, Command::Nexuses) else {
            panic!("no ledger")
        };
        let keys: Vec<_> = ledger.nexuses().map(|(_, nexus)| nexus.key).collect();
        assert_eq!((keys, ledger.holder()), (vec![Some(0x10), Some(0x11)], None));
    }

    #[test]
    fn an_operator_who_went_away_leaves_nothing_behind() {
        let (mut device, control) = simulated();
        assert!(matches!(
            control.ask(inquiry(0), Duration::from_millis(1)),
            Err(ControlError::Silent { .. })
        ));
        let mut now = Instant::ZERO;
        for _ in 0..100 {
            assert!(device.poll(now).is_none());
            now = now + Duration::from_millis(1);
        }
        assert!(device.waiting.is_empty());
        assert_eq!(device.inner.command_records().count(), 1, "it ran all the same");
    }
}
