//! What the tests of control commands share: a simulated storage system behind a multipath device, in virtual time.

#![allow(dead_code, reason = "not every test file uses all of it")]

use std::time::Duration;

use multipath::out_of_band::{CommandOutcome, CommandRequest, Mode};
use multipath::{FailoverConfig, MultipathDevice};
use storage_mapping::control_port::{
    Cdb, CommandBytes, ControlCommand, ControlReply, ControlRequest, Transfer,
};
use storage_mapping::device::StorageSystem;
use storage_mapping::device::storage_system::{Attention, CommandFault, Executions, PathName, SimulatedPath};
use storage_mapping::scsi::reservations::{
    FullStatus, ReservationType, ReserveIn, ReserveInAction, ReserveOut, ReserveOutAction,
};
use storage_mapping::{
    BlockDevice, Buffer, ControlPort, Instant, IoCompletion, IoRequest, IoTag, Lba, PathIndex,
};

pub(crate) const KIND: ReservationType = ReservationType::WriteExclusiveRegistrantsOnly;
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Bench {
    pub(crate) system: StorageSystem,
    pub(crate) device: MultipathDevice,
    pub(crate) now: Instant,
    /// A nexus of another host, to look at the target with.
    watcher: SimulatedPath,
    names: Vec<PathName>,
    done: Vec<IoCompletion>,
    next_tag: u64,
    /// Turns without a step in time.
    standing: u32,
}

impl Bench {
    /// One host with so many paths, each to a port of its own, in two groups.
    pub(crate) fn new(paths: usize, lines: &str) -> Self {
        let mut text =
            String::from("block 512\ndisk d0 1MiB\ngroup g0\ngroup g1\ngroup gw\nport w group=gw\n");
        for port in 0..paths {
            text += &format!("port p{port} group=g{} latency=1ms\n", port % 2);
        }
        text += &format!("volume v0 concatenated d0@0+1MiB\n{lines}");
        let system = StorageSystem::new(&text.parse().expect("a description")).expect("its parts fit");
        let open = |port: usize| system.path("host1", &format!("p{port}"), "v0").expect("a port of it");
        let opened: Vec<SimulatedPath> = (0..paths).map(open).collect();
        let names = opened.iter().map(SimulatedPath::name).collect();
        let boxed = opened.into_iter().map(|path| Box::new(path) as Box<dyn BlockDevice>).collect();
        let device = MultipathDevice::new(boxed, FailoverConfig::default()).expect("paths of one volume");
        let watcher = system.path("host2", "w", "v0").expect("a port of it");
        let now = Instant::ZERO;
        Self { system, device, now, watcher, names, done: Vec::new(), next_tag: 0, standing: 0 }
    }

    /// One turn of the loop.
    pub(crate) fn turn(&mut self) {
        while let Some(done) = self.device.poll(self.now) {
            self.done.push(done);
        }
        while self.device.poll_event(self.now).is_some() {}
    }

    /// The next moment at which something happens, not after `end`.
    pub(crate) fn step(&mut self, end: Instant) {
        let next = self.device.next_wakeup().unwrap_or(end).min(end);
        self.standing = if next > self.now { 0 } else { self.standing + 1 };
        assert!(self.standing < 10_000, "the device wants to be polled and does nothing");
        self.now = self.now.max(next);
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.turn();
            self.step(end);
        }
        self.turn();
    }

    pub(crate) fn run(&mut self, request: CommandRequest) -> CommandOutcome {
        let end = self.now + request.patience;
        let id = self.device.submit_command(self.now, request);
        loop {
            self.turn();
            if let Some(outcome) = self.device.poll_command(self.now) {
                assert_eq!(outcome.id, id);
                assert!(self.now <= end, "it waited beyond the deadline");
                return outcome;
            }
            assert!(self.now < end, "nothing at the deadline");
            self.step(end);
        }
    }

    pub(crate) fn over(&mut self, path: usize, command: ControlCommand, mode: Mode) -> CommandOutcome {
        let request = CommandRequest::new(command, Some(PathIndex(path)), PATIENCE).with_mode(mode);
        self.run(request)
    }

    /// Registers a key over one path. The first answer in `exact` over a new nexus is a unit attention.
    pub(crate) fn register(&mut self, path: usize, key: u64) {
        let outcomes = [(); 4].map(|()| self.over(path, register(key), Mode::Exact));
        assert!(outcomes[3].is_done(), "{}", outcomes[3].record);
    }

    /// Reads or writes a block through the device.
    pub(crate) fn io(&mut self, is_write: bool, limit: Duration) -> Option<IoCompletion> {
        self.next_tag += 1;
        let tag = IoTag(self.next_tag);
        let request = if is_write {
            IoRequest::write(tag, Lba(3), Buffer::copy_of(&[1; 512]).freeze(), false)
        } else {
            IoRequest::read(tag, Lba(3), Buffer::zeroed(512))
        };
        self.device.submit(self.now, request).expect("there is room");
        let end = self.now + limit;
        loop {
            self.turn();
            if let Some(at) = self.done.iter().position(|done| done.tag == tag) {
                return Some(self.done.swap_remove(at));
            }
            if self.now >= end {
                return None;
            }
            self.step(end);
        }
    }

    pub(crate) fn apply(&mut self, line: &str) {
        self.system.apply(self.now, &line.parse().expect(line)).expect("its parts are there");
    }

    pub(crate) fn arm(&self, path: usize, opcode: u8, fault: CommandFault) {
        self.system.arm(self.now, &self.names[path], Some(opcode), fault).expect("the path is there");
    }

    pub(crate) fn executions(&self, opcode: u8, action: Option<u8>) -> Executions {
        self.system.executions("v0").expect("a volume").get(&(opcode, action)).copied().unwrap_or_default()
    }

    /// The target's answer to another host.
    pub(crate) fn watch(&mut self, command: ControlCommand) -> ControlReply {
        for _ in 0..8 {
            self.next_tag += 1;
            let tag = IoTag(self.next_tag);
            let request = ControlRequest { tag, command: command.clone() };
            self.watcher.submit_control(self.now, request).expect("it is taken");
            let done = loop {
                match self.watcher.poll_control(self.now) {
                    Some(done) => break done,
                    None => self.now = self.watcher.next_control_wakeup().expect("it comes").max(self.now),
                }
            };
            let reply = done.outcome.expect("the target answers");
            match &reply {
                ControlReply::Scsi { status: 2, sense, .. } if sense.get(2) == Some(&6) => {}
                _ => return reply,
            }
        }
        panic!("attentions without end");
    }

    pub(crate) fn full_status(&mut self) -> FullStatus {
        let asked = ReserveIn { action: ReserveInAction::ReadFullStatus, allocation: 4096 }.command();
        match self.watch(asked) {
            ControlReply::Scsi { status: 0, data, .. } => FullStatus::parse(&data).expect("whole"),
            other => panic!("{other:?}"),
        }
    }

    /// The keys that are registered, in order.
    pub(crate) fn keys(&mut self) -> Vec<u64> {
        let mut keys: Vec<u64> = self.full_status().registrants.iter().map(|one| one.key).collect();
        keys.sort_unstable();
        keys
    }

    /// The key that holds the reservation.
    pub(crate) fn holder(&mut self) -> Option<u64> {
        self.full_status().registrants.iter().find(|one| one.is_holder).map(|one| one.key)
    }
}

pub(crate) fn raw(cdb: &[u8], transfer: Transfer) -> ControlCommand {
    ControlCommand { bytes: CommandBytes::Scsi(Cdb::new(cdb).expect("a length of the standard")), transfer }
}

pub(crate) fn inquiry() -> ControlCommand {
    raw(&[0x12, 0, 0, 0, 96, 0], Transfer::In(96))
}

pub(crate) fn out(action: ReserveOutAction, key: u64, action_key: u64) -> ControlCommand {
    ReserveOut::new(action, KIND, key, action_key).command()
}

pub(crate) fn register(new: u64) -> ControlCommand {
    out(ReserveOutAction::RegisterAndIgnore, 0, new)
}

/// What can befall a command, and nothing.
pub(crate) fn faults() -> Vec<Option<CommandFault>> {
    let second = Duration::from_secs(1);
    let state = |word: &str| word.parse().expect("an access state");
    [
        CommandFault::Refused,
        CommandFault::NotSent,
        CommandFault::Lost { lands: None },
        CommandFault::Lost { lands: Some(second) },
        CommandFault::Hang(Some(second)),
        CommandFault::Hang(Some(PATIENCE * 2)),
        CommandFault::Hang(None),
        CommandFault::Busy,
        CommandFault::TaskSetFull,
        CommandFault::Attention(Attention::CAPACITY_CHANGED),
        CommandFault::Deferred(Attention { asc: 0x11, ascq: 0 }),
        CommandFault::NexusLost,
        CommandFault::Access(state("standby")),
        CommandFault::Access(state("unavailable")),
        CommandFault::Access(state("transitioning")),
        CommandFault::AnswerLost,
        CommandFault::AnswerHang(Some(PATIENCE * 2)),
        CommandFault::AnswerHang(None),
        CommandFault::NexusLostAfter,
        CommandFault::AccessAfter(state("standby")),
    ]
    .into_iter()
    .map(Some)
    .chain([None])
    .collect()
}
