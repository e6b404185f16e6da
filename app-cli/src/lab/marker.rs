//! The file `LAB`: what says that a folder is a lab, and which hosts it has.
//!
//! ```text
//! # A lab of `diskwire lab create`: …
//! hosts = ["alpha", "beta"]
//! ```
//!
//! Keeps true: a folder is a lab if and only if it has this file. Who copies a HOST.toml elsewhere takes the host out of
//! its lab.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::escape;
use crate::name::Name;

/// Its name: no host's file can have it.
pub(super) const FILE: &str = "LAB";

/// Why a folder is no lab.
#[derive(Debug, Error)]
pub enum NotALab {
    /// The file is not there.
    #[error("{dir} is no lab: it has no file LAB; name the folder that `diskwire lab create` made")]
    NoFile {
        /// The folder.
        dir: String,
    },
    /// The file cannot be read.
    #[error("cannot read {file}")]
    Io {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// Something else stands in it.
    #[error("{file}: this is not what `diskwire lab create` wrote; write hosts = [\"alpha\", \"beta\"]")]
    Content {
        /// The file.
        file: String,
    },
}

#[derive(Deserialize)]
struct Marker {
    hosts: Vec<Name>,
}

/// What stands in the file.
pub(super) fn text(hosts: &[Name]) -> String {
    let hosts: Vec<String> = hosts.iter().map(|host| format!("\"{host}\"")).collect();
    format!(
        "# A lab of `diskwire lab create`: a world to try things in. With this file here, path drills\n\
         # need no --yes, and `diskwire path … --lab` finds the hosts.\n\
         hosts = [{}]\n",
        hosts.join(", ")
    )
}

/// Whether a folder is a lab.
#[must_use]
pub fn is_lab(dir: &Path) -> bool {
    dir.join(FILE).is_file()
}

/// The configurations of the hosts of a lab.
///
/// # Errors
/// See [`NotALab`].
pub fn host_files(dir: &Path) -> Result<Vec<PathBuf>, NotALab> {
    let file = dir.join(FILE);
    let text = std::fs::read_to_string(&file).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            NotALab::NoFile { dir: escape::name(dir) }
        }
        _ => NotALab::Io { file: escape::name(&file), source },
    })?;
    match toml::from_str::<Marker>(&text) {
        Ok(Marker { hosts }) if !hosts.is_empty() => {
            Ok(hosts.iter().map(|host| dir.join(format!("{host}.toml"))).collect())
        }
        _ => Err(NotALab::Content { file: escape::name(&file) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_found_again() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path();
        assert!(!is_lab(dir));
        let error = host_files(dir).unwrap_err().to_string();
        assert!(
            error.ends_with("is no lab: it has no file LAB; name the folder that `diskwire lab create` made")
        );
        let hosts = ["a.b", "c"].map(|host| host.parse::<Name>().unwrap());
        std::fs::write(dir.join(FILE), text(&hosts)).unwrap();
        assert!(is_lab(dir));
        assert_eq!(host_files(dir).unwrap(), [dir.join("a.b.toml"), dir.join("c.toml")]);
        for nonsense in ["", "hosts = []", "hosts = [\"../x\"]", "hosts = 3"] {
            std::fs::write(dir.join(FILE), nonsense).unwrap();
            assert!(matches!(host_files(dir), Err(NotALab::Content { .. })), "{nonsense}");
        }
    }
}
