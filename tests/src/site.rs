//! The shared hardware of a run: a volume on disks, and the paths of every host to every disk.
//!
//! Not here: time and faults (`world`, `disk`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::signature::Ed25519KeyPair;
use multipath::{FailoverConfig, MultipathDevice};
use storage_mapping::{BlockDevice, BufferPool, Instant};
use thiserror::Error;
use transfer_core::enrolment::read_host_table;
use transfer_core::format::host_table::HostRecord;
use transfer_core::node::Node;
use transfer_core::protocol::endpoint::{AllowedPeer, Endpoint, EndpointConfig, owned_ranges};
use transfer_core::protocol::handshake::{Curve, Secrets, public_key_on, x25519};
use transfer_core::protocol::startup::LocalState;
use volume::layout::{PlanError, PlannedDevice, VolumePlan};
use volume::record::Text;
use volume::sync::Waiter;
use volume::{Layout, OwnedRanges, Volume, create, open};

use crate::chance::Chance;
use crate::checker::nonces::Nonces;
use crate::checker::ownership::Monitor;
use crate::disk::{Image, PathControl, SharedDisk};
use crate::files::host_name;
use crate::host::Process;
use crate::lane::Lane;
use crate::plan::Plan;
use crate::script::Scripted;
use crate::snapshot::{HostRandom, Snapshot, Twin};
use crate::stand_in;
use crate::trace::Trace;

const VOLUME_ID: [u8; 16] = [3; 16];
/// Connections per lane and role.
const CONNECTIONS: u16 = 4;
/// Hosts of a run, at most.
const HOSTS_MAX: usize = 8;

/// Why a run cannot begin: an error of the simulator, not of what it tests.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SiteError {
    /// The scratch folder.
    #[error("the scratch folder")]
    Scratch(#[from] io::Error),
    /// The volume cannot be planned.
    #[error("the plan of the volume")]
    Plan(#[from] PlanError),
    /// It cannot be created.
    #[error("the volume")]
    Create(#[from] create::CreateError),
}

/// Disks, paths and the volume on them.
#[derive(Debug)]
pub struct Site {
    /// The disks.
    pub disks: Vec<SharedDisk>,
    /// The paths, by host, disk and number.
    pub paths: Vec<Vec<Vec<PathControl>>>,
    /// What lies where.
    pub layout: Arc<Layout>,
    /// The fault at a chosen request.
    pub(crate) script: Option<Scripted>,
    peers: Vec<AllowedPeer>,
    curve: Curve,
    /// Nothing is spared that a program does.
    is_real: bool,
    nonces: Nonces,
    opened: Option<Opening>,
    trace: Trace,
}

/// The rows of the host table.
type Rows = Arc<Vec<Option<HostRecord>>>;

/// What was read when a volume was opened, and what its guarded blocks were then.
#[derive(Debug)]
struct Opening {
    guarded_changes: u64,
    rows: Rows,
}

/// A volume as the administrator made it, for all runs that have the same one.
#[derive(Clone, Debug)]
struct Created {
    layout: Arc<Layout>,
    records: Vec<(usize, HostRecord)>,
    /// The rows as a process finds them.
    rows: Rows,
    blocks: Vec<u64>,
    images: Vec<Image>,
}

/// What tells one created volume from another.
type Shape = (usize, u16, u16, u64, u32, bool);

thread_local! {
    static CREATED: RefCell<BTreeMap<Shape, Created>> = const { RefCell::new(BTreeMap::new()) };
}

impl Site {
    /// Makes disks with the volume; gives the lanes that have their place on it.
    ///
    /// # Errors
    /// See [`SiteError`].
    ///
    /// # Panics
    /// If the simulator's own names do not fit a row.
    pub fn new(plan: &Plan, trace: &Trace) -> Result<(Self, Vec<Lane>), SiteError> {
        let created = Created::of(plan)?;
        let guarded = |device: u16| match device {
            0 => created.layout.master.region(2).start,
            other => open::master_copy_blocks(other.into()).end,
        };
        let disk = |((number, blocks), image): ((u16, &u64), &Image)| {
            let disk = SharedDisk::new(number, *blocks, plan.faults.clone());
            disk.set_image(image);
            disk.guard(guarded(number));
            if plan.script.is_some() {
                disk.keep_before();
            }
            disk
        };
        let disks: Vec<_> = (0..).zip(&created.blocks).zip(&created.images).map(disk).collect();
        let paths = (0..plan.hosts)
            .map(|_| {
                let of_disk = || (0..plan.paths).map(|_| PathControl::default()).collect();
                disks.iter().map(|_| of_disk()).collect()
            })
            .collect();
        let curve = curve_of(plan);
        let peers = (0..plan.hosts)
            .map(|host| AllowedPeer { name: host_name(host), key: public_key_of(plan.real_keys, host) });
        let lanes = created.records.iter().map(|(host, record)| Lane::new(*host, record.clone())).collect();
        let site = Self {
            disks,
            paths,
            nonces: Nonces::new(Arc::clone(&created.layout)),
            script: plan.script.map(Scripted::new),
            layout: created.layout,
            peers: peers.collect(),
            curve,
            is_real: plan.real_keys,
            opened: Some(Opening { guarded_changes: 0, rows: created.rows }),
            trace: trace.clone(),
        };
        Ok((site, lanes))
    }

    /// A new process on `lane`, unless what the administrator wrote is damaged.
    ///
    /// # Panics
    /// If the paths of a host to one disk differ: an error of the simulator.
    pub fn start(&mut self, plan: &Plan, lane: &Lane, chance: &mut Chance, now: Instant) -> Option<Process> {
        let (volume, rows) = self.volume(lane, chance, now)?;
        let mut seed = [0; 32];
        seed.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&chance.bits().to_le_bytes()));
        let make = || {
            let (pool, random) = (BufferPool::new(), HostRandom::new(&seed));
            let config = self.endpoint_config(plan, lane, lane.local.clone());
            let (layout, rows) = (Arc::clone(&self.layout), Arc::clone(&rows));
            let endpoint = Endpoint::new(layout, rows, config, pool.clone(), Box::new(random.clone()), now);
            (Node::new(endpoint, pool.clone(), "simulated"), pool, random)
        };
        let (node, pool, _) = make();
        let process = Process::new(lane.name(), node, pool, volume, chance.fork(), self.trace.clone(), now);
        if plan.host_faults.snapshots == 0 || !lane.is_serving() {
            return Some(process);
        }
        let (node, pool, random) = make();
        Some(process.with_twin(Twin::new(node, pool, random)))
    }

    /// The process of `snapshot` goes on, on `lane`.
    pub fn resume(
        &mut self,
        lane: &Lane,
        mut snapshot: Snapshot,
        chance: &mut Chance,
        now: Instant,
    ) -> Option<Process> {
        let (volume, _) = self.volume(lane, chance, now)?;
        let mut seed = [1; 32];
        seed[..8].copy_from_slice(&chance.bits().to_le_bytes());
        snapshot.twin.random.reseed(&seed);
        let returned = snapshot.returned(chance);
        let Twin { node, pool, .. } = snapshot.twin;
        let process = Process::new(lane.name(), node, pool, volume, chance.fork(), self.trace.clone(), now);
        Some(process.with_returned(now, returned, (snapshot.sealed, snapshot.answers)))
    }

    /// The volume as a process on `lane` opens it, and the rows of the host table.
    fn volume(&mut self, lane: &Lane, chance: &mut Chance, now: Instant) -> Option<(Volume, Rows)> {
        let owned = owned_ranges(&self.layout, &lane.record);
        let monitor = Monitor::new(&lane.name(), owned.clone(), Some(self.nonces.clone()));
        let is_of_lane = |script: &&Scripted| script.is_of(lane.host, lane.record.lane);
        let script = self.script.as_ref().filter(is_of_lane).cloned();
        if let Some(script) = &script {
            script.begin_life(lane.lives);
        }
        let paths = &self.paths[lane.host];
        let devices = self.disks.iter().zip(paths).map(|(disk, paths)| {
            let mut opened: Vec<_> = paths
                .iter()
                .map(|path| {
                    let device = disk.device(path, monitor.clone(), chance.fork(), self.trace.clone());
                    Box::new(device.with_script(script.clone())) as Box<dyn BlockDevice>
                })
                .collect();
            if opened.len() == 1 {
                return opened.remove(0);
            }
            let config = FailoverConfig::default();
            Box::new(MultipathDevice::new(opened, config).expect("equal paths")) as Box<dyn BlockDevice>
        });
        let devices = devices.collect();
        let (mut volume, rows) = self.open(devices, lane.host, now)?;
        volume.own(owned);
        Some((volume, rows))
    }

    /// Opens the volume as a process does. What nobody changed since it was read is not read again.
    fn open(
        &mut self,
        devices: Vec<Box<dyn BlockDevice>>,
        host: usize,
        now: Instant,
    ) -> Option<(Volume, Rows)> {
        let guarded_changes = self.disks.iter().map(SharedDisk::guarded_changes).sum();
        let is_known = |opened: &&Opening| !self.is_real && opened.guarded_changes == guarded_changes;
        if let Some(opened) = self.opened.as_ref().filter(is_known) {
            let volume = Volume::of_verified(devices, Layout::clone(&self.layout));
            return Some((volume, Arc::clone(&opened.rows)));
        }
        let paths = self.paths[host].iter().flatten();
        paths.clone().for_each(|path| path.set_calm(true));
        let waiter = calm_waiter(now);
        let opened = open::open(&waiter, devices, Some(VOLUME_ID), None);
        let opened = opened.map_err(|error| error.to_string()).and_then(|opened| {
            let mut volume = opened.volume;
            let master = volume.device_mut(0).expect("a volume has a master");
            let table = read_host_table(&waiter, master.as_mut(), &self.layout);
            table.map(|table| (volume, Arc::new(table.rows))).map_err(|error| error.to_string())
        });
        paths.for_each(|path| path.set_calm(false));
        match opened {
            Ok((volume, rows)) => {
                self.opened = Some(Opening { guarded_changes, rows: Arc::clone(&rows) });
                Some((volume, rows))
            }
            Err(error) => {
                self.trace.line(now, "volume", &format!("host{host} cannot open it: {error}"));
                None
            }
        }
    }

    fn endpoint_config(&self, plan: &Plan, lane: &Lane, local: LocalState) -> EndpointConfig {
        let own_name = host_name(lane.host);
        EndpointConfig {
            own: lane.record.clone(),
            answers: lane.is_serving(),
            secrets: Secrets { curve: self.curve, ..Secrets::new(key(lane.host)) },
            peers: self.peers.iter().filter(|peer| peer.name != own_name).cloned().collect(),
            window: plan.window,
            connections_per_peer_max: CONNECTIONS.into(),
            bell_pause: plan.bell_pause,
            local,
        }
    }
}

impl Created {
    fn of(plan: &Plan) -> Result<Self, SiteError> {
        let shape = (
            plan.hosts,
            plan.command_lanes,
            plan.secondaries,
            plan.segments_per_lane,
            plan.segment_bytes,
            plan.real_keys,
        );
        if let Some(created) = CREATED.with_borrow(|created| created.get(&shape).cloned()) {
            return Ok(created);
        }
        let created = Self::create(plan)?;
        CREATED.with_borrow_mut(|all| all.insert(shape, created.clone()));
        Ok(created)
    }

    fn create(plan: &Plan) -> Result<Self, SiteError> {
        let admin = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("32 bytes are a seed");
        let lanes = plan.lanes();
        let segment_blocks = u64::from(plan.segment_bytes) / 4096 + 1;
        let needed = u64::from(lanes) * plan.segments_per_lane * segment_blocks;
        // Regions of the master start at whole MiB: eight of them hold everything of a few lanes.
        let tables = if lanes > 12 { 16 * 256 } else { 8 * 256 };
        let blocks_of = |device: u16| match (device, plan.secondaries) {
            (0, 0) => tables + needed,
            (0, _) => tables,
            (_, count) => 256 + needed / u64::from(count) + segment_blocks,
        };
        let blocks: Vec<u64> = (0..=plan.secondaries).map(blocks_of).collect();
        let planned = blocks.iter().enumerate().map(|(index, blocks)| {
            PlannedDevice::new(&format!("disk{index}"), *blocks).expect("a short name")
        });
        let volume_plan = VolumePlan {
            devices: planned.collect(),
            lanes,
            connections: CONNECTIONS,
            segment_payload_bytes: plan.segment_bytes,
            volume_id: VOLUME_ID,
            time_id: 1,
            unix_filename: "disk0".into(),
        };
        let layout = Arc::new(volume_plan.layout(&admin)?);
        let records = enrol(plan, &layout, &admin);
        let healthy = plan.faults.stopped();
        let disk = |(number, blocks): (u16, &u64)| SharedDisk::new(number, *blocks, healthy.clone());
        let disks: Vec<_> = (0..).zip(&blocks).map(disk).collect();
        let extra: Vec<_> = records.iter().flat_map(|(_, record)| record.pages(&layout)).collect();
        let path = PathControl::default();
        path.set_calm(true);
        let monitor = Monitor::new("admin", OwnedRanges::everything(), None);
        let open = disks.iter().map(|disk| {
            Box::new(disk.device(&path, monitor.clone(), Chance::new(0), Trace::new(false)))
                as Box<dyn BlockDevice>
        });
        create::create(&calm_waiter(Instant::ZERO), open.collect(), &layout, &extra)?;
        let images = disks.iter().map(SharedDisk::to_image).collect();
        let rows = Arc::new(records.iter().map(|(_, record)| Some(record.clone())).collect());
        Ok(Self { layout, records, rows, blocks, images })
    }
}

/// The rows of all lanes: of each host the serving one first.
fn enrol(plan: &Plan, layout: &Layout, admin: &Ed25519KeyPair) -> Vec<(usize, HostRecord)> {
    let lanes = (0..plan.hosts).flat_map(|host| (0..=plan.command_lanes).map(move |lane| (host, lane)));
    (0..)
        .zip(lanes)
        .map(|(row, (host, lane))| {
            let name = Text::new(&host_name(host)).expect("a short name");
            let key = public_key_of(plan.real_keys, host);
            (host, HostRecord::new(layout, row, name, key, lane, admin))
        })
        .collect()
}

fn curve_of(plan: &Plan) -> Curve {
    if plan.real_keys { x25519 } else { stand_in::curve }
}

/// Public keys of hosts on the two curves; they are the same in every run.
fn public_key_of(real: bool, host: usize) -> [u8; 32] {
    static REAL: OnceLock<Vec<[u8; 32]>> = OnceLock::new();
    if real {
        REAL.get_or_init(|| (0..HOSTS_MAX).map(|host| public_key_on(x25519, &key(host))).collect())[host]
    } else {
        public_key_on(stand_in::curve, &key(host))
    }
}

fn key(host: usize) -> [u8; 32] {
    [u8::try_from(host).expect("few hosts") + 1; 32]
}

/// For calm disks: they answer at once, so that time stands still.
fn calm_waiter(now: Instant) -> Waiter<'static> {
    Waiter::new(move || now, |_, _| {})
}
