//! What an error says: about the path it came over, about the request, and about its copy.
//!
//! An error is looked up in a table of its origin (`errno`, `scsi`, `nvme`, `nbd`), one row per code,
//! sense or status. A row has three columns that are judged apart:
//!
//! | column | question | values |
//! |---|---|---|
//! | [`ErrorClass`] | what happened, and so what for path ([`PathAction`]) and request ([`RequestAction`]) | 15 |
//! | [`Effect`] | did the device act on it? | none, full, unknown |
//! | [`CopyFate`] | may a copy still land? | dead, may land |
//!
//! Keeps true:
//!
//! * an error of the request itself (misaligned, unsupported, out of space) never fails a path, else
//!   one bad request would take down all paths one after the other;
//! * *not executed* is never read from a code. It is certain only where the submit call itself was
//!   refused, or the request was withdrawn before its first byte left ([`Sent::No`]);
//! * *executed* is read only from a status that says so; BUSY, a reservation conflict, a unit attention
//!   and the like are the answer of the target (the copy is dead) and no proof of execution;
//! * an error that this host made up (time-out, lost connection, EIO) leaves a write that may land;
//! * only writes have copies that matter: after a read or a flush the copy is dead.
//!
//! What the bottom device reports and what the table says are merged by [`Classified::with_report`].
//!
//! Not here: how often a request is sent, over which path, and when a path is used again (`failover`).

pub mod errno;
pub mod nbd;
pub mod nvme;
pub mod scsi;
#[cfg(test)]
mod tests;

use std::time::Duration;

use nix::errno::Errno;
use storage_mapping::{CopyFate, Effect, ErrorSource, IoError, Operation};

/// Classes of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// No error: it was done, with a remark.
    Success,
    /// The path is gone.
    PathDead,
    /// The path may be at fault: it fails when that happens again.
    PathSuspect,
    /// The path answers, and carries no I/O in its present access state.
    PathGhost,
    /// The access state of the path is changing, for a bounded time.
    PathTransition,
    /// The path leads elsewhere than it did: prove what it leads to before it carries more.
    Reidentify,
    /// No room just now; the path is well.
    Busy,
    /// The medium has lost what was asked for.
    Medium,
    /// Data and its protection disagree; the path may have damaged it.
    Integrity,
    /// The storage side cannot do it, over any path.
    Target,
    /// Another host holds a reservation, or the registration of this path was lost.
    Reservation,
    /// Something happened on the storage side, and this command was not done because of it.
    UnitAttention,
    /// The request is wrong: any path would say the same.
    Caller,
    /// Cut off under way by a time-out, a reset or an abort: it may or may not have run.
    Ambiguous,
    /// Somebody asked for its end.
    Cancelled,
}

/// What an error means for the path it came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathAction {
    /// The path is well, or was not judged.
    Nothing,
    /// One suspicion more.
    Suspect,
    /// It fails at once. What it leads to is proven before it is used again.
    Fail,
    /// It is on standby: good for commands, not for I/O.
    Standby,
    /// Its access state is changing: ask for the states again.
    Transition,
    /// No I/O before it is proven what it leads to.
    Reidentify,
    /// It takes fewer requests at a time.
    Shrink,
}

/// What an error means for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestAction {
    /// It is done.
    Done,
    /// The error is the answer.
    Answer,
    /// At once over another path.
    Elsewhere,
    /// Later, over the same path first.
    Later,
    /// At once over the same path.
    Again,
    /// At once over one other path, and what that one says is the answer.
    Witness,
    /// It waits for the access states, or goes to another group of paths.
    Hold,
}

/// What a row tells beside the fate of the request, for the ledger of the path and for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// A command succeeded after the device had to recover.
    Recovered,
    /// An earlier write that was acknowledged is lost.
    AcknowledgedDataLost,
    /// Power-on, reset or loss of the nexus: what the target knew of this session is gone.
    NexusStateLost,
    /// Mode parameters changed.
    ModeChanged,
    /// Reservations or registrations changed.
    ReservationsChanged,
    /// Access states of paths changed, or are changing.
    AccessStateChanged,
    /// The size may have changed.
    CapacityChanged,
    /// The identity or the set of units changed.
    IdentityChanged,
    /// A thin pool runs low.
    ThinPoolLow,
    /// Commands of this session were ended by another host.
    ClearedByOther,
    /// The target has an auto contingent allegiance that must be cleared on this nexus.
    ClearAca,
    /// The operation is not supported: do not send it again.
    NotSupported,
    /// A checksum of the transport failed; counted for the path.
    TransportChecksum,
}

/// What a request does, as far as errors care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IoKind {
    /// Reads blocks.
    Read,
    /// Writes blocks.
    Write,
    /// Makes writes durable.
    Flush,
}

impl IoKind {
    /// The word that users read.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
        }
    }
}

impl From<&Operation> for IoKind {
    fn from(operation: &Operation) -> Self {
        match operation {
            Operation::Read { .. } => Self::Read,
            Operation::Write { .. } => Self::Write,
            Operation::Flush => Self::Flush,
        }
    }
}

/// Whether any byte of a request left this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sent {
    /// The submit call was refused, or the request was withdrawn before its first byte.
    No,
    /// It was handed over; a half-sent request counts as sent.
    Yes,
}

/// What the sender knows of a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestFacts {
    /// What it does.
    pub kind: IoKind,
    /// Whether any of it left.
    pub sent: Sent,
    /// Its blocks lie within the size that the path had. Then "out of range" is news of the path.
    pub address_checked: bool,
}

/// One row of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its class.
    pub class: ErrorClass,
    /// Of a request that was sent.
    pub effect: Effect,
    /// Of a write that was sent.
    pub copy: CopyFate,
    /// What else it tells.
    pub notice: Option<Notice>,
    /// What the code is, for the reader.
    pub text: &'static str,
    path: Option<PathAction>,
    request: Option<RequestAction>,
    names_address: bool,
}

/// The reading of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classified {
    /// What happened.
    pub class: ErrorClass,
    /// What it means for the path.
    pub path: PathAction,
    /// What it means for the request.
    pub request: RequestAction,
    /// Did the device act on it?
    pub effect: Effect,
    /// May a copy still land?
    pub copy: CopyFate,
    /// How long the storage side wants to be left alone; zero where it did not say.
    pub delay: Duration,
    /// What else it tells.
    pub notice: Option<Notice>,
    /// What the code is, for the reader.
    pub text: &'static str,
}

impl ErrorClass {
    /// The class of an error of a request that was sent to an address within the device.
    #[must_use]
    pub fn of(error: &IoError) -> Self {
        let facts = RequestFacts { kind: IoKind::Read, sent: Sent::Yes, address_checked: true };
        classify(error, &facts).class
    }

    /// What errors of this class mean for their path, unless the row says otherwise.
    #[must_use]
    pub const fn path_action(self) -> PathAction {
        match self {
            Self::PathDead => PathAction::Fail,
            Self::PathSuspect | Self::Ambiguous => PathAction::Suspect,
            Self::PathGhost => PathAction::Standby,
            Self::PathTransition => PathAction::Transition,
            Self::Reidentify => PathAction::Reidentify,
            Self::Busy => PathAction::Shrink,
            Self::Success
            | Self::Medium
            | Self::Integrity
            | Self::Target
            | Self::Reservation
            | Self::UnitAttention
            | Self::Caller
            | Self::Cancelled => PathAction::Nothing,
        }
    }

    /// What errors of this class mean for their request, unless the row says otherwise.
    #[must_use]
    pub const fn request_action(self, kind: IoKind) -> RequestAction {
        match (self, kind) {
            (Self::Success, _) => RequestAction::Done,
            (Self::PathDead | Self::PathSuspect | Self::PathGhost, _) => RequestAction::Elsewhere,
            (Self::Reidentify | Self::Ambiguous, _) => RequestAction::Elsewhere,
            (Self::PathTransition, _) => RequestAction::Hold,
            (Self::Busy, _) => RequestAction::Later,
            // A write may find good blocks where a read cannot, and over another path sooner.
            (Self::Medium, IoKind::Write) => RequestAction::Elsewhere,
            (Self::Integrity, IoKind::Read) => RequestAction::Witness,
            (Self::UnitAttention, _) => RequestAction::Again,
            (Self::Medium | Self::Integrity | Self::Target | Self::Reservation, _) => RequestAction::Answer,
            (Self::Caller | Self::Cancelled, _) => RequestAction::Answer,
        }
    }
}

impl Row {
    /// The response of that very request came, and no part of it is on its way; whether it ran is open.
    const fn answered(class: ErrorClass, text: &'static str) -> Self {
        Self::new(class, Effect::Unknown, CopyFate::Dead, text)
    }

    /// The response says that the command ran to its end.
    const fn executed(class: ErrorClass, text: &'static str) -> Self {
        Self::new(class, Effect::Full, CopyFate::Dead, text)
    }

    /// Nothing is proven.
    const fn in_doubt(class: ErrorClass, text: &'static str) -> Self {
        Self::new(class, Effect::Unknown, CopyFate::MayLand, text)
    }

    const fn new(class: ErrorClass, effect: Effect, copy: CopyFate, text: &'static str) -> Self {
        Self { class, effect, copy, notice: None, text, path: None, request: None, names_address: false }
    }

    const fn notice(mut self, notice: Notice) -> Self {
        self.notice = Some(notice);
        self
    }

    const fn path(mut self, action: PathAction) -> Self {
        self.path = Some(action);
        self
    }

    const fn request(mut self, action: RequestAction) -> Self {
        self.request = Some(action);
        self
    }

    /// The code blames the address or the unit: the caller's fault, unless the address was checked.
    const fn names_address(mut self) -> Self {
        self.names_address = true;
        self
    }

    /// The reading of this row for one request.
    fn read(&self, facts: &RequestFacts) -> Classified {
        let row = if self.names_address && facts.address_checked {
            Self { class: ErrorClass::Reidentify, ..*self }
        } else {
            *self
        };
        let (effect, copy) = match (facts.sent, facts.kind) {
            (Sent::No, _) => (Effect::None, CopyFate::Dead),
            (Sent::Yes, IoKind::Write) => (row.effect, row.copy),
            (Sent::Yes, IoKind::Read | IoKind::Flush) => (row.effect, CopyFate::Dead),
        };
        Classified {
            class: row.class,
            path: row.path.unwrap_or(row.class.path_action()),
            request: row.request.unwrap_or(row.class.request_action(facts.kind)),
            effect,
            copy,
            delay: Duration::ZERO,
            notice: row.notice,
            text: row.text,
        }
    }
}

impl Classified {
    /// Merges what the bottom device itself reported of the request.
    ///
    /// * Effect: whoever knows wins over whoever does not. Where both know and disagree, nobody knows.
    /// * Copy: what the device says counts. It may have had its abort answered where the table has doubt;
    ///   and a doubt that it reports stays, for it may speak of more than one command (another
    ///   multipath device below). A doubt too many costs time, one too few costs data.
    /// * *Not executed* and *may land* contradict each other: then nobody knows.
    #[must_use]
    pub fn with_report(self, effect: Effect, copy: CopyFate) -> Self {
        let merged = match (self.effect, effect) {
            (own, Effect::Unknown) => own,
            (Effect::Unknown, reported) => reported,
            (own, reported) if own == reported => own,
            _ => Effect::Unknown,
        };
        let contradicts = merged == Effect::None && copy == CopyFate::MayLand;
        Self { effect: if contradicts { Effect::Unknown } else { merged }, copy, ..self }
    }
}

const LOST_UNSENT: Row = Row::in_doubt(ErrorClass::PathDead, "connection lost before it was sent");
const LOST_SENT: Row = Row::in_doubt(ErrorClass::PathDead, "connection lost after it was sent");
const DEADLINE: Row = Row::in_doubt(ErrorClass::Ambiguous, "no answer before the deadline");
/// Below another multipath device: its paths are its own matter, its end is ours.
const NO_PATH: Row = Row::in_doubt(ErrorClass::PathDead, "the device below has no path left");
const SHORT: Row = Row::in_doubt(ErrorClass::PathSuspect, "fewer bytes than asked for");
const ENDED: Row = Row::in_doubt(ErrorClass::Reidentify, "no byte where there were some: the size changed")
    .notice(Notice::CapacityChanged);

/// What an error says of the request that it ended.
///
/// Total: every value of every field has a reading. The rows for unknown codes are the last of each
/// table.
#[must_use]
pub fn classify(error: &IoError, facts: &RequestFacts) -> Classified {
    match error.source_code {
        ErrorSource::Errno(code) => errno::row(Errno::from_raw(code)).read(facts),
        ErrorSource::ConnectionLost { sent: true } => LOST_SENT.read(facts),
        ErrorSource::ConnectionLost { sent: false } => {
            LOST_UNSENT.read(&RequestFacts { sent: Sent::No, ..*facts })
        }
        ErrorSource::Deadline => DEADLINE.read(facts),
        ErrorSource::NoPath => NO_PATH.read(facts),
        ErrorSource::Short { done: 0, .. } if facts.kind == IoKind::Read => ENDED.read(facts),
        ErrorSource::Short { .. } => SHORT.read(facts),
        ErrorSource::Scsi { status, host_status, key, asc, ascq, deferred } => {
            scsi::row(status, host_status, (key, asc, ascq), deferred).read(facts)
        }
        ErrorSource::Nvme { sct, sc, dnr, crd } => nvme::read((sct, sc), dnr, crd, facts),
        ErrorSource::Nbd(code) => nbd::row(code).read(facts),
    }
}
