//! `diskwire pr-helper`: the disks are opened, the socket is served. Not here: the protocol (`pr_helper`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use storage_mapping::path_address::Target;
use storage_mapping::wait;

use super::ctl::carrier::{config_of, of_addresses};
use super::{CommandError, say};
use crate::args::Cli;
use crate::args::ctl::CtlTarget;
use crate::args::pr_helper::{HelperDisk, PrHelperArgs};
use crate::config::{DeviceConfig, HostConfig};
use crate::control_session::ControlSession;
use crate::escape;
use crate::exit::Exit;
use crate::pr_helper::executor::{DiskKey, Disks};
use crate::pr_helper::server;
use crate::signals::Signals;
use crate::stack::Origin;

pub(super) fn run(cli: &Cli, args: &PrHelperArgs) -> Result<Exit, CommandError> {
    let (mut sessions, mut by_key) = (Vec::new(), BTreeMap::new());
    for disk in &args.disks {
        let (origin, config) = place(cli, disk)?;
        let session = ControlSession::open(&origin, &config)?;
        session.notices().iter().for_each(|notice| say(notice));
        for node in nodes(disk, &origin, &config)? {
            let key = DiskKey::of_path(&node).map_err(|errno| CommandError::HelperNode {
                node: escape::name(&node),
                source: errno.into(),
            })?;
            if by_key.insert(key, session.control().clone()).is_some() {
                return Err(CommandError::HelperTwice { node: escape::name(&node) });
            }
        }
        sessions.push(session);
    }
    let failed = |source| CommandError::HelperSocket { socket: escape::name(&args.socket), source };
    let listener = server::listen(&args.socket, args.mode).map_err(failed)?;
    say(&format!("serving {} disks on {}", args.disks.len(), escape::name(&args.socket)));
    let signals = Signals::new().map_err(CommandError::Signals)?;
    let disks = Arc::new(Disks::new(by_key));
    let serve = move || {
        if let Err(error) = server::serve(&listener, &disks) {
            tracing::error!(%error, "the socket of the helper failed");
        }
    };
    thread::Builder::new().name("pr-helper".to_owned()).spawn(serve).map_err(CommandError::Signals)?;
    wait::wait(&[signals.descriptor()], None);
    // Whoever holds the socket open sees its end; what the target keeps for our nexuses stays.
    let _ = std::fs::remove_file(&args.socket);
    drop(sessions);
    Ok(Exit::Done)
}

fn place(cli: &Cli, disk: &HelperDisk) -> Result<(Origin, DeviceConfig), CommandError> {
    match &disk.target {
        CtlTarget::Addresses(addresses) => Ok(of_addresses(addresses)),
        CtlTarget::Device(name) => {
            let host = HostConfig::load(cli.config_file()?)?;
            let config = config_of(&host, name)?.clone();
            Ok((Origin::of_host(&host, false), config))
        }
    }
}

/// What virtual machines may have open: the node that was said, or the nodes and files of its paths.
fn nodes(disk: &HelperDisk, origin: &Origin, config: &DeviceConfig) -> Result<Vec<PathBuf>, CommandError> {
    if let Some(node) = &disk.node {
        return Ok(vec![node.clone()]);
    }
    let mut nodes = Vec::new();
    for path in &config.paths {
        let address = origin.address(&path.text, path.line)?;
        if let Target::Block(node) | Target::File(node) = address.target
            && !nodes.contains(&node)
        {
            nodes.push(node);
        }
    }
    if nodes.is_empty() {
        Err(CommandError::HelperNoNode { device: config.id.to_string() })
    } else {
        Ok(nodes)
    }
}
