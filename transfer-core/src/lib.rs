//! (to come)

pub mod payload;
