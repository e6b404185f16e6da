//! The negotiation with an NBD server as a pure machine: fixed new style, `NBD_OPT_GO`, one export.
//!
//! ```text
//! Greeting ─▶ ReplyHead ─▶ ReplyBody ─┬─▶ ReplyHead …     (a fact)
//!                                     ├─▶ Done            (NBD_REP_ACK after NBD_INFO_EXPORT)
//!                                     └─▶ NBD_OPT_ABORT, failed
//! ```
//!
//! Keeps true: it takes exactly the bytes it needs ([`Handshake::missing`]), however they are split, and
//! never one of what follows; a body above [`BODY_BYTES_MAX`] and more than [`REPLIES_MAX`] replies are
//! refused; what the server says in words is shown without control characters. Not here: sockets and time.

use thiserror::Error;

use super::codec::{
    self, FIXED_NEW_STYLE, GREETING_BYTES, INFO_BLOCK_SIZE, INFO_EXPORT, NAME_BYTES_MAX, NO_ZEROES,
    OLD_STYLE_MAGIC, OPTION_ABORT, OPTION_GO, OPTION_MAGIC, OPTION_REPLY_BYTES, OPTION_REPLY_MAGIC,
    REPLY_ACK, REPLY_ERROR_BIT, REPLY_INFO, SERVER_MAGIC, TransmissionFlags, u16_at, u32_at, u64_at,
};
use crate::block::address::ByteSize;

/// The longest body of a reply that is read, in bytes: a name or a description and a little more.
pub const BODY_BYTES_MAX: usize = 8192;
/// Replies to one option, at most.
pub const REPLIES_MAX: usize = 64;
/// What a request may have at most where the server says nothing, in bytes: what every server has to take.
pub const TRANSFER_BYTES_DEFAULT: u32 = 32 << 20;
/// Characters of a server's message that are shown.
const MESSAGE_CHARACTERS_MAX: usize = 200;

/// What a server said about an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The name asked for; empty is the server's default.
    pub name: String,
    /// Size in bytes.
    pub size: ByteSize,
    /// What can be done with it.
    pub flags: TransmissionFlags,
    /// What offsets and lengths must be a multiple of, in bytes; a power of two up to 64 KiB.
    pub block_bytes_min: u32,
    /// What they should be a multiple of, in bytes.
    pub block_bytes_preferred: u32,
    /// The longest request, in bytes.
    pub transfer_bytes_max: u32,
}

impl Export {
    /// Whether several connections see one another's writes and flushes; without it there may be one only.
    #[must_use]
    pub fn can_multi_conn(&self) -> bool {
        self.flags.contains(TransmissionFlags::CAN_MULTI_CONN)
    }
}

/// Why a negotiation failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NegotiationError {
    /// The name of the export is too long.
    #[error("the name of the export has {length} bytes, and NBD allows {NAME_BYTES_MAX}: shorten it")]
    NameTooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// Something else listens there.
    #[error("what listens there is no NBD server: name the port of one")]
    NotNbd,
    /// A server of before 2012.
    #[error("the server speaks only the old NBD negotiation: it needs the fixed new style")]
    OldStyle,
    /// It refused the export.
    #[error("the server refuses the export: {why}{}", words(.message))]
    Refused {
        /// The number of the refusal.
        code: u32,
        /// What the number means.
        why: &'static str,
        /// What it said, if it did.
        message: String,
    },
    /// It does not keep to the protocol.
    #[error("the server does not keep to the protocol: {0}")]
    Protocol(&'static str),
}

fn words(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" (it says: {message})") }
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Greeting,
    ReplyHead,
    ReplyBody { kind: u32 },
    Over,
}

/// A negotiation under way.
#[derive(Debug)]
pub struct Handshake {
    stage: Stage,
    /// Bytes of the record that is being read.
    input: Vec<u8>,
    /// How many make it whole.
    needed: usize,
    output: Vec<u8>,
    replies: usize,
    name: String,
    size_and_flags: Option<(u64, TransmissionFlags)>,
    block_sizes: Option<(u32, u32, u32)>,
    outcome: Option<Result<Export, NegotiationError>>,
}

impl Handshake {
    /// Begins to negotiate for the export of this name.
    ///
    /// # Errors
    /// [`NegotiationError::NameTooLong`].
    pub fn new(export: &str) -> Result<Self, NegotiationError> {
        if export.len() > NAME_BYTES_MAX {
            return Err(NegotiationError::NameTooLong { length: export.len() });
        }
        Ok(Self {
            stage: Stage::Greeting,
            input: Vec::with_capacity(GREETING_BYTES),
            needed: GREETING_BYTES,
            output: Vec::new(),
            replies: 0,
            name: export.to_owned(),
            size_and_flags: None,
            block_sizes: None,
            outcome: None,
        })
    }

    /// How many bytes of the server are needed next; 0 when it is over.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.needed - self.input.len()
    }

    /// Takes bytes of the server, at most [`missing`](Self::missing) of them; how many it took.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.missing());
        self.input.extend_from_slice(&bytes[..taken]);
        // A body may have no bytes at all, so this can go on without any.
        while self.stage != Stage::Over && self.missing() == 0 {
            let record = std::mem::take(&mut self.input);
            if let Err(error) = self.handle(&record) {
                self.fail(error);
            }
        }
        taken
    }

    /// What is to be sent now; empty if nothing is.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// How it ended, once it has; given once.
    pub fn take_outcome(&mut self) -> Option<Result<Export, NegotiationError>> {
        self.outcome.take()
    }

    fn expect(&mut self, stage: Stage, bytes: usize) {
        self.stage = stage;
        self.needed = bytes;
    }

    fn fail(&mut self, error: NegotiationError) {
        // Only who understood us so far is told that we give up.
        if self.stage != Stage::Greeting {
            self.output.extend(codec::option(OPTION_ABORT, &[]));
        }
        self.expect(Stage::Over, 0);
        self.outcome = Some(Err(error));
    }

    fn handle(&mut self, record: &[u8]) -> Result<(), NegotiationError> {
        match self.stage {
            Stage::Greeting => self.handle_greeting(record),
            Stage::ReplyHead => self.handle_reply_head(record),
            Stage::ReplyBody { kind } => self.handle_reply(kind, record),
            Stage::Over => Ok(()),
        }
    }

    fn handle_greeting(&mut self, record: &[u8]) -> Result<(), NegotiationError> {
        if u64_at(record, 0) != SERVER_MAGIC {
            return Err(NegotiationError::NotNbd);
        }
        match u64_at(record, 8) {
            OPTION_MAGIC => {}
            OLD_STYLE_MAGIC => return Err(NegotiationError::OldStyle),
            _ => return Err(NegotiationError::NotNbd),
        }
        let flags = u16_at(record, 16);
        if flags & FIXED_NEW_STYLE == 0 {
            return Err(NegotiationError::OldStyle);
        }
        self.output.extend(codec::client_flags(FIXED_NEW_STYLE | (flags & NO_ZEROES)));
        self.output.extend(codec::option_go(&self.name));
        self.expect(Stage::ReplyHead, OPTION_REPLY_BYTES);
        Ok(())
    }

    fn handle_reply_head(&mut self, record: &[u8]) -> Result<(), NegotiationError> {
        let protocol = NegotiationError::Protocol;
        if u64_at(record, 0) != OPTION_REPLY_MAGIC {
            return Err(protocol("a reply to an option begins wrong"));
        }
        if u32_at(record, 8) != OPTION_GO {
            return Err(protocol("it answers an option that was not sent"));
        }
        self.replies += 1;
        if self.replies > REPLIES_MAX {
            return Err(protocol("it does not end to answer one option"));
        }
        let length = usize::try_from(u32_at(record, 16)).unwrap_or(usize::MAX);
        if length > BODY_BYTES_MAX {
            return Err(protocol("a reply to an option is too long"));
        }
        self.expect(Stage::ReplyBody { kind: u32_at(record, 12) }, length);
        Ok(())
    }

    fn handle_reply(&mut self, kind: u32, body: &[u8]) -> Result<(), NegotiationError> {
        match kind {
            REPLY_ACK if body.is_empty() => return self.finish(),
            REPLY_ACK => return Err(NegotiationError::Protocol("its consent has a body")),
            REPLY_INFO => self.handle_fact(body)?,
            kind if kind & REPLY_ERROR_BIT != 0 => {
                let code = kind & !REPLY_ERROR_BIT;
                return Err(NegotiationError::Refused { code, why: refusal(code), message: shown(body) });
            }
            _ => return Err(NegotiationError::Protocol("it answers with something that is no answer")),
        }
        self.expect(Stage::ReplyHead, OPTION_REPLY_BYTES);
        Ok(())
    }

    fn handle_fact(&mut self, body: &[u8]) -> Result<(), NegotiationError> {
        if body.len() < 2 {
            return Err(NegotiationError::Protocol("a fact without a kind"));
        }
        match (u16_at(body, 0), body.len()) {
            (INFO_EXPORT, 12) => {
                let flags = TransmissionFlags::from_bits_retain(u16_at(body, 10));
                self.size_and_flags = Some((u64_at(body, 2), flags));
            }
            (INFO_BLOCK_SIZE, 14) => {
                self.block_sizes = Some((u32_at(body, 2), u32_at(body, 6), u32_at(body, 10)));
            }
            (INFO_EXPORT | INFO_BLOCK_SIZE, _) => {
                return Err(NegotiationError::Protocol("a fact of the wrong length"));
            }
            // Others may be told without being asked for.
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), NegotiationError> {
        let protocol = NegotiationError::Protocol;
        let (size, flags) = self.size_and_flags.ok_or(protocol("it consents and says no size"))?;
        if i64::try_from(size).is_err() {
            return Err(protocol("a size above 2^63 bytes"));
        }
        let (min, preferred, max) = self.block_sizes.unwrap_or((1, 4096, TRANSFER_BYTES_DEFAULT));
        if !min.is_power_of_two() || min > 65_536 || preferred < min || max < preferred {
            return Err(protocol("block sizes that contradict each other"));
        }
        self.expect(Stage::Over, 0);
        self.outcome = Some(Ok(Export {
            name: self.name.clone(),
            size: ByteSize(size),
            flags,
            block_bytes_min: min,
            block_bytes_preferred: preferred,
            transfer_bytes_max: max,
        }));
        Ok(())
    }
}

fn refusal(code: u32) -> &'static str {
    match code {
        1 => "it does not know NBD_OPT_GO; take a server that does",
        2 => "its policy forbids it to us",
        3 => "it finds the request invalid",
        4 => "it was built without what this needs",
        5 => "it wants TLS, which is not spoken here: let it allow plain connections on a trusted network",
        6 => "it has no export of this name",
        7 => "it is shutting down",
        8 => "it wants a client that asks for block sizes",
        9 => "the request is too large for it",
        _ => "for a reason that is not known here",
    }
}

/// The words of a server, short and without control characters.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MESSAGE_CHARACTERS_MAX).collect()
}

#[cfg(test)]
#[expect(clippy::big_endian_bytes, reason = "NBD is big-endian on the wire")]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn greeting(flags: u16) -> Vec<u8> {
        [&b"NBDMAGICIHAVEOPT"[..], &flags.to_be_bytes()].concat()
    }

    fn reply(kind: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap();
        let head = [OPTION_GO, kind, length].map(u32::to_be_bytes).concat();
        [&OPTION_REPLY_MAGIC.to_be_bytes()[..], &head, body].concat()
    }

    fn export(size: u64, flags: u16) -> Vec<u8> {
        reply(REPLY_INFO, &[&[0, 0][..], &size.to_be_bytes(), &flags.to_be_bytes()].concat())
    }

    fn blocks(min: u32, preferred: u32, max: u32) -> Vec<u8> {
        let sizes = [min, preferred, max].map(u32::to_be_bytes).concat();
        reply(REPLY_INFO, &[&[0, 3][..], &sizes].concat())
    }

    fn sound() -> Vec<u8> {
        [
            greeting(3),
            reply(REPLY_INFO, b"\0\x01name"),
            export(1 << 20, 0x10D),
            blocks(512, 4096, 1 << 20),
            reply(REPLY_ACK, &[]),
        ]
        .concat()
    }

    /// Feeds pieces of at most `step` bytes; the outcome, all output, and what was not taken.
    fn run(mut bytes: &[u8], step: usize) -> (Option<Result<Export, NegotiationError>>, Vec<u8>, usize) {
        let mut handshake = Handshake::new("disk").unwrap();
        let mut output = Vec::new();
        while !bytes.is_empty() && handshake.missing() > 0 {
            let taken = handshake.receive(&bytes[..step.min(bytes.len())]);
            bytes = &bytes[taken..];
            output.extend(handshake.take_output());
        }
        (handshake.take_outcome(), output, bytes.len())
    }

    fn error(bytes: &[u8]) -> NegotiationError {
        run(bytes, usize::MAX).0.expect("it is over").unwrap_err()
    }

    #[test]
    fn an_export_is_found_whatever_the_pieces() {
        let bytes = [sound(), b"more".to_vec()].concat();
        for step in 1..=bytes.len() {
            let (outcome, output, left) = run(&bytes, step);
            let export = outcome.unwrap().unwrap();
            assert_eq!((export.name.as_str(), export.size), ("disk", ByteSize(1 << 20)));
            assert!(export.can_multi_conn() && export.flags.contains(TransmissionFlags::SEND_FUA));
            assert_eq!((export.block_bytes_min, export.transfer_bytes_max), (512, 1 << 20));
            assert_eq!(output, [&[0, 0, 0, 3][..], &codec::option_go("disk")].concat());
            assert_eq!(left, 4, "what follows is not touched");
        }
    }

    #[test]
    fn a_server_that_says_little_is_taken_at_its_least() {
        let bytes = [greeting(1), export(4096, 1), reply(REPLY_ACK, &[])].concat();
        let (outcome, output, _) = run(&bytes, 7);
        let export = outcome.unwrap().unwrap();
        assert_eq!((export.block_bytes_min, export.transfer_bytes_max), (1, 32 << 20));
        assert!(!export.can_multi_conn());
        assert_eq!(output[..4], [0, 0, 0, 1]);
    }

    #[test]
    fn a_refusal_is_told_and_aborted() {
        let bytes = [greeting(3), reply(REPLY_ERROR_BIT | 6, b"no \x1b[31mdisk")].concat();
        let (outcome, output, _) = run(&bytes, 9);
        let error = outcome.unwrap().unwrap_err();
        assert!(output.ends_with(&codec::option(OPTION_ABORT, &[])));
        let text = error.to_string();
        assert!(text.contains("no export of this name") && text.contains("no  [31mdisk"), "{text}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut old = b"NBDMAGIC".to_vec();
        old.extend(OLD_STYLE_MAGIC.to_be_bytes());
        old.extend([0, 0]);
        assert_eq!(error(&old), NegotiationError::OldStyle);
        assert_eq!(error(&greeting(0)), NegotiationError::OldStyle);
        assert_eq!(error(b"HTTP/1.1 400 Bad request"), NegotiationError::NotNbd);
        let mut other_option = reply(REPLY_ACK, &[]);
        other_option[11] = 6;
        for wrong in [
            reply(REPLY_ACK, &[]),
            reply(2, &[]),
            reply(REPLY_INFO, &[0]),
            reply(REPLY_INFO, &[0, 0, 1]),
            reply(REPLY_INFO, &[0, 3, 1]),
            vec![0; 20],
            other_option,
            [&reply(REPLY_INFO, &[])[..16], &[0xff; 4]].concat(),
            [export(u64::MAX, 1), reply(REPLY_ACK, &[])].concat(),
            [export(4096, 1), blocks(3, 4096, 4096), reply(REPLY_ACK, &[])].concat(),
            [export(4096, 1), blocks(1 << 17, 1 << 17, 1 << 20), reply(REPLY_ACK, &[])].concat(),
            [export(4096, 1), blocks(512, 4096, 512), reply(REPLY_ACK, &[])].concat(),
            [export(4096, 1), reply(REPLY_ACK, &[1])].concat(),
            reply(REPLY_INFO, &[0, 1]).repeat(REPLIES_MAX + 1),
        ] {
            let error = error(&[greeting(3), wrong.clone()].concat());
            assert!(matches!(error, NegotiationError::Protocol(_)), "{wrong:?}: {error}");
        }
        assert!(matches!(Handshake::new(&"x".repeat(4097)), Err(NegotiationError::NameTooLong { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(noise in any::<Vec<u8>>(), at in 0..200_usize, step in 1..40_usize) {
            drop(run(&noise, step));
            let mut bytes = sound();
            let at = at % bytes.len();
            bytes.splice(at.., noise);
            let whole = run(&bytes, usize::MAX);
            assert_eq!(run(&bytes, step), whole, "the pieces do not matter");
        }
    }
}
