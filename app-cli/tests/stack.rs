//! What may be stacked as the paths of one device, and what carries nothing: files, names of one file, NBD exports.
//!
//! Skipped where nbdkit is missing; `DISKWIRE_NO_SKIP=1` makes that a failure.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant as RealTime};

use diskwire::config::{DeviceConfig, PathText};
use diskwire::stack::{self, Contents, Origin, Owner, Stacked};
use multipath::control::{Answer, Command as Ask, Control};
use multipath::out_of_band::command_table::UserRows;
use multipath::report::Snapshot;
use multipath::{FailoverConfig, NoPathPolicy, PathConfig, SelectorKind};
use storage_mapping::{BlockDevice, Buffer, Instant, IoRequest, IoTag, Lba, wait};
use support::skip;

const BLOCK: usize = 4096;

fn config(paths: &[String]) -> DeviceConfig {
    let path = |(at, text): (usize, &String)| PathText {
        text: text.clone(),
        line: at + 1,
        config: PathConfig::default(),
    };
    let no_path = NoPathPolicy::QueueFor(Duration::from_secs(3));
    DeviceConfig {
        id: "master".parse().unwrap(),
        paths: paths.iter().enumerate().map(path).collect(),
        policy: SelectorKind::RoundRobin,
        failover: FailoverConfig { no_path, probe_interval: Duration::from_millis(50), ..Default::default() },
    }
}

fn origin(folder: &Path) -> Origin {
    let owner = Owner { host: "alpha".to_owned(), is_serve: true };
    let commands = UserRows::default();
    Origin { file: "host.toml".into(), base: folder.to_owned(), owner, commands, copies: None }
}

fn stacked(
    folder: &Path,
    paths: &[String],
    contents: Contents,
) -> Result<Stacked<Box<dyn BlockDevice>>, String> {
    let device = stack::device(&origin(folder), &config(paths), contents);
    device.map_err(|error| error.to_string())
}

/// Drives a device in real time; every completion is counted, failed ones too.
struct Bench {
    device: Box<dyn BlockDevice>,
    control: Control,
    began: RealTime,
}

impl Bench {
    fn new(folder: &Path, paths: &[String], contents: Contents) -> Self {
        let mut stacked = stacked(folder, paths, contents).unwrap();
        Self { device: stacked.value, control: stacked.controls.remove(0), began: RealTime::now() }
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.began.elapsed()
    }

    /// Writes a block; says whether it was done.
    fn write(&mut self, lba: u64, value: u8) -> bool {
        let data = Buffer::copy_of(&[value; BLOCK]).freeze();
        self.device.submit(self.now(), IoRequest::write(IoTag(lba), Lba(lba), data, false)).unwrap();
        loop {
            if let Some(done) = self.device.poll(self.now()) {
                return done.outcome.is_ok();
            }
            self.wait();
        }
    }

    fn wait(&mut self) {
        while self.device.poll_event(self.now()).is_some() {}
        let mut descriptors = Vec::new();
        self.device.wait_on(&mut descriptors);
        let until = self.device.next_wakeup().map(|at| at.since(self.now()));
        wait::wait(&descriptors, Some(until.unwrap_or(Duration::MAX).min(Duration::from_millis(20))));
    }

    /// Gets on until the device looks like this.
    fn until(&mut self, is_so: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let patience = Duration::from_secs(60);
        loop {
            let control = self.control.clone();
            let asked = std::thread::spawn(move || control.ask(Ask::Show, patience));
            while !asked.is_finished() {
                assert!(self.device.poll(self.now()).is_none());
                self.wait();
            }
            let Ok(Answer::Shown(snapshot)) = asked.join().unwrap() else { panic!("the loop runs") };
            if is_so(&snapshot) {
                return *snapshot;
            }
            assert!(self.began.elapsed() < patience, "{snapshot:?}");
        }
    }
}

/// nbdkit on a socket; it ends when this is dropped.
struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    fn start(folder: &Path, name: &str, arguments: &[&str]) -> Result<Self, String> {
        let socket = folder.join(name);
        let mut command = Command::new("nbdkit");
        command.args(["--foreground", "--exit-with-parent", "--unix"]).arg(&socket).args(arguments);
        let child = command.stdin(Stdio::null()).spawn().map_err(|error| format!("nbdkit: {error}"))?;
        let server = Self { child, socket };
        let began = RealTime::now();
        while !server.socket.exists() {
            assert!(began.elapsed() < Duration::from_secs(30), "nbdkit does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    fn address(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn states(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.paths.iter().map(|path| path.state).collect()
}

#[test]
fn two_files_are_not_the_paths_of_one_device_and_two_names_of_one_are() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        std::fs::write(folder.path().join(name), vec![0; 1 << 20]).unwrap();
    }
    std::os::unix::fs::symlink("a", folder.path().join("link")).unwrap();
    let paths = ["file:a", "file:link", "file:b"].map(str::to_owned);
    let error = stacked(folder.path(), &paths, Contents::Volume).err().unwrap();
    let expected = "host.toml:3: device master: path 2 `file:b` is another disk than path 0 `file:a`: list the paths of one disk under one device";
    assert_eq!(error, expected);
    let mut bench = Bench::new(folder.path(), &paths[..2], Contents::Volume);
    assert!((0..4).all(|lba| bench.write(lba, 1)));
    let shown = bench.until(|_| true);
    assert!(shown.paths.iter().all(|path| path.requests > 0), "both from the start: {shown:?}");
}

#[test]
fn an_export_with_other_contents_never_carries_a_write() {
    let test = "an_export_with_other_contents_never_carries_a_write";
    let folder = tempfile::tempdir().unwrap();
    let (image, foreign) = (folder.path().join("image"), folder.path().join("foreign"));
    std::fs::write(&image, vec![1; 1 << 20]).unwrap();
    std::fs::write(&foreign, vec![2; 1 << 20]).unwrap();
    let start =
        |name, image: &Path| Server::start(folder.path(), name, &["file", &image.display().to_string()]);
    let servers = [start("a.sock", &image), start("b.sock", &image), start("c.sock", &foreign)];
    let [a, b, c] = servers;
    let (a, b, c) = match (a, b, c) {
        (Ok(a), Ok(b), Ok(c)) => (a, b, c),
        (Err(reason), ..) | (_, Err(reason), _) | (.., Err(reason)) => return skip(test, &reason),
    };
    let paths = [a.address(), b.address(), c.address()];
    let mut bench = Bench::new(folder.path(), &paths, Contents::Volume);
    assert!((0..32).all(|lba| bench.write(lba, 7)));
    let shown = bench.until(|shown| states(shown) == ["active", "active", "foreign"]);
    assert!(shown.paths[2].reason.is_some(), "{shown:?}");
    // The right ones die: now the foreign one is the only one that answers, and still carries nothing.
    drop((a, b));
    assert!(!bench.write(40, 7), "there is no path to this disk any more");
    let shown = bench.until(|_| true);
    assert_eq!((shown.paths[2].requests, states(&shown)[2]), (0, "foreign"));
    assert!(std::fs::read(&foreign).unwrap().iter().all(|byte| *byte == 2), "not a byte was written");
}

#[test]
fn blank_exports_are_written_over_one_path_only() {
    let test = "blank_exports_are_written_over_one_path_only";
    let folder = tempfile::tempdir().unwrap();
    let servers = [0, 1].map(|at| Server::start(folder.path(), &format!("{at}.sock"), &["memory", "1M"]));
    let [Ok(one), Ok(two)] = servers else { return skip(test, "there is no nbdkit on this machine") };
    let mut bench = Bench::new(folder.path(), &[one.address(), two.address()], Contents::Blank);
    assert!((0..8).all(|lba| bench.write(lba, 7)));
    assert_eq!(bench.until(|_| true).paths.len(), 1);
    // What was written tells now.
    let mut bench = Bench::new(folder.path(), &[one.address(), two.address()], Contents::Volume);
    assert!((0..8).all(|lba| bench.write(lba, 8)));
    bench.until(|shown| states(shown) == ["active", "foreign"]);
}

#[test]
fn a_server_for_one_connection_is_one_path() {
    let test = "a_server_for_one_connection_is_one_path";
    let folder = tempfile::tempdir().unwrap();
    let several = Server::start(folder.path(), "a.sock", &["memory", "1M"]);
    let arguments = ["--filter=multi-conn", "memory", "1M", "multi-conn-mode=disable"];
    let single = Server::start(folder.path(), "b.sock", &arguments);
    let (Ok(several), Ok(single)) = (several, single) else {
        return skip(test, "there is no nbdkit on this machine");
    };
    let twice = |server: &Server| [server.address(), server.address()];
    let error = stacked(folder.path(), &twice(&single), Contents::Volume).err().unwrap();
    assert!(error.starts_with("host.toml:2: device master: paths 0 and 1 are NBD exports"), "{error}");
    assert!(stacked(folder.path(), &[single.address()], Contents::Volume).is_ok());
    let mut bench = Bench::new(folder.path(), &twice(&several), Contents::Volume);
    assert!((0..8).all(|lba| bench.write(lba, 7)));
    bench.until(|shown| states(shown) == ["active", "active"]);
}

#[test]
fn a_path_whose_server_comes_later_is_compared_and_used() {
    let test = "a_path_whose_server_comes_later_is_compared_and_used";
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    std::fs::write(&image, vec![1; 1 << 20]).unwrap();
    let start = |name| Server::start(folder.path(), name, &["file", &image.display().to_string()]);
    let early = match start("early.sock") {
        Ok(server) => server,
        Err(reason) => return skip(test, &reason),
    };
    let late = format!("nbd+unix:///?socket={}", folder.path().join("late.sock").display());
    // The one that is away is the first one of the configuration.
    let paths = [late.clone(), early.address()];
    let notices = stacked(folder.path(), &paths, Contents::Volume).unwrap().notices;
    assert!(
        notices.iter().any(|notice| notice.starts_with(&format!("master: path 0 `{late}` is not there"))),
        "{notices:?}"
    );
    let mut bench = Bench::new(folder.path(), &paths, Contents::Volume);
    assert!((0..8).all(|lba| bench.write(lba, 7)));
    let shown = bench.until(|shown| states(shown) == ["failed", "active"]);
    assert!(shown.paths[0].reason.as_deref().is_some_and(|why| why.contains("tried again")), "{shown:?}");
    let _late = start("late.sock").unwrap();
    let shown = bench.until(|shown| states(shown) == ["active", "active"]);
    assert_eq!(shown.paths[0].requests, 0, "nothing went over it before that: {shown:?}");
    assert!((0..64).all(|lba| bench.write(lba, 8)));
    assert!(bench.until(|_| true).paths[0].requests > 0);
    // The one from the start dies: the other one is enough.
    drop(early);
    assert!((64..80).all(|lba| bench.write(lba, 9)));
    let written = std::fs::read(&image).unwrap();
    assert!(written[..64 * BLOCK].iter().all(|byte| *byte == 8));
    assert!(written[64 * BLOCK..80 * BLOCK].iter().all(|byte| *byte == 9));
}

#[test]
fn what_comes_later_and_is_something_else_stays_out() {
    let test = "what_comes_later_and_is_something_else_stays_out";
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    std::fs::write(&image, vec![1; 1 << 20]).unwrap();
    let early = match Server::start(folder.path(), "a.sock", &["file", &image.display().to_string()]) {
        Ok(server) => server,
        Err(reason) => return skip(test, &reason),
    };
    let later = |name| format!("nbd+unix:///?socket={}", folder.path().join(name).display());
    let paths = [early.address(), later("b.sock"), later("c.sock")];
    let mut bench = Bench::new(folder.path(), &paths, Contents::Volume);
    assert!((0..8).all(|lba| bench.write(lba, 7)));
    // One of another size, and one of the same size with other contents.
    let _others = [("b.sock", "2M"), ("c.sock", "1M")]
        .map(|(name, size)| Server::start(folder.path(), name, &["memory", size]).unwrap());
    let shown = bench.until(|shown| {
        let kept_out = |why: &String| why.contains("kept out");
        states(shown) == ["active", "failed", "foreign"]
            && shown.paths[1].reason.as_ref().is_some_and(kept_out)
    });
    assert!((8..16).all(|lba| bench.write(lba, 7)));
    assert!(shown.paths[1..].iter().all(|path| path.requests == 0), "{shown:?}");
}

#[test]
fn without_any_path_and_for_mistakes_the_error_is_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("disk"), vec![0; 1 << 20]).unwrap();
    let refused = |paths: &[&str]| {
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        stacked(folder.path(), &paths, Contents::Volume).err().unwrap()
    };
    let error = refused(&["file:nowhere", "file:neither"]);
    assert!(
        error.starts_with("host.toml:1: device master: cannot open") && error.contains("nowhere"),
        "{error}"
    );
    let error = refused(&["file:disk", "block:disk"]);
    assert!(error.starts_with("host.toml:2: device master: block:"), "{error}");
    let error = refused(&["file:disk", "file:."]);
    assert!(error.starts_with("host.toml:2: device master: file:"), "{error}");
}
