//! One lane of a host: what it remembers over its lives, and the process that has it now.
//!
//! ```text
//!  Down ──start──▶ Starting ──started──▶ Calling ──connected──▶ Working ──finished──▶ Closing ──closed──▶ Leaving ──▶ Down
//!    ▲                │ serving lane: Serving                                                               │
//!    └────────────────┴──────────────── killed, stopped, or too late ◀──────────────────────────────────────┘
//! ```
//!
//! Keeps true: the local state is the only thing of a process that the next one gets. Not here: who kills
//! it (`world`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use storage_mapping::Instant;
use transfer_core::format::host_table::HostRecord;
use transfer_core::protocol::connection::ConnectionId;
use transfer_core::protocol::startup::LocalState;
use transfer_core::transfer::ServingFiles;

use crate::host::Process;
use crate::snapshot::Snapshot;

/// The longest a start may take, as in the program.
pub const START_MAX: Duration = Duration::from_secs(90);
/// How long the last word of a finished connection may take, as in the program.
pub const CLOSE_MAX: Duration = Duration::from_secs(5);
/// How long the last writes of a process may take, as in the program.
pub const FAREWELL_MAX: Duration = Duration::from_secs(3);

/// Where a process stands; drawn at the head of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It takes its lane.
    Starting {
        /// It gives up then.
        limit: Instant,
    },
    /// It answers.
    Serving,
    /// It calls.
    Calling(ConnectionId),
    /// It has a connection.
    Working(ConnectionId),
    /// It has its result and closes.
    Closing {
        /// Which connection.
        connection: ConnectionId,
        /// It leaves then.
        limit: Instant,
    },
    /// It says goodbye.
    Leaving {
        /// It is gone then.
        limit: Instant,
    },
    /// It is to be taken away.
    Gone,
}

/// A process and what it is for.
#[derive(Debug)]
pub struct Life {
    /// The process.
    pub process: Process,
    /// Where it stands.
    pub stage: Stage,
    /// The exports, of a serving process.
    pub serving: Option<Arc<ServingFiles>>,
    /// The job, of a command.
    pub job: Option<usize>,
}

/// A lane.
#[derive(Debug)]
pub struct Lane {
    /// The host.
    pub host: usize,
    /// Its row of the host table.
    pub record: HostRecord,
    /// What the host remembers.
    pub local: LocalState,
    /// The process.
    pub life: Option<Life>,
    /// Number of the life.
    pub lives: u64,
    /// It does not run until then.
    pub paused_until: Instant,
    /// A copy of another lane: it is not started again.
    pub is_clone: bool,
    /// Its process as it was at some moment.
    pub snapshot: Option<Snapshot>,
    /// The jobs that are left, of a command lane.
    pub jobs: VecDeque<usize>,
}

impl Lane {
    /// A lane that never lived.
    #[must_use]
    pub fn new(host: usize, record: HostRecord) -> Self {
        Self {
            host,
            record,
            local: LocalState::default(),
            life: None,
            lives: 0,
            paused_until: Instant::ZERO,
            is_clone: false,
            snapshot: None,
            jobs: VecDeque::new(),
        }
    }

    /// A second instance of `lane`.
    #[must_use]
    pub fn clone_of(lane: &Self) -> Self {
        Self { local: lane.local.clone(), is_clone: true, ..Self::new(lane.host, lane.record.clone()) }
    }

    /// Whether it is to be started again when its process is gone.
    #[must_use]
    pub fn comes_back(&self) -> bool {
        !self.is_clone && (self.is_serving() || !self.jobs.is_empty())
    }

    /// Whether it answers calls.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.record.lane == 0
    }

    /// Its name, for the trace.
    #[must_use]
    pub fn name(&self) -> String {
        let mark = if self.is_clone { "*" } else { "" };
        format!("{}.{}{mark}", self.record.name.as_str(), self.record.lane)
    }

    /// When it wants to run.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.life.as_ref().map(|life| life.process.due().max(self.paused_until))
    }
}
