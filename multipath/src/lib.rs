//! Many paths to the same blocks, as one device that does not depend on any of them.
//!
//! This is layer 125 of FIG. 13 (*multi-path mapping*). [`MultipathDevice`] is a
//! [`BlockDevice`](storage_mapping::BlockDevice) made of others, so that what stands above does not
//! know how many paths there are:
//!
//! ```
//! use multipath::{FailoverConfig, MultipathDevice, PathState};
//! use storage_mapping::device::MemoryDisk;
//! use storage_mapping::{
//!     BlockCount, BlockDevice, BlockSize, Buffer, Instant, IoCompletion, IoRequest, IoTag, Lba, PathIndex,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let disk = MemoryDisk::new(BlockSize::B4096, BlockCount(64));
//! let paths: Vec<Box<dyn BlockDevice>> = vec![Box::new(disk.device()), Box::new(disk.device())];
//! let mut device = MultipathDevice::new(paths, FailoverConfig::default())?;
//!
//! let now = Instant::ZERO; // A real driver reads its clock.
//! let data = Buffer::copy_of(&[7; 4096]).freeze();
//! device.submit(now, IoRequest::write(IoTag(1), Lba(3), data, false)).expect("there is room");
//! device.poll(now).expect("memory answers at once").outcome?;
//!
//! device.fail_path(now, PathIndex(0));
//! device.submit(now, IoRequest::read(IoTag(2), Lba(3), Buffer::zeroed(4096))).expect("there is room");
//! let done = device.poll(now).expect("the other path answers");
//! assert_eq!(done.buffer.into_read().as_deref(), Some(&[7; 4096][..]));
//! assert_eq!(device.status()[0].state, PathState::Disabled);
//! # Ok(())
//! # }
//! ```
//!
//! * [`multipath_device`]: the device;
//! * [`config`]: its numbers;
//! * [`failover`]: its decisions, a state machine without I/O, threads or a clock;
//! * [`error_class`]: what an error says about a path, a request and its copy;
//! * [`group`]: which of the usable paths are used;
//! * [`selector`]: which of several good paths is next;
//! * [`fence`]: which writes wait, so that no old copy lands on newer data;
//! * [`explain`]: why it was so; [`report`]: a device as it stands, as JSON and Prometheus text;
//! * [`plan`]: how long the worst case takes;
//! * [`control`]: how an operator reaches a running device;
//! * [`path_state`]: the states of a path and what `status` shows;
//! * [`out_of_band`]: control commands, over whichever path can carry them.
//!
//! State machines of their own, which the device asks:
//!
//! * [`witness`]: what several paths say together;
//! * [`flap_damping`]: how long a path that comes and goes waits;
//! * [`retry_budget`]: how many retries the device sends;
//! * [`in_flight_limit`]: how many requests a path has at a time;
//! * [`hedge`]: when a read is sent a second time;
//! * [`slow_path`]: which path is slow beside the others;
//! * [`histogram`]: how latencies are distributed; [`latency`]: which are measured.
//!
//! What it promises of writes: a write in doubt (time-out, lost connection, EIO) may still land. It is sent again
//! at once, and later writes to the same blocks are held until the old copy is dead ([`fence`]); or its answer waits
//! too, or it completes as *unknown*, or nothing is held because its sender can tell old bytes from new ones, as its
//! [`FencePolicy`](storage_mapping::FencePolicy) says.

pub mod config;
pub mod control;
pub mod error_class;
pub mod explain;
pub mod failover;
pub mod fence;
pub mod flap_damping;
mod flight;
pub mod group;
pub mod hedge;
pub mod histogram;
pub mod in_flight_limit;
pub mod latency;
pub mod multipath_device;
pub mod out_of_band;
pub mod path_state;
pub mod plan;
mod proof;
pub mod report;
pub mod retry_budget;
pub mod selector;
pub mod slow_path;
pub mod witness;

pub use error_class::{Classified, ErrorClass, PathAction, RequestAction, RequestFacts, classify};
pub use failover::{AfterProbe, FailedAttempt, Failover, FailoverConfig, NoPathPolicy, PathConfig, Verdict};
pub use fence::{BlockRange, Fence, LivingCopy};
pub use group::{Failback, Groups};
pub use multipath_device::{
    DrillConfig, DrillError, DrillFault, DrillReport, DrillSample, DrillStage, MultipathDevice,
    MultipathError,
};
pub use path_state::{PATH_COUNT_MAX, PathSet, PathState, PathStatus};
pub use selector::{PathSelector, RoundRobin, Score, ScoreUnit, Selector, SelectorKind};
