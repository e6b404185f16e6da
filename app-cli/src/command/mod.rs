//! One function per command, and the one match over them.
//!
//! What every command returns is an exit code, or a [`CommandError`] that becomes one line. Not here:
//! the work itself.

mod bench;
mod cp;
mod ctl;
mod demo;
mod keygen;
mod lab;
mod ls;
mod path;
mod pr_helper;
mod serve;
mod sim;
mod status;
mod volume;

use std::io::{self, Write};
use std::path::Path;

use thiserror::Error;

use crate::args::{Cli, Command};
use crate::config::ConfigError;
use crate::copy_request::CopyRequestError;
use crate::exit::Exit;
use crate::host::HostError;
use crate::keys::KeyError;
use crate::lab::{LabError, NotALab};
use crate::stack::StackError;
use crate::state_dir::StateDirError;
use crate::volume_setup::SetupError;
use transfer_core::format::process_id_table::CloseReason;
use transfer_core::protocol::endpoint::ConnectError;
use transfer_core::transfer::NameError;

/// Why a command did not do what it was asked for.
#[derive(Debug, Error)]
pub enum CommandError {
    /// A copy of a measurement is not what was copied.
    #[error("what {name} copied is not what was sent")]
    BenchDiffers {
        /// What copied it.
        name: String,
    },
    /// Where a measurement is to take place.
    #[error("{folder}: {why}; name another folder by --folder or --ends")]
    BenchFolder {
        /// The folder.
        folder: String,
        /// What is wrong with it.
        why: String,
    },
    /// A program of a measurement.
    #[error("{program} does not work")]
    BenchProgram {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A report that is to be drawn.
    #[error("{file} is no report of `diskwire bench --json`: {why}")]
    BenchReport {
        /// The file.
        file: String,
        /// Why.
        why: String,
    },
    /// A measurement that cannot be made, or went wrong.
    #[error("cannot measure: {why}")]
    Bench {
        /// What, and what to do about it.
        why: String,
    },
    /// A cipher of this machine that does not work.
    #[error("{suite}: a segment that was sealed does not open; the memory or the processor fails")]
    BenchSeal {
        /// The cipher.
        suite: &'static str,
    },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The ends of a copy.
    #[error(transparent)]
    CopyRequest(#[from] CopyRequestError),
    /// A call cannot be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A control command that is none.
    #[error("this is no command: {why}")]
    ControlCommand {
        /// Why.
        why: String,
    },
    /// A command whose effect ends with the session of this command.
    #[error(
        "no running process has {device}, and what this command sets would end with its own session; start one \
         (diskwire serve), or say --ephemeral"
    )]
    ControlEphemeral {
        /// The device.
        device: String,
    },
    /// A device that is opened for control commands alone.
    #[error(transparent)]
    ControlSession(#[from] crate::control_session::SessionError),
    /// A raw command that belongs to one path.
    #[error("{command}: {reason}; name a path and say --exact if that one is meant")]
    ControlStays {
        /// The command.
        command: String,
        /// Why.
        reason: String,
    },
    /// The demo cannot start something.
    #[error("the demo cannot run")]
    Demo(#[source] io::Error),
    /// The demo's second host does not serve.
    #[error("the second host does not start: {why}")]
    DemoBeta {
        /// What it said last.
        why: String,
    },
    /// A copy of the demo did not work.
    #[error("the copy did not work ({status})")]
    DemoCopy {
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// What came back is not what was sent.
    #[error("what came back is not what was sent")]
    DemoDiffers,
    /// A file of the demo.
    #[error("cannot read {file}")]
    DemoFile {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// A connection slot was left open.
    #[error("a connection slot was left open")]
    DemoOpen,
    /// An export cannot be opened.
    #[error("{file}:{line}: export {name}: cannot open {path}; make the directory or correct the path")]
    Export {
        /// The configuration.
        file: String,
        /// The line.
        line: usize,
        /// The export.
        name: String,
        /// The directory.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Nothing tells a disk of virtual machines.
    #[error(
        "device {device} has no node or file that a virtual machine could have open; write NODE={device}"
    )]
    HelperNoNode {
        /// The device.
        device: String,
    },
    /// A node of a disk.
    #[error("{node} cannot be looked at; it must be what virtual machines have open")]
    HelperNode {
        /// The node.
        node: String,
        /// Why.
        source: io::Error,
    },
    /// The socket of the helper.
    #[error("{socket} cannot be served; remove it, or name another one")]
    HelperSocket {
        /// The socket.
        socket: String,
        /// Why.
        source: io::Error,
    },
    /// Two disks with one node.
    #[error("{node} is named by two disks; a node belongs to one")]
    HelperTwice {
        /// The node.
        node: String,
    },
    /// A process of the host cannot start.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Ctrl-C, before anything was published.
    #[error("interrupted; nothing that is incomplete was published")]
    Interrupted,
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A listing that did not come.
    #[error("{path}: {why}")]
    List {
        /// What was to be listed.
        path: String,
        /// Why it was not.
        why: String,
    },
    /// A measurement that came to no end.
    #[error(transparent)]
    Measure(#[from] system_tests::multipath_goals::error::MeasureError),
    /// A name that cannot travel.
    #[error("`{name}`: {source}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        source: NameError,
    },
    /// A goal that is not measured.
    #[error("goal {goal} is not measured here; these are: {known}")]
    NoGoal {
        /// Its number.
        goal: u8,
        /// Those that are.
        known: String,
    },
    /// The other host did not answer.
    #[error("host {peer}: {}", cp::reason_text(*reason))]
    NoConnection {
        /// The host.
        peer: String,
        /// Why.
        reason: CloseReason,
    },
    /// The chart of a drill.
    #[error("cannot write the chart {file}")]
    Chart {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// A drill where it may harm.
    #[error(
        "host {host} is in no lab: for a while {path} carries nothing of real transfers; say --yes if that is meant"
    )]
    DrillNotConfirmed {
        /// The host.
        host: String,
        /// The path.
        path: String,
    },
    /// More than one process can be drilled.
    #[error("several processes have {device} open ({which}); name one by -c HOST.toml and --lane N")]
    DrillWhere {
        /// The device.
        device: String,
        /// The processes.
        which: String,
    },
    /// A folder that is no lab.
    #[error(transparent)]
    NotALab(#[from] NotALab),
    /// A device where one path is meant.
    #[error("name one path of {device}, as in {device}/0; `diskwire path list` shows them")]
    PathMissing {
        /// The device.
        device: String,
    },
    /// No process to ask.
    #[error("no process of host {host} is running; start one (diskwire -c {file} serve), then ask again")]
    PathNobody {
        /// The host.
        host: String,
        /// Its configuration.
        file: String,
    },
    /// A process does not do it.
    #[error("not done: {why}")]
    PathRefused {
        /// Why.
        why: String,
    },
    /// Processes are there, and none answers.
    #[error("no process of this host answers, of {lanes}; see above for the reasons")]
    PathSilent {
        /// How many.
        lanes: usize,
    },
    /// Sources of one pull in several exports.
    #[error(
        "sources of one copy must be in one export, not in {first} and {second}; copy them one after another"
    )]
    SeveralExports {
        /// One of them.
        first: String,
        /// Another.
        second: String,
    },
    /// Signals, threads or the state directory.
    #[error("cannot start")]
    Signals(#[source] io::Error),
    /// A host that is not in the configuration.
    #[error("{file}: host {peer} is no peer of this host; its peers are: {known}")]
    UnknownPeer {
        /// The configuration.
        file: String,
        /// The host.
        peer: String,
        /// Those that are.
        known: String,
    },
    /// A lab.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// Standard output.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// A volume that cannot be laid out.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// Devices that do not become a volume.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The state directory.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
}

impl CommandError {
    /// The exit code that says so.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::BenchFolder { .. }
            | Self::Config(_)
            | Self::ControlCommand { .. }
            | Self::ControlEphemeral { .. }
            | Self::ControlSession(crate::control_session::SessionError::Stack(StackError::Address {
                ..
            }))
            | Self::ControlStays { .. }
            | Self::CopyRequest(_)
            | Self::DrillNotConfirmed { .. }
            | Self::DrillWhere { .. }
            | Self::HelperNoNode { .. }
            | Self::HelperTwice { .. }
            | Self::Host(HostError::Stack(StackError::Address { .. }))
            | Self::Name { .. }
            | Self::NoGoal { .. }
            | Self::NotALab(_)
            | Self::PathMissing { .. }
            | Self::SeveralExports { .. }
            | Self::Stack(StackError::Address { .. })
            | Self::UnknownPeer { .. } => Exit::Usage,
            Self::StateDir(StateDirError::Busy { .. })
            | Self::Host(HostError::StateDir(StateDirError::Busy { .. }))
            | Self::Interrupted
            | Self::NoConnection {
                reason:
                    CloseReason::ClosedByPeer
                    | CloseReason::LimitReached
                    | CloseReason::PeerLost
                    | CloseReason::ShuttingDown,
                ..
            } => Exit::TryAgain,
            Self::BenchDiffers { .. }
            | Self::BenchProgram { .. }
            | Self::BenchReport { .. }
            | Self::Bench { .. }
            | Self::BenchSeal { .. }
            | Self::Chart { .. }
            | Self::Connect(_)
            | Self::ControlSession(_)
            | Self::Demo(_)
            | Self::DemoBeta { .. }
            | Self::DemoCopy { .. }
            | Self::DemoDiffers
            | Self::DemoFile { .. }
            | Self::DemoOpen
            | Self::Export { .. }
            | Self::HelperNode { .. }
            | Self::HelperSocket { .. }
            | Self::Host(_)
            | Self::Key(_)
            | Self::Lab(_)
            | Self::List { .. }
            | Self::Measure(_)
            | Self::NoConnection { .. }
            | Self::Output(_)
            | Self::PathNobody { .. }
            | Self::PathRefused { .. }
            | Self::PathSilent { .. }
            | Self::Setup(_)
            | Self::Signals(_)
            | Self::Stack(_)
            | Self::StateDir(_) => Exit::Failed,
        }
    }

    /// Whether the reader of standard output went away: nobody wants a message then.
    #[must_use]
    pub fn reader_left(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Runs what the command line asks for.
///
/// # Errors
/// See [`CommandError`].
pub fn run(cli: &Cli) -> Result<Exit, CommandError> {
    match &cli.command {
        Command::Bench(args) => bench::run(args),
        Command::Cp(args) => cp::run(cli, args),
        Command::Ctl(args) => ctl::run(cli, args),
        Command::Demo(args) => demo::run(args),
        Command::Keygen(args) => keygen::run(cli, args),
        Command::Lab(args) => lab::run(args),
        Command::Ls(args) => ls::run(cli, args),
        Command::Path(args) => path::run(cli, args),
        Command::PrHelper(args) => pr_helper::run(cli, args),
        Command::Sim(args) => sim::run(args),
        Command::Serve(_) => serve::run(cli),
        Command::Status(args) => status::run(cli, args),
        Command::Volume(args) => volume::run(cli, args),
    }
}

impl Cli {
    /// The configuration file that was named by `-c` or DISKWIRE_CONFIG.
    ///
    /// # Errors
    /// [`ConfigError::NotNamed`].
    pub fn config_file(&self) -> Result<&Path, ConfigError> {
        self.config.as_deref().filter(|file| !file.as_os_str().is_empty()).ok_or(ConfigError::NotNamed)
    }
}

/// Prints what was asked for.
fn print(text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(CommandError::Output)
}

/// Says something on standard error. That nobody reads it any more is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "diskwire: {}", crate::escape::one_line(line));
}
