//! Configuration files: HOST.toml of a host, VOLUME.toml of a volume.
//!
//! Whatever is wrong with a file (it is not there, no TOML, a key that nobody knows, a value of the
//! wrong type or out of range, two lines that contradict each other) is one line
//! `FILE:LINE: what; remedy`, found before anything is opened. Paths are relative to the file that
//! names them. Not here: whether the things that are named exist; what a path address means.

mod device;
mod host;
mod multipath_keys;
mod source;
#[cfg(test)]
mod tests;
pub(crate) mod value;
mod volume;

use std::path::{Path, PathBuf};

use thiserror::Error;

pub use device::{DeviceConfig, PathText};
pub use host::{Export, ExportMode, HostConfig, Limits, Peer, VolumeSection};
pub(crate) use value::decode_hex;
pub use value::{Hex, PublicKey, VolumeId};
pub use volume::{VolumeConfig, VolumeHost};

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A mistake in the file.
    #[error("{file}:{line}: {text}")]
    Mistake {
        /// The file, escaped.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and the remedy.
        text: String,
    },
    /// No file was named.
    #[error(
        "no configuration; give one with -c FILE or in DISKWIRE_CONFIG (`diskwire lab create` makes some)"
    )]
    NotNamed,
    /// The file cannot be read.
    #[error("cannot read the configuration {file}")]
    Read {
        /// The file, escaped.
        file: String,
        /// Why.
        source: std::io::Error,
    },
}

/// A configuration of either kind, for commands that need no more than the devices.
#[derive(Debug)]
pub enum AnyConfig {
    /// HOST.toml.
    Host(HostConfig),
    /// VOLUME.toml.
    Volume(VolumeConfig),
}

impl AnyConfig {
    /// Reads a file of either kind.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = source::read(file)?;
        match source::kind(&text) {
            Some(source::Kind::Volume) => VolumeConfig::parse(file, &text).map(Self::Volume),
            Some(source::Kind::Host) | None => HostConfig::parse(file, &text).map(Self::Host),
        }
    }

    /// The devices, the master first.
    #[must_use]
    pub fn devices(&self) -> &[DeviceConfig] {
        match self {
            Self::Host(host) => &host.volume.devices,
            Self::Volume(volume) => &volume.devices,
        }
    }
}

/// The folder that relative paths of `file` start from.
fn base_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
