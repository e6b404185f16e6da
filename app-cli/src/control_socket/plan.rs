//! Predictions and drills on their way to the command line.
//!
//! Keeps true: times are seconds, points in time are on the clock of the process that says them; a field keeps its name
//! and meaning within one [`VERSION`](super::VERSION). Not here: what is predicted and measured (crate `multipath`).

use std::time::Duration;

use multipath::control::Command;
use multipath::multipath_device::{DrillReport, DrillSample, Measured};
use multipath::plan::{Plan, Prediction, Term};
use multipath::report::seconds;
use multipath::{DrillConfig, DrillFault, DrillStage};
use serde::{Deserialize, Serialize};
use storage_mapping::PathIndex;

/// The longest drill, from beginning to end.
pub const DRILL_MAX: Duration = Duration::from_secs(3600);

/// A drill that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DrillWish {
    /// The device's id.
    pub device: String,
    /// The path's place.
    pub path: usize,
    /// `hang` or `error`.
    pub fault: String,
    /// How long.
    pub seconds: f64,
    /// How long it is watched before.
    pub lead: f64,
    /// And afterwards.
    pub tail: f64,
    /// What a path takes at most, if that is said.
    pub service_time: Option<f64>,
    /// The process reads from the device meanwhile.
    pub load: bool,
}

impl DrillWish {
    /// The command that it is for a device.
    ///
    /// # Errors
    /// In words, where it makes no sense.
    pub fn command(&self) -> Result<Command, String> {
        let fault = match self.fault.as_str() {
            "hang" => DrillFault::Hang,
            "error" => DrillFault::Error,
            other => {
                return Err(format!(
                    "there is no fault `{}`; write hang or error",
                    crate::escape::name(other)
                ));
            }
        };
        let time = |seconds| {
            let time = Duration::try_from_secs_f64(seconds).ok();
            time.filter(|time| *time <= DRILL_MAX).ok_or_else(|| "a drill lasts at most 1h".to_owned())
        };
        Ok(Command::Drill(DrillConfig {
            path: PathIndex(self.path),
            fault,
            duration: time(self.seconds)?,
            lead: time(self.lead)?,
            tail: time(self.tail)?,
            service_time: self.service_time.map(time).transpose()?,
            load: self.load,
        }))
    }
}

/// The worst cases of a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanText {
    /// Its id.
    pub device: String,
    /// Its paths.
    pub paths: u32,
    /// What one of them takes at most.
    pub service_time: f64,
    /// Where that comes from: `given`, `measured` or `assumed`.
    pub basis: String,
    /// For each kind of fault.
    pub predictions: Vec<PredictionText>,
}

/// A worst case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PredictionText {
    /// The kind of fault.
    pub fault: String,
    /// The longest time; without it there is no bound.
    pub worst: Option<f64>,
    /// What ends then.
    pub until: String,
    /// What the time is the sum of.
    pub terms: Vec<TermText>,
}

/// An addend of a worst case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TermText {
    /// What takes the time.
    pub what: String,
    /// How long.
    pub time: f64,
}

impl PlanText {
    /// The plan of a device.
    #[must_use]
    pub fn new(device: &str, plan: &Plan) -> Self {
        let term = |term: &Term| TermText { what: term.what.to_owned(), time: term.time.as_secs_f64() };
        let prediction = |found: &Prediction| PredictionText {
            fault: found.fault.word().to_owned(),
            worst: found.worst.map(|worst| worst.as_secs_f64()),
            until: found.what.to_owned(),
            terms: found.terms.iter().map(term).collect(),
        };
        Self {
            device: device.to_owned(),
            paths: plan.paths,
            service_time: plan.service_time.as_secs_f64(),
            basis: plan.basis.word().to_owned(),
            predictions: plan.predictions.iter().map(prediction).collect(),
        }
    }
}

/// What a drill has shown so far, or the last one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DrillText {
    /// The path's place.
    pub path: usize,
    /// `hang` or `error`.
    pub fault: String,
    /// `lead`, `fault`, `tail` or `over`.
    pub stage: String,
    /// When it began.
    pub began: f64,
    /// When the fault began, or will.
    pub fault_begins: f64,
    /// When the fault ended, or will.
    pub fault_ends: f64,
    /// When all is over.
    pub over: f64,
    /// No other path was left, and so it ended early.
    pub was_cut: bool,
    /// Reads and writes that met the fault.
    pub requests: MeasuredText,
    /// Flushes that met it.
    pub flushes: MeasuredText,
    /// How many of both failed.
    pub failed: u64,
    /// Requests in all.
    pub all: u64,
    /// Requests met the fault, none of them failed, and none took longer than predicted.
    pub is_as_predicted: bool,
    /// The requests, oldest first, where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<SampleText>,
}

/// What requests of one sort showed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeasuredText {
    /// How many.
    pub count: u64,
    /// The longest time of one.
    pub worst: f64,
    /// The longest time that was predicted when the fault began.
    pub predicted: Option<f64>,
}

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SampleText {
    /// When it ended.
    pub ended: f64,
    /// From submission to end.
    pub took: f64,
    /// The path that it went over last.
    pub path: Option<usize>,
    /// `read`, `write` or `flush`.
    pub kind: String,
    /// Whether it was done.
    pub is_done: bool,
    /// Whether it met the fault.
    pub met_fault: bool,
}

impl DrillText {
    /// What a report says.
    #[must_use]
    pub fn new(report: &DrillReport, samples: &[DrillSample]) -> Self {
        let measured = |measured: &Measured| MeasuredText {
            count: measured.requests,
            worst: measured.worst.as_secs_f64(),
            predicted: measured.predicted.map(|time| time.as_secs_f64()),
        };
        let sample = |sample: &DrillSample| SampleText {
            ended: seconds(sample.ended),
            took: sample.took.as_secs_f64(),
            path: sample.path.map(|path| path.0),
            kind: sample.kind.word().to_owned(),
            is_done: sample.is_done,
            met_fault: sample.met_fault,
        };
        Self {
            path: report.config.path.0,
            fault: match report.config.fault {
                DrillFault::Error => "error",
                DrillFault::Hang => "hang",
            }
            .to_owned(),
            stage: match report.stage {
                DrillStage::Lead => "lead",
                DrillStage::Fault => "fault",
                DrillStage::Tail => "tail",
                DrillStage::Over => "over",
            }
            .to_owned(),
            began: seconds(report.began),
            fault_begins: seconds(report.fault_begins),
            fault_ends: seconds(report.fault_ends),
            over: seconds(report.over),
            was_cut: report.was_cut,
            requests: measured(&report.requests),
            flushes: measured(&report.flushes),
            failed: report.failed,
            all: report.all,
            is_as_predicted: report.is_as_predicted(),
            samples: samples.iter().map(sample).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_that_makes_no_sense_is_refused() {
        let wish = DrillWish { fault: "hang".to_owned(), seconds: 5.0, ..DrillWish::default() };
        let Command::Drill(config) = wish.command().unwrap() else { panic!("no drill") };
        assert_eq!((config.fault, config.duration), (DrillFault::Hang, Duration::from_secs(5)));
        for seconds in [-1.0, f64::NAN, f64::INFINITY, 3601.0] {
            assert!(DrillWish { seconds, ..wish.clone() }.command().is_err(), "{seconds}");
            assert!(
                DrillWish { service_time: Some(seconds), ..wish.clone() }.command().is_err(),
                "{seconds}"
            );
        }
        let error = DrillWish { fault: "fire\x1b".to_owned(), ..wish }.command().unwrap_err();
        assert_eq!(error, "there is no fault `fire\\x1b`; write hang or error");
    }
}
