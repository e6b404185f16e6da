//! Paths to one iSCSI unit, each through a relay of its own: a path that dies or hangs costs nothing that was written;
//! what a path holds lands late, unless its key was pre-empted.
//!
//! Built with the feature `iscsi`. Skipped where `tgtd` or root is missing; `DISKWIRE_NO_SKIP=1` makes that a failure.

#![cfg(feature = "iscsi")]

#[path = "../../storage-mapping/tests/support/programs.rs"]
mod programs;
#[path = "../../storage-mapping/tests/support/tgt.rs"]
mod tgt;

use std::path::{Path, PathBuf};
use std::time::Duration;

use multipath::{MultipathDevice, PathState};
use programs::skip;
use storage_mapping::control_port::{
    Cdb, CommandBytes, ControlCommand, ControlEvent, ControlReply, ControlRequest, Transfer,
};
use storage_mapping::device::{IscsiDevice, IscsiSettings};
use storage_mapping::path_address::{IscsiAddress, PathAddress, Target};
use storage_mapping::{
    BlockDevice, BlockSize, Buffer, ControlPort, CopyFate, DeviceEvent, Effect, ErrorSource, IoCompletion,
    IoRequest, IoTag, Lba, wait,
};
use system_tests::chance::Chance;
use system_tests::real_paths::Fault;
use system_tests::real_paths::drill::config;
use system_tests::real_paths::load::{BLOCK_BYTES, BLOCKS, Load, difference, stamped};
use system_tests::relay::Relay;
use system_tests::relay::command::{Command, Direction, Endpoint, Ways};
use tempfile::TempDir;
use tgt::Tgtd;
use transfer_core::driver::clock::Clock;

/// Reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);
const TO_SERVER: Ways = Ways::One(Direction::ToServer);

/// A target over a stamped file, and a relay before each of its portals.
struct Stage {
    relays: [Relay; 2],
    _target: Tgtd,
    image: PathBuf,
    _folder: TempDir,
}

impl Stage {
    fn start() -> Result<Self, String> {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = folder.expect("a scratch folder");
        let image = folder.path().join("disk.img");
        let bytes: Vec<u8> = (0..BLOCKS).flat_map(|block| stamped(block, 0)).collect();
        std::fs::write(&image, bytes).expect("a scratch file");
        let target = Tgtd::start(&image)?;
        let relays = target.ports().map(|port| {
            let listen = Endpoint::Tcp("127.0.0.1:0".to_owned());
            Relay::start(&listen, &Endpoint::Tcp(format!("127.0.0.1:{port}")), 7).expect("a port")
        });
        Ok(Self { relays, _target: target, image, _folder: folder })
    }

    fn open(&self, path: usize) -> IscsiDevice {
        let Endpoint::Tcp(listens) = self.relays[path].endpoint() else {
            unreachable!("it was given a port")
        };
        let port = listens.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let settings = IscsiSettings {
            block_size: Some(BlockSize::B4096),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(100),
            ..IscsiSettings::default()
        };
        IscsiDevice::open(&parsed(&tgt::address(port)), settings).expect("a unit")
    }

    fn tell(&mut self, path: usize, command: Command) {
        self.relays[path].command(command).expect("it obeys");
    }

    /// Where the file is not as the load says.
    fn compare(&self, load: &Load) -> Vec<String> {
        let bytes = std::fs::read(&self.image).expect("the file is there");
        let blocks = bytes.chunks(BLOCK_BYTES).zip(load.model()).zip(0..);
        blocks.filter_map(|((bytes, writes), block)| difference(bytes, block, (*writes)?)).collect()
    }
}

fn parsed(address: &str) -> IscsiAddress {
    match address.parse::<PathAddress>().expect("an address").target {
        Target::Iscsi(address) => address,
        other => panic!("{other:?}"),
    }
}

/// A device over both paths under verified load; while it runs, a path is broken and healed again.
fn break_and_heal(mut stage: Stage, fault: Fault, break_it: Command, heal_it: Option<Command>) -> Load {
    let paths: Vec<Box<dyn BlockDevice>> = vec![Box::new(stage.open(0)), Box::new(stage.open(1))];
    let clock = Clock::new();
    let device = MultipathDevice::new(paths, config(fault)).expect("two paths to one unit");
    let mut load = Load::new(clock, device, Chance::new(11));
    let requests = |load: &Load| load.device().status().iter().map(|path| path.requests).collect::<Vec<_>>();
    load.run("the warm-up", |load| requests(load).iter().all(|requests| *requests > 200))
        .expect("both are used");

    stage.tell(0, break_it);
    let broken_at = clock.now();
    load.run("what the fault met", |load| {
        clock.now().since(broken_at) > Duration::from_millis(600) && !load.has_waited_since(broken_at)
    })
    .expect("the other path carries it");
    let before = load.done().len();
    load.run("the rest", |load| load.done().len() > before + 200).expect("the other path carries on");
    heal_it.into_iter().for_each(|command| stage.tell(0, command));
    let is_whole = |load: &Load| load.device().status().iter().all(|path| path.state == PathState::Active);
    load.run("the return of the path", is_whole).expect("it comes back");
    let before = requests(&load);
    load.run("both paths again", |load| {
        requests(load).iter().zip(&before).all(|(now, before)| *now > before + 50)
    })
    .expect("both are used again");
    load.drain().expect("an end");
    load.read_all().expect("all of it can be read");
    assert_eq!(load.errors(), Vec::<String>::new());
    assert_eq!(load.wrong(), Vec::<String>::new());
    assert_eq!(stage.compare(&load), Vec::<String>::new());
    assert!(load.blocks_checked() > BLOCKS);
    assert_eq!(load.device().late_landings(), 0);
    load
}

macro_rules! stage_or_skip {
    ($test:expr) => {
        match Stage::start() {
            Ok(stage) => stage,
            Err(reason) => return skip($test, &reason),
        }
    };
}

#[test]
fn a_path_that_is_killed_loses_nothing() {
    let stage = stage_or_skip!("a_path_that_is_killed_loses_nothing");
    let load = break_and_heal(stage, Fault::RelayKilled, Command::Kill, Some(Command::Revive));
    println!("{} requests, {} blocks checked", load.done().len(), load.blocks_checked());
}

#[test]
fn a_path_that_is_cut_loses_nothing() {
    let stage = stage_or_skip!("a_path_that_is_cut_loses_nothing");
    let load = break_and_heal(stage, Fault::RelayCut, Command::Cut, None);
    println!("{} requests, {} blocks checked", load.done().len(), load.blocks_checked());
}

#[test]
fn a_path_that_hangs_loses_nothing() {
    let stage = stage_or_skip!("a_path_that_hangs_loses_nothing");
    let (pause, resume) = (Command::Pause(Ways::Both), Command::Resume(Ways::Both));
    let load = break_and_heal(stage, Fault::RelayPaused, pause, Some(resume));
    println!(
        "{} requests, {} blocks checked, {} late copies",
        load.done().len(),
        load.blocks_checked(),
        load.ghosts()
    );
}

/// Waits until something is found.
fn until<T>(device: &mut IscsiDevice, mut look: impl FnMut(&mut IscsiDevice) -> Option<T>) -> T {
    let clock = Clock::new();
    loop {
        if let Some(found) = look(device) {
            return found;
        }
        assert!(
            clock.now().since(storage_mapping::Instant::ZERO) < PATIENCE,
            "{:?}",
            device.monitor().last_failure()
        );
        let mut descriptors = Vec::new();
        device.wait_on(&mut descriptors);
        wait::wait(&descriptors, Some(Duration::from_millis(10)));
    }
}

fn run(device: &mut IscsiDevice, clock: Clock, request: IoRequest) -> IoCompletion {
    device.submit(clock.now(), request).expect("room");
    until(device, |device| device.poll(clock.now()))
}

fn write(tag: u64, writes: u64) -> IoRequest {
    IoRequest::write(IoTag(tag), Lba(tag), Buffer::copy_of(&stamped(tag, writes)).freeze(), false)
}

/// How often a block was written, of zero, one and two times.
fn writes_of(device: &mut IscsiDevice, clock: Clock, block: u64) -> u64 {
    let done = run(device, clock, IoRequest::read(IoTag(99), Lba(block), Buffer::zeroed(BLOCK_BYTES)));
    done.outcome.expect("reads are allowed");
    let bytes = done.buffer.into_read().expect("of a read");
    (0..3).find(|writes| bytes[..] == stamped(block, *writes)[..]).expect("one of them")
}

/// PERSISTENT RESERVE OUT with a service action, a type, our key and the other; the status.
fn reserve_out(device: &mut IscsiDevice, clock: Clock, action: u8, kind: u8, own: u8, other: u8) -> u8 {
    let mut parameters = vec![0; 24];
    (parameters[7], parameters[15]) = (own, other);
    let cdb = Cdb::new(&[0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0]).expect("ten bytes");
    let command = ControlCommand { bytes: CommandBytes::Scsi(cdb), transfer: Transfer::Out(parameters) };
    device.submit_control(clock.now(), ControlRequest { tag: IoTag(98), command }).expect("room");
    let done = until(device, |device| device.poll_control(clock.now()));
    match done.outcome.expect("an answer") {
        ControlReply::Scsi { status, .. } => status,
        other => panic!("{other:?}"),
    }
}

/// Path A sends writes that its relay holds; path B writes the same blocks; then A's writes go on. What is in the
/// blocks then, and what A was told.
fn write_late(stage: &mut Stage, preempts: bool) -> (Vec<u64>, Vec<IoCompletion>) {
    const BLOCKS_WRITTEN: [u64; 3] = [5, 6, 7];
    let clock = Clock::new();
    let (mut path_a, mut path_b) = (stage.open(0), stage.open(1));
    assert_eq!(reserve_out(&mut path_a, clock, 6, 0, 0, 1), 0);
    assert_eq!(reserve_out(&mut path_b, clock, 6, 0, 0, 2), 0);
    // Write exclusive, registrants only.
    assert_eq!(reserve_out(&mut path_a, clock, 1, 5, 1, 0), 0);
    stage.tell(0, Command::Pause(TO_SERVER));
    for block in BLOCKS_WRITTEN {
        path_a.submit(clock.now(), write(block, 1)).expect("room");
    }
    assert!(path_a.poll(clock.now()).is_none());
    assert!(stage.relays[0].wait_until_held(Direction::ToServer, 3 * (48 + BLOCK_BYTES), PATIENCE));
    if preempts {
        assert_eq!(reserve_out(&mut path_b, clock, 4, 5, 2, 1), 0);
    }
    for block in BLOCKS_WRITTEN {
        assert_eq!(run(&mut path_b, clock, write(block, 2)).outcome, Ok(()));
        assert_eq!(writes_of(&mut path_b, clock, block), 2);
    }
    stage.tell(0, Command::Resume(TO_SERVER));
    let told = BLOCKS_WRITTEN.map(|_| until(&mut path_a, |device| device.poll(clock.now())));
    let found = BLOCKS_WRITTEN.map(|block| writes_of(&mut path_b, clock, block));
    (found.to_vec(), told.into())
}

#[test]
fn a_preempted_key_stops_writes_that_come_late_and_nothing_else_does() {
    let test = "a_preempted_key_stops_writes_that_come_late_and_nothing_else_does";
    let (found, told) = write_late(&mut stage_or_skip!(test), false);
    assert_eq!(found, [1, 1, 1], "old over new");
    assert!(told.iter().all(|done| done.outcome.is_ok()));

    let (found, told) = write_late(&mut stage_or_skip!(test), true);
    assert_eq!(found, [2, 2, 2]);
    for done in &told {
        let error = done.outcome.expect_err("none of them").source_code;
        let is_conflict = matches!(error, ErrorSource::Scsi { status: 0x18, .. });
        // The first one may be answered by the news of it.
        let is_news = matches!(error, ErrorSource::Scsi { status: 2, key: 6, asc: 0x2a, .. });
        assert!(is_conflict || is_news, "{error:?}");
        assert_eq!((done.effect, done.copy), (Effect::Unknown, CopyFate::Dead));
    }
}

#[test]
fn a_path_comes_back_as_the_same_nexus_and_keeps_its_key_only_where_the_target_does() {
    let test = "a_path_comes_back_as_the_same_nexus_and_keeps_its_key_only_where_the_target_does";
    let mut stage = stage_or_skip!(test);
    let clock = Clock::new();
    let (mut path_a, mut path_b) = (stage.open(0), stage.open(1));
    assert_eq!(reserve_out(&mut path_a, clock, 6, 0, 0, 1), 0);
    assert_eq!(reserve_out(&mut path_b, clock, 6, 0, 0, 2), 0);
    let before = path_a.nexus();
    while path_a.poll_control_event(clock.now()).is_some() {}
    stage.tell(0, Command::Kill);
    stage.tell(0, Command::Revive);
    until(&mut path_a, |device| {
        assert!(device.poll(clock.now()).is_none());
        device.poll_event(clock.now()).filter(|event| *event == DeviceEvent::LinkUp)
    });
    let after = path_a.nexus();
    assert_eq!((&after.initiator, &after.target_port), (&before.initiator, &before.target_port));
    assert_eq!((before.generation, after.generation), (1, 2));
    let events: Vec<_> = std::iter::from_fn(|| path_a.poll_control_event(clock.now())).collect();
    assert_eq!(events[..2], [ControlEvent::NexusLost, ControlEvent::NexusBegun]);
    assert!(events.contains(&ControlEvent::Attention { key: 6, asc: 0x29, ascq: 0 }), "{events:?}");

    // REGISTER with the old key: GOOD where the registration outlived the login, a conflict where it did not.
    let status = reserve_out(&mut path_a, clock, 0, 0, 1, 1);
    println!(
        "after a new login with the same session id the old key is {}",
        if status == 0 { "kept" } else { "gone" }
    );
    assert!(matches!(status, 0 | 0x18), "{status:02x}h");
    assert_eq!(run(&mut path_a, clock, write(1, 1)).outcome, Ok(()));
    assert_eq!(writes_of(&mut path_b, clock, 1), 1);
}
