//! Unit attentions (SAM-6 5.14): news of the logical unit, told once to each nexus.
//!
//! Keeps true: one kind of news waits at most once for a nexus; a new nexus begins with one attention and no other.
//! Not here: which command meets them (`access`), what causes them.

use std::collections::VecDeque;

/// The additional sense code of a unit attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attention {
    /// Additional sense code.
    pub asc: u8,
    /// Additional sense code qualifier.
    pub ascq: u8,
}

impl Attention {
    /// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED: the nexus is new.
    pub const NEW_NEXUS: Self = Self { asc: 0x29, ascq: 0x00 };
    /// BUS DEVICE RESET FUNCTION OCCURRED: a logical unit reset.
    pub const UNIT_RESET: Self = Self { asc: 0x29, ascq: 0x03 };
    /// MODE PARAMETERS CHANGED.
    pub const MODE_CHANGED: Self = Self { asc: 0x2a, ascq: 0x01 };
    /// LOG PARAMETERS CHANGED.
    pub const LOG_CHANGED: Self = Self { asc: 0x2a, ascq: 0x02 };
    /// RESERVATIONS PREEMPTED.
    pub const RESERVATIONS_PREEMPTED: Self = Self { asc: 0x2a, ascq: 0x03 };
    /// RESERVATIONS RELEASED.
    pub const RESERVATIONS_RELEASED: Self = Self { asc: 0x2a, ascq: 0x04 };
    /// REGISTRATIONS PREEMPTED.
    pub const REGISTRATIONS_PREEMPTED: Self = Self { asc: 0x2a, ascq: 0x05 };
    /// ASYMMETRIC ACCESS STATE CHANGED.
    pub const ACCESS_CHANGED: Self = Self { asc: 0x2a, ascq: 0x06 };
    /// CAPACITY DATA HAS CHANGED.
    pub const CAPACITY_CHANGED: Self = Self { asc: 0x2a, ascq: 0x09 };
    /// COMMANDS CLEARED BY ANOTHER INITIATOR.
    pub const COMMANDS_CLEARED: Self = Self { asc: 0x2f, ascq: 0x00 };
    /// REPORTED LUNS DATA HAS CHANGED.
    pub const LUNS_CHANGED: Self = Self { asc: 0x3f, ascq: 0x0e };
}

/// What waits for one nexus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attentions(VecDeque<Attention>);

impl Attentions {
    /// A new nexus: older news is no concern of it.
    pub(super) fn begin(&mut self) {
        self.0.clear();
        self.0.push_back(Attention::NEW_NEXUS);
    }

    pub(super) fn add(&mut self, attention: Attention) {
        if !self.0.contains(&attention) {
            self.0.push_back(attention);
        }
    }

    pub(super) fn take(&mut self) -> Option<Attention> {
        self.0.pop_front()
    }

    /// Takes this one out of its turn.
    pub(super) fn take_this(&mut self, attention: Attention) -> bool {
        let place = self.0.iter().position(|waiting| *waiting == attention);
        place.is_some_and(|place| self.0.remove(place).is_some())
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = Attention> + '_ {
        self.0.iter().copied()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
