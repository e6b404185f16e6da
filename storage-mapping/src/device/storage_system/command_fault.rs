//! What can go wrong with one control command, at each point of its way, and the text form of it.
//!
//! ```text
//!  submit ──▶ on the link ──▶ arrives ──▶ executed ──▶ answer
//!   │ refused, not-sent         │ lost [TIME], hang, busy, full, attention, deferred,   │ answer-lost, answer-hang,
//!   ▼                           ▼ nexus-lost, access                                    ▼ nexus-lost-after, access-after
//! ```
//!
//! Keeps true: what prints parses back. Not here: what the core does with it (`core::control`), faults of links
//! (`conditions`), which also meet control commands.

use std::fmt;
use std::time::Duration;

use super::access_state::AccessState;
use super::conditions::time;
use super::scsi_target::Attention;
use crate::path_address::exact_duration;

/// What one control command meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandFault {
    /// The port does not take it ([`RefusalReason::Busy`](crate::RefusalReason)).
    Refused,
    /// It ends as not sent.
    NotSent,
    /// It ends as lost after it was sent. It is executed so much later, or never.
    Lost {
        /// After this time it is executed.
        lands: Option<Duration>,
    },
    /// It waits in the port before it is executed: so long, or for ever.
    Hang(Option<Duration>),
    /// Status BUSY.
    Busy,
    /// Status TASK SET FULL.
    TaskSetFull,
    /// This unit attention comes up before it.
    Attention(Attention),
    /// It meets deferred sense: MEDIUM ERROR of an earlier command, with these codes.
    Deferred(Attention),
    /// The nexus ends before it is executed, and there is a new one at once; it is never executed.
    NexusLost,
    /// The access state of its group changes just before it arrives.
    Access(AccessState),
    /// It is executed, and its answer is lost.
    AnswerLost,
    /// It is executed, and its answer comes so much later, or never.
    AnswerHang(Option<Duration>),
    /// It is executed, then the nexus ends with the answer, and there is a new one at once.
    NexusLostAfter,
    /// It is executed, then the access state of its group changes.
    AccessAfter(AccessState),
}

/// A fault that waits for its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArmedFault {
    /// The opcode of the command that it waits for; `None` is the next command, whichever it is.
    pub opcode: Option<u8>,
    /// The fault.
    pub fault: CommandFault,
}

impl ArmedFault {
    /// Reads `OPCODE|any FAULT…`.
    pub(super) fn parse(words: &[&str]) -> Result<Self, String> {
        let [opcode, fault @ ..] = words else { return Err(Self::expected()) };
        let opcode = match *opcode {
            "any" => None,
            digits => Some(byte(digits).ok_or_else(Self::expected)?),
        };
        Ok(Self { opcode, fault: CommandFault::parse(fault)? })
    }

    fn expected() -> String {
        "after `next` comes an opcode of two hexadecimal digits, or `any`, and then a fault".to_owned()
    }
}

fn byte(text: &str) -> Option<u8> {
    (text.len() == 2).then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

fn codes(text: &str) -> Result<Attention, String> {
    let parsed =
        text.split_once('/').and_then(|(asc, ascq)| Some(Attention { asc: byte(asc)?, ascq: byte(ascq)? }));
    parsed.ok_or_else(|| format!("`{text}` is no additional sense code with its qualifier, such as 2a/09"))
}

impl CommandFault {
    fn parse(words: &[&str]) -> Result<Self, String> {
        let limit = |value: &str| if value == "forever" { Ok(None) } else { time(value).map(Some) };
        let state = super::schedule::access_state;
        Ok(match words {
            ["refused"] => Self::Refused,
            ["not-sent"] => Self::NotSent,
            ["lost"] => Self::Lost { lands: None },
            ["lost", value] => Self::Lost { lands: Some(time(value)?) },
            ["hang", value] => Self::Hang(limit(value)?),
            ["busy"] => Self::Busy,
            ["full"] => Self::TaskSetFull,
            ["attention", value] => Self::Attention(codes(value)?),
            ["deferred", value] => Self::Deferred(codes(value)?),
            ["nexus-lost"] => Self::NexusLost,
            ["access", value] => Self::Access(state(value)?),
            ["answer-lost"] => Self::AnswerLost,
            ["answer-hang", value] => Self::AnswerHang(limit(value)?),
            ["nexus-lost-after"] => Self::NexusLostAfter,
            ["access-after", value] => Self::AccessAfter(state(value)?),
            _ => return Err(Self::expected()),
        })
    }

    fn expected() -> String {
        "a fault of a command is one of refused, not-sent, lost [TIME], hang TIME|forever, busy, full, attention ASC/ASCQ, \
         deferred ASC/ASCQ, nexus-lost, access STATE, answer-lost, answer-hang TIME|forever, nexus-lost-after, \
         access-after STATE"
            .to_owned()
    }
}

impl fmt::Display for CommandFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = |time: &Option<Duration>| time.map_or_else(|| "forever".to_owned(), exact_duration);
        match self {
            Self::Refused => f.write_str("refused"),
            Self::NotSent => f.write_str("not-sent"),
            Self::Lost { lands: None } => f.write_str("lost"),
            Self::Lost { lands: Some(time) } => write!(f, "lost {}", exact_duration(*time)),
            Self::Hang(time) => write!(f, "hang {}", limit(time)),
            Self::Busy => f.write_str("busy"),
            Self::TaskSetFull => f.write_str("full"),
            Self::Attention(of) => write!(f, "attention {:02x}/{:02x}", of.asc, of.ascq),
            Self::Deferred(of) => write!(f, "deferred {:02x}/{:02x}", of.asc, of.ascq),
            Self::NexusLost => f.write_str("nexus-lost"),
            Self::Access(state) => write!(f, "access {state}"),
            Self::AnswerLost => f.write_str("answer-lost"),
            Self::AnswerHang(time) => write!(f, "answer-hang {}", limit(time)),
            Self::NexusLostAfter => f.write_str("nexus-lost-after"),
            Self::AccessAfter(state) => write!(f, "access-after {state}"),
        }
    }
}

impl fmt::Display for ArmedFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.opcode {
            Some(opcode) => write!(f, "{opcode:02x} {}", self.fault),
            None => write!(f, "any {}", self.fault),
        }
    }
}
