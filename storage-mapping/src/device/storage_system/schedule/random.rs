//! A schedule out of a seed.
//!
//! Keeps true: the same seed, parts, span and number give the same schedule; at the end of the span every
//! fault is over and every port optimized again, so that what is alive can finish.

use std::time::Duration;

use super::super::access_state::AccessState;
use super::super::conditions::{Condition, Rare};
use super::{Action, FLAP_MIN, LinkChange, Schedule, Scheduled};
use crate::device::chance::Chance;

/// The parts of a system that faults are drawn for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Ports.
    pub ports: Vec<String>,
    /// Target port groups.
    pub groups: Vec<String>,
    /// Logical volumes.
    pub volumes: Vec<String>,
}

impl Schedule {
    /// `count` faults within `span`, and the end of all of them at its end.
    #[must_use]
    pub fn random(seed: u64, parts: &Parts, span: Duration, count: usize) -> Self {
        let mut chance = Chance::new(seed);
        let span_ns = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let mut actions = Vec::with_capacity(count);
        for _ in 0..count {
            let at = Duration::from_nanos(chance.below(span_ns));
            if let Some(action) = draw(&mut chance, parts, span_ns) {
                actions.push(Scheduled { at, action });
            }
        }
        let heal = |action| Scheduled { at: span, action };
        for port in &parts.ports {
            actions.push(heal(Action::Port { port: port.clone(), change: LinkChange::Clear }));
        }
        for group in &parts.groups {
            for volume in &parts.volumes {
                let (group, volume) = (group.clone(), volume.clone());
                let state = AccessState::ActiveOptimized;
                actions.push(heal(Action::Access { group, volume, state, after: None }));
            }
        }
        Self::new(actions)
    }
}

fn pick<'a>(chance: &mut Chance, names: &'a [String]) -> Option<&'a String> {
    names.get(usize::try_from(chance.below(names.len() as u64)).ok()?)
}

fn draw(chance: &mut Chance, parts: &Parts, span_ns: u64) -> Option<Action> {
    if chance.hits(0.2) {
        let group = pick(chance, &parts.groups)?.clone();
        let volume = pick(chance, &parts.volumes)?.clone();
        let index = usize::try_from(chance.below(4)).ok()?;
        let (state, _) = AccessState::ALL[index];
        let after = chance.hits(0.5).then(|| part_of(chance, span_ns / 10));
        return Some(Action::Access { group, volume, state, after });
    }
    let port = pick(chance, &parts.ports)?.clone();
    Some(Action::Port { port, change: draw_change(chance, span_ns) })
}

fn part_of(chance: &mut Chance, longest_ns: u64) -> Duration {
    Duration::from_nanos(chance.below(longest_ns))
}

/// A probability of at most 1 %, 10 % or 100 %.
fn draw_probability(chance: &mut Chance) -> f64 {
    const SCALES: [f64; 3] = [0.01, 0.1, 1.0];
    let scale = usize::try_from(chance.below(3)).map_or(0.01, |index| SCALES[index]);
    let steps = u32::try_from(chance.below(1001)).unwrap_or(0);
    scale * f64::from(steps) / 1000.0
}

fn draw_change(chance: &mut Chance, span_ns: u64) -> LinkChange {
    let millisecond = 1_000_000;
    match chance.below(14) {
        0 => LinkChange::Set(Condition::Latency(part_of(chance, 10 * millisecond))),
        1 => LinkChange::Set(Condition::Jitter(part_of(chance, 5 * millisecond))),
        2 => {
            let time = part_of(chance, 200 * millisecond);
            LinkChange::Set(Condition::Grey(Rare { probability: draw_probability(chance), time }))
        }
        3 => LinkChange::Set(Condition::Rate(Some((1 << 20) + chance.below(100 << 20)))),
        4 => LinkChange::Set(Condition::Error(draw_probability(chance))),
        5 => LinkChange::Set(Condition::Busy(draw_probability(chance))),
        6 => LinkChange::Set(Condition::Full(draw_probability(chance))),
        7 => {
            let time = part_of(chance, span_ns / 2);
            LinkChange::Set(Condition::Late(Rare { probability: draw_probability(chance), time }))
        }
        8 => LinkChange::Hang(chance.hits(0.8).then(|| part_of(chance, span_ns / 4))),
        9 => {
            let (up, down) = (part_of(chance, span_ns / 10), part_of(chance, span_ns / 10));
            let time = Some(part_of(chance, span_ns / 2));
            LinkChange::Flap { up: up.max(FLAP_MIN), down: down.max(FLAP_MIN), time }
        }
        10 => LinkChange::Reset { lands: draw_probability(chance), delay: part_of(chance, span_ns / 4) },
        11 => LinkChange::EndNexus,
        12 => {
            if chance.hits(0.5) {
                LinkChange::Down
            } else {
                LinkChange::Dead
            }
        }
        _ => LinkChange::Clear,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn parts() -> Parts {
        let names = |letter: char, count: usize| (0..count).map(|i| format!("{letter}{i}")).collect();
        Parts { ports: names('p', 4), groups: names('g', 2), volumes: names('v', 2) }
    }

    proptest! {
        #[test]
        fn what_a_seed_gives_prints_and_parses_back(seed in any::<u64>(), count in 0..60_usize) {
            let span = Duration::from_secs(60);
            let schedule = Schedule::random(seed, &parts(), span, count);
            assert_eq!(schedule, Schedule::random(seed, &parts(), span, count));
            assert_eq!(schedule.to_string().parse(), Ok(schedule));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*", line in "[0-9]s (port|path|access|disk) .*") {
            drop(text.parse::<Schedule>());
            drop(line.parse::<Schedule>());
        }
    }

    #[test]
    fn errors_name_the_line_and_the_remedy() {
        for (text, part) in [
            ("1s", "an action is"),
            ("port p0 down", "number with a unit"),
            ("1s port p0", "a change is one of"),
            ("1s port p/0 down", "letters, digits"),
            ("1s port p0 hang", "forever"),
            ("1s port p0 flap 1us 1s forever", "no faster than 1ms"),
            ("1s port p0 error 2", "from 0 to 1"),
            ("1s port p0 rate 0", "none for no limit"),
            ("1s port p0 grey 1", "0.01:100ms"),
            ("1s path p0/v0 down", "INITIATOR/PORT/VOLUME"),
            ("1s access g0 standby", "GROUP/VOLUME"),
            ("1s access g0/v0 asleep", "standby"),
            ("1s access g0/v0 standby then", "after TIME"),
            ("1s disk d0 speed 1", "parallel"),
        ] {
            let error = format!("# first\n{text}").parse::<Schedule>().unwrap_err().to_string();
            assert!(error.starts_with("line 2: ") && error.contains(part), "{text}: {error}");
        }
    }
}
