//! The machine of NBD requests and replies over byte streams made by hand: every split, every loss, every
//! noise.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]
#![expect(clippy::big_endian_bytes, reason = "NBD is big-endian on the wire")]

use std::io;

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
use storage_mapping::device::nbd::Session;
use storage_mapping::device::nbd::codec::{REPLY_BYTES, REQUEST_BYTES, TransmissionFlags};
use storage_mapping::device::nbd::session::{ProtocolError, SessionError};
use storage_mapping::{
    BlockCount, BlockSize, Buffer, Cancelled, CopyFate, Effect, ErrorSource, Geometry, IoBuffer,
    IoCompletion, IoRequest, IoTag, Lba, RefusalReason,
};

const GEOMETRY: Geometry = Geometry {
    block_size: BlockSize::B512,
    block_count: BlockCount(64),
    transfer_max_bytes: 2048,
    buffer_alignment_bytes: 1,
    queue_depth: 8,
};

fn session(flags: TransmissionFlags) -> Session {
    Session::new(GEOMETRY, flags)
}

fn able() -> TransmissionFlags {
    TransmissionFlags::HAS_FLAGS | TransmissionFlags::SEND_FLUSH | TransmissionFlags::SEND_FUA
}

fn write(tag: u64, value: u8, fua: bool) -> IoRequest {
    IoRequest::write(IoTag(tag), Lba(tag), Buffer::copy_of(&[value; 512]).freeze(), fua)
}

fn read(tag: u64) -> IoRequest {
    IoRequest::read(IoTag(tag), Lba(tag), Buffer::zeroed(512))
}

/// Sends at most `room` bytes; they.
fn send(session: &mut Session, mut room: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut write = |pieces: &[io::IoSlice<'_>]| {
        let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        let count = room.min(all.len());
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        wire.extend_from_slice(&all[..count]);
        room -= count;
        Ok(count)
    };
    session.send(&mut write).unwrap();
    wire
}

/// Lets the session read `bytes`, as much of them as each read has room for.
fn feed(session: &mut Session, mut bytes: &[u8]) -> Result<(), SessionError> {
    while !bytes.is_empty() {
        session.receive(&mut |pieces| {
            if bytes.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let mut count = 0;
            for piece in pieces {
                let part = piece.len().min(bytes.len());
                piece[..part].copy_from_slice(&bytes[..part]);
                bytes = &bytes[part..];
                count += part;
            }
            Ok(count)
        })?;
    }
    Ok(())
}

/// A request as the server sees it.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    flags: u16,
    command: u16,
    cookie: [u8; 8],
    offset: u64,
    length: u32,
}

/// Reads whole requests off the wire.
fn seen(mut wire: &[u8]) -> Vec<Seen> {
    let mut found = Vec::new();
    while !wire.is_empty() {
        let (head, rest) = wire.split_at(REQUEST_BYTES);
        assert_eq!(head[..4], [0x25, 0x60, 0x95, 0x13]);
        let number = |range: std::ops::Range<usize>| {
            head[range].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let command = u16::try_from(number(6..8)).unwrap();
        let length = u32::try_from(number(24..28)).unwrap();
        wire = if command == 1 { &rest[length as usize..] } else { rest };
        found.push(Seen {
            flags: u16::try_from(number(4..6)).unwrap(),
            command,
            cookie: head[8..16].try_into().unwrap(),
            offset: number(16..24),
            length,
        });
    }
    found
}

fn reply(error: u32, request: &Seen, payload: &[u8]) -> Vec<u8> {
    [&0x6744_6698_u32.to_be_bytes()[..], &error.to_be_bytes(), &request.cookie, payload].concat()
}

fn drain(session: &mut Session) -> Vec<IoCompletion> {
    std::iter::from_fn(|| session.take_ready()).collect()
}

fn bytes_of(done: &IoCompletion) -> Option<&[u8]> {
    match &done.buffer {
        IoBuffer::Read(buffer) => Some(buffer),
        IoBuffer::Write(_) | IoBuffer::None => None,
    }
}

/// Everything that a completion says, to compare.
fn facts(done: &IoCompletion) -> String {
    format!("{:?} {:?} {:?} {:?}", done.tag, done.outcome, done.effect, done.copy)
}

#[test]
fn requests_leave_as_the_protocol_draws_them() {
    let mut session = session(able());
    session.submit(write(3, 7, true)).unwrap();
    session.submit(read(4)).unwrap();
    session.submit(IoRequest::flush(IoTag(5))).unwrap();
    let wire = send(&mut session, usize::MAX);
    assert_eq!(wire[REQUEST_BYTES..REQUEST_BYTES + 512], [7; 512]);
    let seen = seen(&wire);
    let shape: Vec<_> = seen.iter().map(|s| (s.flags, s.command, s.offset, s.length)).collect();
    assert_eq!(shape, [(1, 1, 1536, 512), (0, 0, 2048, 512), (0, 3, 0, 0)]);
    assert!(!session.has_unsent());
    // Answered in another order.
    feed(&mut session, &[reply(0, &seen[2], &[]), reply(0, &seen[1], &[9; 512])].concat()).unwrap();
    let done = drain(&mut session);
    assert_eq!(done.iter().map(|done| done.tag.0).collect::<Vec<_>>(), [5, 4]);
    assert_eq!(bytes_of(&done[1]).unwrap(), [9; 512]);
    assert_eq!(session.in_flight(), 1);
}

#[test]
fn a_server_without_fua_gets_a_flush_behind_the_write() {
    let mut session = session(TransmissionFlags::SEND_FLUSH);
    session.submit(write(1, 7, true)).unwrap();
    let first = seen(&send(&mut session, usize::MAX));
    assert_eq!((first[0].flags, first[0].command), (0, 1));
    feed(&mut session, &reply(0, &first[0], &[])).unwrap();
    assert!(session.take_ready().is_none());
    assert!(matches!(session.cancel(IoTag(1)), Cancelled::Requested), "the write has been done");
    let second = seen(&send(&mut session, usize::MAX));
    assert_eq!(second[0].command, 3);
    assert_ne!(second[0].cookie, first[0].cookie);
    feed(&mut session, &reply(0, &second[0], &[])).unwrap();
    assert!(drain(&mut session)[0].outcome.is_ok());

    // Lost between the two: it was written, and no copy is under way, but it may not be durable.
    session.submit(write(2, 7, true)).unwrap();
    let first = seen(&send(&mut session, usize::MAX));
    feed(&mut session, &reply(0, &first[0], &[])).unwrap();
    session.lose();
    let done = session.take_ready().unwrap();
    assert_eq!((done.effect, done.copy), (Effect::Unknown, CopyFate::Dead));
    assert!(done.outcome.is_err());
}

#[test]
fn what_a_server_cannot_do_it_is_not_asked_for() {
    let mut session = session(TransmissionFlags::READ_ONLY);
    session.submit(IoRequest::flush(IoTag(1))).unwrap();
    session.submit(write(2, 7, false)).unwrap();
    assert_eq!(send(&mut session, usize::MAX), []);
    let done = drain(&mut session);
    assert!(done[0].outcome.is_ok());
    assert_eq!(done[1].outcome.unwrap_err().source_code, ErrorSource::Errno(30));
    assert_eq!((done[1].effect, done[1].copy), (Effect::None, CopyFate::Dead));
}

#[test]
fn an_error_reply_says_what_is_known() {
    for (code, effect) in [(5, Effect::Unknown), (28, Effect::Unknown), (22, Effect::None), (1, Effect::None)]
    {
        let mut session = session(able());
        session.submit(write(1, 7, false)).unwrap();
        session.submit(read(2)).unwrap();
        let seen = seen(&send(&mut session, usize::MAX));
        // A failed read brings no payload.
        feed(&mut session, &[reply(code, &seen[1], &[]), reply(code, &seen[0], &[])].concat()).unwrap();
        for done in drain(&mut session) {
            assert_eq!(done.outcome.unwrap_err().source_code, ErrorSource::Nbd(code));
            assert_eq!((done.effect, done.copy), (effect, CopyFate::Dead));
        }
        assert_eq!(session.in_flight(), 0);
    }
}

#[test]
fn a_loss_at_every_byte_of_a_write_leaves_the_right_facts() {
    for sent in 0..=REQUEST_BYTES + 512 {
        let mut session = session(able());
        session.submit(write(1, 7, false)).unwrap();
        session.submit(write(2, 8, false)).unwrap();
        session.submit(read(3)).unwrap();
        assert_eq!(send(&mut session, sent).len(), sent);
        session.lose();
        let done = drain(&mut session);
        let expected = match sent {
            0 => (false, Effect::None, CopyFate::Dead),
            _ => (true, Effect::Unknown, CopyFate::MayLand),
        };
        let source = ErrorSource::ConnectionLost { sent: expected.0 };
        assert_eq!(done[0].outcome.unwrap_err().source_code, source, "{sent} bytes");
        assert_eq!((done[0].effect, done[0].copy), (expected.1, expected.2), "{sent} bytes");
        for behind in &done[1..] {
            let source = ErrorSource::ConnectionLost { sent: false };
            assert_eq!(behind.outcome.unwrap_err().source_code, source);
            assert_eq!((behind.effect, behind.copy), (Effect::None, CopyFate::Dead));
        }
        // The next connection begins at the beginning of a request.
        session.submit(write(1, 9, false)).unwrap();
        assert_eq!(seen(&send(&mut session, usize::MAX)).len(), 1);
    }
}

#[test]
fn a_loss_at_every_byte_of_a_reply_leaves_the_right_facts() {
    for received in 0..=2 * REPLY_BYTES + 512 {
        let mut session = session(able());
        session.submit(write(1, 7, false)).unwrap();
        session.submit(read(2)).unwrap();
        let seen = seen(&send(&mut session, usize::MAX));
        let replies = [reply(0, &seen[0], &[]), reply(0, &seen[1], &[9; 512])].concat();
        feed(&mut session, &replies[..received]).unwrap();
        session.lose();
        for done in drain(&mut session) {
            let (answered_at, copy) = if done.tag == IoTag(1) {
                (REPLY_BYTES, CopyFate::MayLand)
            } else {
                (replies.len(), CopyFate::Dead)
            };
            if received >= answered_at {
                assert!(done.outcome.is_ok(), "{received} bytes");
                assert_eq!((done.effect, done.copy), (Effect::Full, CopyFate::Dead));
            } else {
                let source = ErrorSource::ConnectionLost { sent: true };
                assert_eq!(done.outcome.unwrap_err().source_code, source, "{received} bytes");
                assert_eq!((done.effect, done.copy), (Effect::Unknown, copy));
            }
        }
    }
}

#[test]
fn what_was_not_asked_for_ends_the_connection() {
    let nothing = Seen { flags: 0, command: 0, cookie: [0; 8], offset: 0, length: 0 };
    let mut idle = session(able());
    let error = feed(&mut idle, &reply(0, &nothing, &[])).unwrap_err();
    assert!(matches!(error, SessionError::Protocol(ProtocolError::Cookie(0))), "{error}");

    let mut twice = session(able());
    twice.submit(read(1)).unwrap();
    twice.submit(read(2)).unwrap();
    let asked = seen(&send(&mut twice, usize::MAX));
    let answer = reply(0, &asked[0], &[9; 512]);
    assert!(feed(&mut twice, &[answer.clone(), answer].concat()).is_err(), "answered twice");

    let mut early = session(able());
    early.submit(write(1, 7, false)).unwrap();
    let part = send(&mut early, REQUEST_BYTES + 100);
    let asked = Seen { cookie: part[8..16].try_into().unwrap(), ..nothing };
    assert!(feed(&mut early, &reply(0, &asked, &[])).is_err(), "answered before all of it was sent");
    early.lose();
    assert_eq!(early.take_ready().unwrap().copy, CopyFate::MayLand);

    let mut structured = session(able());
    let error =
        feed(&mut structured, &[0x66, 0x8e, 0x33, 0xef, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap_err();
    assert!(error.to_string().contains("668e33ef"), "{error}");
}

#[test]
fn only_what_has_not_begun_to_leave_is_withdrawn() {
    let mut session = session(able());
    for tag in 1..=3 {
        session.submit(write(tag, 7, false)).unwrap();
    }
    assert!(matches!(session.cancel(IoTag(9)), Cancelled::NotHere));
    let first = send(&mut session, 1);
    assert!(matches!(session.cancel(IoTag(1)), Cancelled::Requested));
    let Cancelled::Withdrawn(request) = session.cancel(IoTag(2)) else { panic!("no byte of it has left") };
    assert_eq!(request.tag, IoTag(2));
    let rest = send(&mut session, usize::MAX);
    let seen = seen(&[first, rest].concat());
    assert_eq!(seen.iter().map(|seen| seen.offset).collect::<Vec<_>>(), [512, 1536]);
    let refused = session.submit(write(1, 7, false)).unwrap_err();
    assert_eq!(refused.reason, RefusalReason::DuplicateTag);
    let long = IoRequest::read(IoTag(7), Lba(0), Buffer::zeroed(2560));
    assert_eq!(session.submit(long).unwrap_err().reason, RefusalReason::Invalid);
}

proptest! {
    /// However the bytes of the replies are split, the completions are the same.
    #[test]
    fn the_split_does_not_matter(
        kinds in proptest::collection::vec((0..3_u8, any::<bool>(), any::<u8>()), 1..8),
        cuts in proptest::collection::vec(1..600_usize, 1..30),
    ) {
        let run = |cuts: &[usize]| {
            let mut session = session(able());
            for (tag, (kind, ..)) in (1..).zip(&kinds) {
                let request = match kind {
                    0 => read(tag),
                    1 => write(tag, 1, false),
                    _ => IoRequest::flush(IoTag(tag)),
                };
                session.submit(request).unwrap();
            }
            let seen = seen(&send(&mut session, usize::MAX));
            let stream: Vec<u8> = seen.iter().zip(&kinds).rev().flat_map(|(seen, (kind, fails, value))| {
                let payload: &[u8] = if *kind == 0 && !fails { &[*value; 512] } else { &[] };
                reply(if *fails { 5 } else { 0 }, seen, payload)
            }).collect();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, tail) = rest.split_at((*cut).min(rest.len()));
                feed(&mut session, piece).unwrap();
                rest = tail;
            }
            drain(&mut session).iter().map(|done| {
                let bytes = bytes_of(done).map(<[u8]>::to_vec);
                (facts(done), bytes)
            }).collect::<Vec<_>>()
        };
        let whole = run(&[usize::MAX]);
        prop_assert_eq!(whole.len(), kinds.len());
        prop_assert_eq!(run(&cuts), whole);
    }

    /// Whatever a server sends, nothing panics, and each request still completes once.
    #[test]
    fn no_bytes_make_it_panic(
        noise in any::<Vec<u8>>(),
        sound in 0..600_usize,
        room in 0..2000_usize,
    ) {
        let mut session = session(able());
        session.submit(write(1, 7, false)).unwrap();
        session.submit(read(2)).unwrap();
        session.submit(read(3)).unwrap();
        let wire = send(&mut session, room);
        let mut stream = Vec::new();
        if wire.len() >= 3 * REQUEST_BYTES + 512 {
            stream = reply(0, &seen(&wire)[1], &[9; 512]);
            stream.truncate(sound);
        }
        stream.extend(noise);
        drop(feed(&mut session, &stream));
        session.lose();
        let mut tags: Vec<_> = drain(&mut session).iter().map(|done| done.tag.0).collect();
        tags.sort_unstable();
        prop_assert_eq!(tags, [1, 2, 3]);
        prop_assert!(!session.has_unsent());
    }
}
