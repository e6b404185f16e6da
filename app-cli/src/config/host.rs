//! HOST.toml: one host's view of one volume.
//!
//! Not here: the host table, which says what the *volume* knows of a host; peers are believed by the
//! key that stands in this file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use multipath::out_of_band::command_table::UserRows;
use serde::Deserialize;
use storage_mapping::ByteSize;
use toml::Spanned;

use super::device::{DeviceConfig, RawDevice, devices};
use super::source::{Kind, Source, kind, read};
use super::value::{FilePath, Size};
use super::{ConfigError, PublicKey, VolumeId, base_of};
use crate::name::Name;

/// What the keys that must be there look like.
const EXAMPLES: &[(&str, &str)] = &[
    ("host", "host = \"alpha\""),
    ("key", "key = \"…\" (the host's key file; for a peer its public key, 64 hex digits)"),
    ("state", "state = \"state/alpha\" (a folder for locks and journals)"),
    ("volume", "a section [volume] with id, admin_key and [[volume.device]]"),
    ("id", "id = \"…\" (of the volume: what `diskwire volume create` printed; of a device: \"disk0\")"),
    ("admin_key", "admin_key = \"…\" (what `diskwire volume create` printed, 64 hex digits)"),
    ("device", "a section [[volume.device]] with id and paths for each device, the master first"),
    ("paths", "paths = [\"block:/dev/disk/by-id/…\"]"),
    ("address", "{ address = \"block:/dev/disk/by-id/…\", priority = 10 }"),
    ("path", "path = \"/srv/inbox\""),
];
/// Connections that a host holds at once, unless the file says otherwise.
const CONNECTIONS_DEFAULT: u16 = 8;
/// The most that a volume may have per lane.
const CONNECTIONS_MAX: u16 = 256;
/// Memory of a process, unless the file says otherwise.
const MEMORY_DEFAULT_BYTES: u64 = 96 << 20;
/// One window of small segments and the tables.
const MEMORY_MIN_BYTES: u64 = 8 << 20;

/// HOST.toml.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The file.
    pub file: PathBuf,
    /// The folder of the file: relative path addresses start here.
    pub base: PathBuf,
    /// Name of the host, as enrolled on the volume.
    pub host: Name,
    /// The host's secret key file.
    pub key: PathBuf,
    /// The folder of locks, journals and sockets, shared by all users of the host.
    pub state: PathBuf,
    /// The volume.
    pub volume: VolumeSection,
    /// What other hosts may see.
    pub exports: BTreeMap<Name, Export>,
    /// Who they are.
    pub peers: BTreeMap<Name, Peer>,
    /// What this host gives at most.
    pub limits: Limits,
    /// `commands`: what its user knows of control commands beyond the shipped table.
    pub commands: UserRows,
}

/// `[volume]`: which volume, and how this host reaches it.
#[derive(Clone, Debug)]
pub struct VolumeSection {
    /// The volume expected; another one is refused.
    pub id: VolumeId,
    /// Who may have signed it.
    pub admin_key: PublicKey,
    /// The devices, the master first.
    pub devices: Vec<DeviceConfig>,
}

/// `[exports.NAME]`: a folder that other hosts see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The folder.
    pub path: PathBuf,
    /// What they may do there.
    pub mode: ExportMode,
    /// The line of the section.
    pub line: usize,
}

/// What others may do in an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ExportMode {
    /// `ro`: read.
    #[default]
    ReadOnly,
    /// `rw`: read and write.
    ReadWrite,
}

impl TryFrom<String> for ExportMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "ro" => Ok(Self::ReadOnly),
            "rw" => Ok(Self::ReadWrite),
            _ => Err(format!(
                "unknown mode `{}`; write \"ro\" (others read) or \"rw\" (others read and write)",
                crate::escape::name(text)
            )),
        }
    }
}

/// `[peers.NAME]`: a host that may come, and that this host talks to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its public key.
    pub key: PublicKey,
    /// The exports that it sees; `None`: all.
    pub exports: Option<Vec<Name>>,
}

/// `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: u16,
    /// Memory for segments in flight.
    pub memory: ByteSize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: CONNECTIONS_DEFAULT, memory: ByteSize(MEMORY_DEFAULT_BYTES) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHost {
    host: Name,
    key: FilePath,
    state: FilePath,
    volume: RawVolume,
    #[serde(default)]
    exports: BTreeMap<Spanned<Name>, RawExport>,
    #[serde(default)]
    peers: BTreeMap<Spanned<Name>, RawPeer>,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    commands: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVolume {
    id: VolumeId,
    admin_key: PublicKey,
    device: Spanned<Vec<RawDevice>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExport {
    path: FilePath,
    #[serde(default)]
    mode: ExportMode,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPeer {
    key: Spanned<PublicKey>,
    exports: Option<Vec<Spanned<Name>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    connections: Option<Spanned<i64>>,
    memory: Option<Spanned<Size>>,
}

impl HostConfig {
    /// Reads HOST.toml.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::parse(file, &read(file)?)
    }

    /// Reads the text of HOST.toml; `file` is for messages and relative paths.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let source = Source::new(file, text, EXAMPLES);
        if kind(text) == Some(Kind::Volume) {
            return Err(source.mistake(None, "the configuration of a volume; give that of a host, HOST.toml"));
        }
        let raw: RawHost = source.parse()?;
        let base = base_of(file);
        let exports = exports(&source, &base, raw.exports);
        let peers = peers(&source, &raw.host, &exports, raw.peers)?;
        let section = raw.volume.device.span();
        let volume = VolumeSection {
            id: raw.volume.id,
            admin_key: raw.volume.admin_key,
            devices: devices(&source, &section, "volume.device", raw.volume.device.into_inner())?,
        };
        Ok(Self {
            file: file.to_owned(),
            host: raw.host,
            key: raw.key.from(&base),
            state: raw.state.from(&base),
            volume,
            exports,
            peers,
            limits: limits(&source, &raw.limits)?,
            commands: commands(&source, &raw.commands)?,
            base,
        })
    }
}

fn exports(
    source: &Source<'_>,
    base: &Path,
    raw: BTreeMap<Spanned<Name>, RawExport>,
) -> BTreeMap<Name, Export> {
    let entries = raw.into_iter().map(|(name, export)| {
        let line = source.line(&name.span());
        (name.into_inner(), Export { path: export.path.from(base), mode: export.mode, line })
    });
    entries.collect()
}

fn peers(
    source: &Source<'_>,
    host: &Name,
    exports: &BTreeMap<Name, Export>,
    raw: BTreeMap<Spanned<Name>, RawPeer>,
) -> Result<BTreeMap<Name, Peer>, ConfigError> {
    let mut peers: BTreeMap<Name, Peer> = BTreeMap::new();
    for (name, peer) in raw {
        let (span, name) = (name.span(), name.into_inner());
        if name == *host {
            let text = format!("`{name}` is this host itself; name its peers, or correct `host`");
            return Err(source.mistake(Some(span), &text));
        }
        let (key_span, key) = (peer.key.span(), peer.key.into_inner());
        if let Some((other, _)) = peers.iter().find(|(_, other)| other.key == key) {
            let text = format!("`{name}` has the key of `{other}`; give each peer its own");
            return Err(source.mistake(Some(key_span), &text));
        }
        let allowed =
            peer.exports.map(|names| names.into_iter().map(|export| known(source, exports, export)));
        let allowed = allowed.map(Iterator::collect).transpose()?;
        peers.insert(name, Peer { key, exports: allowed });
    }
    Ok(peers)
}

fn known(
    source: &Source<'_>,
    exports: &BTreeMap<Name, Export>,
    name: Spanned<Name>,
) -> Result<Name, ConfigError> {
    if !exports.contains_key(name.get_ref()) {
        let text =
            format!("no export `{0}` in this file; add [exports.{0}] or take it out here", name.get_ref());
        return Err(source.mistake(Some(name.span()), &text));
    }
    Ok(name.into_inner())
}

fn commands(source: &Source<'_>, raw: &[Spanned<String>]) -> Result<UserRows, ConfigError> {
    for line in raw {
        UserRows::parse([line.get_ref().as_str()]).map_err(|error| {
            source.mistake(Some(line.span()), &crate::escape::one_line(&error.to_string()))
        })?;
    }
    Ok(UserRows::parse(raw.iter().map(|line| line.get_ref().as_str())).expect("each line is a row"))
}

fn limits(source: &Source<'_>, raw: &RawLimits) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    if let Some(connections) = &raw.connections {
        limits.connections = source.number(connections, "connections", 1, CONNECTIONS_MAX)?;
    }
    if let Some(memory) = &raw.memory {
        limits.memory = ByteSize(memory.get_ref().0);
        if limits.memory.0 < MEMORY_MIN_BYTES {
            let text = format!("memory = {} is too little; give at least 8MiB", limits.memory);
            return Err(source.mistake(Some(memory.span()), &text));
        }
    }
    Ok(limits)
}
