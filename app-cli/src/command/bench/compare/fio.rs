//! The concurrent ceiling of a file system: fio, writing one file and reading another at the same time.
//!
//! What goes through a volume is written once and read once. Not here: what it is compared with.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::contestant::is_installed;
use crate::command::CommandError;

/// A mebibyte.
const MIB: f64 = 1_048_576.0;

/// What fio got, in MiB/s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ceiling {
    /// Of the writer.
    pub(super) write: f64,
    /// Of the reader.
    pub(super) read: f64,
}

impl Ceiling {
    /// What could go through: every byte is written and read.
    pub(super) fn through(self) -> f64 {
        f64::midpoint(self.write, self.read)
    }
}

/// Whether fio is installed.
pub(super) fn is_there() -> bool {
    is_installed("fio")
}

/// Writes and reads in a folder for a while. The files stay, for the next round.
pub(super) fn measure(folder: &Path, is_quick: bool) -> Result<Ceiling, CommandError> {
    let failed = |source| CommandError::BenchProgram { program: "fio".to_owned(), source };
    let (size, seconds) = if is_quick { ("16M", 1) } else { ("1G", 10) };
    let output = Command::new("fio")
        .args(["--output-format=json", "--direct=1", "--ioengine=io_uring", "--bs=1M", "--iodepth=16"])
        .args(["--time_based", "--overwrite=1", "--group_reporting=0"])
        .arg(format!("--size={size}"))
        .arg(format!("--runtime={seconds}"))
        .arg(format!("--directory={}", folder.display()))
        .args(["--name=writer", "--rw=write", "--name=reader", "--rw=read"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(failed)?;
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    ceiling(&told).ok_or_else(|| failed(std::io::Error::other("it tells no rates")))
}

fn ceiling(told: &Value) -> Option<Ceiling> {
    let rate = |job: usize, what: &str| {
        let rate = told["jobs"][job][what]["bw_bytes"].as_f64()?;
        (rate > 0.0).then_some(rate / MIB)
    };
    Some(Ceiling { write: rate(0, "write")?, read: rate(1, "read")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_both_jobs_are_found() {
        let told = r#"{"jobs":[{"write":{"bw_bytes":2097152}},{"read":{"bw_bytes":4194304}}]}"#;
        let found = ceiling(&serde_json::from_str(told).unwrap());
        assert_eq!(found, Some(Ceiling { write: 2.0, read: 4.0 }));
        assert_eq!(found.map(Ceiling::through), Some(3.0));
        let told = r#"{"jobs":[{"write":{"bw_bytes":2097152}},{"read":{"bw_bytes":0}}]}"#;
        assert_eq!(ceiling(&serde_json::from_str(told).unwrap()), None);
        assert_eq!(ceiling(&Value::Null), None);
    }
}
