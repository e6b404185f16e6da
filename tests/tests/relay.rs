//! The relay before an echo server; and before an NBD server, where it makes what no simulation can prove: a
//! write of a lost connection that lands over a newer one.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant as Clock};

use storage_mapping::device::{NbdDevice, NbdServer, NbdSettings};
use storage_mapping::{
    BlockDevice, BlockSize, Buffer, CopyFate, DeviceEvent, Effect, ErrorSource, Instant, IoCompletion,
    IoRequest, IoTag, Lba, wait,
};
use system_tests::relay::Relay;
use system_tests::relay::command::{Command, Direction, Endpoint, Ways};

/// The server inside the test that the tests of the device have.
#[expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]
#[path = "../../storage-mapping/tests/support/nbd.rs"]
mod nbd;
/// And the real ones.
#[path = "../../storage-mapping/tests/support/programs.rs"]
mod programs;

/// Reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);
const TO_SERVER: Ways = Ways::One(Direction::ToServer);

/// Gives back what it gets, until the other side ends.
fn echo(mut from: impl Read, mut to: impl Write) {
    drop(std::io::copy(&mut from, &mut to));
}

fn unix_echo(path: &Path) -> Endpoint {
    let listener = UnixListener::bind(path).expect("a socket");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || echo(stream.try_clone().expect("a descriptor"), stream));
        }
    });
    Endpoint::Unix(path.to_owned())
}

fn before(target: &Endpoint, folder: &Path) -> (Relay, impl Fn() -> UnixStream) {
    let path = folder.join("relay.sock");
    let relay = Relay::start(&Endpoint::Unix(path.clone()), target, 7).expect("a socket");
    let connect = move || {
        let stream = UnixStream::connect(&path).expect("the relay listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream
    };
    (relay, connect)
}

fn comes_back(stream: &mut UnixStream, text: &[u8]) {
    stream.write_all(text).expect("room");
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back).expect("an echo");
    assert!(back == text, "the bytes pass unchanged");
}

/// Whether nothing is there now.
fn is_silent(stream: &mut UnixStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let found = stream.read(&mut [0; 1]);
    stream.set_nonblocking(false).expect("a socket");
    found.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn bytes_pass_and_a_pause_holds_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = unix_echo(&folder.path().join("echo.sock"));
    let (mut relay, connect) = before(&target, folder.path());
    let (mut one, mut other) = (connect(), connect());
    comes_back(&mut one, &vec![7; 1 << 20]);
    for direction in [Direction::ToServer, Direction::ToClient] {
        let ways = Ways::One(direction);
        relay.command(Command::Pause(ways)).expect("it obeys");
        one.write_all(b"held").expect("room");
        assert!(relay.wait_until_held(direction, 4, PATIENCE));
        assert!(is_silent(&mut one));
        relay.command(Command::Resume(ways)).expect("it obeys");
        let mut back = [0; 4];
        one.read_exact(&mut back).expect("an echo");
        assert_eq!(&back, b"held");
        comes_back(&mut other, b"and the other goes on");
    }
    one.shutdown(std::net::Shutdown::Write).expect("open");
    assert_eq!(one.read_to_end(&mut Vec::new()).expect("an end"), 0, "the end passes, too");
}

#[test]
fn delays_rates_and_drops_do_what_they_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = unix_echo(&folder.path().join("echo.sock"));
    let (mut relay, connect) = before(&target, folder.path());
    let mut stream = connect();
    let ms = Duration::from_millis;
    relay.command(Command::Delay { ways: Ways::Both, delay: ms(20), jitter: ms(5) }).expect("it obeys");
    let began = Clock::now();
    comes_back(&mut stream, b"there and back");
    assert!(began.elapsed() >= ms(40), "{:?}", began.elapsed());
    relay.command(Command::Delay { ways: Ways::Both, delay: ms(0), jitter: ms(0) }).expect("it obeys");

    relay.command(Command::Rate(TO_SERVER, Some(1 << 20))).expect("it obeys");
    let began = Clock::now();
    comes_back(&mut stream, &vec![7; 128 << 10]);
    // The last piece of 16 KiB goes when its time begins.
    assert!(began.elapsed() >= ms(105), "{:?}", began.elapsed());
    relay.command(Command::Rate(TO_SERVER, None)).expect("it obeys");

    relay.command(Command::Drop(TO_SERVER, true)).expect("it obeys");
    stream.write_all(b"gone").expect("room");
    assert!(!relay.wait_until_held(Direction::ToServer, 1, ms(20)));
    assert!(is_silent(&mut stream));
}

#[test]
fn a_killed_relay_ends_what_there_is_and_takes_nothing_until_revived() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = Endpoint::Tcp(listener.local_addr().expect("an address").to_string());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || echo(stream.try_clone().expect("a descriptor"), stream));
        }
    });
    let folder = tempfile::tempdir().expect("a folder");
    let (mut relay, connect) = before(&target, folder.path());
    let mut stream = connect();
    comes_back(&mut stream, b"over TCP");
    relay.command(Command::Pause(Ways::Both)).expect("it obeys");
    stream.write_all(b"lost").expect("room");
    assert!(relay.wait_until_held(Direction::ToServer, 4, PATIENCE));
    relay.command(Command::Kill).expect("it obeys");
    assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)), "the connection has ended");
    assert!(UnixStream::connect(folder.path().join("relay.sock")).is_err(), "and nobody listens");
    relay.command(Command::Revive).expect("it listens again");
    relay.command(Command::Resume(Ways::Both)).expect("it obeys");
    comes_back(&mut connect(), b"again");
}

fn open(socket: &Path) -> NbdDevice {
    let settings = NbdSettings { block_size: Some(BlockSize::B512), ..NbdSettings::default() };
    NbdDevice::open(&NbdServer::Unix(socket.to_owned()), "", settings).expect("a server")
}

/// Waits in real time until `look` finds something.
fn until<T>(device: &mut NbdDevice, mut look: impl FnMut(&mut NbdDevice) -> Option<T>) -> T {
    let began = Clock::now();
    loop {
        if let Some(found) = look(device) {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{:?}", device.monitor().last_failure());
        let mut descriptors = Vec::new();
        device.wait_on(&mut descriptors);
        let is_busy = device.next_wakeup().is_some();
        wait::wait(&descriptors, Some(Duration::from_millis(if is_busy { 1 } else { 1000 })));
    }
}

fn run(device: &mut NbdDevice, request: IoRequest) -> IoCompletion {
    device.submit(Instant::ZERO, request).expect("room");
    until(device, |device| device.poll(Instant::ZERO))
}

fn write(value: u8) -> IoRequest {
    IoRequest::write(IoTag(1), Lba(5), Buffer::copy_of(&[value; 512]).freeze(), true)
}

fn first_byte(device: &mut NbdDevice) -> u8 {
    let done = run(device, IoRequest::read(IoTag(2), Lba(5), Buffer::zeroed(512)));
    done.outcome.expect("the path lives");
    done.buffer.into_read().expect("of a read")[0]
}

#[test]
fn a_write_of_a_lost_connection_lands_over_a_newer_one() {
    let place = nbd::Place::new();
    let disk = nbd::honest(&place, nbd::Told::new(1 << 20));
    make_a_ghost(&place);
    assert_eq!(disk.lock().expect("nobody panics")[5 * 512..6 * 512], [1; 512]);
}

#[test]
fn a_write_of_a_lost_connection_lands_in_nbdkit() {
    let place = nbd::Place::new();
    match programs::Program::nbdkit(&place.socket(), &["memory", "size=1M"]) {
        Ok(_program) => make_a_ghost(&place),
        Err(reason) => programs::skip("a_write_of_a_lost_connection_lands_in_nbdkit", &reason),
    }
}

/// Two paths to the server there, one of them through a relay that holds a write.
fn make_a_ghost(place: &nbd::Place) {
    let relayed = place.file("relayed.sock");
    let target = Endpoint::Unix(place.socket());
    let mut relay = Relay::start(&Endpoint::Unix(relayed.clone()), &target, 7).expect("a socket");
    let (mut path_a, mut path_b) = (open(&relayed), open(&place.socket()));

    relay.command(Command::Pause(TO_SERVER)).expect("it obeys");
    path_a.submit(Instant::ZERO, write(1)).expect("room");
    assert!(path_a.poll(Instant::ZERO).is_none());
    assert!(relay.wait_until_held(Direction::ToServer, 28 + 512, PATIENCE));
    relay.command(Command::Cut).expect("it obeys");
    let lost = until(&mut path_a, |device| device.poll(Instant::ZERO));
    assert_eq!(lost.outcome.expect_err("lost").source_code, ErrorSource::ConnectionLost { sent: true });
    assert_eq!((lost.effect, lost.copy), (Effect::Unknown, CopyFate::MayLand));
    assert_eq!(path_a.poll_event(Instant::ZERO), Some(DeviceEvent::LinkDown));

    // The newer value is acknowledged, durable, and there.
    assert!(run(&mut path_b, write(2)).outcome.is_ok());
    assert_eq!(first_byte(&mut path_b), 2);
    relay.command(Command::Resume(TO_SERVER)).expect("it obeys");
    let began = Clock::now();
    while first_byte(&mut path_b) != 1 {
        assert!(began.elapsed() < PATIENCE, "the old write never landed");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn one_path_dies_while_the_other_lives() {
    let place = nbd::Place::new();
    drop(nbd::honest(&place, nbd::Told::new(1 << 20)));
    let relayed = place.file("relayed.sock");
    let target = Endpoint::Unix(place.socket());
    let mut relay = Relay::start(&Endpoint::Unix(relayed.clone()), &target, 7).expect("a socket");
    let (mut path_a, mut path_b) = (open(&relayed), open(&place.socket()));
    assert!(run(&mut path_a, write(3)).outcome.is_ok());
    relay.command(Command::Kill).expect("it obeys");
    until(&mut path_a, |device| {
        assert!(device.poll(Instant::ZERO).is_none());
        device.poll_event(Instant::ZERO).filter(|event| *event == DeviceEvent::LinkDown)
    });
    assert_eq!(first_byte(&mut path_b), 3);
    relay.command(Command::Revive).expect("it listens again");
    let far = Instant(u64::MAX / 2);
    until(&mut path_a, |device| {
        assert!(device.poll(far).is_none());
        device.poll_event(far).filter(|event| *event == DeviceEvent::LinkUp)
    });
    assert_eq!(first_byte(&mut path_a), 3);
}
