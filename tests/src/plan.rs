//! What one seed does: its hosts, its devices, its faults, its jobs.
//!
//! A swarm: every seed leaves most kinds of faults out and has more of the others, so that combinations
//! come up that no uniform mix would reach. When the swarm learns something new it gets a new [`Edition`],
//! so that a seed noted under an older one stays the run that it was. Not here: when exactly a thing happens (`world`, `disk`).

use std::time::Duration;

use crate::chance::Chance;
use crate::file_system::IgnoredSync;

/// A state of the swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edition {
    /// Crashes, pauses, paths, faults of requests.
    First,
    /// Processes are also stopped in order; faults of requests are more frequent.
    Second,
    /// Every other crash is one of a whole host, and loses what was not synced.
    Third,
}

impl Edition {
    /// The one that new seeds run under.
    pub const LATEST: Self = Self::Third;
}

/// How disks behave; probabilities in millionths per request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFaults {
    /// Shortest service time.
    pub latency_low: Duration,
    /// Longest service time of a request that meets no fault.
    pub latency_high: Duration,
    /// EIO.
    pub error: u32,
    /// One bit of a read is wrong.
    pub flipped: u32,
    /// A write lands once more, up to 90 s later.
    pub late: u32,
    /// A write is acknowledged and not done.
    pub lost: u32,
    /// A request takes up to a minute longer.
    pub slow: u32,
    /// A read sees what was there before the last write.
    pub stale: u32,
    /// A part of a write lands.
    pub torn: u32,
}

impl DiskFaults {
    /// The same disk in good health.
    #[must_use]
    pub fn stopped(&self) -> Self {
        Self { error: 0, flipped: 0, late: 0, lost: 0, slow: 0, stale: 0, torn: 0, ..self.clone() }
    }
}

/// One job: files from one host to another.
#[derive(Clone, Debug)]
pub struct JobPlan {
    /// Who asks.
    pub requester: usize,
    /// Who answers.
    pub responder: usize,
    /// Which of the requester's command lanes runs it, from 1.
    pub lane: u16,
    /// The requester receives.
    pub pull: bool,
    /// The files lie in a folder that is sent whole.
    pub recursive: bool,
    /// Length of each file.
    pub sizes: Vec<u64>,
    /// When it starts.
    pub start: Duration,
}

/// Everything about a run that is decided before it starts.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Hosts.
    pub hosts: usize,
    /// Command lanes of each host, beside the serving one.
    pub command_lanes: u16,
    /// Paths from each host to each disk; more than one are joined by a multipath device.
    pub paths: usize,
    /// Disks beside the master.
    pub secondaries: u16,
    /// Segments of each lane, about.
    pub segments_per_lane: u64,
    /// Window of each connection.
    pub window: u16,
    /// Payload of a segment.
    pub segment_bytes: u32,
    /// How disks behave.
    pub faults: DiskFaults,
    /// When faults stop.
    pub fault_time: Duration,
    /// Processes killed.
    pub crashes: u64,
    /// One crash of so many is that of a whole host.
    pub host_crash_in: u64,
    /// A host that crashes loses what was not synced.
    pub power_losses: bool,
    /// Syncs that all hosts ignore: for runs that must be found out.
    pub ignored_syncs: Option<IgnoredSync>,
    /// Users who stop a command, or end a serving process in order.
    pub stops: u64,
    /// Processes paused.
    pub pauses: u64,
    /// Paths that hang for a while.
    pub hangs: u64,
    /// Paths that fail for a while.
    pub path_failures: u64,
    /// The jobs.
    pub jobs: Vec<JobPlan>,
}

impl Plan {
    /// The plan of `seed`.
    #[must_use]
    pub fn of_seed(edition: Edition, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let hosts = if chance.below(4) == 0 { 3 } else { 2 };
        let command_lanes = if chance.below(4) == 0 { 2 } else { 1 };
        let quiet = chance.below(8) == 0;
        let fault_time = Duration::from_secs(if quiet { 0 } else { chance.range(5, 150) });
        let count = |chance: &mut Chance, most: u64| {
            if quiet || chance.below(2) == 0 { 0 } else { chance.range(1, most) }
        };
        let crashes = count(&mut chance, 6);
        let stops = if edition >= Edition::Second { count(&mut chance, 3) } else { 0 };
        let pauses = count(&mut chance, 4);
        let hangs = count(&mut chance, 3);
        let path_failures = count(&mut chance, 3);
        let faults = disk_faults(edition, &mut chance, quiet);
        let jobs = (0..chance.range(1, 4)).map(|_| job(&mut chance, hosts, command_lanes)).collect();
        Self {
            seed,
            hosts,
            command_lanes,
            paths: if chance.below(3) == 0 { 2 } else { 1 },
            secondaries: u16::try_from(chance.below(3)).expect("below 3"),
            segments_per_lane: *chance.pick(&[4, 6, 10, 20, 40]),
            window: *chance.pick(&[2, 4, 8, 16, 32]),
            segment_bytes: 16 << 10,
            faults,
            fault_time,
            crashes,
            host_crash_in: if edition >= Edition::Third { 2 } else { 4 },
            power_losses: edition >= Edition::Third,
            ignored_syncs: None,
            stops,
            pauses,
            hangs,
            path_failures,
            jobs,
        }
    }

    /// The plan of `seed` with calm disks and hosts that lose their power again and again: all its faults are
    /// those of file systems.
    #[must_use]
    pub fn of_power_losses(seed: u64) -> Self {
        let mut plan = Self::of_seed(Edition::Third, seed);
        let mut chance = Chance::new(seed ^ 0x90e4);
        plan.faults = plan.faults.stopped();
        (plan.pauses, plan.hangs, plan.path_failures, plan.paths) = (0, 0, 0, 1);
        (plan.crashes, plan.host_crash_in) = (chance.range(4, 24), 1);
        plan.fault_time = Duration::from_secs(chance.range(5, 60));
        let latency = plan.faults.latency_low;
        plan.faults.latency_high = plan.faults.latency_high.min(2 * latency);
        plan
    }

    /// Lanes of the whole volume.
    #[must_use]
    pub fn lanes(&self) -> u16 {
        u16::try_from(self.hosts).expect("few hosts") * (1 + self.command_lanes)
    }
}

fn disk_faults(edition: Edition, chance: &mut Chance, quiet: bool) -> DiskFaults {
    let low = *chance.pick(&[50, 100, 1000]);
    let high = low * *chance.pick(&[2, 10, 50]);
    let mut rate = |first: u64, second: u64| {
        let is_first = edition == Edition::First;
        let hit = !quiet && if is_first { chance.below(3) == 0 } else { chance.below(5) < 2 };
        let most = if is_first { first } else { second };
        let least = if is_first { 100 } else { most / 40 };
        let rate = chance.duration(Duration::from_nanos(least), Duration::from_nanos(most));
        if hit { u32::try_from(rate.as_nanos()).expect("a small rate") } else { 0 }
    };
    DiskFaults {
        latency_low: Duration::from_micros(low),
        latency_high: Duration::from_micros(high),
        error: rate(20_000, 20_000),
        flipped: rate(10_000, 20_000),
        late: rate(50_000, 50_000),
        lost: rate(20_000, 30_000),
        slow: rate(2_000, 2_000),
        stale: rate(50_000, 50_000),
        torn: rate(20_000, 30_000),
    }
}

fn job(chance: &mut Chance, hosts: usize, command_lanes: u16) -> JobPlan {
    let requester = chance.index(hosts);
    let responder = (requester + 1 + chance.index(hosts - 1)) % hosts;
    let files = chance.range(1, 5);
    JobPlan {
        requester,
        responder,
        lane: u16::try_from(chance.range(1, command_lanes.into())).expect("few lanes"),
        pull: chance.below(2) == 0,
        recursive: chance.below(4) == 0,
        sizes: (0..files).map(|_| file_size(chance)).collect(),
        start: chance.duration(Duration::from_millis(1), Duration::from_secs(10)),
    }
}

fn file_size(chance: &mut Chance) -> u64 {
    match chance.below(12) {
        0 => 0,
        1 => 1,
        2..6 => chance.below(16 << 10),
        6 => (16 << 10) * chance.range(1, 4) + chance.below(3) - 1,
        7..10 => chance.below(200 << 10),
        10 => chance.below(1 << 20),
        _ if chance.below(4) == 0 => chance.below(4 << 20),
        _ => chance.below(40 << 10),
    }
}
