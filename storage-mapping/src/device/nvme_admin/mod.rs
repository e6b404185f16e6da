//! NVMe commands through the kernel's driver: the 64-bit ioctls of controllers and namespaces.
//!
//! Keeps true: a command goes down once; an ioctl that was interrupted is not made again. Not here: threads and deadlines
//! (`control_node`), what a status means. A controller node takes admin commands only; a namespace node takes both, admin
//! commands for its controller.

mod command;
mod ioctl;

use std::fs::File;
use std::os::fd::AsFd;

use super::control_node::{CommandNode, Ending};
use crate::block::request::IoError;
use crate::control_port::{CommandBytes, CommandSet, ControlCommand};
use command::{Passthrough, ending};
use nix::errno::Errno;

/// `/dev/nvmeX` or `/dev/nvmeXnY`.
#[derive(Debug)]
pub(super) struct NvmeNode(File);

impl NvmeNode {
    pub(super) fn new(file: File) -> Self {
        Self(file)
    }
}

impl CommandNode for NvmeNode {
    fn command_set(&self) -> CommandSet {
        CommandSet::Nvme
    }

    fn admits(&self, command: &ControlCommand) -> bool {
        matches!(&command.bytes, CommandBytes::Nvme(fields) if command::has_direction(fields.opcode, &command.transfer))
    }

    fn execute(&self, command: ControlCommand) -> Ending {
        let Some(mut passthrough) = Passthrough::new(command) else {
            return Ending::not_sent(IoError::errno(Errno::EINVAL as i32));
        };
        let result = ioctl::submit(self.0.as_fd(), &mut passthrough);
        ending(passthrough, result)
    }
}
