//! A process of a host, ready to make or answer calls: configuration, lane, volume, node.
//!
//! What holds: the lane's lock is held as long as the process lives; the local state is durable before
//! the volume is written; the volume accepts no write outside the lane's own ranges. Not here: what is
//! transferred (`command`).

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use storage_mapping::BufferPool;
use thiserror::Error;
use transfer_core::driver::Driver;
use transfer_core::driver::clock::{Clock, OsRandom};
use transfer_core::enrolment::read_host_table;
use transfer_core::format::host_table::HostRecord;
use transfer_core::node::{Node, NodeEvent};
use transfer_core::protocol::discovery::BELL_WARM;
use transfer_core::protocol::endpoint::{AllowedPeer, Endpoint, EndpointConfig, owned_ranges};
use transfer_core::protocol::handshake::Secrets;
use transfer_core::protocol::startup::StartupFailure;
use volume::Volume;
use volume::sync::SyncError;

use crate::config::HostConfig;
use crate::control_socket::ControlSocket;
use crate::escape;
use crate::keys::{HostKey, KeyError};
use crate::living_copies::LivingCopies;
use crate::local_state::{LaneState, LocalStateError};
use crate::stack::{self, Origin, StackError};
use crate::state_dir::{LANE_WAIT_MAX, LaneLock, StateDir, StateDirError};

/// Segments in flight per direction.
const WINDOW: u16 = 32;
/// The longest a start may take.
const START_MAX: Duration = Duration::from_secs(90);
/// How often an ending process looks whether it is done.
const FAREWELL_STEP: Duration = Duration::from_millis(2);
/// How long the last writes of a process may take.
const FAREWELL_MAX: Duration = Duration::from_secs(3);

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Makes calls: one of the lanes 1 and up.
    Command,
    /// Answers calls: lane 0.
    Serve,
}

/// Why a process of a host cannot start.
#[derive(Debug, Error)]
pub enum HostError {
    /// Its key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What its lane remembers.
    #[error(transparent)]
    LocalState(#[from] LocalStateError),
    /// The devices.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The state directory.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The master cannot be read.
    #[error("cannot read the host table: {0}")]
    Table(#[from] SyncError),
    /// The volume has no such host.
    #[error("{file}: the volume has no host {host}; its hosts are {known}")]
    NotEnrolled {
        /// The configuration.
        file: String,
        /// The host.
        host: String,
        /// The hosts of the volume.
        known: String,
    },
    /// The volume knows the host with another key.
    #[error(
        "{key}: this is not the key that host {host} is enrolled with on the volume; use that key, or create the volume with this one"
    )]
    WrongKey {
        /// The key file.
        key: String,
        /// The host.
        host: String,
    },
    /// Another process has this identity.
    #[error(
        "duplicate identity: another process writes as host {host}, lane {lane}; give every host a name, a key and a state directory of its own"
    )]
    Duplicate {
        /// The host.
        host: String,
        /// The lane.
        lane: u16,
    },
    /// The lane's records cannot be read or written.
    #[error("host {host} cannot read or write its records on the volume: {why}")]
    Device {
        /// The host.
        host: String,
        /// The last error.
        why: String,
    },
    /// Threads.
    #[error("cannot start")]
    Start(#[source] io::Error),
}

/// A process of a host.
#[derive(Debug)]
pub struct Host {
    /// Its node, driven by real time.
    pub driver: Driver,
    /// The pool of its buffers.
    pub pool: BufferPool,
    /// Its state directory.
    pub state: PathBuf,
    /// Payload of a segment of the volume.
    pub segment_bytes: usize,
    name: String,
    // Before the lock: the socket goes while the lane is still ours.
    _control: Option<ControlSocket>,
    lane: LaneLock,
    lane_state: LaneState,
}

impl Host {
    /// Opens the volume, takes a lane and starts.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn start(config: &HostConfig, purpose: Purpose) -> Result<(Self, Vec<String>), HostError> {
        let key = HostKey::load(&config.key)?;
        let state = StateDir::open(&config.state)?;
        // Before the paths: their sessions belong to the lane.
        let serves = (purpose == Purpose::Serve).then(|| state.lock_serve()).transpose()?;
        let clock = Clock::new();
        let waiter = stack::waiter(clock);
        let section = &config.volume;
        let (copies, mut notices) = LivingCopies::read(&config.state, &section.id.0);
        let mut origin = Origin::of_host(config, purpose == Purpose::Serve);
        origin.copies = Some((copies.clone(), clock));
        let stacked = stack::volume(
            &waiter,
            &origin,
            &section.devices,
            Some(section.id.0),
            Some(&section.admin_key.0),
        )?;
        let (mut volume, controls) = (stacked.value, stacked.controls);
        notices.extend(stacked.notices);
        let layout = Arc::new(volume.layout().clone());
        let master = volume.device_mut(0).expect("a volume has a master");
        let table = read_host_table(&waiter, master.as_mut(), &layout)?;
        notices.extend(table.notices);
        let lanes = own_lanes(config, &key, &table.rows)?;
        let lane = match serves {
            Some(lane) => lane,
            None => {
                let highest = lanes.iter().map(|row| row.lane).max().unwrap_or(0);
                state.lock_lane(highest, LANE_WAIT_MAX)?
            }
        };
        copies.take_lane(lane.lane());
        let own =
            lanes.into_iter().find(|row| row.lane == lane.lane()).expect("a lane of the table was locked");
        volume.own(owned_ranges(&layout, &own));
        let lane_state = LaneState::new(&config.state, lane.lane(), &section.id.0);
        let endpoint_config = EndpointConfig {
            answers: purpose == Purpose::Serve,
            own,
            secrets: Secrets::new(*key.secret()),
            peers: peers(config),
            window: window(config, layout.master.seg_max),
            connections_per_peer_max: usize::from(config.limits.connections),
            bell_pause: BELL_WARM,
            local: lane_state.load()?,
        };
        let pool = BufferPool::new();
        let endpoint = Endpoint::new(
            Arc::clone(&layout),
            Arc::new(table.rows),
            endpoint_config,
            pool.clone(),
            Box::new(OsRandom),
            clock.now(),
        );
        let program = concat!("diskwire ", env!("CARGO_PKG_VERSION"));
        let node = Node::new(endpoint, pool.clone(), program);
        let segment_bytes = usize::try_from(layout.master.seg_max).expect("a segment is at most 64 MiB");
        let process = if purpose == Purpose::Serve { "serve" } else { "command" };
        let control = ControlSocket::start(state.path(), lane.lane(), process, controls);
        if let Err(error) = &control {
            notices.push(format!("`diskwire path` does not reach this process: no control socket ({error})"));
        }
        let mut host = Self {
            driver: new_driver(node, volume, &pool, clock)?,
            pool,
            state: config.state.clone(),
            segment_bytes,
            name: config.host.to_string(),
            _control: control.ok(),
            lane,
            lane_state,
        };
        host.wait_until_started()?;
        Ok((host, notices))
    }

    fn wait_until_started(&mut self) -> Result<(), HostError> {
        let limit = self.driver.now() + START_MAX;
        let mut last = "no answer".to_owned();
        while let Some(event) = self.driver.next_event(Some(limit), &[]) {
            match self.handle(event)? {
                Some(NodeEvent::Started) => return Ok(()),
                Some(NodeEvent::Notice(text)) => last = text,
                _ => {}
            }
        }
        Err(HostError::Device { host: self.name.clone(), why: last })
    }

    /// Deals with the events that every process deals with alike; others come back.
    ///
    /// # Errors
    /// If the process must end.
    pub fn handle(&mut self, event: NodeEvent) -> Result<Option<NodeEvent>, HostError> {
        match event {
            NodeEvent::Persist(state) => {
                self.lane_state.save(&state)?;
                let now = self.driver.now();
                self.driver.node().handle_persisted(now);
                Ok(None)
            }
            NodeEvent::Stopped(StartupFailure::DuplicateIdentity) => {
                Err(HostError::Duplicate { host: self.name.clone(), lane: self.lane.lane() })
            }
            NodeEvent::Stopped(StartupFailure::Device) => {
                Err(HostError::Device { host: self.name.clone(), why: "an I/O error at the start".into() })
            }
            NodeEvent::Stopped(StartupFailure::DeviceReplaced { device }) => Err(HostError::Device {
                host: self.name.clone(),
                why: format!(
                    "device {device} carries this volume no more: it was replaced, or its first block was overwritten; correct its paths"
                ),
            }),
            NodeEvent::Stopped(StartupFailure::Evicted) => Err(HostError::Device {
                host: self.name.clone(),
                why: "the administrator has evicted it".into(),
            }),
            NodeEvent::Notice(text) => {
                tracing::info!(host = self.name, lane = self.lane.lane(), "{text}");
                Ok(Some(NodeEvent::Notice(text)))
            }
            other => Ok(Some(other)),
        }
    }

    /// Ends every connection and says so on the volume, within a few seconds.
    pub fn shut_down(&mut self) {
        let limit = self.driver.now() + FAREWELL_MAX;
        let now = self.driver.now();
        self.driver.node().shut_down(now);
        while !self.driver.node().is_idle() && self.driver.now() < limit {
            let soon = self.driver.now() + FAREWELL_STEP;
            if let Some(NodeEvent::SessionEnded { connection }) = self.driver.next_event(Some(soon), &[]) {
                self.driver.detach_store(connection);
            }
        }
    }
}

fn new_driver(node: Node, volume: Volume, pool: &BufferPool, clock: Clock) -> Result<Driver, HostError> {
    Driver::new(node, volume, pool.clone(), clock).map_err(HostError::Start)
}

fn peers(config: &HostConfig) -> Vec<AllowedPeer> {
    let peers = config.peers.iter();
    peers.map(|(name, peer)| AllowedPeer { name: name.to_string(), key: peer.key.0 }).collect()
}

/// As many segments as half the memory limit holds: they are there once going out and once coming in.
fn window(config: &HostConfig, seg_max: u32) -> u16 {
    let segments = config.limits.memory.0 / 2 / u64::from(seg_max);
    u16::try_from(segments.clamp(2, WINDOW.into())).expect("at most 32")
}

/// The rows of this host, by its name and its key.
fn own_lanes(
    config: &HostConfig,
    key: &HostKey,
    rows: &[Option<HostRecord>],
) -> Result<Vec<HostRecord>, HostError> {
    let host = config.host.to_string();
    let named: Vec<_> = rows.iter().flatten().filter(|row| row.name.as_str() == host).cloned().collect();
    if named.is_empty() {
        let mut known: Vec<_> = rows.iter().flatten().map(|row| escape::name(row.name.as_str())).collect();
        known.dedup();
        let known = known.join(", ");
        return Err(HostError::NotEnrolled { file: escape::name(&config.file), host, known });
    }
    if named.iter().any(|row| row.public_key != key.public().0) {
        return Err(HostError::WrongKey { key: escape::name(&config.key), host });
    }
    Ok(named)
}
