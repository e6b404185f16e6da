//! What happens to a storage system and when: data, made by hand, from text, or from a seed.
//!
//! One line is one action. Times count from the start of the schedule; `#` begins a comment.
//!
//! ```text
//! 0s    port p0 latency 200us            any of the conditions of a link: latency, jitter, grey,
//! 0s    port p0 grey 0.01:100ms            rate, error, busy, full, late, queue
//! 1s    path host1/p0/v0 rate 10MiB      the same for one path alone
//! 2s    port p0 hang 3s                  holds all it has and gets; `hang forever`; `resume`
//! 6s    port p0 flap 2s 1s 60s           2 s up, 1 s down, for a minute; `flap 2s 1s forever`
//! 70s   port p0 reset 0.5 3s             requests in flight are lost; half of the writes land, within 3 s
//! 75s   port p0 end-nexus                the same, and the target proves that it dropped them
//! 80s   port p0 down                     the link is lost: what the port has goes on; `up`
//! 90s   port p0 dead                     the port is gone with all it held; `up`
//! 95s   port p0 clear                    all faults of the link end
//! 96s   port p0 next 5f answer-lost      the next control command of this opcode, or `any`, meets a fault
//! 97s   path host1/p0/v0 next any lost 2s
//! 100s  access g0/v0 standby             at once
//! 101s  access g0/v0 optimized after 2s  transitioning for 2 s before
//! 105s  disk d0 latency 1ms              latency, rate, parallel
//! ```
//!
//! Keeps true: what prints parses back; the same seed gives the same schedule, which ends with everything
//! healed. Not here: what the actions do (`core`).

mod random;
mod text;

use std::time::Duration;

pub use self::random::Parts;
pub use self::text::TextError;
pub(super) use self::text::{access_state, check_name, lines_of};
use super::access_state::AccessState;
use super::command_fault::ArmedFault;
use super::conditions::Condition;

/// The shortest time that a flapping link stays up or down.
pub const FLAP_MIN: Duration = Duration::from_millis(1);

/// A path by its names: who asks, through which port, for which logical volume.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathName {
    /// The initiator.
    pub initiator: String,
    /// The port.
    pub port: String,
    /// The logical volume.
    pub volume: String,
}

/// What happens to a link.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkChange {
    /// One of its conditions changes.
    Set(Condition),
    /// It holds whatever it has and gets, for this time or until it is told to go on.
    Hang(Option<Duration>),
    /// A hang ends; what was held goes on in order.
    Resume,
    /// The link is lost; what has arrived behind it goes on.
    Down,
    /// The port is gone, with what it held; what the disks have goes on.
    Dead,
    /// The link is there again, and so is a dead port.
    Up,
    /// The link goes down and up in turns, beginning with up.
    Flap {
        /// How long it is up each time; at least [`FLAP_MIN`].
        up: Duration,
        /// How long it is down each time; at least [`FLAP_MIN`].
        down: Duration,
        /// For how long altogether; `None` until it is cleared.
        time: Option<Duration>,
    },
    /// Requests in flight are lost; the link is there again at once.
    Reset {
        /// Probability that the copy of a lost write lands all the same.
        lands: f64,
        /// It lands at any time until then.
        delay: Duration,
    },
    /// As a reset, and the target is known to drop what the session carried
    /// ([`SettledProof::NexusEnded`](crate::SettledProof)).
    EndNexus,
    /// A fault for one control command.
    Next(ArmedFault),
    /// Every fault ends, and the conditions are those that it was made with.
    Clear,
}

/// What changes at a physical disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskChange {
    /// What every request takes.
    Latency(Duration),
    /// Requests served at once.
    Parallel(Option<u32>),
    /// The most bytes per second.
    Rate(Option<u64>),
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// To a port, and so to every path through it.
    Port {
        /// The port.
        port: String,
        /// What.
        change: LinkChange,
    },
    /// To one path.
    Path {
        /// The path.
        path: PathName,
        /// What.
        change: LinkChange,
    },
    /// To how the ports of a group let a logical volume be reached.
    Access {
        /// The target port group.
        group: String,
        /// The logical volume.
        volume: String,
        /// The new state.
        state: AccessState,
        /// Transitioning so long before; `None` changes at once.
        after: Option<Duration>,
    },
    /// To a physical disk.
    Disk {
        /// The disk.
        disk: String,
        /// What.
        change: DiskChange,
    },
}

/// One thing that happens, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Scheduled {
    /// Since the start of the schedule.
    pub at: Duration,
    /// What.
    pub action: Action,
}

/// A list of things that happen, in order of their time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schedule {
    actions: Vec<Scheduled>,
}

impl Schedule {
    /// A schedule of these actions, which it puts in order of time; equal times keep their order.
    #[must_use]
    pub fn new(mut actions: Vec<Scheduled>) -> Self {
        actions.sort_by_key(|scheduled| scheduled.at);
        Self { actions }
    }

    /// The actions in order.
    #[must_use]
    pub fn actions(&self) -> &[Scheduled] {
        &self.actions
    }
}
