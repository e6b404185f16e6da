//! Path addresses: what a configuration file writes for one way to one device, and how it is opened.
//!
//! ```text
//! file:/var/lib/disk.img?block=512&engine=threads
//! block:/dev/disk/by-id/wwn-0x5000c500a1b2c3d4
//! mem:lab?size=64MiB&latency=2ms&jitter=1ms&rate=100MiB&error=0.01&hang=after:1000&seed=7
//! sim:lab/p0/v0?system=/etc/lab.txt&initiator=host1
//! nbd://10.0.0.7:10810/disk?block=4096
//! nbd+unix:///disk?socket=/run/nbd.sock
//! iscsi://10.0.0.7/iqn.2001-04.com.example:disk/1?session=cp-1
//! ```
//!
//! `%XX` stands for a byte that would otherwise end the path (`?`, `#`, `&`, `%`). Options:
//!
//! | option | value | what it does |
//! |---|---|---|
//! | `block` | bytes | block size of a file, of memory or of an NBD export (default 4096), or of an iSCSI unit (default its own) |
//! | `socket` | path | where the server of `nbd+unix:` listens |
//! | `engine` | `uring`, `threads` | how I/O is done (default: io_uring, threads where there is none) |
//! | `size` | bytes | size of memory; needed by the first that opens the name |
//! | `system` | path | what describes the simulated storage system; or `size` and `ports` make one |
//! | `initiator` | name | who asks over a simulated path (default `host`), or of an iSCSI target (default made of the host's name) |
//! | `session` | name | tells an iSCSI session from others of this host to the same unit |
//! | `user`, `password-file` | name, path | CHAP: the user, and the file with the password in its first line |
//! | `latency`, `jitter` | time | added to each request |
//! | `rate` | bytes | the most bytes per second |
//! | `error`, `torn`, `lost`, `stale` | 0 to 1 | probability of the fault |
//! | `late` | probability`:`time | a write lands once more, so much later |
//! | `hang` | `after:`count, or `after:`count`:`time | stops answering, for ever or so long |
//! | `seed` | number | what the faults are drawn from (default 0) |
//!
//! Keeps true: what [`PathAddress`] prints parses back to the same value; an unknown or contradicting
//! option is an error that names it and says what would be right. Not here: the devices.

mod iscsi;
mod nbd;
mod open;
mod parse;
mod quantity;
mod simulated;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use self::iscsi::IscsiAddress;
pub use self::nbd::NbdAddress;
pub use self::open::{OpenError, Opened, open};
pub use self::parse::ParseAddressError;
pub use self::quantity::{QuantityError, parse_byte_size, parse_duration};
pub(crate) use self::quantity::{exact_byte_size, exact_duration};
pub use self::simulated::{OpenSimulatedError, SimulatedAddress, simulated_system};
use crate::block::address::{BlockSize, ByteSize};
use crate::device::{Faults, Hang};

/// One way to one device.
#[derive(Clone, Debug, PartialEq)]
pub struct PathAddress {
    /// What lies at its end.
    pub target: Target,
    /// Block size of a file, of memory, of an NBD export or of an iSCSI unit, where the default is not right.
    pub block_size: Option<BlockSize>,
    /// How I/O is done, where it matters.
    pub engine: Option<Engine>,
    /// Faults to inject.
    pub faults: Faults,
    /// What the faults are drawn from.
    pub seed: u64,
}

/// What lies at the end of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A block node.
    Block(PathBuf),
    /// A regular file.
    File(PathBuf),
    /// Memory of this process, by name.
    Memory {
        /// The name.
        name: String,
        /// The size; the first to open the name must say it.
        size: Option<ByteSize>,
    },
    /// A path of a simulated storage system of this process.
    Simulated(SimulatedAddress),
    /// An export of an NBD server. One address is one connection; several connections are several paths.
    Nbd(NbdAddress),
    /// A logical unit of an iSCSI target. One address is one session.
    Iscsi(IscsiAddress),
}

/// How I/O on a file or block node is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A pool of threads that block.
    Threads,
    /// io_uring.
    Uring,
}

impl PathAddress {
    /// An address without options.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self { target, block_size: None, engine: None, faults: Faults::default(), seed: 0 }
    }

    /// The options that differ from the default, as they are written.
    fn options(&self) -> Vec<String> {
        let mut options = Vec::new();
        let mut put = |name: &str, value: String| options.push(format!("{name}={value}"));
        if let Target::Memory { size: Some(size), .. } = &self.target {
            put("size", exact_byte_size(size.0));
        }
        if let Target::Simulated(simulated) = &self.target {
            simulated.options().into_iter().for_each(|(name, value)| put(name, value));
        }
        if let Target::Nbd(nbd) = &self.target
            && let Some(socket) = nbd.socket_option()
        {
            put("socket", socket);
        }
        if let Target::Iscsi(iscsi) = &self.target {
            iscsi.options().into_iter().for_each(|(name, value)| put(name, value));
        }
        if let Some(block_size) = self.block_size {
            put("block", block_size.bytes().to_string());
        }
        match self.engine {
            Some(Engine::Threads) => put("engine", "threads".to_owned()),
            Some(Engine::Uring) => put("engine", "uring".to_owned()),
            None => {}
        }
        let faults = &self.faults;
        for (name, time) in [("latency", faults.latency), ("jitter", faults.jitter)] {
            if time > Duration::ZERO {
                put(name, exact_duration(time));
            }
        }
        if let Some(rate) = faults.rate {
            put("rate", exact_byte_size(rate));
        }
        let chances =
            [("error", faults.error), ("torn", faults.torn), ("lost", faults.lost), ("stale", faults.stale)];
        for (name, probability) in chances {
            if probability > 0.0 {
                put(name, probability.to_string());
            }
        }
        if faults.late > 0.0 || faults.late_delay > Duration::ZERO {
            put("late", format!("{}:{}", faults.late, exact_duration(faults.late_delay)));
        }
        match faults.hang {
            Hang::Never => {}
            Hang::After { requests, duration: None } => put("hang", format!("after:{requests}")),
            Hang::After { requests, duration: Some(time) } => {
                put("hang", format!("after:{requests}:{}", exact_duration(time)));
            }
        }
        if self.seed != 0 {
            put("seed", self.seed.to_string());
        }
        options
    }
}

impl fmt::Display for PathAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Block(path) => write!(f, "block:{}", parse::escape_path(path))?,
            Target::File(path) => write!(f, "file:{}", parse::escape_path(path))?,
            Target::Memory { name, .. } => write!(f, "mem:{}", parse::escape(name.as_bytes()))?,
            Target::Simulated(simulated) => write!(f, "sim:{simulated}")?,
            Target::Nbd(nbd) => write!(f, "{nbd}")?,
            Target::Iscsi(iscsi) => write!(f, "{iscsi}")?,
        }
        let options = self.options();
        if options.is_empty() { Ok(()) } else { write!(f, "?{}", options.join("&")) }
    }
}
