//! The calls of the SCSI generic interface that have no safe form.
//!
//! Keeps true: the addresses in a header are those of its frame's own memory, set just before each call. Not here: what goes
//! into a header, and what comes out.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc::{self, c_int};

use super::frame::{Frame, Header};

mod raw {
    use super::super::frame::Header;

    // `scsi/sg.h`; the numbers are older than the scheme with sizes in them.
    nix::ioctl_readwrite_bad!(sg_io, 0x2285, Header);
    nix::ioctl_write_ptr_bad!(sg_set_force_pack_id, 0x227b, nix::libc::c_int);
}

/// Lets the header point to the frame that it stands in.
fn point(frame: &mut Frame) {
    frame.header.command = frame.cdb.bytes().as_ptr();
    frame.header.sense = frame.sense.as_mut_ptr();
    frame.header.data =
        if frame.data.is_empty() { std::ptr::null_mut() } else { frame.data.as_mut_ptr().cast() };
}

/// Sends the command and waits for its answer.
#[expect(unsafe_code, reason = "an ioctl has no safe form")]
pub(super) fn sg_io(node: BorrowedFd<'_>, frame: &mut Frame) -> Result<(), Errno> {
    point(frame);
    // SAFETY: the header is laid out as the kernel's, and its addresses and lengths describe memory of the frame, which is
    // borrowed for as long as the call lasts; the kernel keeps none of them after it.
    unsafe { raw::sg_io(node.as_raw_fd(), &raw mut frame.header) }.map(drop)
}

/// From now on a read fetches the answer of the command that its header names.
#[expect(unsafe_code, reason = "an ioctl has no safe form")]
pub(super) fn answer_by_pack_id(node: BorrowedFd<'_>) -> Result<(), Errno> {
    let is_on: c_int = 1;
    // SAFETY: the request reads one number, which outlives the call.
    unsafe { raw::sg_set_force_pack_id(node.as_raw_fd(), &raw const is_on) }.map(drop)
}

/// Sends the command, without waiting for its answer.
///
/// Until [`fetch`] has succeeded, the frame must stay where it is, or be leaked.
#[expect(unsafe_code, reason = "the bytes of a header have no safe form")]
pub(super) fn send(node: BorrowedFd<'_>, frame: &mut Frame) -> Result<(), Errno> {
    point(frame);
    // SAFETY: the bytes are those of the header; what it points to belongs to the frame. The driver copies data out during this
    // call, and in during the read that fetches the answer, for which the caller keeps the frame.
    let done =
        unsafe { libc::write(node.as_raw_fd(), (&raw const frame.header).cast(), size_of::<Header>()) };
    whole(done)
}

/// Waits for the answer of the command that was sent from this frame.
#[expect(unsafe_code, reason = "the bytes of a header have no safe form")]
pub(super) fn fetch(node: BorrowedFd<'_>, frame: &mut Frame) -> Result<(), Errno> {
    // SAFETY: any bytes make a header; the addresses that the driver uses are those that `send` gave it for this frame, which is
    // borrowed here.
    let done = unsafe { libc::read(node.as_raw_fd(), (&raw mut frame.header).cast(), size_of::<Header>()) };
    whole(done)
}

fn whole(done: libc::ssize_t) -> Result<(), Errno> {
    let done = Errno::result(done)?;
    if usize::try_from(done) == Ok(size_of::<Header>()) { Ok(()) } else { Err(Errno::EIO) }
}
