//! A disk behind a Network Block Device server, over TCP or a Unix socket.
//!
//! * [`codec`]: the bytes on the wire, no more;
//! * [`handshake`]: the negotiation as a pure machine (bytes in, bytes out, at last an [`Export`]);
//! * [`session`]: requests and replies as a pure machine, with what is known of each request when the
//!   connection is lost;
//! * [`connect`]: the one place that blocks, for a bounded time: at opening, and on a thread of its own
//!   later;
//! * [`device`]: sockets that do not block, the link and its back-off.
//!
//! ```text
//!  NbdDevice ── Session ──► bytes ──► socket ──► server
//!      └── connect (a thread, after a loss) ── Handshake
//! ```
//!
//! What holds:
//!
//! * one address is one connection; several connections to one export are several paths, and whether a server
//!   allows them is [`Export::can_multi_conn`];
//! * a reply is the only proof that a request is over. A lost connection proves nothing about a write of
//!   which a byte was sent: it is *unknown, may land*, and no `Settled` follows;
//! * whatever the server sends, nothing panics, and no length of its is trusted.
//!
//! Not here: TLS, structured replies, deadlines (crate `multipath`), and who else has the export open. An NBD
//! export has no identity: its name and size are all there is to compare.
//!
//! The protocol: <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>.

pub mod codec;
pub mod connect;
pub mod device;
pub mod handshake;
pub mod session;

pub use connect::{ConnectError, NbdServer};
pub use device::{NbdDevice, NbdMonitor, NbdSettings, OpenNbdError};
pub use handshake::{Export, Handshake, NegotiationError};
pub use session::{ProtocolError, Session};
