//! What goes wrong on the storage side: a schedule out of a seed, with a bound on how late a copy can land.
//!
//! Keeps true: everything has healed at the end of the span; no write lands later than [`Drawn::latest`] after it was
//! sent. That bound is the sum of all hangs and reset delays of one port with the longest late write and a margin
//! for queues; two that overlap count twice, so it is never too short. Not here: how faults act
//! (`storage_mapping::device::storage_system`).

use std::collections::BTreeMap;
use std::time::Duration;

use storage_mapping::device::storage_system::{
    AccessState, Action, Condition, DiskChange, LinkChange, PathName, Rare, Schedule, Scheduled,
};

use crate::chance::Chance;

/// What queues and rates may add to a landing.
const MARGIN: Duration = Duration::from_secs(3);

/// The parts of the system that faults are drawn for.
pub(super) struct Site<'a> {
    pub(super) paths: &'a [PathName],
    pub(super) ports: &'a [String],
    pub(super) groups: &'a [String],
    pub(super) disks: usize,
    /// A path that nothing happens to, nor to its port and its group.
    pub(super) spared: Option<usize>,
    /// The group of each port.
    pub(super) group_of_port: &'a [usize],
}

/// A schedule.
#[derive(Debug)]
pub(super) struct Drawn {
    pub(super) schedule: Schedule,
    /// No copy lands later than this after it was sent.
    pub(super) latest: Duration,
    /// Faults by kind.
    pub(super) kinds: BTreeMap<&'static str, u64>,
}

struct Drawing<'a> {
    chance: &'a mut Chance,
    span: Duration,
    actions: Vec<Scheduled>,
    /// What each port may add to a landing.
    holds: Vec<Duration>,
    late: Duration,
    kinds: BTreeMap<&'static str, u64>,
}

/// A schedule of `count` faults within `span`.
pub(super) fn draw(chance: &mut Chance, site: &Site<'_>, span: Duration, count: u64) -> Drawn {
    let mut drawing = Drawing {
        chance,
        span,
        actions: Vec::new(),
        holds: vec![Duration::ZERO; site.ports.len()],
        late: Duration::ZERO,
        kinds: BTreeMap::new(),
    };
    for _ in 0..count {
        drawing.one(site);
    }
    let Drawing { mut actions, holds, late, kinds, .. } = drawing;
    heal(site, span, &mut actions);
    let latest = holds.into_iter().max().unwrap_or_default() + late + MARGIN;
    Drawn { schedule: Schedule::new(actions), latest, kinds }
}

fn heal(site: &Site<'_>, span: Duration, actions: &mut Vec<Scheduled>) {
    let mut push = |action| actions.push(Scheduled { at: span, action });
    for port in site.ports {
        push(Action::Port { port: port.clone(), change: LinkChange::Clear });
    }
    for path in site.paths {
        push(Action::Path { path: path.clone(), change: LinkChange::Clear });
    }
    for group in site.groups {
        let (group, state) = (group.clone(), AccessState::ActiveOptimized);
        push(Action::Access { group, volume: "v".to_owned(), state, after: None });
    }
    for disk in 0..site.disks {
        let change = DiskChange::Latency(Duration::from_micros(100));
        push(Action::Disk { disk: format!("d{disk}"), change });
    }
}

impl Drawing<'_> {
    fn one(&mut self, site: &Site<'_>) {
        let at = self.chance.duration(Duration::from_micros(1), self.span).min(self.span);
        let at = if self.chance.hits(500_000) {
            at
        } else {
            self.span.mul_f64(self.chance.below(1000) as f64 / 1000.0)
        };
        let path = self.chance.index(site.paths.len());
        let name = &site.paths[path];
        let port = site.ports.iter().position(|port| *port == name.port).expect("paths go through ports");
        let spared_port = site.spared.map(|spared| &site.paths[spared].port);
        match self.chance.below(20) {
            0..=2 => self.access(site, at),
            3 => {
                let time = self.chance.duration(Duration::from_micros(10), Duration::from_millis(4));
                let disk = format!("d{}", self.chance.index(site.disks));
                self.push(at, "disk latency", Action::Disk { disk, change: DiskChange::Latency(time) });
            }
            4..=9 if site.spared != Some(path) => {
                let changes = self.changes(at, port);
                for (at, change) in changes {
                    self.actions.push(Scheduled { at, action: Action::Path { path: name.clone(), change } });
                }
            }
            _ if spared_port != Some(&name.port) => {
                let changes = self.changes(at, port);
                for (at, change) in changes {
                    self.actions
                        .push(Scheduled { at, action: Action::Port { port: name.port.clone(), change } });
                }
            }
            _ => {}
        }
    }

    fn push(&mut self, at: Duration, kind: &'static str, action: Action) {
        *self.kinds.entry(kind).or_default() += 1;
        self.actions.push(Scheduled { at, action });
    }

    fn access(&mut self, site: &Site<'_>, at: Duration) {
        let group = self.chance.index(site.groups.len());
        let of_port = |name: &String| site.ports.iter().position(|port| port == name);
        let spared = site.spared.and_then(|path| of_port(&site.paths[path].port));
        let (state, _) = *self.chance.pick(&AccessState::ALL);
        let is_spared = spared.is_some_and(|port| site.group_of_port[port] == group);
        if is_spared && state.refusal().is_some() {
            return;
        }
        let after = self.chance.hits(400_000) && !is_spared;
        let after = after.then(|| self.chance.duration(Duration::from_millis(1), Duration::from_secs(1)));
        let group = site.groups[group].clone();
        self.push(at, "access state", Action::Access { group, volume: "v".to_owned(), state, after });
    }

    /// One fault of a link, with the end of it where it has one.
    fn changes(&mut self, at: Duration, port: usize) -> Vec<(Duration, LinkChange)> {
        let millisecond = Duration::from_millis(1);
        let often = *self.chance.pick(&[0.02, 0.1, 0.5]);
        let time = |drawing: &mut Self, longest: Duration| drawing.chance.duration(millisecond, longest);
        let (kind, change) = match self.chance.below(16) {
            0 => ("latency", LinkChange::Set(Condition::Latency(time(self, Duration::from_millis(50))))),
            1 => ("jitter", LinkChange::Set(Condition::Jitter(time(self, Duration::from_millis(20))))),
            2 => {
                let time = time(self, Duration::from_millis(400));
                ("grey", LinkChange::Set(Condition::Grey(Rare { probability: often, time })))
            }
            3 => ("rate", LinkChange::Set(Condition::Rate(Some(4 << 20)))),
            4 => ("error", LinkChange::Set(Condition::Error(often))),
            5 => ("busy", LinkChange::Set(Condition::Busy(often))),
            6 => ("task set full", LinkChange::Set(Condition::Full(often))),
            7 | 8 => {
                let time = time(self, Duration::from_secs(3));
                self.late = self.late.max(time);
                ("late write", LinkChange::Set(Condition::Late(Rare { probability: often, time })))
            }
            9 | 10 => {
                let rest = self.span.saturating_sub(at);
                let longest = *self.chance.pick(&[Duration::from_millis(300), Duration::from_secs(5)]);
                let time = time(self, longest).min(rest);
                self.holds[port] += time;
                ("hang", LinkChange::Hang(Some(time)))
            }
            11 => {
                let (up, down) = (time(self, Duration::from_secs(2)), time(self, Duration::from_secs(2)));
                let time = Some(time(self, Duration::from_secs(10)));
                ("flap", LinkChange::Flap { up, down, time })
            }
            12 => {
                let delay = time(self, Duration::from_secs(2));
                self.holds[port] += delay;
                ("reset", LinkChange::Reset { lands: *self.chance.pick(&[0.1, 0.5, 1.0]), delay })
            }
            13 => ("nexus loss", LinkChange::EndNexus),
            14 => {
                let is_dead = self.chance.hits(500_000);
                let end = at + time(self, Duration::from_secs(4));
                let (kind, change) =
                    if is_dead { ("port dead", LinkChange::Dead) } else { ("link down", LinkChange::Down) };
                *self.kinds.entry(kind).or_default() += 1;
                return vec![(at, change), (end.min(self.span), LinkChange::Up)];
            }
            _ => ("queue limit", LinkChange::Set(Condition::Queue(Some(1 + self.chance.index(8) as u32)))),
        };
        *self.kinds.entry(kind).or_default() += 1;
        vec![(at, change)]
    }
}
