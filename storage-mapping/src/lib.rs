//! The words for blocks, the one trait that every layer speaks, and the devices at the bottom.
//!
//! This is layer 127 of FIG. 13 (*storage system mapping*): whatever lies above addresses blocks
//! through [`BlockDevice`], and whatever a path address such as `file:/tmp/disk` names is opened
//! here.
//!
//! * [`block`]: addresses, counts and sizes as types of their own, requests and completions,
//!   aligned buffers, time as a plain number, and the trait;
//! * [`device`]: memory, io_uring, thread-pool and fault-injecting devices.
//!
//! Not here: choosing between paths (crate `multipath`), what the blocks mean (crates `volume` and
//! `transfer-core`).

pub mod block;
pub mod device;

pub use block::address::{BlockCount, BlockSize, ByteSize, Lba};
pub use block::buffer::{Buffer, BufferPool, SharedBuffer};
pub use block::request::{
    Cancelled, CopyFate, Effect, ErrorSource, FencePolicy, IoBuffer, IoCompletion, IoError, IoRequest, IoTag,
    Operation, PathIndex, RefusalReason, Refused, SettledProof,
};
pub use block::time::Instant;
pub use block::{BlockDevice, DeviceEvent, Geometry};
