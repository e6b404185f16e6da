//! How a link behaves, be it that of a port or that of one path: latency, rate, and what goes wrong how often.
//!
//! ```text
//! latency 200us   jitter 50us   grey 0.01:100ms   rate 100MiB   queue 32
//! error 0.001     busy 0.01     full 0.01         late 0.01:5s
//! ```
//!
//! Keeps true: what prints parses back. Not here: what the link does with it (`link`, `core`).

use std::time::Duration;

use crate::path_address::{exact_byte_size, exact_duration, parse_byte_size, parse_duration};

/// Something that happens now and then and then takes its time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rare {
    /// How often, from 0 to 1 per request.
    pub probability: f64,
    /// How long.
    pub time: Duration,
}

/// How a link behaves. The default is a link without latency, limit or fault.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Conditions {
    /// What every request takes.
    pub latency: Duration,
    /// Added to it, evenly from zero to this.
    pub jitter: Duration,
    /// A few requests take this much longer: a path that is alive and bad.
    pub grey: Rare,
    /// The most bytes per second.
    pub rate: Option<u64>,
    /// Probability of a transport error (EIO); a write lands all the same half of the time.
    pub error: f64,
    /// Probability of BUSY.
    pub busy: f64,
    /// Probability of TASK SET FULL.
    pub full: f64,
    /// A few writes are held in the port this long before they land.
    pub late: Rare,
    /// Commands that a port takes at once before it says TASK SET FULL; has no effect on a path.
    pub queue: Option<u32>,
}

/// One of the [`Conditions`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition {
    /// [`Conditions::latency`].
    Latency(Duration),
    /// [`Conditions::jitter`].
    Jitter(Duration),
    /// [`Conditions::grey`].
    Grey(Rare),
    /// [`Conditions::rate`].
    Rate(Option<u64>),
    /// [`Conditions::error`].
    Error(f64),
    /// [`Conditions::busy`].
    Busy(f64),
    /// [`Conditions::full`].
    Full(f64),
    /// [`Conditions::late`].
    Late(Rare),
    /// [`Conditions::queue`].
    Queue(Option<u32>),
}

impl Condition {
    /// The words that [`Condition::parse`] knows.
    pub(super) const WORDS: &'static str = "latency, jitter, grey, rate, error, busy, full, late, queue";

    /// Reads one condition; `Ok(None)` where the word is none.
    ///
    /// # Errors
    /// What the value should have been.
    pub(super) fn parse(word: &str, value: &str) -> Result<Option<Self>, String> {
        Ok(Some(match word {
            "latency" => Self::Latency(time(value)?),
            "jitter" => Self::Jitter(time(value)?),
            "grey" => Self::Grey(rare(value)?),
            "rate" => Self::Rate(rate(value)?),
            "error" => Self::Error(probability(value)?),
            "busy" => Self::Busy(probability(value)?),
            "full" => Self::Full(probability(value)?),
            "late" => Self::Late(rare(value)?),
            "queue" if value == "none" => Self::Queue(None),
            "queue" => Self::Queue(Some(positive(value)?)),
            _ => return Ok(None),
        }))
    }

    /// The word and the value, as [`Condition::parse`] reads them.
    pub(super) fn text(&self) -> (&'static str, String) {
        match self {
            Self::Latency(time) => ("latency", exact_duration(*time)),
            Self::Jitter(time) => ("jitter", exact_duration(*time)),
            Self::Grey(rare) => ("grey", rare_text(rare)),
            Self::Rate(rate) => ("rate", rate.map_or_else(|| "none".to_owned(), exact_byte_size)),
            Self::Error(probability) => ("error", probability.to_string()),
            Self::Busy(probability) => ("busy", probability.to_string()),
            Self::Full(probability) => ("full", probability.to_string()),
            Self::Late(rare) => ("late", rare_text(rare)),
            Self::Queue(limit) => {
                ("queue", limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string()))
            }
        }
    }
}

impl Conditions {
    /// Changes one of them.
    pub fn set(&mut self, condition: Condition) {
        match condition {
            Condition::Latency(time) => self.latency = time,
            Condition::Jitter(time) => self.jitter = time,
            Condition::Grey(rare) => self.grey = rare,
            Condition::Rate(rate) => self.rate = rate,
            Condition::Error(probability) => self.error = probability,
            Condition::Busy(probability) => self.busy = probability,
            Condition::Full(probability) => self.full = probability,
            Condition::Late(rare) => self.late = rare,
            Condition::Queue(limit) => self.queue = limit,
        }
    }

    /// Those that differ from the default.
    pub(super) fn unusual(&self) -> Vec<Condition> {
        let mut usual = Self::default();
        let all = [
            Condition::Latency(self.latency),
            Condition::Jitter(self.jitter),
            Condition::Grey(self.grey),
            Condition::Rate(self.rate),
            Condition::Error(self.error),
            Condition::Busy(self.busy),
            Condition::Full(self.full),
            Condition::Late(self.late),
            Condition::Queue(self.queue),
        ];
        let differs = |condition: &Condition| {
            let before = usual;
            usual.set(*condition);
            usual != before
        };
        all.into_iter().filter(differs).collect()
    }
}

pub(super) fn time(value: &str) -> Result<Duration, String> {
    parse_duration(value).map_err(|error| error.to_string())
}

pub(super) fn size(value: &str) -> Result<u64, String> {
    parse_byte_size(value).map_err(|error| error.to_string())
}

pub(super) fn probability(value: &str) -> Result<f64, String> {
    let parsed = value.parse::<f64>().ok().filter(|chance| (0.0..=1.0).contains(chance));
    // `+ 0.0` makes a plain zero of `-0`.
    parsed.map(|chance| chance + 0.0).ok_or_else(|| format!("`{value}` is not a number from 0 to 1"))
}

pub(super) fn positive(value: &str) -> Result<u32, String> {
    let parsed = value.parse::<u32>().ok().filter(|number| *number > 0);
    parsed.ok_or_else(|| format!("`{value}` is not a whole number from 1 on"))
}

pub(super) fn rate(value: &str) -> Result<Option<u64>, String> {
    if value == "none" {
        return Ok(None);
    }
    match size(value)? {
        0 => Err("a rate of 0: write at least 1, or none for no limit".to_owned()),
        bytes => Ok(Some(bytes)),
    }
}

fn rare(value: &str) -> Result<Rare, String> {
    let (chance, after) = value
        .split_once(':')
        .ok_or_else(|| format!("`{value}` is not a probability and a time, such as 0.01:100ms"))?;
    Ok(Rare { probability: probability(chance)?, time: time(after)? })
}

fn rare_text(rare: &Rare) -> String {
    format!("{}:{}", rare.probability, exact_duration(rare.time))
}
