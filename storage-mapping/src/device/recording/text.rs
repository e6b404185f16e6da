//! The text form of a recording.
//!
//! Keeps true: what prints parses back; times of requests do not go back.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::{Record, RecordedOutcome, Recording, RequestKind};
use crate::block::request::{CopyFate, Effect, ErrorSource};
use crate::path_address::{exact_duration, parse_duration};

const HEADER: &str = "diskwire-recording 1";

/// A recording that was not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordingError {
    /// It is something else, or of another version.
    #[error("a recording begins with the line `{HEADER}`")]
    Header,
    /// A line that is none.
    #[error(
        "line {line}: `{text}` is not `TIME read|write|flush BYTES LATENCY done|never|failed …` or `left-out N`"
    )]
    Line {
        /// Its number, from 1 on.
        line: usize,
        /// The line.
        text: String,
    },
    /// Requests that are not in order.
    #[error("line {line}: the request is earlier than the one before: sort the lines by their first column")]
    Order {
        /// Its number, from 1 on.
        line: usize,
    },
}

const EFFECTS: [(Effect, &str); 3] =
    [(Effect::None, "none"), (Effect::Full, "full"), (Effect::Unknown, "unknown")];
const COPIES: [(CopyFate, &str); 2] = [(CopyFate::Dead, "dead"), (CopyFate::MayLand, "may-land")];
const KINDS: [(RequestKind, &str); 3] =
    [(RequestKind::Read, "read"), (RequestKind::Write, "write"), (RequestKind::Flush, "flush")];

fn of_word<T: Copy>(table: &[(T, &str)], word: &str) -> Option<T> {
    table.iter().find(|(_, known)| *known == word).map(|(value, _)| *value)
}

fn word_of<T: PartialEq>(table: &[(T, &'static str)], value: &T) -> &'static str {
    table.iter().find(|(known, _)| known == value).map_or("", |(_, word)| word)
}

fn error_text(error: &ErrorSource) -> String {
    match error {
        ErrorSource::Errno(code) => format!("errno:{code}"),
        ErrorSource::Short { expected, done } => format!("short:{expected}:{done}"),
        ErrorSource::Deadline => "deadline".to_owned(),
        ErrorSource::NoPath => "no-path".to_owned(),
        ErrorSource::ConnectionLost { sent } => format!("lost:{}", u8::from(*sent)),
        ErrorSource::Scsi { status, host_status, key, asc, ascq, deferred } => {
            format!("scsi:{status}:{host_status}:{key}:{asc}:{ascq}:{}", u8::from(*deferred))
        }
        ErrorSource::Nvme { sct, sc, dnr, crd } => format!("nvme:{sct}:{sc}:{}:{crd}", u8::from(*dnr)),
        ErrorSource::Nbd(code) => format!("nbd:{code}"),
    }
}

fn parse_error(text: &str) -> Option<ErrorSource> {
    let parts: Vec<_> = text.split(':').collect();
    let flag = |text: &str| match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    };
    Some(match parts[..] {
        ["errno", code] => ErrorSource::Errno(code.parse().ok()?),
        ["short", expected, done] => {
            ErrorSource::Short { expected: expected.parse().ok()?, done: done.parse().ok()? }
        }
        ["deadline"] => ErrorSource::Deadline,
        ["no-path"] => ErrorSource::NoPath,
        ["lost", sent] => ErrorSource::ConnectionLost { sent: flag(sent)? },
        ["scsi", status, host_status, key, asc, ascq, deferred] => ErrorSource::Scsi {
            status: status.parse().ok()?,
            host_status: host_status.parse().ok()?,
            key: key.parse().ok()?,
            asc: asc.parse().ok()?,
            ascq: ascq.parse().ok()?,
            deferred: flag(deferred)?,
        },
        ["nvme", sct, sc, dnr, crd] => ErrorSource::Nvme {
            sct: sct.parse().ok()?,
            sc: sc.parse().ok()?,
            dnr: flag(dnr)?,
            crd: crd.parse().ok()?,
        },
        ["nbd", code] => ErrorSource::Nbd(code.parse().ok()?),
        _ => return None,
    })
}

fn parse_record(words: &[&str]) -> Option<Record> {
    let [at, kind, bytes, latency, outcome @ ..] = words else { return None };
    let outcome = match outcome {
        ["done"] => RecordedOutcome::Done,
        ["never"] => RecordedOutcome::Never,
        ["failed", error, effect, copy] => RecordedOutcome::Failed {
            error: parse_error(error)?,
            effect: of_word(&EFFECTS, effect)?,
            copy: of_word(&COPIES, copy)?,
        },
        _ => return None,
    };
    Some(Record {
        at: parse_duration(at).ok()?,
        kind: of_word(&KINDS, kind)?,
        bytes: bytes.parse().ok()?,
        latency: parse_duration(latency).ok()?,
        outcome,
    })
}

impl FromStr for Recording {
    type Err = RecordingError;

    fn from_str(text: &str) -> Result<Self, RecordingError> {
        let mut lines = (1..).zip(text.lines());
        if lines.next().is_none_or(|(_, line)| line.trim_end() != HEADER) {
            return Err(RecordingError::Header);
        }
        let mut recording = Self::default();
        let mut last = Duration::ZERO;
        for (line, text) in lines {
            let words: Vec<_> = text.split_whitespace().collect();
            let wrong = || RecordingError::Line { line, text: text.trim().to_owned() };
            match words[..] {
                [] => {}
                ["left-out", count] => recording.left_out = count.parse().map_err(|_| wrong())?,
                _ => {
                    let record = parse_record(&words).ok_or_else(wrong)?;
                    if record.at < last {
                        return Err(RecordingError::Order { line });
                    }
                    last = record.at;
                    recording.records.push(record);
                }
            }
        }
        Ok(recording)
    }
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        for Record { at, kind, bytes, latency, outcome } in &self.records {
            let (at, kind, latency) = (exact_duration(*at), kind.word(), exact_duration(*latency));
            write!(f, "{at} {kind} {bytes} {latency} ")?;
            match outcome {
                RecordedOutcome::Done => writeln!(f, "done")?,
                RecordedOutcome::Never => writeln!(f, "never")?,
                RecordedOutcome::Failed { error, effect, copy } => {
                    let (effect, copy) = (word_of(&EFFECTS, effect), word_of(&COPIES, copy));
                    writeln!(f, "failed {} {effect} {copy}", error_text(error))?;
                }
            }
        }
        writeln!(f, "left-out {}", self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

    use super::*;

    fn errors() -> impl Strategy<Value = ErrorSource> {
        let scsi = any::<([u8; 5], bool)>().prop_map(|([status, host_status, key, asc, ascq], deferred)| {
            ErrorSource::Scsi { status, host_status, key, asc, ascq, deferred }
        });
        prop_oneof![
            any::<i32>().prop_map(ErrorSource::Errno),
            any::<(u32, u32)>().prop_map(|(expected, done)| ErrorSource::Short { expected, done }),
            Just(ErrorSource::Deadline),
            Just(ErrorSource::NoPath),
            any::<bool>().prop_map(|sent| ErrorSource::ConnectionLost { sent }),
            scsi,
            any::<(u8, u8, bool, u8)>().prop_map(|(sct, sc, dnr, crd)| ErrorSource::Nvme {
                sct,
                sc,
                dnr,
                crd
            }),
            any::<u32>().prop_map(ErrorSource::Nbd),
        ]
    }

    fn records() -> impl Strategy<Value = Record> {
        let outcome = prop_oneof![
            Just(RecordedOutcome::Done),
            Just(RecordedOutcome::Never),
            (errors(), 0..3_usize, 0..2_usize).prop_map(|(error, effect, copy)| {
                RecordedOutcome::Failed { error, effect: EFFECTS[effect].0, copy: COPIES[copy].0 }
            }),
        ];
        (any::<u64>(), 0..3_usize, any::<u64>(), any::<u64>(), outcome).prop_map(
            |(at, kind, bytes, latency, outcome)| Record {
                at: Duration::from_nanos(at),
                kind: KINDS[kind].0,
                bytes,
                latency: Duration::from_nanos(latency),
                outcome,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(
            mut records in proptest::collection::vec(records(), 0..20),
            left_out in any::<u64>(),
        ) {
            records.sort_by_key(|record| record.at);
            let recording = Recording { records, left_out };
            assert_eq!(recording.to_string().parse(), Ok(recording));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*", line in "[0-9]us (read|write) [0-9] [0-9]us failed .*") {
            drop(text.parse::<Recording>());
            drop(format!("{HEADER}\n{line}").parse::<Recording>());
        }
    }

    #[test]
    fn errors_name_the_line() {
        let parse = |text: &str| text.parse::<Recording>().unwrap_err();
        assert_eq!(parse(""), RecordingError::Header);
        assert_eq!(parse("0 read 1 0 done"), RecordingError::Header);
        assert!(matches!(parse(&format!("{HEADER}\n0 read 1 0 gone")), RecordingError::Line { line: 2, .. }));
        let order = format!("{HEADER}\n2ms read 1 0 done\n1ms read 1 0 done");
        assert_eq!(parse(&order), RecordingError::Order { line: 3 });
    }
}
