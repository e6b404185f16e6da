//! Loop devices: real block nodes over files.
//!
//! What holds: a device goes when its handle goes. Not here: what to do where there are none.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A loop device over a file, as long as this lives.
pub struct LoopDevice {
    /// Its block node.
    pub node: PathBuf,
}

impl LoopDevice {
    /// A device of `bytes` over a new file, with sectors of `block_bytes`; or why there is none.
    pub fn new(file: &Path, bytes: u64, block_bytes: u32) -> Result<Self, String> {
        let made = std::fs::File::create(file).and_then(|file| file.set_len(bytes));
        made.map_err(|error| error.to_string())?;
        // Another test may take the free device between the look and the use: try again.
        let mut why = String::new();
        for _ in 0..5 {
            let block = block_bytes.to_string();
            let mut command = Command::new("losetup");
            command.args(["--find", "--show", "--sector-size", &block]).arg(file);
            let output = command.output().map_err(|error| format!("losetup: {error}"))?;
            if output.status.success() {
                let node = String::from_utf8_lossy(&output.stdout).trim().into();
                return Ok(Self { node });
            }
            why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(why)
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.node).status();
    }
}
