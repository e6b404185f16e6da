//! Addresses of paths of a simulated storage system of this process, and the systems by name.
//!
//! ```text
//! sim:NAME/PORT/VOLUME?system=FILE            FILE describes the system (`device::storage_system`)
//! sim:NAME/PORT/VOLUME?size=64MiB&ports=4     one volume on one disk in memory, behind ports p0 … p3
//! sim:NAME/PORT/VOLUME?initiator=host2        another path of a system that is there already
//! ```
//!
//! Keeps true: a name is one system for everyone in this process, and is made by the first address that says
//! what it consists of; who says something else later gets an error. Not here: the system.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use thiserror::Error;

use super::parse::{ParseAddressError, byte_size, escape_path, unescape, wrong_value};
use super::{PathAddress, Target, exact_byte_size};
use crate::block::BlockDevice;
use crate::block::address::{BlockSize, ByteSize};
use crate::device::storage_system::{Description, PathName, StorageSystem, SystemError};

/// The initiator where none is named.
const INITIATOR_DEFAULT: &str = "host";
/// Ports where a size is given and no number of them.
const PORTS_DEFAULT: u32 = 2;
/// Ports of a system that is made by options, at most.
const PORTS_MAX: u32 = 64;

/// A path of a simulated storage system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulatedAddress {
    /// The name of the system in this process.
    pub system: String,
    /// Initiator, port and logical volume.
    pub path: PathName,
    /// The file that describes the system; the first to name it must say this or a size.
    pub description: Option<PathBuf>,
    /// The size of the one volume of a system without a description.
    pub size: Option<ByteSize>,
    /// The number of its ports.
    pub ports: Option<u32>,
}

/// Why a path of a simulated system could not be opened.
#[derive(Debug, Error)]
pub enum OpenSimulatedError {
    /// The first to open a name must say what it consists of.
    #[error(
        "sim:{system} does not exist yet: say what it consists of, as in sim:{address}?system=FILE or sim:{address}?size=64MiB&ports=2"
    )]
    Missing {
        /// The name.
        system: String,
        /// What was opened.
        address: String,
    },
    /// Another description than that of the system of this name.
    #[error(
        "sim:{system} exists and was made otherwise: leave system, size, ports and block out, or take another name"
    )]
    Differs {
        /// The name.
        system: String,
    },
    /// The description cannot be read, or is none.
    #[error("{}: {problem}", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The parts of the system, or the names in the address.
    #[error("sim:{system}: {source}")]
    System {
        /// The name.
        system: String,
        /// What is wrong.
        source: SystemError,
    },
}

impl SimulatedAddress {
    /// Reads `NAME/PORT/VOLUME`.
    pub(super) fn parse(rest: &str) -> Result<Self, ParseAddressError> {
        let wrong = || ParseAddressError::Simulated { rest: rest.to_owned() };
        // The names are those of a path; the initiator is an option.
        let names: PathName = rest.parse().map_err(|_| wrong())?;
        let PathName { initiator: system, port, volume } = names;
        let path = PathName { initiator: INITIATOR_DEFAULT.to_owned(), port, volume };
        Ok(Self { system, path, description: None, size: None, ports: None })
    }

    /// Takes an option, if it is one of a simulated path.
    pub(super) fn apply(&mut self, option: &str, value: &str) -> Result<bool, ParseAddressError> {
        match option {
            "system" => self.description = Some(PathBuf::from(OsString::from_vec(unescape(value)?))),
            "size" => self.size = Some(ByteSize(byte_size(option, value)?)),
            "ports" => {
                let ports = value.parse().ok().filter(|ports| (1..=PORTS_MAX).contains(ports));
                self.ports = Some(ports.ok_or_else(|| wrong_value(option, value, "a number from 1 to 64"))?);
            }
            "initiator" => {
                let expected = "a name of letters, digits, and . _ - :";
                let is_name = crate::device::storage_system::is_name(value);
                self.path.initiator =
                    is_name.then(|| value.to_owned()).ok_or_else(|| wrong_value(option, value, expected))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A system that is described by a file is not described by options too.
    pub(super) fn check(&self, block_size: Option<BlockSize>) -> Result<(), ParseAddressError> {
        let others =
            [("size", self.size.is_some()), ("ports", self.ports.is_some()), ("block", block_size.is_some())];
        match others.into_iter().find(|(_, is_there)| *is_there) {
            Some((other, _)) if self.description.is_some() => {
                Err(ParseAddressError::Contradiction { option: "system", other })
            }
            _ => Ok(()),
        }
    }

    /// The options, as they are written.
    pub(super) fn options(&self) -> Vec<(&'static str, String)> {
        let mut options = Vec::new();
        if let Some(path) = &self.description {
            options.push(("system", escape_path(path)));
        }
        if self.path.initiator != INITIATOR_DEFAULT {
            options.push(("initiator", self.path.initiator.clone()));
        }
        if let Some(size) = self.size {
            options.push(("size", exact_byte_size(size.0)));
        }
        if let Some(ports) = self.ports {
            options.push(("ports", ports.to_string()));
        }
        options
    }
}

impl fmt::Display for SimulatedAddress {
    /// The part between the kind and the options.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.system, self.path.port, self.path.volume)
    }
}

/// What a system was made from.
#[derive(Clone, Debug, PartialEq)]
enum Origin {
    File(PathBuf),
    Options { volume: String, size: ByteSize, ports: u32, block_size: BlockSize },
}

struct Named {
    system: StorageSystem,
    origin: Origin,
}

/// The simulated systems of this process, by name.
static SYSTEMS: Mutex<BTreeMap<String, Named>> = Mutex::new(BTreeMap::new());

/// The simulated system of this name, if an address made one: to change it at run time, or to show it.
#[must_use]
pub fn simulated_system(name: &str) -> Option<StorageSystem> {
    let systems = SYSTEMS.lock().unwrap_or_else(PoisonError::into_inner);
    systems.get(name).map(|named| named.system.clone())
}

/// Opens a path, and makes its system if it is the first.
pub(super) fn open(
    address: &PathAddress,
    simulated: &SimulatedAddress,
    notices: &mut Vec<String>,
) -> Result<Box<dyn BlockDevice>, OpenSimulatedError> {
    let name = &simulated.system;
    let fails = |source| OpenSimulatedError::System { system: name.clone(), source };
    let asked = origin_of(address, simulated);
    let mut systems = SYSTEMS.lock().unwrap_or_else(PoisonError::into_inner);
    let system = match (systems.get(name), asked) {
        (Some(named), None) if simulated.ports.is_none() && address.block_size.is_none() => {
            named.system.clone()
        }
        (Some(named), Some(asked)) if named.origin == asked => named.system.clone(),
        (Some(_), _) => return Err(OpenSimulatedError::Differs { system: name.clone() }),
        (None, None) => {
            let (system, address) = (name.clone(), simulated.to_string());
            return Err(OpenSimulatedError::Missing { system, address });
        }
        (None, Some(origin)) => {
            let description = describe(&origin, address.seed)?;
            let mut open = |text: &str| open_disk(text, notices);
            let system = StorageSystem::with_devices(&description, &mut open).map_err(fails)?;
            systems.insert(name.clone(), Named { system: system.clone(), origin });
            system
        }
    };
    drop(systems);
    let PathName { initiator, port, volume } = &simulated.path;
    Ok(Box::new(system.path(initiator, port, volume).map_err(fails)?))
}

/// What the address says that its system is made from; nothing where it leaves that to others.
fn origin_of(address: &PathAddress, simulated: &SimulatedAddress) -> Option<Origin> {
    if let Some(path) = &simulated.description {
        return Some(Origin::File(path.clone()));
    }
    Some(Origin::Options {
        volume: simulated.path.volume.clone(),
        size: simulated.size?,
        ports: simulated.ports.unwrap_or(PORTS_DEFAULT),
        block_size: address.block_size.unwrap_or(BlockSize::B4096),
    })
}

fn describe(origin: &Origin, seed: u64) -> Result<Description, OpenSimulatedError> {
    match origin {
        Origin::File(path) => {
            read(path).map_err(|problem| OpenSimulatedError::Description { path: path.clone(), problem })
        }
        Origin::Options { volume, size, ports, block_size } => {
            let simple = Description::simple(volume, *size, *ports);
            Ok(Description { block_size: *block_size, seed, ..simple })
        }
    }
}

fn read(path: &Path) -> Result<Description, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    text.parse().map_err(|error: crate::device::storage_system::TextError| error.to_string())
}

/// Opens what a description names as a disk.
fn open_disk(text: &str, notices: &mut Vec<String>) -> Result<Box<dyn BlockDevice>, String> {
    let address: PathAddress = text.parse().map_err(|error: ParseAddressError| error.to_string())?;
    // The table of systems is being changed here; and a disk behind a port of its own system has no end.
    if matches!(address.target, Target::Simulated(_)) {
        return Err(format!("`{text}`: a physical disk cannot be simulated itself; name a file or memory"));
    }
    let opened = super::open(&address).map_err(|error| error.to_string())?;
    notices.extend(opened.notices);
    Ok(opened.device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Buffer, Instant, IoRequest, IoTag, Lba};

    fn open_text(address: &str) -> Result<Box<dyn BlockDevice>, String> {
        super::super::open(&address.parse().unwrap())
            .map(|opened| opened.device)
            .map_err(|error| error.to_string())
    }

    fn write(device: &mut dyn BlockDevice, now: Instant, value: u8) {
        let data = Buffer::copy_of(&[value; 4096]).freeze();
        device.submit(now, IoRequest::write(IoTag(1), Lba(9), data, false)).unwrap();
    }

    fn read_back(device: &mut dyn BlockDevice, now: Instant) -> u8 {
        device.submit(now, IoRequest::read(IoTag(2), Lba(9), Buffer::zeroed(4096))).unwrap();
        device.poll(now).unwrap().buffer.into_read().unwrap()[0]
    }

    #[test]
    fn a_name_is_one_system_that_options_make() {
        assert!(open_text("sim:by-options/p0/v0").err().unwrap().contains("system=FILE"));
        let mut one = open_text("sim:by-options/p0/v0?size=64KiB&ports=3").unwrap();
        let mut other = open_text("sim:by-options/p2/v0?initiator=host2").unwrap();
        write(&mut *one, Instant::ZERO, 5);
        assert!(one.poll(Instant::ZERO).unwrap().outcome.is_ok());
        assert_eq!(read_back(&mut *other, Instant::ZERO), 5);
        assert!(open_text("sim:by-options/p1/v0?size=64KiB&ports=3").is_ok());
        for wrong in ["size=128KiB&ports=3", "size=64KiB", "ports=3", "system=x"] {
            let error = open_text(&format!("sim:by-options/p0/v0?{wrong}")).err().unwrap();
            assert!(error.contains("made otherwise"), "{wrong}: {error}");
        }
        assert!(open_text("sim:by-options/p3/v0").err().unwrap().contains("p0, p1, p2"));
        assert!(simulated_system("by-options").is_some());
        assert!(simulated_system("nobody").is_none());
    }

    #[test]
    fn a_file_describes_a_system_over_other_devices() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lab?.txt");
        let text = "disk d0 mem:under-a-system?size=64KiB\nport p0\nport p1\n\
                    volume v0 concatenated d0@0+64KiB\nat 1s port p0 hang 1s";
        std::fs::write(&file, text).unwrap();
        let file = escape_path(&file);
        let mut path = open_text(&format!("sim:by-file/p0/v0?system={file}")).unwrap();
        let second = Instant(1_000_000_000);
        assert!(path.poll(Instant::ZERO).is_none());
        write(&mut *path, second, 7);
        assert!(path.poll(second).is_none(), "the port hangs");
        let later = path.next_wakeup().unwrap();
        assert!(path.poll(later).unwrap().outcome.is_ok());
        let mut below = super::super::open(&"mem:under-a-system".parse().unwrap()).unwrap().device;
        assert_eq!(read_back(&mut *below, later), 7);
    }

    #[test]
    fn errors_name_the_file_and_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bad");
        let address = format!("sim:bad-file/p0/v0?system={}", file.display());
        assert!(open_text(&address).err().unwrap().contains("No such file"));
        for (text, part) in [
            ("port p0\nblocks", "line 2"),
            ("disk d0 sim:x/p0/v0", "cannot be simulated"),
            ("disk d0 tape:x", "tape:x"),
            ("port p0", "no logical volume `v0`"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = open_text(&address).err().unwrap();
            assert!(error.contains(part), "{text}: {error}");
        }
        for (text, part) in [
            ("sim:lab/p0", "NAME/PORT/VOLUME"),
            ("sim:lab/p0/v0/x", "NAME/PORT/VOLUME"),
            ("sim:lab/p 0/v0", "NAME/PORT/VOLUME"),
            ("sim:lab/p0/v0?ports=0", "from 1 to 64"),
            ("sim:lab/p0/v0?initiator=a/b", "letters"),
            ("sim:lab/p0/v0?system=x&size=1MiB", "`size`"),
            ("sim:lab/p0/v0?block=512&system=x", "`block`"),
            ("sim:lab/p0/v0?engine=uring", "initiator"),
        ] {
            let error = text.parse::<PathAddress>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
