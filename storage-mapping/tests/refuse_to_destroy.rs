//! `in_use::findings` on real files and block nodes of this host.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use storage_mapping::in_use::{Finding, findings};

/// Fails instead of skipping where the environment says that nothing may be skipped.
fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("DISKWIRE_NO_SKIP").is_none_or(|value| value != "1"), "{test}: {reason}");
    println!("SKIPPED {test}: {reason}");
}

/// A loop device that is detached when dropped.
struct LoopDevice(PathBuf);

impl LoopDevice {
    fn attach(file: &Path) -> Result<Self, String> {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(file).output();
        let output = output.map_err(|error| format!("losetup: {error}"))?;
        if output.status.success() {
            return Ok(Self(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())));
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        drop(Command::new("losetup").arg("--detach").arg(&self.0).status());
    }
}

#[test]
fn a_block_node_in_use_is_not_free() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let device = match LoopDevice::attach(file.path()) {
        Ok(device) => device,
        Err(reason) => return skip("a_block_node_in_use_is_not_free", &reason),
    };
    assert_eq!(findings(&device.0).unwrap(), []);
    let phrases: Vec<_> = findings(file.path()).unwrap().iter().map(ToString::to_string).collect();
    let name = device.0.file_name().unwrap().to_string_lossy().into_owned();
    assert!(
        matches!(&phrases[..], [phrase] if phrase.ends_with(&format!("is held by {name}"))),
        "{phrases:?}"
    );

    let exclusive = std::fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_EXCL).open(&device.0);
    let exclusive = exclusive.unwrap();
    assert_eq!(findings(&device.0).unwrap(), [Finding::ExclusivelyHeld]);
    drop(exclusive);
    assert_eq!(findings(&device.0).unwrap(), []);
}

#[test]
fn the_root_disk_of_this_host_is_not_free() {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mounts") else {
        return skip("the_root_disk_of_this_host_is_not_free", "no /proc");
    };
    let root = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let device = fields.next().filter(|device| device.starts_with("/dev/"))?;
        (fields.next() == Some("/")).then_some(device)
    });
    let Some(root) = root.filter(|root| std::fs::File::open(root).is_ok()) else {
        return skip("the_root_disk_of_this_host_is_not_free", "its node cannot be opened here");
    };
    let found = findings(Path::new(root)).unwrap();
    let is_root = |found: &Finding| matches!(found, Finding::Mounted { at, .. } if at == Path::new("/"));
    assert!(found.iter().any(is_root), "{found:?}");
}
