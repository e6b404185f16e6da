//! The devices at the bottom.

pub mod memory;

pub use memory::{MemoryDevice, MemoryDisk};
