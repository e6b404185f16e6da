//! FIG. 8 from a configuration: look at the devices, refuse what is in use, lay the volume out.
//!
//! What holds: a device with anything on it is not touched unless it was named once more; the admin's
//! key signs, and the hosts' public keys come from VOLUME.toml.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use storage_mapping::in_use::findings;
use storage_mapping::path_address::Target;
use thiserror::Error;
use transfer_core::driver::clock::{Clock, OsRandom};
use transfer_core::format::host_table::HostRecord;
use transfer_core::random::random_bytes;
use volume::create::{CreateError, create};
use volume::layout::{Layout, PlanError, PlannedDevice, VolumePlan};
use volume::record::Text;
use volume::sync::block_count;

use crate::config::{Hex, VolumeConfig, VolumeId};
use crate::escape;
use crate::keys::{AdminKey, KeyError};
use crate::stack::{self, Contents, Origin, StackError};

/// Why a volume was not created.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The admin's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The plan does not fit the devices.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The devices.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// I/O.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// A device to be forced that is none of the volume's.
    #[error("--force {path} is no device of {file}; name one of its devices")]
    ForceStranger {
        /// What was named.
        path: String,
        /// The configuration.
        file: String,
    },
    /// Something is on a device.
    #[error("{path} is not free: {found}; to destroy what is on it add --force {path}")]
    InUse {
        /// The device.
        path: String,
        /// What was found.
        found: String,
    },
    /// A device cannot be looked at.
    #[error("cannot look at {path}")]
    Look {
        /// The device.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Creates the volume of `config`; devices in `force` are laid out whatever is on them.
///
/// # Errors
/// See [`SetupError`].
pub fn create_volume(config: &VolumeConfig, force: &[PathBuf]) -> Result<VolumeId, SetupError> {
    let admin = AdminKey::load(&config.admin_key)?;
    let nodes = nodes(config)?;
    if let Some(stranger) = force.iter().find(|forced| !nodes.iter().any(|node| is_same(forced, node))) {
        let (path, file) = (escape::name(stranger), escape::name(&config.file));
        return Err(SetupError::ForceStranger { path, file });
    }
    for node in nodes.iter().filter(|node| !force.iter().any(|forced| is_same(forced, node))) {
        refuse_used(node)?;
    }
    let blank = Contents::Blank;
    let devices = stack::devices(&Origin::of_volume(config), &config.devices, blank)?.value;
    let planned = config.devices.iter().zip(&devices).map(|(named, device)| {
        PlannedDevice::new(named.id.as_str(), block_count(device.as_ref())).expect("an id of 1 to 16 bytes")
    });
    let volume_id: [u8; 16] = random_bytes(&mut OsRandom);
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let plan = VolumePlan {
        devices: planned.collect(),
        lanes: config.lanes(),
        connections: config.connections,
        segment_payload_bytes: config.segment_size_bytes,
        volume_id,
        time_id: u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX),
        unix_filename: master_name(config)?,
    };
    let layout = plan.layout(admin.pair())?;
    let extra: Vec<_> =
        host_records(config, &layout, &admin).iter().flat_map(|row| row.pages(&layout)).collect();
    create(&stack::waiter(Clock::new()), devices, &layout, &extra)?;
    Ok(Hex(volume_id))
}

/// The files and block nodes of all paths, each once.
fn nodes(config: &VolumeConfig) -> Result<BTreeSet<PathBuf>, StackError> {
    let mut nodes = BTreeSet::new();
    for path in config.devices.iter().flat_map(|device| &device.paths) {
        let address = Origin::of_volume(config).address(&path.text, path.line)?;
        if let Target::File(path) | Target::Block(path) = address.target {
            nodes.insert(path);
        }
    }
    Ok(nodes)
}

fn is_same(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn refuse_used(path: &Path) -> Result<(), SetupError> {
    let shown = escape::name(path);
    let found = findings(path).map_err(|source| SetupError::Look { path: shown.clone(), source })?;
    if found.is_empty() {
        return Ok(());
    }
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    Err(SetupError::InUse { path: shown, found: found.join(", ") })
}

/// `blk5_unix_filename`: where the master is, as far as it fits.
fn master_name(config: &VolumeConfig) -> Result<String, StackError> {
    let path = &config.devices[0].paths[0];
    let address = Origin::of_volume(config).address(&path.text, path.line)?;
    Ok(match &address.target {
        Target::File(path) | Target::Block(path) => {
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            let shown = path.to_string_lossy().into_owned();
            if shown.len() <= 255 { shown } else { String::new() }
        }
        Target::Memory { name, .. } => name.clone(),
        Target::Simulated(simulated) => {
            let shown = simulated.to_string();
            if shown.len() <= 255 { shown } else { String::new() }
        }
        // The address without options: where the server is and what it is asked for.
        Target::Nbd(nbd) => {
            let shown = nbd.to_string();
            if shown.len() <= 255 { shown } else { String::new() }
        }
        Target::Iscsi(iscsi) => {
            let shown = iscsi.to_string();
            if shown.len() <= 255 { shown } else { String::new() }
        }
    })
}

/// The rows of the host table: the lanes of each host, one after another.
fn host_records(config: &VolumeConfig, layout: &Layout, admin: &AdminKey) -> Vec<HostRecord> {
    let lanes = config.hosts.iter().flat_map(|host| (0..host.lanes).map(move |lane| (host, lane)));
    lanes
        .zip(0u16..)
        .map(|((host, lane), row)| {
            let name = Text::new(host.name.as_str()).expect("a name of at most 63 bytes");
            HostRecord::new(layout, row, name, host.key.0, lane, admin.pair())
        })
        .collect()
}
