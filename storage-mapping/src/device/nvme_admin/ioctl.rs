//! The calls of the NVMe driver, which have no safe form.
//!
//! Keeps true: the address in a command is that of its own memory, set just before the call. Not here: what goes into a
//! command, and what comes out.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc::c_int;

use super::command::Passthrough;

mod raw {
    use super::super::command::Raw;

    // `linux/nvme_ioctl.h`.
    nix::ioctl_readwrite!(admin64, b'N', 0x47, Raw);
    nix::ioctl_readwrite!(io64, b'N', 0x48, Raw);
}

/// Sends the command and waits for its answer: 0, or the status.
#[expect(unsafe_code, reason = "an ioctl has no safe form")]
pub(super) fn submit(node: BorrowedFd<'_>, command: &mut Passthrough) -> Result<c_int, Errno> {
    command.raw.data =
        if command.data.is_empty() { 0 } else { command.data.as_mut_ptr().expose_provenance() as u64 };
    let raw = &raw mut command.raw;
    // SAFETY: the command is laid out as the kernel's; address and length describe memory that it owns, which may be written to
    // and is borrowed for as long as the call lasts; the kernel keeps neither after it.
    unsafe {
        if command.is_io { raw::io64(node.as_raw_fd(), raw) } else { raw::admin64(node.as_raw_fd(), raw) }
    }
}
