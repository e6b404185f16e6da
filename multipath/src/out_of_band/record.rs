//! Why a command took the path it took, and what is known of its outcome: for people as text, for programs as fields.
//!
//! Keeps true: what was done and what was not are both named; an outcome that nobody knows is called so. Not here: who
//! decides (`select`, `router`).

use std::fmt;
use std::time::Duration;

use storage_mapping::control_port::{CommandBytes, ControlReply};
use storage_mapping::device::control_node::explain_refusal;
use storage_mapping::scsi::status;
use storage_mapping::{CopyFate, Effect, Instant, IoError, PathIndex};

use super::command_table::{Class, Repeat};
use super::request::{CommandId, Mode};
use crate::path_state::PathState;

/// Why a path was not chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Its transport takes no control commands.
    NoPort,
    /// Another path was named, and the mode or the class wants that one.
    NotNamed,
    /// The answer describes another target port.
    OtherPort,
    /// The command was bound to another nexus.
    OtherNexus,
    /// Its nexus is not registered.
    NotRegistered,
    /// The reservation is held over this path, and only there a release has an effect.
    NotHolder(PathIndex),
    /// It is in this state.
    State(PathState),
    /// Its access state does not let this command through.
    AccessState,
    /// It failed this command before.
    Tried,
    /// Another path is better.
    Worse,
    /// It must not be repeated, and so not sent over every path.
    NotForAll,
    /// It did not take the command.
    DidNotTake,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPort => f.write_str("it takes no control commands"),
            Self::NotNamed => f.write_str("another path was named"),
            Self::OtherPort => f.write_str("it ends at another target port"),
            Self::OtherNexus => f.write_str("the command belongs to another nexus"),
            Self::NotRegistered => f.write_str("its nexus is not registered"),
            Self::NotHolder(holder) => {
                write!(f, "path {} holds the reservation: over this one GOOD would have no effect", holder.0)
            }
            Self::State(state) => write!(f, "it is {}", state.word()),
            Self::AccessState => f.write_str("its access state does not let the command through"),
            Self::Tried => f.write_str("it failed the command before"),
            Self::Worse => f.write_str("another path is better"),
            Self::NotForAll => f.write_str("the command must not be sent over every path"),
            Self::DidNotTake => f.write_str("it did not take the command"),
        }
    }
}

/// What a path that could be chosen was judged by, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The path.
    pub path: PathIndex,
    /// Its state.
    pub state: PathState,
    /// A unit attention is expected on it.
    pub has_attention: bool,
    /// What a command over it took lately, where that is known.
    pub latency: Option<Duration>,
    /// The caller named it.
    pub is_named: bool,
}

/// How sure it is that the command was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Certainty {
    /// The target says so, or it was found in place.
    Executed,
    /// The target said GOOD, and what was read afterwards shows that nothing changed.
    NoEffect,
    /// It never left this host.
    NotExecuted,
    /// The target answered that it does not do it. That is its word, and no proof.
    Refused,
    /// Nobody knows.
    Unknown,
}

impl Certainty {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::NoEffect => "without effect",
            Self::NotExecuted => "not executed",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// One sending of a command over one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The path.
    pub path: PathIndex,
    /// When it was sent.
    pub at: Instant,
    /// How long it took, or was waited for.
    pub took: Duration,
    /// The name of the verify command, where this was one.
    pub verify: Option<&'static str>,
    /// What came: `Ok` is a success of the target.
    pub outcome: Result<(), IoError>,
    /// Did the target act on it?
    pub effect: Effect,
    /// May it still be executed?
    pub copy: CopyFate,
}

/// What changes for the caller, and what he should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark {
    /// The answer describes the port of `answered`, and not that of `named`.
    OtherPortDescribed {
        /// The path that answered.
        answered: PathIndex,
        /// The path that was named.
        named: PathIndex,
    },
    /// The effect holds for the nexus of `done`, and not for that of `named`.
    OtherNexusActed {
        /// The path that was used.
        done: PathIndex,
        /// The path that was named.
        named: PathIndex,
    },
    /// GOOD, and the verify command shows that nothing changed.
    NoEffect,
    /// The verify command shows that it was done, though no answer came.
    FoundDone,
    /// The verify command shows that it was not done so far.
    FoundUndone,
    /// The verify command did not tell.
    NotVerified,
    /// An attempt that nobody waits for may still be executed.
    MayLand(PathIndex),
    /// It is not sent again, for it must not be repeated.
    NeverRepeated,
    /// It is not sent again: an old copy may land on newer data, and a router has no fence.
    NeedsFence,
    /// The sense was met earlier by a command of this layer; nothing was sent now.
    EarlierAttention,
    /// RESERVATION CONFLICT, and this nexus is not known to be registered: its registration may be lost.
    MaybeUnregistered(PathIndex),
    /// The path is down; what it lacks is put in place when it returns.
    WhenItReturns(PathIndex),
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherPortDescribed { answered, named } => {
                write!(f, "the answer describes the port of path {}; you named path {}", answered.0, named.0)
            }
            Self::OtherNexusActed { done, named } => {
                write!(f, "it was done over the nexus of path {}; you named path {}", done.0, named.0)
            }
            Self::NoEffect => f.write_str("the target said GOOD, and nothing changed"),
            Self::FoundDone => f.write_str("no answer came; it was found to be done"),
            Self::FoundUndone => f.write_str("it was found not to be done so far"),
            Self::NotVerified => f.write_str("what was read afterwards does not tell whether it was done"),
            Self::MayLand(path) => write!(f, "what was sent over path {} may still be executed", path.0),
            Self::NeverRepeated => f.write_str("it is not sent again: it must not be executed twice"),
            Self::NeedsFence => f.write_str("it is not sent again: an old copy could land on newer data"),
            Self::EarlierAttention => {
                f.write_str("a command of this layer met the unit attention earlier: nothing was sent now")
            }
            Self::MaybeUnregistered(path) => write!(
                f,
                "the nexus of path {} is not known to be registered: the conflict may mean that alone",
                path.0
            ),
            Self::WhenItReturns(path) => write!(f, "path {} is down: it gets this when it returns", path.0),
        }
    }
}

/// What became of a command on one path, or on whichever was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conclusion {
    /// The path of the answer, or the last that was tried.
    pub path: Option<PathIndex>,
    /// What the target answered. A GOOD stands here also where it had no effect: `certainty` counts.
    pub reply: Option<ControlReply>,
    /// How sure it is.
    pub certainty: Certainty,
    /// May it still be executed?
    pub copy: CopyFate,
}

impl Conclusion {
    /// Whether it was done, for all that is known.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.certainty == Certainty::Executed
    }
}

/// Everything about the decision for one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which command.
    pub id: CommandId,
    /// When it was taken.
    pub at: Instant,
    /// Its bytes.
    pub bytes: CommandBytes,
    /// The name of its row.
    pub name: String,
    /// Its class.
    pub class: Class,
    /// Whether it may be repeated.
    pub repeat: Repeat,
    /// Why the row says so.
    pub reason: &'static str,
    /// The row is one of the configuration.
    pub is_of_user: bool,
    /// The mode.
    pub mode: Mode,
    /// Nothing was to be sent.
    pub is_dry_run: bool,
    /// The path that was named.
    pub named: Option<PathIndex>,
    /// What it was chosen from at first, best first.
    pub candidates: Vec<Candidate>,
    /// The paths that were not chosen at first, and why.
    pub rejected: Vec<(PathIndex, Rejection)>,
    /// The path of the answer; in a dry run the one that would be taken.
    pub chosen: Option<PathIndex>,
    /// Why not the named one.
    pub why_not_named: Option<Rejection>,
    /// What was sent.
    pub attempts: Vec<Attempt>,
    /// What changes for the caller.
    pub remarks: Vec<Remark>,
    /// What tells whether it was executed, where that is open.
    pub advice: Option<&'static str>,
}

impl Record {
    /// What would let the command out, in one line, where the kernel of this host did not; `None` where that is not what
    /// happened.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        let own = self.attempts.iter().filter(|attempt| attempt.verify.is_none());
        own.filter_map(|attempt| attempt.outcome.err()).find_map(|error| explain_refusal(&self.bytes, error))
    }
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOutcome {
    /// Which command.
    pub id: CommandId,
    /// One conclusion, or one for each nexus where all were needed; none of a dry run.
    pub conclusions: Vec<Conclusion>,
    /// Why.
    pub record: Record,
}

impl CommandOutcome {
    /// Whether it was done everywhere it was to be done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        !self.conclusions.is_empty() && self.conclusions.iter().all(Conclusion::is_done)
    }

    /// The reply, where one path was asked.
    #[must_use]
    pub fn reply(&self) -> Option<&ControlReply> {
        self.conclusions.first()?.reply.as_ref()
    }
}

/// A status as people read it.
pub(crate) struct StatusText<'a>(pub(crate) &'a ControlReply);

impl fmt::Display for StatusText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ControlReply::Scsi { status, .. } => f.write_str(status::name(*status)),
            ControlReply::Nvme { sct, sc, .. } => write!(f, "NVMe status {sct:x}/{sc:02x}"),
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over path {}: ", self.verify.unwrap_or("sent"), self.path.0)?;
        match &self.outcome {
            Ok(()) => f.write_str("GOOD")?,
            Err(error) => write!(f, "{error}")?,
        }
        write!(f, ", after {:.3} ms", self.took.as_secs_f64() * 1000.0)
    }
}

impl fmt::Display for Record {
    /// Lines for a person, the decision first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.name, self.reason)?;
        let user = if self.is_of_user { " (a row of the configuration)" } else { "" };
        let (class, repeat) = (self.class, self.repeat);
        writeln!(f, "{}: {}; {}{user}", class.word(), class.meaning(), repeat.meaning())?;
        match self.named {
            Some(path) => write!(f, "path {} was named", path.0)?,
            None => f.write_str("no path was named")?,
        }
        write!(f, ", mode {}: ", self.mode.word())?;
        match (self.chosen, self.is_dry_run, self.class == Class::AllNexuses || self.mode == Mode::All) {
            (Some(_), false, true) => writeln!(f, "every path that is up was taken")?,
            (Some(_), true, true) => writeln!(f, "every path that is up would be taken")?,
            (Some(path), false, false) => writeln!(f, "path {} was taken", path.0)?,
            (Some(path), true, false) => writeln!(f, "path {} would be taken", path.0)?,
            (None, ..) => writeln!(f, "no path was taken")?,
        }
        if let (Some(named), Some(why)) = (self.named, self.why_not_named) {
            writeln!(f, "not path {}: {why}", named.0)?;
        }
        for (path, why) in self.rejected.iter().filter(|(path, _)| Some(*path) != self.named) {
            writeln!(f, "not path {}: {why}", path.0)?;
        }
        self.attempts.iter().try_for_each(|attempt| writeln!(f, "{attempt}"))?;
        self.remarks.iter().try_for_each(|remark| writeln!(f, "{remark}"))?;
        if let Some(advice) = self.advice {
            writeln!(f, "to find out whether it was executed: {advice}")?;
        }
        match self.remedy() {
            Some(remedy) => writeln!(f, "{remedy}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Conclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = self.path {
            write!(f, "path {}: ", path.0)?;
        }
        if let Some(reply) = &self.reply {
            write!(f, "{}, ", StatusText(reply))?;
        }
        f.write_str(self.certainty.word())
    }
}
