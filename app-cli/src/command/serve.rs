//! `diskwire serve`: the connector of a host. Answers until it is told to stop.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use transfer_core::driver::Driver;
use transfer_core::export::Export;
use transfer_core::format::process_id_table::CloseReason;
use transfer_core::node::NodeEvent;
use transfer_core::protocol::connection::ConnectionId;
use transfer_core::transfer::{LocalFiles, ServingFiles, SessionEvent};

use super::{CommandError, say};
use crate::args::Cli;
use crate::config::{ExportMode, HostConfig};
use crate::escape;
use crate::exit::Exit;
use crate::host::{Host, Purpose};
use crate::signals::Signals;

pub(super) fn run(cli: &Cli) -> Result<Exit, CommandError> {
    let config = HostConfig::load(cli.config_file()?)?;
    let mut signals = Signals::new().map_err(CommandError::Signals)?;
    let files = Arc::new(serving_files(&config)?);
    let (mut host, notices) = Host::start(&config, Purpose::Serve)?;
    for notice in notices {
        say(&notice);
    }
    say(&format!("host {} serves {} exports; Ctrl-C ends it", config.host, config.exports.len()));
    let mut peers = BTreeMap::new();
    let mut stores = BTreeMap::new();
    loop {
        let event = host.driver.next_event(None, &[signals.descriptor()]);
        if signals.count() > 0 {
            say("stopping");
            host.shut_down();
            return Ok(Exit::Done);
        }
        if let Some(event) = event.map(|event| host.handle(event)).transpose()?.flatten() {
            if let NodeEvent::SessionEnded { connection } = event {
                stores.remove(&connection);
            }
            if let Some((connection, store)) =
                handle(&config, &files, &mut host.driver, &host.pool, &mut peers, event)
            {
                stores.insert(connection, store);
            }
        }
        end_superseded(&mut host.driver, &stores);
    }
}

fn handle(
    config: &HostConfig,
    files: &Arc<ServingFiles>,
    driver: &mut Driver,
    pool: &storage_mapping::BufferPool,
    peers: &mut BTreeMap<ConnectionId, String>,
    event: NodeEvent,
) -> Option<(ConnectionId, Arc<LocalFiles>)> {
    match event {
        NodeEvent::Connected { connection, peer, segment_bytes, .. } => {
            // By its key: a host is whoever holds the key, whatever the volume calls it.
            let key = driver
                .node()
                .endpoint()
                .connections()
                .find(|open| open.id == connection)
                .map(|open| open.peer().key);
            let Some(settings) = config.peers.values().find(|settings| Some(settings.key.0) == key) else {
                let now = driver.now();
                driver.node().close(now, connection);
                return None;
            };
            let visible = match &settings.exports {
                None => Arc::clone(files),
                Some(names) => Arc::new(
                    files.only(|name| names.iter().any(|allowed| allowed.as_str().as_bytes() == name)),
                ),
            };
            let store = LocalFiles::serving(pool.clone(), segment_bytes, visible);
            let store = Arc::new(store.with_peer(&settings.key.to_string()));
            driver.attach_store(connection, Arc::clone(&store) as _);
            say(&format!("{peer} connected"));
            peers.insert(connection, peer);
            return Some((connection, store));
        }
        NodeEvent::Closed { connection, reason } => {
            if let Some(peer) = peers.remove(&connection) {
                say(&format!("{peer} {}", farewell(reason)));
            }
        }
        NodeEvent::SessionEnded { connection } => driver.detach_store(connection),
        NodeEvent::Session { connection, event } => {
            let peer = peers.get(&connection).map_or("a host", String::as_str);
            match event {
                SessionEvent::FileFailed { path, why, .. } => {
                    say(&format!(
                        "{peer}: {}: {why}",
                        escape::name(std::ffi::OsStr::from_bytes(path.as_bytes()))
                    ));
                }
                SessionEvent::Warning(text) => say(&format!("{peer}: {text}")),
                _ => {}
            }
        }
        NodeEvent::Notice(_) | NodeEvent::Persist(_) | NodeEvent::Started | NodeEvent::Stopped(_) => {}
    }
    None
}

/// A connection whose files a newer one of the same host asks for is one of a process that is gone, which
/// would show by its silence only after a minute.
fn end_superseded(driver: &mut Driver, stores: &BTreeMap<ConnectionId, Arc<LocalFiles>>) {
    for (connection, _) in stores.iter().filter(|(_, store)| store.is_superseded()) {
        let now = driver.now();
        driver.node().end(now, *connection, CloseReason::PeerLost);
    }
}

fn farewell(reason: CloseReason) -> String {
    match reason {
        CloseReason::Done | CloseReason::ClosedByPeer => "disconnected".to_owned(),
        CloseReason::PeerLost => "gave no sign of life any more; what is complete is kept".to_owned(),
        CloseReason::ShuttingDown => "ended its process".to_owned(),
        other => format!("lost: {}", super::cp::reason_text(other)),
    }
}

fn serving_files(config: &HostConfig) -> Result<ServingFiles, CommandError> {
    let mut exports = Vec::new();
    for (name, export) in &config.exports {
        let writable = export.mode == ExportMode::ReadWrite;
        let opened = Export::open(name.as_str().as_bytes(), &export.path, writable).map_err(|error| {
            CommandError::Export {
                file: escape::name(&config.file),
                line: export.line,
                name: name.to_string(),
                path: escape::name(&export.path),
                source: error.into(),
            }
        })?;
        exports.push(opened);
    }
    ServingFiles::new(exports, &config.state).map_err(CommandError::Signals)
}
