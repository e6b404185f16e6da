//! The records of the protocol: each structure of the seed in a file of its name.
//!
//! Byte maps are written once, with [`volume::record!`]; the common header and the seal are those of
//! the crate `volume`. What holds for all: `parse(emit(x)) == x`, no bytes make a parser panic, and
//! every field is range-checked before anybody acts on it. Not here: what a record means to a
//! connection (`protocol`).

pub mod beacon;
pub mod control_area;
pub mod host_table;
pub mod map;
pub mod process_id_table;
pub mod process_segment_pointer_table;
pub mod segment;
