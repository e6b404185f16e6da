//! The NBD device over real sockets, against a server inside the test that plays a script.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

#[path = "support/nbd.rs"]
mod nbd;
mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant as Clock};

use nbd::{FLUSH, FUA, HAS_FLAGS, Place, READ_ONLY, Told, greet, next_request, reply_head};
use storage_mapping::device::nbd::{ConnectError, NbdDevice, NbdSettings, NegotiationError, OpenNbdError};
use storage_mapping::{
    BlockDevice, BlockSize, Buffer, CopyFate, DeviceEvent, Effect, ErrorSource, Instant, IoRequest, IoTag,
    Lba, RefusalReason, path_address, wait,
};
use support::Driver;

const TOLD: Told = Told::new(1 << 20);

fn settings() -> NbdSettings {
    NbdSettings { block_size: Some(BlockSize::B512), ..NbdSettings::default() }
}

/// A device and what plays its server, one script for each connection in turn.
fn scripted(place: &Place, scripts: Vec<Box<dyn FnOnce(UnixStream) + Send>>) -> (NbdDevice, JoinHandle<()>) {
    let listener = place.listen();
    let server = thread::spawn(move || {
        for script in scripts {
            script(listener.accept().unwrap().0);
        }
    });
    (NbdDevice::open(&place.server(), "disk", settings()).unwrap(), server)
}

fn write(tag: u64) -> IoRequest {
    IoRequest::write(IoTag(tag), Lba(tag), Buffer::copy_of(&[7; 512]).freeze(), false)
}

fn read(tag: u64) -> IoRequest {
    IoRequest::read(IoTag(tag), Lba(tag), Buffer::zeroed(512))
}

/// Drives an idle device in real time until it reports an event.
fn next_event(device: &mut NbdDevice, now: &mut Instant) -> DeviceEvent {
    let began = Clock::now();
    while began.elapsed() < Duration::from_secs(20) {
        assert!(device.poll(*now).is_none());
        if let Some(event) = device.poll_event(*now) {
            return event;
        }
        let mut descriptors = Vec::new();
        device.wait_on(&mut descriptors);
        match device.next_wakeup() {
            Some(at) => *now = (*now).max(at),
            None => wait::wait(&descriptors, Some(Duration::from_secs(10))),
        }
    }
    panic!("no event");
}

#[test]
fn a_connection_cut_inside_a_request_leaves_the_write_in_doubt() {
    // The server reads so many bytes of the request, or of a request far larger than the socket holds, and
    // goes.
    for read_bytes in [0, 1, 27, 28, 29, 28 + 512, 28 + 2000] {
        let place = Place::new();
        let script = move |mut stream: UnixStream| {
            greet(&mut stream, TOLD).unwrap();
            stream.read_exact(&mut vec![0; read_bytes]).unwrap();
        };
        let (mut device, server) = scripted(&place, vec![Box::new(script)]);
        let mut driver = Driver::new(&mut device);
        let large = Buffer::zeroed(1 << 19).freeze();
        driver.submit(IoRequest::write(IoTag(1), Lba(0), large, false));
        driver.submit(IoRequest::flush(IoTag(2)));
        let done = driver.next();
        let expected = ErrorSource::ConnectionLost { sent: true };
        assert_eq!(done.tag, IoTag(1));
        // With no byte read at all the kernel may refuse the very first one.
        if read_bytes > 0 {
            assert_eq!(done.outcome.unwrap_err().source_code, expected, "{read_bytes} bytes");
            assert_eq!((done.effect, done.copy), (Effect::Unknown, CopyFate::MayLand));
        }
        let flush = driver.next();
        assert_eq!(flush.copy, CopyFate::Dead);
        assert!(matches!(flush.outcome.unwrap_err().source_code, ErrorSource::ConnectionLost { .. }));
        assert_eq!(device.poll_event(Instant::ZERO), Some(DeviceEvent::LinkDown));
        assert!(!device.monitor().is_up());
        server.join().unwrap();
    }
}

#[test]
fn a_reply_left_behind_still_counts() {
    let place = Place::new();
    let script = |mut stream: UnixStream| {
        greet(&mut stream, TOLD).unwrap();
        let first = next_request(&mut stream).unwrap();
        let second = next_request(&mut stream).unwrap();
        stream.write_all(&reply_head(0, second.cookie)).unwrap();
        stream.write_all(&reply_head(0, first.cookie)[..15]).unwrap();
    };
    let (mut device, server) = scripted(&place, vec![Box::new(script)]);
    device.submit(Instant::ZERO, write(1)).unwrap();
    device.submit(Instant::ZERO, write(2)).unwrap();
    let mut found = Vec::from_iter(device.poll(Instant::ZERO));
    server.join().unwrap();
    // The server has gone before anything more is sent.
    device.submit(Instant::ZERO, write(3)).unwrap();
    found.extend(std::iter::from_fn(|| device.poll(Instant::ZERO)));
    let mut facts: Vec<_> =
        found.iter().map(|done| (done.tag.0, done.outcome.is_ok(), done.effect, done.copy)).collect();
    facts.sort_by_key(|fact| fact.0);
    assert_eq!(facts[0], (1, false, Effect::Unknown, CopyFate::MayLand));
    assert_eq!(facts[1], (2, true, Effect::Full, CopyFate::Dead));
    assert_eq!(facts[2], (3, false, Effect::None, CopyFate::Dead));
}

#[test]
fn nonsense_ends_the_connection_with_a_reason() {
    type Answer = fn(u64) -> Vec<u8>;
    let scripts: [(Answer, &str); 4] = [
        (|cookie| reply_head(0, cookie + 1), "cookie"),
        (|cookie| [&[0; 4], &reply_head(0, cookie)[4..]].concat(), "mark of a simple reply"),
        (|cookie| [reply_head(0, cookie), reply_head(0, cookie)].concat(), "cookie"),
        (|_| Vec::new(), "closed the connection"),
    ];
    for (answer, reason) in scripts {
        let place = Place::new();
        let script = move |mut stream: UnixStream| {
            greet(&mut stream, TOLD).unwrap();
            let asked = next_request(&mut stream).unwrap();
            stream.write_all(&answer(asked.cookie)).unwrap();
        };
        let (mut device, server) = scripted(&place, vec![Box::new(script)]);
        drop(Driver::new(&mut device).run(write(1)));
        let mut now = Instant::ZERO;
        assert_eq!(next_event(&mut device, &mut now), DeviceEvent::LinkDown);
        let failure = device.monitor().last_failure().unwrap();
        assert!(failure.contains(reason), "{failure}");
        server.join().unwrap();
    }
}

#[test]
fn error_replies_are_answers() {
    let place = Place::new();
    let script = |mut stream: UnixStream| {
        greet(&mut stream, TOLD).unwrap();
        for error in [5, 22, 28] {
            let asked = next_request(&mut stream).unwrap();
            stream.write_all(&reply_head(error, asked.cookie)).unwrap();
        }
    };
    let (mut device, server) = scripted(&place, vec![Box::new(script)]);
    let mut driver = Driver::new(&mut device);
    for (request, code, effect) in
        [(read(1), 5, Effect::Unknown), (write(2), 22, Effect::None), (write(3), 28, Effect::Unknown)]
    {
        let done = driver.run(request);
        assert_eq!(done.outcome.unwrap_err().source_code, ErrorSource::Nbd(code));
        assert_eq!((done.effect, done.copy), (effect, CopyFate::Dead));
    }
    server.join().unwrap();
}

#[test]
fn a_lost_connection_comes_back() {
    let place = Place::new();
    let once = |mut stream: UnixStream| {
        assert_eq!(greet(&mut stream, TOLD).unwrap(), "disk");
    };
    let answering = |mut stream: UnixStream| {
        greet(&mut stream, TOLD).unwrap();
        let asked = next_request(&mut stream).unwrap();
        stream.write_all(&reply_head(0, asked.cookie)).unwrap();
        // It ends with the client's goodbye.
        assert_eq!(next_request(&mut stream).unwrap().command, 2);
    };
    // The second connection is dropped, too.
    let (mut device, server) = scripted(&place, vec![Box::new(once), Box::new(drop), Box::new(answering)]);
    let mut now = Instant::ZERO;
    assert_eq!(next_event(&mut device, &mut now), DeviceEvent::LinkDown);
    device.submit(now, write(1)).unwrap();
    let done = device.poll(now).unwrap();
    assert_eq!(done.outcome.unwrap_err().source_code, ErrorSource::ConnectionLost { sent: false });
    assert_eq!((done.effect, done.copy), (Effect::None, CopyFate::Dead));
    assert_eq!(next_event(&mut device, &mut now), DeviceEvent::LinkUp);
    assert_eq!(device.monitor().reconnects(), 1);
    let mut driver = Driver::new(&mut device);
    driver.now = now;
    assert!(driver.run(write(1)).outcome.is_ok());
    drop(device);
    server.join().unwrap();
}

#[test]
fn another_disk_under_the_name_is_not_taken() {
    let shrunk = Told::new(1 << 19);
    let frozen = Told { flags: TOLD.flags | READ_ONLY, ..TOLD };
    for told in [shrunk, frozen] {
        let place = Place::new();
        let once = |mut stream: UnixStream| drop(greet(&mut stream, TOLD).unwrap());
        let other = move |mut stream: UnixStream| drop(greet(&mut stream, told).unwrap());
        let (mut device, server) = scripted(&place, vec![Box::new(once), Box::new(other)]);
        let mut now = Instant::ZERO;
        assert_eq!(next_event(&mut device, &mut now), DeviceEvent::LinkDown);
        assert_eq!(next_event(&mut device, &mut now), DeviceEvent::GeometryChanged);
        assert_eq!(device.submit(now, read(1)).unwrap_err().reason, RefusalReason::Closed);
        assert!(device.monitor().last_failure().unwrap().contains("not what it was"));
        assert_eq!(device.next_wakeup(), None);
        server.join().unwrap();
    }
}

#[test]
fn what_the_server_says_is_the_geometry() {
    let open = |told: Told, block_size| {
        let place = Place::new();
        let listener = place.listen();
        let server = thread::spawn(move || greet(&mut listener.accept().unwrap().0, told));
        let opened =
            NbdDevice::open(&place.server(), "", NbdSettings { block_size, ..NbdSettings::default() });
        server.join().unwrap().unwrap();
        opened
    };
    let told = |min, max| Told { blocks: Some([min, 4096.max(min), max]), ..TOLD };
    let device = open(told(1, 10_000), None).unwrap();
    let geometry = device.geometry();
    assert_eq!((geometry.block_size, geometry.block_count.0), (BlockSize::B4096, 256));
    assert_eq!(geometry.transfer_max_bytes, 8192, "whole blocks");
    assert_eq!(open(told(16_384, 1 << 25), None).unwrap().geometry().block_size.bytes(), 16_384);
    assert_eq!(open(TOLD, None).unwrap().geometry().transfer_max_bytes, 32 << 20);
    for (told, block_size) in
        [(told(4096, 1 << 20), BlockSize::B512), (told(1, 4096), BlockSize::new(8192).unwrap())]
    {
        let error = open(told, Some(block_size)).unwrap_err();
        assert!(matches!(error, OpenNbdError::BlockSize { .. }), "{error}");
    }
    assert!(matches!(open(Told::new(100), None).unwrap_err(), OpenNbdError::TooSmall { .. }));

    let plain = open(Told { flags: HAS_FLAGS | FLUSH | READ_ONLY, ..TOLD }, None).unwrap();
    let notices = plain.notices().join("\n");
    assert!(notices.contains("FUA") && notices.contains("read-only"), "{notices}");
    assert!(!plain.monitor().export().can_multi_conn());
    assert!(open(Told { flags: HAS_FLAGS, ..TOLD }, None).unwrap().notices()[0].contains("no flush"));
    let able = open(Told { flags: HAS_FLAGS | FLUSH | FUA, ..TOLD }, None).unwrap();
    assert_eq!(able.notices(), Vec::<String>::new());
}

#[test]
fn an_open_ends_in_time() {
    let place = Place::new();
    let open = |milliseconds| {
        let connect_time_max = Duration::from_millis(milliseconds);
        let began = Clock::now();
        let error =
            NbdDevice::open(&place.server(), "", NbdSettings { connect_time_max, ..settings() }).unwrap_err();
        // Far above the limit, far below a wait without end.
        assert!(began.elapsed() < Duration::from_secs(20));
        error
    };
    assert!(matches!(open(5000), OpenNbdError::Connect(ConnectError::Connect { .. })), "nobody listens");
    // Somebody listens and never says a word, as a stopped process does.
    let listener = place.listen();
    let silent = open(50);
    assert!(matches!(silent, OpenNbdError::Connect(ConnectError::Io { .. })), "{silent}");
    drop(listener);
    // Something else listens.
    let listener = place.listen();
    let other = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n").unwrap();
    });
    let error = open(5000);
    let is_not_nbd = matches!(
        error,
        OpenNbdError::Connect(ConnectError::Negotiation { source: NegotiationError::NotNbd, .. })
    );
    assert!(is_not_nbd, "{error}");
    other.join().unwrap();
}

#[test]
fn a_server_that_stops_reading_stops_nobody() {
    let place = Place::new();
    let (resume, resumed) = std::sync::mpsc::channel::<()>();
    let script = move |mut stream: UnixStream| {
        greet(&mut stream, TOLD).unwrap();
        resumed.recv().unwrap();
        for _ in 0..8 {
            let asked = next_request(&mut stream).unwrap();
            assert!(asked.data.iter().all(|byte| usize::from(*byte) == asked.length / 131_072));
            stream.write_all(&reply_head(0, asked.cookie)).unwrap();
        }
    };
    let (mut device, server) = scripted(&place, vec![Box::new(script)]);
    for tag in 1..=8_u8 {
        let length = usize::from(tag) * 131_072;
        let data = Buffer::copy_of(&vec![tag; length]).freeze();
        device.submit(Instant::ZERO, IoRequest::write(IoTag(tag.into()), Lba(0), data, false)).unwrap();
    }
    // Until the socket is full: no poll waits, and then there is nothing to do without the server.
    while device.next_wakeup().is_some() {
        assert!(device.poll(Instant::ZERO).is_none());
    }
    assert!(matches!(device.cancel(Instant::ZERO, IoTag(8)), storage_mapping::Cancelled::Withdrawn(_)));
    let data = Buffer::copy_of(&vec![8; 8 * 131_072]).freeze();
    device.submit(Instant::ZERO, IoRequest::write(IoTag(8), Lba(0), data, false)).unwrap();
    resume.send(()).unwrap();
    let mut driver = Driver::new(&mut device);
    for _ in 0..8 {
        assert!(driver.next().outcome.is_ok());
    }
    server.join().unwrap();
}

#[test]
fn an_address_opens_a_device() {
    let place = Place::new();
    drop(nbd::honest(&place, TOLD));
    let socket = place.socket();
    let text = format!("nbd+unix:///disk?socket={}&block=512&latency=1ms", socket.display());
    let opened = path_address::open(&text.parse().unwrap()).unwrap();
    assert_eq!(opened.device.geometry().byte_size(), 1 << 20);
    let export = opened.nbd.unwrap().export();
    assert_eq!((export.name.as_str(), export.can_multi_conn()), ("disk", true));
    assert!(opened.faults.is_some());
}
