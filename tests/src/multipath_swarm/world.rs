//! The loop of one run: submitters that wait for their answers, an operator, and the device between them and the
//! storage system, in virtual time.
//!
//! Keeps true: one thread; no clock but the virtual one and no chance but the seed's, so that one seed is one run, told
//! by one number. Not here: what is drawn (`plan`), what is judged (`truth`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use multipath::MultipathDevice;
use multipath::path_state::PathSet;
use multipath::selector::{PathSelector, Score, Selector};
use storage_mapping::block::time::earliest;
use storage_mapping::device::StorageSystem;
use storage_mapping::device::storage_system::{
    Conditions, Description, Extent, LogicalVolume, PhysicalDisk, Place, Port, Service, TargetBehaviour,
    TargetPortGroup,
};
use storage_mapping::{
    BlockDevice, BlockSize, Buffer, ByteSize, Cancelled, DeviceEvent, ErrorSource, FencePolicy, Instant,
    IoBuffer, IoCompletion, IoRequest, IoTag, Lba, Operation, PathIndex, RefusalReason,
};

use super::medium::Medium;
use super::observed_path::ObservedPath;
use super::plan::{Command, Mode, Plan, REGIONS};
use super::stamp::{self, BLOCK_BYTES};
use super::truth::{Broken, ReadView, Shared, Truth, Violation};
use crate::trace::Trace;

/// The longest write, in blocks: one bit each in a word.
const BLOCKS_MAX: u64 = 8;
/// Reads of one block at rest, until one gives data.
const READS_MAX: u32 = 16;
/// Between them, longer each time.
const READ_PAUSE: Duration = Duration::from_millis(500);
/// Polls at one moment that bring nothing.
const IDLE_POLLS_MAX: u32 = 20;
/// What stands for no deadline: so late that it never passes, and different for every request.
const NO_DEADLINE: Instant = Instant(1 << 60);
/// Lines of the storage system that are kept between two steps of a printed run.
const LINES_KEPT: usize = 1 << 16;

/// What a run was like.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Stands for every event of the storage system and every answer of the device.
    pub hash: u64,
    /// Virtual time.
    pub simulated: Duration,
    /// Requests that were answered.
    pub requests: u64,
    /// Of these, answered with an error.
    pub errors: u64,
    /// Given back by a cancel.
    pub withdrawn: u64,
    /// Attempts on paths.
    pub attempts: u64,
    /// Attempts after the first of their request.
    pub failovers: u64,
    /// Writes that the fence held.
    pub held: u64,
    /// Copies that landed after their write had landed or ended.
    pub late_landings: u64,
    /// Of these, after they had been assumed dead, as the device counts.
    pub wrongly_assumed: u64,
    /// From the end of the faults to the last answer and the last living copy.
    pub recovery: Duration,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// The first promise that was broken.
    pub violation: Option<Violation>,
}

/// A selector that an operator may switch from outside of the device.
struct Switchable(Arc<Mutex<Selector>>);

impl Switchable {
    fn with<R>(&self, f: impl FnOnce(&mut Selector) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl PathSelector for Switchable {
    fn select_path(&mut self, now: Instant, candidates: PathSet, bytes: usize) -> Option<PathIndex> {
        self.with(|selector| selector.select_path(now, candidates, bytes))
    }
    fn start_io(&mut self, now: Instant, path: PathIndex, bytes: usize) {
        self.with(|selector| selector.start_io(now, path, bytes));
    }
    fn end_io(&mut self, now: Instant, path: PathIndex, bytes: usize, took: Duration, is_success: bool) {
        self.with(|selector| selector.end_io(now, path, bytes, took, is_success));
    }
    fn fail_path(&mut self, now: Instant, path: PathIndex) {
        self.with(|selector| selector.fail_path(now, path));
    }
    fn reinstate_path(&mut self, now: Instant, path: PathIndex) {
        self.with(|selector| selector.reinstate_path(now, path));
    }
    fn score(&self, now: Instant, path: PathIndex, bytes: usize) -> Score {
        self.with(|selector| selector.score(now, path, bytes))
    }
    fn prefers_named_path(&self) -> bool {
        self.with(|selector| selector.prefers_named_path())
    }
}

/// What a request is, for its submitter.
#[derive(Debug)]
enum Kind {
    Read { lba: Lba, view: ReadView },
    Write { write: u64 },
    Flush { begun: u64 },
}

/// A request that was not answered yet.
#[derive(Debug)]
struct Pending {
    slot: Option<u32>,
    kind: Kind,
    bytes: usize,
    deadline: Option<Instant>,
    /// An error would be needless while a good path is there.
    is_owed: bool,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Issue(u32),
    Cancel(u64),
    Operator(usize),
    Heal,
    Wait,
}

/// One run.
pub(super) struct World {
    plan: Plan,
    truth: Shared,
    system: StorageSystem,
    selector: Arc<Mutex<Selector>>,
    device: MultipathDevice<Switchable>,
    trace: Trace,
    is_printed: bool,
    now: Instant,
    agenda: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    agenda_count: u64,
    requests: u64,
    pending: BTreeMap<u64, Pending>,
    /// The write of a tag, for events that come after its end.
    write_of: BTreeMap<u64, u64>,
    is_healed: bool,
    report: Report,
}

fn build(plan: &Plan, truth: &Shared) -> StorageSystem {
    let disk_blocks =
        plan.blocks().div_ceil(plan.disks as u64).next_multiple_of(plan.stripe_blocks.unwrap_or(1));
    let size = ByteSize(disk_blocks * BLOCK_BYTES as u64);
    let names: Vec<String> = (0..plan.disks).map(|index| format!("d{index}")).collect();
    let service = Service { latency: plan.disk_latency, parallel: Some(plan.disk_parallel), rate: None };
    let description = Description {
        block_size: BlockSize::B512,
        seed: plan.seed,
        forwarding: Duration::from_micros(300),
        disks: names
            .iter()
            .map(|name| PhysicalDisk {
                name: name.clone(),
                place: Place::Address("file:/model".to_owned()),
                service,
            })
            .collect(),
        groups: plan
            .groups
            .iter()
            .map(|name| TargetPortGroup { name: name.clone(), is_preferred: false })
            .collect(),
        ports: plan
            .ports
            .iter()
            .zip(&plan.group_of_port)
            .map(|(name, group)| Port {
                name: name.clone(),
                group: Some(plan.groups[*group].clone()),
                conditions: Conditions::default(),
            })
            .collect(),
        volumes: vec![LogicalVolume {
            name: "v".to_owned(),
            stripe_unit: plan.stripe_blocks.map(|blocks| ByteSize(blocks * BLOCK_BYTES as u64)),
            extents: names
                .iter()
                .map(|disk| Extent { disk: disk.clone(), start: ByteSize(0), size })
                .collect(),
        }],
        target: TargetBehaviour::default(),
        access: Vec::new(),
        schedule: plan.schedule.clone(),
    };
    let mut open = |_: &str| Ok(Box::new(Medium::new(disk_blocks, truth.clone())) as Box<dyn BlockDevice>);
    StorageSystem::with_devices(&description, &mut open).expect("the parts of a plan fit together")
}

impl World {
    pub(super) fn new(plan: Plan, trace: Trace, is_printed: bool) -> Self {
        let truth = Truth::new(
            plan.blocks(),
            plan.paths.len(),
            plan.config.attempts_max,
            plan.config.cache_is_shared,
        );
        let truth = Shared::new(truth);
        let system = build(&plan, &truth);
        system.keep_event_lines(if is_printed { LINES_KEPT } else { 0 });
        let mut paths: Vec<(multipath::PathConfig, Box<dyn BlockDevice>)> = Vec::new();
        for (index, name) in plan.paths.iter().enumerate() {
            let path =
                system.path(&name.initiator, &name.port, &name.volume).expect("the path is one of the plan");
            let closed =
                plan.closed[index].map(|(from, until)| (Instant::ZERO + from, Instant::ZERO + until));
            let path = ObservedPath::new(index, Box::new(path), plan.depths[index], closed, truth.clone());
            paths.push((plan.path_configs[index], Box::new(path)));
        }
        let selector = Arc::new(Mutex::new(Selector::new(Instant::ZERO, plan.selector.clone())));
        let switchable = Switchable(Arc::clone(&selector));
        let device =
            MultipathDevice::with_selector(paths, switchable, plan.config).expect("a good configuration");
        let report = Report { faults: plan.kinds.clone(), ..Report::default() };
        Self {
            plan,
            truth,
            system,
            selector,
            device,
            trace,
            is_printed,
            now: Instant::ZERO,
            agenda: BinaryHeap::new(),
            agenda_count: 0,
            requests: 0,
            pending: BTreeMap::new(),
            write_of: BTreeMap::new(),
            is_healed: false,
            report,
        }
    }

    fn put(&mut self, at: Instant, event: Event) {
        self.agenda_count += 1;
        self.agenda.push(Reverse((at, self.agenda_count, event)));
    }

    fn break_promise(&self, broken: Broken, text: impl FnOnce() -> String) {
        self.truth.lock().break_promise(broken, self.now, text);
    }

    fn is_broken(&self) -> bool {
        self.truth.lock().violation.is_some()
    }

    /// Runs to the end.
    pub(super) fn run(mut self) -> Report {
        if self.is_printed {
            println!("{:#?}", self.plan);
        }
        for slot in 0..self.plan.slots {
            let share = self.plan.think.mul_f64(f64::from(slot) / f64::from(self.plan.slots));
            self.put(Instant::ZERO + share, Event::Issue(slot));
        }
        for index in 0..self.plan.commands.len() {
            let at = Instant::ZERO + self.plan.commands[index].0;
            self.put(at, Event::Operator(index));
        }
        self.put(Instant::ZERO + self.plan.span, Event::Heal);
        self.go_on();
        self.read_everything();
        let totals = {
            let mut truth = self.truth.lock();
            truth.check_rest(self.now);
            self.report.violation = truth.violation.clone();
            truth.totals
        };
        self.report.simulated = self.now.since(Instant::ZERO);
        (self.report.attempts, self.report.failovers) = (totals.sent, totals.resent);
        self.report.late_landings = totals.late_landings;
        self.report.wrongly_assumed = self.device.late_landings();
        self.report.hash = self.trace.hash() ^ self.system.event_hash().rotate_left(17);
        self.report
    }

    /// When all must be at rest.
    fn limit(&self) -> Instant {
        let config = &self.plan.config;
        let quiesce = self.plan.path_configs.iter().filter_map(|path| path.quiesce_time).max();
        let quiesce = quiesce.unwrap_or_default().max(config.quiesce_time);
        let own = config.attempt_timeout * 2 + config.flush_timeout * 2 + config.probe_interval * 4;
        Instant::ZERO + self.plan.span + quiesce + own + Duration::from_secs(30)
    }

    /// Until all is answered, all faults are over, and no copy may land.
    fn go_on(&mut self) {
        let heal = Instant::ZERO + self.plan.span;
        let limit = self.limit();
        while !self.is_broken() {
            // What is left of the agenda does nothing any more.
            let is_over = self.is_healed && self.pending.is_empty();
            if is_over && self.device.living_copies().is_empty() {
                break;
            }
            if self.now > limit {
                let first =
                    self.pending.first_key_value().map(|(tag, pending)| format!("#{tag} {pending:?}"));
                let living = self.device.living_copies().len();
                let text = || format!("at rest for long, and {first:?} and {living} living copies are left");
                return self.break_promise(Broken::Unanswered, text);
            }
            self.step();
        }
        self.report.recovery = self.now.since(heal);
    }

    /// Goes to the next moment in which something happens.
    fn step(&mut self) {
        let planned = self.agenda.peek().map(|Reverse((at, _, _))| *at);
        let Some(next) = earliest(planned, self.device.next_wakeup()).filter(|at| *at < NO_DEADLINE) else {
            let text = || format!("{} requests wait for nothing", self.pending.len());
            return self.break_promise(Broken::Unanswered, text);
        };
        let lateness = u64::try_from(self.plan.lateness.as_nanos()).unwrap_or(0);
        let late = Duration::from_nanos(self.plan.chance.below(lateness + 1));
        self.now = self.now.max(next + late);
        while let Some(Reverse((at, _, event))) = self.agenda.peek().copied()
            && at <= self.now
        {
            self.agenda.pop();
            self.handle(event);
        }
        self.drain();
        self.check_copies();
        if self.is_printed {
            self.system.event_lines().iter().for_each(|line| println!("{line}"));
            self.system.keep_event_lines(0);
            self.system.keep_event_lines(LINES_KEPT);
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Issue(slot) => self.issue(slot),
            Event::Cancel(tag) => self.cancel(tag),
            Event::Operator(index) => {
                let command = self.plan.commands[index].1.clone();
                self.trace.line(self.now, "operator", &format!("{command:?}"));
                match command {
                    Command::FailPath(path) => self.device.fail_path(self.now, PathIndex(path)),
                    Command::ReinstatePath(path) => self.device.reinstate_path(self.now, PathIndex(path)),
                    Command::SwitchGroup(priority) => {
                        self.device.switch_group(priority);
                    }
                    Command::Selector(kind) => {
                        let mut selector = self.selector.lock().unwrap_or_else(PoisonError::into_inner);
                        selector.switch(self.now, kind);
                    }
                }
            }
            Event::Wait => {}
            Event::Heal => {
                self.is_healed = true;
                self.trace.line(self.now, "operator", "puts every path into use");
                for path in 0..self.plan.paths.len() {
                    if self.device.status()[path].state == multipath::PathState::Disabled {
                        self.device.reinstate_path(self.now, PathIndex(path));
                    }
                }
            }
        }
    }

    /// Takes in all that the device has to say, until it wants to sleep.
    fn drain(&mut self) {
        let mut idle = 0;
        loop {
            let mut is_idle = true;
            while let Some(done) = self.device.poll(self.now) {
                is_idle = false;
                self.completed(done);
            }
            while let Some(event) = self.device.poll_event(self.now) {
                is_idle = false;
                self.told(event);
            }
            if self.device.next_wakeup().is_none_or(|at| at > self.now) || self.is_broken() {
                return;
            }
            idle = if is_idle { idle + 1 } else { 0 };
            if idle > IDLE_POLLS_MAX {
                let text = || format!("polled {idle} times, and it wants to be polled again at once");
                return self.break_promise(Broken::BusyLoop, text);
            }
        }
    }

    fn told(&mut self, event: DeviceEvent) {
        self.trace.line(self.now, "event", &format!("{event:?}"));
        if let DeviceEvent::Settled { tag, proof } = event {
            let write = self.write_of.get(&tag.0).copied().unwrap_or(0);
            self.truth.lock().settled(self.now, write, proof);
        }
    }

    /// A copy is living for no longer than its quiesce time, and nothing is held without a reason.
    fn check_copies(&mut self) {
        let copies = self.device.living_copies();
        for copy in &copies {
            let own = self.plan.path_configs[copy.path.0].quiesce_time;
            let quiesce = own.unwrap_or(self.plan.config.quiesce_time);
            if copy.assumed_dead_at <= self.now || copy.assumed_dead_at > self.now + quiesce {
                let text = || format!("{copy:?} is living, with a quiesce time of {quiesce:?}");
                return self.break_promise(Broken::Held, text);
            }
        }
        let held = self.device.held_writes();
        let writes =
            self.pending.values().filter(|pending| matches!(pending.kind, Kind::Write { .. })).count();
        if copies.is_empty() && held > 0 && held >= writes {
            self.break_promise(Broken::Held, || format!("{held} writes are held for nothing"));
        }
    }

    fn issue(&mut self, slot: u32) {
        if self.requests >= self.plan.requests || self.now.since(Instant::ZERO) >= self.plan.span {
            return;
        }
        self.requests += 1;
        let request = self.draw_request();
        self.submit(Some(slot), request);
    }

    /// Draws what to do; the fence policy follows from the place.
    fn draw_request(&mut self) -> (IoRequest, Option<Instant>) {
        let (mix, blocks, paths) = (self.plan.mix, self.plan.region_blocks, self.plan.paths.len());
        let tag = IoTag(self.requests);
        let chance = &mut self.plan.chance;
        let region = chance.below(REGIONS);
        let count = (1 + chance.below(BLOCKS_MAX)).min(1 + chance.below(BLOCKS_MAX)).min(blocks);
        let within = if chance.hits(mix.hot_share) { mix.hot } else { blocks };
        let lba = Lba(region * blocks + chance.below(within).min(blocks - count));
        let policy = match (self.plan.mode, region) {
            (Mode::UnsafeAsFenced, _) | (_, 4) => FencePolicy::Unsafe,
            (_, 0) => FencePolicy::Fence,
            (_, 1) => FencePolicy::Wait,
            (_, 2) => FencePolicy::Fail,
            _ => *chance.pick(&[FencePolicy::Fence, FencePolicy::Wait, FencePolicy::Fail]),
        };
        let length = usize::try_from(count).expect("few") * BLOCK_BYTES;
        let mut request = if chance.hits(mix.flushes) {
            IoRequest::flush(tag)
        } else if chance.hits(mix.writes) {
            let is_judged = self.plan.mode == Mode::UnsafeAsFenced;
            let write = self.truth.lock().begin_write(lba, count, policy, is_judged);
            let mut data = Buffer::zeroed(length);
            for (block, at) in data.chunks_exact_mut(BLOCK_BYTES).zip(lba.0..) {
                stamp::fill(block, write, Lba(at));
            }
            self.write_of.insert(tag.0, write);
            IoRequest::write(tag, lba, data.freeze(), chance.hits(100_000))
        } else {
            let mut buffer = Buffer::zeroed(length);
            // A completion without an answer in it is seen.
            buffer.fill(0xa5);
            IoRequest::read(tag, lba, buffer)
        };
        request.fence = policy;
        request.hedge = chance.hits(mix.hedges);
        request.path = chance.hits(mix.named).then(|| PathIndex(chance.index(paths)));
        let longest = Duration::from_secs(5);
        let deadline = chance.hits(mix.deadlines).then(|| {
            // No two have the same: they stand for their requests on the paths.
            let after = chance.duration(Duration::from_millis(1), longest);
            Instant((self.now + after).0 / 4096 * 4096 + tag.0 % 4096)
        });
        request.deadline = Some(deadline.unwrap_or(NO_DEADLINE + Duration::from_nanos(tag.0)));
        (request, deadline)
    }

    fn submit(&mut self, slot: Option<u32>, (request, deadline): (IoRequest, Option<Instant>)) {
        let tag = request.tag;
        let (kind, bytes, word) = match &request.operation {
            Operation::Read { lba, buffer } => {
                let view = self.truth.lock().begin_read(*lba, buffer.len() / BLOCK_BYTES);
                (Kind::Read { lba: *lba, view }, buffer.len(), 1)
            }
            Operation::Write { data, .. } => (Kind::Write { write: self.write_of[&tag.0] }, data.len(), 2),
            Operation::Flush => (Kind::Flush { begun: self.truth.lock().begin_flush() }, 0, 3),
        };
        let is_write = matches!(kind, Kind::Write { .. });
        let is_owed = self.plan.spared.is_some()
            && request.path.is_none()
            && deadline.is_none()
            && bytes > 0
            && !(is_write && request.fence == FencePolicy::Fail)
            && self.plan.config.attempts_max as usize > 2 * self.plan.paths.len();
        let words = || format!("#{} {:?} {:?} {:?}", tag.0, request.operation, request.fence, request.path);
        self.trace.numbers(self.now, "submit", &[tag.0, word, bytes as u64], words);
        if self.plan.chance.hits(self.plan.mix.cancels) {
            let after = self.plan.chance.duration(Duration::from_micros(1), Duration::from_secs(2));
            self.put(self.now + after, Event::Cancel(tag.0));
        }
        let held = self.device.held_writes();
        self.pending.insert(tag.0, Pending { slot, kind, bytes, deadline, is_owed });
        match self.device.submit(self.now, request) {
            Ok(()) => self.report.held += u64::from(self.device.held_writes() > held),
            Err(refused) => self.refused(tag, refused.reason, &refused.request),
        }
    }

    fn refused(&mut self, tag: IoTag, reason: RefusalReason, request: &IoRequest) {
        let pending = self.pending.remove(&tag.0).expect("it was put there just now");
        self.trace.line(self.now, "refused", &format!("#{} {reason}", tag.0));
        if reason != RefusalReason::Busy || length_of(request) != pending.bytes {
            self.break_promise(Broken::Answer, || format!("#{} was refused: {reason}", tag.0));
        }
        if let Kind::Write { write } = pending.kind {
            self.truth.lock().void_write(self.now, write);
        }
        if let Some(slot) = pending.slot {
            self.put(self.now + Duration::from_millis(2), Event::Issue(slot));
        }
    }

    fn cancel(&mut self, tag: u64) {
        let answer = self.device.cancel(self.now, IoTag(tag));
        self.trace.line(self.now, "cancel", &format!("#{tag} {answer:?}"));
        match answer {
            Cancelled::Withdrawn(request) => {
                let Some(pending) = self.pending.remove(&tag) else {
                    return self
                        .break_promise(Broken::Answer, || format!("#{tag} was withdrawn after its end"));
                };
                self.report.withdrawn += 1;
                if request.tag.0 != tag || length_of(&request) != pending.bytes {
                    self.break_promise(Broken::Buffer, || format!("#{tag} came back as {request:?}"));
                }
                if let Kind::Write { write } = pending.kind {
                    self.truth.lock().void_write(self.now, write);
                }
                self.again(pending.slot);
            }
            Cancelled::Requested | Cancelled::NotHere => {}
        }
    }

    fn again(&mut self, slot: Option<u32>) {
        if let Some(slot) = slot {
            let share = self.plan.chance.below(2000) as f64 / 1000.0;
            self.put(self.now + self.plan.think.mul_f64(share), Event::Issue(slot));
        }
    }

    fn completed(&mut self, done: IoCompletion) {
        let tag = done.tag.0;
        let words = || format!("#{tag} {:?}, effect {:?}, copy {:?}", done.outcome, done.effect, done.copy);
        let facts = [tag, u64::from(done.outcome.is_ok()), done.effect as u64, done.copy as u64];
        self.trace.numbers(self.now, "answer", &facts, words);
        let Some(pending) = self.pending.remove(&tag) else {
            return self
                .break_promise(Broken::Answer, || format!("an answer to #{tag}, which nobody waits for"));
        };
        self.report.requests += 1;
        let is_ok = done.outcome.is_ok();
        self.report.errors += u64::from(!is_ok);
        self.check_end(tag, &pending, &done);
        match (&pending.kind, &done.buffer) {
            (Kind::Read { lba, view }, IoBuffer::Read(buffer)) if buffer.len() == pending.bytes => {
                if is_ok {
                    self.truth.lock().end_read(self.now, view, *lba, buffer);
                }
            }
            (Kind::Write { write }, IoBuffer::Write(data)) if data.len() == pending.bytes => {
                self.truth.lock().end_write(self.now, *write, is_ok, done.effect, done.copy);
            }
            (Kind::Flush { begun }, IoBuffer::None) => self.truth.lock().end_flush(self.now, *begun, is_ok),
            _ => self.break_promise(Broken::Buffer, || format!("#{tag} came back with {:?}", done.buffer)),
        }
        self.again(pending.slot);
    }

    fn check_end(&self, tag: u64, pending: &Pending, done: &IoCompletion) {
        let slack = self.plan.lateness * 2;
        if pending.deadline.is_some_and(|deadline| self.now > deadline + slack) {
            self.break_promise(Broken::Unanswered, || format!("#{tag} was answered after its deadline"));
        }
        // A device that is busy all the time is no fault of the layer.
        let is_busy = |error: &storage_mapping::IoError| {
            matches!(error.source_code, ErrorSource::Scsi { status: 0x08 | 0x28, .. })
        };
        if let Err(error) = done.outcome
            && pending.is_owed
            && !is_busy(&error)
        {
            let text = || format!("#{tag} ended with {error}, and path {:?} was good", self.plan.spared);
            self.break_promise(Broken::NeedlessError, text);
        }
    }

    /// Reads every block when all is well again. Some answers are still news of what was: a unit attention on every
    /// path, each of which costs an attempt, or a path that was not probed yet.
    fn read_everything(&mut self) {
        let limit = self.now + Duration::from_secs(120);
        let mut lba = 0;
        while lba < self.plan.blocks() && !self.is_broken() {
            let count = BLOCKS_MAX.min(self.plan.blocks() - lba);
            if (0..READS_MAX).any(|tries| self.read_at_rest(lba, count, limit, READ_PAUSE * tries)) {
                lba += count;
            } else {
                let text =
                    || format!("{READS_MAX} reads of block {lba} after all faults were over gave no data");
                self.break_promise(Broken::Unanswered, text);
            }
        }
    }

    /// Reads some blocks after a pause. Says whether that gave data.
    fn read_at_rest(&mut self, lba: u64, count: u64, limit: Instant, pause: Duration) -> bool {
        let begin = self.now + pause;
        self.put(begin, Event::Wait);
        while self.now < begin && !self.is_broken() {
            self.step();
        }
        self.requests += 1;
        let tag = self.requests;
        let length = usize::try_from(count).expect("few") * BLOCK_BYTES;
        let mut request = IoRequest::read(IoTag(tag), Lba(lba), Buffer::zeroed(length));
        request.deadline = Some(NO_DEADLINE + Duration::from_nanos(tag));
        let (before, errors) = (self.report.requests, self.report.errors);
        self.submit(None, (request, None));
        while self.pending.contains_key(&tag) && !self.is_broken() && self.now < limit {
            self.step();
        }
        self.report.requests > before && self.report.errors == errors
    }
}

fn length_of(request: &IoRequest) -> usize {
    match &request.operation {
        Operation::Read { buffer, .. } => buffer.len(),
        Operation::Write { data, .. } => data.len(),
        Operation::Flush => 0,
    }
}
