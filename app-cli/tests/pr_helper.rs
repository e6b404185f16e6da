//! `diskwire pr-helper` as a virtual machine sees it: a client of the helper protocol reserves a disk with two paths to a
//! real iSCSI target, beside the same client at the real `qemu-pr-helper`.
//!
//! A file stands for the virtual machine's disk. The real helper sends to the descriptor itself, and this host may have no
//! SCSI disk: of it the handshake and the form of its answers are compared. Built with the feature `iscsi`. Skipped where
//! `tgtd`, root or `qemu-pr-helper` are missing; `DISKWIRE_NO_SKIP=1` makes that a failure.

#![cfg(feature = "iscsi")]
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

#[path = "../../storage-mapping/tests/support/programs.rs"]
mod programs;
mod support;
#[path = "../../storage-mapping/tests/support/tgt.rs"]
mod tgt;

use std::fs::{File, OpenOptions};
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use programs::find;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Signal;
use serde_json::Value;
use support::{LIMIT, Running, skip};
use system_tests::relay::Relay;
use system_tests::relay::command::{Command as RelayCommand, Direction, Endpoint, Ways};
use tempfile::TempDir;
use tgt::{Tgtd, address};

const GOOD: u8 = 0;
const CHECK_CONDITION: u8 = 2;
const CONFLICT: u8 = 0x18;
/// Write exclusive, registrants only.
const KIND: u8 = 5;

/// An answer of a helper.
#[derive(Debug)]
struct Answer {
    /// All four bytes of it.
    status: u32,
    sense: Vec<u8>,
    data: Vec<u8>,
}

impl Answer {
    fn status(&self) -> u8 {
        u8::try_from(self.status).unwrap()
    }

    /// Sense key, code and qualifier of fixed sense data.
    fn codes(&self) -> (u8, u8, u8) {
        assert_eq!(self.sense[0] & 0x7f, 0x70, "{self:?}");
        (self.sense[2] & 0x0f, self.sense[12], self.sense[13])
    }

    fn keys(&self) -> Vec<u64> {
        let key = |bytes: &[u8]| bytes.iter().fold(0, |key, byte| key << 8 | u64::from(*byte));
        self.data[8..].chunks_exact(8).map(key).collect()
    }
}

/// A virtual machine's process at a helper.
struct Client {
    stream: UnixStream,
}

impl Client {
    fn connect(socket: &Path) -> Self {
        let began = Instant::now();
        let mut stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(began.elapsed() < LIMIT, "{}: {error}", socket.display()),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut features = [0xff; 4];
        stream.read_exact(&mut features).unwrap();
        assert_eq!(features, [0; 4], "what the helper can do beyond the protocol");
        stream.write_all(&[0; 4]).unwrap();
        Self { stream }
    }

    fn send(&self, disk: &File, cdb: &[u8; 10]) {
        let mut request = [0; 16];
        request[..10].copy_from_slice(cdb);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors = [disk.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let sent = sendmsg(&self.stream, &[IoSlice::new(&request)], &mut ancillary, SendFlags::empty());
        assert_eq!(sent.unwrap(), 16);
    }

    fn answer(&mut self) -> Answer {
        let mut head = [0; 104];
        self.stream.read_exact(&mut head).unwrap();
        let number = |at: usize| head[at..at + 4].iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        let (status, size) = (number(0), number(4));
        assert!(size <= 8192, "{size}");
        let mut data = vec![0; size as usize];
        self.stream.read_exact(&mut data).unwrap();
        Answer { status, sense: head[8..].to_vec(), data }
    }

    /// PERSISTENT RESERVE IN.
    fn reserve_in(&mut self, disk: &File, action: u8) -> Answer {
        self.send(disk, &[0x5e, action, 0, 0, 0, 0, 0, 2, 0, 0]);
        self.answer()
    }

    /// PERSISTENT RESERVE OUT.
    fn reserve_out(&mut self, disk: &File, action: u8, key: u8, action_key: u8) -> Answer {
        self.send(disk, &[0x5f, action, KIND, 0, 0, 0, 0, 0, 24, 0]);
        let mut parameters = [0; 24];
        (parameters[7], parameters[15]) = (key, action_key);
        self.stream.write_all(&parameters).unwrap();
        self.answer()
    }
}

struct Stage {
    helper: Running,
    relays: [Relay; 2],
    target: Tgtd,
    folder: TempDir,
}

impl Stage {
    fn start() -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let target = Tgtd::start(&Tgtd::image(folder.path(), "disk.img", 1 << 20))?;
        for file in ["machine.img", "other.img"] {
            File::create(folder.path().join(file)).unwrap();
        }
        let mut command = program();
        command.arg("pr-helper").arg("--socket").arg(folder.path().join("pr.sock"));
        let relays = target.ports().map(|port| {
            let listen = Endpoint::Tcp("127.0.0.1:0".to_owned());
            Relay::start(&listen, &Endpoint::Tcp(format!("127.0.0.1:{port}")), 7).unwrap()
        });
        let over = |relay: &Relay| match relay.endpoint() {
            Endpoint::Tcp(listens) => address(listens.rsplit(':').next().unwrap().parse().unwrap()),
            Endpoint::Unix(_) => unreachable!("it was given a port"),
        };
        let disk = folder.path().join("machine.img");
        let paths = format!("{}={},{}", disk.display(), over(&relays[0]), over(&relays[1]));
        command.arg("--disk").arg(paths).env("RUST_LOG", "info");
        let mut helper = Running::start(command);
        helper.wait_until_said("serving", LIMIT);
        Ok(Self { helper, relays, target, folder })
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("pr.sock")
    }

    fn disk(&self, name: &str) -> File {
        OpenOptions::new().read(true).write(true).open(self.folder.path().join(name)).unwrap()
    }

    /// What another host reads: `keys` or `reservation`.
    fn seen(&self, what: &str) -> Value {
        let mut command = program();
        let address = format!("{}?initiator=iqn.2026-11.diskwire:watch", self.target.address(0));
        command.args(["ctl", "pr", what, &address, "--json"]);
        let done = Running::start(command).wait(LIMIT).expect(0);
        let mut whole: Value = serde_json::from_slice(&done.stdout).unwrap();
        whole["answer"][0].take()
    }

    /// The path over which the helper sent the last of so many commands of a name, as it says in its log.
    fn path_of(&self, command: &str, count: usize) -> usize {
        let began = Instant::now();
        loop {
            let said = self.helper.said();
            let after = said.split(command).nth(count).and_then(|rest| rest.split_once("sent over path "));
            if let Some((_, rest)) = after {
                return rest.split(':').next().unwrap().parse().unwrap();
            }
            assert!(began.elapsed() < LIMIT, "{said}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn keys_seen(&self) -> Vec<String> {
        let seen = self.seen("keys");
        let fields = seen["fields"].as_object().unwrap().iter();
        fields
            .filter(|(name, _)| name.starts_with("key_"))
            .map(|(_, key)| key.as_str().unwrap().to_owned())
            .collect()
    }
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diskwire"));
    command.env_remove("DISKWIRE_CONFIG").env_remove("RUST_LOG");
    command
}

macro_rules! stage_or_skip {
    ($test:expr) => {
        match Stage::start() {
            Ok(stage) => stage,
            Err(reason) => return skip($test, &reason),
        }
    };
}

fn key(key: u8) -> String {
    format!("0x{key:016x}")
}

#[test]
fn a_virtual_machine_registers_and_reserves_over_two_nexuses() {
    let stage = stage_or_skip!("a_virtual_machine_registers_and_reserves_over_two_nexuses");
    let disk = stage.disk("machine.img");
    let mut client = Client::connect(&stage.socket());
    let keys = client.reserve_in(&disk, 0);
    assert_eq!((keys.status(), keys.data.len(), keys.keys()), (GOOD, 8, Vec::new()));

    // REGISTER AND IGNORE EXISTING KEY: every nexus of ours has it then.
    let registered = client.reserve_out(&disk, 6, 0, 0x21);
    assert_eq!((registered.status(), registered.data.len()), (GOOD, 0), "{registered:?}");
    assert_eq!(client.reserve_in(&disk, 0).keys(), [0x21, 0x21]);
    assert_eq!(stage.keys_seen(), [key(0x21), key(0x21)]);

    assert_eq!(client.reserve_out(&disk, 1, 0x21, 0).status(), GOOD);
    let seen = stage.seen("reservation");
    assert_eq!(seen["title"], "Reservation: held");
    assert_eq!(seen["fields"]["holder"], format!("who registered {}", key(0x21)));
    // RELEASE with a key that is not ours, and with ours.
    assert_eq!(client.reserve_out(&disk, 2, 0x22, 0).status(), CONFLICT);
    assert_eq!(client.reserve_out(&disk, 2, 0x21, 0).status(), GOOD);
    assert_eq!(stage.seen("reservation")["title"], "Reservation: none");
    // A second virtual machine of this disk, and the end of the registration.
    let mut second = Client::connect(&stage.socket());
    assert_eq!(second.reserve_in(&disk, 0).keys(), [0x21, 0x21]);
    let ended = client.reserve_out(&disk, 6, 0, 0);
    // After the refusal above nobody is sure of the keys: one nexus may have been looked at while the other had not ended.
    let is_in_doubt = ended.status() == CHECK_CONDITION && ended.codes() == (4, 0x08, 0);
    assert!(ended.status() == GOOD || is_in_doubt, "{ended:?}");
    assert_eq!(second.reserve_in(&disk, 0).keys(), Vec::<u64>::new());
    assert_eq!(stage.keys_seen(), Vec::<String>::new());

    // It ends when it is told to, and takes its socket along.
    let Stage { helper, folder, .. } = stage;
    helper.signal(Signal::TERM);
    helper.wait(LIMIT).expect(0);
    assert!(!folder.path().join("pr.sock").exists());
}

#[test]
fn a_release_is_good_only_once_no_nexus_of_ours_holds() {
    let mut stage = stage_or_skip!("a_release_is_good_only_once_no_nexus_of_ours_holds");
    let disk = stage.disk("machine.img");
    let mut client = Client::connect(&stage.socket());
    assert_eq!(client.reserve_out(&disk, 6, 0, 0x21).status(), GOOD);
    let reserve_and_doubt = |client: &mut Client| {
        assert_eq!(client.reserve_out(&disk, 1, 0x21, 0).status(), GOOD);
        assert_eq!(stage.seen("reservation")["title"], "Reservation: held");
        // With another key it is refused, and after that nobody is sure which nexus holds.
        assert_eq!(client.reserve_out(&disk, 2, 0x22, 0).status(), CONFLICT);
    };
    // Twice, so that both nexuses have met what the registration of the other one makes them report.
    reserve_and_doubt(&mut client);
    assert_eq!(client.reserve_out(&disk, 2, 0x21, 0).status(), GOOD);
    reserve_and_doubt(&mut client);
    // The path that holds becomes the slower one, so that the next command takes the other.
    let holder = stage.path_of("PERSISTENT RESERVE OUT RESERVE:", 2);
    let (ways, jitter) = (Ways::One(Direction::ToClient), Duration::ZERO);
    let delay = Duration::from_millis(100);
    stage.relays[holder].command(RelayCommand::Delay { ways, delay, jitter }).unwrap();
    for _ in 0..3 {
        assert_eq!(client.reserve_in(&disk, 0).status(), GOOD);
    }
    assert_eq!(client.reserve_out(&disk, 2, 0x21, 0).status(), GOOD);
    assert_eq!(stage.seen("reservation")["title"], "Reservation: none");
    stage.helper.wait_until_said("the target said GOOD, and nothing changed", LIMIT);
}

#[test]
fn who_may_not_write_or_has_another_disk_changes_nothing() {
    let stage = stage_or_skip!("who_may_not_write_or_has_another_disk_changes_nothing");
    let mut client = Client::connect(&stage.socket());
    let reads = File::open(stage.folder.path().join("machine.img")).unwrap();
    let refused = client.reserve_out(&reads, 6, 0, 0x21);
    assert_eq!((refused.status(), refused.codes()), (CHECK_CONDITION, (5, 0x20, 0)));
    assert_eq!(client.reserve_in(&reads, 0).status(), GOOD, "who reads may ask");
    let unknown = client.reserve_out(&stage.disk("other.img"), 6, 0, 0x21);
    assert_eq!((unknown.status(), unknown.codes()), (CHECK_CONDITION, (5, 0x25, 0)));
    assert_eq!(stage.keys_seen(), Vec::<String>::new());
    // What the target refuses is told as it came: READ FULL STATUS is not known to this one.
    let refused = client.reserve_in(&reads, 3);
    assert_eq!((refused.status(), refused.data.len(), refused.codes().0), (CHECK_CONDITION, 0, 5));
}

#[test]
fn the_real_helper_answers_in_the_same_form() {
    let test = "the_real_helper_answers_in_the_same_form";
    let real = match find("qemu-pr-helper") {
        Ok(real) => real,
        Err(reason) => return skip(test, &reason),
    };
    let stage = stage_or_skip!(test);
    let socket = stage.folder.path().join("qemu.sock");
    let mut command = Command::new(real);
    command.arg("--socket").arg(&socket).current_dir(stage.folder.path());
    let _real = Running::start(command);
    // A file that is no SCSI disk, and for us a disk that nobody made known.
    let no_disk = stage.disk("other.img");
    let mut answers = Vec::new();
    for socket in [&socket, &stage.socket()] {
        let mut client = Client::connect(socket);
        let reads = client.reserve_in(&no_disk, 0);
        let registers = client.reserve_out(&no_disk, 6, 0, 0x21);
        // The same once more: who was refused is served on.
        let again = client.reserve_in(&no_disk, 0);
        answers.push([reads, registers, again]);
    }
    // A descriptor that only reads: both refuse before they look at the disk, and with the same codes.
    let reads = File::open(stage.folder.path().join("machine.img")).unwrap();
    let refused = [&socket, &stage.socket()].map(|socket| {
        let refused = Client::connect(socket).reserve_out(&reads, 6, 0, 0x21);
        (refused.status(), refused.codes(), refused.data.len())
    });
    assert_eq!(refused, [(CHECK_CONDITION, (5, 0x20, 0), 0); 2]);
    for (theirs, ours) in answers[0].iter().zip(&answers[1]) {
        println!(
            "qemu-pr-helper: {:x} {:02x?}, {} bytes",
            theirs.status,
            &theirs.sense[..18],
            theirs.data.len()
        );
        println!("diskwire:       {:x} {:02x?}, {} bytes", ours.status, &ours.sense[..18], ours.data.len());
        assert_eq!((theirs.status, theirs.data.len()), (ours.status, ours.data.len()));
        assert_eq!((theirs.status(), theirs.sense[0] & 0x7f), (CHECK_CONDITION, ours.sense[0] & 0x7f));
        assert_ne!(theirs.codes().0, 0);
    }
}
