//! Faults and attacks, each with the message and the exit code that a user gets.
//!
//! What is asserted everywhere: one clear line on standard error, the right exit code, and nothing but
//! the right bytes under any final name. The rows of `docs/testing.md` are these tests.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use support::{LIMIT, Lab, Numbers, bytes, hash_of, skip, tree, write_random};
use volume::BLOCK_BYTES;
use volume::master_control_block::MasterControlBlock;
use volume::record::Record;

/// A lab with a file `f` of alpha.
fn lab_with_file() -> Lab {
    let lab = Lab::new();
    write_random(&lab.scratch("f"), 1, 1_500_000);
    lab
}

/// Asserts that a copy works.
#[track_caller]
fn assert_works(lab: &Lab) {
    lab.run("alpha", "cp -q f beta:inbox/works").expect(0);
    assert_eq!(hash_of(&lab.inbox("beta", "works")), hash_of(&lab.scratch("f")));
}

fn other_digit(hex: &str) -> String {
    let first = if hex.starts_with('0') { "1" } else { "0" };
    format!("{first}{}", &hex[1..])
}

/// The value of the first line `key = "…"` of a configuration, after `section`.
fn value(lab: &Lab, host: &str, section: &str, key: &str) -> String {
    let text = fs::read_to_string(lab.path(format!("{host}.toml"))).expect("a configuration");
    let at = text.find(section).expect("the section");
    let start = at + text[at..].find(&format!("{key} = \"")).expect("the key") + key.len() + 4;
    text[start..].split('"').next().expect("a value").to_owned()
}

// ---- identities -------------------------------------------------------------------------------------

#[test]
fn another_key_file_is_refused_at_the_start() {
    let lab = lab_with_file();
    let _serve = lab.serve("beta");
    let mut keygen = lab.program();
    keygen.args(["keygen"]).arg(lab.path("stranger.key"));
    assert!(keygen.output().unwrap().status.success());
    lab.reconfigure("alpha", "key = \"alpha.key\"", "key = \"stranger.key\"");
    lab.run("alpha", "cp f beta:inbox/").expect_line(1, "not the key that host alpha is enrolled with");
    assert!(!lab.inbox("beta", "f").exists());
    lab.reconfigure("alpha", "key = \"stranger.key\"", "key = \"alpha.key\"");
    assert_works(&lab);
}

#[test]
fn a_wrong_public_key_on_either_side_is_named() {
    let lab = lab_with_file();
    let right = value(&lab, "beta", "[peers.\"alpha\"]", "key");
    lab.reconfigure("beta", &right, &other_digit(&right));
    let serve = lab.serve("beta");
    let refused = lab.run("alpha", "cp f beta:inbox/").expect_line(1, "host beta: ");
    assert!(refused.stderr.contains("list of peers"), "{refused:?}");
    assert!(refused.took < Duration::from_secs(30), "{refused:?}");
    drop(serve);
    lab.reconfigure("beta", &other_digit(&right), &right);
    let _serve = lab.serve("beta");
    let right = value(&lab, "alpha", "[peers.\"beta\"]", "key");
    lab.reconfigure("alpha", &right, &other_digit(&right));
    lab.run("alpha", "cp f beta:inbox/").expect_line(1, "no host beta with the configured key");
    lab.reconfigure("alpha", &other_digit(&right), &right);
    assert!(!lab.inbox("beta", "f").exists());
    assert_works(&lab);
}

#[test]
fn an_unknown_peer_export_or_foreign_volume_is_named() {
    let lab = lab_with_file();
    let _serve = lab.serve("beta");
    lab.run("alpha", "cp f gamma:inbox/").expect_line(2, "host gamma is no peer of this host");
    lab.run("alpha", "cp f alpha:inbox/").expect(2);
    lab.run("alpha", "cp f beta:none/").expect_line(1, "no export named none");
    lab.run("alpha", "ls beta:none").expect_line(1, "no export named none");
    lab.run("alpha", "ls beta:inbox/none").expect_line(1, "beta:inbox/none: not found");
    lab.reconfigure("alpha", "master.img", "master.img?laten=1");
    lab.run("alpha", "cp f beta:inbox/").expect_line(2, "option `laten` does not fit here");
    lab.reconfigure("alpha", "master.img?laten=1", "master.img");
    let id = value(&lab, "alpha", "[volume]", "id");
    lab.reconfigure("alpha", &id, &other_digit(&id));
    lab.run("alpha", "cp f beta:inbox/").expect_line(1, "the configuration says");
    lab.reconfigure("alpha", &other_digit(&id), &id);
    let admin = value(&lab, "alpha", "[volume]", "admin_key");
    lab.reconfigure("alpha", &admin, &other_digit(&admin));
    lab.run("alpha", "cp f beta:inbox/").expect_line(1, "admin key");
    lab.reconfigure("alpha", &other_digit(&admin), &admin);
    assert_works(&lab);
}

#[test]
fn an_export_that_a_peer_may_not_see_does_not_exist_for_it() {
    let lab = lab_with_file();
    let key = value(&lab, "beta", "[peers.\"alpha\"]", "key");
    lab.reconfigure("beta", &format!("{key}\""), &format!("{key}\"\nexports = [\"files\"]"));
    let _serve = lab.serve("beta");
    lab.run("alpha", "cp f beta:inbox/").expect_line(1, "no export named inbox");
    lab.run("alpha", "cp f beta:files/").expect(0);
    assert!(!lab.inbox("beta", "f").exists());
}

fn copy_folder(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").arg(from).arg(to).status().expect("cp");
    assert!(status.success());
}

#[test]
fn a_host_that_runs_twice_is_noticed() {
    let lab = lab_with_file();
    let mut first = lab.serve("beta");
    lab.run("beta", "serve").expect_line(1, "is served already");
    // The same host from a state directory of its own: it remembers nothing.
    let text = fs::read_to_string(lab.path("beta.toml")).unwrap();
    let twin = text.replace("state = \"state/beta\"", "state = \"state/twin\"");
    fs::write(lab.path("twin.toml"), twin).unwrap();
    lab.run("twin", "serve").expect_line(1, "duplicate identity");
    assert!(!first.has_ended());
    assert_works(&lab);
    // And from a copy of the state directory, as a cloned machine has it.
    fs::remove_dir_all(lab.path("state/twin")).unwrap();
    copy_folder(&lab.path("state/beta"), &lab.path("state/twin"));
    let second = lab.start("twin", "serve");
    let limit = Duration::from_secs(40);
    let mut ended = [(first, false), (second, false)];
    let started = std::time::Instant::now();
    while !ended.iter().any(|(_, ended)| *ended) {
        assert!(started.elapsed() < limit, "both still run");
        ended = ended.map(|(mut process, _)| {
            let gone = process.has_ended();
            (process, gone)
        });
        std::thread::sleep(Duration::from_millis(20));
    }
    for (process, gone) in ended {
        if gone {
            process.wait(limit).expect_line(1, "duplicate identity");
        }
    }
    let _serve = lab.serve("beta");
    assert_works(&lab);
}

// ---- devices ----------------------------------------------------------------------------------------

#[test]
fn a_truncated_or_missing_device_is_named() {
    let lab = lab_with_file();
    let serve = lab.serve("beta");
    assert_works(&lab);
    drop(serve);
    let disk = lab.path("disks/secondary1.img");
    let size = fs::metadata(&disk).unwrap().len();
    let file = File::options().write(true).open(&disk).unwrap();
    file.set_len(size / 2).unwrap();
    lab.run("alpha", "cp f beta:inbox/").expect_line(1, "is too short");
    lab.run("beta", "serve").expect_line(1, "is too short");
    file.set_len(size).unwrap();
    fs::rename(&disk, lab.path("away")).unwrap();
    lab.run("alpha", "cp f beta:inbox/").expect_line(1, "secondary1.img");
    fs::rename(lab.path("away"), &disk).unwrap();
    let _serve = lab.serve("beta");
    assert_works(&lab);
}

#[test]
fn a_damaged_master_block_is_replaced_by_its_copies() {
    let lab = lab_with_file();
    let master = File::options().write(true).open(lab.path("disks/master.img")).unwrap();
    master.write_all_at(&bytes(3, BLOCK_BYTES), 0).unwrap();
    let serve = lab.serve("beta");
    assert!(serve.said().contains("block 0"), "{}", serve.said());
    let done = lab.run("alpha", "cp f beta:inbox/").expect_line(0, "block 0");
    assert_eq!(hash_of(&lab.inbox("beta", "f")), hash_of(&lab.scratch("f")), "{done:?}");
    drop(serve);
    master.write_all_at(&bytes(4, 2 * BLOCK_BYTES), 0).unwrap();
    for disk in ["secondary1.img", "secondary2.img"] {
        let file = File::options().write(true).open(lab.path("disks").join(disk)).unwrap();
        file.write_all_at(&bytes(5, BLOCK_BYTES), 0).unwrap();
    }
    lab.run("alpha", "cp f beta:inbox/").expect_line(1, "no copy of the master control block verifies");
}

/// First byte and length of a region of the master.
fn region(lab: &Lab, number: usize) -> (u64, usize) {
    let master = fs::read(lab.path("disks/master.img")).expect("a master");
    let region = MasterControlBlock::parse(&master).expect("a volume").region(number);
    let block = BLOCK_BYTES as u64;
    (region.start * block, usize::try_from(region.blocks * block).expect("a small region"))
}

/// Overwrites a region while a push runs: it ends well or says why not, and a re-run completes it.
fn overwrite_region(lab: &Lab, number: usize) {
    let old = fs::read(lab.inbox("beta", "f")).ok();
    let serve = lab.serve("beta");
    let cp = lab.slow_push_to(100 + number as u64, (16 << 20) + number as u64);
    let master = File::options().write(true).open(lab.path("disks/master.img")).expect("a master");
    let (at, length) = region(lab, number);
    master.write_all_at(&bytes(number as u64, length), at).expect("a write");
    let done = cp.wait(Duration::from_secs(90));
    let now = fs::read(lab.inbox("beta", "f")).ok();
    let sent = fs::read(lab.scratch("f")).expect("the source");
    if done.code() == Some(0) {
        assert!(now.as_ref() == Some(&sent), "region {number}");
    } else {
        assert!(!done.stderr.is_empty(), "region {number}: {done:?}");
        assert!(now == old || now.as_ref() == Some(&sent), "region {number}");
    }
    drop(serve);
    let serve = lab.serve("beta");
    let again = lab.run("alpha", "cp -q f beta:inbox/f");
    assert_eq!(again.code(), Some(0), "region {number}: {again:#?}, then {}", serve.said());
    assert_eq!(hash_of(&lab.inbox("beta", "f")), hash_of(&lab.scratch("f")), "region {number}");
}

#[test]
fn beacons_bells_and_control_areas_may_be_overwritten_at_any_time() {
    let lab = Lab::new();
    lab.slow("alpha");
    for number in [2, 3, 4] {
        overwrite_region(&lab, number);
    }
}

#[test]
fn process_id_and_pointer_tables_may_be_overwritten_at_any_time() {
    let lab = Lab::new();
    lab.slow("alpha");
    for number in [5, 6] {
        overwrite_region(&lab, number);
    }
}

#[test]
fn a_damaged_host_table_is_replaced_by_its_copy_or_named() {
    let lab = lab_with_file();
    let (at, length) = region(&lab, 1);
    let master = File::options().write(true).open(lab.path("disks/master.img")).unwrap();
    master.write_all_at(&bytes(1, BLOCK_BYTES), at).unwrap();
    let serve = lab.serve("beta");
    assert_works(&lab);
    drop(serve);
    master.write_all_at(&bytes(1, length), at).unwrap();
    let refused = lab.run("alpha", "cp f beta:inbox/").expect(1);
    assert_eq!(
        refused.stderr.lines().filter(|line| line.starts_with("diskwire: ")).count(),
        1,
        "{refused:?}"
    );
}

#[test]
fn segments_that_are_overwritten_are_sent_again() {
    let lab = Lab::new();
    let (mut cp, serve) = lab.slow_push(24 << 20);
    let disks = ["secondary1.img", "secondary2.img"]
        .map(|disk| File::options().read(true).write(true).open(lab.path("disks").join(disk)).unwrap());
    let mut numbers = Numbers::new(7);
    let blocks = disks[0].metadata().unwrap().len() / BLOCK_BYTES as u64;
    let mut count = 0;
    while !cp.has_ended() {
        let block = 1 + numbers.below(blocks - 1);
        let disk = &disks[usize::from(numbers.below(2) == 1)];
        disk.write_all_at(&bytes(count, BLOCK_BYTES), block * BLOCK_BYTES as u64).unwrap();
        count += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    let done = cp.wait(LIMIT);
    if done.code() != Some(0) {
        assert!(!lab.inbox("beta", "f").exists() && !done.stderr.is_empty(), "{done:?}");
        lab.run("alpha", "cp -q f beta:inbox/f").expect(0);
    }
    assert_eq!(hash_of(&lab.inbox("beta", "f")), hash_of(&lab.scratch("f")), "{count} blocks overwritten");
    drop(serve);
}

// ---- files ------------------------------------------------------------------------------------------

/// A file system in memory, as long as this lives.
struct SmallFileSystem(PathBuf);

impl SmallFileSystem {
    fn mount(at: &Path, options: &str) -> Result<Self, String> {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "diskwire-test"]).arg(at);
        let output = command.output().map_err(|error| format!("mount: {error}"))?;
        if output.status.success() {
            return Ok(Self(at.to_owned()));
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_file_system_fails_the_file_and_a_re_run_completes_it() {
    let lab = Lab::new();
    let inbox = lab.inbox("beta", "");
    let mounted = match SmallFileSystem::mount(&inbox, "size=12m") {
        Ok(mounted) => mounted,
        Err(why) => return skip("a_full_file_system_fails_the_file_and_a_re_run_completes_it", &why),
    };
    let serve = lab.serve("beta");
    fs::write(lab.inbox("beta", "f"), "old").unwrap();
    write_random(&lab.scratch("f"), 1, 20 << 20);
    lab.run("alpha", "cp f beta:inbox/").expect_line(1, "no space left");
    assert_eq!(fs::read(lab.inbox("beta", "f")).unwrap(), b"old");
    // It fills up while the file comes, and many small files.
    write_random(&lab.inbox("beta", "filler"), 2, 9 << 20);
    fs::create_dir(lab.scratch("many")).unwrap();
    for number in 0..100 {
        write_random(&lab.scratch(format!("many/{number}")), number, 60_000);
    }
    let partly = lab.run("alpha", "cp -q -r many beta:inbox/");
    assert!(matches!(partly.code(), Some(1 | 3)), "{partly:?}");
    assert!(partly.stderr.contains("no space left"), "{partly:?}");
    for (path, _) in tree(&lab.inbox("beta", "many")).into_iter().filter(|(_, found)| found.kind == 'f') {
        assert_eq!(
            hash_of(&lab.inbox("beta", "many").join(&path)),
            hash_of(&lab.scratch("many").join(&path))
        );
    }
    fs::remove_file(lab.inbox("beta", "filler")).unwrap();
    lab.run("alpha", "cp -q -r many beta:inbox/").expect(0);
    let remounted = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&inbox).status();
    assert!(remounted.unwrap().success());
    lab.run("alpha", "cp -q f beta:inbox/").expect(0);
    assert_eq!(hash_of(&lab.inbox("beta", "f")), hash_of(&lab.scratch("f")));
    assert_eq!(tree(&lab.inbox("beta", "many")).len(), 101);
    lab.assert_no_partial(&inbox);
    drop(serve);
    drop(mounted);
}

#[test]
fn nothing_outside_an_export_can_be_read_or_written() {
    let lab = lab_with_file();
    let _serve = lab.serve("beta");
    let outside = lab.scratch("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    symlink(&outside, lab.inbox("beta", "door")).unwrap();
    symlink("../../../../outside", lab.inbox("beta", "window")).unwrap();
    symlink(outside.join("secret"), lab.inbox("beta", "leak")).unwrap();
    for path in ["beta:inbox/../files/f", "beta:inbox/..", "beta:../inbox/f", "beta:inbox/./../../f"] {
        lab.run("alpha", &format!("cp f {path}")).expect(2);
        lab.run("alpha", &format!("cp {path} here")).expect(2);
    }
    for door in ["door", "window"] {
        lab.run("alpha", &format!("cp f beta:inbox/{door}/f")).expect(1);
        lab.run("alpha", &format!("cp f beta:inbox/{door}/")).expect(1);
        lab.run("alpha", &format!("cp beta:inbox/{door}/secret here")).expect(1);
        lab.run("alpha", &format!("ls beta:inbox/{door}/secret")).expect(1);
        let listed = lab.run("alpha", &format!("ls beta:inbox/{door}")).expect(0);
        assert_eq!(String::from_utf8(listed.stdout).unwrap(), format!("{door}\n"), "the link itself");
    }
    lab.run("alpha", "cp beta:inbox/leak here").expect(1);
    lab.run("alpha", "cp beta:inbox//etc/passwd here");
    lab.run("alpha", "cp f beta:inbox/.diskwire-partial/f").expect_line(2, "a name is not allowed");
    assert!(!lab.scratch("here").exists());
    assert_eq!(tree(&outside).len(), 2, "only the secret");
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
    // A file over a link replaces the link, not what it names.
    lab.run("alpha", "cp f beta:inbox/leak").expect(0);
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
    assert_eq!(hash_of(&lab.inbox("beta", "leak")), hash_of(&lab.scratch("f")));
    // Links that lead outside do not travel with a tree.
    let pulled = lab.run("alpha", "cp -r beta:inbox pulled");
    assert!(matches!(pulled.code(), Some(3)), "{pulled:?}");
    assert!(!lab.scratch("pulled/door").exists() && !lab.scratch("pulled/secret").exists());
}

#[test]
fn a_directory_that_becomes_a_link_while_files_arrive_leads_nowhere() {
    let lab = Lab::new();
    let _serve = lab.serve("beta");
    let outside = lab.scratch("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir_all(lab.scratch("tree/d")).unwrap();
    for number in 0..200 {
        write_random(&lab.scratch(format!("tree/d/{number}")), number, 3_000);
    }
    write_random(&lab.scratch("tree/d/large"), 9, 6 << 20);
    fs::create_dir_all(lab.inbox("beta", "tree/d")).unwrap();
    let stop = AtomicBool::new(false);
    let mut tries = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (real, aside) = (lab.inbox("beta", "tree/d"), lab.inbox("beta", "tree/aside"));
            while !stop.load(Ordering::Relaxed) {
                // Each step fails where the copy was faster; that is the point.
                let _ = fs::rename(&real, &aside);
                let _ = symlink(&outside, &real);
                std::thread::sleep(Duration::from_millis(1));
                let _ = fs::remove_file(&real);
                let _ = fs::rename(&aside, &real);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        for _ in 0..6 {
            let done = lab.run("alpha", "cp -q -r tree beta:inbox/");
            tries += i32::from(matches!(done.code(), Some(0 | 1 | 3)));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(tries, 6);
    assert_eq!(tree(&outside).len(), 1, "nothing was written outside");
    lab.run("alpha", "cp -q -r tree beta:inbox/").expect(0);
}

#[test]
fn a_read_only_export_gives_and_does_not_take() {
    let lab = lab_with_file();
    lab.reconfigure("beta", "mode = \"rw\"", "mode = \"ro\"");
    let _serve = lab.serve("beta");
    fs::copy(lab.scratch("f"), lab.inbox("beta", "there")).unwrap();
    lab.run("alpha", "cp f beta:inbox/").expect_line(1, "the export inbox is read-only");
    lab.run("alpha", "cp beta:inbox/there here").expect(0);
    assert_eq!(hash_of(&lab.scratch("here")), hash_of(&lab.scratch("f")));
    assert_eq!(tree(&lab.inbox("beta", "")).len(), 2, "nothing was made in it");
}

#[test]
fn a_missing_export_folder_stops_serve() {
    let lab = lab_with_file();
    fs::remove_dir(lab.inbox("beta", "")).unwrap();
    lab.run("beta", "serve").expect_line(1, "export inbox");
}

// ---- nobody there -----------------------------------------------------------------------------------

#[test]
fn a_call_that_nobody_answers_ends_in_bounded_time() {
    let lab = lab_with_file();
    // Ctrl-C ends the wait at once.
    let cp = lab.start("alpha", "cp f beta:inbox/");
    std::thread::sleep(Duration::from_secs(1));
    cp.signal(Signal::INT);
    cp.wait(Duration::from_secs(5)).expect_line(75, "interrupted");
    let cp = lab.start("alpha", "cp f beta:inbox/");
    let done = cp.wait(Duration::from_secs(75)).expect_line(75, "is `diskwire serve` running there?");
    assert!(done.took > Duration::from_secs(1));
    let _serve = lab.serve("beta");
    assert_works(&lab);
}

#[test]
fn a_serve_that_comes_late_still_answers() {
    let lab = lab_with_file();
    let cp = lab.start("alpha", "cp -q f beta:inbox/");
    std::thread::sleep(Duration::from_secs(3));
    let _serve = lab.serve("beta");
    cp.wait(Duration::from_secs(40)).expect(0);
    assert_eq!(hash_of(&lab.inbox("beta", "f")), hash_of(&lab.scratch("f")));
}
