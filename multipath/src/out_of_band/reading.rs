//! What an answer, or none, says about a control command.
//!
//! Keeps true: *not executed* is certain only of what never left this host; a refusal of the target is its word; a GOOD is
//! an execution, and whether it had an effect is asked elsewhere (`verify`). Not here: what follows (`router`).

use storage_mapping::control_port::{ControlCompletion, ControlReply};
use storage_mapping::{CopyFate, Effect, ErrorSource, IoError, nvme, scsi};

use super::record::Certainty;
use crate::error_class::{Classified, ErrorClass, IoKind, RequestFacts, Sent, classify};

/// Sense key and codes of a unit attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Event {
    /// Additional sense code.
    pub asc: u8,
    /// Its qualifier.
    pub ascq: u8,
}

/// The reading of a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// `Ok`: the target did it.
    pub outcome: Result<(), IoError>,
    /// What the error says, where there is one.
    pub classified: Option<Classified>,
    /// Was it executed?
    pub certainty: Certainty,
    /// Did the target act on it?
    pub effect: Effect,
    /// May it still be executed?
    pub copy: CopyFate,
    /// The unit attention that the target reported.
    pub attention: Option<Event>,
}

/// What is known of a command that left: its addresses were not checked.
const FACTS: RequestFacts = RequestFacts { kind: IoKind::Write, sent: Sent::Yes, address_checked: false };

/// What a reply says of the command that it answers.
///
/// # Errors
/// Its status, unless that is a success.
pub fn outcome(reply: &ControlReply) -> Result<(), IoError> {
    match reply {
        ControlReply::Scsi { status, sense, .. } => scsi::status::outcome(*status, sense),
        ControlReply::Nvme { sct, sc, dnr, crd, .. } => nvme::status::outcome(*sct, *sc, *dnr, *crd),
    }
}

/// Reads what came back.
#[must_use]
pub fn read(done: &ControlCompletion) -> Reading {
    match &done.outcome {
        Ok(reply) => read_reply(outcome(reply)),
        Err(error) => {
            let (effect, copy) = (done.effect, done.copy);
            let certainty = match effect {
                Effect::None if copy == CopyFate::Dead => Certainty::NotExecuted,
                _ => Certainty::Unknown,
            };
            let classified = Some(classify(error, &FACTS).with_report(effect, copy));
            Reading { outcome: Err(*error), classified, certainty, effect, copy, attention: None }
        }
    }
}

/// No answer came in time; `was_withdrawn`: the port gave the command back before its first byte.
#[must_use]
pub fn silence(was_withdrawn: bool) -> Reading {
    let error = IoError::from(ErrorSource::Deadline);
    let (effect, copy, certainty) = if was_withdrawn {
        (Effect::None, CopyFate::Dead, Certainty::NotExecuted)
    } else {
        (Effect::Unknown, CopyFate::MayLand, Certainty::Unknown)
    };
    let classified = Some(Classified { effect, copy, ..classify(&error, &FACTS) });
    Reading { outcome: Err(error), classified, certainty, effect, copy, attention: None }
}

fn read_reply(outcome: Result<(), IoError>) -> Reading {
    let copy = CopyFate::Dead;
    let Err(error) = outcome else {
        let effect = Effect::Full;
        return Reading {
            outcome,
            classified: None,
            certainty: Certainty::Executed,
            effect,
            copy,
            attention: None,
        };
    };
    let classified = classify(&error, &FACTS);
    let certainty = match classified.class {
        ErrorClass::Success => Certainty::Executed,
        ErrorClass::Busy
        | ErrorClass::Caller
        | ErrorClass::PathGhost
        | ErrorClass::PathTransition
        | ErrorClass::Reservation
        | ErrorClass::UnitAttention
        | ErrorClass::Reidentify => Certainty::Refused,
        ErrorClass::PathDead if matches!(error.source_code, ErrorSource::Scsi { .. }) => Certainty::Refused,
        _ if classified.effect == Effect::Full => Certainty::Executed,
        _ => Certainty::Unknown,
    };
    let attention = match error.source_code {
        ErrorSource::Scsi { key: 6, asc, ascq, deferred: false, .. } => Some(Event { asc, ascq }),
        _ => None,
    };
    let effect = classified.effect;
    // Success with a remark is a success.
    let outcome = if classified.class == ErrorClass::Success { Ok(()) } else { Err(error) };
    Reading { outcome, classified: Some(classified), certainty, effect, copy, attention }
}
