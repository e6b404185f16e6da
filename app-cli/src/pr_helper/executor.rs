//! From a virtual machine's command to the router of the disk that it is for, and back.
//!
//! Keeps true: GOOD is said only where the router says that the command was executed, and of a release also where no nexus of
//! ours holds; whoever has a descriptor of a disk reaches that disk and no other. Not here: the bytes (`protocol`), the
//! socket (`server`).

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use multipath::PATH_COUNT_MAX;
use multipath::control::{Answer, Command, Control};
use multipath::out_of_band::{Certainty, CommandOutcome, CommandRequest, Conclusion};
use nix::sys::stat::{FileStat, SFlag, fstat};
use storage_mapping::PathIndex;
use storage_mapping::control_port::{Cdb, CommandBytes, ControlCommand, ControlReply, Transfer};

use super::protocol::{PrRequest, PrResponse};
use super::server::Executor;

/// How long a command may take; a virtual machine's kernel waits for 30 to 60 s.
const COMMAND_PATIENCE: Duration = Duration::from_secs(20);
/// For the loop of the disk, beyond that.
const LOOP_PATIENCE: Duration = Duration::from_secs(2);

/// ILLEGAL REQUEST, LOGICAL UNIT NOT SUPPORTED: no such disk here.
const NO_SUCH_DISK: (u8, u8, u8) = (0x05, 0x25, 0x00);
/// HARDWARE ERROR, LOGICAL UNIT COMMUNICATION FAILURE: nobody knows whether it was done. Kernels do not repeat it by
/// themselves, as they would after ABORTED COMMAND.
const UNKNOWN: (u8, u8, u8) = (0x04, 0x08, 0x00);

/// What tells one disk from another by its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskKey {
    /// A device node: the number of the device.
    Node(u64),
    /// A file: the device that it lies on, and its inode.
    File(u64, u64),
}

impl DiskKey {
    fn of(found: &FileStat) -> Self {
        let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
        if kind == SFlag::S_IFBLK || kind == SFlag::S_IFCHR {
            Self::Node(found.st_rdev)
        } else {
            Self::File(found.st_dev, found.st_ino)
        }
    }

    /// Of a node or file.
    ///
    /// # Errors
    /// Where it cannot be looked at.
    pub fn of_path(path: &Path) -> nix::Result<Self> {
        nix::sys::stat::stat(path).map(|found| Self::of(&found))
    }

    /// Of a descriptor.
    ///
    /// # Errors
    /// Where it cannot be looked at.
    pub fn of_descriptor(disk: impl AsFd) -> nix::Result<Self> {
        fstat(disk).map(|found| Self::of(&found))
    }
}

/// The disks that virtual machines may reach.
pub struct Disks {
    by_key: BTreeMap<DiskKey, Control>,
}

impl Disks {
    /// Those of a table.
    #[must_use]
    pub fn new(by_key: BTreeMap<DiskKey, Control>) -> Self {
        Self { by_key }
    }
}

impl Executor for Disks {
    fn execute(&self, disk: BorrowedFd<'_>, request: &PrRequest, parameters: Vec<u8>) -> PrResponse {
        let known = DiskKey::of_descriptor(disk).ok().and_then(|key| self.by_key.get(&key));
        let Some(control) = known else { return check(NO_SUCH_DISK) };
        let command = command(request, parameters);
        match ask(control, &command) {
            Some(outcome) if is_release(request) && had_no_effect(&outcome) => {
                ask_the_holder(control, &command, &outcome)
            }
            Some(outcome) => response(&outcome),
            None => check(UNKNOWN),
        }
    }
}

/// Sends a command; `None`: the loop of the disk has no answer.
fn ask(control: &Control, command: &CommandRequest) -> Option<CommandOutcome> {
    let asked = control.ask(Command::Send(Box::new(command.clone())), COMMAND_PATIENCE + LOOP_PATIENCE);
    let Ok(Answer::Sent(outcome)) = asked else { return None };
    tracing::info!(device = control.device(), "{}", outcome.record);
    Some(*outcome)
}

/// PERSISTENT RESERVE OUT RELEASE, the one command of which GOOD without effect is an answer (SPC-5 5.14).
fn is_release(request: &PrRequest) -> bool {
    matches!(request, PrRequest::Out { cdb, .. } if cdb[1] & 0x1f == 0x02)
}

fn had_no_effect(outcome: &CommandOutcome) -> bool {
    matches!(&outcome.conclusions[..], [one] if one.certainty == Certainty::NoEffect)
}

/// A release that had no effect went over a nexus that does not hold; to a virtual machine all of ours are one. Sends it over
/// one path after the other; where none of them holds, what came first is the answer.
fn ask_the_holder(control: &Control, command: &CommandRequest, first: &CommandOutcome) -> PrResponse {
    for path in (0..PATH_COUNT_MAX).map(PathIndex) {
        let Some(outcome) = ask(control, &CommandRequest { path: Some(path), ..command.clone() }) else {
            return check(UNKNOWN);
        };
        let record = &outcome.record;
        let is_beyond_the_last = record.candidates.is_empty() && record.rejected.len() <= path.0;
        if is_beyond_the_last {
            break;
        }
        if !had_no_effect(&outcome) && record.chosen.is_some() {
            return response(&outcome);
        }
    }
    first.reply().map_or_else(|| check(UNKNOWN), as_it_came)
}

fn check((key, asc, ascq): (u8, u8, u8)) -> PrResponse {
    PrResponse::check_condition(key, asc, ascq)
}

/// The command for the router, without a named path: what a virtual machine calls its nexus are all of ours.
fn command(request: &PrRequest, parameters: Vec<u8>) -> CommandRequest {
    let (cdb, transfer) = match request {
        PrRequest::In { cdb, length: 0 } => (cdb, Transfer::None),
        PrRequest::In { cdb, length } => (cdb, Transfer::In(*length)),
        PrRequest::Out { cdb, .. } => (cdb, Transfer::Out(parameters)),
    };
    let bytes = CommandBytes::Scsi(Cdb::new(cdb).expect("ten bytes"));
    CommandRequest::new(ControlCommand { bytes, transfer }, None, COMMAND_PATIENCE)
}

/// What is told of an outcome: the first conclusion that is not *executed*, or else the first of all.
fn response(outcome: &CommandOutcome) -> PrResponse {
    let worst = outcome.conclusions.iter().find(|one| !one.is_done()).or(outcome.conclusions.first());
    worst.map_or_else(|| check(UNKNOWN), told)
}

fn told(conclusion: &Conclusion) -> PrResponse {
    match (&conclusion.reply, conclusion.certainty) {
        (None, Certainty::Executed) => PrResponse { status: 0, sense: Vec::new(), data: Vec::new() },
        (Some(ControlReply::Scsi { status: 0, .. }), certainty) if certainty != Certainty::Executed => {
            check(UNKNOWN)
        }
        (Some(reply), _) => as_it_came(reply),
        (None, _) => check(UNKNOWN),
    }
}

fn as_it_came(reply: &ControlReply) -> PrResponse {
    match reply {
        ControlReply::Scsi { status, sense, data } => {
            PrResponse { status: *status, sense: sense.clone(), data: data.clone() }
        }
        ControlReply::Nvme { .. } => check(UNKNOWN),
    }
}

#[cfg(test)]
mod tests {
    use storage_mapping::CopyFate;

    use super::*;

    fn conclusion(status: Option<u8>, certainty: Certainty) -> Conclusion {
        let reply =
            status.map(|status| ControlReply::Scsi { status, sense: vec![0x70], data: vec![status; 8] });
        Conclusion { path: Some(PathIndex(0)), reply, certainty, copy: CopyFate::Dead }
    }

    #[test]
    fn good_is_said_only_of_what_was_executed() {
        assert_eq!(told(&conclusion(Some(0), Certainty::Executed)).status, 0);
        assert_eq!(told(&conclusion(None, Certainty::Executed)).status, 0);
        for certainty in [Certainty::NoEffect, Certainty::NotExecuted, Certainty::Refused, Certainty::Unknown]
        {
            assert_eq!(told(&conclusion(Some(0), certainty)).status, 2, "{certainty:?}");
            assert_eq!(told(&conclusion(None, certainty)).status, 2, "{certainty:?}");
        }
        let conflict = told(&conclusion(Some(0x18), Certainty::Refused));
        assert_eq!((conflict.status, conflict.sense), (0x18, vec![0x70]));
    }

    #[test]
    fn nodes_and_files_have_keys_of_their_own() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let by_path = DiskKey::of_path(file.path()).unwrap();
        assert_eq!(by_path, DiskKey::of_descriptor(file.as_file()).unwrap());
        assert!(matches!(by_path, DiskKey::File(..)));
        assert!(matches!(DiskKey::of_path(Path::new("/dev/null")).unwrap(), DiskKey::Node(_)));
    }
}
