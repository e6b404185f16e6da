//! The bytes of SCSI commands, and of what comes back.
//!
//! * [`opcode`]: names of commands; [`status`], [`sense`]: how a command ended;
//! * [`inquiry`], [`vpd`]: who is there; [`port_groups`], [`luns`], [`capacity`]: how it can be reached, what there is;
//! * [`reservations`], [`transport_id`]: PERSISTENT RESERVE IN and OUT; [`mode`], [`log`]: pages of settings and counters;
//! * [`basic`]: commands of few words, from TEST UNIT READY to READ and WRITE.
//!
//! A command is a structure: `command()` makes what a [`ControlPort`](crate::ControlPort) takes, `parse` reads it in a
//! target. A reply is a structure: `parse` reads it, `emit` makes it. A reply that was cut short is read as far as it
//! came, and its `is_whole` says so.
//!
//! Keeps true: parsing never panics, reads no byte beyond what came and takes time in proportion to it. Not here: sending
//! them (`control_port`), what a status says about a path (`multipath::error_class`).

pub mod basic;
pub mod capacity;
pub mod inquiry;
pub mod log;
pub mod luns;
pub mod mode;
pub(crate) mod number;
pub mod opcode;
pub mod port_groups;
pub mod reservations;
pub mod sense;
pub mod status;
pub mod transport_id;
pub mod vpd;

use crate::control_port::{Cdb, CommandBytes, ControlCommand, Transfer};

/// A command of these bytes.
fn command(cdb: &[u8], transfer: Transfer) -> ControlCommand {
    let cdb = Cdb::new(cdb).expect("the length of a command of the standard");
    ControlCommand { bytes: CommandBytes::Scsi(cdb), transfer }
}
