//! `in_use::findings` on real files and block nodes of this host.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount, umount};
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
fn a_mounted_file_system_is_not_free() {
    const TEST: &str = "a_mounted_file_system_is_not_free";
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(4 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(file.path()).status();
    if !made.is_ok_and(|status| status.success()) {
        return skip(TEST, "mkfs.ext4 does not run here");
    }
    let device = match LoopDevice::attach(file.path()) {
        Ok(device) => device,
        Err(reason) => return skip(TEST, &reason),
    };
    let content = Finding::Signature { content: "an ext4 file system" };
    assert_eq!(findings(&device.0).unwrap(), std::slice::from_ref(&content));

    let at = tempfile::tempdir().unwrap();
    let flags = MsFlags::MS_RDONLY;
    if let Err(error) = mount(Some(&device.0), at.path(), Some("ext4"), flags, None::<&str>) {
        return skip(TEST, &format!("mount: {error}"));
    }
    let found = findings(&device.0);
    umount(at.path()).unwrap();
    let name = device.0.file_name().unwrap().to_string_lossy().into_owned();
    let mounted = Finding::Mounted { device: name, at: at.path().to_owned() };
    assert_eq!(found.unwrap(), [mounted, Finding::ExclusivelyHeld, content]);
}
