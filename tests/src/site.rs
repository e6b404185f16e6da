//! The shared hardware of a run: a volume on disks, and the paths of every host to every disk.
//!
//! Not here: time and faults (`world`, `disk`).

use std::io;
use std::sync::Arc;

use aws_lc_rs::signature::Ed25519KeyPair;
use multipath::{FailoverConfig, MultipathDevice};
use storage_mapping::{BlockDevice, BufferPool, Instant};
use thiserror::Error;
use transfer_core::enrolment::read_host_table;
use transfer_core::format::host_table::HostRecord;
use transfer_core::node::Node;
use transfer_core::protocol::endpoint::{AllowedPeer, Endpoint, EndpointConfig, owned_ranges};
use transfer_core::protocol::handshake::{Secrets, public_key};
use transfer_core::protocol::startup::LocalState;
use transfer_core::random::SeededRandom;
use volume::layout::{PlanError, PlannedDevice, VolumePlan};
use volume::record::Text;
use volume::sync::Waiter;
use volume::{Layout, OwnedRanges, create, open};
use zeroize::Zeroizing;

use crate::chance::Chance;
use crate::checker::ownership::Monitor;
use crate::disk::{PathControl, SharedDisk};
use crate::files::host_name;
use crate::host::Process;
use crate::lane::Lane;
use crate::plan::Plan;
use crate::trace::Trace;

const VOLUME_ID: [u8; 16] = [3; 16];
/// Connections per lane and role.
const CONNECTIONS: u16 = 4;

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
    layout: Arc<Layout>,
    peers: Vec<AllowedPeer>,
    trace: Trace,
}

impl Site {
    /// Makes disks and writes the volume; gives the lanes that have their place on it.
    ///
    /// # Errors
    /// See [`SiteError`].
    ///
    /// # Panics
    /// If the simulator's own names do not fit a row.
    pub fn new(plan: &Plan, chance: &mut Chance, trace: &Trace) -> Result<(Self, Vec<Lane>), SiteError> {
        let admin = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("32 bytes are a seed");
        let lanes = plan.lanes();
        let segment_blocks = u64::from(plan.segment_bytes) / 4096 + 1;
        let needed = u64::from(lanes) * plan.segments_per_lane * segment_blocks;
        // Regions of the master start at whole MiB: eight of them hold everything of a few lanes.
        let blocks_of = |device: u16| match (device, plan.secondaries) {
            (0, 0) => 8 * 256 + needed,
            (0, _) => 8 * 256,
            (_, count) => 256 + needed / u64::from(count) + segment_blocks,
        };
        let devices: Vec<u64> = (0..=plan.secondaries).map(blocks_of).collect();
        let planned = devices.iter().enumerate().map(|(index, blocks)| {
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
        let lanes = enrol(plan, &layout, &admin);
        let disk = |(number, blocks): (u16, &u64)| SharedDisk::new(number, *blocks, plan.faults.clone());
        let disks: Vec<_> = (0..).zip(&devices).map(disk).collect();
        let extra: Vec<_> = lanes.iter().flat_map(|lane| lane.record.pages(&layout)).collect();
        let path = PathControl::default();
        path.set_calm(true);
        let monitor = Monitor::new("admin", OwnedRanges::everything());
        let open = disks.iter().map(|disk| {
            Box::new(disk.device(&path, monitor.clone(), chance.fork(), trace.clone()))
                as Box<dyn BlockDevice>
        });
        create::create(&calm_waiter(Instant::ZERO), open.collect(), &layout, &extra)?;
        let paths = (0..plan.hosts)
            .map(|_| {
                let of_disk = || (0..plan.paths).map(|_| PathControl::default()).collect();
                disks.iter().map(|_| of_disk()).collect()
            })
            .collect();
        let peers =
            (0..plan.hosts).map(|host| AllowedPeer { name: host_name(host), key: public_key(&key(host)) });
        Ok((Self { disks, paths, layout, peers: peers.collect(), trace: trace.clone() }, lanes))
    }

    /// A new process on `lane`.
    ///
    /// # Panics
    /// If the volume does not open: its control blocks are never written after it was made.
    #[must_use]
    pub fn start(&self, plan: &Plan, lane: &Lane, chance: &mut Chance, now: Instant) -> Process {
        let name = lane.name();
        let monitor = Monitor::new(&name, owned_ranges(&self.layout, &lane.record));
        let paths = &self.paths[lane.host];
        paths.iter().flatten().for_each(|path| path.set_calm(true));
        let devices = self.disks.iter().zip(paths).map(|(disk, paths)| {
            let mut opened: Vec<_> = paths
                .iter()
                .map(|path| {
                    let device = disk.device(path, monitor.clone(), chance.fork(), self.trace.clone());
                    Box::new(device) as Box<dyn BlockDevice>
                })
                .collect();
            if opened.len() == 1 {
                return opened.remove(0);
            }
            let config = FailoverConfig::default();
            Box::new(MultipathDevice::new(opened, config).expect("equal paths")) as Box<dyn BlockDevice>
        });
        let waiter = calm_waiter(now);
        let opened = open::open(&waiter, devices.collect(), Some(VOLUME_ID), None).expect("a whole volume");
        let mut volume = opened.volume;
        let master = volume.device_mut(0).expect("a volume has a master");
        let table = read_host_table(&waiter, master.as_mut(), &self.layout).expect("a calm disk");
        paths.iter().flatten().for_each(|path| path.set_calm(false));
        volume.own(owned_ranges(&self.layout, &lane.record));
        let pool = BufferPool::new();
        let config = self.endpoint_config(plan, lane, lane.local.clone());
        let mut seed = [0; 32];
        seed.chunks_exact_mut(8).for_each(|part| part.copy_from_slice(&chance.bits().to_le_bytes()));
        let random = Box::new(SeededRandom::new(&seed));
        let hosts = Arc::new(table.rows);
        let endpoint = Endpoint::new(Arc::clone(&self.layout), hosts, config, pool.clone(), random, now);
        let node = Node::new(endpoint, pool.clone(), "simulated");
        Process::new(name, node, pool, volume, chance.fork(), self.trace.clone(), now)
    }

    fn endpoint_config(&self, plan: &Plan, lane: &Lane, local: LocalState) -> EndpointConfig {
        let own_name = host_name(lane.host);
        EndpointConfig {
            own: lane.record.clone(),
            answers: lane.is_serving(),
            secrets: Secrets { private_key: Zeroizing::new(key(lane.host)), fleet_secret: None },
            peers: self.peers.iter().filter(|peer| peer.name != own_name).cloned().collect(),
            window: plan.window,
            connections_per_peer_max: CONNECTIONS.into(),
            local,
        }
    }
}

/// The rows of all lanes: of each host the serving one first.
fn enrol(plan: &Plan, layout: &Layout, admin: &Ed25519KeyPair) -> Vec<Lane> {
    let lanes = (0..plan.hosts).flat_map(|host| (0..=plan.command_lanes).map(move |lane| (host, lane)));
    (0..)
        .zip(lanes)
        .map(|(row, (host, lane))| {
            let name = Text::new(&host_name(host)).expect("a short name");
            Lane::new(host, HostRecord::new(layout, row, name, public_key(&key(host)), lane, admin))
        })
        .collect()
}

fn key(host: usize) -> [u8; 32] {
    [u8::try_from(host).expect("few hosts") + 1; 32]
}

/// For calm disks: they answer at once, so that time stands still.
fn calm_waiter(now: Instant) -> Waiter<'static> {
    Waiter::new(move || now, |_, _| {})
}
