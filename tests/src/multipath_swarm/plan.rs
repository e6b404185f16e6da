//! What one seed does: the storage system, the device over it, the load, the operator, and the faults.
//!
//! Keeps true: the same seed and mode give the same plan; in [`Mode::Sound`] the quiesce time of every path is above the
//! latest landing that the schedule allows, so that everything that the layer promises is promised. Not here: the run
//! (`world`), the drawing of faults (`schedule`).

use std::collections::BTreeMap;
use std::time::Duration;

use multipath::flap_damping::FlapDampingConfig;
use multipath::hedge::HedgeConfig;
use multipath::retry_budget::RetryBudgetConfig;
use multipath::selector::{SelectorKind, Weights};
use multipath::slow_path::SlowPathConfig;
use multipath::{Failback, FailoverConfig, NoPathPolicy, PathConfig};
use storage_mapping::device::storage_system::{
    AccessState, Action, Condition, LinkChange, PathName, Rare, Schedule, Scheduled,
};

use super::schedule::{Site, draw};
use crate::chance::Chance;

/// What a run is to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Every promise is kept.
    #[default]
    Sound,
    /// The quiesce time is shorter than late writes take: old copies land on newer data, and the judge must see it.
    ShortQuiesce,
    /// Every write asks for [`FencePolicy::Unsafe`](storage_mapping::FencePolicy::Unsafe) and is judged as if it had
    /// asked for the fence: the judge must see it.
    UnsafeAsFenced,
}

/// What an operator does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    FailPath(usize),
    ReinstatePath(usize),
    SwitchGroup(u16),
    Selector(SelectorKind),
}

/// How likely requests are what, in a million.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mix {
    pub(super) writes: u32,
    pub(super) flushes: u32,
    pub(super) named: u32,
    pub(super) deadlines: u32,
    pub(super) cancels: u32,
    pub(super) hedges: u32,
    /// Of the blocks of a region, how many are hot, and how often they are taken.
    pub(super) hot: u64,
    pub(super) hot_share: u32,
}

/// One run.
#[derive(Debug)]
pub struct Plan {
    /// Where it comes from.
    pub seed: u64,
    /// What it is to show.
    pub mode: Mode,
    pub(super) chance: Chance,
    pub(super) paths: Vec<PathName>,
    pub(super) path_configs: Vec<PathConfig>,
    /// Requests that each path takes at once.
    pub(super) depths: Vec<usize>,
    /// From when until when a path takes nothing.
    pub(super) closed: Vec<Option<(Duration, Duration)>>,
    pub(super) ports: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) group_of_port: Vec<usize>,
    pub(super) disks: usize,
    pub(super) disk_parallel: u32,
    pub(super) disk_latency: Duration,
    /// Blocks of each of the five regions.
    pub(super) region_blocks: u64,
    pub(super) stripe_blocks: Option<u64>,
    pub(super) selector: SelectorKind,
    pub(super) config: FailoverConfig,
    /// A path to which nothing happens.
    pub(super) spared: Option<usize>,
    pub(super) mix: Mix,
    pub(super) slots: u32,
    pub(super) requests: u64,
    pub(super) think: Duration,
    /// Who drives the device comes so much too late, at most.
    pub(super) lateness: Duration,
    pub(super) commands: Vec<(Duration, Command)>,
    /// From here on everything is well.
    pub(super) span: Duration,
    pub(super) schedule: Schedule,
    pub(super) kinds: BTreeMap<&'static str, u64>,
}

/// Regions of the device: a fence policy each, and one where they mix.
pub(super) const REGIONS: u64 = 5;

const MS: Duration = Duration::from_millis(1);

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn of_seed(seed: u64, mode: Mode) -> Self {
        let mut root = Chance::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let chance = &mut root.fork();
        let path_count = 1 + chance.index(8).min(chance.index(8) + 1);
        let path_count = if mode == Mode::Sound { path_count } else { path_count.max(2) };
        let ports: Vec<String> = (0..1 + chance.index(path_count)).map(|index| format!("p{index}")).collect();
        let groups: Vec<String> =
            (0..1 + chance.index(ports.len())).map(|index| format!("g{index}")).collect();
        let group_of_port: Vec<usize> = (0..ports.len()).map(|port| port % groups.len()).collect();
        let name = |index: usize| PathName {
            initiator: format!("h{index}"),
            port: ports[index % ports.len()].clone(),
            volume: "v".to_owned(),
        };
        let paths: Vec<PathName> = (0..path_count).map(name).collect();
        let spared =
            (path_count > 1 && mode == Mode::Sound && chance.hits(300_000)).then(|| chance.index(path_count));
        let disks = if chance.hits(250_000) { 2 } else { 1 };
        let span = chance.duration(Duration::from_secs(1), Duration::from_secs(25));
        let faults = if chance.hits(50_000) { 0 } else { 1 + chance.below(14).min(chance.below(14)) };
        let site = Site {
            paths: &paths,
            ports: &ports,
            groups: &groups,
            disks,
            spared,
            group_of_port: &group_of_port,
        };
        let mut drawn = draw(&mut root.fork(), &site, span, faults);
        if mode != Mode::Sound {
            drawn.schedule = with_late_writes(drawn.schedule, &ports);
        }
        let mut config = draw_config(&mut root.fork(), drawn.latest);
        if mode != Mode::Sound {
            config.attempt_timeout = Duration::from_millis(40);
            config.quiesce_time = if mode == Mode::ShortQuiesce { 100 * MS } else { config.quiesce_time };
        }
        let is_slow = chance.hits(300_000);
        let slots = if is_slow { 1 + chance.below(4) } else { 1 + chance.below(32) };
        let requests = if chance.hits(20_000) { 4000 } else { 50 + chance.below(450) };
        // So that the load lasts about as long as the faults.
        let think = span
            .mul_f64(slots as f64 / requests as f64)
            .mul_f64(0.3 + 1.4 * chance.below(100) as f64 / 100.0);
        let region_blocks = if mode == Mode::Sound { 8 + chance.below(40) } else { 8 };
        let mut plan = Self {
            seed,
            mode,
            chance: root.fork(),
            path_configs: draw_path_configs(chance, path_count, config.quiesce_time, mode),
            depths: (0..path_count).map(|_| *chance.pick(&[1, 2, 4, 16, 64, 256])).collect(),
            closed: vec![None; path_count],
            paths,
            ports,
            groups,
            group_of_port,
            disks,
            disk_parallel: *chance.pick(&[8, 32]),
            disk_latency: chance.duration(Duration::from_micros(20), 2 * MS),
            region_blocks,
            stripe_blocks: (disks > 1).then(|| 1 + chance.below(4)),
            selector: draw_selector(chance, path_count),
            config,
            spared,
            mix: draw_mix(chance, mode, region_blocks),
            slots: u32::try_from(slots).expect("few"),
            requests,
            think,
            lateness: if chance.hits(200_000) {
                chance.duration(Duration::from_micros(10), 5 * MS)
            } else {
                Duration::ZERO
            },
            commands: Vec::new(),
            span,
            schedule: drawn.schedule,
            kinds: drawn.kinds,
        };
        plan.draw_commands(chance);
        plan.draw_closing(chance);
        plan
    }

    /// Blocks of the device.
    pub(super) fn blocks(&self) -> u64 {
        REGIONS * self.region_blocks
    }

    fn draw_commands(&mut self, chance: &mut Chance) {
        let count = if chance.hits(400_000) { chance.below(8) } else { 0 };
        for _ in 0..count {
            let at = self.span.mul_f64(chance.below(1000) as f64 / 1000.0);
            let path = chance.index(self.paths.len());
            let command = match chance.below(4) {
                0 if self.spared != Some(path) => Command::FailPath(path),
                0 | 1 => Command::ReinstatePath(path),
                2 => Command::SwitchGroup(chance.pick(&self.path_configs).priority),
                _ => Command::Selector(draw_selector(chance, self.paths.len())),
            };
            self.kinds.entry("operator").and_modify(|count| *count += 1).or_insert(1);
            self.commands.push((at, command));
        }
        self.commands.sort_by_key(|(at, _)| *at);
    }

    fn draw_closing(&mut self, chance: &mut Chance) {
        for path in 0..self.paths.len() {
            if self.spared != Some(path) && chance.hits(50_000) {
                let from = self.span.mul_f64(chance.below(1000) as f64 / 1000.0);
                let until = (from + chance.duration(MS, Duration::from_secs(3))).min(self.span);
                self.closed[path] = Some((from, until));
                self.kinds.entry("path closed").and_modify(|count| *count += 1).or_insert(1);
            }
        }
    }
}

/// Writes that are held in every port, before all other actions.
fn with_late_writes(schedule: Schedule, ports: &[String]) -> Schedule {
    let late = Rare { probability: 0.3, time: Duration::from_millis(900) };
    let mut actions: Vec<Scheduled> = Vec::new();
    for port in ports {
        let change = LinkChange::Set(Condition::Late(late));
        actions.push(Scheduled { at: Duration::ZERO, action: Action::Port { port: port.clone(), change } });
    }
    let is_access = |scheduled: &&Scheduled| {
        let state = match &scheduled.action {
            Action::Access { state, .. } => *state,
            _ => AccessState::ActiveOptimized,
        };
        state.refusal().is_none()
    };
    actions.extend(schedule.actions().iter().filter(is_access).cloned());
    Schedule::new(actions)
}

fn draw_path_configs(chance: &mut Chance, count: usize, quiesce: Duration, mode: Mode) -> Vec<PathConfig> {
    let priorities = 1 + chance.below(3);
    let domains = chance.hits(300_000);
    let one = |_| PathConfig {
        priority: u16::try_from(10 * chance.below(priorities)).expect("few"),
        fault_domain: domains.then(|| u16::from(chance.hits(500_000))),
        quiesce_time: (mode == Mode::Sound && chance.hits(100_000))
            .then(|| quiesce + chance.duration(MS, quiesce)),
    };
    (0..count).map(one).collect()
}

fn draw_selector(chance: &mut Chance, paths: usize) -> SelectorKind {
    let mut weights = || {
        let given: Vec<u8> = (0..paths).map(|_| u8::try_from(1 + chance.below(20)).expect("few")).collect();
        Weights::new(&given).expect("as many as there are paths")
    };
    let (service, weighted) = (weights(), weights());
    match chance.below(6) {
        0 => SelectorKind::RoundRobin,
        1 => SelectorKind::QueueLength,
        2 => SelectorKind::ServiceTime(service),
        3 => SelectorKind::Latency,
        4 => SelectorKind::Weighted(weighted),
        _ => SelectorKind::Request,
    }
}

fn draw_mix(chance: &mut Chance, mode: Mode, region_blocks: u64) -> Mix {
    let rarely = |chance: &mut Chance, most: u64| {
        let per_million = if chance.hits(500_000) { chance.below(most) } else { 0 };
        u32::try_from(per_million).expect("below a million")
    };
    let is_sound = mode == Mode::Sound;
    Mix {
        writes: if is_sound { u32::try_from(200_000 + chance.below(700_000)).expect("few") } else { 600_000 },
        flushes: rarely(chance, 200_000),
        named: rarely(chance, 400_000),
        deadlines: if is_sound { rarely(chance, 300_000) } else { 0 },
        cancels: if is_sound { rarely(chance, 100_000) } else { 0 },
        hedges: if chance.hits(500_000) { 1_000_000 } else { 0 },
        hot: 1 + chance.below(region_blocks.min(6)),
        hot_share: u32::try_from(chance.below(900_000)).expect("few"),
    }
}

fn draw_config(chance: &mut Chance, latest: Duration) -> FailoverConfig {
    let second = Duration::from_secs(1);
    let attempt_timeout = chance.duration(20 * MS, 2 * second);
    FailoverConfig {
        attempts_max: u32::try_from(1 + chance.below(10)).expect("few"),
        attempt_timeout,
        flush_timeout: attempt_timeout + chance.duration(MS, 3 * second),
        busy_delay: chance.duration(MS, 20 * MS),
        no_path: match chance.below(3) {
            0 => NoPathPolicy::Fail,
            1 => NoPathPolicy::Queue,
            _ => NoPathPolicy::QueueFor(chance.duration(10 * MS, 20 * second)),
        },
        failback: match chance.below(3) {
            0 => Failback::Immediate,
            1 => Failback::Manual,
            _ => Failback::After(chance.duration(10 * MS, 5 * second)),
        },
        probe_interval: chance.duration(20 * MS, second),
        check_interval: chance.hits(700_000).then(|| chance.duration(100 * MS, 20 * second)),
        deep_idle_after: chance.duration(second, 60 * second),
        flap_damping: FlapDampingConfig {
            half_life: chance.duration(200 * MS, 60 * second),
            ..FlapDampingConfig::default()
        },
        retry_budget: if chance.hits(500_000) {
            RetryBudgetConfig::default()
        } else {
            RetryBudgetConfig {
                refill_permille: 10_000,
                capacity: second,
                capacity_min: 100,
                refill_min: 1000,
            }
        },
        hedge: HedgeConfig {
            enabled: chance.hits(400_000),
            budget_permille: 200,
            delay_percent: *chance.pick(&[50, 150]),
            ..HedgeConfig::default()
        },
        adapts_in_flight: chance.hits(400_000),
        quiesce_time: latest + chance.duration(MS, latest),
        quarantine_max_bytes: if chance.hits(100_000) { 32 << 10 } else { 64 << 20 },
        cache_is_shared: chance.hits(400_000),
        slow_path: SlowPathConfig {
            enabled: chance.hits(500_000),
            // So careless that paths come and go by it.
            factor: u32::try_from(1 + chance.below(4)).expect("few"),
            excess_min: chance.duration(MS / 100, MS),
            after: chance.duration(MS, second / 2),
            samples_min: u32::try_from(1 + chance.below(4)).expect("few"),
            back_after: chance.duration(10 * MS, 2 * second),
        },
        ..FailoverConfig::default()
    }
}
