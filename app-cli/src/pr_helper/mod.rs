//! A service for virtual machines: their persistent reservations go over all paths of the disk that they have.
//!
//! A process that runs a virtual machine hands PERSISTENT RESERVE commands with a descriptor of its disk to a helper over a
//! socket ([`protocol`]); here the helper is the command router, so that a registration means every path of the disk and a
//! release finds the path that holds.
//!
//! Keeps true: who calls gets to a disk only by a descriptor of it, and changes it only by one that may write; an outcome
//! that nobody knows is told as a check condition, never as GOOD. Not here: what a reservation is
//! (`multipath::out_of_band`).

pub mod executor;
pub mod protocol;
pub mod server;
