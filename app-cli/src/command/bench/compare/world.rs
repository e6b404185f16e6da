//! Two hosts on a volume of their own, and one copy from the one to the other.
//!
//! Not here: what is copied, and what it is compared with.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use storage_mapping::ByteSize;

use super::meter::{Cost, Daemon, Meter};
use crate::args::lab::LabCreateArgs;
use crate::command::{CommandError, demo, lab};

/// What both sides cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copied {
    /// `cp`.
    pub(super) initiator: Cost,
    /// `serve`, from its start to its end.
    pub(super) connector: Cost,
    /// Requests of `serve` to the devices, until the copy was done.
    pub(super) connector_requests: u64,
}

/// The hosts.
pub(super) struct World {
    meter: Meter,
    folder: PathBuf,
}

impl World {
    /// Makes a volume of this size in a folder, and hosts whose copies go to `target`.
    pub(super) fn new(
        meter: &Meter,
        folder: &Path,
        size: ByteSize,
        target: &Path,
    ) -> Result<Self, CommandError> {
        let args = LabCreateArgs { size, ..demo::lab_args(&folder.join("world")) };
        let plan = lab::make(&args, true)?;
        let inbox = plan.dir.join("exports/beta/inbox");
        fs::remove_dir(&inbox).and_then(|()| symlink(target, &inbox)).map_err(CommandError::Demo)?;
        Ok(Self { meter: meter.clone(), folder: plan.dir })
    }

    /// Copies a file or a tree to the target.
    pub(super) fn copy(&self, source: &Path, options: &[&str]) -> Result<Copied, CommandError> {
        let mut serving = self.serve()?;
        demo::wait_until_it_serves(serving.heard().expect("it was asked for"))?;
        let mut line = self.command("alpha");
        line.extend(["cp".into(), "--quiet".into()]);
        line.extend(options.iter().map(OsString::from));
        line.extend([source.into(), "beta:inbox/".into()]);
        let initiator = self.meter.run(&line)?;
        let connector_requests = self.requests()?;
        Ok(Copied { initiator, connector: serving.end()?, connector_requests })
    }

    fn serve(&self) -> Result<Daemon, CommandError> {
        let mut line = self.command("beta");
        line.push("serve".into());
        self.meter.start(&line, true)
    }

    /// What `serve` has asked of its devices, over all paths.
    fn requests(&self) -> Result<u64, CommandError> {
        let line = self.command("beta");
        let output = Command::new(&line[0])
            .args(&line[1..])
            .args(["path", "stat", "--json"])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(CommandError::Demo)?;
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        Ok(sum_of_requests(&told))
    }

    fn command(&self, host: &str) -> Vec<OsString> {
        let file = self.folder.join(format!("{host}.toml"));
        vec![self.meter.program().into(), "-c".into(), file.into()]
    }
}

/// The sum of what all paths have carried, wherever they stand.
fn sum_of_requests(told: &Value) -> u64 {
    match told {
        Value::Array(values) => values.iter().map(sum_of_requests).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| match (name.as_str(), value.as_u64()) {
                ("requests", Some(requests)) => requests,
                _ => sum_of_requests(value),
            })
            .sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_all_paths_are_added() {
        let told = r#"{"lanes":[{"devices":[{"paths":[{"requests":3},{"requests":4,"bytes":9}]},{}]}]}"#;
        assert_eq!(sum_of_requests(&serde_json::from_str(told).unwrap()), 7);
        assert_eq!(sum_of_requests(&Value::Null), 0);
    }
}
