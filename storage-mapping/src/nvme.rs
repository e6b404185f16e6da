//! The bytes of NVMe admin and reservation commands, and of what comes back.
//!
//! Keeps true: parsing never panics and reads no byte beyond what came. Not here: sending them (`control_port`), what a
//! status says about a path (`multipath::error_class`).

pub mod status;
