//! The paths of a device, opened one after the other; one that is away does not keep the others from work.
//!
//! Keeps true: each is judged beside those that are there (`agreement`); one that cannot be opened now, while another
//! one can, has a placeholder that tries again, and carries nothing before it was judged too and compared with a path in
//! use; what is a mistake of the configuration is an error at once, for nobody would correct it otherwise
//! ([`may_pass`](storage_mapping::path_address::OpenError::may_pass) says which is which). Not here: when it is tried
//! (`storage_mapping::device::absent`).

use std::sync::{Arc, Mutex, PoisonError};

use storage_mapping::device::{AbsentDevice, NotThere};
use storage_mapping::path_address::{OpenError as AddressError, Opened, PathAddress};
use storage_mapping::{BlockDevice, PathIndex, Sameness};

use super::agreement::{self, Agreement, Candidate};
use super::{Contents, Origin, Owner, StackError};
use crate::config::{DeviceConfig, PathText};
use crate::escape;

/// The paths of a device.
pub(super) struct Paths {
    /// In the order of the configuration.
    pub(super) devices: Vec<Box<dyn BlockDevice>>,
    /// The first one that is there.
    pub(super) first: PathIndex,
    /// Those that are not there yet.
    pub(super) absent: Vec<PathIndex>,
    /// How those may be used that are there.
    pub(super) agreement: Agreement,
}

/// What is known of those that are there; one that comes later adds itself.
type Known = Arc<Mutex<Vec<Candidate>>>;

/// Opens them; what was noticed is added to `notices`.
///
/// # Errors
/// Where none can be opened, and for a mistake of the configuration: see [`StackError`].
pub(super) fn open_paths(
    origin: &Origin,
    config: &DeviceConfig,
    contents: Contents,
    notices: &mut Vec<String>,
) -> Result<Paths, StackError> {
    let failed = |path: &PathText, source| StackError::Path {
        file: origin.name(),
        line: path.line,
        device: config.id.to_string(),
        source,
    };
    let (mut known, mut opened, mut away) = (Vec::new(), Vec::new(), Vec::new());
    for (place, path) in config.paths.iter().enumerate() {
        let place = PathIndex(place);
        let address = origin.address(&path.text, path.line)?;
        match origin.owner.open(&address) {
            Ok(found) => {
                notices.extend(found.notices.iter().map(|notice| format!("{}: {notice}", config.id)));
                let next = candidate(place, &path.text, &found);
                agreement::join(&known, &next).map_err(|source| StackError::Paths {
                    file: origin.name(),
                    line: path.line,
                    device: config.id.to_string(),
                    source,
                })?;
                known.push(next);
                opened.push((place, found.device));
            }
            Err(error) if error.may_pass() => away.push((place, path, address, error)),
            Err(error) => return Err(failed(path, error)),
        }
    }
    let agreement = agreement::agreement(&known);
    // The one that takes the least: what stands in later is held to it.
    let least =
        opened.iter().map(|(_, device)| device.geometry()).min_by_key(|found| found.transfer_max_bytes);
    let (Some(geometry), Some(&(first, _))) = (least, opened.first()) else {
        let (_, path, _, error) = away.swap_remove(0);
        return Err(failed(path, error));
    };
    let known = Arc::new(Mutex::new(known));
    let mut absent = Vec::new();
    for (place, path, address, error) in away {
        let text = escape::name(&path.text);
        notices.push(format!(
            "{}: path {} `{text}` is not there, and is tried again: {error}",
            config.id, place.0
        ));
        let later = Later {
            owner: origin.owner.clone(),
            address,
            text: path.text.clone(),
            place,
            known: Arc::clone(&known),
            must_be_proven: contents == Contents::Blank,
        };
        let device = AbsentDevice::new(geometry, error.to_string(), Arc::new(move || later.open())).map_err(
            |source| failed(path, AddressError::Threads { path: path.text.clone().into(), source }),
        )?;
        opened.push((place, Box::new(device)));
        absent.push(place);
    }
    opened.sort_by_key(|(place, _)| place.0);
    let devices = opened.into_iter().map(|(_, device)| device).collect();
    Ok(Paths { devices, first, absent, agreement })
}

fn candidate(place: PathIndex, text: &str, opened: &Opened) -> Candidate {
    let bytes = opened.device.geometry().byte_size();
    Candidate { place, address: escape::name(text), identity: opened.identity.clone(), bytes }
}

/// The way to open a path that is not there yet.
struct Later {
    owner: Owner,
    address: PathAddress,
    text: String,
    place: PathIndex,
    known: Known,
    /// Blank disks look all alike: only what the system says of it counts.
    must_be_proven: bool,
}

impl Later {
    fn open(&self) -> Result<Box<dyn BlockDevice>, NotThere> {
        let opened = self.owner.open(&self.address).map_err(|error| NotThere::Later(error.to_string()))?;
        let next = candidate(self.place, &self.text, &opened);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        agreement::join(&known, &next).map_err(|error| NotThere::Never(error.to_string()))?;
        let is_proven = known.iter().any(|one| one.identity.compare(&next.identity) == Sameness::Same);
        if self.must_be_proven && !is_proven {
            let why = "nothing proves that it leads to the same disk, which may be blank";
            return Err(NotThere::Never(why.to_owned()));
        }
        known.push(next);
        Ok(opened.device)
    }
}
