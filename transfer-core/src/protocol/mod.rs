//! The protocol core: pure state machines, `handle_*` in, `poll_*` out.
//!
//! An [`Endpoint`](endpoint::Endpoint) is one process on the volume (one lane). It starts, shows its
//! beacon, answers or makes calls, and owns the [`Connection`](connection::Connection)s. It never does
//! I/O, reads a clock, or draws randomness by itself: reads and writes come out of `poll_io`, sealing
//! comes out of `poll_work`, time goes in as `now`.
//!
//! Contract: after any `handle_*` call, poll `poll_io`, `poll_work` and `poll_event` until they give
//! nothing; call `handle_timeout` when `next_wakeup` has come; `now` never goes back.

pub mod admin_watch;
pub mod connection;
pub mod depth;
pub mod discovery;
pub mod endpoint;
pub mod handshake;
pub mod owner_mac;
pub mod pair;
pub mod pool;
pub mod reader;
pub(crate) mod roster;
pub mod seal;
pub mod startup;
pub mod timer;
pub mod writer;
