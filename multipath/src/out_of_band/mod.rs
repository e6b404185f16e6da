//! Out-of-band control commands: which path one takes, and what can be said of its outcome.
//!
//! A control command names a device and one of its paths, and enters at this layer (125 of FIG. 13), below those for blocks.
//! What it may do depends on what it means, which no kernel knows:
//!
//! * [`command_table`]: what each command means, as data;
//! * [`request`]: what a caller asks for;
//! * [`select`]: which path is chosen (FIG. 16);
//! * [`router`]: how a command is processed (FIG. 15);
//! * [`reading`]: what an answer, or none, says about the command;
//! * [`verify`]: how to find out whether a command was executed, from another path;
//! * [`ledger`]: what the target keeps for each nexus; [`replay`]: how that is put back on a path that returns;
//! * [`reservations`]: persistent reservations over all nexuses;
//! * [`attentions`]: unit attentions, each once for each unit and subscriber;
//! * [`record`]: why it was so.
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

pub mod attentions;
pub mod command_table;
pub mod ledger;
pub mod reading;
pub mod record;
pub mod replay;
pub mod request;
pub mod reservations;
pub mod router;
pub mod select;
pub mod verify;

pub use attentions::Attention;
pub use command_table::CommandTable;
pub use ledger::{Knowledge, Ledger, NexusRecord};
pub use record::{Attempt, Candidate, Certainty, CommandOutcome, Conclusion, Record, Rejection, Remark};
pub use request::{CommandId, CommandRequest, Mode, Origin};
pub use reservations::{ReservationOperation, ReservationOutcome, ReservationResult};
pub use router::RouterConfig;
