//! The bytes of NVMe admin and reservation commands, and of what comes back.
//!
//! * [`opcode`]: names of commands; [`status`]: how a command ended;
//! * [`identify`]: controller, namespace, lists of namespaces and of their names; [`features`]: Get and Set Features;
//! * [`log_page`]: error information, SMART, firmware slots, changed namespaces, asymmetric access;
//! * [`reservations`]: Register, Acquire, Release, Report.
//!
//! A command is a structure: `command()` makes what a [`ControlPort`](crate::ControlPort) takes, `parse` reads it in a
//! controller. A reply is a structure: `parse` reads it, `emit` makes it. A reply that was cut short is read as far as it
//! came, and its `is_whole` says so.
//!
//! Keeps true: parsing never panics, reads no byte beyond what came and takes time in proportion to it. Not here: sending
//! them (`control_port`), what a status says about a path (`multipath::error_class`).

pub mod features;
pub mod identify;
pub mod log_page;
mod number;
pub mod opcode;
pub mod reservations;
pub mod status;

use crate::control_port::{CommandBytes, ControlCommand, NvmeFields, Transfer};

fn command(fields: NvmeFields, transfer: Transfer) -> ControlCommand {
    ControlCommand { bytes: CommandBytes::Nvme(fields), transfer }
}
