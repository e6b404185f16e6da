//! Hosts and disks on one virtual clock, from one seed.
//!
//! The loop takes what is next in time (ties go to the world first, then to the lane with the lowest
//! number), so a run depends on nothing but its plan. In the first part faults happen; then they stop, and
//! everything must come to its end. Not here: how a process runs (`host`), what goes wrong with single
//! requests (`disk`).

mod happenings;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use storage_mapping::Instant;
use transfer_core::node::NodeEvent;
use transfer_core::protocol::connection::ConnectionId;
use transfer_core::protocol::startup::LocalState;
use transfer_core::transfer::{LocalFiles, Outcome, SessionEvent, Verdict};

use crate::chance::Chance;
use crate::checker::delivery::Delivery;
use crate::checker::{Violation, liveness};
use crate::disk::{Block, SharedDisk};
use crate::fault::{Fault, FaultCounters};
use crate::files::Files;
use crate::lane::{CLOSE_MAX, FAREWELL_MAX, Lane, Life, START_MAX, Stage};
use crate::plan::Plan;
use crate::script::{Order, ScriptLog, Scripted};
use crate::site::{Site, SiteError};
use crate::trace::Trace;

/// Time starts a second after zero, so that "a moment ago" can be told from zero.
const BEGIN: Instant = Instant(1_000_000_000);

/// Something that happens to hosts from outside.
#[derive(Clone, Debug)]
enum Happening {
    CrashHost,
    CrashProcess,
    EmptyDisk { host: usize },
    FailPath,
    FailSync,
    FillDisk,
    FloodBell,
    FloodBellMore { lane: u16, until: Instant },
    HangPath,
    JumpClocks,
    LoseBell,
    PauseProcess,
    GoOnFromSnapshot { lane: usize },
    KillByScript { lane: usize, life: u64 },
    Persisted { lane: usize, life: u64, state: LocalState },
    Start { lane: usize },
    StopFaults,
    StopProcess,
    TakeSnapshot,
    WipeTable,
}

/// What a run was like.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// The number that stands for all its events.
    pub hash: u64,
    /// Its events.
    pub events: u64,
    /// Virtual time that passed.
    pub simulated: Duration,
    /// Faults by kind.
    pub faults: FaultCounters,
    /// Files delivered and compared.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Runs of commands; more than there are jobs where some had to be repeated.
    pub attempts: u64,
    /// From the last fault (or the last job's start) to the last job's end.
    pub recovery: Duration,
    /// What a script counted.
    pub script: Option<ScriptLog>,
    /// Syncs and writes of the host whose files had a script.
    pub file_operations: (u64, u64),
    /// The promise that was broken.
    pub violation: Option<Violation>,
}

/// Hosts and disks on one clock.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    now: Instant,
    chance: Chance,
    trace: Trace,
    site: Site,
    lanes: Vec<Lane>,
    files: Files,
    delivery: Delivery,
    happenings: BTreeMap<(Instant, u64), Happening>,
    next: u64,
    jobs_left: usize,
    attempts: u64,
    faults: FaultCounters,
    faults_end: Instant,
    are_faults_over: bool,
    was_set_back: bool,
    were_files_troubled: bool,
    /// What bells were before they were set back.
    old_bells: BTreeMap<u16, Box<Block>>,
}

impl World {
    /// The world of `plan`.
    ///
    /// # Errors
    /// If the scratch folder or the volume cannot be made.
    pub fn new(plan: Plan, trace: Trace) -> Result<Self, SiteError> {
        let mut chance = Chance::new(plan.seed).fork();
        let (files, expected) = Files::new(&plan)?;
        let (site, mut lanes) = Site::new(&plan, &trace)?;
        // The first editions drew a number for each disk here.
        for _ in &site.disks {
            let _ = chance.bits();
        }
        for (number, job) in plan.jobs.iter().enumerate() {
            let of_job = |lane: &&mut Lane| lane.host == job.requester && lane.record.lane == job.lane;
            lanes.iter_mut().find(of_job).expect("every job has a lane").jobs.push_back(number);
        }
        let mut world = Self {
            now: BEGIN,
            chance,
            trace,
            site,
            lanes,
            files,
            delivery: Delivery::new(expected),
            happenings: BTreeMap::new(),
            next: 0,
            jobs_left: plan.jobs.len(),
            attempts: 0,
            faults: FaultCounters::default(),
            faults_end: BEGIN + plan.fault_time,
            are_faults_over: false,
            was_set_back: false,
            were_files_troubled: plan.file_script.is_some(),
            old_bells: BTreeMap::new(),
            plan,
        };
        world.schedule_everything();
        Ok(world)
    }

    /// Runs to the end.
    #[must_use]
    pub fn run(mut self) -> Report {
        let violation = self.run_to_end().err();
        if let Some(violation) = &violation {
            self.trace.line(self.now, "checker", &violation.to_string());
        }
        for disk in &self.site.disks {
            self.faults.add(&disk.counters());
        }
        Report {
            seed: self.plan.seed,
            hash: self.trace.hash(),
            events: self.trace.events(),
            simulated: self.now.since(BEGIN),
            faults: self.faults,
            delivered: self.delivery.delivered,
            delivered_bytes: self.delivery.delivered_bytes,
            attempts: self.attempts,
            recovery: self.now.since(self.faults_end),
            script: self.site.script.as_ref().map(Scripted::log),
            file_operations: self
                .plan
                .file_script
                .map_or((0, 0), |script| self.files.host(script.host).operations()),
            violation,
        }
    }

    fn run_to_end(&mut self) -> Result<(), Violation> {
        let last_start = self.plan.jobs.iter().map(|job| job.start).max().unwrap_or_default();
        let limit = self.faults_end.max(BEGIN + last_start) + liveness::DONE_WITHIN;
        while self.jobs_left > 0 {
            if self.now > limit {
                return Err(self.unfinished());
            }
            self.step()?;
        }
        self.trace.line(self.now, "world", "all jobs are done");
        self.delivery.check(self.now)?;
        self.stop_faults();
        let limit = self.now + liveness::RETURNED_WITHIN;
        while self.now <= limit && !self.is_at_rest() {
            self.step()?;
        }
        for lane in &self.lanes {
            if let Some(life) = &lane.life {
                liveness::check_rest(self.now, &lane.name(), &life.process.node)?;
            }
        }
        self.delivery.check(self.now)
    }

    fn is_at_rest(&self) -> bool {
        self.lanes.iter().all(|lane| match &lane.life {
            Some(life) => lane.is_serving() && liveness::is_at_rest(&life.process.node),
            None => !lane.comes_back(),
        })
    }

    fn unfinished(&self) -> Violation {
        let job = self.lanes.iter().find_map(|lane| lane.jobs.front()).copied().unwrap_or(0);
        Violation::Unfinished { at: self.now, job, bound_s: liveness::DONE_WITHIN.as_secs() }
    }

    // ---- the loop -------------------------------------------------------------------------------

    fn step(&mut self) -> Result<(), Violation> {
        self.files.set_time(self.now);
        let happening = self.happenings.first_key_value().map(|((at, _), _)| *at);
        let lane =
            (0..self.lanes.len()).filter_map(|index| self.lanes[index].due().map(|due| (due, index))).min();
        match (happening, lane) {
            (Some(at), lane) if lane.is_none_or(|(due, _)| at <= due) => {
                let ((at, _), happening) = self.happenings.pop_first().expect("looked at above");
                self.now = self.now.max(at);
                self.happen(happening)
            }
            (_, Some((due, index))) => {
                self.now = self.now.max(due);
                self.run_lane(index)
            }
            (_, None) => Err(self.unfinished()),
        }
    }

    fn later(&mut self, at: Instant, happening: Happening) {
        self.next += 1;
        self.happenings.insert((at, self.next), happening);
    }

    fn schedule_everything(&mut self) {
        for lane in 0..self.lanes.len() {
            let first = self.lanes[lane].jobs.front().map(|job| self.plan.jobs[*job].start);
            let pause = if self.lanes[lane].is_serving() {
                Some(self.chance.duration(Duration::from_micros(1), Duration::from_secs(1)))
            } else {
                first
            };
            if let Some(pause) = pause {
                self.later(BEGIN + pause, Happening::Start { lane });
            }
        }
        let faults = self.plan.host_faults.clone();
        for _ in 0..faults.crashes {
            let whole = self.chance.below(faults.host_crash_in) == 0;
            self.sometime(if whole { Happening::CrashHost } else { Happening::CrashProcess });
        }
        (0..faults.stops).for_each(|_| self.sometime(Happening::StopProcess));
        (0..faults.pauses).for_each(|_| self.sometime(Happening::PauseProcess));
        (0..faults.hangs).for_each(|_| self.sometime(Happening::HangPath));
        (0..faults.path_failures).for_each(|_| self.sometime(Happening::FailPath));
        (0..faults.bell_floods).for_each(|_| self.sometime(Happening::FloodBell));
        (0..faults.bell_losses).for_each(|_| self.sometime(Happening::LoseBell));
        (0..faults.clock_jumps).for_each(|_| self.sometime(Happening::JumpClocks));
        (0..faults.sync_errors).for_each(|_| self.sometime(Happening::FailSync));
        (0..faults.full_disks).for_each(|_| self.sometime(Happening::FillDisk));
        (0..faults.snapshots).for_each(|_| self.sometime(Happening::TakeSnapshot));
        (0..faults.wipes).for_each(|_| self.sometime(Happening::WipeTable));
        self.later(self.faults_end, Happening::StopFaults);
    }

    /// Early moments are likelier: that is when most is under way.
    fn sometime(&mut self, happening: Happening) {
        let low = Duration::from_millis(20);
        let after = self.chance.duration(low, self.plan.fault_time.max(low));
        self.later(BEGIN + after, happening);
    }

    // ---- what happens to hosts ------------------------------------------------------------------

    fn happen(&mut self, happening: Happening) -> Result<(), Violation> {
        let now = self.now;
        match happening {
            Happening::Start { lane } => return self.start(lane),
            Happening::KillByScript { lane, life } => {
                if self.lanes[lane].lives == life {
                    self.crash(lane);
                }
                return self.delivery.check(now);
            }
            Happening::StopFaults => self.stop_faults(),
            Happening::Persisted { lane, life, state } => self.persisted(lane, life, state),
            _ if self.are_faults_over => {}
            Happening::CrashHost => {
                let host = self.chance.index(self.plan.hosts);
                if self.plan.power_losses && self.chance.below(4) != 0 {
                    self.trace.line(now, "world", &format!("the power of host{host} will fail"));
                    self.files.fail_power_soon(host, 60);
                    return Ok(());
                }
                return self.crash_host(host);
            }
            Happening::CrashProcess => {
                let lane = self.chance.index(self.lanes.len());
                self.crash(lane);
                return self.delivery.check(now);
            }
            Happening::StopProcess => {
                let lane = self.chance.index(self.lanes.len());
                self.stop(lane);
            }
            Happening::PauseProcess => {
                let lane = self.chance.index(self.lanes.len());
                let pause = self.chance.duration(Duration::from_millis(1), self.plan.host_faults.pause_most);
                let until = (now + pause).min(self.faults_end);
                self.lanes[lane].paused_until = until;
                self.faults.count(Fault::Pause);
                self.trace.line(now, "world", &format!("{} pauses until {until}", self.lanes[lane].name()));
            }
            Happening::HangPath | Happening::FailPath => {
                let host = self.chance.index(self.plan.hosts);
                let disk = self.chance.index(self.site.disks.len());
                let number = self.chance.index(self.plan.paths);
                let length = self.chance.duration(Duration::from_millis(10), self.plan.host_faults.path_most);
                let until = (now + length).min(self.faults_end);
                let path = &self.site.paths[host][disk][number];
                let hangs = matches!(happening, Happening::HangPath);
                if hangs {
                    path.hang_until(until);
                    self.faults.count(Fault::Hang);
                } else {
                    path.fail_until(until);
                    self.faults.count(Fault::PathFailure);
                }
                let what = if hangs { "hangs" } else { "fails" };
                let line = format!("path {number} of host{host} to disk {disk} {what} until {until}");
                self.trace.line(now, "world", &line);
            }
            Happening::JumpClocks => {
                let error = self.chance.duration(Duration::from_secs(1), Duration::from_secs(365 * 86_400));
                self.faults.count(Fault::ClockJump);
                self.trace.line(now, "world", &format!("the clocks are wrong by {error:?} now"));
                self.files.jump(error);
            }
            Happening::FailSync | Happening::FillDisk | Happening::EmptyDisk { .. } => {
                self.trouble_files(happening);
            }
            Happening::TakeSnapshot => self.take_snapshot(),
            Happening::GoOnFromSnapshot { lane } => self.go_on_from_snapshot(lane),
            Happening::FloodBell
            | Happening::FloodBellMore { .. }
            | Happening::LoseBell
            | Happening::WipeTable => self.damage(happening),
        }
        Ok(())
    }

    fn any_lane(&mut self) -> u16 {
        u16::try_from(self.chance.below(self.plan.lanes().into())).expect("few lanes")
    }

    fn stop_faults(&mut self) {
        if self.are_faults_over {
            return;
        }
        self.are_faults_over = true;
        self.trace.line(self.now, "world", "faults stop");
        self.faults_end = self.now;
        self.site.disks.iter().for_each(SharedDisk::stop_faults);
        self.site.disks.iter().for_each(SharedDisk::restore_guarded);
        for host in 0..self.plan.hosts {
            self.files.host(host).keep_power();
            self.files.host(host).lift_limit();
            self.files.host(host).fail_syncs(0);
        }
        self.site.paths.iter().flatten().flatten().for_each(crate::disk::PathControl::heal);
        for lane in &mut self.lanes {
            lane.paused_until = lane.paused_until.min(self.now);
            // Somebody has found the second instance and switched it off.
            lane.life.take_if(|_| lane.is_clone);
        }
    }

    fn crash_host(&mut self, host: usize) -> Result<(), Violation> {
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].host == host {
                self.crash(lane);
            }
        }
        if !self.plan.power_losses {
            return self.delivery.check(self.now);
        }
        self.faults.count(Fault::PowerLoss);
        self.trace.line(self.now, "world", &format!("host{host} has lost its power"));
        let had_record = self.files.has_record(host);
        self.files.lose_power(host);
        if had_record && !self.files.has_record(host) {
            self.forgotten(host);
        }
        self.delivery.power_lost(self.now, host)
    }

    /// A host remembers nothing of the job that one of its commands has at hand.
    fn forgotten(&mut self, host: usize) {
        let jobs = self.lanes.iter().filter(|lane| lane.host == host).filter_map(|lane| lane.jobs.front());
        for job in jobs {
            self.delivery.requester_gone(*job, self.were_files_troubled || self.was_set_back);
        }
    }

    fn crash(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        let Some(life) = lane.life.take() else { return };
        lane.paused_until = Instant::ZERO;
        if let Some(job) = life.job.filter(|_| !self.files.has_record(lane.host)) {
            self.delivery.requester_gone(job, self.were_files_troubled || self.was_set_back);
        }
        drop(life);
        self.faults.count(Fault::Crash);
        let name = self.lanes[index].name();
        self.trace.line(self.now, "world", &format!("{name} is killed"));
        if self.lanes[index].comes_back() {
            self.start_later(index, self.plan.host_faults.restart_most);
        }
    }

    /// As by Ctrl-C: a serving process leaves; a command ends its job first.
    fn stop(&mut self, index: usize) {
        let now = self.now;
        let Some(mut life) = self.lanes[index].life.take() else { return };
        self.faults.count(Fault::Stop);
        self.trace.line(now, "world", &format!("{} is told to stop", life.process.name));
        match life.stage {
            Stage::Working(connection) => {
                life.process.tell(|node| node.interrupt(now, connection));
                life.process.wake(now);
            }
            Stage::Serving | Stage::Starting { .. } | Stage::Calling(_) => self.leave(&mut life),
            Stage::Closing { .. } | Stage::Leaving { .. } | Stage::Gone => {}
        }
        self.lanes[index].life = Some(life);
    }

    fn start_later(&mut self, lane: usize, most: Duration) {
        let least = Duration::from_millis(50);
        let pause = self.chance.duration(least, most.max(least));
        self.later(self.now + pause, Happening::Start { lane });
    }

    fn start(&mut self, index: usize) -> Result<(), Violation> {
        let now = self.now;
        let lane = &mut self.lanes[index];
        let job = lane.jobs.front().copied();
        if lane.life.is_some() || (!lane.is_serving() && job.is_none()) {
            return Ok(());
        }
        let serving = match lane.is_serving().then(|| self.files.serving(lane.host)).transpose() {
            Ok(serving) => serving,
            Err(_) if !self.files.host(lane.host).has_power() => {
                let host = lane.host;
                self.start_later(index, self.plan.host_faults.restart_most);
                return self.crash_host(host);
            }
            Err(_) if self.were_files_troubled => {
                self.files.host(lane.host).lift_limit();
                self.start_later(index, Duration::from_secs(10));
                return Ok(());
            }
            Err(error) => return Err(Violation::Scratch(error.to_string())),
        };
        if let Some(script) = self.plan.file_script.filter(|_| self.attempts > 0) {
            // Somebody has made room.
            self.files.host(script.host).lift_limit();
        }
        let lane = &mut self.lanes[index];
        lane.lives += 1;
        let Some(process) = self.site.start(&self.plan, lane, &mut self.chance, now) else {
            self.start_later(index, Duration::from_secs(10));
            return Ok(());
        };
        let job = job.filter(|_| serving.is_none());
        self.trace.line(now, &process.name, &format!("starts, life {}, job {job:?}", lane.lives));
        self.attempts += u64::from(job.is_some());
        let stage = Stage::Starting { limit: now + START_MAX };
        lane.life = Some(Life { process, stage, serving, job });
        Ok(())
    }

    fn persisted(&mut self, index: usize, life: u64, state: LocalState) {
        let lane = &mut self.lanes[index];
        if lane.lives != life {
            return;
        }
        // It was written before the process died, or not at all: the order of the two was drawn.
        lane.local = state;
        if let Some(life) = &mut lane.life {
            let now = self.now;
            life.process.tell(|node| node.handle_persisted(now));
            life.process.wake(self.now);
        }
    }

    // ---- processes ------------------------------------------------------------------------------

    fn run_lane(&mut self, index: usize) -> Result<(), Violation> {
        let now = self.now;
        let Some(mut life) = self.lanes[index].life.take() else { return Ok(()) };
        let published = life.process.turn(now);
        if self.obey_script(index) {
            return self.killed_by_script(index, life);
        }
        while let Some(event) = life.process.poll_event() {
            self.handle(index, &mut life, event)?;
        }
        life.process.finish_turn(now);
        if self.obey_script(index) {
            return self.killed_by_script(index, life);
        }
        if published {
            self.delivery.check(now)?;
        }
        let host = self.lanes[index].host;
        if !self.files.host(host).has_power() {
            self.lanes[index].life = Some(life);
            return self.crash_host(host);
        }
        liveness::check_turns(now, &life.process.name, life.process.turns_in_second())?;
        match life.stage {
            Stage::Starting { limit } if now >= limit => life.stage = Stage::Gone,
            Stage::Closing { limit, .. } if now >= limit => self.leave(&mut life),
            Stage::Leaving { limit } if now >= limit || life.process.node.is_idle() => {
                life.stage = Stage::Gone;
            }
            _ => {}
        }
        if life.stage == Stage::Gone {
            self.trace.line(now, &life.process.name, "is gone");
            if let Some(script) = self.site.script.as_ref().filter(|_| life.serving.is_none()) {
                script.note(|log| log.gone.push(now));
            }
            drop(life);
            if self.lanes[index].comes_back() {
                self.start_later(index, Duration::from_secs(5));
            }
        } else {
            self.lanes[index].life = Some(life);
        }
        Ok(())
    }

    /// What the script orders for the process whose turn it is; `true` if that is dead now.
    fn obey_script(&mut self, index: usize) -> bool {
        match self.site.script.as_ref().and_then(Scripted::take_order) {
            Some(Order::Kill(at)) if at > self.now => {
                let life = self.lanes[index].lives;
                self.later(at, Happening::KillByScript { lane: index, life });
            }
            Some(Order::Kill(_)) => return true,
            Some(Order::Pause(length)) => self.lanes[index].paused_until = self.now + length,
            None => {}
        }
        false
    }

    fn killed_by_script(&mut self, index: usize, life: Life) -> Result<(), Violation> {
        self.lanes[index].life = Some(life);
        self.crash(index);
        self.delivery.check(self.now)
    }

    fn handle(&mut self, index: usize, life: &mut Life, event: NodeEvent) -> Result<(), Violation> {
        let now = self.now;
        match event {
            NodeEvent::Persist(state) => {
                let pause = self.chance.duration(Duration::from_micros(50), Duration::from_millis(50));
                let number = self.lanes[index].lives;
                self.later(now + pause, Happening::Persisted { lane: index, life: number, state });
            }
            NodeEvent::Started => {
                let lane = &self.lanes[index];
                let is_of = |script: &&Scripted| script.is_of(lane.host, lane.record.lane);
                if let Some(script) = self.site.script.as_ref().filter(is_of) {
                    script.note(|log| log.started.push(now));
                }
                self.started(life);
            }
            NodeEvent::Stopped(failure) => {
                self.trace.line(now, &life.process.name, &format!("stopped: {failure:?}"));
                life.stage = Stage::Gone;
            }
            NodeEvent::Connected { connection, peer, segment_bytes, .. } => {
                self.trace.line(now, &life.process.name, &format!("{connection:?} to {peer} stands"));
                if life.serving.is_some() {
                    self.attach_store(life, connection, segment_bytes);
                } else if life.job.is_some() {
                    life.stage = Stage::Working(connection);
                    if self.jobs_left < self.plan.jobs.len() {
                        self.site.disks.iter().for_each(|disk| disk.land_kept(now));
                    }
                }
            }
            NodeEvent::Closed { connection, reason } => {
                self.trace.line(now, &life.process.name, &format!("{connection:?} closed: {reason:?}"));
                if matches!(life.stage, Stage::Calling(_) | Stage::Closing { .. }) {
                    self.leave(life);
                }
            }
            NodeEvent::SessionEnded { connection } => life.process.detach_store(connection),
            NodeEvent::Session { event: SessionEvent::Finished(outcome), connection } => {
                if let (Some(job), Stage::Working(_)) = (life.job, life.stage) {
                    self.judge(index, job, &life.process.name, &outcome)?;
                    life.process.tell(|node| node.close(now, connection));
                    life.stage = Stage::Closing { connection, limit: now + CLOSE_MAX };
                }
            }
            NodeEvent::Session { event, connection } => {
                if let (SessionEvent::FileDone { path }, Some(job)) = (&event, life.job) {
                    self.delivery.check_said(now, job, path)?;
                }
                self.trace.numbers(now, &life.process.name, &[5, connection.0], || {
                    format!("{connection:?}: {event:?}")
                });
            }
            NodeEvent::Notice(text) => self.trace.line(now, &life.process.name, &text),
        }
        Ok(())
    }

    /// Gives a connection of a serving process its files.
    fn attach_store(&self, life: &mut Life, connection: ConnectionId, segment_bytes: usize) {
        let Some(serving) = &life.serving else { return };
        let pool = life.process.pool.clone();
        let store = LocalFiles::serving(pool, segment_bytes, Arc::clone(serving));
        life.process.attach_store(connection, Arc::new(store));
    }

    fn started(&mut self, life: &mut Life) {
        self.trace.line(self.now, &life.process.name, "has started");
        if !matches!(life.stage, Stage::Starting { .. }) {
            return;
        }
        let Some(number) = life.job else {
            life.stage = Stage::Serving;
            return;
        };
        let plan = &self.plan.jobs[number];
        let peer = crate::files::host_name(plan.responder);
        let job = self.files.job(number, plan);
        let now = self.now;
        match life.process.tell(|node| node.request(now, &peer, job.clone())) {
            Ok(connection) => {
                let segment_bytes = usize::try_from(self.plan.segment_bytes).expect("16 KiB");
                let output = self.delivery.output(number);
                let store = self.files.command((number, plan), output, &life.process.pool, segment_bytes);
                life.process.attach_store(connection, Arc::new(store));
                life.stage = Stage::Calling(connection);
            }
            Err(error) => {
                self.trace.line(self.now, &life.process.name, &format!("cannot call: {error}"));
                self.leave(life);
            }
        }
    }

    fn leave(&self, life: &mut Life) {
        let now = self.now;
        life.process.tell(|node| node.shut_down(now));
        life.stage = Stage::Leaving { limit: self.now + FAREWELL_MAX };
        life.process.wake(self.now);
    }

    fn judge(&mut self, index: usize, job: usize, name: &str, outcome: &Outcome) -> Result<(), Violation> {
        let now = self.now;
        self.trace.line(now, name, &format!("job {job} ended: {outcome:?}"));
        match outcome.verdict {
            Verdict::Done => {
                self.delivery.check_done(now, job)?;
                self.lanes[index].jobs.pop_front();
                self.jobs_left -= 1;
                if let Some(script) = &self.site.script {
                    script.note(|log| log.done.push(now));
                }
                Ok(())
            }
            Verdict::InDoubt | Verdict::Retry => self.delivery.check(now),
            // The files of a process that was set back are not those of its memory; a full disk is told.
            Verdict::Failed | Verdict::Partly if self.was_set_back || self.were_files_troubled => {
                self.delivery.repeat(job);
                self.delivery.check(now)
            }
            Verdict::Failed | Verdict::Partly => {
                Err(Violation::Failed { at: now, job, outcome: format!("{outcome:?}") })
            }
        }
    }
}
