//! What a caller asks of the router.
//!
//! Keeps true: plain data. Not here: what becomes of it (`router`).

use std::time::Duration;

use storage_mapping::PathIndex;
use storage_mapping::control_port::ControlCommand;

use super::command_table::DISK;

/// A command that the router has taken; the number is used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// How much the named path counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Every nexus, one after the other none waits for.
    All,
    /// The best path that the class permits; the name decides between equals.
    Any,
    /// The named path or none; the answer comes back as the target gave it.
    Exact,
    /// The named path where it is usable and its class allows, else the best permitted one.
    #[default]
    Prefer,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Exact, Self::Prefer, Self::Any, Self::All];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Any => "any",
            Self::Exact => "exact",
            Self::Prefer => "prefer",
        }
    }
}

/// Who wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Someone above.
    #[default]
    Caller,
    /// The layer, as a part of what a caller wanted.
    Part,
    /// The layer itself: it verifies, reads keys, or puts back what a nexus had.
    Layer,
}

/// One control command for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRequest {
    /// The command.
    pub command: ControlCommand,
    /// The path that the caller names.
    pub path: Option<PathIndex>,
    /// How much that counts.
    pub mode: Mode,
    /// Nothing is sent: the decision is the answer.
    pub is_dry_run: bool,
    /// How long the caller waits, from the moment the router takes it.
    pub patience: Duration,
    /// The type of the device, as INQUIRY gives it.
    pub device_type: u8,
    /// Who wants it.
    pub origin: Origin,
}

impl CommandRequest {
    /// A command for a disk, in the mode `prefer`.
    #[must_use]
    pub fn new(command: ControlCommand, path: Option<PathIndex>, patience: Duration) -> Self {
        let (mode, origin) = (Mode::default(), Origin::default());
        Self { command, path, mode, is_dry_run: false, patience, device_type: DISK, origin }
    }

    /// The same in another mode.
    #[must_use]
    pub fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }
}
