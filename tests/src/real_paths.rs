//! Real paths to one disk, failed on purpose while verified I/O runs: what is measured is how long requests wait.
//!
//! ```text
//!                        ┌─ NbdDevice ── relay process ──┐
//!  Load ─ MultipathDevice├─ NbdDevice ── relay process ──┼─ nbdkit, qemu-nbd ── one backing file
//!                        └─ file ────────────────────────┘
//! ```
//!
//! * [`stage`]: the processes and the file, and what is done to them;
//! * [`load`]: reads and writes whose every block is checked;
//! * [`drill`]: one fault at a random moment, from a healthy device to a healthy device;
//! * [`ghost`]: an old write that lands late, with the fence and without;
//! * [`figures`]: what many drills say together.
//!
//! What holds:
//!
//! * the servers are coherent: all of them, and the local file, work on one file through the page cache of one kernel
//!   (nbdkit's plugin `file`, qemu-nbd with `cache=writeback`, its default). `cache=none` beside them would read and
//!   write past that cache, which the kernel promises nothing for. The file lies in memory where the system has a
//!   place for that, so that times are those of paths and not of a disk;
//! * several connections to one nbdkit are allowed by the server itself (CAN_MULTI_CONN);
//! * faults come from a thread of their own, so that they meet the device wherever it is; times are counted from
//!   before the fault is made.
//!
//! Not here: what a fault should cost (the tests and `docs/performance.md`).

pub mod drill;
pub mod figures;
pub mod ghost;
pub mod load;
pub mod stage;

#[path = "../../storage-mapping/tests/support/programs.rs"]
mod programs;

use std::fmt;

/// A program that serves the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// `nbdkit`, plugin `file`.
    Nbdkit,
    /// `qemu-nbd`.
    QemuNbd,
}

/// A way to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// The file itself.
    File,
    /// A relay of its own before the server of that number.
    Server(usize),
}

/// Which servers and which paths there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// As it stands in a table.
    pub name: &'static str,
    /// The servers.
    pub servers: &'static [ServerKind],
    /// The paths, in the order of the device.
    pub paths: &'static [PathKind],
}

impl Layout {
    /// Three paths to one server.
    pub const ONE_NBDKIT: Self = Self {
        name: "3 relays, 1 nbdkit",
        servers: &[ServerKind::Nbdkit],
        paths: &[PathKind::Server(0), PathKind::Server(0), PathKind::Server(0)],
    };
    /// Two servers of one kind.
    pub const TWO_NBDKIT: Self = Self {
        name: "nbdkit, nbdkit",
        servers: &[ServerKind::Nbdkit, ServerKind::Nbdkit],
        paths: &[PathKind::Server(0), PathKind::Server(1)],
    };
    /// Two servers of different kinds.
    pub const NBDKIT_AND_QEMU: Self = Self {
        name: "nbdkit, qemu-nbd",
        servers: &[ServerKind::Nbdkit, ServerKind::QemuNbd],
        paths: &[PathKind::Server(0), PathKind::Server(1)],
    };
    /// The file itself, and a server.
    pub const FILE_AND_NBDKIT: Self = Self {
        name: "file, nbdkit",
        servers: &[ServerKind::Nbdkit],
        paths: &[PathKind::File, PathKind::Server(0)],
    };

    /// The paths that a fault can meet: those with a relay.
    #[must_use]
    pub fn victims(&self) -> Vec<usize> {
        let has_relay = |path: &usize| matches!(self.paths[*path], PathKind::Server(_));
        (0..self.paths.len()).filter(has_relay).collect()
    }
}

/// What happens to one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its relay gets SIGKILL; later there is another.
    RelayKilled,
    /// Its connection ends on our side, and the server does not hear of it.
    RelayCut,
    /// Its server gets SIGKILL; later there is another.
    ServerKilled,
    /// Its server gets SIGSTOP; later SIGCONT, and what it had is done then.
    ServerStopped,
    /// Its relay holds everything; later it lets go, and what it had is done then.
    RelayPaused,
    /// Its relay passes a tenth of the bytes per second.
    Throttled,
    /// Its relay lets every byte wait for 5 to 10 ms in each direction.
    Delayed,
}

impl Fault {
    /// Whether the path says nothing more, and nobody tells us that it will not.
    #[must_use]
    pub fn is_hang(self) -> bool {
        matches!(self, Self::ServerStopped | Self::RelayPaused)
    }

    /// Whether the path goes on, slowly.
    #[must_use]
    pub fn is_slowness(self) -> bool {
        matches!(self, Self::Throttled | Self::Delayed)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::RelayKilled => "relay killed",
            Self::RelayCut => "relay cut",
            Self::ServerKilled => "server killed",
            Self::ServerStopped => "server stopped",
            Self::RelayPaused => "relay paused",
            Self::Throttled => "throttled to 1/10",
            Self::Delayed => "delayed 5-10 ms",
        })
    }
}

/// Says that a test is left out; where the environment says that nothing may be (`DISKWIRE_NO_SKIP=1`), fails.
///
/// # Panics
/// See above.
pub fn skip(test: &str, reason: &str) {
    programs::skip(test, reason);
}

/// The program, if this machine has it.
///
/// # Errors
/// In words, where it has not.
pub fn find_program(program: &str) -> Result<std::path::PathBuf, String> {
    programs::find(program)
}

/// Why a program that is needed is missing, if one is.
#[must_use]
pub fn missing_program() -> Option<String> {
    ["nbdkit", "qemu-nbd"].into_iter().find_map(|program| programs::find(program).err())
}
