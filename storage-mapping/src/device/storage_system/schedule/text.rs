//! The text form of a schedule: one line for each action.
//!
//! Keeps true: what prints parses back; an error names the line and what would be right.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::super::access_state::AccessState;
use super::super::command_fault::ArmedFault;
use super::super::conditions::{Condition, positive, probability, rate, time};
use super::{Action, DiskChange, FLAP_MIN, LinkChange, PathName, Schedule, Scheduled};
use crate::path_address::{exact_byte_size, exact_duration};

/// A line that was not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: `{text}`: {problem}")]
pub struct TextError {
    /// Its number, from 1 on.
    pub line: usize,
    /// The line.
    pub text: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// Runs `read` over the words of every line that says something.
pub(in super::super) fn lines_of(
    text: &str,
    mut read: impl FnMut(&[&str]) -> Result<(), String>,
) -> Result<(), TextError> {
    for (line, text) in (1..).zip(text.lines()) {
        let said = text.split('#').next().unwrap_or_default();
        let words: Vec<_> = said.split_whitespace().collect();
        if !words.is_empty() {
            read(&words).map_err(|problem| TextError { line, text: text.trim().to_owned(), problem })?;
        }
    }
    Ok(())
}

/// A name that no text form mistakes for something else.
pub(in super::super) fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
    if !name.is_empty() && name.chars().all(fits) {
        return Ok(());
    }
    Err(format!("`{name}` is no name: use letters, digits, and . _ - :"))
}

fn name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned())
}

impl Scheduled {
    /// Reads `TIME ACTION…`.
    pub(in super::super) fn parse(words: &[&str]) -> Result<Self, String> {
        let [at, action @ ..] = words else { return Err("a time and an action are missing".to_owned()) };
        Ok(Self { at: time(at)?, action: Action::parse(action)? })
    }
}

impl Action {
    fn parse(words: &[&str]) -> Result<Self, String> {
        match words {
            ["port", port, change @ ..] => {
                Ok(Self::Port { port: name(port)?, change: LinkChange::parse(change)? })
            }
            ["path", path, change @ ..] => {
                Ok(Self::Path { path: path.parse()?, change: LinkChange::parse(change)? })
            }
            ["disk", disk, word, value] => {
                let change = match *word {
                    "latency" => DiskChange::Latency(time(value)?),
                    "rate" => DiskChange::Rate(rate(value)?),
                    "parallel" if *value == "none" => DiskChange::Parallel(None),
                    "parallel" => DiskChange::Parallel(Some(positive(value)?)),
                    _ => return Err(format!("`{word}` is none of latency, rate, parallel")),
                };
                Ok(Self::Disk { disk: name(disk)?, change })
            }
            ["access", place, state, after @ ..] => {
                let (group, volume) =
                    place.split_once('/').ok_or_else(|| format!("`{place}` is not GROUP/VOLUME"))?;
                let state = access_state(state)?;
                let after = match after {
                    [] => None,
                    ["after", value] => Some(time(value)?),
                    _ => return Err("after the state comes nothing, or `after TIME`".to_owned()),
                };
                Ok(Self::Access { group: name(group)?, volume: name(volume)?, state, after })
            }
            _ => Err("an action is `port NAME CHANGE`, `path INITIATOR/PORT/VOLUME CHANGE`, \
                 `access GROUP/VOLUME STATE [after TIME]` or `disk NAME latency|rate|parallel VALUE`"
                .to_owned()),
        }
    }
}

/// Reads an access state.
pub(in super::super) fn access_state(word: &str) -> Result<AccessState, String> {
    word.parse().map_err(|()| {
        format!("`{word}` is none of optimized, non-optimized, standby, unavailable, transitioning")
    })
}

impl LinkChange {
    fn parse(words: &[&str]) -> Result<Self, String> {
        let limit = |value: &str| if value == "forever" { Ok(None) } else { time(value).map(Some) };
        Ok(match words {
            ["hang", value] => Self::Hang(limit(value)?),
            ["resume"] => Self::Resume,
            ["down"] => Self::Down,
            ["dead"] => Self::Dead,
            ["up"] => Self::Up,
            ["clear"] => Self::Clear,
            ["next", armed @ ..] => Self::Next(ArmedFault::parse(armed)?),
            ["end-nexus"] => Self::EndNexus,
            ["flap", up, down, value] => {
                let (up, down) = (time(up)?, time(down)?);
                if up.min(down) < FLAP_MIN {
                    return Err(format!("a link flaps no faster than {}", exact_duration(FLAP_MIN)));
                }
                Self::Flap { up, down, time: limit(value)? }
            }
            ["reset", lands, delay] => Self::Reset { lands: probability(lands)?, delay: time(delay)? },
            [word, value] => match Condition::parse(word, value)? {
                Some(condition) => Self::Set(condition),
                None => return Err(unknown_change()),
            },
            _ => return Err(unknown_change()),
        })
    }
}

fn unknown_change() -> String {
    let conditions = Condition::WORDS;
    format!(
        "a change is one of {conditions} with a value, or `hang TIME|forever`, `resume`, `down`, `dead`, `up`, \
         `flap UP DOWN TIME|forever`, `reset PROBABILITY TIME`, `end-nexus`, `next OPCODE|any FAULT`, `clear`"
    )
}

impl FromStr for PathName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('/').map(name);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(initiator), Some(port), Some(volume), None) => {
                Ok(Self { initiator: initiator?, port: port?, volume: volume? })
            }
            _ => Err(format!("`{text}` is not INITIATOR/PORT/VOLUME")),
        }
    }
}

impl FromStr for Action {
    type Err = TextError;

    /// Reads one line of a schedule, without the time.
    fn from_str(text: &str) -> Result<Self, TextError> {
        let words: Vec<_> = text.split_whitespace().collect();
        Self::parse(&words).map_err(|problem| TextError { line: 1, text: text.to_owned(), problem })
    }
}

impl FromStr for Schedule {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let mut actions = Vec::new();
        lines_of(text, |words| {
            actions.push(Scheduled::parse(words)?);
            Ok(())
        })?;
        Ok(Self::new(actions))
    }
}

impl fmt::Display for PathName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.initiator, self.port, self.volume)
    }
}

impl fmt::Display for LinkChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = |time: &Option<Duration>| time.map_or_else(|| "forever".to_owned(), exact_duration);
        match self {
            Self::Set(condition) => {
                let (word, value) = condition.text();
                write!(f, "{word} {value}")
            }
            Self::Hang(time) => write!(f, "hang {}", limit(time)),
            Self::Resume => f.write_str("resume"),
            Self::Down => f.write_str("down"),
            Self::Dead => f.write_str("dead"),
            Self::Up => f.write_str("up"),
            Self::Flap { up, down, time } => {
                write!(f, "flap {} {} {}", exact_duration(*up), exact_duration(*down), limit(time))
            }
            Self::Reset { lands, delay } => write!(f, "reset {lands} {}", exact_duration(*delay)),
            Self::EndNexus => f.write_str("end-nexus"),
            Self::Next(armed) => write!(f, "next {armed}"),
            Self::Clear => f.write_str("clear"),
        }
    }
}

impl fmt::Display for DiskChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latency(time) => write!(f, "latency {}", exact_duration(*time)),
            Self::Parallel(None) => f.write_str("parallel none"),
            Self::Parallel(Some(count)) => write!(f, "parallel {count}"),
            Self::Rate(None) => f.write_str("rate none"),
            Self::Rate(Some(rate)) => write!(f, "rate {}", exact_byte_size(*rate)),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { port, change } => write!(f, "port {port} {change}"),
            Self::Path { path, change } => write!(f, "path {path} {change}"),
            Self::Access { group, volume, state, after } => {
                write!(f, "access {group}/{volume} {state}")?;
                after.map_or(Ok(()), |time| write!(f, " after {}", exact_duration(time)))
            }
            Self::Disk { disk, change } => write!(f, "disk {disk} {change}"),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.actions
            .iter()
            .try_for_each(|scheduled| writeln!(f, "{} {}", exact_duration(scheduled.at), scheduled.action))
    }
}
