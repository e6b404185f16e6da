//! Control structures, connections and transfers: what two processes do that share a volume.

pub mod format;
pub mod payload;
