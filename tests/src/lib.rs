//! The simulator: hosts that share disks, in virtual time, from one seed.
//!
//! Read it in this order:
//!
//! * [`plan`]: what one seed does;
//! * [`world`]: the loop and what happens to hosts from outside;
//! * [`lane`], [`host`]: a process of a host, and what remains of it;
//! * [`site`], [`disk`]: the volume, and disks that misbehave;
//! * [`files`]: what is sent, and where it must be in the end;
//! * [`checker`]: what must hold, one promise a file;
//! * [`trace`]: what happened, as lines and as one number;
//! * [`runner`]: many seeds.
//!
//! What holds: one thread per run, no clock but the virtual one, no chance but the seed's; the code under
//! test is the program's own, from the node down. Not here: the program's event loop, real devices.

pub mod chance;
pub mod checker;
pub mod disk;
pub mod files;
pub mod fuzzing;
pub mod host;
pub mod lane;
pub mod plan;
pub mod runner;
pub mod site;
pub mod trace;
pub mod world;
