//! A complete small world in one folder: devices, a volume on them, keys, one configuration per host.
//!
//! ```text
//! DIR/LAB                              that this is a lab, and its hosts
//! DIR/VOLUME.toml  admin.key           the volume and who signed it
//! DIR/disks/master.img  secondary1.img …
//! DIR/alpha.toml  alpha.key            host alpha; its lanes and journals in state/alpha,
//! DIR/state/alpha  exports/alpha/…     what others see of it in exports/alpha/{inbox,files}
//! ```
//!
//! [`LabPlan`] decides everything without touching a disk, [`text`] writes it down, [`create`] does it:
//! in a folder that is new or empty, and all of it or nothing. Not here: how a volume is laid out, which
//! is a function that the caller passes.

mod create;
mod marker;
mod plan;
pub mod text;

pub use create::{LabError, create};
pub use marker::{NotALab, host_files, is_lab};
pub use plan::{LabDevice, LabPlan, LabPlanError, Place};
