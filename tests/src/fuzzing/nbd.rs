//! An NBD server that says anything: during the negotiation, and to requests.
//!
//! What holds: however the bytes are split, a negotiation ends the same way, takes no byte of what follows,
//! and what it finds is sane; of a session every accepted request comes back exactly once, and one of which a
//! byte has left is never said to be without effect. Not here: sockets (`storage-mapping/tests`).

#![expect(clippy::big_endian_bytes, reason = "NBD is big-endian on the wire")]

use std::collections::BTreeSet;
use std::io;

use storage_mapping::device::nbd::codec::{
    OPTION_GO, OPTION_REPLY_MAGIC, REPLY_ACK, REPLY_ERROR_BIT, REPLY_INFO, REPLY_MAGIC, REQUEST_BYTES,
    TransmissionFlags,
};
use storage_mapping::device::nbd::{Export, Handshake, NegotiationError, Session};
use storage_mapping::{
    BlockCount, BlockSize, Buffer, Cancelled, CopyFate, Effect, ErrorSource, Geometry, IoBuffer,
    IoCompletion, IoRequest, IoTag, Lba,
};

use super::input::Input;

const NAME: &str = "disk";

fn option_reply(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("small");
    let head = [OPTION_GO, kind, length].map(u32::to_be_bytes).concat();
    [&OPTION_REPLY_MAGIC.to_be_bytes()[..], &head, body].concat()
}

fn sound_negotiation() -> Vec<u8> {
    let export = [&[0, 0][..], &(1_u64 << 20).to_be_bytes(), &0x10D_u16.to_be_bytes()].concat();
    let blocks = [&[0, 3][..], &[512_u32, 4096, 1 << 20].map(u32::to_be_bytes).concat()].concat();
    [
        b"NBDMAGICIHAVEOPT\0\x03".to_vec(),
        option_reply(REPLY_INFO, &export),
        option_reply(REPLY_INFO, &blocks),
        option_reply(REPLY_ACK, &[]),
    ]
    .concat()
}

/// Feeds pieces of at most `step` bytes: how it ended, what was sent, how much was not taken.
fn negotiate(mut bytes: &[u8], step: usize) -> (Option<Result<Export, NegotiationError>>, Vec<u8>, usize) {
    let mut handshake = Handshake::new(NAME).expect("a short name");
    let mut output = Vec::new();
    while !bytes.is_empty() && handshake.missing() > 0 {
        let piece = &bytes[..step.min(bytes.len())];
        let taken = handshake.receive(piece);
        assert!(taken > 0 && taken <= piece.len(), "it takes what it says it needs");
        bytes = &bytes[taken..];
        output.extend(handshake.take_output());
    }
    (handshake.take_outcome(), output, bytes.len())
}

/// The negotiation with a server that says anything.
///
/// # Panics
/// If a promise is broken.
pub fn nbd_handshake(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (choice, step) = (input.byte(), usize::from(input.byte() % 40) + 1);
    let stream = match choice % 3 {
        0 => input.rest().to_vec(),
        1 => {
            let mut stream = sound_negotiation();
            input.patch(&mut stream, &[]);
            stream
        }
        _ => {
            let mut stream = sound_negotiation();
            let at = usize::from(input.byte()) % stream.len();
            stream.splice(at.., input.rest().iter().copied());
            stream
        }
    };
    let (outcome, output, left) = negotiate(&stream, stream.len().max(1));
    assert_eq!(negotiate(&stream, step), (outcome.clone(), output.clone(), left), "the pieces do not matter");
    assert!(output.len() < 256, "it says little, whatever it hears");
    match outcome {
        Some(Ok(export)) => {
            assert_eq!(export.name, NAME);
            assert!(i64::try_from(export.size.0).is_ok());
            assert!(export.block_bytes_min.is_power_of_two() && export.block_bytes_min <= 65_536);
            assert!(export.transfer_bytes_max >= export.block_bytes_min);
        }
        Some(Err(error)) => {
            assert!(error.to_string().chars().all(|c| !c.is_control()), "it could drive a terminal");
        }
        None => assert_eq!(left, 0, "it stops only at its end"),
    }
}

/// Inputs to begin with.
#[must_use]
pub fn nbd_handshake_seeds() -> Vec<Vec<u8>> {
    let sound = sound_negotiation();
    let refused = [&sound[..18], &option_reply(REPLY_ERROR_BIT | 6, b"no such \x1b[0m export")].concat();
    vec![
        [&[0, 0][..], &sound].concat(),
        [&[0, 7][..], &sound, b"more"].concat(),
        [&[0, 3][..], &refused].concat(),
        b"\x00\x05NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\x00\x00".to_vec(),
        b"\x00\x05SSH-2.0-OpenSSH_9.2p1".to_vec(),
        b"\x01\x03\x01\x20\x00\x05\x02\x40\x00\x08\xff".to_vec(),
        [&[2, 9, 18][..], &option_reply(REPLY_INFO, b"\0\x01name")].concat(),
        [&[2, 1, 50][..], &option_reply(REPLY_INFO, b"\0\x03\0\0\x02\0")].concat(),
    ]
}

const GEOMETRY: Geometry = Geometry {
    block_size: BlockSize::B512,
    block_count: BlockCount(1 << 20),
    transfer_max_bytes: 1024,
    buffer_alignment_bytes: 1,
    queue_depth: 6,
};

/// A session, and what is known of it from outside.
struct Scene {
    session: Session,
    /// What this connection has carried to the server.
    wire: Vec<u8>,
    /// Cookie and length of the payload of each whole head on the wire that has had no reply.
    asked: Vec<(u64, usize)>,
    /// Where in the wire the next head begins.
    parsed: usize,
    /// Requests of which a whole head has left, on any connection.
    begun: BTreeSet<u64>,
    in_flight: BTreeSet<u64>,
    next_tag: u64,
}

impl Scene {
    fn submit(&mut self, kind: u8) {
        let tag = self.next_tag;
        let (lba, length) = (Lba(tag), 512 * usize::from(1 + kind / 128));
        let request = match kind % 4 {
            0 => IoRequest::read(IoTag(tag), lba, Buffer::zeroed(length)),
            1 => IoRequest::flush(IoTag(tag)),
            fua => IoRequest::write(IoTag(tag), lba, Buffer::zeroed(length).freeze(), fua == 2),
        };
        if self.session.submit(request).is_ok() {
            assert!(self.in_flight.insert(tag));
            self.next_tag += 1;
        }
        assert!(self.in_flight.len() <= GEOMETRY.queue_depth);
    }

    fn send(&mut self, mut room: usize) {
        let wire = &mut self.wire;
        let mut write = |pieces: &[io::IoSlice<'_>]| {
            let before = wire.len();
            wire.extend(pieces.iter().flat_map(|piece| piece.iter()).take(room));
            room -= wire.len() - before;
            if wire.len() == before { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(wire.len() - before) }
        };
        self.session.send(&mut write).expect("nothing else fails");
        while let Some(head) = self.wire.get(self.parsed..self.parsed + REQUEST_BYTES) {
            let (command, cookie) = (head[7], u64::from_be_bytes(head[8..16].try_into().expect("eight")));
            let offset = u64::from_be_bytes(head[16..24].try_into().expect("eight"));
            let length = u32::from_be_bytes(head[24..28].try_into().expect("four")) as usize;
            self.asked.push((cookie, if command == 0 { length } else { 0 }));
            if command < 2 {
                self.begun.insert(offset / 512);
            }
            self.parsed += REQUEST_BYTES + if command == 1 { length } else { 0 };
        }
    }

    /// Hands bytes to the session in pieces; after an error the connection is lost.
    fn receive(&mut self, mut bytes: &[u8], step: usize) {
        while !bytes.is_empty() {
            let mut left_in_piece = step;
            let result = self.session.receive(&mut |pieces| {
                let mut count = 0;
                for piece in pieces {
                    let part = piece.len().min(bytes.len()).min(left_in_piece);
                    piece[..part].copy_from_slice(&bytes[..part]);
                    bytes = &bytes[part..];
                    left_in_piece -= part;
                    count += part;
                }
                if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
            });
            if let Err(error) = result {
                assert!(!error.to_string().is_empty());
                return self.lose();
            }
        }
    }

    fn lose(&mut self) {
        self.session.lose();
        self.wire.clear();
        self.asked.clear();
        self.parsed = 0;
        assert!(!self.session.has_unsent());
    }

    fn check(&mut self, done: &IoCompletion) {
        assert!(self.in_flight.remove(&done.tag.0), "{:?} completes once", done.tag);
        let is_write = matches!(done.buffer, IoBuffer::Write(_));
        match done.outcome.map_err(|error| error.source_code) {
            Ok(()) => assert_eq!((done.effect, done.copy), (Effect::Full, CopyFate::Dead)),
            Err(ErrorSource::ConnectionLost { sent: false }) => {
                assert_eq!((done.effect, done.copy), (Effect::None, CopyFate::Dead));
                assert!(!self.begun.contains(&done.tag.0), "a part of it has left");
            }
            Err(ErrorSource::ConnectionLost { sent: true }) => {
                assert_eq!(done.effect, Effect::Unknown);
                assert!(is_write || done.copy == CopyFate::Dead, "only writes land late");
            }
            Err(ErrorSource::Nbd(_) | ErrorSource::Errno(_)) => assert_eq!(done.copy, CopyFate::Dead),
            Err(other) => panic!("{other:?} has no place here"),
        }
    }

    fn drain(&mut self) {
        while let Some(done) = self.session.take_ready() {
            self.check(&done);
        }
    }

    /// One step as the input says.
    fn step(&mut self, input: &mut Input<'_>) {
        let (kind, choice) = (input.byte(), input.byte());
        match kind % 8 {
            0 | 1 => self.submit(choice),
            2 => self.send(usize::from(choice) * 8),
            3 | 4 if !self.asked.is_empty() => {
                let (cookie, length) = self.asked.swap_remove(usize::from(choice) % self.asked.len());
                let error = if choice < 0xC0 { 0_u32 } else { u32::from(choice & 0x3F) };
                let payload = vec![choice; if error == 0 { length } else { 0 }];
                let head = [REPLY_MAGIC.to_be_bytes(), error.to_be_bytes()].concat();
                let reply = [&head[..], &cookie.to_be_bytes(), &payload].concat();
                self.receive(&reply, usize::from(kind >> 3) + 1);
            }
            5 => self.receive(input.take(usize::from(choice)), usize::from(kind >> 3) + 1),
            6 => {
                let tag = self.next_tag.saturating_sub(u64::from(choice % 8));
                if let Cancelled::Withdrawn(request) = self.session.cancel(IoTag(tag)) {
                    assert!(self.in_flight.remove(&request.tag.0) && !self.begun.contains(&tag));
                }
            }
            7 if choice < 0x20 => self.lose(),
            _ => self.drain(),
        }
    }
}

/// Requests to a server that answers anything, or nothing.
///
/// # Panics
/// If a promise is broken.
pub fn nbd_reply(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let flags = TransmissionFlags::from_bits_retain(u16::from(input.byte()));
    let mut scene = Scene {
        session: Session::new(GEOMETRY, flags),
        wire: Vec::new(),
        asked: Vec::new(),
        parsed: 0,
        begun: BTreeSet::new(),
        in_flight: BTreeSet::new(),
        next_tag: 1,
    };
    while !input.is_empty() {
        scene.step(&mut input);
    }
    scene.lose();
    scene.drain();
    assert!(scene.in_flight.is_empty(), "{:?} never came back", scene.in_flight);
    assert_eq!(scene.session.in_flight(), 0);
}

/// Inputs to begin with.
#[must_use]
pub fn nbd_reply_seeds() -> Vec<Vec<u8>> {
    vec![
        // A read, a write and a flush, sent, answered in another order, handed out.
        b"\x0d\x00\x00\x00\x03\x00\x01\x02\xff\x03\x01\xfb\x00\x3b\x00\x07\xff".to_vec(),
        // A server without FUA: the flush behind a write, then a loss.
        b"\x05\x00\x02\x02\xff\x03\x00\x02\xff\x03\x00\x00\x02\x02\xff\x03\x00\x07\x00\x07\xff".to_vec(),
        // A part of a write leaves; one is withdrawn; an error.
        b"\x0d\x00\x03\x00\x03\x02\x01\x06\x01\x06\x02\x02\xff\x03\xc5\x07\xff".to_vec(),
        // Noise, and a reply that nobody asked for.
        b"\x0d\x00\x00\x02\xff\x0d\x10\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\0\x07\xff".to_vec(),
        // Read-only, without a flush.
        b"\x02\x00\x01\x00\x03\x07\xff\x00\x80\x02\xff\x13\x00\x07\xff".to_vec(),
    ]
}
