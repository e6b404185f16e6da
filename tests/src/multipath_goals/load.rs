//! What is asked of a device: when requests come, how long they are, and when a part of a run is over.

use std::time::Duration;

use storage_mapping::Instant;

use crate::chance::Chance;

/// When requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// So many are on their way at any time.
    Depth(usize),
    /// One after each such time, whatever becomes of those before.
    Every(Duration),
}

/// How long requests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// 4 KiB.
    Random4KiB,
    /// 128 KiB.
    Sequential128KiB,
    /// Three of 4 KiB to one of 128 KiB.
    Mixed,
}

impl Sizes {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Random4KiB, Self::Sequential128KiB, Self::Mixed];

    pub(super) fn draw(self, chance: &mut Chance) -> usize {
        match self {
            Self::Random4KiB => 4 << 10,
            Self::Sequential128KiB => 128 << 10,
            Self::Mixed => (if chance.hits(250_000) { 128 } else { 4 }) << 10,
        }
    }
}

/// What is asked of the device.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// When requests come.
    pub pace: Pace,
    /// How long they are.
    pub sizes: Sizes,
    /// How many of a million are writes.
    pub writes_per_million: u32,
    /// Reads may be sent twice.
    pub hedges: bool,
}

impl Load {
    /// Reads of 4 KiB.
    #[must_use]
    pub fn reads(pace: Pace) -> Self {
        Self { pace, sizes: Sizes::Random4KiB, writes_per_million: 0, hedges: false }
    }

    /// The same, half of them writes.
    #[must_use]
    pub fn reads_and_writes(pace: Pace) -> Self {
        Self { writes_per_million: 500_000, ..Self::reads(pace) }
    }

    /// No new requests.
    #[must_use]
    pub fn nothing() -> Self {
        Self::reads(Pace::Depth(0))
    }
}

/// When a part of a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// At this time.
    Time(Instant),
    /// When so many more requests are done.
    Done(u64),
}
