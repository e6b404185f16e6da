//! What one seed does: its hosts, its devices, its faults, its jobs.
//!
//! A swarm: every seed leaves most kinds of faults out and has more of the others, so that combinations
//! come up that no uniform mix would reach. When the swarm learns something new it gets a new [`Edition`],
//! so that a seed noted under an older one stays the run that it was. Not here: when exactly a thing happens (`world`, `disk`).

use std::time::Duration;

use transfer_core::protocol::discovery::BELL_WARM;

use crate::chance::Chance;
use crate::file_system::IgnoredSync;
use crate::script::{FileScript, Script};

/// A state of the swarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edition {
    /// Crashes, pauses, paths, faults of requests.
    First,
    /// Processes are also stopped in order; faults of requests are more frequent.
    Second,
    /// Smaller jobs on more hosts, and every kind of fault; a host that crashes loses what was not synced.
    Third,
    /// One job of four is a stream: from a command's standard input, or to its standard output.
    Fourth,
}

impl Edition {
    /// The one that new seeds run under.
    pub const LATEST: Self = Self::Fourth;
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
    /// A write lands once more, later.
    pub late: u32,
    /// How much later, at most.
    pub late_most: Duration,
    /// A write is acknowledged and not done.
    pub lost: u32,
    /// Writes may land after younger ones: the medium keeps count.
    pub may_overtake: bool,
    /// A read gets the bytes of another place.
    pub misdirected_read: u32,
    /// A write lands in another place.
    pub misdirected_write: u32,
    /// A request takes longer.
    pub slow: u32,
    /// How much longer, at most.
    pub slow_most: Duration,
    /// A read sees what was there before the last write.
    pub stale: u32,
    /// A part of a write lands.
    pub torn: u32,
}

impl DiskFaults {
    /// The same disk in good health.
    #[must_use]
    pub fn stopped(&self) -> Self {
        Self {
            error: 0,
            flipped: 0,
            late: 0,
            lost: 0,
            misdirected_read: 0,
            misdirected_write: 0,
            slow: 0,
            stale: 0,
            torn: 0,
            ..self.clone()
        }
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
    /// The one file comes from the requester's standard input, or goes to its standard output.
    pub stream: bool,
    /// Length of each file.
    pub sizes: Vec<u64>,
    /// When it starts.
    pub start: Duration,
}

/// How often things happen to hosts.
#[derive(Clone, Debug, Default)]
pub struct HostFaults {
    /// Times that a bell is flooded for a while.
    pub bell_floods: u64,
    /// Times that a bell is set back or cleared.
    pub bell_losses: u64,
    /// Jumps of the clocks.
    pub clock_jumps: u64,
    /// Processes or hosts killed.
    pub crashes: u64,
    /// One crash of so many is that of a whole host.
    pub host_crash_in: u64,
    /// Paths that fail for a while.
    pub path_failures: u64,
    /// Paths that hang for a while.
    pub hangs: u64,
    /// Longest time that a path hangs or fails.
    pub path_most: Duration,
    /// Processes paused.
    pub pauses: u64,
    /// Longest pause.
    pub pause_most: Duration,
    /// Longest time until a process that was killed is started again.
    pub restart_most: Duration,
    /// Snapshots of serving processes, each gone on from later, in the process's place or beside it.
    pub snapshots: u64,
    /// Users who stop a command, or end a serving process in order.
    pub stops: u64,
    /// Syncs of file systems that fail.
    pub sync_errors: u64,
    /// File systems without room for a while.
    pub full_disks: u64,
    /// Tables and records overwritten.
    pub wipes: u64,
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
    /// How often serving hosts look at their bells while they are in use.
    pub bell_pause: Duration,
    /// The key exchange is the real one.
    pub real_keys: bool,
    /// How disks behave.
    pub faults: DiskFaults,
    /// When faults stop.
    pub fault_time: Duration,
    /// What happens to hosts.
    pub host_faults: HostFaults,
    /// A host that crashes loses what was not synced.
    pub power_losses: bool,
    /// Syncs that all hosts ignore: for runs that must be found out.
    pub ignored_syncs: Option<IgnoredSync>,
    /// A fault at one chosen request; none in a swarm.
    pub script: Option<Script>,
    /// A fault at one chosen operation on files; none in a swarm.
    pub file_script: Option<FileScript>,
    /// The jobs.
    pub jobs: Vec<JobPlan>,
}

impl Plan {
    /// The plan of `seed`.
    #[must_use]
    pub fn of_seed(edition: Edition, seed: u64) -> Self {
        if edition < Edition::Third {
            return Self::early(edition, seed);
        }
        let mut plan = Self::swarm(seed);
        if edition >= Edition::Fourth {
            // Its own numbers: all else stays the run that it was.
            let mut chance = Chance::new(seed ^ 0x057e_a312);
            for job in &mut plan.jobs {
                if chance.below(4) == 0 {
                    (job.stream, job.recursive) = (true, false);
                    job.sizes.truncate(1);
                }
            }
        }
        plan
    }

    fn swarm(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        // Three runs of four are short: most of what can go wrong goes wrong soon, and they cost a third.
        let short = chance.below(4) > 0;
        let hosts = match chance.below(64) {
            _ if short => 2,
            0 => 5 + chance.index(4),
            1..8 => 3,
            8..10 => 4,
            _ => 2,
        };
        let command_lanes = if chance.below(8) == 0 { 2 } else { 1 };
        let quiet = chance.below(16) == 0;
        let fault_time = match chance.below(64) {
            _ if quiet => Duration::ZERO,
            _ if short => chance.duration(Duration::from_millis(50), Duration::from_secs(3)),
            0 => Duration::from_secs(chance.range(150, 3600)),
            1..6 => Duration::from_secs(chance.range(20, 150)),
            _ => chance.duration(Duration::from_millis(300), Duration::from_secs(20)),
        };
        let host_faults = host_faults(&mut chance, quiet, short);
        let faults = swarm_disk_faults(&mut chance, quiet, short);
        let jobs = match chance.below(8) {
            1.. if short => 1,
            0 if short => 2,
            0 => chance.range(3, 5),
            1..4 => 2,
            _ => 1,
        };
        Self {
            seed,
            hosts,
            command_lanes,
            paths: *chance.pick(&[1, 1, 1, 1, 2, 2, 2, 3]),
            secondaries: u16::try_from(chance.below(4)).expect("below 4"),
            segments_per_lane: *chance.pick(&[4, 6, 10, 20]),
            window: *chance.pick(&[2, 4, 8, 16, 32, 57]),
            segment_bytes: 16 << 10,
            bell_pause: Duration::from_millis(*chance.pick(&[20, 200, 500, 500])),
            real_keys: chance.below(50) == 0,
            faults,
            fault_time,
            host_faults,
            power_losses: true,
            ignored_syncs: None,
            script: None,
            file_script: None,
            jobs: (0..jobs).map(|_| small_job(&mut chance, hosts, command_lanes)).collect(),
        }
    }

    fn early(edition: Edition, seed: u64) -> Self {
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
        let host_faults = HostFaults {
            crashes,
            host_crash_in: 4,
            stops,
            pauses: count(&mut chance, 4),
            pause_most: Duration::from_secs(90),
            restart_most: Duration::from_secs(40),
            hangs: count(&mut chance, 3),
            path_failures: count(&mut chance, 3),
            path_most: Duration::from_secs(150),
            ..HostFaults::default()
        };
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
            bell_pause: BELL_WARM,
            real_keys: true,
            faults,
            fault_time,
            host_faults,
            power_losses: false,
            ignored_syncs: None,
            script: None,
            file_script: None,
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
        let faults = &mut plan.host_faults;
        (faults.pauses, faults.hangs, faults.path_failures, plan.paths) = (0, 0, 0, 1);
        (faults.crashes, faults.host_crash_in) = (chance.range(4, 24), 1);
        plan.fault_time = Duration::from_secs(chance.range(5, 60));
        let latency = plan.faults.latency_low;
        plan.faults.latency_high = plan.faults.latency_high.min(2 * latency);
        plan
    }

    /// Two hosts and disks that are well, for a fault that somebody else chooses: a job of three files, and
    /// one more file in the next process of the same lane.
    #[must_use]
    pub fn of_three_files(is_pull: bool, paths: usize) -> Self {
        let job = |sizes: Vec<u64>| JobPlan {
            requester: 0,
            responder: 1,
            lane: 1,
            pull: is_pull,
            recursive: false,
            stream: false,
            sizes,
            start: Duration::from_millis(1100),
        };
        let jobs = vec![job(vec![0, 3000, 5 * (16 << 10) + 77]), job(vec![20_000])];
        let mut plan = Self::of_seed(Edition::Third, 1);
        plan.faults = DiskFaults {
            latency_low: Duration::from_micros(400),
            latency_high: Duration::from_micros(800),
            may_overtake: true,
            ..plan.faults.stopped()
        };
        (plan.hosts, plan.command_lanes, plan.paths, plan.secondaries) = (2, 1, paths, 1);
        (plan.segments_per_lane, plan.window, plan.bell_pause) = (8, 8, Duration::from_millis(500));
        (plan.real_keys, plan.power_losses, plan.fault_time) = (false, false, Duration::ZERO);
        (plan.host_faults, plan.jobs) = (HostFaults::default(), jobs);
        plan
    }

    /// Lanes of the whole volume.
    #[must_use]
    pub fn lanes(&self) -> u16 {
        u16::try_from(self.hosts).expect("few hosts") * (1 + self.command_lanes)
    }
}

/// Of each kind none at all in most runs, so that the others are seen alone.
fn host_faults(chance: &mut Chance, quiet: bool, short: bool) -> HostFaults {
    let longest = |chance: &mut Chance, others: &[u64]| {
        Duration::from_secs(if short { chance.range(1, 2) } else { *chance.pick(others) })
    };
    let pause_most = longest(chance, &[1, 90, 90, 3600]);
    let path_most = longest(chance, &[1, 150, 150, 3600]);
    let restart_most = longest(chance, &[1, 5, 40]);
    let mut count = |one_in: u64, most: u64| {
        if quiet || chance.below(one_in) > 0 { 0 } else { chance.range(1, most) }
    };
    HostFaults {
        bell_floods: count(16, 2),
        bell_losses: count(8, 4),
        crashes: count(2, 5),
        host_crash_in: 2,
        path_failures: count(4, 3),
        hangs: count(4, 3),
        stops: count(4, 3),
        wipes: count(8, 4),
        snapshots: count(16, 3),
        sync_errors: count(16, 2),
        full_disks: count(16, 2),
        clock_jumps: count(16, 3),
        pauses: count(3, 4),
        pause_most,
        path_most,
        restart_most,
    }
}

fn swarm_disk_faults(chance: &mut Chance, quiet: bool, short: bool) -> DiskFaults {
    let low = *chance.pick(&[50, 100, 1000]);
    let high = low * *chance.pick(&[2, 10, 50]);
    let mut rate = |most: u64| {
        if quiet || chance.below(3) > 0 {
            0
        } else {
            u32::try_from(chance.range(most / 40, most)).expect("small")
        }
    };
    let mut faults = DiskFaults {
        latency_low: Duration::from_micros(low),
        latency_high: Duration::from_micros(high),
        error: rate(20_000),
        flipped: rate(20_000),
        late: rate(50_000),
        lost: rate(30_000),
        misdirected_read: rate(20_000),
        misdirected_write: rate(10_000),
        slow: rate(3_000),
        stale: rate(50_000),
        torn: rate(30_000),
        late_most: Duration::ZERO,
        slow_most: Duration::ZERO,
        may_overtake: true,
    };
    if short {
        (faults.late_most, faults.slow_most) = (Duration::from_secs(5), Duration::from_secs(1));
    } else {
        faults.late_most = Duration::from_secs(*chance.pick(&[1, 90, 90, 600]));
        faults.slow_most = Duration::from_secs(*chance.pick(&[1, 60, 60, 300]));
    }
    faults
}

fn small_job(chance: &mut Chance, hosts: usize, command_lanes: u16) -> JobPlan {
    let files = |chance: &mut Chance| *chance.pick(&[1, 1, 1, 1, 2, 3, 6]);
    job_of(chance, hosts, command_lanes, files, small_size, Duration::from_millis(800))
}

/// The draws of a job, in the order that every edition has them.
fn job_of(
    chance: &mut Chance,
    hosts: usize,
    command_lanes: u16,
    files: impl FnOnce(&mut Chance) -> u64,
    size: fn(&mut Chance) -> u64,
    start_most: Duration,
) -> JobPlan {
    let requester = chance.index(hosts);
    let responder = (requester + 1 + chance.index(hosts - 1)) % hosts;
    let files = files(chance);
    JobPlan {
        requester,
        responder,
        lane: u16::try_from(chance.range(1, command_lanes.into())).expect("few lanes"),
        pull: chance.below(2) == 0,
        recursive: chance.below(4) == 0,
        stream: false,
        sizes: (0..files).map(|_| size(chance)).collect(),
        start: chance.duration(Duration::from_millis(1), start_most),
    }
}

fn small_size(chance: &mut Chance) -> u64 {
    match chance.below(16) {
        0 => 0,
        1 => 1,
        2..7 => chance.below(8 << 10),
        7..9 => (16 << 10) * chance.range(1, 3) + chance.below(3) - 1,
        9..12 => chance.below(20 << 10),
        12..14 => chance.below(64 << 10),
        14 => chance.below(150 << 10),
        _ if chance.below(16) == 0 => chance.below(1 << 20),
        _ => chance.below(20 << 10),
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
        misdirected_read: 0,
        misdirected_write: 0,
        late_most: Duration::from_secs(90),
        slow_most: Duration::from_secs(60),
        may_overtake: true,
    }
}

fn job(chance: &mut Chance, hosts: usize, command_lanes: u16) -> JobPlan {
    job_of(chance, hosts, command_lanes, |chance| chance.range(1, 5), file_size, Duration::from_secs(10))
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
