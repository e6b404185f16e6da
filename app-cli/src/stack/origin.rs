//! Where the addresses of paths stand, and who opens them.
//!
//! Keeps true: relative paths begin at the folder of the configuration; an iSCSI session that its address does not name
//! has the name of the host and a number, 0 for `serve` and the first free one of 1 to 63 for any other process, so that
//! no process takes the session of another, and the next one to do the same work is the same initiator port again.
//! Not here: what is opened (`storage_mapping::path_address`).

use std::path::PathBuf;

use multipath::out_of_band::command_table::UserRows;
use storage_mapping::device::NbdServer;
use storage_mapping::path_address::{IscsiAddress, OpenError, Opened, PathAddress, Target, open};
use transfer_core::driver::clock::Clock;

use super::StackError;
use crate::config::{AnyConfig, HostConfig, VolumeConfig};
use crate::escape;
use crate::living_copies::LivingCopies;

/// The owner of sessions where no host is: one who creates a volume, or names paths by their addresses.
const ADMINISTRATOR: &str = "admin";
/// The highest number of a session.
const SESSION_MAX: u8 = 63;

/// A configuration, and the process that opens what it names.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The file, for messages.
    pub file: PathBuf,
    /// The folder at which relative paths begin.
    pub base: PathBuf,
    /// The process.
    pub owner: Owner,
    /// What its user knows of control commands.
    pub commands: UserRows,
    /// What the processes of its host left, and the clock of this one; `None` where nothing is written for a host.
    pub copies: Option<(LivingCopies, Clock)>,
}

/// A process that opens paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Name of its host.
    pub host: String,
    /// Whether it is the one `serve` of that host.
    pub is_serve: bool,
}

impl Owner {
    /// One who acts for no host.
    #[must_use]
    pub fn administrator() -> Self {
        Self { host: ADMINISTRATOR.to_owned(), is_serve: false }
    }

    /// Opens a path. An iSCSI session without a name gets the first one of this process that nobody has.
    ///
    /// # Errors
    /// See [`OpenError`]; where all names are taken, of the last one.
    pub(super) fn open(&self, address: &PathAddress) -> Result<Opened, OpenError> {
        let (mut number, last) = if self.is_serve { (0, 0) } else { (1, SESSION_MAX) };
        let Target::Iscsi(IscsiAddress { session: None, .. }) = &address.target else { return open(address) };
        loop {
            let mut named = address.clone();
            if let Target::Iscsi(unit) = &mut named.target {
                unit.session = Some(format!("{}-{number}", self.host));
            }
            match open(&named) {
                Err(error) if error.is_taken() && number < last => number += 1,
                done => return done,
            }
        }
    }
}

impl Origin {
    /// That of a host; `is_serve` says which of its processes this one is.
    #[must_use]
    pub fn of_host(config: &HostConfig, is_serve: bool) -> Self {
        let owner = Owner { host: config.host.to_string(), is_serve };
        let commands = config.commands.clone();
        Self { file: config.file.clone(), base: config.base.clone(), owner, commands, copies: None }
    }

    /// That of the administrator of a volume.
    #[must_use]
    pub fn of_volume(config: &VolumeConfig) -> Self {
        Self {
            file: config.file.clone(),
            base: config.base.clone(),
            owner: Owner::administrator(),
            commands: UserRows::default(),
            copies: None,
        }
    }

    /// That of a command, whoever gives it.
    #[must_use]
    pub fn of_any(config: &AnyConfig) -> Self {
        match config {
            AnyConfig::Host(host) => Self::of_host(host, false),
            AnyConfig::Volume(volume) => Self::of_volume(volume),
        }
    }

    /// The file as it stands in messages.
    pub(super) fn name(&self) -> String {
        escape::name(&self.file)
    }

    /// What a path address of a line of the file names.
    ///
    /// # Errors
    /// [`StackError::Address`].
    pub fn address(&self, text: &str, line: usize) -> Result<PathAddress, StackError> {
        let mut address: PathAddress = text.parse().map_err(|source| StackError::Address {
            file: self.name(),
            line,
            text: escape::name(text),
            source,
        })?;
        if let Some(path) = path_of(&mut address.target) {
            *path = self.base.join(&*path);
        }
        Ok(address)
    }
}

/// The file or node that a target names.
fn path_of(target: &mut Target) -> Option<&mut PathBuf> {
    match target {
        Target::File(path) | Target::Block(path) => Some(path),
        Target::Simulated(simulated) => simulated.description.as_mut(),
        Target::Nbd(nbd) => match &mut nbd.server {
            NbdServer::Unix(path) => Some(path),
            NbdServer::Tcp { .. } => None,
        },
        Target::Iscsi(iscsi) => iscsi.password_file.as_mut(),
        Target::Memory { .. } => None,
    }
}
