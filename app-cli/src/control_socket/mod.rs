//! The way from the command line to a running process: a socket for each lane in the host's state directory.
//!
//! ```text
//!   diskwire path …                         diskwire serve, cp
//!   client ──▶ paths-LANE.sock ──▶ server ──▶ Control ──▶ event loop
//!          one JSON object a line, version 1       (never waits for any of this)
//! ```
//!
//! Who may come: the user that the process runs as, and root; the socket has mode 0600 from its first moment, and the
//! kernel's word about who called is asked besides. A request has at most [`REQUEST_MAX_BYTES`], a reply
//! [`REPLY_MAX_BYTES`], a process serves [`CLIENTS_MAX`] clients, and each of them has [`PATIENCE`] for a line.
//!
//! Keeps true: whoever holds the lock of a lane, and nobody else, makes and removes its socket; a client that says
//! nothing, too much or nonsense harms nobody but itself. Not here: what a device does with a command
//! (`multipath::control`), how it looks to a user (`command`).

mod client;
pub mod command;
mod message;
pub mod plan;
mod server;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::UnixAddr;

pub use client::{Answers, Silent, ask_all, ask_first, ask_lane};
pub use message::{DecisionText, Reply, VERSION, Wish};
pub use server::ControlSocket;

/// The longest request, with the end of its line: a control command with 24 KiB of data stays below.
pub const REQUEST_MAX_BYTES: usize = 64 << 10;
/// The longest reply: 62 devices of 64 paths stay below.
pub const REPLY_MAX_BYTES: usize = 32 << 20;
/// Clients of a process at once.
pub const CLIENTS_MAX: usize = 8;
/// For a line, in either direction.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The name of a lane's socket.
fn file_name(lane: u16) -> String {
    format!("paths-{lane}.sock")
}

/// The lane of a socket's name.
fn lane_of(name: &str) -> Option<u16> {
    let lane: u16 = name.strip_prefix("paths-")?.strip_suffix(".sock")?.parse().ok()?;
    (file_name(lane) == name).then_some(lane)
}

/// A folder that sockets are in, whatever the length of its name: a socket's address holds 108 bytes.
struct Folder {
    opened: File,
}

impl Folder {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { opened: File::open(path)? })
    }

    /// The address of a socket in it.
    fn address(&self, lane: u16) -> io::Result<UnixAddr> {
        let descriptor = self.opened.as_fd().as_raw_fd();
        Ok(UnixAddr::new(format!("/proc/self/fd/{descriptor}/{}", file_name(lane)).as_str())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_sockets_have_a_lane() {
        assert_eq!(lane_of(&file_name(17)), Some(17));
        for name in ["paths-.sock", "paths-01.sock", "paths-+1.sock", "paths-65536.sock", "lane-1.lock"] {
            assert_eq!(lane_of(name), None, "{name}");
        }
    }
}
