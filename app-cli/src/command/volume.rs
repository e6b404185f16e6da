//! `diskwire volume`: what its three commands have in common.

mod check;
mod create;
mod inspect;

use std::collections::BTreeSet;
use std::path::Path;

use transfer_core::driver::clock::Clock;
use transfer_core::survey::{self, Contents};

use super::CommandError;
use crate::args::Cli;
use crate::args::volume::{VolumeArgs, VolumeCommand};
use crate::config::{AnyConfig, PublicKey};
use crate::exit::Exit;
use crate::keys::AdminKey;
use crate::stack::{self, Origin};
use crate::state_dir::StateDir;

pub(super) fn run(cli: &Cli, args: &VolumeArgs) -> Result<Exit, CommandError> {
    match &args.command {
        VolumeCommand::Create(args) => create::run(cli, args),
        VolumeCommand::Inspect(args) => inspect::run(cli, args),
        VolumeCommand::Check(args) => check::run(cli, args),
    }
}

/// A volume that was read and not written.
struct Surveyed {
    config: AnyConfig,
    contents: Contents,
    /// What was noticed on the way.
    notices: Vec<String>,
}

impl Surveyed {
    /// Reads the volume of `file`, or else of `-c`.
    fn read(cli: &Cli, file: Option<&Path>) -> Result<Self, CommandError> {
        let file = file.map_or_else(|| cli.config_file(), Ok)?;
        let config = AnyConfig::load(file)?;
        let waiter = stack::waiter(Clock::new());
        let (id, admin) = match &config {
            AnyConfig::Host(host) => (Some(host.volume.id.0), Some(host.volume.admin_key)),
            // The admin's key counts where its file is at hand; elsewhere the volume's own must do.
            AnyConfig::Volume(volume) => (None, admin_key(&volume.admin_key)),
        };
        let admin = admin.as_ref().map(|key| &key.0);
        let mut opened = stack::volume(&waiter, &Origin::of_any(&config), config.devices(), id, admin)?;
        let contents = survey::read(&waiter, &mut opened.value, admin);
        Ok(Self { config, contents, notices: opened.notices })
    }

    /// Rows of this host of which no process runs, as the locks in its state directory tell.
    fn idle_lanes(&self) -> BTreeSet<u16> {
        let AnyConfig::Host(host) = &self.config else { return BTreeSet::new() };
        // Nothing is made for a mere look.
        let Some(state) = host.state.is_dir().then(|| StateDir::open(&host.state).ok()).flatten() else {
            return BTreeSet::new();
        };
        let rows = self.contents.lanes.iter().filter_map(|lane| {
            let row = self.contents.row(lane.lane)?;
            let is_idle = row.name.as_str() == host.host.as_str() && !state.is_held(row.lane).ok()?;
            is_idle.then_some(lane.lane)
        });
        rows.collect()
    }
}

fn admin_key(file: &Path) -> Option<PublicKey> {
    AdminKey::load(file).ok().map(|key| key.public())
}
