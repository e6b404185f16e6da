//! Control structures, connections and transfers: what two processes do that share a volume.

pub mod enrolment;
pub mod format;
pub mod payload;
pub mod protocol;
pub mod random;
