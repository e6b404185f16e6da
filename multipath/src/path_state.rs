//! What is known of one path: its state, and what it has carried.
//!
//! ```text
//!            dead, hung, or suspect again           operator
//!   Active ──────────────────────────────▶ Failed ──────────▶ Disabled
//!     ▲ ▲       a probe is answered, and     │  │ ▲               │
//!     │ └── the data are those of another ───┘  │ │ after a       │
//!     │               path                      ▼ │ minute        │
//!     │                                       Foreign             │
//!     └───────────────────────── operator ────────────────────────┘
//! ```
//!
//! | state | what is true in it |
//! |---|---|
//! | Active | requests may be sent over it |
//! | Failed | nothing but probes is sent over it; I/O that was sent before may still come back |
//! | Standby | as Failed; it answered that its access state lets no I/O through |
//! | Isolated | as Active where no path is Active, else as Failed; a path that came and went too often |
//! | Slow | as Isolated; a path that takes many times as long as the others |
//! | Foreign | as Failed; it answered, with other data than the other paths give |
//! | Disabled | as Failed, without probes |
//!
//! Keeps true: counters only grow. Not here: when a state changes (`failover`).

use std::fmt;

use storage_mapping::{IoError, PathIndex};

/// Paths of one device, at most.
pub const PATH_COUNT_MAX: usize = 64;

/// Whether a path is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathState {
    /// It carries I/O.
    Active,
    /// An operator took it out of use.
    Disabled,
    /// It failed, and is probed until it answers.
    Failed,
    /// It answers, but came and went too often: it carries I/O only while no other path can.
    Isolated,
    /// It answers, and takes many times as long as the others: it carries I/O only while no other path can.
    Slow,
    /// It answers that it carries no I/O in its present access state (ALUA standby, unavailable, transition).
    Standby,
    /// It answers with other data than the other paths: it leads elsewhere.
    Foreign,
}

impl PathState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Active,
        Self::Slow,
        Self::Isolated,
        Self::Failed,
        Self::Standby,
        Self::Foreign,
        Self::Disabled,
    ];

    /// Whether a path in this state can carry requests, be it only while no other can.
    #[must_use]
    pub fn can_carry(self) -> bool {
        matches!(self, Self::Active | Self::Slow | Self::Isolated)
    }

    /// The word that users see.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Failed => "failed",
            Self::Isolated => "isolated",
            Self::Slow => "slow",
            Self::Standby => "standby",
            Self::Foreign => "foreign",
        }
    }
}

/// A path as `status` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathStatus {
    /// Its place in the device.
    pub path: PathIndex,
    /// Whether it is used.
    pub state: PathState,
    /// Requests sent over it, probes not counted.
    pub requests: u64,
    /// Requests that came back with an error or not in time.
    pub errors: u64,
    /// Bytes of requests that succeeded.
    pub bytes: u64,
    /// Requests that it has now, those given up on included.
    pub in_flight: usize,
    /// Bytes of I/O that was given up on and that the path has still: their buffers are neither freed nor changed.
    pub quarantined_bytes: usize,
    /// The last error.
    pub last_error: Option<IoError>,
}

impl PathStatus {
    /// A path that has carried nothing.
    pub(crate) fn new(path: PathIndex) -> Self {
        let state = PathState::Active;
        Self {
            path,
            state,
            requests: 0,
            errors: 0,
            bytes: 0,
            in_flight: 0,
            quarantined_bytes: 0,
            last_error: None,
        }
    }
}

/// A set of paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathSet(u64);

const _: () = assert!(PATH_COUNT_MAX == u64::BITS as usize);

impl PathSet {
    /// No path.
    pub const EMPTY: Self = Self(0);

    /// Adds a path.
    pub fn insert(&mut self, path: PathIndex) {
        self.0 |= 1 << path.0;
    }

    /// Takes a path out.
    pub fn remove(&mut self, path: PathIndex) {
        self.0 &= !(1 << path.0);
    }

    /// Whether the path is in the set.
    #[must_use]
    pub fn contains(self, path: PathIndex) -> bool {
        self.0 & (1 << path.0) != 0
    }

    /// Whether no path is in the set.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The number of paths in the set.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The paths that are here or in `other`.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The paths that are here and in `other`.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The paths that are here and not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Every path of the set, lowest first.
    pub fn iter(self) -> impl Iterator<Item = PathIndex> {
        self.iter_from(PathIndex(0))
    }

    /// The first path from `start` on, going round.
    #[must_use]
    pub fn next_from(self, start: PathIndex) -> Option<PathIndex> {
        let later = self.0 & (u64::MAX << start.0);
        let found = if later == 0 { self.0 } else { later };
        (found != 0).then(|| PathIndex(found.trailing_zeros() as usize))
    }

    /// All paths, from `start` on and going round.
    pub fn iter_from(self, start: PathIndex) -> impl Iterator<Item = PathIndex> {
        let mut rest = self.0.rotate_right(start.0 as u32);
        std::iter::from_fn(move || {
            let distance = rest.trailing_zeros() as usize;
            let path = (rest != 0).then_some(PathIndex((start.0 + distance) % PATH_COUNT_MAX));
            rest &= rest.wrapping_sub(1);
            path
        })
    }
}

impl fmt::Display for PathSet {
    /// `0,2,3`, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, path) in self.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { "," }, path.0)?;
        }
        if self.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

impl FromIterator<PathIndex> for PathSet {
    fn from_iter<I: IntoIterator<Item = PathIndex>>(paths: I) -> Self {
        let mut set = Self::EMPTY;
        paths.into_iter().for_each(|path| set.insert(path));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_path_goes_round() {
        let mut set = PathSet::EMPTY;
        assert_eq!(set.next_from(PathIndex(0)), None);
        set.insert(PathIndex(1));
        set.insert(PathIndex(63));
        assert_eq!(set.next_from(PathIndex(0)), Some(PathIndex(1)));
        assert_eq!(set.next_from(PathIndex(2)), Some(PathIndex(63)));
        set.remove(PathIndex(63));
        assert_eq!(set.next_from(PathIndex(2)), Some(PathIndex(1)));
        assert_eq!((set.len(), set.contains(PathIndex(63))), (1, false));
    }

    #[test]
    fn all_paths_go_round() {
        let mut set = PathSet::EMPTY;
        [0, 2, 5, 63].into_iter().for_each(|path| set.insert(PathIndex(path)));
        let from = |start| set.iter_from(PathIndex(start)).map(|path| path.0).collect::<Vec<_>>();
        assert_eq!(from(0), [0, 2, 5, 63]);
        assert_eq!(from(3), [5, 63, 0, 2]);
        assert_eq!(from(63), [63, 0, 2, 5]);
        assert_eq!(PathSet::EMPTY.iter_from(PathIndex(7)).count(), 0);
    }
}
