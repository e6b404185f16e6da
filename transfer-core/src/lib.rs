//! Control structures, connections and transfers: what two processes do that share a volume.

pub mod check;
pub mod driver;
pub mod enrolment;
pub mod export;
pub mod format;
pub mod inspect;
pub mod journal;
pub mod node;
pub mod payload;
pub mod protocol;
pub mod random;
pub mod survey;
pub mod transfer;
