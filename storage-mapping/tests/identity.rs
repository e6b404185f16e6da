//! Which disk a path leads to, as real files, links and loop devices have it.
//!
//! Loop devices are skipped where this user may not make them; `DISKWIRE_NO_SKIP=1` makes that a failure.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

#[path = "support/programs.rs"]
mod programs;

use std::path::{Path, PathBuf};
use std::process::Command;

use programs::{Program, find, skip};
use storage_mapping::path_address::open;
use storage_mapping::{Identity, Sameness};

fn identity(address: &str) -> Identity {
    open(&address.parse().unwrap()).unwrap().identity
}

fn file(path: &Path) -> Identity {
    identity(&format!("file:{}", path.display()))
}

fn disk(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, vec![0; 4 << 20]).unwrap();
    path
}

/// A loop device; it is taken away when dropped.
struct Loop(String);

impl Loop {
    fn over(file: &Path, offset: u64) -> Result<Self, String> {
        let mut losetup = Command::new(find("losetup")?);
        let offset = offset.to_string();
        losetup.args(["--find", "--show", "--offset", &offset]).arg(file);
        let done = losetup.output().map_err(|error| error.to_string())?;
        if done.status.success() {
            return Ok(Self(String::from_utf8_lossy(&done.stdout).trim().to_owned()));
        }
        Err(String::from_utf8_lossy(&done.stderr).trim().to_owned())
    }

    fn identity(&self) -> Identity {
        identity(&format!("block:{}", self.0))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        drop(Command::new("losetup").args(["--detach", &self.0]).status());
    }
}

#[test]
fn names_of_one_file_are_one_disk_and_two_files_are_two() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (disk(folder.path(), "one"), disk(folder.path(), "two"));
    let (symlink, hard_link) = (folder.path().join("symlink"), folder.path().join("hard-link"));
    std::os::unix::fs::symlink(&one, &symlink).unwrap();
    std::fs::hard_link(&one, &hard_link).unwrap();
    for name in [&symlink, &hard_link] {
        assert_eq!(file(&one).compare(&file(name)), Sameness::Same);
        assert!(file(&one).shares_cache_with(&file(name)));
    }
    assert_eq!(file(&one).compare(&file(&two)), Sameness::Different);
}

#[test]
fn a_loop_device_is_the_file_under_it() {
    let test = "a_loop_device_is_the_file_under_it";
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (disk(folder.path(), "one"), disk(folder.path(), "two"));
    let loops =
        (|| Ok::<_, String>([Loop::over(&one, 0)?, Loop::over(&one, 1 << 20)?, Loop::over(&two, 0)?]))();
    let [whole, part, other] = match loops {
        Ok(loops) => loops,
        Err(reason) => return skip(test, &reason),
    };
    assert_eq!(whole.identity().compare(&file(&one)), Sameness::Same);
    assert_eq!(whole.identity().compare(&part.identity()), Sameness::Different, "other blocks of the file");
    assert_eq!(whole.identity().compare(&other.identity()), Sameness::Different);
    assert_eq!(other.identity().compare(&file(&one)), Sameness::Different);
    // A file that takes the place of the one underneath is another disk, whatever its name.
    std::fs::rename(&two, &one).unwrap();
    assert_eq!(whole.identity().compare(&file(&one)), Sameness::Different);
}

#[test]
fn disks_of_this_process_are_known_by_their_names() {
    let memory = identity("mem:identity-a?size=64KiB");
    assert_eq!(memory.compare(&identity("mem:identity-a")), Sameness::Same);
    assert_eq!(memory.compare(&identity("mem:identity-b?size=64KiB")), Sameness::Different);
    let simulated = identity("sim:identity/p0/v0?size=64KiB&ports=2");
    assert_eq!(simulated.compare(&identity("sim:identity/p1/v0?initiator=host2")), Sameness::Same);
    assert_eq!(simulated.compare(&memory), Sameness::Unknown);
}

#[test]
fn an_nbd_export_has_no_identity_and_shares_its_cache_where_its_server_says_so() {
    let test = "an_nbd_export_has_no_identity_and_shares_its_cache_where_its_server_says_so";
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nbd.sock");
    let address = format!("nbd+unix:///?socket={}", socket.display());
    let disabled = ["--filter=multi-conn", "memory", "1M", "multi-conn-mode=disable"];
    for (arguments, is_shared) in [(&["memory", "1M"][..], true), (&disabled[..], false)] {
        let _server = match Program::nbdkit(&socket, arguments) {
            Ok(server) => server,
            Err(reason) => return skip(test, &reason),
        };
        let (one, other) = (identity(&address), identity(&address));
        assert_eq!(one.compare(&other), Sameness::Unknown);
        assert_eq!(one.shares_cache_with(&other), is_shared, "{arguments:?}");
    }
}
