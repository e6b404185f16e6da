//! A volume made for a measurement, and processes of its hosts, all in this process: real nodes on real layers, each with its own
//! opening of the devices.
//!
//! Keeps true: what runs is the program's own node, volume and multipath layer, one path for each device; nothing is shared
//! between the hosts but the devices. Not here: what is measured, files of users (`memory_store`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use storage_mapping::{BlockDevice, BufferPool, Instant};
use transfer_core::driver::Driver;
use transfer_core::driver::clock::{Clock, OsRandom};
use transfer_core::enrolment::read_host_table;
use transfer_core::format::host_table::HostRecord;
use transfer_core::node::{Node, NodeEvent};
use transfer_core::protocol::discovery::BELL_WARM;
use transfer_core::protocol::endpoint::{AllowedPeer, Endpoint, EndpointConfig, owned_ranges};
use transfer_core::protocol::handshake::{Secrets, public_key};
use transfer_core::protocol::startup::LocalState;
use transfer_core::random::random_bytes;
use transfer_core::transfer::{LocalStore, SessionEvent, Verdict};
use volume::layout::{Layout, PlannedDevice, VolumePlan};
use volume::record::Text;
use volume::{BLOCK_BYTES, Volume};

use super::super::CommandError;
use crate::stack;

/// The host that calls, and the host that answers.
pub(super) const HOSTS: [&str; 2] = ["caller", "answerer"];
/// Segments in flight per direction, as `serve` and `cp` have them.
const WINDOW: u16 = 32;
/// Payload of a segment.
pub(super) const SEGMENT_BYTES: u32 = 1 << 20;
/// How often a host looks whether it is to end.
const STEP: Duration = Duration::from_millis(50);
/// Without any event for this long a measurement has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Opens the devices of a volume once more, the master first.
pub(super) type OpenDevices = Box<dyn Fn() -> Result<Vec<Box<dyn BlockDevice>>, CommandError> + Send + Sync>;

/// How large a volume is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Connections per lane and role.
    pub(super) connections: u16,
    /// Segments that each host may have in use.
    pub(super) segments: u64,
    /// Devices with segments.
    pub(super) secondaries: usize,
}

impl Extent {
    /// Bytes of each device, the master first.
    pub(super) fn device_bytes(&self) -> Vec<u64> {
        let (lanes, connections) = (HOSTS.len() as u64, u64::from(self.connections));
        // Eight regions of the master, each of whole MiB.
        let master = 8 * (1 << 20) + (10 * lanes + 8 * lanes * connections) * BLOCK_BYTES as u64;
        let segment = u64::from(SEGMENT_BYTES) + BLOCK_BYTES as u64;
        let share = self.segments.div_ceil(self.secondaries as u64).max(3);
        let mut bytes = vec![master.next_multiple_of(1 << 20)];
        bytes.resize(1 + self.secondaries, ((1 << 20) + lanes * share * segment).next_multiple_of(1 << 20));
        bytes
    }
}

/// A volume with a lane for each of the two hosts.
pub(super) struct World {
    open: OpenDevices,
    keys: [[u8; 32]; 2],
}

impl World {
    /// Lays a volume out over the devices, which are overwritten.
    pub(super) fn create(extent: &Extent, open: OpenDevices) -> Result<Self, CommandError> {
        let seed: [u8; 32] = random_bytes(&mut OsRandom);
        let admin = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed of 32 bytes");
        let keys = [random_bytes(&mut OsRandom), random_bytes(&mut OsRandom)];
        let devices = open()?;
        let planned = devices.iter().enumerate().map(|(index, device)| {
            let blocks = volume::sync::block_count(device.as_ref());
            PlannedDevice::new(&format!("disk{index}"), blocks).expect("a short name")
        });
        let plan = VolumePlan {
            devices: planned.collect(),
            lanes: u16::try_from(HOSTS.len()).expect("two"),
            connections: extent.connections,
            segment_payload_bytes: SEGMENT_BYTES,
            volume_id: random_bytes(&mut OsRandom),
            time_id: 0,
            unix_filename: "bench".into(),
        };
        let layout = plan.layout(&admin).map_err(failed)?;
        let rows = HOSTS.iter().zip(&keys).zip(0..).flat_map(|((name, key), row)| {
            let name = Text::new(name).expect("a short name");
            HostRecord::new(&layout, row, name, public_key(key), 0, &admin).pages(&layout)
        });
        let rows: Vec<_> = rows.collect();
        volume::create::create(&stack::waiter(Clock::new()), devices, &layout, &rows).map_err(failed)?;
        Ok(Self { open, keys })
    }

    /// A node of a host on its own opening of the volume, about to start.
    pub(super) fn node(&self, host: usize, now: Instant) -> Result<(Node, Volume, BufferPool), CommandError> {
        let (endpoint, volume, pool) = self.endpoint(host, now)?;
        Ok((Node::new(endpoint, pool.clone(), "diskwire bench"), volume, pool))
    }

    /// The same without sessions.
    pub(super) fn endpoint(
        &self,
        host: usize,
        now: Instant,
    ) -> Result<(Endpoint, Volume, BufferPool), CommandError> {
        let waiter = stack::waiter(Clock::new());
        let opened = volume::open::open(&waiter, (self.open)()?, None, None).map_err(failed)?;
        let mut volume = opened.volume;
        let layout: Arc<Layout> = Arc::new(volume.layout().clone());
        let master = volume.device_mut(0).expect("a volume has a master");
        let table = read_host_table(&waiter, master.as_mut(), &layout).map_err(failed)?;
        let own = table.rows[host].clone().expect("the row was written just now");
        volume.own(owned_ranges(&layout, &own));
        let pool = BufferPool::new();
        let peer = 1 - host;
        let config = EndpointConfig {
            own,
            answers: host == 1,
            secrets: Secrets::new(self.keys[host]),
            peers: vec![AllowedPeer { name: HOSTS[peer].to_owned(), key: public_key(&self.keys[peer]) }],
            window: WINDOW,
            connections_per_peer_max: layout.master.connections.into(),
            bell_pause: BELL_WARM,
            local: LocalState::default(),
        };
        let rows = Arc::new(table.rows);
        let endpoint = Endpoint::new(layout, rows, config, pool.clone(), Box::new(OsRandom), now);
        Ok((endpoint, volume, pool))
    }

    /// A host in real time, started.
    pub(super) fn host(&self, host: usize) -> Result<Process, CommandError> {
        let clock = Clock::new();
        let (node, volume, pool) = self.node(host, clock.now())?;
        let driver = Driver::new(node, volume, pool.clone(), clock).map_err(failed)?;
        let mut process = Process { driver, pool };
        while !matches!(process.next_event()?, NodeEvent::Started) {}
        Ok(process)
    }
}

/// A process of a host, driven by who calls it.
pub(super) struct Process {
    pub(super) driver: Driver,
    pub(super) pool: BufferPool,
}

impl Process {
    /// The next event that says something about connections.
    pub(super) fn next_event(&mut self) -> Result<NodeEvent, CommandError> {
        let limit = self.driver.now() + PATIENCE;
        loop {
            match self.event_before(limit)? {
                Some(event) => return Ok(event),
                None if self.driver.now() >= limit => {
                    return Err(failed("nothing has happened for two minutes"));
                }
                None => {}
            }
        }
    }

    /// The next event, if there is one before `limit`.
    pub(super) fn event_before(&mut self, limit: Instant) -> Result<Option<NodeEvent>, CommandError> {
        match self.driver.next_event(Some(limit), &[]) {
            // Whoever measures has one life: there is nothing to remember for the next.
            Some(NodeEvent::Persist(_)) => {
                let now = self.driver.now();
                self.driver.node().handle_persisted(now);
                Ok(None)
            }
            Some(NodeEvent::Stopped(why)) => Err(failed(format!("a host cannot start: {why:?}"))),
            other => Ok(other),
        }
    }

    /// Answers calls in a thread of its own with `store`, until it is told to end.
    pub(super) fn answer(mut self, store: Arc<dyn LocalStore + Send + Sync>) -> Answerer {
        let ending = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ending);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                let limit = self.driver.now() + STEP;
                match self.event_before(limit)? {
                    Some(NodeEvent::Connected { connection, .. }) => {
                        self.driver.attach_store(connection, Arc::clone(&store));
                    }
                    Some(NodeEvent::SessionEnded { connection }) => self.driver.detach_store(connection),
                    _ => {}
                }
            }
            Ok(())
        });
        Answerer { ending, thread: Some(thread) }
    }
}

/// A host that answers, in its thread; it ends with this.
pub(super) struct Answerer {
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), CommandError>>>,
}

impl Answerer {
    /// Ends it; what went wrong in it, if anything did.
    pub(super) fn end(mut self) -> Result<(), CommandError> {
        self.stop().unwrap_or(Ok(()))
    }

    fn stop(&mut self) -> Option<Result<(), CommandError>> {
        self.ending.store(true, Ordering::Relaxed);
        self.thread.take().map(|thread| thread.join().expect("a host that answers does not panic"))
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether a session's event is the end of its job; an end that is not what was wanted is an error.
pub(super) fn is_end(event: &SessionEvent) -> Result<bool, CommandError> {
    match event {
        SessionEvent::Finished(outcome) if outcome.verdict == Verdict::Done => Ok(true),
        SessionEvent::Finished(outcome) => Err(failed(format!("a transfer ended otherwise: {outcome:?}"))),
        SessionEvent::FileFailed { why, .. } => Err(failed(why)),
        _ => Ok(false),
    }
}

/// What went wrong, for the user.
pub(super) fn failed(why: impl ToString) -> CommandError {
    CommandError::Bench { why: why.to_string() }
}
