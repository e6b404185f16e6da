//! The iSCSI device against a target inside the test, which does what a real one does seldom: aborts, answers early,
//! sends less than it was asked for.
//!
//! The target has its own view of the protocol (RFC 7143) and takes nothing from the crate.

#![cfg(feature = "iscsi")]
#![expect(clippy::big_endian_bytes, reason = "iSCSI is big-endian on the wire")]
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant as Clock};

use storage_mapping::device::{IscsiDevice, IscsiSettings};
use storage_mapping::path_address::Target;
use storage_mapping::{
    BlockDevice, Buffer, Cancelled, CopyFate, Effect, ErrorSource, Instant, IoCompletion, IoError, IoRequest,
    IoTag, Lba, PathAddress, wait,
};

/// Reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);
const BLOCKS: u32 = 131_072;

/// What the initiator sent.
struct Pdu {
    head: [u8; 48],
    data: Vec<u8>,
}

impl Pdu {
    fn opcode(&self) -> u8 {
        self.head[0] & 0x3f
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.head[at..at + 4].try_into().unwrap())
    }

    fn task(&self) -> u32 {
        self.word(16)
    }
}

/// The target's side of one connection.
struct Connection {
    stream: TcpStream,
    status_number: u32,
    command_number: u32,
}

impl Connection {
    /// Takes one connection and logs it in.
    fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut connection = Self { stream, status_number: 1, command_number: 1 };
        loop {
            let login = connection.next().expect("a login");
            assert_eq!(login.opcode(), 0x03);
            connection.command_number = login.word(24);
            let (now, next) = (login.head[1] >> 2 & 3, login.head[1] & 3);
            let text: &[u8] = if now == 0 { b"AuthMethod=None\0" } else { b"HeaderDigest=None\0" };
            let mut head = [0; 48];
            (head[0], head[1]) = (0x23, login.head[1]);
            head[8..14].copy_from_slice(&login.head[8..14]);
            head[15] = 1;
            connection.send(head, login.task(), text);
            if login.head[1] & 0x80 != 0 && next == 3 {
                return connection;
            }
        }
    }

    fn next(&mut self) -> Option<Pdu> {
        let mut head = [0; 48];
        self.stream.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        let mut data = vec![0; length.next_multiple_of(4)];
        self.stream.read_exact(&mut data).ok()?;
        data.truncate(length);
        if head[0] & 0x3f == 0x01 {
            self.command_number = u32::from_be_bytes(head[24..28].try_into().unwrap()) + 1;
        }
        Some(Pdu { head, data })
    }

    fn send(&mut self, mut head: [u8; 48], task: u32, data: &[u8]) {
        head[4..8].copy_from_slice(&u32::try_from(data.len()).unwrap().to_be_bytes());
        head[16..20].copy_from_slice(&task.to_be_bytes());
        head[24..28].copy_from_slice(&self.status_number.to_be_bytes());
        head[28..32].copy_from_slice(&self.command_number.to_be_bytes());
        head[32..36].copy_from_slice(&(self.command_number + 63).to_be_bytes());
        self.status_number += 1;
        let mut bytes = head.to_vec();
        bytes.extend(data);
        bytes.resize(48 + data.len().next_multiple_of(4), 0);
        self.stream.write_all(&bytes).unwrap();
    }

    /// A status without data from the unit; sense of descriptor format where there is some.
    fn answer(&mut self, task: u32, status: u8, sense: Option<[u8; 3]>) {
        let mut head = [0; 48];
        (head[0], head[1], head[3]) = (0x21, 0x80, status);
        let data = sense.map(|[key, asc, ascq]| vec![0, 8, 0x72, key, asc, ascq, 0, 0, 0, 0]);
        self.send(head, task, &data.unwrap_or_default());
    }

    /// Data with GOOD in one; so many of the bytes that were asked for are missing.
    fn data(&mut self, task: u32, data: &[u8], missing: u32) {
        let mut head = [0; 48];
        (head[0], head[1]) = (0x25, if missing > 0 { 0x83 } else { 0x81 });
        head[44..48].copy_from_slice(&missing.to_be_bytes());
        self.send(head, task, data);
    }

    /// Asks for data of a write.
    fn ask_for(&mut self, task: u32, offset: u32, length: u32) {
        let mut head = [0; 48];
        (head[0], head[1]) = (0x31, 0x80);
        head[20..24].copy_from_slice(&7_u32.to_be_bytes());
        head[40..44].copy_from_slice(&offset.to_be_bytes());
        head[44..48].copy_from_slice(&length.to_be_bytes());
        self.send(head, task, &[]);
        // It is no status.
        self.status_number -= 1;
    }

    /// The answer to a task management request.
    fn manage(&mut self, task: u32, response: u8) {
        let mut head = [0; 48];
        (head[0], head[1], head[2]) = (0x22, 0x80, response);
        self.send(head, task, &[]);
    }

    /// Answers what is asked after a login; gives back anything else.
    fn next_of_test(&mut self) -> Option<Pdu> {
        loop {
            let pdu = self.next()?;
            let (task, wanted) = (pdu.task(), pdu.word(20));
            match (pdu.opcode(), pdu.head[32]) {
                (0x01, 0x00) => self.answer(task, 0, None),
                (0x01, 0x12) if pdu.head[34] == 0x83 => self.data(task, &[0, 0x83, 0, 0], wanted - 4),
                (0x01, 0x9e) => {
                    let mut capacity = [0; 32];
                    capacity[4..8].copy_from_slice(&(BLOCKS - 1).to_be_bytes());
                    capacity[8..12].copy_from_slice(&512_u32.to_be_bytes());
                    self.data(task, &capacity, 0);
                }
                (0x01, 0x12 | 0x1a) => self.answer(task, 2, Some([5, 0x24, 0])),
                _ => return Some(pdu),
            }
        }
    }
}

/// A device, and the target's side of it on a thread of its own, which begins when the device is open.
fn with_target<T: Send + 'static>(
    name: &str,
    target: impl FnOnce(Connection, Sender<T>, Receiver<()>) + Send + 'static,
) -> (IscsiDevice, Receiver<T>, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let ((outbox, reports), (orders, inbox)) = (channel(), channel());
    thread::spawn(move || target(Connection::accept(&listener), outbox, inbox));
    let address: PathAddress = format!("iscsi://127.0.0.1:{port}/iqn.test/0?session={name}").parse().unwrap();
    let Target::Iscsi(address) = &address.target else { panic!("{address}") };
    (IscsiDevice::open(address, IscsiSettings::default()).unwrap(), reports, orders)
}

/// Works until something is found.
fn until<T>(device: &mut IscsiDevice, mut look: impl FnMut(&mut IscsiDevice) -> Option<T>) -> T {
    let began = Clock::now();
    loop {
        if let Some(found) = look(device) {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{:?}", device.monitor().last_failure());
        let mut descriptors = Vec::new();
        device.wait_on(&mut descriptors);
        wait::wait(&descriptors, Some(Duration::from_millis(5)));
    }
}

fn next_done(device: &mut IscsiDevice) -> IoCompletion {
    until(device, |device| device.poll(Instant::ZERO))
}

fn write(tag: u64, length: usize) -> IoRequest {
    let data = Buffer::copy_of(&vec![7; length]).freeze();
    IoRequest::write(IoTag(tag), Lba(0), data, false)
}

#[test]
fn the_answer_to_an_abort_is_the_end_of_a_write() {
    let (mut device, reports, orders) = with_target("abort", |mut target, outbox, inbox| {
        // A write that is aborted, and one of which the target says that it is not there.
        for response in [0, 1] {
            let command = target.next_of_test().unwrap();
            assert_eq!((command.opcode(), command.head[32]), (0x01, 0x8a));
            outbox.send((command.word(24), 0)).unwrap();
            let abort = target.next_of_test().unwrap();
            assert_eq!((abort.opcode(), abort.head[1], abort.word(20)), (0x02, 0x81, command.task()));
            assert_eq!(abort.word(32), command.word(24), "RefCmdSN");
            target.manage(abort.task(), response);
            if response == 1 {
                outbox.send((0, 1)).unwrap();
                inbox.recv().unwrap();
                target.answer(command.task(), 0, None);
            }
        }
        // A second abort of one command would come here.
        assert!(target.next_of_test().is_none());
        outbox.send((0, 2)).unwrap();
    });
    let arrives = |device: &mut IscsiDevice| {
        until(device, |device| {
            assert!(device.poll(Instant::ZERO).is_none());
            reports.try_recv().ok()
        })
    };
    device.submit(Instant::ZERO, write(1, 512)).unwrap();
    arrives(&mut device);
    assert!(matches!(device.cancel(Instant::ZERO, IoTag(1)), Cancelled::Requested));
    assert!(matches!(device.cancel(Instant::ZERO, IoTag(1)), Cancelled::Requested));
    let done = next_done(&mut device);
    assert_eq!(done.outcome, Err(IoError::errno(nix::errno::Errno::ECANCELED as i32)));
    assert_eq!((done.effect, done.copy), (Effect::Unknown, CopyFate::Dead));

    device.submit(Instant::ZERO, write(2, 512)).unwrap();
    arrives(&mut device);
    assert!(matches!(device.cancel(Instant::ZERO, IoTag(2)), Cancelled::Requested));
    // "Not there" proves nothing: the write goes on until it is answered.
    assert_eq!(arrives(&mut device), (0, 1));
    for _ in 0..20 {
        assert!(device.poll(Instant::ZERO).is_none());
        thread::yield_now();
    }
    orders.send(()).unwrap();
    let done = next_done(&mut device);
    assert_eq!((done.outcome, done.effect, done.copy), (Ok(()), Effect::Full, CopyFate::Dead));
    drop(device);
    assert_eq!(reports.recv_timeout(PATIENCE), Ok((0, 2)));
}

#[test]
fn a_buffer_is_kept_while_data_of_it_wait_to_be_sent() {
    const WRITES: usize = 8;
    let length = 4_usize << 20;
    let (mut device, reports, orders) = with_target("early", move |mut target, outbox, inbox| {
        let mut commands = Vec::new();
        while commands.len() < WRITES {
            let command = target.next_of_test().unwrap();
            assert_eq!((command.opcode(), command.head[32]), (0x01, 0x8a));
            commands.push((command.task(), command.data.len()));
        }
        // All of the data are asked for, none is read; the last write is answered without them.
        for (task, sent) in &commands {
            target.ask_for(*task, u32::try_from(*sent).unwrap(), u32::try_from(length - sent).unwrap());
        }
        target.answer(commands[WRITES - 1].0, 0, None);
        outbox.send(0).unwrap();
        inbox.recv().unwrap();
        let mut left: usize = commands.iter().map(|(_, sent)| length - sent).sum();
        while left > 0 {
            let data = target.next_of_test().unwrap();
            assert_eq!(data.opcode(), 0x05);
            assert!(data.data.iter().all(|byte| *byte == 7), "the bytes of the write, to the end");
            left -= data.data.len();
        }
        outbox.send(1).unwrap();
        commands[..WRITES - 1].iter().for_each(|(task, _)| target.answer(*task, 0, None));
        while target.next_of_test().is_some() {}
    });
    for tag in 0..WRITES as u64 {
        device.submit(Instant::ZERO, write(tag, length)).unwrap();
    }
    let report = until(&mut device, |device| {
        assert!(device.poll(Instant::ZERO).is_none());
        reports.try_recv().ok()
    });
    assert_eq!(report, 0);
    // The answer is here (the socket holds it or libiscsi took it), and 32 MiB are more than sockets hold.
    for _ in 0..50 {
        let mut descriptors = Vec::new();
        device.wait_on(&mut descriptors);
        wait::wait(&descriptors, Some(Duration::from_millis(1)));
        assert!(device.poll(Instant::ZERO).is_none(), "its data still wait to be sent");
    }
    orders.send(()).unwrap();
    let mut tags: Vec<u64> = (0..WRITES)
        .map(|_| {
            let done = next_done(&mut device);
            assert_eq!((done.outcome, done.effect, done.copy), (Ok(()), Effect::Full, CopyFate::Dead));
            done.tag.0
        })
        .collect();
    tags.sort_unstable();
    assert!(tags.into_iter().eq(0..WRITES as u64));
    assert_eq!(reports.recv_timeout(PATIENCE), Ok(1));
}

#[test]
fn answers_say_what_they_say() {
    let (mut device, _reports, _orders) =
        with_target("answers", |mut target, _outbox: Sender<()>, _inbox| {
            let read = target.next_of_test().unwrap();
            target.data(read.task(), &[5; 512], 512);
            let flush = target.next_of_test().unwrap();
            assert_eq!(flush.head[32], 0x91);
            target.answer(flush.task(), 2, Some([3, 0x0c, 2]));
            let write = target.next_of_test().unwrap();
            assert_eq!(
                (write.head[32], write.head[33] & 8),
                (0x8a, 0),
                "no FUA for a unit that does not know it"
            );
            target.answer(write.task(), 0, None);
            let flush = target.next_of_test().unwrap();
            assert_eq!(flush.head[32], 0x91, "but a flush behind the write");
            target.answer(flush.task(), 0, None);
            let busy = target.next_of_test().unwrap();
            target.answer(busy.task(), 0x28, None);
            // And then something that is no PDU at all.
            let read = target.next_of_test().unwrap();
            target.send([0x3f; 48], read.task(), &[]);
            while target.next_of_test().is_some() {}
        });
    assert_eq!(device.notices().len(), 1, "{:?}", device.notices());
    let mut run = |request| {
        device.submit(Instant::ZERO, request).unwrap();
        next_done(&mut device)
    };
    let read = || IoRequest::read(IoTag(1), Lba(0), Buffer::zeroed(1024));
    let short = run(read());
    assert_eq!(short.outcome.unwrap_err().source_code, ErrorSource::Short { expected: 1024, done: 512 });
    let failed = run(IoRequest::flush(IoTag(2))).outcome.unwrap_err().source_code;
    assert!(matches!(failed, ErrorSource::Scsi { status: 2, key: 3, asc: 0x0c, ascq: 2, .. }), "{failed:?}");
    let data = Buffer::copy_of(&[1; 512]).freeze();
    assert_eq!(run(IoRequest::write(IoTag(3), Lba(0), data, true)).outcome, Ok(()));
    let busy = run(read()).outcome.unwrap_err().source_code;
    assert!(matches!(busy, ErrorSource::Scsi { status: 0x28, .. }), "{busy:?}");
    let lost = run(read());
    assert_eq!(lost.outcome.unwrap_err().source_code, ErrorSource::ConnectionLost { sent: true });
    assert_eq!((lost.effect, lost.copy), (Effect::Unknown, CopyFate::Dead));
}
