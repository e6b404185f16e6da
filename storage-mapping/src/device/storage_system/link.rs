//! A link that requests come in over: that of a port, or that of one path behind it.
//!
//! Keeps true: bytes pass one after the other where there is a rate; a link in its default conditions
//! costs no chance and no time. Not here: what becomes of requests on a link that fails (`core`).

use std::collections::VecDeque;
use std::time::Duration;

use super::command_fault::{ArmedFault, CommandFault};
use super::conditions::Conditions;
use super::core::CommandId;
use crate::block::time::Instant;
use crate::device::chance::Chance;

/// Whether anything comes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Up,
    /// The link is lost; what is behind it lives on.
    Down,
    /// The port itself is gone, with what it held.
    Dead,
}

/// A link that goes down and up by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flap {
    pub(super) up: Duration,
    pub(super) down: Duration,
    pub(super) end: Option<Instant>,
}

/// A link and what it holds back.
#[derive(Debug)]
pub(super) struct Link {
    conditions: Conditions,
    /// What `clear` goes back to.
    usual: Conditions,
    is_plain: bool,
    busy_until: Instant,
    pub(super) carrier: Carrier,
    pub(super) is_hung: bool,
    pub(super) flap: Option<Flap>,
    /// Counts hangs, so that the timer of an earlier one is known as old.
    pub(super) hang_generation: u32,
    /// The same for flapping.
    pub(super) flap_generation: u32,
    pub(super) held: VecDeque<CommandId>,
    /// Faults that wait for control commands.
    armed: Vec<ArmedFault>,
    pub(super) chance: Chance,
}

/// When a request is through a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transit {
    /// Its first byte leaves.
    pub(super) leaves: Instant,
    /// Its last byte has arrived.
    pub(super) arrives: Instant,
}

impl Link {
    pub(super) fn new(usual: Conditions, seed: u64) -> Self {
        Self {
            conditions: usual,
            usual,
            is_plain: usual == Conditions::default(),
            busy_until: Instant::ZERO,
            carrier: Carrier::Up,
            is_hung: false,
            flap: None,
            hang_generation: 0,
            flap_generation: 0,
            held: VecDeque::new(),
            armed: Vec::new(),
            chance: Chance::new(seed),
        }
    }

    pub(super) fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    pub(super) fn set_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
        self.is_plain = conditions == Conditions::default();
    }

    /// Back to the conditions that it was made with.
    pub(super) fn reset(&mut self) {
        self.set_conditions(self.usual);
        self.stop_flapping();
        self.armed.clear();
    }

    /// Has a fault wait for a control command.
    pub(super) fn arm(&mut self, armed: ArmedFault) {
        self.armed.push(armed);
    }

    /// The first fault that waits for a command of this opcode.
    pub(super) fn take_armed(&mut self, opcode: u8) -> Option<CommandFault> {
        let place = self.armed.iter().position(|armed| armed.opcode.is_none_or(|of| of == opcode))?;
        Some(self.armed.remove(place).fault)
    }

    pub(super) fn stop_flapping(&mut self) {
        self.flap = None;
        self.flap_generation = self.flap_generation.wrapping_add(1);
    }

    /// Whether nothing is set that would need a look.
    pub(super) fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Sends `bytes` over it from `at` on.
    pub(super) fn transit(&mut self, at: Instant, bytes: usize) -> Transit {
        if self.is_plain {
            return Transit { leaves: at, arrives: at };
        }
        let Conditions { latency, jitter, grey, rate, .. } = self.conditions;
        let mut leaves = at;
        let mut arrives = at;
        if let Some(rate) = rate {
            leaves = at.max(self.busy_until);
            arrives = leaves + transfer_time(bytes, rate);
            self.busy_until = arrives;
        }
        arrives = arrives + latency;
        if jitter > Duration::ZERO {
            let jitter = u64::try_from(jitter.as_nanos()).unwrap_or(u64::MAX);
            arrives = arrives + Duration::from_nanos(self.chance.below(jitter));
        }
        if self.chance.hits(grey.probability) {
            arrives = arrives + grey.time;
        }
        Transit { leaves, arrives }
    }
}

/// How long `bytes` take at `rate` bytes per second.
pub(super) fn transfer_time(bytes: usize, rate: u64) -> Duration {
    let nanoseconds = bytes as u128 * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}
