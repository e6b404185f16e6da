//! Any bytes as a configuration file: for the property test and for the fuzz crate.
//!
//! What holds: whatever is wrong is one line `FILE:LINE: what`, with a line that the file has and without
//! control characters; what is accepted holds what a host needs. Not here: files that are named in it.

use std::path::Path;

use diskwire::config::{AnyConfig, ConfigError, HostConfig, VolumeConfig};

/// Reads `input` as both kinds of configuration.
///
/// # Panics
/// If a promise is broken.
pub(crate) fn configuration(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let file = Path::new("etc/HOST.toml");
    match HostConfig::parse(file, text) {
        Ok(config) => {
            assert!(!config.volume.devices.is_empty(), "a host without a device");
            assert!(config.limits.connections > 0);
            assert!(AnyConfig::Host(config).devices().iter().all(|device| !device.paths.is_empty()));
        }
        Err(error) => check(&error, text),
    }
    match VolumeConfig::parse(file, text) {
        Ok(config) => assert!(!AnyConfig::Volume(config).devices().is_empty(), "a volume without a device"),
        Err(error) => check(&error, text),
    }
}

fn check(error: &ConfigError, text: &str) {
    let shown = error.to_string();
    assert!(!shown.chars().any(char::is_control), "more than a line: {shown:?}");
    let ConfigError::Mistake { line, text: what, .. } = error else { panic!("{shown}") };
    let lines = 1 + text.matches('\n').count();
    assert!((1..=lines).contains(line), "line {line} of {lines}: {shown}");
    assert!(!what.is_empty());
}
