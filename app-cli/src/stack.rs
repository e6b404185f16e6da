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
mod paths;

use multipath::control::{Control, Controlled};
use multipath::out_of_band::CommandTable;
use multipath::{FailoverConfig, MultipathDevice, MultipathError, Selector};
use storage_mapping::path_address::{OpenError as AddressError, ParseAddressError};
use storage_mapping::{BlockDevice, Instant, PathIndex, wait};
use thiserror::Error;
use transfer_core::driver::clock::Clock;
use volume::open::{OpenError, Opened};
use volume::sync::Waiter;

pub use self::agreement::Disagreement;
pub use self::origin::{Origin, Owner};
use self::paths::{Paths, open_paths};
use crate::config::DeviceConfig;

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
    let Paths { devices, first, absent, agreement } = open_paths(origin, config, contents, &mut notices)?;
    let named = config.paths.iter().map(|path| (path.config, path.text.clone()));
    let mut paths: Vec<_> = named.zip(devices).collect();
    let is_alone = agreement.needs_comparison && contents == Contents::Blank;
    if is_alone {
        paths = vec![paths.swap_remove(first.0)];
    }
    let (paths, addresses): (Vec<_>, Vec<_>) =
        paths.into_iter().map(|((config, text), device)| ((config, device), text)).unzip();
    let cache_is_shared = agreement.cache_is_shared && absent.is_empty();
    let failover = FailoverConfig { cache_is_shared, ..config.failover };
    let selector = Selector::new(Instant::ZERO, config.policy.clone());
    let mut device = MultipathDevice::with_selector(paths, selector, failover)
        .map_err(|source| StackError::Multipath { device: config.id.to_string(), source })?;
    device.set_command_table(CommandTable::with_user_rows(origin.commands.clone()));
    notices.extend(origin.commands.notices().iter().cloned());
    let others = (0..device.path_count()).map(PathIndex).filter(|path| !is_alone && *path != first);
    for path in others.filter(|path| agreement.needs_comparison || absent.contains(path)) {
        device.compare_first(Instant::ZERO, path);
    }
    if let Some((copies, clock)) = &origin.copies {
        let now = clock.now();
        let (left, notice) = copies.left_of(config, now);
        device.inherit_copies(now, left);
        notices.extend(notice);
    }
    let (mut device, control) = Controlled::new(device, config.id.as_str(), addresses)
        .map_err(|source| StackError::Control { device: config.id.to_string(), source })?;
    if let Some((copies, _)) = &origin.copies {
        device.watch_copies(Box::new(copies.writer(config)));
    }
    Ok(Stacked { value: Box::new(device), controls: vec![control], notices })
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
        // What the configuration says for all devices is said once.
        let new: Vec<String> =
            one.notices.into_iter().filter(|notice| !stacked.notices.contains(notice)).collect();
        stacked.notices.extend(new);
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
