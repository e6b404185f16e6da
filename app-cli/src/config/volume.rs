//! VOLUME.toml: what `volume create` lays out.
//!
//! Not here: sizes and places (the volume crate plans them); the volume's id, which is drawn when it is
//! created.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use volume::master_control_block::{CONNECTIONS_MAX, LANES_MAX, SEGMENT_PAYLOAD_MAX_BYTES};

use super::device::{DeviceConfig, RawDevice, devices};
use super::source::{Kind, Source, kind, read};
use super::value::{FilePath, Size};
use super::{ConfigError, PublicKey, base_of};
use crate::name::Name;

/// What the keys that must be there look like.
const EXAMPLES: &[(&str, &str)] = &[
    ("admin_key", "admin_key = \"admin.key\" (made by `diskwire keygen --admin admin.key`)"),
    ("device", "a section [[device]] with id and paths for each device, the master first"),
    ("id", "id = \"disk0\""),
    ("paths", "paths = [\"block:/dev/disk/by-id/…\"]"),
    ("address", "{ address = \"block:/dev/disk/by-id/…\", priority = 10 }"),
    ("host", "a section [[host]] with name and key for each host"),
    ("name", "name = \"alpha\""),
    ("key", "key = \"…\" (what `diskwire keygen` printed on that host, 64 hex digits)"),
];
/// Payload of a segment, unless the file says otherwise.
const SEGMENT_DEFAULT_BYTES: u32 = 1 << 20;
/// The smallest payload: one block.
const SEGMENT_MIN_BYTES: u32 = 4096;
/// Connections of a lane, each way, unless the file says otherwise.
const CONNECTIONS_DEFAULT: u16 = 8;
/// Lanes of a host beside the one of `serve`, unless the file says otherwise.
const LANES_DEFAULT: u16 = 7;

/// VOLUME.toml.
#[derive(Clone, Debug)]
pub struct VolumeConfig {
    /// The file.
    pub file: PathBuf,
    /// The folder of the file: relative path addresses start here.
    pub base: PathBuf,
    /// The admin's secret key file, which signs the volume.
    pub admin_key: PathBuf,
    /// Payload of a segment: a power of two.
    pub segment_size_bytes: u32,
    /// Connections of one lane, each way.
    pub connections: u16,
    /// The devices, the master first.
    pub devices: Vec<DeviceConfig>,
    /// The hosts, in the order of their rows.
    pub hosts: Vec<VolumeHost>,
}

/// A host to be enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeHost {
    /// Its name.
    pub name: Name,
    /// Its public key.
    pub key: PublicKey,
    /// Its lanes, that of `serve` included.
    pub lanes: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVolume {
    admin_key: FilePath,
    segment_size: Option<Spanned<Size>>,
    connections: Option<Spanned<i64>>,
    lanes: Option<Spanned<i64>>,
    device: Spanned<Vec<RawDevice>>,
    host: Spanned<Vec<RawHost>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHost {
    name: Spanned<Name>,
    key: Spanned<PublicKey>,
    lanes: Option<Spanned<i64>>,
}

impl VolumeConfig {
    /// Reads VOLUME.toml.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::parse(file, &read(file)?)
    }

    /// Reads the text of VOLUME.toml; `file` is for messages and relative paths.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let source = Source::new(file, text, EXAMPLES);
        if kind(text) == Some(Kind::Host) {
            return Err(
                source.mistake(None, "the configuration of a host; give that of a volume, VOLUME.toml")
            );
        }
        let raw: RawVolume = source.parse()?;
        let base = base_of(file);
        let number = |value: &Option<Spanned<i64>>, key, max, default| {
            value.as_ref().map_or(Ok(default), |value| source.number(value, key, 1, max))
        };
        let lanes = number(&raw.lanes, "lanes", LANES_MAX - 1, LANES_DEFAULT)?;
        let section = raw.device.span();
        Ok(Self {
            file: file.to_owned(),
            admin_key: raw.admin_key.from(&base),
            segment_size_bytes: segment_size(&source, raw.segment_size)?,
            connections: number(&raw.connections, "connections", CONNECTIONS_MAX, CONNECTIONS_DEFAULT)?,
            devices: devices(&source, &section, "device", raw.device.into_inner())?,
            hosts: hosts(&source, raw.host, lanes)?,
            base,
        })
    }

    /// Lanes of all hosts together: rows of the host table.
    #[must_use]
    pub fn lanes(&self) -> u16 {
        self.hosts.iter().map(|host| host.lanes).sum()
    }
}

fn segment_size(source: &Source<'_>, raw: Option<Spanned<Size>>) -> Result<u32, ConfigError> {
    let Some(size) = raw else { return Ok(SEGMENT_DEFAULT_BYTES) };
    let bytes = u32::try_from(size.get_ref().0).ok();
    let fits = |bytes: &u32| {
        bytes.is_power_of_two() && (SEGMENT_MIN_BYTES..=SEGMENT_PAYLOAD_MAX_BYTES).contains(bytes)
    };
    bytes.filter(fits).ok_or_else(|| {
        let text = "segment_size is no power of two from 4KiB to 64MiB; 1MiB is a good one";
        source.mistake(Some(size.span()), text)
    })
}

fn hosts(
    source: &Source<'_>,
    raw: Spanned<Vec<RawHost>>,
    lanes_default: u16,
) -> Result<Vec<VolumeHost>, ConfigError> {
    let section = raw.span();
    let mistake = |span, text: &str| Err(source.mistake(Some(span), text));
    if raw.get_ref().len() < 2 {
        return mistake(section, "a volume joins hosts; give at least two sections [[host]]");
    }
    let (mut names, mut keys) = (BTreeMap::new(), BTreeMap::new());
    let (mut hosts, mut lanes_sum) = (Vec::new(), 0);
    for RawHost { name, key, lanes } in raw.into_inner() {
        let (name_span, name) = (name.span(), name.into_inner());
        let (key_span, key) = (key.span(), key.into_inner());
        if names.insert(name.clone(), ()).is_some() {
            return mistake(name_span, &format!("a second host `{name}`; give each host a name of its own"));
        }
        if let Some(other) = keys.insert(key, name.clone()) {
            let text =
                format!("`{name}` has the key of `{other}`; make one on each host (`diskwire keygen`)");
            return mistake(key_span, &text);
        }
        let lanes = lanes.as_ref();
        let beside_serve =
            lanes.map_or(Ok(lanes_default), |lanes| source.number(lanes, "lanes", 1, LANES_MAX - 1))?;
        let lanes = beside_serve + 1;
        lanes_sum += usize::from(lanes);
        if lanes_sum > LANES_MAX.into() {
            let text = format!("more than {LANES_MAX} lanes in all; set a smaller `lanes`, or fewer hosts");
            return mistake(name_span, &text);
        }
        hosts.push(VolumeHost { name, key, lanes });
    }
    Ok(hosts)
}
