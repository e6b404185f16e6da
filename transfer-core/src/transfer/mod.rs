//! Transfers: files, trees and streams over one connection, published exactly once.
//!
//! ```text
//!            driver: one connection, one clock, some workers
//!      segments │▲                            │▲ local work
//!               ▼│                            ▼│
//!   ┌──────────────────────── session ─────────────────────────┐
//!   │  sender (walk, load, permit)    receiver (store, commit) │   pure: no file, clock or thread
//!   └──────────────────────────────────────────────────────────┘
//!                          local: the files of this host            the only edge
//! ```
//!
//! [`Session`] takes segments, answers of local work and time, and gives segments, local work and
//! events. [`LocalStore`] is what executes local work; [`LocalFiles`] does it with real files.

mod code;
mod commit;
mod job;
pub mod local;
pub mod message;
mod name;
mod outbox;
mod receiver;
pub mod root;
mod sender;
mod session;
mod store;

pub use code::{ErrorCode, LocalError};
pub(crate) use job::PAYLOADS_MAX;
pub use job::{Job, LossReason, Outcome, ProtocolViolation, SessionConfig, SessionEvent, Verdict};
pub use local::{LocalFiles, ServingFiles};
pub use name::{NameError, PARTIAL_FOLDER, PATH_BYTES_MAX, RelativePath, link_stays_inside};
pub use session::Session;
pub use store::{
    Attributes, Destined, DirectoryItem, FileAnswer, Identity, JobEnd, JobKey, KnownAnswer, LinkItem,
    ListEntry, ListKind, LoadedFile, LocalDone, LocalReply, LocalRequest, LocalStore, LocalWork, OpenFile,
    PackFile, PublishFile, SourceFile, SourceOrigin, SyncFile, Target, TransferId, WalkEntry, WalkItem,
};
