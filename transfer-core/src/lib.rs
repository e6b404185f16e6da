//! Control structures, connections and transfers: what two processes do that share a volume and
//! nothing else.
//!
//! # The idea
//!
//! A volume has one *master device* with the control structures and any number of *secondary devices*
//! with the data segments. Every host sees the same blocks. A write of one host may be delayed, doubled or
//! land minutes late over another path, and a disk has no lock. So two rules carry everything:
//!
//! * **One writer for every block.** A process owns a *lane*, one row of the host table, and with it a
//!   beacon, entries of the process id table, their pointer tables and a pool of segments. It writes there
//!   and nowhere else (the bell of another lane excepted, which means nothing). A late write of a process
//!   can only meet that process's own blocks.
//! * **A seal that the reader opens with what it expects.** What is left is an old write of the owner over
//!   its newer one. Every segment is sealed over connection, direction, sequence number, attempt and place,
//!   and the reader builds these values from its own state, never from the block. Bytes that were
//!   written for anything else do not open; they cost a re-send and are never delivered.
//!
//! Time-outs therefore decide when to look again and when to give up, never what is right.
//!
//! # One segment
//!
//! ```text
//!  writer (FIG. 10)                                            reader (FIG. 11)
//!  seal, write the segment ───────► secondary device ────────► read the segment, open the seal
//!  then its entry into the  ──────► master device:   ────────► poll: an entry is a hint where to look
//!  own pointer table                 writer's table
//!  poll: free the segment,  ◄────── reader's table   ◄──────── `received` into the own pointer table
//!  or send it again
//! ```
//!
//! A connection is a pair of slots of the process id table (FIG. 5), one of the initiator and one of the
//! connector. The pair carries the handshake and the end; while data flows, only the two pointer tables
//! (FIG. 7) are written and polled, each by one side.
//!
//! # The parts
//!
//! * [`format`](mod@format): the records, each structure of the seed in a file of its name;
//! * [`protocol`]: start, beacon and bell, handshake, connection, writer and reader. Pure: reads,
//!   writes and sealing come out, results and time go in;
//! * [`transfer`]: files, trees and streams over one connection, published exactly once. Pure but for
//!   `transfer::local`, the files of the host;
//! * [`node`]: one process of a host, an endpoint with a session on each connection. Pure;
//! * [`driver`]: the event loop that gives a node its time, its volume and its workers;
//! * [`file_system`]: the seam to the files of a host, so that a simulator can lose what was not synced;
//! * [`journal`], [`export`], [`enrolment`]: what was promised, where peers may go, who has which lane;
//! * [`survey`], [`inspect`], [`check`]: every control structure of a volume, to print and to verify;
//! * [`loopback`]: two processes on a volume in memory, for examples and tests.
//!
//! # A connection between two threads
//!
//! Two processes of two hosts, each in a thread of its own, share three disks in memory and no channel:
//!
//! ```
//! use std::thread;
//! use transfer_core::loopback;
//!
//! let [mut alpha, mut beta] = loopback::two_hosts();
//! let connector = thread::spawn(move || {
//!     let connection = beta.accept();
//!     let mut heard = Vec::new();
//!     while let Some(segment) = beta.receive(connection) {
//!         heard.extend_from_slice(segment.payload.bytes());
//!     }
//!     heard
//! });
//!
//! let connection = alpha.connect("beta")?;
//! alpha.send(connection, b"over the disk, ");
//! alpha.send(connection, b"and nothing else");
//! alpha.close(connection); // Returns when both segments were acknowledged.
//!
//! assert_eq!(connector.join().unwrap(), b"over the disk, and nothing else");
//! # Ok::<(), transfer_core::protocol::endpoint::ConnectError>(())
//! ```
//!
//! Not here: how devices and paths work (crates below), what the user types (`app-cli`).

pub mod check;
pub mod driver;
pub mod enrolment;
pub mod export;
pub mod file_system;
pub mod format;
pub mod inspect;
pub mod journal;
pub mod loopback;
pub mod node;
pub mod payload;
pub mod protocol;
pub mod random;
pub mod survey;
pub mod transfer;
