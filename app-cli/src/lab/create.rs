//! Carries a plan out.
//!
//! The folder must be new or empty; when a step fails, whatever was made in it is removed, so that the
//! same command can be given again. Device files are written full of zeros: in a sparse file, or one of
//! unwritten extents, every first write would wait for the file system.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use thiserror::Error;

use super::marker;
use super::plan::{LabPlan, LabPlanError, Place};
use super::text::{HostKeys, host_toml, volume_toml};
use crate::config::{ConfigError, HostConfig, VolumeConfig, VolumeId};
use crate::escape;
use crate::keys::{AdminKey, HostKey, KeyError};
use crate::progress::Reporter;
use crate::state_dir::{StateDir, StateDirError};

/// How many zeros are written at once.
const ZEROS_AT_ONCE_BYTES: usize = 1 << 20;

/// Why a lab cannot be made.
#[derive(Debug, Error)]
pub enum LabError {
    /// A configuration that was written is not understood: a given device has an odd name, say.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The volume cannot be laid out.
    #[error("cannot lay out the volume")]
    Format(#[source] Box<dyn Error + Send + Sync>),
    /// A file or folder.
    #[error("cannot make {path}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Something else is in the folder.
    #[error("{dir} is not empty; name a new folder for the lab, or remove this one first")]
    NotEmpty {
        /// The folder.
        dir: String,
    },
    /// The wish itself.
    #[error(transparent)]
    Plan(#[from] LabPlanError),
    /// A state directory.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
}

/// Makes the lab; `format` lays out the volume and draws its id.
///
/// # Errors
/// See [`LabError`]. The folder is then as it was before.
pub fn create<E>(
    plan: &LabPlan,
    reporter: &mut Reporter,
    format: impl FnOnce(&VolumeConfig) -> Result<VolumeId, E>,
) -> Result<(), LabError>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let was_there = take_folder(&plan.dir)?;
    let made = fill(plan, reporter, format);
    reporter.ended();
    if made.is_err() {
        clear(&plan.dir, was_there);
    }
    made
}

/// Makes the folder, or sees that it is empty. Whether it was there.
fn take_folder(dir: &Path) -> Result<bool, LabError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(true),
            Some(_) => Err(LabError::NotEmpty { dir: escape::name(dir) }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
            Ok(false)
        }
        Err(error) => Err(failed(dir, error)),
    }
}

fn fill<E>(
    plan: &LabPlan,
    reporter: &mut Reporter,
    format: impl FnOnce(&VolumeConfig) -> Result<VolumeId, E>,
) -> Result<(), LabError>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let admin = AdminKey::create(&plan.dir.join("admin.key"))?.public();
    let mut keys = HostKeys::new();
    for host in &plan.hosts {
        let key = HostKey::create(&plan.dir.join(format!("{host}.key")))?;
        keys.insert(host.clone(), key.public());
        StateDir::open(&plan.dir.join("state").join(host.as_str()))?;
        for export in ["inbox", "files"] {
            let path = plan.dir.join("exports").join(host.as_str()).join(export);
            fs::create_dir_all(&path).map_err(|error| failed(&path, error))?;
        }
    }
    make_devices(plan, reporter)?;
    let volume_file = plan.volume_file();
    write(&volume_file, &volume_toml(plan, &keys))?;
    let volume = VolumeConfig::load(&volume_file)?;
    let id = format(&volume).map_err(|error| LabError::Format(error.into()))?;
    for host in &plan.hosts {
        let file = plan.host_file(host);
        write(&file, &host_toml(plan, host, &keys, id, admin))?;
        HostConfig::load(&file)?;
    }
    write(&plan.dir.join(marker::FILE), &marker::text(&plan.hosts))
}

fn make_devices(plan: &LabPlan, reporter: &mut Reporter) -> Result<(), LabError> {
    let zeros = vec![0; ZEROS_AT_ONCE_BYTES];
    let mut written = 0;
    reporter.started(Some(plan.made_bytes()), None);
    for device in &plan.devices {
        let Place::Made { file, size } = &device.place else { continue };
        let path = plan.dir.join(file);
        let folder = path.parent().unwrap_or(&plan.dir);
        fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        let mut opened = File::create_new(&path).map_err(|error| failed(&path, error))?;
        let mut left = size.0;
        while left > 0 {
            let length = usize::try_from(left).map_or(zeros.len(), |left| left.min(zeros.len()));
            opened.write_all(&zeros[..length]).map_err(|error| failed(&path, error))?;
            left -= length as u64;
            written += length as u64;
            reporter.progress(written, 0);
        }
        opened.sync_all().map_err(|error| failed(&path, error))?;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<(), LabError> {
    fs::write(file, text).map_err(|error| failed(file, error))
}

fn failed(path: &Path, source: io::Error) -> LabError {
    LabError::Io { path: escape::name(path), source }
}

/// Removes what is in the folder, and the folder if it was not there. It was empty: all is ours.
fn clear(dir: &Path, was_there: bool) {
    let removed = if was_there {
        fs::read_dir(dir).and_then(|entries| {
            entries.flatten().try_for_each(|entry| match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path()),
                false => fs::remove_file(entry.path()),
            })
        })
    } else {
        fs::remove_dir_all(dir)
    };
    if let Err(error) = removed {
        tracing::warn!(dir = %escape::name(dir), %error, "what was made of the lab is still there");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::plan::tests::plan;
    use super::*;
    use crate::config::Hex;
    use crate::progress::Verbosity;

    fn small(dir: &Path) -> LabPlan {
        let mut plan = plan("w --lanes 1 --size 40MiB --paths 2").unwrap();
        plan.dir = dir.to_owned();
        plan
    }

    fn run<E: Into<Box<dyn Error + Send + Sync>>>(
        plan: &LabPlan,
        format: impl FnOnce(&VolumeConfig) -> Result<VolumeId, E>,
    ) -> Result<(), LabError> {
        create(plan, &mut Reporter::new(Verbosity { quiet: true, json: false }), format)
    }

    #[test]
    fn a_world_is_complete() {
        let scratch = tempfile::tempdir().unwrap();
        let plan = small(&scratch.path().join("new/world"));
        let mut seen = None;
        run(&plan, |volume| {
            seen = Some(volume.clone());
            Ok::<_, io::Error>(Hex([9; 16]))
        })
        .unwrap();
        let volume = seen.unwrap();
        let files: Vec<_> = plan.hosts.iter().map(|host| plan.host_file(host)).collect();
        assert_eq!(marker::host_files(&plan.dir).unwrap(), files);
        let admin = AdminKey::load(&volume.admin_key).unwrap().public();
        for host in &plan.hosts {
            let config = HostConfig::load(&plan.host_file(host)).unwrap();
            assert_eq!((config.volume.id, config.volume.admin_key), (Hex([9; 16]), admin));
            let key = HostKey::load(&config.key).unwrap().public();
            assert!(volume.hosts.iter().any(|row| row.name == *host && row.key == key));
            assert!(config.exports.values().all(|export| export.path.is_dir()));
            assert!(config.state.is_dir());
        }
        for device in &plan.devices {
            let Place::Made { file, size } = &device.place else { panic!("given") };
            let metadata = fs::metadata(plan.dir.join(file)).unwrap();
            assert_eq!(metadata.len(), size.0);
            assert!(metadata.blocks() * 512 >= size.0, "{} is sparse", file.display());
        }
        assert!(matches!(run(&plan, |_| Ok::<_, io::Error>(Hex([9; 16]))), Err(LabError::NotEmpty { .. })));
        assert!(plan.host_file(&plan.hosts[0]).exists(), "a refusal leaves what is there alone");
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let scratch = tempfile::tempdir().unwrap();
        let fail = |_: &VolumeConfig| Err::<VolumeId, _>("the disk is on fire");
        let new = scratch.path().join("new");
        let error = run(&small(&new), fail).unwrap_err();
        assert_eq!(crate::exit::with_sources(&error), "cannot lay out the volume: the disk is on fire");
        assert!(!new.exists());
        let empty = scratch.path().join("empty");
        fs::create_dir(&empty).unwrap();
        run(&small(&empty), fail).unwrap_err();
        assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    }
}
