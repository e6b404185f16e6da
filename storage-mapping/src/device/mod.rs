//! The devices at the bottom.
//!
//! * [`memory`]: a disk in memory that many devices can be opened on;
//! * [`mod@file`]: opening a regular file or block node, for the two engines [`uring`] and [`threaded`];
//! * [`control_node`]: device nodes that take control commands, over `scsi_generic` and `nvme_admin`;
//! * [`nbd`]: a disk behind a Network Block Device server;
//! * `iscsi`: a logical unit of an iSCSI target, and its control port (feature `iscsi`);
//! * [`null`]: one that does nothing, to measure what is above it;
//! * [`absent`]: a path that could not be opened yet, in its place;
//! * [`faulty`]: a layer over any of them that makes it misbehave;
//! * [`storage_system`]: a simulated storage system with ports, logical volumes and physical disks;
//! * [`recording`]: the behaviour of a path, recorded and played again.

pub mod absent;
mod chance;
pub mod control_node;
pub mod faulty;
pub mod file;
mod in_flight;
#[cfg(feature = "iscsi")]
pub mod iscsi;
pub mod memory;
pub mod nbd;
pub mod null;
mod nvme_admin;
mod outcome;
pub mod recording;
mod scsi_generic;
pub mod storage_system;
pub mod threaded;
pub mod uring;
mod workers;

pub use absent::{AbsentDevice, NotThere, OpenLater};
pub use control_node::{NodePort, OpenControlPortError, open_control_port};
pub use faulty::{FaultControl, FaultCounters, Faults, FaultyDevice, Hang};
pub use file::{OpenFile, OpenFileError};
#[cfg(feature = "iscsi")]
pub use iscsi::{IscsiDevice, IscsiSettings};
pub use memory::{MemoryDevice, MemoryDisk};
pub use nbd::{NbdDevice, NbdServer, NbdSettings};
pub use null::NullDevice;
pub use recording::{Recorder, Recording, ReplayDevice};
pub use storage_system::{SimulatedPath, StorageSystem};
pub use threaded::ThreadedDevice;
pub use uring::UringDevice;
pub use workers::calls_at_work;
