//! The devices of a volume as both kinds of configuration name them.
//!
//! A path address stays a text with its line: what it means, and whether it can be opened, is judged
//! where devices are opened, which can then still say `FILE:LINE`.

use std::collections::HashSet;
use std::ops::Range;

use multipath::{FailoverConfig, PathConfig, SelectorKind};
use serde::Deserialize;
use toml::Spanned;

use super::ConfigError;
use super::multipath_keys::{MultipathKeys, RawPath};
use super::source::Source;
use crate::name::Name;

/// The most devices of a volume.
const DEVICES_MAX: usize = 62;
/// The most paths to one device.
const PATHS_MAX: usize = 64;
/// The longest device id: what the device table holds (`sec_dev_id`).
const DEVICE_ID_MAX_BYTES: usize = 16;

/// One device of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Its id on the volume (`sec_dev_id`).
    pub id: Name,
    /// How this host reaches it: at least one way.
    pub paths: Vec<PathText>,
    /// How one of them is chosen.
    pub policy: SelectorKind,
    /// What becomes of requests when paths fail.
    pub failover: FailoverConfig,
}

/// A path address as it was written, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathText {
    /// Such as `file:disks/master.img?latency=2ms`; relative to the configuration's folder.
    pub text: String,
    /// The line of the configuration.
    pub line: usize,
    /// What the path is, beside its address.
    pub config: PathConfig,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDevice {
    id: Spanned<Name>,
    paths: Spanned<Vec<Spanned<RawPath>>>,
    policy: Option<Spanned<String>>,
    failback: Option<Spanned<String>>,
    no_path: Option<Spanned<String>>,
    attempt_timeout: Option<Spanned<String>>,
    quiesce_time: Option<Spanned<String>>,
    hedge: Option<bool>,
    leave_slow_paths: Option<bool>,
}

/// Checks the devices against each other. `section` is where there should be one.
pub(super) fn devices(
    source: &Source<'_>,
    section: &Range<usize>,
    key: &str,
    raw: Vec<RawDevice>,
) -> Result<Vec<DeviceConfig>, ConfigError> {
    let mistake = |span: Range<usize>, text: &str| Err(source.mistake(Some(span), text));
    if raw.is_empty() || raw.len() > DEVICES_MAX {
        let text =
            format!("{} devices; give 1 to {DEVICES_MAX}, each as [[{key}]], the master first", raw.len());
        return mistake(section.clone(), &text);
    }
    let (mut ids, mut addresses) = (HashSet::new(), HashSet::new());
    let mut devices = Vec::with_capacity(raw.len());
    for raw in raw {
        let RawDevice {
            id,
            paths,
            policy,
            failback,
            no_path,
            attempt_timeout,
            quiesce_time,
            hedge,
            leave_slow_paths,
        } = raw;
        let keys = MultipathKeys {
            policy,
            failback,
            no_path,
            attempt_timeout,
            quiesce_time,
            hedge,
            leave_slow_paths,
        };
        let span = id.span();
        let id = id.into_inner();
        if id.as_str().len() > DEVICE_ID_MAX_BYTES {
            let text = format!("device id `{id}` is too long; use at most {DEVICE_ID_MAX_BYTES} bytes");
            return mistake(span, &text);
        }
        if !ids.insert(id.clone()) {
            return mistake(span, &format!("a second device `{id}`; give each device an id of its own"));
        }
        if paths.get_ref().is_empty() || paths.get_ref().len() > PATHS_MAX {
            let text = format!("device `{id}` has {} paths; give 1 to {PATHS_MAX}", paths.get_ref().len());
            return mistake(paths.span(), &text);
        }
        let mut texts = Vec::with_capacity(paths.get_ref().len());
        for path in paths.into_inner() {
            let (span, RawPath { address: text, priority, fault_domain }) = (path.span(), path.into_inner());
            if text.trim().is_empty() {
                return mistake(span, "an empty path address; write one like \"block:/dev/sdb\"");
            }
            // Twice in one device is a lab's way to several paths; in two devices it is a slip.
            if addresses.contains(&text) {
                let what = format!("`{text}` belongs to another device already; one of the two is wrong");
                return mistake(span, &what);
            }
            let number = |value: Option<Spanned<i64>>, key| {
                value.map(|value| source.number(&value, key, 0, u16::MAX)).transpose()
            };
            let config = PathConfig {
                priority: number(priority, "priority")?.unwrap_or_default(),
                fault_domain: number(fault_domain, "fault_domain")?,
                quiesce_time: None,
            };
            texts.push(PathText { line: source.line(&span), text, config });
        }
        addresses.extend(texts.iter().map(|path| path.text.clone()));
        let policy = keys.policy(source, texts.len())?;
        devices.push(DeviceConfig { id, paths: texts, policy, failover: keys.failover(source)? });
    }
    Ok(devices)
}
