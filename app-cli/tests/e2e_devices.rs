//! Real block devices (loop devices of both block sizes) and several hosts on one volume.
//!
//! Not here: faults of devices. DISKWIRE_FULL=1 sends 2 and 5 GiB instead of 64 and 100 MiB.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::io::{self, Read, Write};
use std::time::Duration;

use support::loop_device::LoopDevice;
use support::{Lab, Numbers, Running, full, hash_of, skip, write_random};

fn carry_over_loop_devices(name: &str, block_bytes: u32) {
    let folder = tempfile::tempdir().unwrap();
    let device = |file: &str, bytes| LoopDevice::new(&folder.path().join(file), bytes, block_bytes);
    let (master, secondary) = match (device("master", 64 << 20), device("secondary", 256 << 20)) {
        (Ok(master), Ok(secondary)) => (master, secondary),
        (Err(why), _) | (_, Err(why)) => return skip(name, &why),
    };
    let nodes = (master.node.display(), secondary.node.display());
    let lab = Lab::with(&format!("--master {} --secondary {}", nodes.0, nodes.1));
    let serve = lab.serve("beta");
    let long = Duration::from_secs(if full() { 900 } else { 60 });
    let bytes = if full() { 2 << 30 } else { 64 << 20 };
    let sent = write_random(&lab.scratch("f"), 1, bytes);
    lab.start("alpha", "cp -q f beta:inbox/f").wait(long).expect(0);
    assert_eq!(hash_of(&lab.inbox("beta", "f")), sent);
    lab.start("alpha", "cp -q beta:inbox/f back").wait(long).expect(0);
    assert_eq!(hash_of(&lab.scratch("back")), sent);
    let (reader, mut writer) = io::pipe().unwrap();
    let mut command = lab.command("alpha");
    command.args(["cp", "-q", "-", "beta:inbox/stream"]).stdin(reader);
    let cp = Running::start(command);
    let bytes = if full() { 5 << 30 } else { 100 << 20 };
    let sent = pour(&mut writer, bytes);
    drop(writer);
    cp.wait(long).expect(0);
    assert_eq!(hash_of(&lab.inbox("beta", "stream")), sent);
    drop(serve);
    lab.assert_volume_sound("alpha");
}

/// Writes so many random bytes and returns their hash.
fn pour(into: &mut impl Write, bytes: u64) -> blake3::Hash {
    let mut source = Numbers::new(9).into_reader().take(bytes);
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; 300_000];
    loop {
        let count = source.read(&mut piece).unwrap();
        if count == 0 {
            return hasher.finalize();
        }
        hasher.update(&piece[..count]);
        into.write_all(&piece[..count]).unwrap();
    }
}

#[test]
fn loop_devices_of_512_bytes_carry_files_and_streams() {
    carry_over_loop_devices("loop_devices_of_512_bytes_carry_files_and_streams", 512);
}

#[test]
fn loop_devices_of_4096_bytes_carry_files_and_streams() {
    carry_over_loop_devices("loop_devices_of_4096_bytes_carry_files_and_streams", 4096);
}

#[test]
fn three_hosts_send_to_each_other_at_once() {
    const HOSTS: [&str; 3] = ["a", "b", "c"];
    let lab = Lab::with("--host a --host b --host c --size 160MiB --paths 2");
    let serves: Vec<_> = HOSTS.iter().map(|host| lab.serve(host)).collect();
    for (seed, host) in (0..).zip(HOSTS) {
        write_random(&lab.scratch(host), seed, 8_000_000 + seed);
    }
    let mut copies = Vec::new();
    for from in HOSTS {
        for to in HOSTS.iter().filter(|to| **to != from) {
            copies.push(lab.start(from, &format!("cp -q {from} {to}:inbox/")));
        }
    }
    for copy in copies {
        copy.wait(Duration::from_secs(60)).expect(0);
    }
    for from in HOSTS {
        for to in HOSTS.iter().filter(|to| **to != from) {
            assert_eq!(hash_of(&lab.inbox(to, from)), hash_of(&lab.scratch(from)), "{from} to {to}");
        }
    }
    drop(serves);
    lab.assert_volume_sound("a");
}

#[test]
fn several_copies_of_one_host_run_at_once_and_one_more_waits() {
    let lab = Lab::with("--size 160MiB --lanes 3");
    let _serve = lab.serve("beta");
    for seed in 0..5 {
        write_random(&lab.scratch(seed.to_string()), seed, 6_000_000 + seed);
    }
    write_random(&lab.inbox("beta", "there"), 9, 6_000_000);
    let mut copies: Vec<_> =
        (0..4).map(|seed| lab.start("alpha", &format!("cp -q {seed} beta:inbox/"))).collect();
    copies.push(lab.start("alpha", "cp -q beta:inbox/there here"));
    for copy in copies {
        copy.wait(Duration::from_secs(60)).expect(0);
    }
    for seed in 0..4 {
        let name = seed.to_string();
        assert_eq!(hash_of(&lab.inbox("beta", &name)), hash_of(&lab.scratch(&name)), "{name}");
    }
    assert_eq!(hash_of(&lab.scratch("here")), hash_of(&lab.inbox("beta", "there")));
}

#[test]
fn every_lane_in_use_is_try_again() {
    let lab = Lab::with("--size 64MiB --lanes 1");
    let _serve = lab.serve("beta");
    let (reader, mut writer) = io::pipe().unwrap();
    let mut command = lab.command("alpha");
    command.args(["cp", "-q", "-", "beta:inbox/stream"]).stdin(reader);
    let mut cp = Running::start(command);
    writer.write_all(&[7; 1000]).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(!cp.has_ended());
    lab.run("alpha", "ls beta:inbox").expect_line(75, "lanes of this host are in use");
    drop(writer);
    cp.wait(Duration::from_secs(20)).expect(0);
    assert_eq!(std::fs::read(lab.inbox("beta", "stream")).unwrap(), [7; 1000]);
}
