//! The keys of a device that say how its paths are used.
//!
//! ```text
//!   paths = ["block:/dev/sdb",
//!            { address = "block:/dev/sdc", priority = 10, fault_domain = 1 }]
//!   policy = "latency"          # round-robin, queue-length, service-time, weighted:3,1, request
//!   failback = "immediate"      # or "manual", or a time such as "30s"
//!   no_path = "60s"             # how long requests wait; or "queue" (for ever), "fail"
//!   attempt_timeout = "5s"      # then the path counts as hung
//!   quiesce_time = "30s"        # then a write that was given up on is assumed dead
//!   hedge = false               # a slow read is sent over a second path too
//!   leave_slow_paths = true     # a path that is slow for long is used only if no other is left
//! ```
//!
//! Keeps true: what is left out is as in [`FailoverConfig::default`], and a path that is a plain text has priority 0 and
//! no fault domain. Not here: what the numbers do (crate `multipath`).

use std::fmt;
use std::time::Duration;

use multipath::hedge::HedgeConfig;
use multipath::selector::SelectorKindError;
use multipath::slow_path::SlowPathConfig;
use multipath::{Failback, FailoverConfig, NoPathPolicy, SelectorKind};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use storage_mapping::parse_duration;
use toml::Spanned;

use super::ConfigError;
use super::source::Source;

/// The longest time that a key may say.
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// The shortest time-out: below, the clock of a busy machine makes paths hang.
const TIME_MIN: Duration = Duration::from_millis(1);

/// A path: its address, or a table with more.
pub(super) struct RawPath {
    pub(super) address: String,
    pub(super) priority: Option<Spanned<i64>>,
    pub(super) fault_domain: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPathTable {
    address: String,
    priority: Option<Spanned<i64>>,
    fault_domain: Option<Spanned<i64>>,
}

impl<'de> Deserialize<'de> for RawPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = RawPath;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path address like \"block:/dev/sdb\" (or a table with it as its `address`)")
            }

            fn visit_str<E>(self, address: &str) -> Result<RawPath, E> {
                Ok(RawPath { address: address.to_owned(), priority: None, fault_domain: None })
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<RawPath, A::Error> {
                let RawPathTable { address, priority, fault_domain } =
                    RawPathTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RawPath { address, priority, fault_domain })
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// The keys as they stand in the file.
pub(super) struct MultipathKeys {
    pub(super) policy: Option<Spanned<String>>,
    pub(super) failback: Option<Spanned<String>>,
    pub(super) no_path: Option<Spanned<String>>,
    pub(super) attempt_timeout: Option<Spanned<String>>,
    pub(super) quiesce_time: Option<Spanned<String>>,
    pub(super) hedge: Option<bool>,
    pub(super) leave_slow_paths: Option<bool>,
}

impl MultipathKeys {
    /// The way to choose among `paths` paths.
    pub(super) fn policy(&self, source: &Source<'_>, paths: usize) -> Result<SelectorKind, ConfigError> {
        let Some(text) = &self.policy else { return Ok(SelectorKind::default()) };
        let kind: SelectorKind = text.get_ref().parse().map_err(|error: SelectorKindError| {
            source
                .mistake(Some(text.span()), &format!("policy: {}", error.to_string().replacen(": ", "; ", 1)))
        })?;
        if let SelectorKind::ServiceTime(weights) | SelectorKind::Weighted(weights) = &kind
            && weights.given().len() > paths
        {
            let count = weights.given().len();
            let text_of =
                format!("policy: {count} weights for {paths} paths; give one for each path, in their order");
            return Err(source.mistake(Some(text.span()), &text_of));
        }
        Ok(kind)
    }

    /// What becomes of requests when paths fail.
    pub(super) fn failover(&self, source: &Source<'_>) -> Result<FailoverConfig, ConfigError> {
        let default = FailoverConfig::default();
        let failback = match self.failback.as_ref().map(|text| (text, text.get_ref().as_str())) {
            None => default.failback,
            Some((_, "immediate")) => Failback::Immediate,
            Some((_, "manual")) => Failback::Manual,
            Some((text, _)) => {
                Failback::After(time(source, text, "failback", "\"immediate\", \"manual\" or a time")?)
            }
        };
        let no_path = match self.no_path.as_ref().map(|text| (text, text.get_ref().as_str())) {
            None => default.no_path,
            Some((_, "fail")) => NoPathPolicy::Fail,
            Some((_, "queue")) => NoPathPolicy::Queue,
            Some((text, _)) => {
                NoPathPolicy::QueueFor(time(source, text, "no_path", "\"fail\", \"queue\" or a time")?)
            }
        };
        let time_or = |text: &Option<Spanned<String>>, key, default| {
            text.as_ref().map_or(Ok(default), |text| time(source, text, key, "a time"))
        };
        let attempt_timeout = time_or(&self.attempt_timeout, "attempt_timeout", default.attempt_timeout)?;
        Ok(FailoverConfig {
            failback,
            no_path,
            attempt_timeout,
            // A flush is never given less time than a write.
            flush_timeout: default.flush_timeout.max(attempt_timeout),
            quiesce_time: time_or(&self.quiesce_time, "quiesce_time", default.quiesce_time)?,
            hedge: HedgeConfig { enabled: self.hedge.unwrap_or(default.hedge.enabled), ..default.hedge },
            slow_path: SlowPathConfig {
                enabled: self.leave_slow_paths.unwrap_or(default.slow_path.enabled),
                ..default.slow_path
            },
            ..default
        })
    }
}

fn time(
    source: &Source<'_>,
    text: &Spanned<String>,
    key: &str,
    wanted: &str,
) -> Result<Duration, ConfigError> {
    let parsed = parse_duration(text.get_ref()).ok();
    parsed.filter(|time| (TIME_MIN..=TIME_MAX).contains(time)).ok_or_else(|| {
        let shown = crate::escape::name(text.get_ref());
        let what = format!("{key} = \"{shown}\"; give {wanted}, from 1ms to 24h, as in \"500ms\" or \"30s\"");
        source.mistake(Some(text.span()), &what)
    })
}
