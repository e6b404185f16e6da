//! The one place where the layers are stacked, in the order of FIG. 13.
//!
//! ```text
//!  application               121   a command of this crate
//!  transfer-core                   node, endpoint, connections
//!  file system / LVM         123   volume: many devices, one volume of numbered segments
//!  multi-path mapping        125   multipath: many paths, one device
//!  storage system mapping    127   storage-mapping: what a path address names
//! ```
//!
//! Not here: what the commands do with it, whether paths belong together (`agreement`), and where their addresses stand
//! and who opens them (`origin`).

mod agreement;
mod origin;

use multipath::control::{Control, Controlled};
use multipath::{FailoverConfig, MultipathDevice, MultipathError, Selector};
use storage_mapping::path_address::{OpenError as AddressError, ParseAddressError};
use storage_mapping::{BlockDevice, Instant, wait};
use thiserror::Error;
use transfer_core::driver::clock::Clock;
use volume::open::{OpenError, Opened};
use volume::sync::Waiter;

use self::agreement::{Agreement, Candidate};
pub use self::agreement::Disagreement;
pub use self::origin::{Origin, Owner};
use crate::config::DeviceConfig;
use crate::escape;

/// Why the layers cannot be stacked.
#[derive(Debug, Error)]
pub enum StackError {
    /// A path address that is none.
    #[error("{file}:{line}: path `{text}`: {source}")]
    Address {
        /// The configuration.
        file: String,
        /// The line.
        line: usize,
        /// What stands there.
        text: String,
        /// Why.
        source: ParseAddressError,
    },
    /// A path that cannot be opened.
    #[error("{file}:{line}: device {device}: {source}")]
    Path {
        /// The configuration.
        file: String,
        /// The line.
        line: usize,
        /// Id of the device.
        device: String,
        /// Why.
        source: AddressError,
    },
    /// Paths that do not lead to one disk.
    #[error("{file}:{line}: device {device}: {source}")]
    Paths {
        /// The configuration.
        file: String,
        /// The line of the path that does not fit.
        line: usize,
        /// Id of the device.
        device: String,
        /// Why.
        source: Disagreement,
    },
    /// Paths that do not make one device.
    #[error("device {device}: {source}")]
    Multipath {
        /// Id of the device.
        device: String,
        /// Why.
        source: MultipathError,
    },
    /// The way for operators cannot be had.
    #[error("device {device}: no descriptor is left for its control")]
    Control {
        /// Id of the device.
        device: String,
        /// Why.
        source: std::io::Error,
    },
    /// The devices are not the volume.
    #[error("{file}: {source}")]
    Volume {
        /// The configuration.
        file: String,
        /// Why.
        source: OpenError,
    },
}

/// Devices, and what was noticed while they were opened.
pub struct Stacked<T> {
    /// What stands on top.
    pub value: T,
    /// The operator's ends of the devices, in the order of the configuration.
    pub controls: Vec<Control>,
    /// Notices for the user.
    pub notices: Vec<String>,
}

/// Waits in real time.
#[must_use]
pub fn waiter(clock: Clock) -> Waiter<'static> {
    Waiter::new(
        move || clock.now(),
        move |descriptors, until| {
            wait::wait(descriptors, until.map(|until| until.since(clock.now())));
        },
    )
}

/// What lies on devices that are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Something that two disks would not both have.
    Volume,
    /// Perhaps nothing, and blank disks look all alike: where nothing else proves that paths lead to one disk, the first
    /// one alone is used. What is written over it tells the next time.
    Blank,
}

/// Layers 127 and 125: the paths of one device as one device, which an operator reaches. One path is no exception: it
/// is timed, measured and shown like several.
///
/// # Errors
/// See [`StackError`].
pub fn device(
    origin: &Origin,
    config: &DeviceConfig,
    contents: Contents,
) -> Result<Stacked<Box<dyn BlockDevice>>, StackError> {
    let mut notices = Vec::new();
    let (opened, agreement) = open_paths(origin, config, &mut notices)?;
    let mut paths: Vec<_> = config.paths.iter().map(|path| path.config).zip(opened).collect();
    let compares_at_start = agreement.needs_comparison && contents == Contents::Volume;
    if agreement.needs_comparison && contents == Contents::Blank {
        paths.truncate(1);
    }
    let failover =
        FailoverConfig { compares_at_start, cache_is_shared: agreement.cache_is_shared, ..config.failover };
    let selector = Selector::new(Instant::ZERO, config.policy.clone());
    let device = MultipathDevice::with_selector(paths, selector, failover)
        .map_err(|source| StackError::Multipath { device: config.id.to_string(), source })?;
    let addresses = config.paths.iter().map(|path| path.text.clone()).collect();
    let (device, control) = Controlled::new(device, config.id.as_str(), addresses)
        .map_err(|source| StackError::Control { device: config.id.to_string(), source })?;
    Ok(Stacked { value: Box::new(device), controls: vec![control], notices })
}

/// Opens the paths of a device, one after the other, and judges each beside those before it.
fn open_paths(
    origin: &Origin,
    config: &DeviceConfig,
    notices: &mut Vec<String>,
) -> Result<(Vec<Box<dyn BlockDevice>>, Agreement), StackError> {
    let (mut devices, mut known) = (Vec::new(), Vec::new());
    for path in &config.paths {
        let address = origin.address(&path.text, path.line)?;
        let opened = origin.owner.open(&address).map_err(|source| StackError::Path {
            file: origin.name(),
            line: path.line,
            device: config.id.to_string(),
            source,
        })?;
        notices.extend(opened.notices.into_iter().map(|notice| format!("{}: {notice}", config.id)));
        let bytes = opened.device.geometry().byte_size();
        let next = Candidate { address: escape::name(&path.text), identity: opened.identity, bytes };
        agreement::join(&known, &next).map_err(|source| StackError::Paths {
            file: origin.name(),
            line: path.line,
            device: config.id.to_string(),
            source,
        })?;
        known.push(next);
        devices.push(opened.device);
    }
    Ok((devices, agreement::agreement(&known)))
}

/// All devices of a configuration, in its order.
///
/// # Errors
/// See [`StackError`].
pub fn devices(
    origin: &Origin,
    configs: &[DeviceConfig],
    contents: Contents,
) -> Result<Stacked<Vec<Box<dyn BlockDevice>>>, StackError> {
    let mut stacked = Stacked { value: Vec::new(), controls: Vec::new(), notices: Vec::new() };
    for config in configs {
        let one = device(origin, config, contents)?;
        stacked.value.push(one.value);
        stacked.controls.extend(one.controls);
        stacked.notices.extend(one.notices);
    }
    Ok(stacked)
}

/// Layer 123: the devices as one volume.
///
/// # Errors
/// See [`StackError`].
pub fn volume(
    waiter: &Waiter<'_>,
    origin: &Origin,
    configs: &[DeviceConfig],
    volume_id: Option<[u8; 16]>,
    admin_key: Option<&[u8; 32]>,
) -> Result<Stacked<volume::Volume>, StackError> {
    let devices = devices(origin, configs, Contents::Volume)?;
    let (mut notices, controls) = (devices.notices, devices.controls);
    let Opened { volume, notices: found } =
        volume::open::open(waiter, devices.value, volume_id, admin_key)
            .map_err(|source| StackError::Volume { file: origin.name(), source })?;
    notices.extend(found);
    Ok(Stacked { value: volume, controls, notices })
}
