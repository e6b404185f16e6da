//! How long the worst case takes, for each kind of fault, from the numbers of a device alone.
//!
//! What is predicted is the time from the fault to the end of a request that met it, with one path at fault and another
//! that is well, and no other load on the machine: every step of the layer is bounded by a number of its configuration,
//! and what a path itself takes (`service_time`) is told to it. A drill measures the same (`drill` of the device).
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

/// The worst case of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// The kind.
    pub fault: FaultKind,
    /// The longest time; `None`: there is no bound.
    pub worst: Option<Duration>,
    /// What ends then.
    pub what: &'static str,
    /// What the time is made of.
    pub sum: String,
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.worst {
            Some(worst) => write!(f, "{}: {worst:?} until {} ({})", self.fault.word(), self.what, self.sum),
            None => write!(f, "{}: no bound until {} ({})", self.fault.word(), self.what, self.sum),
        }
    }
}

/// The worst case of every kind, for a device of `path_count` paths each of which takes at most `service_time`.
#[must_use]
pub fn plan(config: &FailoverConfig, path_count: u32, service_time: Duration) -> Vec<Prediction> {
    FaultKind::ALL.into_iter().map(|fault| predict(config, path_count, service_time, fault)).collect()
}

fn predict(config: &FailoverConfig, path_count: u32, service_time: Duration, fault: FaultKind) -> Prediction {
    let FailoverConfig { attempt_timeout, flush_timeout, quiesce_time, probe_interval, .. } = *config;
    let (worst, what, sum) = match fault {
        FaultKind::Error => (
            Some(service_time * 2),
            "the request is done over another path",
            "service time until the error + service time of the other path".to_owned(),
        ),
        FaultKind::Hang => (
            Some(attempt_timeout + service_time),
            "the request is done over another path",
            "attempt time-out + service time".to_owned(),
        ),
        FaultKind::HangThenOverwrite => (
            Some(attempt_timeout + quiesce_time + service_time),
            "the later write is done",
            "attempt time-out + quiesce time + service time".to_owned(),
        ),
        FaultKind::HangOfFlush => (
            Some(flush_timeout),
            "the flush fails, once: what it was to make durable is to be written again",
            "flush time-out".to_owned(),
        ),
        FaultKind::SilentHang => {
            // The longest silence is that of a device that nobody uses.
            let idle = crate::failover::DEEP_IDLE_CHECK * path_count;
            let worst = config.check_interval.map(|interval| interval.max(idle) + attempt_timeout);
            (worst, "the path is left", "check interval (idle: 60 s × paths) + attempt time-out".to_owned())
        }
        FaultKind::NoPath => match config.no_path {
            NoPathPolicy::Fail => (Some(service_time), "the request fails", "policy: fail".to_owned()),
            NoPathPolicy::QueueFor(patience) => (
                Some(patience),
                "the request fails, if no path comes back",
                "policy: queue for a time".to_owned(),
            ),
            NoPathPolicy::Queue => (None, "a path comes back", "policy: queue".to_owned()),
        },
        FaultKind::Return => {
            let reads = u32::try_from(BLOCKS).unwrap_or(u32::MAX).saturating_add(1);
            let sum = format!("probe interval + probe and comparison, {reads} × service time");
            (Some(probe_interval + service_time * reads), "the path carries I/O again", sum)
        }
    };
    Prediction { fault, worst, what, sum }
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
        assert_eq!(worst(FaultKind::Hang), Some(ms(210)));
        assert_eq!(worst(FaultKind::HangThenOverwrite), Some(ms(1210)));
        assert_eq!(worst(FaultKind::SilentHang), Some(ms(120_200)));
        assert_eq!(worst(FaultKind::NoPath), Some(ms(60_000)));
        assert_eq!(worst(FaultKind::Return), Some(ms(1060)));
        let forever = FailoverConfig { no_path: NoPathPolicy::Queue, check_interval: None, ..config };
        let unbounded = plan(&forever, 2, ms(10)).into_iter().filter(|found| found.worst.is_none());
        assert_eq!(
            unbounded.map(|found| found.fault).collect::<Vec<_>>(),
            [FaultKind::SilentHang, FaultKind::NoPath]
        );
    }
}
