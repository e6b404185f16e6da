//! `diskwire path` against a running `serve`: seeing, steering and asking why; the socket and who may use it.
//!
//! Not here: what a device does when a path fails (crate `multipath`).

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{LIMIT, Lab, Running, hash_of, skip, write_random};

/// Two paths to every device; of the first secondary of beta one is slow and one hangs from the start.
fn lab() -> Lab {
    let lab = Lab::with("--size 64MiB --paths 2");
    let device = "paths = [\"file:disks/secondary1.img\", \"file:disks/secondary1.img\"]";
    let faulty = "paths = [{ address = \"file:disks/secondary1.img?latency=1ms\", priority = 50 }, \
                  { address = \"file:disks/secondary1.img?hang=after:0\", priority = 50 }]\n\
                  policy = \"round-robin\"\nattempt_timeout = \"1s\"";
    lab.reconfigure("beta", device, faulty);
    lab
}

fn stdout(done: &support::Done) -> String {
    String::from_utf8(done.stdout.clone()).unwrap()
}

fn text(lab: &Lab, line: &str) -> String {
    stdout(&lab.run("beta", line).expect(0))
}

fn json(lab: &Lab, line: &str) -> Value {
    serde_json::from_str(&text(lab, line)).unwrap()
}

/// What `path list --json` says of a path.
fn path(lab: &Lab, device: &str, place: usize) -> Value {
    let list = json(lab, "path list --json");
    let devices = list["lanes"][0]["devices"].as_array().unwrap();
    devices.iter().find(|other| other["device"] == device).unwrap()["paths"][place].clone()
}

/// Waits until a path is in a state.
fn wait_for(lab: &Lab, device: &str, place: usize, state: &str) {
    let deadline = Instant::now() + LIMIT;
    while path(lab, device, place)["state"] != state {
        assert!(Instant::now() < deadline, "{device}/{place} never was {state}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn socket(lab: &Lab, lane: u16) -> PathBuf {
    lab.path(format!("state/beta/paths-{lane}.sock"))
}

/// Sends a line, and gives back what was answered before the end.
fn send(lab: &Lab, bytes: &[u8]) -> Value {
    let stream = UnixStream::connect(socket(lab, 0)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    (&stream).write_all(bytes).unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[test]
fn paths_are_seen_steered_and_explained_while_one_hangs() {
    let lab = lab();
    let serve = lab.serve("beta");
    write_random(&lab.scratch("f"), 1, 4 << 20);
    lab.run("alpha", "cp -q f beta:inbox/f").expect(0);
    assert_eq!(hash_of(&lab.inbox("beta", "f")), hash_of(&lab.scratch("f")));
    wait_for(&lab, "disk1", 1, "failed");

    // A path hangs, and whoever looks is answered at once: goal 20 is 50 ms, a loaded machine gets more.
    let quickest = (0..5).map(|_| lab.run("beta", "path list").expect(0).took).min().unwrap();
    assert!(quickest < Duration::from_secs(1), "{quickest:?}");
    let list = text(&lab, "path list");
    assert!(list.lines().all(|line| line.chars().count() <= 80), "{list}");
    assert!(list.contains("serve (lane 0, process ") && list.contains("disk1: round-robin"), "{list}");
    assert!(list.contains("it gave no answer in time"), "{list}");

    let why = text(&lab, "path why disk1/1");
    assert!(why.contains("ago it failed: it gave no answer in time\n"), "{why}");
    assert!(why.contains("Now it is failed"), "{why}");

    let done = text(&lab, "path fail disk0/1");
    assert!(done.ends_with("disk0/1 is out of use\n"), "{done}");
    assert_eq!(path(&lab, "disk0", 1)["state"], "disabled");
    let show = text(&lab, "path show disk0/1");
    assert!(show.contains("disabled") && show.contains("file:disks/master.img"), "{show}");
    assert!(show.contains("it was taken out of use: an operator wanted it"), "{show}");
    assert_eq!(json(&lab, "path reinstate disk0/1 --json")["lanes"][0]["lane"], 0);
    assert_eq!(path(&lab, "disk0", 1)["state"], "active");

    assert!(text(&lab, "path policy disk1").ends_with(": round-robin\n"));
    text(&lab, "path policy disk1 weighted:3,1");
    assert!(text(&lab, "path policy disk1").ends_with(": weighted:3,1\n"));
    text(&lab, "path group disk1 50");
    lab.run("beta", "path group disk1 7").expect_line(1, "no usable path of priority 7");

    let first = lab.run("beta", "path why disk1 --io").expect_line(0, "kept from now on");
    assert!(stdout(&first).contains("none were kept so far"));
    write_random(&lab.scratch("g"), 2, 4 << 20);
    lab.run("alpha", "cp -q g beta:inbox/g").expect(0);
    let decisions = text(&lab, "path why disk1 --io --most 1000");
    assert!(decisions.contains("sent over path 0"), "{decisions}");
    text(&lab, "path why disk1 --off");
    assert_eq!(json(&lab, "path why disk1 --io --json")["lanes"][0]["is_kept"], false);

    let stat = text(&lab, "path stat");
    assert!(stat.contains("p99.9") && stat.lines().all(|line| line.chars().count() <= 80), "{stat}");
    check_prometheus(&text(&lab, "path stat --prometheus"));
    drop(serve);
}

/// Every line is a comment or a sample with a number, each metric stands in one piece, and paths have their own.
fn check_prometheus(text: &str) {
    let mut seen: Vec<String> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.split(' ');
            assert!(matches!(words.next(), Some("HELP" | "TYPE")), "{line}");
            let name = words.next().unwrap().to_owned();
            if seen.last() != Some(&name) {
                assert!(!seen.contains(&name), "{name} in two pieces");
                seen.push(name);
            }
            continue;
        }
        let (labels, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(labels.starts_with(seen.last().unwrap().as_str()) && labels.ends_with('}'), "{line}");
        assert!(labels.contains("{lane=\"0\",device=\""), "{line}");
    }
    let failed = "diskwire_path_state{lane=\"0\",device=\"disk1\",path=\"1\"";
    let line = text.lines().find(|line| line.starts_with(failed) && line.contains("\"failed\"")).unwrap();
    assert!(line.ends_with(" 1"), "{line}");
}

#[test]
fn a_watcher_sees_changes_and_ends_when_it_is_told() {
    let lab = Lab::with("--size 64MiB --paths 2");
    let serve = lab.serve("beta");
    let mut watch = lab.start("beta", "path watch");
    watch.wait_until_written("disk0/1 is active", LIMIT);
    text(&lab, "path fail disk0/1");
    watch.wait_until_written("disk0/1 is disabled: an operator wanted it", LIMIT);
    watch.signal(rustix::process::Signal::INT);
    watch.wait(LIMIT).expect(0);
    let once = text(&lab, "path watch --count 1");
    assert!(once.contains("disk0/1 is disabled: an operator wanted it\n"), "{once}");
    assert!(!once.contains('\x1b'), "{once:?}");
    drop(serve);
}

#[test]
fn nobody_and_mistakes_are_one_line_with_a_remedy() {
    let lab = Lab::with("--size 64MiB --paths 2");
    for line in ["path list", "path fail disk0/1", "path watch", "path stat --prometheus"] {
        lab.run("beta", line).expect_line(1, "no process of host beta is running; start one");
    }
    let serve = lab.serve("beta");
    lab.run("beta", "path fail disk0/2").expect_line(1, "device disk0 has no path 2: its paths are 0 to 1");
    lab.run("beta", "path show disk0/2").expect_line(1, "no path 2");
    lab.run("beta", "path fail disk9/0").expect_line(1, "there is no device `disk9`; the devices are disk0");
    lab.run("beta", "path fail disk0").expect_line(2, "name one path of disk0, as in disk0/0");
    lab.run("beta", "path policy disk0 fastest").expect_line(2, "there is no selector");
    lab.run("beta", "path why disk0/x").expect_line(2, "names no device and no path");
    // A process that was killed leaves its socket; the next one takes its place.
    serve.kill();
    assert!(socket(&lab, 0).exists());
    lab.run("beta", "path list").expect_line(1, "no process of host beta is running");
    let serve = lab.serve("beta");
    lab.run("beta", "path list").expect(0);
    serve.signal(rustix::process::Signal::TERM);
    serve.wait(LIMIT).expect(0);
    assert!(!socket(&lab, 0).exists(), "a process that ends in order takes its socket along");
}

#[test]
fn a_copy_answers_beside_serve() {
    let lab = Lab::with("--size 64MiB --paths 2");
    let serve = lab.serve("beta");
    let also = lab.serve("alpha");
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut command = lab.command("beta");
    command.args(["cp", "-q", "-", "alpha:inbox/stream"]).stdin(reader);
    let cp = Running::start(command);
    writer.write_all(&[7; 1000]).unwrap();
    let deadline = Instant::now() + LIMIT;
    let lanes = loop {
        let list = json(&lab, "path list --json");
        let lanes = list["lanes"].as_array().unwrap().clone();
        if lanes.len() == 2 {
            break lanes;
        }
        assert!(Instant::now() < deadline, "{list}");
    };
    assert_eq!((&lanes[0]["process"], &lanes[1]["process"]), (&"serve".into(), &"command".into()));
    assert_eq!(text(&lab, "path fail disk0/1").lines().count(), 2);
    drop(writer);
    cp.wait(LIMIT).expect(0);
    drop((serve, also));
}

#[test]
fn the_socket_is_for_its_user_and_nonsense_does_no_harm() {
    let lab = Lab::with("--size 64MiB --paths 2");
    let serve = lab.serve("beta");
    let metadata = fs::metadata(socket(&lab, 0)).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    let error = |bytes: &[u8]| send(&lab, bytes)["error"].as_str().unwrap().to_owned();
    assert!(error(b"hello\n").contains("this is no request"));
    assert!(error(b"\xff\xfe\0\n").contains("this is no request"));
    assert!(error(&[&[b'['; 4000][..], b"\n"].concat()).contains("this is no request"));
    assert!(error(b"{\"version\":2,\"command\":\"show\"}\n").contains("version 2"));
    assert!(error(b"{\"version\":1,\"command\":\"format\"}\n").contains("this is no request"));
    assert!(error(&[b'x'; 65_536]).contains("more than 65536 bytes"));
    let policy = b"{\"version\":1,\"command\":\"policy\",\"device\":\"disk0\",\"policy\":\"\\u001b[31m\"}\n";
    assert!(error(policy).contains("there is no selector"));
    assert_eq!(send(&lab, b"{\"version\":1,\"command\":\"show\",\"more\":3}\n")["version"], 1);
    // Those that say nothing take all seats, and the next one is told so; when they go, there is room.
    let deadline = Instant::now() + LIMIT;
    let mut quiet = Vec::new();
    loop {
        let mut next = UnixStream::connect(socket(&lab, 0)).unwrap();
        next.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut said = [0; 4096];
        let count = next.read(&mut said).unwrap_or(0);
        if String::from_utf8_lossy(&said[..count]).contains("8 clients are served already") {
            break;
        }
        quiet.push(next);
        assert!(Instant::now() < deadline, "{} clients were let in", quiet.len());
    }
    drop(quiet);
    let deadline = Instant::now() + LIMIT;
    while lab.run("beta", "path list").code() != Some(0) {
        assert!(Instant::now() < deadline, "no seat becomes free");
    }
    // And files go through all the while.
    write_random(&lab.scratch("f"), 3, 1 << 20);
    lab.run("alpha", "cp -q f beta:inbox/f").expect(0);
    drop(serve);
}

#[test]
fn another_user_is_refused() {
    let name = "another_user_is_refused";
    if !rustix::process::geteuid().is_root() {
        return skip(name, "only root can become another user");
    }
    let lab = Lab::with("--size 64MiB --paths 2");
    let serve = lab.serve("beta");
    // Doors wide open, so that only the socket itself is in the way; then not even that.
    let mut folder = lab.path("state/beta");
    while folder.starts_with(lab.scratch("")) {
        let mode = fs::metadata(&folder).unwrap().permissions().mode();
        let _ = fs::set_permissions(&folder, fs::Permissions::from_mode(mode | 0o055));
        folder.pop();
    }
    let ask = || {
        let mut command = lab.command("beta");
        command.args(["path", "list"]).uid(65534).gid(65534);
        Running::start(command).wait(LIMIT)
    };
    fs::set_permissions(lab.path("beta.toml"), fs::Permissions::from_mode(0o644)).unwrap();
    ask().expect_line(1, "it belongs to another user");
    fs::set_permissions(socket(&lab, 0), fs::Permissions::from_mode(0o666)).unwrap();
    ask().expect_line(1, "user 65534 may not: only user 0 and root may");
    lab.run("beta", "path list").expect(0);
    drop(serve);
}

#[test]
fn a_process_that_is_stopped_is_named_and_not_waited_for() {
    let lab = Lab::with("--size 64MiB --paths 2");
    // Whoever listens and never answers is like a stopped process.
    let listener = UnixListener::bind(socket(&lab, 2)).unwrap();
    let serve = lab.serve("beta");
    let done = lab.run("beta", "path list").expect_line(0, "lane 2: no answer within 5 s");
    assert!(stdout(&done).contains("serve (lane 0"));
    let done = lab.run("beta", "path fail disk0/1").expect_line(3, "lane 2: no answer within 5 s");
    assert!(stdout(&done).contains("disk0/1 is out of use"));
    drop((listener, serve));
}

#[test]
fn copies_that_an_earlier_process_left_are_said_and_shown() {
    let lab = Lab::with("--size 64MiB --paths 2");
    let config: toml::Table = fs::read_to_string(lab.path("beta.toml")).unwrap().parse().unwrap();
    let volume = config["volume"]["id"].as_str().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let copy = serde_json::json!({
        "device": "disk1", "path": "file:disks/secondary1.img", "lba": 9000, "blocks": 3,
        "assumed_dead_at": u64::try_from(now.as_millis()).unwrap() + 3_600_000,
    });
    let stored = serde_json::json!({ "version": 1, "volume": volume, "copies": [copy] });
    let file = |lane: u16| lab.path(format!("state/beta/lane-{lane}-{}.copies", &volume[..8]));
    fs::write(file(5), stored.to_string()).unwrap();
    fs::write(file(6), "damaged").unwrap();
    let serve = lab.serve("beta");
    let said = serve.said();
    assert!(said.contains("disk1: writes to 1 ranges wait for up to 30.0 s"), "{said}");
    assert!(said.contains("is left out: it is damaged"), "{said}");
    let shown = text(&lab, "path show disk1");
    assert!(shown.contains("3 blocks from 9000 on path 0") && shown.contains("(inherited)"), "{shown}");
    // The next one after this process is told too: it has written down what it holds.
    let deadline = Instant::now() + LIMIT;
    while !file(0).exists() {
        assert!(Instant::now() < deadline, "nothing was written");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(fs::read_to_string(file(0)).unwrap().contains("9000"));
}
