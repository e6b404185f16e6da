//! What a program costs, with all that it started.
//!
//! ```text
//!   bench ── meter (this program) ── PROGRAM ── what it starts
//!              ▲ adopts what outlives its parent ──────┘
//! ```
//!
//! The kernel adds the cost of a process to that of whoever waits for it, and an orphan goes to process 1. The meter is a
//! process of its own that adopts orphans, waits for everything, and tells in one line of JSON.
//!
//! Keeps true: nothing that PROGRAM started runs any more when its cost is told, and nothing else is in it: neither what
//! started the meter nor the meter itself. Not here: what is measured.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeVal;
use nix::sys::wait::wait;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::args::bench::BenchMeterArgs;
use crate::command::{CommandError, print};
use crate::exit::Exit;

/// How long a daemon, and whatever else was started, may take to end.
const END_MAX: Duration = Duration::from_secs(60);
/// How long a daemon may take until it is ready.
const START_MAX: Duration = Duration::from_secs(60);
/// How often it is looked whether it is.
const START_STEP: Duration = Duration::from_millis(5);

/// What a program cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Cost {
    /// Whether it ended with exit code 0.
    pub(super) is_success: bool,
    /// From its start to its end; processes that outlived it are not waited for here.
    pub(super) seconds: f64,
    /// CPU time of it and of all that it started, in seconds.
    pub(super) cpu_seconds: f64,
    /// What the largest of these processes had in memory at most, in bytes.
    pub(super) memory_bytes: u64,
    /// How often one of them gave up the CPU, of itself or not.
    pub(super) switches: u64,
}

/// `diskwire bench meter`.
pub(in super::super) fn run(args: &BenchMeterArgs) -> Result<Exit, CommandError> {
    let failed = |error| failed(&args.program[0], error);
    set_child_subreaper(true).map_err(|errno| failed(errno.into()))?;
    let start = Instant::now();
    let mut child = Command::new(&args.program[0])
        .args(&args.program[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(failed)?;
    if args.daemon {
        // What it says does not matter, and that it can be read no more is an end too.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        watch_the_end();
        let pid = i32::try_from(child.id()).expect("a process id");
        kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|errno| failed(errno.into()))?;
    }
    let status = child.wait().map_err(failed)?;
    let seconds = start.elapsed().as_secs_f64();
    if !args.daemon {
        watch_the_end();
    }
    loop {
        match wait() {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => break,
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|errno| failed(errno.into()))?;
    let count = |count: i64| u64::try_from(count).unwrap_or(0);
    let cost = Cost {
        is_success: status.success(),
        seconds,
        cpu_seconds: in_seconds(usage.user_time()) + in_seconds(usage.system_time()),
        memory_bytes: count(usage.max_rss()).saturating_mul(1024),
        switches: count(usage.voluntary_context_switches())
            .saturating_add(count(usage.involuntary_context_switches())),
    };
    print(&(serde_json::to_string(&cost).expect("plain numbers") + "\n"))?;
    Ok(Exit::Done)
}

/// Ends the meter if what it waits for does not end.
fn watch_the_end() {
    std::thread::spawn(|| {
        std::thread::sleep(END_MAX);
        crate::command::say("what was measured does not end");
        std::process::exit(i32::from(Exit::Failed.code()));
    });
}

fn in_seconds(time: TimeVal) -> f64 {
    // Seconds and microseconds of a process: far below 2^52.
    time.tv_sec() as f64 + time.tv_usec() as f64 * 1e-6
}

fn failed(program: &OsStr, source: std::io::Error) -> CommandError {
    CommandError::BenchProgram { program: crate::escape::name(program), source }
}

/// What runs programs under a meter.
#[derive(Clone, Debug)]
pub(super) struct Meter(PathBuf);

impl Meter {
    /// The meter of this program.
    pub(super) fn new() -> Result<Self, CommandError> {
        std::env::current_exe().map(Self).map_err(CommandError::Demo)
    }

    /// This program.
    pub(super) fn program(&self) -> &Path {
        &self.0
    }

    /// Runs a program to its end.
    pub(super) fn run(&self, line: &[OsString]) -> Result<Cost, CommandError> {
        let output = self
            .command(false, line)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| failed(&line[0], error))?;
        cost(&line[0], &output.stdout)
    }

    /// Starts a program that runs until it is told to end. What it says on standard error is to be read, if that is asked
    /// for.
    pub(super) fn start(&self, line: &[OsString], is_heard: bool) -> Result<Daemon, CommandError> {
        let child = self
            .command(true, line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(if is_heard { Stdio::piped() } else { Stdio::inherit() })
            .spawn()
            .map_err(|error| failed(&line[0], error))?;
        Ok(Daemon { child, program: line[0].clone() })
    }

    fn command(&self, is_daemon: bool, line: &[OsString]) -> Command {
        let mut command = Command::new(&self.0);
        command.args(["bench", "meter"]).args(is_daemon.then_some("--daemon")).arg("--").args(line);
        command
    }
}

/// A program that runs until it is told to end. It ends with its handle, whatever happens.
pub(super) struct Daemon {
    child: Child,
    program: OsString,
}

impl Daemon {
    /// Where it speaks, if that was asked for; once.
    pub(super) fn heard(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Waits until it has made a file, as it does when it is ready.
    pub(super) fn wait_for(&self, file: &Path) -> Result<(), CommandError> {
        let start = Instant::now();
        while !file.exists() {
            if start.elapsed() > START_MAX {
                return Err(failed(&self.program, std::io::Error::other("it is not ready; see above")));
            }
            std::thread::sleep(START_STEP);
        }
        Ok(())
    }

    /// Ends it, and waits for it and for all that it started.
    pub(super) fn end(mut self) -> Result<Cost, CommandError> {
        drop(self.child.stdin.take());
        let mut told = Vec::new();
        let mut stdout = self.child.stdout.take().expect("it was asked for");
        stdout.read_to_end(&mut told).map_err(|error| failed(&self.program, error))?;
        cost(&self.program, &told)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // If it cannot be waited for, it is over.
        let _ = self.child.wait();
    }
}

/// What a meter told; that the program failed is an error.
fn cost(program: &OsStr, told: &[u8]) -> Result<Cost, CommandError> {
    let cost: Cost = serde_json::from_slice(told)
        .map_err(|_| failed(program, std::io::Error::other("its meter told nothing; see above")))?;
    if cost.is_success {
        Ok(cost)
    } else {
        Err(failed(program, std::io::Error::other("it did not end well; see above")))
    }
}
