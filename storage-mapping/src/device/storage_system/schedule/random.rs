//! A schedule out of a seed.
//!
//! Keeps true: the same seed, parts, span and number give the same schedule; at the end of the span every
//! fault is over and every port optimized again, so that what is alive can finish.

use std::time::Duration;

use super::super::access_state::AccessState;
use super::super::command_fault::{ArmedFault, CommandFault};
use super::super::conditions::{Condition, Rare};
use super::super::scsi_target::Attention;
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

impl Schedule {
    /// `count` faults of single control commands at the ports, within `span`; each waits for the next command of one of
    /// these opcodes, or (where none is given) for the next one.
    #[must_use]
    pub fn random_commands(seed: u64, parts: &Parts, opcodes: &[u8], span: Duration, count: usize) -> Self {
        let mut chance = Chance::new(seed);
        let span_ns = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let mut actions = Vec::with_capacity(count);
        for _ in 0..count {
            let at = part_of(&mut chance, span_ns);
            let opcode = pick(&mut chance, opcodes).copied();
            let fault = draw_fault(&mut chance, span_ns);
            let Some(port) = pick(&mut chance, &parts.ports).cloned() else { break };
            let change = LinkChange::Next(ArmedFault { opcode, fault });
            actions.push(Scheduled { at, action: Action::Port { port, change } });
        }
        Self::new(actions)
    }
}

/// Every fault of a command is as likely as any other; a limit of time is there in four of five.
fn draw_fault(chance: &mut Chance, span_ns: u64) -> CommandFault {
    const NEWS: [Attention; 3] =
        [Attention::MODE_CHANGED, Attention::CAPACITY_CHANGED, Attention::LUNS_CHANGED];
    let time = part_of(chance, span_ns / 4);
    let limit = chance.hits(0.8).then_some(time);
    let state =
        usize::try_from(chance.below(4)).map_or(AccessState::Standby, |index| AccessState::ALL[index].0);
    let news = pick(chance, &NEWS).copied().unwrap_or(Attention::MODE_CHANGED);
    match chance.below(15) {
        0 => CommandFault::Refused,
        1 => CommandFault::NotSent,
        2 => CommandFault::Lost { lands: limit },
        3 => CommandFault::Lost { lands: None },
        4 => CommandFault::Hang(limit),
        5 => CommandFault::Busy,
        6 => CommandFault::TaskSetFull,
        7 => CommandFault::Attention(news),
        8 => CommandFault::Deferred(Attention { asc: 0x11, ascq: 0 }),
        9 => CommandFault::NexusLost,
        10 => CommandFault::Access(state),
        11 => CommandFault::AnswerLost,
        12 => CommandFault::AnswerHang(limit),
        13 => CommandFault::NexusLostAfter,
        _ => CommandFault::AccessAfter(state),
    }
}

fn pick<'a, T>(chance: &mut Chance, names: &'a [T]) -> Option<&'a T> {
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
            let commands = Schedule::random_commands(seed, &parts(), &[0x5f, 0xc0], span, count);
            assert_eq!(commands.actions().len(), count);
            assert_eq!(commands.to_string().parse(), Ok(commands));
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
            ("1s port p0 next", "two hexadecimal digits"),
            ("1s port p0 next 5f attention 2a", "2a/09"),
        ] {
            let error = format!("# first\n{text}").parse::<Schedule>().unwrap_err().to_string();
            assert!(error.starts_with("line 2: ") && error.contains(part), "{text}: {error}");
        }
    }
}
