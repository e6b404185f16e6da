//! The words for blocks, the one trait that every layer speaks, and the devices at the bottom.
//!
//! This is layer 127 of FIG. 13 (*storage system mapping*): whatever lies above addresses blocks
//! through [`BlockDevice`], and whatever a path address such as `file:/tmp/disk` names is opened
//! here.
//!
//! * [`block`]: addresses, counts and sizes as types of their own, requests and completions,
//!   aligned buffers, time as a plain number, and the trait;
//! * [`control_port`]: the seam for out-of-band control commands; [`scsi`], [`nvme`]: their bytes;
//! * [`device`]: memory, io_uring, thread-pool and fault-injecting devices;
//! * [`hand_off`]: how jobs go to threads and results come back;
//! * [`path_address`]: what a configuration writes for one path, and how it is opened;
//! * [`identity`]: which disk a path leads to;
//! * [`in_use`]: what speaks against overwriting a file or block node;
//! * [`wait`]: waiting for descriptors; [`scheduling`]: for a processor.
//!
//! Two openings of one disk, as two hosts have them; what one writes the other reads:
//!
//! ```
//! use storage_mapping::{BlockDevice, Buffer, Instant, IoCompletion, IoRequest, IoTag, Lba, path_address};
//!
//! /// A driver that has nothing else to do; a real one waits on `wait_on` and `next_wakeup`.
//! fn run(device: &mut dyn BlockDevice, request: IoRequest) -> IoCompletion {
//!     device.submit(Instant::ZERO, request).expect("the queue is empty");
//!     loop {
//!         if let Some(done) = device.poll(Instant::ZERO) {
//!             return done;
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let disk = std::env::temp_dir().join(format!("diskwire-example-{}", std::process::id()));
//! std::fs::File::create(&disk)?.set_len(1 << 20)?;
//! let address = format!("file:{}?block=4096", disk.display()).parse()?;
//! let mut here = path_address::open(&address)?;
//! let mut there = path_address::open(&address)?;
//! for notice in &here.notices {
//!     eprintln!("{notice}");
//! }
//!
//! let data = Buffer::copy_of(&[7; 4096]).freeze();
//! let written = run(&mut here.device, IoRequest::write(IoTag(1), Lba(3), data, true));
//! written.outcome?;
//!
//! let read = run(&mut there.device, IoRequest::read(IoTag(2), Lba(3), Buffer::zeroed(4096)));
//! read.outcome?;
//! assert_eq!(read.buffer.into_read().as_deref(), Some(&[7; 4096][..]));
//! # std::fs::remove_file(&disk)?;
//! # Ok(())
//! # }
//! ```
//!
//! Not here: choosing between paths (crate `multipath`), what the blocks mean (crates `volume` and
//! `transfer-core`).

pub mod block;
pub mod control_port;
pub mod device;
pub mod hand_off;
pub mod identity;
pub mod in_use;
pub mod nvme;
pub mod path_address;
pub mod scheduling;
pub mod scsi;
mod sync;
pub mod wait;

pub use block::address::{BlockCount, BlockSize, ByteSize, Lba};
pub use block::buffer::{Buffer, BufferPool, SharedBuffer};
pub use block::request::{
    Cancelled, CopyFate, Effect, ErrorSource, FencePolicy, IoBuffer, IoCompletion, IoError, IoRequest, IoTag,
    Operation, PathIndex, RefusalReason, Refused, SettledProof,
};
pub use block::time::Instant;
pub use block::{BlockDevice, DeviceEvent, Geometry};
pub use control_port::ControlPort;
pub use identity::{Identity, Sameness};
pub use path_address::{PathAddress, parse_byte_size, parse_duration};
