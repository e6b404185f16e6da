//! How long the worst case takes, for each kind of fault, from the numbers of a device alone.
//!
//! What is predicted is the time from the fault to the end of a request that met it, with one path at fault and another
//! that is well: every step of the layer is bounded by a number of its configuration, what a path itself takes
//! (`service_time`) is told to it, and a loop that has a machine to share sees a time-out a little late ([`LATENESS`]). A drill measures the same (`drill` of the device).
//!
//! Keeps true: a prediction names the numbers that it is made of, so that a reader sees which one to change. Not here: slow
//! paths; what a selector makes of them hangs on the load and not on a bound.

use std::fmt;
use std::time::Duration;

use crate::config::{FailoverConfig, NoPathPolicy};
use crate::proof::BLOCKS;

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The path answers with errors, or takes nothing more.
    Error,
    /// The path does not answer; a read, or a write that no older copy holds.
    Hang,
    /// The same, and a later write to the same blocks.
    HangThenOverwrite,
    /// The path does not answer a flush.
    HangOfFlush,
    /// The path stops answering while nothing is sent over it: when that is known.
    SilentHang,
    /// No path can be used.
    NoPath,
    /// A path that was away is back: when it carries I/O again.
    Return,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Error,
        Self::Hang,
        Self::HangThenOverwrite,
        Self::HangOfFlush,
        Self::SilentHang,
        Self::NoPath,
        Self::Return,
    ];

    /// The word that users write.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Hang => "hang",
            Self::HangThenOverwrite => "hang-then-overwrite",
            Self::HangOfFlush => "hang-of-flush",
            Self::SilentHang => "silent-hang",
            Self::NoPath => "no-path",
            Self::Return => "return",
        }
    }
}

/// One addend of a worst case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// What takes the time.
    pub what: &'static str,
    /// How long.
    pub time: Duration,
}

/// The worst case of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// The kind.
    pub fault: FaultKind,
    /// The longest time, which is the sum of the terms; `None`: there is no bound.
    pub worst: Option<Duration>,
    /// What ends then.
    pub what: &'static str,
    /// What the time is made of; without a bound, why there is none is in the only one of them.
    pub terms: Vec<Term>,
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.worst {
            Some(worst) => write!(f, "{}: {worst:?} until {}", self.fault.word(), self.what)?,
            None => write!(f, "{}: no bound until {}", self.fault.word(), self.what)?,
        }
        for (index, term) in self.terms.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { " (" } else { " + " }, term.what)?;
        }
        f.write_str(")")
    }
}

/// Where the service time of a plan comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Basis {
    /// Somebody said it.
    Given,
    /// It is the longest that was measured.
    Measured,
    /// Nothing was measured: it is [`SERVICE_TIME_ASSUMED`].
    Assumed,
}

impl Basis {
    /// The word that users read.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Measured => "measured",
            Self::Assumed => "assumed",
        }
    }
}

/// What a path is taken to need where nothing was measured.
pub const SERVICE_TIME_ASSUMED: Duration = Duration::from_millis(10);
/// How late a time-out may be seen by a loop that has a machine to share.
pub const LATENESS: Duration = Duration::from_millis(20);

/// The worst cases of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its paths.
    pub paths: u32,
    /// What one of them takes at most.
    pub service_time: Duration,
    /// Where that comes from.
    pub basis: Basis,
    /// A prediction for every kind of fault.
    pub predictions: Vec<Prediction>,
}

impl Plan {
    /// The worst cases of a device that does not run.
    #[must_use]
    pub fn of_config(config: &FailoverConfig, paths: u32, service_time: Option<Duration>) -> Self {
        let basis = if service_time.is_some() { Basis::Given } else { Basis::Assumed };
        Self::new(config, paths, service_time.unwrap_or(SERVICE_TIME_ASSUMED), basis)
    }

    pub(crate) fn new(config: &FailoverConfig, paths: u32, service_time: Duration, basis: Basis) -> Self {
        Self { paths, service_time, basis, predictions: plan(config, paths, service_time) }
    }

    /// The longest time after a fault of this kind, if there is a bound.
    #[must_use]
    pub fn worst(&self, fault: FaultKind) -> Option<Duration> {
        self.predictions.iter().find(|found| found.fault == fault)?.worst
    }
}

/// The worst case of every kind, for a device of `path_count` paths each of which takes at most `service_time`.
#[must_use]
pub fn plan(config: &FailoverConfig, path_count: u32, service_time: Duration) -> Vec<Prediction> {
    FaultKind::ALL.into_iter().map(|fault| predict(config, path_count, service_time, fault)).collect()
}

fn predict(config: &FailoverConfig, path_count: u32, service_time: Duration, fault: FaultKind) -> Prediction {
    let FailoverConfig { attempt_timeout, flush_timeout, quiesce_time, probe_interval, .. } = *config;
    let term = |what, time| Term { what, time };
    let hung = term("attempt_timeout", attempt_timeout);
    let late = term("lateness", LATENESS);
    let other = term("other path", service_time);
    let (what, terms) = match fault {
        FaultKind::Error => {
            ("the request is done over another path", vec![term("until the error", service_time), other])
        }
        FaultKind::Hang => ("the request is done over another path", vec![hung, late, other]),
        FaultKind::HangThenOverwrite => {
            ("the later write is done", vec![hung, term("quiesce_time", quiesce_time), late, other])
        }
        FaultKind::HangOfFlush => (
            "the flush fails, once: what it was to make durable is to be written again",
            vec![term("time-out of a flush", flush_timeout), late],
        ),
        FaultKind::SilentHang => {
            let Some(interval) = config.check_interval else {
                return Prediction {
                    fault,
                    worst: None,
                    what: "the path is left",
                    terms: vec![term("silent paths are not checked", Duration::ZERO)],
                };
            };
            // The longest silence is that of a device that nobody uses.
            let idle = crate::failover::DEEP_IDLE_CHECK * path_count;
            let silence = term("check of an idle device", interval.max(idle));
            ("the path is left", vec![silence, hung, late])
        }
        FaultKind::NoPath => match config.no_path {
            NoPathPolicy::Fail => ("the request fails", vec![term("until the error", service_time)]),
            NoPathPolicy::QueueFor(patience) => {
                ("the request fails, if no path comes back", vec![term("no_path", patience), late])
            }
            NoPathPolicy::Queue => {
                return Prediction {
                    fault,
                    worst: None,
                    what: "a path comes back",
                    terms: vec![term("no_path is \"queue\"", Duration::ZERO)],
                };
            }
        },
        FaultKind::Return => {
            let reads = u32::try_from(BLOCKS).unwrap_or(u32::MAX).saturating_add(1);
            let terms = vec![
                term("interval of probes", probe_interval),
                late,
                term("probe and comparison", service_time * reads),
            ];
            ("the path carries I/O again", terms)
        }
    };
    Prediction { fault, worst: Some(terms.iter().map(|term| term.time).sum()), what, terms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_case_follows_the_numbers() {
        let ms = Duration::from_millis;
        let config =
            FailoverConfig { attempt_timeout: ms(200), quiesce_time: ms(1000), ..FailoverConfig::default() };
        let worst = |fault| {
            let all = plan(&config, 2, ms(10));
            all.into_iter().find(|found| found.fault == fault).unwrap().worst
        };
        assert_eq!(worst(FaultKind::Error), Some(ms(20)));
        assert_eq!(worst(FaultKind::Hang), Some(ms(230)));
        assert_eq!(worst(FaultKind::HangThenOverwrite), Some(ms(1230)));
        assert_eq!(worst(FaultKind::SilentHang), Some(ms(120_220)));
        assert_eq!(worst(FaultKind::NoPath), Some(ms(60_020)));
        assert_eq!(worst(FaultKind::Return), Some(ms(1080)));
        let forever = FailoverConfig { no_path: NoPathPolicy::Queue, check_interval: None, ..config };
        let unbounded = plan(&forever, 2, ms(10)).into_iter().filter(|found| found.worst.is_none());
        assert_eq!(
            unbounded.map(|found| found.fault).collect::<Vec<_>>(),
            [FaultKind::SilentHang, FaultKind::NoPath]
        );
    }
}
