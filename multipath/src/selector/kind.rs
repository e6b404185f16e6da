//! The selectors by name, and one type for all of them.
//!
//! Keeps true: what [`SelectorKind`] prints, it parses to the same; a call through [`Selector`] is a
//! branch, not a call through a pointer, [`Selector::Custom`] excepted. Not here: how they choose.

use std::fmt::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use storage_mapping::{Instant, PathIndex};
use thiserror::Error;

use super::{Latency, PathSelector, QueueLength, RoundRobin, Score, ServiceTime, Weighted};
use crate::path_state::{PATH_COUNT_MAX, PathSet};

/// The largest weight, as in dm-mpath.
pub const WEIGHT_MAX: u8 = 100;

/// Why a word names no selector.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelectorKindError {
    /// There is none of that name.
    #[error(
        "there is no selector {0:?}: use round-robin, queue-length, service-time, latency, weighted \
         or request"
    )]
    Unknown(String),
    /// Weights where none are used.
    #[error("the selector {0} has no parameters: leave out the colon and what follows it")]
    NoParameters(String),
    /// A weight that is none.
    #[error("{0:?} is not a weight: weights are whole numbers from 0 to {WEIGHT_MAX}")]
    BadWeight(String),
    /// More weights than a device can have paths.
    #[error("{count} weights are too many: {PATH_COUNT_MAX} are the most, one for each path")]
    TooManyWeights {
        /// How many were given.
        count: usize,
    },
    /// No path would ever be preferred.
    #[error("all weights are 0: give at least one path more")]
    AllZero,
}

/// A weight for each path, 0 to [`WEIGHT_MAX`]; 1 where none is given.
#[derive(Clone, PartialEq, Eq)]
pub struct Weights {
    of_path: [u8; PATH_COUNT_MAX],
    /// How many were given.
    count: usize,
}

impl Weights {
    /// The weights of path 0, 1, and so on.
    ///
    /// # Errors
    /// [`SelectorKindError::BadWeight`] and [`SelectorKindError::TooManyWeights`].
    pub fn new(weights: &[u8]) -> Result<Self, SelectorKindError> {
        let count = weights.len();
        if let Some(bad) = weights.iter().find(|weight| **weight > WEIGHT_MAX) {
            return Err(SelectorKindError::BadWeight(bad.to_string()));
        }
        let mut of_path = [1; PATH_COUNT_MAX];
        let given = of_path.get_mut(..count).ok_or(SelectorKindError::TooManyWeights { count })?;
        given.copy_from_slice(weights);
        Ok(Self { of_path, count })
    }

    /// The weight of a path.
    #[must_use]
    pub fn of(&self, path: PathIndex) -> u8 {
        self.of_path[path.0]
    }

    /// Those that were given.
    #[must_use]
    pub fn given(&self) -> &[u8] {
        &self.of_path[..self.count]
    }
}

impl Default for Weights {
    /// All equal.
    fn default() -> Self {
        Self { of_path: [1; PATH_COUNT_MAX], count: 0 }
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.given()).finish()
    }
}

impl FromStr for Weights {
    type Err = SelectorKindError;

    fn from_str(text: &str) -> Result<Self, SelectorKindError> {
        let count = text.split(',').count();
        if count > PATH_COUNT_MAX {
            return Err(SelectorKindError::TooManyWeights { count });
        }
        let one = |word: &str| {
            let is_plain = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
            let weight = word.parse().ok().filter(|_| is_plain);
            weight.ok_or_else(|| SelectorKindError::BadWeight(word.to_owned()))
        };
        Self::new(&text.split(',').map(one).collect::<Result<Vec<u8>, _>>()?)
    }
}

/// The name of a selector, with its parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SelectorKind {
    /// `round-robin`: see [`RoundRobin`].
    RoundRobin,
    /// `queue-length`: see [`QueueLength`].
    QueueLength,
    /// `service-time` or `service-time:4,1`: see [`ServiceTime`].
    ServiceTime(Weights),
    /// `latency`: see [`Latency`].
    #[default]
    Latency,
    /// `weighted:3,1`: see [`Weighted`].
    Weighted(Weights),
    /// `request`: the path that a request names, unless it is dead; the others in turn.
    Request,
}

impl SelectorKind {
    /// The word without parameters.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::QueueLength => "queue-length",
            Self::ServiceTime(_) => "service-time",
            Self::Latency => "latency",
            Self::Weighted(_) => "weighted",
            Self::Request => "request",
        }
    }
}

impl fmt::Display for SelectorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        if let Self::ServiceTime(weights) | Self::Weighted(weights) = self {
            for (index, weight) in weights.given().iter().enumerate() {
                f.write_char(if index == 0 { ':' } else { ',' })?;
                write!(f, "{weight}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for SelectorKind {
    type Err = SelectorKindError;

    fn from_str(text: &str) -> Result<Self, SelectorKindError> {
        let (word, parameters) = match text.split_once(':') {
            Some((word, parameters)) => (word, Some(parameters)),
            None => (text, None),
        };
        let weights = || {
            let weights = parameters.map_or(Ok(Weights::default()), Weights::from_str)?;
            let is_zero = !weights.given().is_empty() && weights.given().iter().all(|weight| *weight == 0);
            if is_zero { Err(SelectorKindError::AllZero) } else { Ok(weights) }
        };
        let kind = match word {
            "service-time" => return Ok(Self::ServiceTime(weights()?)),
            "weighted" => return Ok(Self::Weighted(weights()?)),
            "round-robin" => Self::RoundRobin,
            "queue-length" => Self::QueueLength,
            "latency" => Self::Latency,
            "request" => Self::Request,
            _ => return Err(SelectorKindError::Unknown(word.to_owned())),
        };
        if parameters.is_some() { Err(SelectorKindError::NoParameters(word.to_owned())) } else { Ok(kind) }
    }
}

/// Any selector.
pub enum Selector {
    /// See [`RoundRobin`].
    RoundRobin(RoundRobin),
    /// See [`QueueLength`].
    QueueLength(QueueLength),
    /// See [`ServiceTime`].
    ServiceTime(ServiceTime),
    /// See [`Latency`].
    Latency(Latency),
    /// See [`Weighted`].
    Weighted(Weighted),
    /// The path that a request names, unless it is dead; the others in turn.
    Request(RoundRobin),
    /// One from outside this crate.
    Custom(Box<dyn PathSelector>),
}

impl Selector {
    /// Makes a selector that counts what is sent from `now` on.
    #[must_use]
    pub fn new(now: Instant, kind: SelectorKind) -> Self {
        match kind {
            SelectorKind::RoundRobin => Self::RoundRobin(RoundRobin::default()),
            SelectorKind::QueueLength => Self::QueueLength(QueueLength::new(now)),
            SelectorKind::ServiceTime(weights) => Self::ServiceTime(ServiceTime::new(now, weights)),
            SelectorKind::Latency => Self::Latency(Latency::new(now)),
            SelectorKind::Weighted(weights) => Self::Weighted(Weighted::new(weights)),
            SelectorKind::Request => Self::Request(RoundRobin::default()),
        }
    }

    /// Becomes another one while I/O goes on. That starts without knowledge, and leaves out what is in
    /// flight already.
    pub fn switch(&mut self, now: Instant, kind: SelectorKind) {
        *self = Self::new(now, kind);
    }

    /// Its name and parameters; `None` for one from outside.
    #[must_use]
    pub fn kind(&self) -> Option<SelectorKind> {
        Some(match self {
            Self::RoundRobin(_) => SelectorKind::RoundRobin,
            Self::QueueLength(_) => SelectorKind::QueueLength,
            Self::ServiceTime(selector) => SelectorKind::ServiceTime(selector.weights().clone()),
            Self::Latency(_) => SelectorKind::Latency,
            Self::Weighted(selector) => SelectorKind::Weighted(selector.weights().clone()),
            Self::Request(_) => SelectorKind::Request,
            Self::Custom(_) => return None,
        })
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            Some(kind) => write!(f, "Selector({kind})"),
            None => f.write_str("Selector(custom)"),
        }
    }
}

/// The same call on whichever selector it is.
macro_rules! dispatch {
    ($selector:expr, $inner:ident => $call:expr) => {
        match $selector {
            Selector::RoundRobin($inner) | Selector::Request($inner) => $call,
            Selector::QueueLength($inner) => $call,
            Selector::ServiceTime($inner) => $call,
            Selector::Latency($inner) => $call,
            Selector::Weighted($inner) => $call,
            Selector::Custom($inner) => $call,
        }
    };
}

impl PathSelector for Selector {
    fn name(&self) -> String {
        self.kind().map_or_else(|| "custom".to_owned(), |kind| kind.to_string())
    }

    fn select_path(&mut self, now: Instant, candidates: PathSet, bytes: usize) -> Option<PathIndex> {
        dispatch!(self, inner => inner.select_path(now, candidates, bytes))
    }

    fn start_io(&mut self, now: Instant, path: PathIndex, bytes: usize) {
        dispatch!(self, inner => inner.start_io(now, path, bytes));
    }

    fn end_io(&mut self, now: Instant, path: PathIndex, bytes: usize, took: Duration, is_success: bool) {
        dispatch!(self, inner => inner.end_io(now, path, bytes, took, is_success));
    }

    fn fail_path(&mut self, now: Instant, path: PathIndex) {
        dispatch!(self, inner => inner.fail_path(now, path));
    }

    fn reinstate_path(&mut self, now: Instant, path: PathIndex) {
        dispatch!(self, inner => inner.reinstate_path(now, path));
    }

    fn score(&self, now: Instant, path: PathIndex, bytes: usize) -> Score {
        dispatch!(self, inner => inner.score(now, path, bytes))
    }

    fn prefers_named_path(&self) -> bool {
        match self {
            Self::Request(_) => true,
            Self::Custom(inner) => inner.prefers_named_path(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{T0, first};
    use super::*;

    const WORDS: [&str; 9] = [
        "round-robin",
        "queue-length",
        "service-time",
        "service-time:4,1",
        "latency",
        "weighted",
        "weighted:3,1",
        "weighted:0,100,7",
        "request",
    ];

    #[test]
    fn words_parse_print_and_make_what_they_say() {
        for word in WORDS {
            let kind: SelectorKind = word.parse().unwrap();
            assert_eq!(kind.to_string(), word);
            let mut selector = Selector::new(T0, kind.clone());
            assert_eq!((selector.kind(), format!("{selector:?}")), (Some(kind), format!("Selector({word})")));
            assert_eq!(selector.prefers_named_path(), word == "request");
            assert_eq!(selector.select_path(T0, PathSet::EMPTY, 512), None);
            assert!(selector.select_path(T0, first(3), 512).is_some_and(|path| path.0 < 3));
        }
    }

    #[test]
    fn other_words_say_what_is_wrong() {
        let error = |word: &str| word.parse::<SelectorKind>().unwrap_err();
        assert_eq!(error("fastest"), SelectorKindError::Unknown("fastest".to_owned()));
        assert_eq!(error(""), SelectorKindError::Unknown(String::new()));
        assert_eq!(error("latency:1"), SelectorKindError::NoParameters("latency".to_owned()));
        for bad in ["", "x", "-1", "+1", "101", "256", " 1"] {
            assert_eq!(error(&format!("weighted:3,{bad}")), SelectorKindError::BadWeight(bad.to_owned()));
        }
        assert_eq!(error("weighted:0,0"), SelectorKindError::AllZero);
        let many = format!("service-time:{}", vec!["1"; 65].join(","));
        assert_eq!(error(&many), SelectorKindError::TooManyWeights { count: 65 });
        assert_eq!(Weights::new(&[1; 65]).unwrap_err(), SelectorKindError::TooManyWeights { count: 65 });
    }

    #[test]
    fn a_switch_while_io_goes_on_counts_only_what_is_sent_after_it() {
        for word in ["queue-length", "latency"] {
            let mut selector = Selector::new(T0, SelectorKind::RoundRobin);
            selector.start_io(T0, PathIndex(0), 512);
            let (at, later) = (Instant(5000), Instant(6000));
            selector.switch(at, word.parse().unwrap());
            assert_eq!(selector.kind().unwrap().to_string(), word);
            let idle = selector.score(at, PathIndex(0), 512);
            selector.start_io(at, PathIndex(0), 512);
            let busy = selector.score(later, PathIndex(0), 512);
            selector.end_io(later, PathIndex(0), 512, Duration::from_nanos(6000), true);
            assert_eq!(selector.score(later, PathIndex(0), 512), busy, "{word}: sent before");
            selector.end_io(later, PathIndex(0), 512, Duration::from_nanos(1000), true);
            assert!(busy.value > idle.value && selector.score(later, PathIndex(0), 512).value < busy.value);
        }
    }

    #[test]
    fn one_from_outside_is_asked_like_the_others() {
        struct Last;
        impl PathSelector for Last {
            fn select_path(&mut self, _: Instant, candidates: PathSet, _: usize) -> Option<PathIndex> {
                candidates.iter_from(PathIndex(0)).last()
            }
            fn start_io(&mut self, _: Instant, _: PathIndex, _: usize) {}
            fn end_io(&mut self, _: Instant, _: PathIndex, _: usize, _: Duration, _: bool) {}
            fn fail_path(&mut self, _: Instant, _: PathIndex) {}
            fn reinstate_path(&mut self, _: Instant, _: PathIndex) {}
            fn score(&self, _: Instant, path: PathIndex, _: usize) -> Score {
                Score { value: -(path.0 as i64), unit: super::super::ScoreUnit::Turns }
            }
            fn prefers_named_path(&self) -> bool {
                true
            }
        }
        let mut selector = Selector::Custom(Box::new(Last));
        assert_eq!(selector.select_path(T0, first(3), 1), Some(PathIndex(2)));
        assert_eq!((selector.kind(), selector.prefers_named_path()), (None, true));
        assert_eq!(selector.score(T0, PathIndex(2), 1).to_string(), "-2 turns");
    }
}
