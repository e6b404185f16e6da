//! Out-of-band control commands: which path one takes, and what can be said of its outcome.
//!
//! A control command names a device and one of its paths, and enters at this layer (125 of FIG. 13), below those for blocks.
//! What it may do depends on what it means, which no kernel knows:
//!
//! * [`command_table`]: what each command means, as data.
//!
//! All of it is state machines without I/O, threads or a clock. What it keeps true:
//!
//! * a command that must not be repeated is handed to a port once at most, unless that port did not take it or gave it back
//!   before its first byte;
//! * a GOOD is reported as done only where its effect is not known to be missing;
//! * nothing here sends a reset, SET TARGET PORT GROUPS or PERSISTENT RESERVE OUT CLEAR that no caller asked for
//!   ([`command_table::is_for_callers_alone`]).
//!
//! Not here: the bytes of commands (`storage_mapping::scsi`, `storage_mapping::nvme`), the ports
//! (`storage_mapping::control_port`), the loop that joins both (`multipath_device::control_commands`).

pub mod command_table;
