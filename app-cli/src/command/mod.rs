//! One function per command, and the one match over them.
//!
//! What every command returns is an exit code, or a [`CommandError`] that becomes one line. Not here:
//! the work itself.

mod keygen;

use std::io::{self, Write};
use std::path::Path;

use thiserror::Error;

use crate::args::{Cli, Command};
use crate::config::ConfigError;
use crate::copy_request::CopyRequestError;
use crate::exit::Exit;
use crate::keys::KeyError;
use crate::lab::LabError;
use crate::state_dir::StateDirError;

/// Why a command did not do what it was asked for.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The ends of a copy.
    #[error(transparent)]
    CopyRequest(#[from] CopyRequestError),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A lab.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// Standard output.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// The state directory.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
}

impl CommandError {
    /// The exit code that says so.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::CopyRequest(_) => Exit::Usage,
            Self::StateDir(StateDirError::Busy { .. }) => Exit::TryAgain,
            Self::Key(_) | Self::Lab(_) | Self::Output(_) | Self::StateDir(_) => Exit::Failed,
        }
    }

    /// Whether the reader of standard output went away: nobody wants a message then.
    #[must_use]
    pub fn reader_left(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Runs what the command line asks for.
///
/// # Errors
/// See [`CommandError`].
pub fn run(cli: &Cli) -> Result<Exit, CommandError> {
    match &cli.command {
        Command::Keygen(args) => keygen::run(cli, args),
    }
}

impl Cli {
    /// The configuration file that was named by `-c` or DISKWIRE_CONFIG.
    ///
    /// # Errors
    /// [`ConfigError::NotNamed`].
    pub fn config_file(&self) -> Result<&Path, ConfigError> {
        self.config.as_deref().filter(|file| !file.as_os_str().is_empty()).ok_or(ConfigError::NotNamed)
    }
}

/// Prints what was asked for.
fn print(text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CommandError::Output)
}
