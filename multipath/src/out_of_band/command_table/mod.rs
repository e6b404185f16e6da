//! What every command means, as data: one row for each opcode, service action, page and variant.
//!
//! ```text
//!   command, device type, named or not ──▶ rows of the user ──▶ shipped rows ──▶ "unknown": its nexus, never again
//! ```
//!
//! Keeps true: the first row that fits counts, and the special ones stand before the general ones; a command without a row,
//! and on a device that is no disk any but four, is for its nexus alone and never repeated; a row of the user takes the
//! place of a shipped one only where he says so. Not here: what is made of a row (`select`, `router`).

mod nvme;
mod row;
mod scsi_block;
mod scsi_primary;
mod user;

use storage_mapping::control_port::{CommandBytes, ControlCommand, Transfer};

pub(crate) use self::row::mode_page_at;
pub use self::row::{Access, Bits, Class, Devices, Named, Parameter, Repeat, Row, Verify, Words};
pub use self::user::{UserRowError, UserRows};

/// The type of a disk, as INQUIRY gives it (SPC-5 6.7.2).
pub const DISK: u8 = 0x00;

/// A command without a row.
pub static UNKNOWN: Row = Row::new(Words::Scsi, (0, 0xff), "unknown command", Class::Nexus, Repeat::Never)
    .because("what it does is not known: it goes over the named path, once");
/// A command without a row of its own, for a device that is no disk.
pub static OTHER_DEVICE: Row =
    Row::new(Words::Scsi, (0, 0xff), "command of a device that is no disk", Class::Exact, Repeat::Never)
        .because("the table is for disks: on other devices it may mean something else");

/// All shipped rows, in the order in which they are looked through.
pub fn shipped() -> impl Iterator<Item = &'static Row> {
    [scsi_primary::ROWS, scsi_block::ROWS, scsi_primary::VENDOR_ROWS, nvme::ROWS, scsi_primary::TASK_ROWS]
        .into_iter()
        .flatten()
}

/// What is looked up.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a> {
    /// The command.
    pub command: &'a ControlCommand,
    /// The type of the device, as INQUIRY gives it.
    pub device_type: u8,
    /// Whether the caller named a path.
    pub is_named: bool,
}

/// The shipped rows and those of the user.
#[derive(Clone, Debug, Default)]
pub struct CommandTable {
    user: UserRows,
}

impl CommandTable {
    /// The table with rows of the user.
    #[must_use]
    pub fn with_user_rows(user: UserRows) -> Self {
        Self { user }
    }

    /// Every row, those of the user first.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.user.rows().iter().chain(shipped().map(|row| -> &Row { row }))
    }

    /// The row of a command.
    #[must_use]
    pub fn row(&self, lookup: &Lookup<'_>) -> &Row {
        let fits = |row: &&Row| row.fits(lookup);
        if lookup.device_type != DISK && matches!(lookup.command.bytes, CommandBytes::Scsi(_)) {
            return shipped()
                .find(|row| row.devices == Devices::All && row.fits(lookup))
                .unwrap_or(&OTHER_DEVICE);
        }
        self.rows().find(fits).unwrap_or(&UNKNOWN)
    }
}

/// Whether only a caller may want this: nothing in this layer sends it on its own account.
#[must_use]
pub fn is_for_callers_alone(command: &ControlCommand) -> bool {
    match &command.bytes {
        CommandBytes::Scsi(cdb) => {
            let action = cdb.bytes()[1] & 0x1f;
            // PERSISTENT RESERVE OUT CLEAR, SET TARGET PORT GROUPS. Resets are no command at all.
            matches!((cdb.opcode(), action), (0x5f, 0x03) | (0xa4, 0x0a))
        }
        CommandBytes::Nvme(fields) => {
            let action = fields.cdw10[0] & 0x07;
            // Reservation Release with the action clear; subsystem and cross-controller resets.
            (fields.is_io && fields.opcode == 0x15 && action == 1) || (!fields.is_io && fields.opcode == 0x38)
        }
    }
}

/// The parameter list of a command.
#[must_use]
pub fn parameters(command: &ControlCommand) -> &[u8] {
    match &command.transfer {
        Transfer::Out(data) => data,
        Transfer::None | Transfer::In(_) => &[],
    }
}

/// The first mode page of the list of a MODE SELECT.
#[must_use]
pub fn mode_page(opcode: u8, list: &[u8]) -> Option<u8> {
    mode_page_at(opcode, list).and_then(|at| list.get(at)).map(|code| code & 0x3f)
}

#[cfg(test)]
mod tests;
