//! Random fault schedules against the multipath device, with a judge who knows what really landed.
//!
//! ```text
//!   submitters ─▶ MultipathDevice ─▶ observed path ─▶ SimulatedPath ─▶ StorageSystem ─▶ model disk
//!       │                                  │                                               │
//!       └──────────────────────────────▶ truth ◀───────────────────────────────────────────┘
//! ```
//!
//! Read it in this order: [`Plan`] (what a seed does), `schedule` (what goes wrong), `world` (the loop), `truth` (what
//! must hold), `medium`, `observed_path` and `stamp` (how it is seen). [`Mode`] has two runs beside the sound one, in
//! which data are lost on purpose: who judges must find that out.
//!
//! What holds: virtual time only, one thread per run, one seed one run. Not here: real devices.

mod medium;
mod observed_path;
mod plan;
mod runner;
mod schedule;
mod stamp;
mod truth;
mod world;

pub use plan::{Mode, Plan};
pub use runner::{Seeds, Summary, replay_command, run_seed, run_seeds};
pub use truth::{Broken, Violation};
pub use world::Report;
