//! Refuse to destroy: what speaks against overwriting a file or a block node.
//!
//! Two kinds of findings: *content* that somebody may want back, known by its signature, and *use* by
//! this host: mounted, swapped on, held by another driver, opened exclusively.
//!
//! Keeps true: nothing is written; a place that cannot be read because it lies beyond the end is no
//! finding, any other error is an error. Not here: use by another host (nothing on this one shows it),
//! content without a signature, the question to the user.

mod signatures;
mod usage;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// One thing that speaks against overwriting. Displays as a phrase, such as `an ext4 file system`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Someone on this host has it open exclusively.
    ExclusivelyHeld,
    /// Another block device is built on it, or on a partition of it.
    Held {
        /// What is built on.
        device: String,
        /// What is built on it.
        by: String,
    },
    /// It, or a partition of it, is mounted.
    Mounted {
        /// What is mounted.
        device: String,
        /// Where.
        at: PathBuf,
    },
    /// Known content, as a phrase with its article.
    Signature {
        /// The phrase.
        content: &'static str,
    },
    /// It, or a partition of it, is swap space in use.
    SwapInUse {
        /// The swap space.
        device: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExclusivelyHeld => write!(f, "opened exclusively by another program or driver"),
            Self::Held { device, by } => write!(f, "{device} is held by {by}"),
            Self::Mounted { device, at } => write!(f, "{device} is mounted at {}", at.display()),
            Self::Signature { content } => f.write_str(content),
            Self::SwapInUse { device } => write!(f, "{device} is in use as swap space"),
        }
    }
}

/// All that speaks against overwriting the file or block node at `path`; empty where nothing does.
///
/// # Errors
/// If the file, or what the system says about it, cannot be read: then nothing is known.
pub fn findings(path: &Path) -> io::Result<Vec<Finding>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut found = if metadata.file_type().is_block_device() {
        usage::of_block_node(path, &metadata)?
    } else {
        usage::of_file(path)?
    };
    found.extend(signatures::of(&file)?.into_iter().map(|content| Finding::Signature { content }));
    Ok(found)
}
