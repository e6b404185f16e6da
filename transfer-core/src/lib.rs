//! (to come)

pub mod export;
pub mod journal;
pub mod payload;
pub mod transfer;
