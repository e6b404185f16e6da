//! `diskwire bench transfer`: one file from host to host over a volume in memory, timed; on request beside
//! scp and rsync over loopback in the same run, in turns.
//!
//! CPU time is that of all processes of both sides, from their start to their end. Figures are the
//! median of the rounds. Not here: what they mean (`docs/performance.md`).

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;
use serde::Serialize;
use storage_mapping::ByteSize;
use transfer_core::driver::clock::OsRandom;
use transfer_core::random::Random;

use super::super::demo::{self, lab_args};
use super::super::{CommandError, lab, print};
use crate::args::bench::BenchTransferArgs;
use crate::exit::Exit;

/// Rounds of each contestant.
const ROUNDS: usize = 3;
/// Size of the volume in memory.
const VOLUME_BYTES: u64 = 512 << 20;
/// Where sshd of the comparison listens, on loopback.
const SSH_PORT: &str = "22922";

/// What one contestant did.
#[derive(Clone, Debug, Serialize)]
struct Figure {
    name: &'static str,
    seconds: f64,
    bytes_per_second: f64,
    cpu_seconds: f64,
}

/// A folder in memory, where there is one.
fn memory_folder() -> PathBuf {
    let shm = PathBuf::from("/dev/shm");
    if shm.is_dir() { shm } else { std::env::temp_dir() }
}

pub(super) fn run(args: &BenchTransferArgs) -> Result<Exit, CommandError> {
    let folder = tempfile::Builder::new()
        .prefix("diskwire-bench-")
        .tempdir_in(memory_folder())
        .map_err(CommandError::Demo)?;
    let bench = Bench::new(folder.path(), args).map_err(CommandError::Demo)?;
    let mut contestants: Vec<(&'static str, Contestant)> = vec![("diskwire", Bench::diskwire)];
    if args.compare {
        contestants.push(("scp", Bench::scp));
        contestants.push(("rsync -W", Bench::rsync));
    }
    let mut rounds: Vec<Vec<(Duration, Duration)>> = vec![Vec::new(); contestants.len()];
    for _ in 0..ROUNDS {
        for ((_, contestant), times) in contestants.iter().zip(&mut rounds) {
            let before = children_cpu();
            let time = contestant(&bench)?;
            times.push((time, children_cpu().saturating_sub(before)));
        }
    }
    let figures: Vec<_> =
        contestants.iter().zip(rounds).map(|((name, _), times)| figure(name, args.size, times)).collect();
    print(&if args.json { json(args.size, &figures) } else { text(args.size, &figures) })?;
    Ok(Exit::Done)
}

/// Carries the file once; how long that took.
type Contestant = fn(&Bench) -> Result<Duration, CommandError>;

struct Bench {
    program: PathBuf,
    source: PathBuf,
    world: PathBuf,
    out: PathBuf,
    ssh: PathBuf,
}

/// A process that is ended in order, so that its CPU time is counted.
struct Daemon(Child);

impl Daemon {
    fn end(mut self) -> Result<(), CommandError> {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).expect("a process id"));
        kill(pid, Signal::SIGTERM).map_err(|error| CommandError::Demo(error.into()))?;
        self.0.wait().map_err(CommandError::Demo)?;
        Ok(())
    }
}

impl Bench {
    fn new(folder: &Path, args: &BenchTransferArgs) -> std::io::Result<Self> {
        let bench = Self {
            program: std::env::current_exe()?,
            source: folder.join("file"),
            world: folder.join("world"),
            out: folder.join("out"),
            ssh: folder.join("ssh"),
        };
        fs::create_dir(&bench.out)?;
        let mut file = File::create(&bench.source)?;
        let mut block = vec![0; 1 << 20];
        let mut left = args.size.0;
        while left > 0 {
            let length = usize::try_from(left.min(1 << 20)).expect("at most a MiB");
            OsRandom.fill(&mut block[..length]);
            file.write_all(&block[..length])?;
            left -= length as u64;
        }
        if args.compare {
            bench.prepare_ssh()?;
        }
        Ok(bench)
    }

    fn diskwire(&self) -> Result<Duration, CommandError> {
        let args = crate::args::lab::LabCreateArgs { size: ByteSize(VOLUME_BYTES), ..lab_args(&self.world) };
        let plan = lab::make(&args, true)?;
        let serving = demo::start_beta(&self.program, &plan.dir.join("beta.toml"))?;
        let ends = [self.source.clone(), "beta:inbox/".into()];
        let time = demo::copy(&self.program, &plan.dir.join("alpha.toml"), &ends)?;
        Daemon(serving.into_child()).end()?;
        self.check(&plan.dir.join("exports/beta/inbox/file"))?;
        fs::remove_dir_all(&self.world).map_err(CommandError::Demo)?;
        Ok(time)
    }

    fn scp(&self) -> Result<Duration, CommandError> {
        let mut command = Command::new("scp");
        command.arg("-q").args(self.ssh_options()).args(["-P", SSH_PORT]);
        self.over_ssh(command)
    }

    fn rsync(&self) -> Result<Duration, CommandError> {
        let mut shell = OsString::from(format!("ssh -p {SSH_PORT}"));
        for option in self.ssh_options() {
            shell.push(" ");
            shell.push(option);
        }
        let mut command = Command::new("rsync");
        command.arg("-W").arg("-e").arg(shell);
        self.over_ssh(command)
    }

    fn over_ssh(&self, mut command: Command) -> Result<Duration, CommandError> {
        let daemon = Command::new("/usr/sbin/sshd")
            .arg("-D")
            .arg("-f")
            .arg(self.ssh.join("config"))
            .stdin(Stdio::null())
            .spawn()
            .map_err(CommandError::Demo)?;
        let daemon = Daemon(daemon);
        std::thread::sleep(Duration::from_millis(300));
        let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
        let mut target = OsString::from(format!("{user}@127.0.0.1:"));
        target.push(self.out.join("file"));
        let start = Instant::now();
        let status = command.arg(&self.source).arg(target).stdin(Stdio::null()).status();
        let time = start.elapsed();
        daemon.end()?;
        let status = status.map_err(CommandError::Demo)?;
        if !status.success() {
            return Err(CommandError::DemoCopy { status });
        }
        self.check(&self.out.join("file"))?;
        fs::remove_file(self.out.join("file")).map_err(CommandError::Demo)?;
        Ok(time)
    }

    fn check(&self, copy: &Path) -> Result<(), CommandError> {
        if demo::hash(&self.source)? == demo::hash(copy)? { Ok(()) } else { Err(CommandError::DemoDiffers) }
    }

    fn prepare_ssh(&self) -> std::io::Result<()> {
        fs::create_dir(&self.ssh)?;
        for key in ["host", "user"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(self.ssh.join(key))
                .status()?;
            if !made.success() {
                return Err(std::io::Error::other("ssh-keygen does not work"));
            }
        }
        // sshd separates its privileges in a folder that only its start script makes.
        let _ = fs::create_dir_all("/run/sshd");
        let at = |name: &str| self.ssh.join(name).display().to_string();
        fs::write(
            self.ssh.join("config"),
            format!(
                "Port {SSH_PORT}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\n\
                 PidFile none\nLogLevel ERROR\nSubsystem sftp internal-sftp\n",
                at("host"),
                at("user.pub"),
            ),
        )
    }

    fn ssh_options(&self) -> Vec<OsString> {
        let mut options: Vec<OsString> = vec!["-i".into(), self.ssh.join("user").into()];
        for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"] {
            options.extend(["-o".into(), option.into()]);
        }
        options
    }
}

/// CPU time of all processes that this one started and that have ended.
fn children_cpu() -> Duration {
    let time = |time: TimeVal| {
        Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or(0))
            + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or(0))
    };
    getrusage(UsageWho::RUSAGE_CHILDREN)
        .map_or(Duration::ZERO, |usage| time(usage.user_time()) + time(usage.system_time()))
}

fn figure(name: &'static str, size: ByteSize, times: Vec<(Duration, Duration)>) -> Figure {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let seconds = median(times.iter().map(|(time, _)| time.as_secs_f64()).collect());
    let cpu_seconds = median(times.iter().map(|(_, cpu)| cpu.as_secs_f64()).collect());
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let bytes_per_second = size.0 as f64 / seconds;
    Figure { name, seconds, bytes_per_second, cpu_seconds }
}

fn text(size: ByteSize, figures: &[Figure]) -> String {
    let mut text = format!("{size} from process to process, in memory, median of {ROUNDS}\n\n");
    text += "            seconds       MiB/s   CPU seconds   against diskwire\n";
    for figure in figures {
        let ratio = figure.seconds / figures[0].seconds;
        text += &format!(
            "{:<10} {:>8.2} {:>11.0} {:>13.2}   {:>6.2} x time, {:.2} x CPU\n",
            figure.name,
            figure.seconds,
            figure.bytes_per_second / f64::from(1 << 20),
            figure.cpu_seconds,
            ratio,
            figure.cpu_seconds / figures[0].cpu_seconds,
        );
    }
    text
}

fn json(size: ByteSize, figures: &[Figure]) -> String {
    let object = serde_json::json!({ "version": 1, "bytes": size.0, "rounds": ROUNDS, "figures": figures });
    object.to_string() + "\n"
}
