//! `diskwire cp`: a push or a pull, with progress, and a result that can be trusted.
//!
//! The exit code comes from the receiver's word (see `exit`); a connection that ends first is "try
//! again", and never "failed" once a permit was given. Not here: which ends go together
//! (`copy_request`).

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use transfer_core::format::process_id_table::CloseReason;
use transfer_core::node::NodeEvent;
use transfer_core::protocol::connection::ConnectionId;
use transfer_core::transfer::message::JobOptions;
use transfer_core::transfer::{
    Job, LocalFiles, Outcome, RelativePath, SessionEvent, SourceOrigin, Target, Verdict,
};

use super::CommandError;
use crate::args::Cli;
use crate::args::transfer::CpArgs;
use crate::config::HostConfig;
use crate::copy_request::{CopyRequest, PullDestination};
use crate::escape;
use crate::exit::Exit;
use crate::host::{Host, Purpose};
use crate::name::Name;
use crate::progress::{self, Reporter, Summary, Verbosity};
use crate::remote_path::RemotePath;
use crate::signals::Signals;

/// How long the last word of a finished connection may take.
const CLOSE_MAX: Duration = Duration::from_secs(5);

pub(super) fn run(cli: &Cli, args: &CpArgs) -> Result<Exit, CommandError> {
    let request = CopyRequest::new(args)?;
    let job = job_of(args, &request)?;
    let config = HostConfig::load(cli.config_file()?)?;
    let peer = request.host().clone();
    check_peer(&config, &peer)?;
    let mut signals = Signals::new().map_err(CommandError::Signals)?;
    let (mut host, notices) = Host::start(&config, Purpose::Command)?;
    let mut reporter = Reporter::new(Verbosity { quiet: args.quiet, json: args.json });
    for notice in notices {
        reporter.note(&notice);
    }
    let mut files = LocalFiles::command(host.pool.clone(), host.segment_bytes, &host.state);
    match &request {
        CopyRequest::PushStandardInput { .. } => files = files.with_input(Box::new(io::stdin())),
        CopyRequest::Pull { destination: PullDestination::StandardOutput, .. } => {
            files = files.with_output(Box::new(io::stdout()));
        }
        _ => {}
    }
    let mut run = Run { host: &mut host, signals: &mut signals, peer: &peer };
    let connection = run.call(job, files)?;
    let ended = run.follow(connection, &mut reporter);
    host.shut_down();
    finish(ended?, &peer, &mut reporter)
}

/// Checks that the other host is one that this host knows.
pub(super) fn check_peer(config: &HostConfig, peer: &Name) -> Result<(), CommandError> {
    if config.peers.contains_key(peer) {
        return Ok(());
    }
    let known: Vec<_> = config.peers.keys().map(Name::as_str).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Err(CommandError::UnknownPeer { file: escape::name(&config.file), peer: peer.to_string(), known })
}

/// How a job of this process came to its end.
pub(super) enum Ended {
    /// With the receiver's word, or without it; the reason where the connection was lost before.
    Finished(Outcome, Option<CloseReason>),
    /// No connection came to be.
    NeverConnected(CloseReason),
}

/// A process with one job.
pub(super) struct Run<'a> {
    pub(super) host: &'a mut Host,
    pub(super) signals: &'a mut Signals,
    pub(super) peer: &'a Name,
}

impl Run<'_> {
    /// Makes the call.
    pub(super) fn call(&mut self, job: Job, files: LocalFiles) -> Result<ConnectionId, CommandError> {
        let now = self.host.driver.now();
        let connection = self.host.driver.node().request(now, self.peer.as_str(), job)?;
        self.host.driver.attach_store(connection, Arc::new(files));
        Ok(connection)
    }

    /// Follows the job to its end.
    fn follow(&mut self, connection: ConnectionId, reporter: &mut Reporter) -> Result<Ended, CommandError> {
        reporter.started(None, None);
        self.follow_with(connection, |event| match event {
            SessionEvent::Progress { bytes, files, bytes_total, files_total } => {
                reporter.totals(Some(bytes_total).filter(|total| *total > 0), Some(files_total));
                reporter.progress(bytes, files);
            }
            SessionEvent::FileFailed { path, why, .. } => reporter.file_failed(path.as_bytes(), &why),
            SessionEvent::Warning(text) => reporter.note(&text),
            _ => {}
        })
    }

    /// Follows the job to its end; `show` gets what happens on the way.
    pub(super) fn follow_with(
        &mut self,
        connection: ConnectionId,
        mut show: impl FnMut(SessionEvent),
    ) -> Result<Ended, CommandError> {
        let (mut connected, mut interrupted, mut lost) = (false, 0, None);
        loop {
            let event = self.host.driver.next_event(None, &[self.signals.descriptor()]);
            let signals = self.signals.count();
            if signals > interrupted {
                interrupted = signals;
                if signals > 1 || !connected {
                    return Err(CommandError::Interrupted);
                }
                let now = self.host.driver.now();
                self.host.driver.node().interrupt(now, connection);
            }
            let Some(event) = event else { continue };
            match self.host.handle(event)? {
                Some(NodeEvent::Connected { .. }) => connected = true,
                Some(NodeEvent::Session { event: SessionEvent::Finished(outcome), .. }) => {
                    if lost.is_none() {
                        self.close(connection)?;
                    }
                    return Ok(Ended::Finished(outcome, lost));
                }
                Some(NodeEvent::Session { event, .. }) => show(event),
                Some(NodeEvent::Closed { reason, .. }) if !connected => {
                    return Ok(Ended::NeverConnected(reason));
                }
                Some(NodeEvent::Closed { reason, .. }) => lost = Some(reason),
                _ => {}
            }
        }
    }

    /// Closes in order: the other side has our last word before this process ends.
    fn close(&mut self, connection: ConnectionId) -> Result<(), CommandError> {
        let now = self.host.driver.now();
        self.host.driver.node().close(now, connection);
        let limit = now + CLOSE_MAX;
        while let Some(event) = self.host.driver.next_event(Some(limit), &[]) {
            if let Some(NodeEvent::Closed { .. }) = self.host.handle(event)? {
                break;
            }
        }
        Ok(())
    }
}

/// Shows the result and makes it an exit code.
fn finish(ended: Ended, peer: &Name, reporter: &mut Reporter) -> Result<Exit, CommandError> {
    let (outcome, lost) = match ended {
        Ended::NeverConnected(reason) => {
            reporter.ended();
            return Err(CommandError::NoConnection { peer: peer.to_string(), reason });
        }
        Ended::Finished(outcome, lost) => (outcome, lost),
    };
    let word = match outcome.verdict {
        Verdict::Done => progress::Outcome::Done,
        Verdict::Partly => progress::Outcome::PartlyDone,
        Verdict::Failed => progress::Outcome::Failed,
        Verdict::InDoubt => progress::Outcome::InDoubt,
        Verdict::Retry => progress::Outcome::TryAgain,
    };
    match (&outcome.reason, lost, outcome.verdict) {
        (Some((_, why)), ..) => reporter.failed(why),
        (None, Some(reason), Verdict::InDoubt | Verdict::Retry) => {
            reporter.failed(&format!("host {peer}: {}", reason_text(reason)));
        }
        (None, None, Verdict::Retry) if outcome.failed == 0 => {
            reporter.failed("interrupted; nothing that is incomplete was published");
        }
        _ => {}
    }
    let summary = Summary {
        outcome: word,
        peer: peer.to_string(),
        files: outcome.files,
        files_unchanged: 0,
        bytes: outcome.bytes,
        bytes_resumed: 0,
    };
    reporter.finished(&summary).map_err(CommandError::Output)?;
    Ok(word.exit())
}

fn job_of(args: &CpArgs, request: &CopyRequest) -> Result<Job, CommandError> {
    let mut options = JobOptions::empty();
    options.set(JobOptions::RECURSIVE, args.recursive);
    options.set(JobOptions::PRESERVE, args.preserve);
    options.set(JobOptions::NO_CLOBBER, args.no_clobber);
    let peer = request.host().to_string();
    Ok(match request {
        CopyRequest::PushFiles { sources, destination } => Job::Push {
            peer,
            origin: SourceOrigin::Local(sources.iter().map(local_path).collect()),
            export: export_of(destination),
            destination: relative(destination)?,
            options: options | directory(destination.is_directory || sources.len() > 1),
        },
        CopyRequest::PushStandardInput { destination } => Job::Push {
            peer,
            origin: SourceOrigin::Stream,
            export: export_of(destination),
            destination: relative(destination)?,
            options,
        },
        CopyRequest::Pull { sources, destination } => {
            let export = export_of(&sources[0]);
            if let Some(other) = sources.iter().find(|source| export_of(source) != export) {
                let (first, second) = (sources[0].export.to_string(), other.export.to_string());
                return Err(CommandError::SeveralExports { first, second });
            }
            let (target, must) = match destination {
                PullDestination::StandardOutput => (Target::Stream, false),
                PullDestination::Path(path) => {
                    let slash = path.as_os_str().as_bytes().ends_with(b"/");
                    (Target::Local(local_path(path)), slash || sources.len() > 1)
                }
            };
            let paths = sources.iter().map(relative).collect::<Result<Vec<_>, _>>()?;
            Job::Pull { peer, export, sources: paths, target, options: options | directory(must) }
        }
    })
}

fn directory(must_be: bool) -> JobOptions {
    if must_be { JobOptions::MUST_BE_DIRECTORY } else { JobOptions::empty() }
}

fn local_path(path: impl AsRef<Path>) -> Vec<u8> {
    path.as_ref().as_os_str().as_bytes().to_vec()
}

pub(super) fn export_of(path: &RemotePath) -> Vec<u8> {
    path.export.as_str().as_bytes().to_vec()
}

pub(super) fn relative(path: &RemotePath) -> Result<RelativePath, CommandError> {
    let mut relative = RelativePath::root();
    for part in &path.parts {
        relative
            .push(part.as_bytes())
            .map_err(|source| CommandError::Name { name: escape::name(part), source })?;
    }
    Ok(relative)
}

/// Why a connection did not come to be or ended, in the user's words.
pub(super) fn reason_text(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::None | CloseReason::Done => "it ended",
        CloseReason::NotAllowed => {
            "it is up but does not answer: wrong key, or this host is not on its list of peers"
        }
        CloseReason::VersionMismatch => "it speaks another version of the protocol; update the older side",
        CloseReason::LimitReached => "it has as many connections as it allows; try again later",
        CloseReason::HandshakeFailed => {
            "the handshake failed: wrong key on one side; compare the keys of both configurations"
        }
        CloseReason::PeerLost => "it gives no sign of life; is `diskwire serve` running there?",
        CloseReason::ClosedByPeer => "it closed the connection",
        CloseReason::DeviceUnreliable => "segments do not get through: a device is unreliable",
        CloseReason::DeviceStuck => "a device does not answer",
        CloseReason::DuplicateIdentity => "another process has this identity",
        CloseReason::ProtocolViolated => "one side broke the protocol",
        CloseReason::ShuttingDown => "it is shutting down; try again later",
    }
}
