//! The SCSI side of a logical volume: a logical unit that takes commands from nexuses and answers them.
//!
//! ```text
//!  nexus, command, data ──▶ attention? ─▶ known? ─▶ access state? ─▶ reservation? ─▶ done ──▶ status, sense, data
//! ```
//!
//! Keeps true: pure; a command that is refused on the way changed nothing; each command that is executed is counted
//! ([`Executions`]), so that a test sees a second execution, and a GOOD without effect.
//!
//! Not here: what happens to a command on its way (`core::control`), the bytes of commands and answers
//! ([`scsi`](crate::scsi)).

mod answer;
mod attention;
mod blocks;
mod command_set;
mod identity;
mod pages;
mod reports;
mod reservations;
mod reserve;
mod unit;

pub(super) use self::answer::{Answer, BlockWork, Step};
pub use self::attention::Attention;
pub use self::unit::Executions;
pub(super) use self::unit::{Call, Done, LogicalUnit, UnitName};
