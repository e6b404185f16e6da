//! The simulator: hosts that share disks, in virtual time, from one seed.
//!
//! Read it in this order:
//!
//! * [`plan`], [`fault`]: what one seed does, and what can go wrong;
//! * [`world`]: the loop and what happens to hosts from outside;
//! * [`lane`], [`host`], [`snapshot`]: a process of a host, what remains of it, and how it was before;
//! * [`script`]: one fault at one chosen request;
//! * [`site`], [`disk`]: the volume, and disks that misbehave; [`stand_in`]: cheap keys;
//! * [`damage`]: what is written past every rule;
//! * [`file_system`]: files that forget what was not synced;
//! * [`files`]: what is sent, and where it must be in the end;
//! * [`checker`]: what must hold, one promise a file;
//! * [`relay`]: beside the simulator, one real path to a real server, which can be made to fail;
//! * [`real_paths`]: one device over several of them, and drills under verified I/O;
//! * [`guest`]: a real kernel in emulation that sees two paths to a disk;
//! * [`trace`]: what happened, as lines and as one number;
//! * [`multipath_goals`]: the goals of the multipath device, measured;
//! * [`multipath_swarm`]: random fault schedules against the multipath device;
//! * [`runner`]: many seeds; [`sabotage`]: builds that are broken on purpose, which they must find out.
//!
//! What holds: one thread per run, no clock but the virtual one, no chance but the seed's; the code under
//! test is the program's own, from the node down. Not here: the program's event loop, real devices.

pub mod chance;
pub mod checker;
pub mod damage;
pub mod disk;
pub mod fault;
pub mod file_system;
pub mod files;
pub mod fuzzing;
pub mod guest;
pub mod host;
pub mod lane;
pub mod models;
pub mod multipath_goals;
pub mod multipath_swarm;
pub mod plan;
pub mod real_paths;
pub mod relay;
pub mod runner;
pub mod script;

pub mod sabotage;
pub mod site;
pub mod snapshot;
pub mod stand_in;
pub mod trace;
pub mod world;
