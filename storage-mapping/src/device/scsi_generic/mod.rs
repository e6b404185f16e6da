//! SCSI commands through the kernel's own SCSI layer: SG_IO on a block node, write and read on `/dev/sgN`.
//!
//! Keeps true: a command goes down once. SG_IO on a block node waits without regard to signals; on `/dev/sgN` it does not, and
//! the kernel would start it again after a stop of the process, so there a write sends and a read, which may be repeated,
//! fetches. The time limit of the kernel is far above any deadline: when it passes, the kernel starts to reset things that
//! other hosts use too. Not here: threads and deadlines (`control_node`), what a status means.

mod frame;
mod ioctl;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::control_node::{CommandNode, Ending};
use crate::block::request::IoError;
use crate::control_port::{CommandBytes, CommandSet, ControlCommand};
use frame::Frame;

/// A block node, `/dev/sdX`.
#[derive(Debug)]
pub(super) struct BlockNode(File);

impl BlockNode {
    pub(super) fn new(file: File) -> Self {
        Self(file)
    }
}

impl CommandNode for BlockNode {
    fn command_set(&self) -> CommandSet {
        CommandSet::Scsi
    }

    fn admits(&self, command: &ControlCommand) -> bool {
        matches!(command.bytes, CommandBytes::Scsi(_))
    }

    fn execute(&self, command: ControlCommand) -> Ending {
        let Some(mut frame) = Frame::new(command, 0) else { return Ending::not_sent(refused(Errno::EINVAL)) };
        match ioctl::sg_io(self.0.as_fd(), &mut frame) {
            Ok(()) => frame.ending(),
            Err(errno) => frame::failed_call(errno),
        }
    }
}

/// A node of the driver `sg`, `/dev/sgN`.
#[derive(Debug)]
pub(super) struct GenericNode {
    file: File,
    next_pack: AtomicI32,
}

impl GenericNode {
    pub(super) fn new(file: File) -> io::Result<Self> {
        // Opening was not to wait; reading is to.
        let flags = OFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GETFL)?);
        fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
        ioctl::answer_by_pack_id(file.as_fd())?;
        Ok(Self { file, next_pack: AtomicI32::new(0) })
    }
}

impl CommandNode for GenericNode {
    fn command_set(&self) -> CommandSet {
        CommandSet::Scsi
    }

    fn admits(&self, command: &ControlCommand) -> bool {
        matches!(command.bytes, CommandBytes::Scsi(_))
    }

    fn execute(&self, command: ControlCommand) -> Ending {
        // Never −1, which stands for any. Few are in flight: by the time it comes round again, the first is over.
        let pack = self.next_pack.fetch_add(1, Ordering::Relaxed) & i32::MAX;
        let Some(mut frame) = Frame::new(command, pack) else {
            return Ending::not_sent(refused(Errno::EINVAL));
        };
        if let Err(errno) = ioctl::send(self.file.as_fd(), &mut frame) {
            // The driver sends as the last thing that the write does.
            return Ending::not_sent(refused(errno));
        }
        loop {
            match ioctl::fetch(self.file.as_fd(), &mut frame) {
                Ok(()) => return frame.ending(),
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    // The driver may have it still, and knows where its data was to go.
                    std::mem::forget(frame);
                    return Ending::in_doubt(refused(errno));
                }
            }
        }
    }
}

fn refused(errno: Errno) -> IoError {
    IoError::errno(errno as i32)
}
