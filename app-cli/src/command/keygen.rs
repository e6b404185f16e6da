//! `diskwire keygen`: prints the public half of a key, made just now or there already.

use super::{CommandError, print};
use crate::args::Cli;
use crate::args::keygen::KeygenArgs;
use crate::config::HostConfig;
use crate::exit::Exit;
use crate::keys::{AdminKey, HostKey};

pub(super) fn run(cli: &Cli, args: &KeygenArgs) -> Result<Exit, CommandError> {
    let file = match &args.file {
        Some(file) => file.clone(),
        None => HostConfig::load(cli.config_file()?)?.key,
    };
    let public = match (args.admin, args.show) {
        (false, false) => HostKey::create(&file)?.public(),
        (false, true) => HostKey::load(&file)?.public(),
        (true, false) => AdminKey::create(&file)?.public(),
        (true, true) => AdminKey::load(&file)?.public(),
    };
    print(&format!("{public}\n"))?;
    Ok(Exit::Done)
}
