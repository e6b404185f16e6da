//! What the tests of the simulated SCSI target share: a system, its paths, and commands in a few words.

#![allow(dead_code, reason = "not every test file uses all of it")]

use std::time::Duration;

use storage_mapping::control_port::{
    Cdb, CommandBytes, ControlCommand, ControlCompletion, ControlReply, ControlRequest, Transfer,
};
use storage_mapping::device::StorageSystem;
use storage_mapping::device::storage_system::{CommandFault, Executions, PathName, SimulatedPath};
use storage_mapping::scsi::inquiry::InquiryCommand;
use storage_mapping::scsi::reservations::{
    FullStatus, ReservationType, ReserveIn, ReserveInAction, ReserveOut, ReserveOutAction,
};
use storage_mapping::scsi::sense::Sense;
use storage_mapping::{ControlPort, Instant, IoTag};

/// A system of one volume behind four ports in two groups, and its time.
pub(crate) struct Bench {
    pub(crate) system: StorageSystem,
    pub(crate) now: Instant,
    next_tag: u64,
}

impl Bench {
    /// With further lines of a description.
    pub(crate) fn new(lines: &str) -> Self {
        let text = format!(
            "block 512\ndisk d0 1MiB\ngroup g0\ngroup g1\nport p0 group=g0\nport p1 group=g0\nport p2 group=g1\n\
             port p3 group=g1\nvolume v0 concatenated d0@0+1MiB\n{lines}"
        );
        let system = StorageSystem::new(&text.parse().expect("a description")).expect("its parts fit");
        Self { system, now: Instant::ZERO, next_tag: 0 }
    }

    /// A path as it is opened: an attention waits for it.
    pub(crate) fn raw_path(&mut self, initiator: &str, port: &str) -> SimulatedPath {
        self.system.path(initiator, port, "v0").expect("a port of it")
    }

    /// A path whose first attention is gone.
    pub(crate) fn path(&mut self, initiator: &str, port: &str) -> SimulatedPath {
        let mut path = self.raw_path(initiator, port);
        assert_eq!(sense_of(&self.run(&mut path, TUR())), Some((6, 0x29, 0x00)));
        path
    }

    pub(crate) fn tag(&mut self) -> IoTag {
        self.next_tag += 1;
        IoTag(self.next_tag)
    }

    pub(crate) fn submit(&mut self, path: &mut SimulatedPath, command: ControlCommand) -> IoTag {
        let tag = self.tag();
        path.submit_control(self.now, ControlRequest { tag, command }).expect("it is taken");
        tag
    }

    /// What comes within so long, if it comes.
    pub(crate) fn wait(&mut self, path: &mut SimulatedPath, time: Duration) -> Option<ControlCompletion> {
        let end = self.now + time;
        loop {
            if let Some(done) = path.poll_control(self.now) {
                return Some(done);
            }
            match path.next_control_wakeup() {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => {
                    self.now = end;
                    return path.poll_control(end);
                }
            }
            while path.poll_control_event(self.now).is_some() {}
        }
    }

    pub(crate) fn complete(
        &mut self,
        path: &mut SimulatedPath,
        command: ControlCommand,
    ) -> ControlCompletion {
        let tag = self.submit(path, command);
        let done = self.wait(path, Duration::from_secs(100)).expect("it completes");
        assert_eq!(done.tag, tag);
        done
    }

    /// The target's answer.
    pub(crate) fn run(&mut self, path: &mut SimulatedPath, command: ControlCommand) -> ControlReply {
        self.complete(path, command).outcome.expect("the target answers")
    }

    pub(crate) fn arm(&self, path: &SimulatedPath, opcode: u8, fault: CommandFault) {
        self.system.arm(self.now, &path.name(), Some(opcode), fault).expect("the path is there");
    }

    pub(crate) fn executions(&self, opcode: u8, action: Option<u8>) -> Executions {
        self.system.executions("v0").expect("a volume").get(&(opcode, action)).copied().unwrap_or_default()
    }

    pub(crate) fn attentions(&self, path: &SimulatedPath) -> usize {
        let name: PathName = path.name();
        self.system.waiting_attentions(&name).iter().map(Vec::len).sum()
    }

    pub(crate) fn full_status(&mut self, path: &mut SimulatedPath) -> FullStatus {
        FullStatus::parse(&data_of(&self.run(path, reserve_in(ReserveInAction::ReadFullStatus))))
            .expect("whole")
    }
}

pub(crate) fn status_of(reply: &ControlReply) -> u8 {
    match reply {
        ControlReply::Scsi { status, .. } => *status,
        ControlReply::Nvme { .. } => panic!("a SCSI target"),
    }
}

pub(crate) fn sense_of(reply: &ControlReply) -> Option<(u8, u8, u8)> {
    match reply {
        ControlReply::Scsi { sense, .. } => Sense::parse(sense).map(|sense| sense.triple()),
        ControlReply::Nvme { .. } => panic!("a SCSI target"),
    }
}

pub(crate) fn data_of(reply: &ControlReply) -> Vec<u8> {
    match reply {
        ControlReply::Scsi { status: 0, data, .. } => data.clone(),
        other => panic!("no data: {other:?}"),
    }
}

pub(crate) fn raw(cdb: &[u8], transfer: Transfer) -> ControlCommand {
    ControlCommand { bytes: CommandBytes::Scsi(Cdb::new(cdb).expect("a length of the standard")), transfer }
}

#[allow(non_snake_case, reason = "the name of the command")]
pub(crate) fn TUR() -> ControlCommand {
    raw(&[0; 6], Transfer::None)
}

/// The vendor command.
#[allow(non_snake_case, reason = "the name of the command")]
pub(crate) fn C0() -> ControlCommand {
    raw(&[0xc0, 0, 0, 0, 0, 0], Transfer::In(8))
}

pub(crate) fn inquiry(page: Option<u8>) -> ControlCommand {
    InquiryCommand { page, allocation: 512 }.command()
}

pub(crate) fn reserve_in(action: ReserveInAction) -> ControlCommand {
    ReserveIn { action, allocation: 4096 }.command()
}

pub(crate) fn reserve_out(
    action: ReserveOutAction,
    kind: ReservationType,
    key: u64,
    action_key: u64,
) -> ControlCommand {
    ReserveOut::new(action, kind, key, action_key).command()
}

pub(crate) fn register(key: u64, new: u64) -> ControlCommand {
    reserve_out(ReserveOutAction::Register, ReservationType::NONE, key, new)
}

pub(crate) fn reserve(key: u64, kind: ReservationType) -> ControlCommand {
    reserve_out(ReserveOutAction::Reserve, kind, key, 0)
}

pub(crate) fn release(key: u64, kind: ReservationType) -> ControlCommand {
    reserve_out(ReserveOutAction::Release, kind, key, 0)
}
