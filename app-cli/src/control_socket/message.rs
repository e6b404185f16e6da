//! What goes over the socket: one JSON object a line, each way.
//!
//! Keeps true: a field keeps its name and meaning within one [`VERSION`]; an unknown field is no mistake. Not here: the
//! socket.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::command::{CommandWish, OutcomeText, ReservationText, ReservationWish};
use super::plan::{DrillText, DrillWish, PlanText};

/// Of requests and replies.
pub const VERSION: u32 = 1;

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Wish {
    /// The devices as they stand, or one of them.
    Show {
        /// Its id.
        device: Option<String>,
    },
    /// All devices as Prometheus text.
    Prometheus,
    /// Takes a path out of use.
    Fail {
        /// The device's id.
        device: String,
        /// The path's place.
        path: usize,
    },
    /// Puts a path into use.
    Reinstate {
        /// The device's id.
        device: String,
        /// The path's place.
        path: usize,
    },
    /// Chooses among the paths in another way.
    Policy {
        /// The device's id.
        device: String,
        /// As a configuration writes it.
        policy: String,
    },
    /// Uses the paths of this priority.
    Group {
        /// The device's id.
        device: String,
        /// The priority.
        priority: u16,
    },
    /// Begins or ends to keep decisions.
    Explain {
        /// The device's id.
        device: String,
        /// Whether they are kept.
        on: bool,
    },
    /// The newest decisions that were kept.
    Decisions {
        /// The device's id.
        device: String,
        /// How many at most.
        most: usize,
    },
    /// How long the worst case of each fault takes, for all devices or one of them.
    Plan {
        /// Its id.
        device: Option<String>,
        /// What a path takes at most, in seconds; without it, the longest that was measured.
        service_time: Option<f64>,
    },
    /// Lets a path fail on purpose for a time.
    Drill(DrillWish),
    /// What the drill that goes on has shown, or the last one.
    DrillReport {
        /// The device's id.
        device: String,
        /// Whether the requests are wanted one by one.
        samples: bool,
    },
    /// Changes persistent reservations of all paths together.
    Reserve(ReservationWish),
    /// Sends a control command over one of the paths.
    Send(CommandWish),
}

impl Wish {
    /// How long the process itself may take for it, beyond the time that any question takes.
    pub(super) fn patience(&self) -> Duration {
        match self {
            Self::Reserve(wish) => wish.patience(),
            Self::Send(wish) => wish.patience(),
            _ => Duration::ZERO,
        }
    }
}

/// A wish on its way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) version: u32,
    #[serde(flatten)]
    pub(super) wish: Wish,
}

/// The part that every version has.
#[derive(Deserialize)]
pub(super) struct Versioned {
    pub(super) version: u32,
}

/// What a process says: who it is, and one of the others, or nothing where all that matters is that it was done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`].
    pub version: u32,
    /// Its lane.
    pub lane: u16,
    /// Where several hosts were asked, its host; the asker knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// `serve` or `command`.
    pub process: String,
    /// Its number.
    pub pid: u32,
    /// To [`Wish::Show`]: see `multipath::report::Snapshot`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<Value>>,
    /// To [`Wish::Prometheus`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// To [`Wish::Decisions`], oldest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decisions: Option<Vec<DecisionText>>,
    /// To [`Wish::Decisions`]: whether more are kept from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_kept: Option<bool>,
    /// To [`Wish::Reserve`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservation: Option<ReservationText>,
    /// To [`Wish::Send`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OutcomeText>,
    /// To [`Wish::Plan`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plans: Option<Vec<PlanText>>,
    /// To [`Wish::DrillReport`]; not there if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillText>,
    /// Why it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A decision about a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DecisionText {
    /// When, in seconds on the process's clock.
    pub at: f64,
    /// The number of the request.
    pub io: u64,
    /// What, as a sentence that begins with both.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_both_ways() {
        for wish in [
            Wish::Show { device: None },
            Wish::Prometheus,
            Wish::Fail { device: "disk0".into(), path: 1 },
            Wish::Policy { device: "disk0".into(), policy: "weighted:3,1".into() },
            Wish::Explain { device: "disk0".into(), on: true },
            Wish::Plan { device: None, service_time: Some(0.25) },
            Wish::Drill(DrillWish { device: "disk0".into(), fault: "hang".into(), ..DrillWish::default() }),
            Wish::DrillReport { device: "disk0".into(), samples: true },
        ] {
            let text = serde_json::to_string(&Request { version: VERSION, wish: wish.clone() }).unwrap();
            let request: Request = serde_json::from_str(&text).unwrap();
            assert_eq!((request.version, request.wish), (VERSION, wish), "{text}");
        }
        let text = r#"{"version":1,"command":"group","device":"d","priority":70000}"#;
        assert!(serde_json::from_str::<Request>(text).is_err());
    }
}
