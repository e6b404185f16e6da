//! `diskwire volume create`: lays a volume out, prints what each HOST.toml needs of it.

use serde_json::json;

use super::super::{CommandError, print};
use crate::args::Cli;
use crate::args::volume::VolumeCreateArgs;
use crate::config::VolumeConfig;
use crate::exit::Exit;
use crate::keys::AdminKey;
use crate::volume_setup::create_volume;

pub(super) fn run(cli: &Cli, args: &VolumeCreateArgs) -> Result<Exit, CommandError> {
    let file = args.volume.as_deref().map_or_else(|| cli.config_file(), Ok)?;
    let config = VolumeConfig::load(file)?;
    let id = create_volume(&config, &args.force)?;
    let admin = AdminKey::load(&config.admin_key)?.public();
    if args.json {
        let object = json!({ "id": id.to_string(), "admin_key": admin.to_string() });
        print(&format!("{object}\n"))?;
    } else {
        print(&format!("[volume]\nid = \"{id}\"\nadmin_key = \"{admin}\"\n"))?;
    }
    Ok(Exit::Done)
}
