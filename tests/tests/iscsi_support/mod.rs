//! What the tests of control commands over iSCSI share: a real target with two portals, a relay before each, a multipath
//! device over both, and a nexus of another host that looks at the target over a portal of its own.
//!
//! Keeps true: everything runs in real time on one thread, and a limit ends what does not end. Not here: any test.

use std::time::Duration;

use multipath::out_of_band::{CommandOutcome, CommandRequest, Mode};
use multipath::{FailoverConfig, MultipathDevice, PathState};
use storage_mapping::control_port::{
    Cdb, CommandBytes, ControlCommand, ControlReply, ControlRequest, Transfer,
};
use storage_mapping::device::{IscsiDevice, IscsiSettings};
use storage_mapping::path_address::{IscsiAddress, PathAddress, Target};
use storage_mapping::scsi::inquiry::InquiryCommand;
use storage_mapping::scsi::reservations::{
    KeyList, Reservation, ReservationReport, ReservationType, ReserveIn, ReserveInAction, ReserveOut,
    ReserveOutAction,
};
use storage_mapping::{
    BlockDevice, Buffer, ControlPort, IoCompletion, IoRequest, IoTag, Lba, PathIndex, wait,
};
use system_tests::relay::Relay;
use system_tests::relay::command::{Command, Endpoint};
use tempfile::TempDir;
use transfer_core::driver::clock::Clock;

use crate::tgt::{Tgtd, address};

/// Reached only when something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// What a caller waits who has no reason to be in a hurry.
pub(crate) const LONG: Duration = Duration::from_secs(20);
pub(crate) const KIND: ReservationType = ReservationType::WriteExclusiveRegistrantsOnly;
pub(crate) const GOOD: u8 = 0x00;
pub(crate) const CONFLICT: u8 = 0x18;
/// How long is slept at most before everything is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Unit attentions that one command goes through.
const ATTENTIONS_MAX: usize = 8;
const BLOCK_BYTES: usize = 512;

/// A status with its sense and data.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u8,
    pub(crate) data: Vec<u8>,
    /// Codes of the unit attentions that came before it.
    pub(crate) attentions: Vec<(u8, u8)>,
}

/// The code and qualifier of a unit attention.
pub(crate) fn attention(reply: &ControlReply) -> Option<(u8, u8)> {
    let ControlReply::Scsi { status: 2, sense, .. } = reply else { return None };
    let sense = storage_mapping::scsi::sense::Sense::parse(sense)?;
    (sense.key == 6).then_some((sense.asc, sense.ascq))
}

/// A nexus of another host, over a portal itself and no relay.
pub(crate) struct Other {
    device: IscsiDevice,
    clock: Clock,
}

impl Other {
    pub(crate) fn ask(&mut self, command: ControlCommand) -> Answer {
        let mut attentions = Vec::new();
        loop {
            let reply = self.send(command.clone());
            match attention(&reply) {
                Some(met) if attentions.len() < ATTENTIONS_MAX => attentions.push(met),
                _ => {
                    let ControlReply::Scsi { status, data, .. } = reply else { panic!("{reply:?}") };
                    return Answer { status, data, attentions };
                }
            }
        }
    }

    fn send(&mut self, command: ControlCommand) -> ControlReply {
        let began = self.clock.now();
        self.device.submit_control(began, ControlRequest { tag: IoTag(9), command }).expect("room");
        loop {
            if let Some(done) = self.device.poll_control(self.clock.now()) {
                return done.outcome.expect("an answer");
            }
            assert!(self.clock.now().since(began) < PATIENCE, "{:?}", self.device.monitor().last_failure());
            let mut descriptors = Vec::new();
            self.device.wait_on(&mut descriptors);
            wait::wait(&descriptors, Some(LOOK_AGAIN));
        }
    }

    pub(crate) fn key_list(&mut self) -> KeyList {
        let read = ReserveIn { action: ReserveInAction::ReadKeys, allocation: 4096 };
        let mut list = KeyList::parse(&self.ask(read.command()).data).expect("a list");
        list.keys.sort_unstable();
        list
    }

    pub(crate) fn keys(&mut self) -> Vec<u64> {
        self.key_list().keys
    }

    /// The key that holds, if one does; its type is that of these tests.
    pub(crate) fn holder(&mut self) -> Option<u64> {
        let read = ReserveIn { action: ReserveInAction::ReadReservation, allocation: 24 };
        let report = ReservationReport::parse(&self.ask(read.command()).data).expect("a report");
        report.reservation.map(|Reservation { key, scope, kind }| {
            assert_eq!((scope, kind), (0, KIND));
            key
        })
    }

    /// The first byte of a block.
    pub(crate) fn first_byte(&mut self, block: u8) -> u8 {
        let read = raw(&[0x28, 0, 0, 0, 0, block, 0, 0, 1, 0], Transfer::In(BLOCK_BYTES));
        self.ask(read).data[0]
    }
}

/// A target of 1 MiB with two portals, a relay before each, and a device over both.
pub(crate) struct Bench {
    pub(crate) device: MultipathDevice,
    pub(crate) clock: Clock,
    done: Vec<IoCompletion>,
    next_tag: u64,
    pub(crate) relays: [Relay; 2],
    target: Tgtd,
    _folder: TempDir,
}

impl Bench {
    pub(crate) fn start() -> Result<Self, String> {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let target = Tgtd::start(&Tgtd::image(folder.path(), "disk.img", 1 << 20))?;
        let relays = target.ports().map(|port| {
            let listen = Endpoint::Tcp("127.0.0.1:0".to_owned());
            Relay::start(&listen, &Endpoint::Tcp(format!("127.0.0.1:{port}")), 7).expect("a port")
        });
        let paths: Vec<Box<dyn BlockDevice>> = relays.iter().map(path).collect();
        let config = FailoverConfig {
            attempt_timeout: Duration::from_secs(1),
            probe_interval: Duration::from_millis(50),
            ..FailoverConfig::default()
        };
        let device = MultipathDevice::new(paths, config).expect("two paths to one unit");
        let (clock, done) = (Clock::new(), Vec::new());
        Ok(Self { device, clock, done, next_tag: 0, relays, target, _folder: folder })
    }

    /// A nexus of another host over a portal of the target.
    pub(crate) fn other(&self, name: &str, portal: usize) -> Other {
        let address = format!("{}?initiator=iqn.2026-11.diskwire:{name}", self.target.address(portal));
        Other { device: open(&address), clock: Clock::new() }
    }

    pub(crate) fn tell(&mut self, path: usize, command: Command) {
        self.relays[path].command(command).expect("it obeys");
    }

    /// One turn of the loop.
    pub(crate) fn turn(&mut self) {
        let now = self.clock.now();
        while let Some(done) = self.device.poll(now) {
            self.done.push(done);
        }
        while self.device.poll_event(now).is_some() {}
    }

    fn rest(&self) {
        let due = self.device.next_wakeup().map_or(LOOK_AGAIN, |at| at.since(self.clock.now()));
        let mut descriptors = Vec::new();
        self.device.wait_on(&mut descriptors);
        wait::wait(&descriptors, Some(due.min(LOOK_AGAIN)));
    }

    /// Goes on until something is found.
    pub(crate) fn until<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        let began = self.clock.now();
        loop {
            self.turn();
            if let Some(found) = look(self) {
                return found;
            }
            let took = self.clock.now().since(began);
            assert!(took < PATIENCE, "{what} does not come: {:?}", self.device.status());
            self.rest();
        }
    }

    /// Waits until a path is in use, or is not.
    pub(crate) fn wait_until_active(&mut self, path: usize, is_active: bool) {
        let is_so = |bench: &mut Self| {
            ((bench.device.status()[path].state == PathState::Active) == is_active).then_some(())
        };
        self.until("the state of the path", is_so);
    }

    /// Sends a command; its outcome, and how long the caller waited.
    pub(crate) fn run(&mut self, request: CommandRequest) -> (CommandOutcome, Duration) {
        let began = self.clock.now();
        let id = self.device.submit_command(began, request);
        loop {
            if let Some(outcome) = self.device.poll_command(self.clock.now()) {
                let took = self.clock.now().since(began);
                assert_eq!(outcome.id, id);
                return (outcome, took);
            }
            assert!(self.clock.now().since(began) < PATIENCE, "a command has no end");
            self.rest();
            self.turn();
        }
    }

    pub(crate) fn over(&mut self, path: usize, command: ControlCommand, mode: Mode) -> CommandOutcome {
        self.run(CommandRequest::new(command, Some(PathIndex(path)), LONG).with_mode(mode)).0
    }

    /// Sends a command for which no path is named; it is done.
    #[track_caller]
    pub(crate) fn does(&mut self, command: ControlCommand) -> CommandOutcome {
        let (outcome, _) = self.run(CommandRequest::new(command, None, LONG));
        assert!(outcome.is_done(), "{}", outcome.record);
        outcome
    }

    /// Sends a command over one path until no unit attention comes before its answer.
    pub(crate) fn exact(&mut self, path: usize, command: &ControlCommand) -> Answer {
        let mut attentions = Vec::new();
        loop {
            let outcome = self.over(path, command.clone(), Mode::Exact);
            let reply = outcome.reply().unwrap_or_else(|| panic!("{}", outcome.record)).clone();
            match attention(&reply) {
                Some(met) if attentions.len() < ATTENTIONS_MAX => attentions.push(met),
                _ => {
                    let ControlReply::Scsi { status, data, .. } = reply else { panic!("{reply:?}") };
                    return Answer { status, data, attentions };
                }
            }
        }
    }

    /// Registers a key over one nexus.
    #[track_caller]
    pub(crate) fn register_over(&mut self, path: usize, key: u64) {
        assert_eq!(self.exact(path, &register(key)).status, GOOD);
    }

    /// The status of a WRITE over each of our nexuses and over the other one.
    pub(crate) fn probe_writes(&mut self, other: &mut Other) -> [u8; 3] {
        let own = [0, 1].map(|path| self.exact(path, &probe_write()).status);
        [own[0], own[1], other.ask(probe_write()).status]
    }

    /// Writes a block by the layers for blocks.
    pub(crate) fn submit_write(&mut self) -> IoTag {
        self.next_tag += 1;
        let tag = IoTag(self.next_tag);
        let request = IoRequest::write(tag, Lba(5), Buffer::copy_of(&[7; BLOCK_BYTES]).freeze(), false);
        self.device.submit(self.clock.now(), request).expect("there is room");
        tag
    }

    /// What has ended of that since the last time.
    pub(crate) fn take_done(&mut self) -> Vec<IoCompletion> {
        std::mem::take(&mut self.done)
    }

    /// Writes a block and waits for its end.
    pub(crate) fn write(&mut self) -> IoCompletion {
        let tag = self.submit_write();
        self.until("the end of a write", |bench| {
            let at = bench.done.iter().position(|done| done.tag == tag)?;
            Some(bench.done.swap_remove(at))
        })
    }
}

fn path(relay: &Relay) -> Box<dyn BlockDevice> {
    let Endpoint::Tcp(listens) = relay.endpoint() else { unreachable!("it was given a port") };
    let port = listens.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    Box::new(open(&address(port)))
}

fn open(address: &str) -> IscsiDevice {
    let parsed: PathAddress = address.parse().expect("an address");
    let Target::Iscsi(parsed) = parsed.target else { panic!("{address}") };
    let settings = IscsiSettings {
        backoff_min: Duration::from_millis(10),
        backoff_max: Duration::from_millis(100),
        ..IscsiSettings::default()
    };
    let parsed: IscsiAddress = parsed;
    IscsiDevice::open(&parsed, settings).expect("a unit")
}

pub(crate) fn raw(cdb: &[u8], transfer: Transfer) -> ControlCommand {
    ControlCommand { bytes: CommandBytes::Scsi(Cdb::new(cdb).expect("a length of the standard")), transfer }
}

pub(crate) fn inquiry() -> ControlCommand {
    InquiryCommand { page: None, allocation: 96 }.command()
}

pub(crate) fn test_unit_ready() -> ControlCommand {
    raw(&[0; 6], Transfer::None)
}

pub(crate) fn out(action: ReserveOutAction, key: u64, action_key: u64) -> ControlCommand {
    ReserveOut::new(action, KIND, key, action_key).command()
}

pub(crate) fn register(key: u64) -> ControlCommand {
    ReserveOut::new(ReserveOutAction::RegisterAndIgnore, ReservationType::NONE, 0, key).command()
}

/// A WRITE(10) of block 3.
pub(crate) fn probe_write() -> ControlCommand {
    raw(&[0x2a, 0, 0, 0, 0, 3, 0, 0, 1, 0], Transfer::Out(vec![3; BLOCK_BYTES]))
}

/// COMPARE AND WRITE of a block: from zeros to ones.
pub(crate) fn compare_and_write(block: u8) -> ControlCommand {
    let data = [vec![0; BLOCK_BYTES], vec![1; BLOCK_BYTES]].concat();
    raw(&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, block, 0, 0, 0, 1, 0, 0], Transfer::Out(data))
}
