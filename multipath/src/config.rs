//! The numbers of the layer: of a device, and of each of its paths.
//!
//! Not here: what they do (`failover`, and the modules whose numbers are in it), how a user writes them.

use std::time::Duration;

use crate::flap_damping::FlapDampingConfig;
use crate::group::Failback;
use crate::hedge::HedgeConfig;
use crate::retry_budget::RetryBudgetConfig;
use crate::slow_path::SlowPathConfig;
use crate::witness::WitnessConfig;

/// What becomes of requests while no path can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPathPolicy {
    /// They fail at once.
    Fail,
    /// They wait.
    Queue,
    /// They wait for so long from their submission on, and then fail.
    QueueFor(Duration),
}

/// What one path is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathConfig {
    /// Paths of equal priority are a group; more is better.
    pub priority: u16,
    /// Paths of one number share something that may fail: a network card, a port, a process. One that
    /// is found dead makes the others suspect.
    pub fault_domain: Option<u16>,
    /// [`FailoverConfig::quiesce_time`] where this path has its own.
    pub quiesce_time: Option<Duration>,
}

/// The numbers of the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailoverConfig {
    /// Times that one request is sent, at most.
    pub attempts_max: u32,
    /// How long an attempt may take before its path counts as hung.
    pub attempt_timeout: Duration,
    /// The same for a flush, which may have much to write.
    pub flush_timeout: Duration,
    /// How long a busy request waits before it is sent again.
    pub busy_delay: Duration,
    /// What becomes of requests while no path can be used.
    pub no_path: NoPathPolicy,
    /// When a better group of paths is used again.
    pub failback: Failback,
    /// Paths but the first carry nothing before they were compared with one in use, as if they had been away.
    pub compares_at_start: bool,
    /// How long after a failure, or a failed probe, a path is probed; the same for a path that gave a suspicious
    /// error.
    pub probe_interval: Duration,
    /// How long a path that is in use may be silent before it is probed; `None`: it is not.
    pub check_interval: Option<Duration>,
    /// How long the device must have been idle before its paths are probed one a minute in all.
    pub deep_idle_after: Duration,
    /// What several paths say together.
    pub witness: WitnessConfig,
    /// How long a path that comes and goes stays out of use.
    pub flap_damping: FlapDampingConfig,
    /// When a path is slow beside the others, and used only where no other is left.
    pub slow_path: SlowPathConfig,
    /// How many retries are sent.
    pub retry_budget: RetryBudgetConfig,
    /// When a read is sent a second time.
    pub hedge: HedgeConfig,
    /// Requests that a path has at a time follow what it works on, up to its queue depth; else it is given as many
    /// as it takes.
    pub adapts_in_flight: bool,
    /// How long a copy of a write that was given up on may land, as far as is assumed: what proves nothing earlier
    /// holds overlapping writes back for so long.
    pub quiesce_time: Duration,
    /// Bytes of I/O that was given up on and that paths have still, before nothing new is taken.
    pub quarantine_max_bytes: usize,
    /// All paths lead to one write cache, so that a flush over any of them is enough.
    pub cache_is_shared: bool,
}

impl Default for FailoverConfig {
    /// Five seconds are above what a healthy device needs, and below what users wait; a minute
    /// without a path spans the restart of a switch.
    fn default() -> Self {
        Self {
            attempts_max: 8,
            attempt_timeout: Duration::from_secs(5),
            flush_timeout: Duration::from_secs(30),
            busy_delay: Duration::from_millis(10),
            no_path: NoPathPolicy::QueueFor(Duration::from_secs(60)),
            failback: Failback::Immediate,
            compares_at_start: false,
            probe_interval: Duration::from_secs(1),
            check_interval: Some(Duration::from_secs(20)),
            deep_idle_after: Duration::from_secs(60),
            witness: WitnessConfig::default(),
            flap_damping: FlapDampingConfig::default(),
            slow_path: SlowPathConfig::default(),
            retry_budget: RetryBudgetConfig::default(),
            hedge: HedgeConfig::default(),
            adapts_in_flight: false,
            quiesce_time: Duration::from_secs(30),
            quarantine_max_bytes: 64 << 20,
            cache_is_shared: false,
        }
    }
}
