//! Control commands as messages: what is asked of a process that has the paths, and what became of it.
//!
//! Keeps true: bytes travel as hexadecimal digits; a wish that is none is refused in words. Not here: what a command means
//! (`multipath::out_of_band`), how an answer looks (`command::ctl`).

use std::time::Duration;

use multipath::out_of_band::{
    CommandOutcome, CommandRequest, Conclusion, Mode, Record, ReservationOperation, ReservationOutcome,
    ReservationResult,
};
use serde::{Deserialize, Serialize};
use storage_mapping::control_port::{
    Cdb, CommandBytes, ControlCommand, ControlReply, TRANSFER_MAX_BYTES, Transfer,
};
use storage_mapping::scsi::reservations::ReservationType;
use storage_mapping::{CopyFate, PathIndex};
use volume::open::hex;

use crate::config::value::decode_hex;

/// The longest time that a caller may wait.
pub const PATIENCE_MAX: Duration = Duration::from_secs(600);

/// A SCSI command for a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CommandWish {
    /// The device's id.
    pub device: String,
    /// The path that is named, by its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<usize>,
    /// `exact`, `prefer`, `any` or `all`.
    pub mode: String,
    /// Whether nothing is to be sent.
    pub dry_run: bool,
    /// How long the caller waits, in seconds.
    pub patience: f64,
    /// The command descriptor block, in hexadecimal digits.
    pub cdb: String,
    /// It brings at most so many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_in: Option<usize>,
    /// It takes these bytes, in hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_out: Option<String>,
}

impl CommandWish {
    /// The wish for a command; `None` where it is not SCSI.
    #[must_use]
    pub fn of(device: &str, request: &CommandRequest) -> Option<Self> {
        let CommandBytes::Scsi(cdb) = request.command.bytes else { return None };
        let (data_in, data_out) = match &request.command.transfer {
            Transfer::None => (None, None),
            Transfer::In(most) => (Some(*most), None),
            Transfer::Out(data) => (None, Some(hex(data))),
        };
        Some(Self {
            device: device.to_owned(),
            path: request.path.map(|path| path.0),
            mode: request.mode.word().to_owned(),
            dry_run: request.is_dry_run,
            patience: request.patience.as_secs_f64(),
            cdb: hex(cdb.bytes()),
            data_in,
            data_out,
        })
    }

    /// How long the caller waits; what is no such time counts as none.
    pub(super) fn patience(&self) -> Duration {
        patience(self.patience)
    }

    /// What the router is asked.
    ///
    /// # Errors
    /// In words, what is wrong with it.
    pub fn request(&self) -> Result<CommandRequest, String> {
        let cdb = from_hex(&self.cdb).ok_or("`cdb` is no hexadecimal digits")?;
        let cdb = Cdb::new(&cdb).map_err(|error| error.to_string())?;
        let transfer = match (self.data_in, &self.data_out) {
            (None, None) => Transfer::None,
            (Some(most), None) if most <= TRANSFER_MAX_BYTES => Transfer::In(most),
            (Some(_), None) => return Err(format!("a command brings at most {TRANSFER_MAX_BYTES} bytes")),
            (None, Some(data)) => Transfer::Out(from_hex(data).ok_or("`data_out` is no hexadecimal digits")?),
            (Some(_), Some(_)) => return Err("a command brings data or takes data, not both".to_owned()),
        };
        let mode = Mode::ALL.into_iter().find(|mode| mode.word() == self.mode);
        let mode = mode.ok_or("`mode` is none of exact, prefer, any, all")?;
        let patience = Duration::try_from_secs_f64(self.patience).ok().filter(|time| *time <= PATIENCE_MAX);
        let patience = patience.ok_or("`patience` is no time of at most 600 s")?;
        let command = ControlCommand { bytes: CommandBytes::Scsi(cdb), transfer };
        let request = CommandRequest::new(command, self.path.map(PathIndex), patience).with_mode(mode);
        Ok(CommandRequest { is_dry_run: self.dry_run, ..request })
    }
}

/// Persistent reservations of all paths of a device, changed together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReservationWish {
    /// The device's id.
    pub device: String,
    /// `register`, `unregister`, `reserve`, `release`, `preempt`, `preempt-abort` or `clear`.
    pub operation: String,
    /// Of `register`: the key of path 0; path *n* gets the *n*th after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<u64>,
    /// Of `preempt` and `preempt-abort`: the key that is taken away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub victim: Option<u64>,
    /// The type of the reservation, by its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<u8>,
    /// How long the caller waits, in seconds.
    pub patience: f64,
}

impl ReservationWish {
    /// What the device is asked, and how long it may take.
    ///
    /// # Errors
    /// In words, what is wrong with it.
    pub fn operation(&self) -> Result<(ReservationOperation, Duration), String> {
        let kind = || {
            let number = self.kind.ok_or("a type is missing")?;
            match ReservationType::of(number) {
                ReservationType::Other(_) => Err(format!("{number} is no type of a reservation")),
                kind => Ok(kind),
            }
        };
        let preempt = |aborts| {
            let victim = self.victim.ok_or("the key that is taken away is missing")?;
            Ok::<_, String>(ReservationOperation::Preempt { victim, kind: kind()?, aborts })
        };
        let operation = match self.operation.as_str() {
            "register" => match self.key {
                Some(0) | None => return Err("a key is missing, and it is not 0".to_owned()),
                Some(base) => ReservationOperation::Register { base },
            },
            "unregister" => ReservationOperation::Unregister,
            "reserve" => ReservationOperation::Reserve { kind: kind()? },
            "release" => ReservationOperation::Release,
            "preempt" => preempt(false)?,
            "preempt-abort" => preempt(true)?,
            "clear" => ReservationOperation::Clear,
            _ => return Err("`operation` is none that is known".to_owned()),
        };
        Ok((operation, self.patience()))
    }

    /// How long the caller waits; what is no such time counts as none.
    pub(super) fn patience(&self) -> Duration {
        patience(self.patience)
    }
}

fn patience(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default().min(PATIENCE_MAX)
}

/// What became of a change of reservations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReservationText {
    /// `done`, `conflict`, `no path` or `unknown`.
    pub result: String,
    /// The key that holds the reservation, where that was read and is in the way.
    pub holder: Option<u64>,
    /// What was sent, and what came of it, in order.
    pub steps: Vec<ConclusionText>,
    /// Paths that are down, and get what they lack when they return.
    pub later: Vec<usize>,
    /// What would let its commands out, where the kernel of the host did not.
    #[serde(default)]
    pub remedy: Option<String>,
}

impl From<&ReservationOutcome> for ReservationText {
    fn from(outcome: &ReservationOutcome) -> Self {
        let (result, holder) = match outcome.result {
            ReservationResult::Done => ("done", None),
            ReservationResult::Conflict { holder } => ("conflict", holder),
            ReservationResult::NoPath => ("no path", None),
            ReservationResult::Unknown => ("unknown", None),
        };
        let step = |(path, conclusion): &(PathIndex, Conclusion)| ConclusionText {
            path: Some(path.0),
            ..ConclusionText::from(conclusion)
        };
        Self {
            result: result.to_owned(),
            holder,
            steps: outcome.steps.iter().map(step).collect(),
            later: outcome.later.iter().map(|path| path.0).collect(),
            remedy: outcome.remedy.clone(),
        }
    }
}

/// What became of a command.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OutcomeText {
    /// Whether it was done everywhere it was to be done.
    pub is_done: bool,
    /// One, or one for each nexus.
    pub conclusions: Vec<ConclusionText>,
    /// Why it went as it did.
    pub decision: DecisionOfCommand,
}

/// What became of it on one path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConclusionText {
    /// The path of the answer, or the last that was tried.
    pub path: Option<usize>,
    /// What the target answered.
    pub reply: Option<ReplyText>,
    /// `executed`, `not executed`, `refused` or `unknown`.
    pub certainty: String,
    /// Whether it may still be executed.
    pub may_land: bool,
}

/// What a target answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "words", rename_all = "lowercase")]
pub enum ReplyText {
    /// A SCSI target.
    Scsi {
        /// Status byte.
        status: u8,
        /// Sense data, in hexadecimal digits.
        sense: String,
        /// Data, in hexadecimal digits.
        data: String,
    },
    /// An NVMe controller.
    Nvme {
        /// Status code type.
        sct: u8,
        /// Status code.
        sc: u8,
        /// Do not retry.
        dnr: bool,
        /// Dwords 0 and 1 of the completion.
        result: u64,
        /// Data, in hexadecimal digits.
        data: String,
    },
}

/// Why a command went over the path that it went over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DecisionOfCommand {
    /// The name of its row in the command table.
    pub command: String,
    /// Which paths give the same answer or effect.
    pub class: String,
    /// Whether it may be sent again when nobody knows whether it was executed.
    pub repeat: String,
    /// Why the row says so.
    pub reason: String,
    /// The mode.
    pub mode: String,
    /// The path that was named.
    pub named: Option<usize>,
    /// The path that was taken, or would be.
    pub chosen: Option<usize>,
    /// Why not the named one.
    pub why_not_named: Option<String>,
    /// The others, and why not.
    pub rejected: Vec<(usize, String)>,
    /// What was sent, in order.
    pub attempts: Vec<String>,
    /// What changes for the caller.
    pub remarks: Vec<String>,
    /// What tells whether it was executed, where that is open.
    pub advice: Option<String>,
    /// What would let it out, where the kernel of the host did not.
    #[serde(default)]
    pub remedy: Option<String>,
    /// All of it, for people.
    pub text: String,
}

impl From<&CommandOutcome> for OutcomeText {
    fn from(outcome: &CommandOutcome) -> Self {
        Self {
            is_done: outcome.is_done(),
            conclusions: outcome.conclusions.iter().map(ConclusionText::from).collect(),
            decision: DecisionOfCommand::from(&outcome.record),
        }
    }
}

impl From<&Conclusion> for ConclusionText {
    fn from(conclusion: &Conclusion) -> Self {
        Self {
            path: conclusion.path.map(|path| path.0),
            reply: conclusion.reply.as_ref().map(ReplyText::from),
            certainty: conclusion.certainty.word().to_owned(),
            may_land: conclusion.copy == CopyFate::MayLand,
        }
    }
}

impl From<&ControlReply> for ReplyText {
    fn from(reply: &ControlReply) -> Self {
        match reply {
            ControlReply::Scsi { status, sense, data } => {
                Self::Scsi { status: *status, sense: hex(sense), data: hex(data) }
            }
            ControlReply::Nvme { sct, sc, dnr, result, data, .. } => {
                Self::Nvme { sct: *sct, sc: *sc, dnr: *dnr, result: *result, data: hex(data) }
            }
        }
    }
}

impl From<&Record> for DecisionOfCommand {
    fn from(record: &Record) -> Self {
        let place = |path: PathIndex| path.0;
        Self {
            command: record.name.clone(),
            class: record.class.word().to_owned(),
            repeat: record.repeat.word().to_owned(),
            reason: record.reason.to_owned(),
            mode: record.mode.word().to_owned(),
            named: record.named.map(place),
            chosen: record.chosen.map(place),
            why_not_named: record.why_not_named.map(|why| why.to_string()),
            rejected: record.rejected.iter().map(|(path, why)| (path.0, why.to_string())).collect(),
            attempts: record.attempts.iter().map(ToString::to_string).collect(),
            remarks: record.remarks.iter().map(ToString::to_string).collect(),
            advice: record.advice.map(str::to_owned),
            remedy: record.remedy(),
            text: record.to_string(),
        }
    }
}

/// Hexadecimal digits as bytes; `None` where they are none, or not in pairs.
#[must_use]
pub fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; digits.len() / 2];
    decode_hex(digits.as_bytes(), &mut bytes).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn wish() -> CommandWish {
        let mode = "prefer".to_owned();
        let cdb = "120000006000".to_owned();
        let device = "disk0".to_owned();
        CommandWish {
            device,
            path: Some(1),
            mode,
            patience: 2.5,
            cdb,
            data_in: Some(96),
            ..CommandWish::default()
        }
    }

    #[test]
    fn a_wish_is_a_request_and_back() {
        let request = wish().request().unwrap();
        assert_eq!(request.patience, Duration::from_millis(2500));
        assert_eq!(CommandWish::of("disk0", &request), Some(wish()));
        let out = CommandWish { data_in: None, data_out: Some("00ff".to_owned()), ..wish() };
        assert_eq!(out.request().unwrap().command.transfer, Transfer::Out(vec![0, 255]));
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for wrong in [
            CommandWish { cdb: "12".to_owned(), ..wish() },
            CommandWish { cdb: "1200000060zz".to_owned(), ..wish() },
            CommandWish { cdb: "12000000600".to_owned(), ..wish() },
            CommandWish { data_in: Some(1 << 30), ..wish() },
            CommandWish { data_out: Some("00".to_owned()), ..wish() },
            CommandWish { data_in: None, data_out: Some("0".to_owned()), ..wish() },
            CommandWish { mode: "best".to_owned(), ..wish() },
            CommandWish { patience: -1.0, ..wish() },
            CommandWish { patience: f64::NAN, ..wish() },
            CommandWish { patience: 1e9, ..wish() },
        ] {
            assert!(wrong.request().is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn digits_are_bytes_and_back(bytes in any::<Vec<u8>>()) {
            assert_eq!(from_hex(&hex(&bytes)), Some(bytes));
        }

        #[test]
        fn any_text_is_read(text in any::<String>()) {
            let _ = from_hex(&text);
        }
    }
}
