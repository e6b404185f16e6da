//! Why something could not be measured.

use thiserror::Error;

/// Why something could not be measured.
#[derive(Debug, Error)]
pub enum MeasureError {
    /// A file or a clock.
    #[error("{what}")]
    Io {
        /// What went wrong.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file that does not open as a path.
    #[error("cannot open {file} as a path: {why}")]
    Path {
        /// The file.
        file: String,
        /// Why not.
        why: String,
    },
    /// Paths that make no device.
    #[error(transparent)]
    Device(#[from] multipath::MultipathError),
    /// A request that failed where nothing was to fail.
    #[error("a request failed while measuring: {0}")]
    Failed(storage_mapping::IoError),
    /// A snapshot that makes no JSON text.
    #[error("a snapshot makes no JSON text")]
    Json(#[source] serde_json::Error),
}

impl MeasureError {
    pub(super) fn path(file: &std::path::Path, why: impl std::fmt::Display) -> Self {
        Self::Path { file: file.display().to_string(), why: why.to_string() }
    }
}

impl From<nix::errno::Errno> for MeasureError {
    fn from(errno: nix::errno::Errno) -> Self {
        Self::Io {
            what: "the kernel does not say what this thread has used".to_owned(),
            source: errno.into(),
        }
    }
}
