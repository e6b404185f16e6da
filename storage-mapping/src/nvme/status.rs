//! NVMe status (NVMe 2.1, 4.2.3): code type and code, and what they say to a layer above.
//!
//! Keeps true: 0/00 alone is a success. Not here: what a status says about a path (`multipath::error_class`).

use crate::block::request::{ErrorSource, IoError};

/// What a status says of the command that it answers.
///
/// # Errors
/// The status, unless it is 0/00.
pub fn outcome(sct: u8, sc: u8, dnr: bool, crd: u8) -> Result<(), IoError> {
    if (sct, sc) == (0, 0) {
        return Ok(());
    }
    Err(ErrorSource::Nvme { sct, sc, dnr, crd }.into())
}
