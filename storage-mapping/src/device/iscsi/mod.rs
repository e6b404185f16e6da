//! A logical unit of an iSCSI target, through libiscsi: a path for blocks and for control commands, without root and
//! without the kernel's initiator. Built only with the feature `iscsi`.
//!
//! * `ffi`: libiscsi and a safe session over it, with every `unsafe` of this folder;
//! * [`identity`]: who we are to a target: initiator name and session id;
//! * `command`: the few commands that the device itself sends, and what their answers say;
//! * `probe`: what is asked after each login, as a pure machine;
//! * `attempt`: one way from nothing to a session that carries commands;
//! * [`device`]: the device: requests, the link, and its back-off; `port`: its control port.
//!
//! ```text
//!  BlockDevice ─┐
//!               ├─ IscsiDevice ── Session ── libiscsi ──► one TCP connection ──► portal
//!  ControlPort ─┘       └── Attempt (after a loss) ── Probe
//! ```
//!
//! What holds:
//!
//! * one address is one session on one connection, and one I_T nexus. Its name and session id are the same after each
//!   login, and no second session on this host has them: the target would end the first for the second;
//! * nothing is sent twice. What was under way when a connection was lost ends as *connection lost, sent*; a write of
//!   those may land, for the end of a connection proves nothing about it;
//! * the answer to a command, or to its ABORT TASK, is the only proof that it is over;
//! * after a login the unit attentions that wait are consumed and kept as events, and the unit must be the one that it
//!   was, or the device stays closed.
//!
//! Not here: time-outs (crate `multipath`), discovery, redirection, several connections of a session, what a command
//! means.

mod attempt;
mod command;
pub mod device;
mod ffi;
pub mod identity;
mod port;
mod probe;
mod requests;

pub use device::{IscsiDevice, IscsiMonitor, IscsiSettings, OpenIscsiError};
