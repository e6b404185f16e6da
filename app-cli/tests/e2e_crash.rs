//! Processes that are killed, stopped and interrupted in the middle of a transfer.
//!
//! What is asserted at every instant: under a final name is nothing, the old file or the whole new one;
//! a re-run completes the copy; then no partial file is left and the volume is sound. The instants
//! come from seeds. DISKWIRE_FULL=1 tries more of them and stops processes for longer.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use support::{Found, LIMIT, Lab, Numbers, Running, full, hash_of, tree, write_random};

/// Files of the tree beside the large ones.
const SMALL_FILES: u64 = 40;
/// How long `cp` may take to see that the other side was killed and has come back.
const LOSS_SEEN_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Pull,
    Push,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Cp,
    Serve,
}

/// The tree of a round: the same names, other contents.
fn fill(root: &Path, round: u64) {
    fs::create_dir_all(root.join("many")).unwrap();
    write_random(&root.join("large"), 1_000 * round, (12 << 20) + round);
    write_random(&root.join("medium"), 1_000 * round + 1, (2 << 20) - round);
    for number in 0..SMALL_FILES {
        let seed = 1_000 * round + 2 + number;
        write_random(&root.join(format!("many/{number}")), seed, 500 * number + round);
    }
    if !root.join("link").is_symlink() {
        symlink("large", root.join("link")).unwrap();
    }
}

/// A copy of a tree between alpha's scratch folder and beta's inbox.
struct Copy {
    lab: Lab,
    line: &'static str,
    source: PathBuf,
    target: PathBuf,
}

impl Copy {
    fn new(direction: Direction) -> Self {
        let lab = Lab::new();
        let (here, there) = (lab.scratch("tree"), lab.inbox("beta", "tree"));
        let (line, source, target) = match direction {
            Direction::Push => ("cp -q -r tree beta:inbox/", here, there),
            Direction::Pull => ("cp -q -r beta:inbox/tree .", there, here),
        };
        Self { lab, line, source, target }
    }

    /// Every final name of the target is absent, old or new.
    #[track_caller]
    fn assert_nothing_partial(&self, old: &std::collections::BTreeMap<PathBuf, Found>, when: &str) {
        if !self.target.exists() {
            return;
        }
        let new = tree(&self.source);
        for (path, found) in tree(&self.target) {
            let same = |entry: Option<&Found>| {
                entry.is_some_and(|entry| (entry.kind, &entry.content) == (found.kind, &found.content))
            };
            let known = same(old.get(&path)) || same(new.get(&path));
            assert!(known, "{when}: {} is neither old nor new", path.display());
        }
    }

    /// The same command again, to its end: the target is the source and nothing else is left.
    #[track_caller]
    fn assert_completes(&self, when: &str) {
        let done = self.lab.start("alpha", self.line).wait(LIMIT);
        assert_eq!(done.code(), Some(0), "{when}: {done:#?}");
        let (source, target) = (tree(&self.source), tree(&self.target));
        assert_eq!(source.len(), target.len(), "{when}");
        for (path, entry) in &source {
            let same = target.get(path).is_some_and(|found| found.content == entry.content);
            assert!(same, "{when}: {} differs", path.display());
        }
        self.lab.assert_no_partial(self.target.parent().unwrap());
    }
}

fn kill_at_random_instants(direction: Direction, victim: Victim, seed: u64) {
    let copy = Copy::new(direction);
    let lab = &copy.lab;
    let mut serve = lab.serve("beta");
    fill(&copy.source, 0);
    let usual = lab.run("alpha", copy.line).expect(0).took;
    let mut numbers = Numbers::new(seed);
    for round in 1..=if full() { 50 } else { 6 } {
        let old = tree(&copy.target);
        fill(&copy.source, round);
        let pause = numbers.pause(usual.mul_f64(1.1));
        let when = format!("{direction:?}, {victim:?} killed, seed {seed}, round {round}, after {pause:?}");
        let cp = lab.start("alpha", copy.line);
        std::thread::sleep(pause);
        if victim == Victim::Cp {
            cp.kill();
        } else {
            serve.kill();
            copy.assert_nothing_partial(&old, &when);
            serve = lab.serve("beta");
            let done = cp.wait(LOSS_SEEN_MAX);
            assert!(matches!(done.code(), Some(0 | 4 | 75)), "{when}: {done:#?}");
        }
        copy.assert_nothing_partial(&old, &when);
        copy.assert_completes(&when);
    }
    finish(&copy, serve);
}

/// After all that, another transfer works, and nothing on the volume is damaged.
fn finish(copy: &Copy, serve: Running) {
    write_random(&copy.lab.scratch("after"), 1, 3_000_000);
    copy.lab.run("alpha", "cp after beta:inbox/after").expect(0);
    assert_eq!(hash_of(&copy.lab.inbox("beta", "after")), hash_of(&copy.lab.scratch("after")));
    serve.signal(Signal::TERM);
    serve.wait(Duration::from_secs(5)).expect(0);
    copy.lab.assert_volume_sound("alpha");
}

#[test]
fn a_killed_sender_of_a_push_is_resumed() {
    kill_at_random_instants(Direction::Push, Victim::Cp, 11);
}

#[test]
fn a_killed_receiver_of_a_push_is_resumed() {
    kill_at_random_instants(Direction::Push, Victim::Serve, 12);
}

#[test]
fn a_killed_receiver_of_a_pull_is_resumed() {
    kill_at_random_instants(Direction::Pull, Victim::Cp, 13);
}

#[test]
fn a_killed_sender_of_a_pull_is_resumed() {
    kill_at_random_instants(Direction::Pull, Victim::Serve, 14);
}

#[test]
fn a_lane_that_moves_on_takes_its_partial_file_along() {
    let lab = Lab::new();
    // The killed process was on lane 2; its re-run will be on lane 1.
    let serve = lab.serve("beta");
    let mut command = lab.command("alpha");
    let (reader, writer) = std::io::pipe().unwrap();
    command.args(["cp", "-q", "-", "beta:inbox/stream"]).stdin(reader);
    let other = Running::start(command);
    std::thread::sleep(Duration::from_millis(300));
    lab.slow("alpha");
    write_random(&lab.scratch("f"), 5, 48 << 20);
    let cp = lab.start("alpha", "cp -q f beta:inbox/f");
    std::thread::sleep(Duration::from_millis(800));
    cp.kill();
    drop(writer);
    other.wait(LIMIT).expect(0);
    let again = lab.run("alpha", "cp f beta:inbox/f").expect(0);
    assert!(again.took < LIMIT / 2, "{again:?}");
    assert_eq!(hash_of(&lab.inbox("beta", "f")), hash_of(&lab.scratch("f")));
    drop(serve);
}

fn stop_and_continue(victim: Victim) {
    let lab = Lab::new();
    let (cp, serve) = lab.slow_push(48 << 20);
    let stopped = if victim == Victim::Cp { &cp } else { &serve };
    stopped.signal(Signal::STOP);
    std::thread::sleep(Duration::from_secs(if full() { 90 } else { 4 }));
    assert!(!lab.inbox("beta", "f").exists());
    stopped.signal(Signal::CONT);
    let done = cp.wait(LIMIT);
    assert!(matches!(done.code(), Some(0 | 4 | 75)), "{done:#?}");
    if done.code() != Some(0) {
        assert!(!done.stderr.is_empty());
        lab.run("alpha", "cp -q f beta:inbox/f").expect(0);
    }
    assert_eq!(hash_of(&lab.inbox("beta", "f")), hash_of(&lab.scratch("f")));
    lab.assert_no_partial(&lab.inbox("beta", ""));
    serve.signal(Signal::TERM);
    serve.wait(Duration::from_secs(5)).expect(0);
    lab.assert_volume_sound("alpha");
}

#[test]
fn a_stopped_sender_goes_on() {
    stop_and_continue(Victim::Cp);
}

#[test]
fn a_stopped_receiver_goes_on() {
    stop_and_continue(Victim::Serve);
}

#[test]
fn ctrl_c_ends_a_push_soon_and_a_re_run_completes_it() {
    let lab = Lab::new();
    let (cp, serve) = lab.slow_push(48 << 20);
    cp.signal(Signal::INT);
    let done = cp.wait(Duration::from_secs(5)).expect(75);
    assert_eq!(done.stderr.lines().count(), 1, "{done:?}");
    assert!(!lab.inbox("beta", "f").exists());
    lab.run("alpha", "cp -q f beta:inbox/f").expect(0);
    assert_eq!(hash_of(&lab.inbox("beta", "f")), hash_of(&lab.scratch("f")));
    lab.assert_no_partial(&lab.inbox("beta", ""));
    drop(serve);
}

/// A push of a standard input that stays open and says nothing more.
fn push_of_a_waiting_stream(lab: &Lab) -> (Running, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut command = lab.command("alpha");
    command.args(["cp", "-q", "-", "beta:inbox/stream"]).stdin(reader);
    let cp = Running::start(command);
    writer.write_all(&[7; 3_000_000]).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    (cp, writer)
}

#[test]
fn a_stream_that_waits_for_its_input_can_be_interrupted() {
    let lab = Lab::new();
    let serve = lab.serve("beta");
    let (cp, writer) = push_of_a_waiting_stream(&lab);
    cp.signal(Signal::INT);
    let done = cp.wait(Duration::from_secs(5)).expect(75);
    assert_eq!(done.stderr.lines().count(), 1, "{done:?}");
    drop(writer);
    let (cp, writer) = push_of_a_waiting_stream(&lab);
    serve.signal(Signal::TERM);
    serve.wait(Duration::from_secs(5)).expect(0);
    let done = cp.wait(Duration::from_secs(10)).expect(75);
    assert_eq!(done.stderr.lines().count(), 1, "{done:?}");
    drop(writer);
    assert!(!lab.inbox("beta", "stream").exists());
}

#[test]
fn serve_stops_soon_and_its_peer_learns_it() {
    let lab = Lab::new();
    let (cp, serve) = lab.slow_push(48 << 20);
    serve.signal(Signal::TERM);
    serve.wait(Duration::from_secs(5)).expect(0);
    let done = cp.wait(Duration::from_secs(10)).expect(75);
    assert_eq!(done.stderr.lines().count(), 1, "{done:?}");
    assert!(!lab.inbox("beta", "f").exists());
    let _serve = lab.serve("beta");
    lab.run("alpha", "cp -q f beta:inbox/f").expect(0);
    assert_eq!(hash_of(&lab.inbox("beta", "f")), hash_of(&lab.scratch("f")));
    lab.assert_no_partial(&lab.inbox("beta", ""));
}
