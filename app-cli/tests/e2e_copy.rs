//! `cp` and `ls` between two real processes: every kind of source and target, and what the shell sees.
//!
//! Not here: faults (`e2e_faults`), kills (`e2e_crash`), real devices (`e2e_devices`).

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use support::{LIMIT, Lab, Running, assert_same_tree, bytes, hash_of, tree, write_random};

#[test]
fn a_file_is_pushed_as_it_is_renamed_and_into_directories() {
    let lab = Lab::new();
    let serve = lab.serve("beta");
    let sent = write_random(&lab.scratch("f"), 1, 5_000_001);
    lab.run("alpha", "cp f beta:inbox/").expect(0);
    lab.run("alpha", "cp f beta:inbox/renamed").expect(0);
    fs::create_dir(lab.inbox("beta", "sub")).unwrap();
    lab.run("alpha", "cp f beta:inbox/sub").expect(0);
    lab.run("alpha", "cp f beta:inbox/sub/").expect(0);
    for name in ["f", "renamed", "sub/f"] {
        assert_eq!(hash_of(&lab.inbox("beta", name)), sent, "{name}");
    }
    assert_eq!(tree(&lab.inbox("beta", "")).len(), 5, "and nothing else");
    lab.run("alpha", "cp f beta:inbox/none/f").expect_line(1, "none: the destination's directory: not found");
    lab.run("alpha", "cp f beta:inbox/none/").expect_line(1, "none: the destination does not exist");
    lab.assert_no_partial(&lab.inbox("beta", ""));
    let done = lab.run("alpha", "ls beta:inbox").expect(0);
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "f\nrenamed\nsub/\n");
    drop(serve);
}

#[test]
fn a_file_is_pulled_as_it_is_renamed_and_into_directories() {
    let lab = Lab::new();
    let _serve = lab.serve("beta");
    let sent = write_random(&lab.inbox("beta", "f"), 2, 5_000_001);
    fs::create_dir(lab.scratch("here")).unwrap();
    lab.run("alpha", "cp beta:inbox/f .").expect(0);
    lab.run("alpha", "cp beta:inbox/f renamed").expect(0);
    lab.run("alpha", "cp beta:inbox/f here").expect(0);
    for name in ["f", "renamed", "here/f"] {
        assert_eq!(hash_of(&lab.scratch(name)), sent, "{name}");
    }
    lab.run("alpha", "cp beta:inbox/f none/").expect_line(1, "none/: not found");
    lab.run("alpha", "cp beta:inbox/f none/f").expect_line(1, "none: not found");
    lab.run("alpha", "cp beta:inbox/none x").expect_line(1, "none: not found");
    for folder in [lab.scratch(""), lab.scratch("here")] {
        lab.assert_no_partial(&folder);
    }
    assert!(!lab.scratch("x").exists());
}

#[test]
fn several_sources_go_into_one_directory() {
    let lab = Lab::new();
    let _serve = lab.serve("beta");
    for (seed, name) in [(1, "a"), (2, "b"), (3, "c")] {
        write_random(&lab.scratch(name), seed, 300_000 * seed);
    }
    lab.run("alpha", "cp a b c beta:inbox").expect(0);
    fs::create_dir(lab.scratch("back")).unwrap();
    lab.run("alpha", "cp beta:inbox/a beta:inbox/b beta:inbox/c back").expect(0);
    for name in ["a", "b", "c"] {
        assert_eq!(hash_of(&lab.inbox("beta", name)), hash_of(&lab.scratch(name)));
        assert_eq!(hash_of(&lab.scratch("back").join(name)), hash_of(&lab.scratch(name)));
    }
    let done = lab.run("alpha", "cp a none beta:inbox").expect_line(3, "none");
    assert!(done.stderr.contains("partly done"), "{done:?}");
    lab.run("alpha", "cp none beta:inbox").expect(1);
    lab.run("alpha", "cp a b beta:inbox/a").expect_line(1, "not a directory");
    assert_eq!(hash_of(&lab.inbox("beta", "a")), hash_of(&lab.scratch("a")), "the old file is as it was");
}

/// A tree with something of everything that travels.
fn make_tree(root: &Path) {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000 + seconds, 123_456_789);
    fs::create_dir_all(root.join("deep/er/and/deeper")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    fs::create_dir(root.join("many")).unwrap();
    for number in 0..150 {
        write_random(&root.join(format!("many/{number}")), number, number * 37);
    }
    write_random(&root.join("deep/large"), 7, 3 << 20);
    write_random(&root.join("deep/er/odd"), 8, (1 << 20) + 17);
    File::create(root.join("deep/er/and/nothing")).unwrap();
    symlink("large", root.join("deep/link")).unwrap();
    symlink("../../many/7", root.join("deep/er/up")).unwrap();
    symlink("dangling", root.join("deep/er/and/dangling")).unwrap();
    for (number, (path, mode)) in
        [("deep/large", 0o640), ("deep/er/odd", 0o755), ("deep/er/and/nothing", 0o400), ("many/3", 0o600)]
            .into_iter()
            .enumerate()
    {
        let file = File::open(root.join(path)).unwrap();
        file.set_modified(at(number as u64)).unwrap();
        file.set_permissions(Permissions::from_mode(mode)).unwrap();
    }
    // Only root may give files away, and only then do owners travel.
    for path in ["deep/large", "many/9", "empty"] {
        let _ = chown(root.join(path), Some(1234), Some(5678));
    }
    for (path, mode) in [("empty", 0o711), ("deep/er", 0o750), ("deep", 0o700), ("", 0o755)] {
        let folder = File::open(root.join(path)).unwrap();
        folder.set_permissions(Permissions::from_mode(mode)).unwrap();
        folder.set_modified(at(100)).unwrap();
    }
}

#[test]
fn trees_travel_both_ways_entry_by_entry() {
    let lab = Lab::new();
    let _serve = lab.serve("beta");
    make_tree(&lab.scratch("tree"));
    lab.run("alpha", "cp -r -p tree beta:inbox/").expect(0);
    assert_same_tree(&lab.scratch("tree"), &lab.inbox("beta", "tree"));
    lab.run("alpha", "cp -r -p tree beta:inbox/named").expect(0);
    assert_same_tree(&lab.scratch("tree"), &lab.inbox("beta", "named"));
    lab.run("alpha", "cp -r -p beta:inbox/tree back").expect(0);
    assert_same_tree(&lab.scratch("tree"), &lab.scratch("back"));
    // Once more over what is there: the same again.
    lab.run("alpha", "cp -r -p tree beta:inbox/").expect(0);
    assert_same_tree(&lab.scratch("tree"), &lab.inbox("beta", "tree"));
    lab.assert_no_partial(&lab.inbox("beta", ""));
    lab.assert_no_partial(&lab.scratch(""));
    lab.run("alpha", "cp tree beta:inbox/flat").expect_line(1, "-r");
}

#[test]
fn streams_come_from_standard_input_and_go_to_standard_output() {
    let lab = Lab::new();
    let _serve = lab.serve("beta");
    for (seed, length) in [(1, 0), (2, 1), (3, 1 << 20), (4, 7_654_321)] {
        let content = bytes(seed, length);
        let mut command = lab.command("alpha");
        command.args(["cp", "-", "beta:inbox/stream"]);
        let (reader, mut writer) = std::io::pipe().unwrap();
        command.stdin(reader);
        let running = Running::start(command);
        for piece in content.chunks(100_000) {
            writer.write_all(piece).unwrap();
        }
        drop(writer);
        running.wait(LIMIT).expect(0);
        assert!(fs::read(lab.inbox("beta", "stream")).unwrap() == content, "{length} bytes");
        let back = lab.run("alpha", "cp -q beta:inbox/stream -").expect(0);
        assert_eq!(back.stderr, "");
        assert!(back.stdout == content, "{length} bytes");
    }
    let gone = lab.run("alpha", "cp beta:inbox/none -").expect_line(1, "not found");
    assert!(gone.stdout.is_empty());
    lab.assert_no_partial(&lab.inbox("beta", ""));
}

#[test]
fn no_clobber_leaves_what_is_there() {
    let lab = Lab::new();
    let _serve = lab.serve("beta");
    write_random(&lab.scratch("f"), 1, 2_000_000);
    write_random(&lab.scratch("g"), 2, 2_000);
    fs::write(lab.inbox("beta", "f"), "old").unwrap();
    fs::write(lab.inbox("beta", "g"), "old").unwrap();
    let refused = lab.run("alpha", "cp -n f g beta:inbox");
    assert_eq!(fs::read(lab.inbox("beta", "f")).unwrap(), b"old", "{refused:?}");
    assert_eq!(fs::read(lab.inbox("beta", "g")).unwrap(), b"old", "{refused:?}");
    assert!(refused.stderr.contains("exists already"), "{refused:?}");
    lab.run("alpha", "cp f g beta:inbox").expect(0);
    assert_eq!(hash_of(&lab.inbox("beta", "f")), hash_of(&lab.scratch("f")));
    assert_eq!(hash_of(&lab.inbox("beta", "g")), hash_of(&lab.scratch("g")));
    fs::write(lab.scratch("f"), "mine").unwrap();
    lab.run("alpha", "cp -n beta:inbox/f f");
    assert_eq!(fs::read(lab.scratch("f")).unwrap(), b"mine");
    lab.assert_no_partial(&lab.inbox("beta", ""));
}

#[test]
fn an_empty_file_and_odd_names_arrive() {
    let lab = Lab::new();
    let _serve = lab.serve("beta");
    let names: [&[u8]; 6] = [
        b"with space",
        b"new\nline",
        b"\xff\xfe not UTF-8",
        b"-dash",
        b"t\tab",
        "ünïcode \u{202e}".as_bytes(),
    ];
    fs::create_dir(lab.scratch("odd")).unwrap();
    File::create(lab.scratch("odd/empty")).unwrap();
    for (seed, name) in (0..).zip(names) {
        write_random(&lab.scratch("odd").join(OsStr::from_bytes(name)), seed, 1_000 * seed);
    }
    let mut command = lab.command("alpha");
    command.args(["cp", "--"]);
    for name in names {
        command.arg(lab.scratch("odd").join(OsStr::from_bytes(name)));
    }
    command.arg("beta:inbox/");
    Running::start(command).wait(LIMIT).expect(0);
    lab.run("alpha", "cp odd/empty beta:inbox/").expect(0);
    assert_eq!(fs::metadata(lab.inbox("beta", "empty")).unwrap().len(), 0);
    for name in names {
        let name = OsStr::from_bytes(name);
        assert_eq!(hash_of(&lab.inbox("beta", name)), hash_of(&lab.scratch("odd").join(name)), "{name:?}");
        let mut remote = b"beta:inbox/".to_vec();
        remote.extend_from_slice(name.as_bytes());
        let mut command = lab.command("alpha");
        command.arg("cp").arg(OsStr::from_bytes(&remote)).arg("back");
        Running::start(command).wait(LIMIT).expect(0);
        assert_eq!(hash_of(&lab.scratch("back")), hash_of(&lab.scratch("odd").join(name)), "{name:?}");
    }
    lab.run("alpha", "cp -r beta:inbox all").expect(0);
    assert_eq!(tree(&lab.scratch("all")).len(), names.len() + 2);
    let listed = lab.run("alpha", "ls beta:inbox").expect(0);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(listed.lines().count(), names.len() + 1, "{listed}");
    assert!(!listed.replace('\n', "").chars().any(char::is_control), "{listed:?}");
}

#[test]
fn json_is_one_object_for_success_and_failure() {
    let lab = Lab::new();
    let _serve = lab.serve("beta");
    write_random(&lab.scratch("f"), 1, 2_000_000);
    write_random(&lab.scratch("g"), 2, 2_000);
    let parse = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
    let done = lab.run("alpha", "cp --json f g beta:inbox").expect(0);
    let value = parse(&done.stdout);
    assert_eq!((&value["outcome"], &value["files"]), (&"done".into(), &2.into()), "{value}");
    assert_eq!((&value["bytes"], &value["peer"]), (&2_002_000.into(), &"beta".into()), "{value}");
    let partly = lab.run("alpha", "cp --json f none beta:inbox").expect(3);
    let value = parse(&partly.stdout);
    assert_eq!((&value["outcome"], &value["files_failed"]), (&"partly_done".into(), &1.into()), "{value}");
    assert_eq!(value["failures"][0]["path"], "none", "{value}");
    let failed = lab.run("alpha", "cp --json none beta:inbox").expect(1);
    assert_eq!(parse(&failed.stdout)["outcome"], "failed");
    let list = lab.run("alpha", "ls --json beta:inbox").expect(0);
    assert_eq!(parse(&list.stdout)["entries"].as_array().unwrap().len(), 2);
    let quiet = lab.run("alpha", "cp -q f beta:inbox").expect(0);
    assert_eq!((quiet.stdout, quiet.stderr.as_str()), (Vec::new(), ""));
}
