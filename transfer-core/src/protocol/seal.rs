//! Sealing and opening of segments and small messages: XAES-256-GCM under keys of one direction.
//!
//! A key is derived for every sealing from 24 random bytes that stand in the header, so secrecy does not
//! hang on a counter in memory (virtual machines are reverted). The associated data is the header as
//! the reader builds it from what it *expects*: owner, incarnation, place, connection, direction,
//! sequence number, attempt. Bytes that were written for anything else do not open.
//!
//! Jobs are plain data that run anywhere: on a worker, or at once in a simulator.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_256, EncryptingKey, UnboundCipherKey};
use storage_mapping::{Buffer, BufferPool, SharedBuffer};
use volume::BLOCK_BYTES;
use volume::record::Record;
use zeroize::Zeroizing;

use crate::format::segment::{
    ASSOCIATED_BYTES, INLINE_MAX_BYTES, INLINE_OFFSET, NONCE_OFFSET, SEAL_RANGE, SegmentHeader,
};
use crate::payload::{HEADER_ROOM_BYTES, Payload};

/// Bytes of the nonce.
pub const NONCE_BYTES: usize = 24;
/// Bytes of the tag.
pub const TAG_BYTES: usize = 16;

/// A key of XAES-256-GCM, as specified by C2SP: a fresh AES-256-GCM key for each nonce.
pub struct XaesKey {
    cipher: EncryptingKey,
    subkey: [u8; 16],
}

impl std::fmt::Debug for XaesKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("XaesKey")
    }
}

impl XaesKey {
    /// Takes the 256-bit key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        let unbound = UnboundCipherKey::new(&AES_256, key).expect("a key of 32 bytes");
        let cipher = EncryptingKey::ecb(unbound).expect("AES-256 has this mode");
        let mut subkey = [0; 16];
        cipher.encrypt(&mut subkey).expect("one whole block");
        // Doubling in GF(2^128), as CMAC makes its first subkey.
        let carry = subkey[0] >> 7;
        for index in 0..16 {
            let next = subkey.get(index + 1).map_or(0, |byte| byte >> 7);
            subkey[index] = (subkey[index] << 1) | next;
        }
        subkey[15] ^= carry * 0x87;
        Self { cipher, subkey }
    }

    fn derive(&self, nonce: &[u8; NONCE_BYTES]) -> (LessSafeKey, Nonce) {
        let mut key = Zeroizing::new([0; 32]);
        for (counter, half) in [1u8, 2].into_iter().zip(key.chunks_exact_mut(16)) {
            half.copy_from_slice(&[0, counter, b'X', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            half[4..].copy_from_slice(&nonce[..12]);
            for (byte, mask) in half.iter_mut().zip(self.subkey) {
                *byte ^= mask;
            }
        }
        self.cipher.encrypt(&mut key[..]).expect("two whole blocks");
        let unbound = UnboundKey::new(&AES_256_GCM, &key[..]).expect("a key of 32 bytes");
        let nonce = Nonce::try_assume_unique_for_key(&nonce[12..]).expect("12 bytes");
        (LessSafeKey::new(unbound), nonce)
    }

    /// Encrypts in place; gives the tag.
    #[must_use]
    pub fn seal(&self, nonce: &[u8; NONCE_BYTES], associated: &[u8], bytes: &mut [u8]) -> [u8; TAG_BYTES] {
        let (key, nonce) = self.derive(nonce);
        let tag = key
            .seal_in_place_separate_tag(nonce, Aad::from(associated), bytes)
            .expect("a segment is below the limit of the cipher");
        tag.as_ref().try_into().expect("a tag has 16 bytes")
    }

    /// Decrypts in place if the tag fits.
    #[must_use]
    pub fn open(&self, nonce: &[u8; NONCE_BYTES], associated: &[u8], tag: &[u8], bytes: &mut [u8]) -> bool {
        let (key, nonce) = self.derive(nonce);
        key.open_in_place_separate_tag(nonce, Aad::from(associated), tag, bytes).is_ok()
    }
}

/// The keys of one direction.
#[derive(Clone, Debug)]
pub struct DirectionKeys {
    /// Seals segments and in-table messages.
    pub data: Arc<XaesKey>,
    /// Seals commands.
    pub command: Arc<XaesKey>,
    /// Seals entries and tables.
    pub page: [u8; 32],
}

impl DirectionKeys {
    /// Derives the three keys of a direction from its half of the handshake's split.
    #[must_use]
    pub fn derive(split: &[u8; 32], handshake_hash: &[u8]) -> Self {
        let material = Zeroizing::new([&split[..], handshake_hash].concat());
        let derive = |context: &str| Zeroizing::new(blake3::derive_key(context, &material));
        Self {
            data: Arc::new(XaesKey::new(&derive("diskwire 2026 segment data key"))),
            command: Arc::new(XaesKey::new(&derive("diskwire 2026 command key"))),
            page: *derive("diskwire 2026 page key"),
        }
    }
}

/// Where the bytes of a segment stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// In the pointer table itself.
    InTable,
    /// In the header block.
    Inline,
    /// In the blocks after the header block.
    Full,
}

impl Form {
    /// Blocks of the segment on disk.
    #[must_use]
    pub fn blocks(self, stored_bytes: usize) -> usize {
        match self {
            Self::InTable => 0,
            Self::Inline => 1,
            Self::Full => 1 + stored_bytes.div_ceil(BLOCK_BYTES),
        }
    }
}

/// Seals `payload` as the segment of `header` (its nonce set, its seal zero). Gives the bytes for the
/// disk, whole blocks, header first; in-table messages as nonce, tag, body.
#[must_use]
pub fn seal_segment(
    key: &XaesKey,
    mut header: SegmentHeader,
    form: Form,
    payload: Payload,
    pool: &BufferPool,
) -> (SharedBuffer, [u8; 16]) {
    let (buffer, start, length) = payload.into_parts();
    let mut page = [0; ASSOCIATED_BYTES];
    header.seal = [0; 32];
    header.emit(&mut page);
    let associated = associated_of(&page);
    if form == Form::InTable {
        let mut out = pool.take(NONCE_BYTES + TAG_BYTES + length);
        out[..NONCE_BYTES].copy_from_slice(&header.nonce);
        out[NONCE_BYTES + TAG_BYTES..].copy_from_slice(&buffer[start..start + length]);
        let tag = key.seal(&header.nonce, &associated, &mut out[NONCE_BYTES + TAG_BYTES..]);
        out[NONCE_BYTES..NONCE_BYTES + TAG_BYTES].copy_from_slice(&tag);
        return (out.freeze(), tag);
    }
    let bytes_on_disk = form.blocks(length) * BLOCK_BYTES;
    let body = if form == Form::Inline { INLINE_OFFSET } else { HEADER_ROOM_BYTES };
    let mut out = if start == body && buffer.capacity() >= bytes_on_disk {
        let mut buffer = buffer;
        buffer.resize(bytes_on_disk);
        buffer
    } else {
        let mut out = pool.take(bytes_on_disk);
        out[body..body + length].copy_from_slice(&buffer[start..start + length]);
        out
    };
    // Neither old memory nor old disk bytes go out: clear all that is not filled.
    out[body + length..].fill(0);
    out[ASSOCIATED_BYTES..body].fill(0);
    let tag = key.seal(&header.nonce, &associated, &mut out[body..body + length]);
    page[SEAL_RANGE.start..SEAL_RANGE.start + TAG_BYTES].copy_from_slice(&tag);
    out[..ASSOCIATED_BYTES].copy_from_slice(&page);
    (out.freeze(), tag)
}

/// Opens what was read for the segment of `expected`. Nonce, file offset and codec are taken as stored.
/// Gives the payload and the file offset, or `None` where the bytes are not that segment.
#[must_use]
pub fn open_segment(
    key: &XaesKey,
    expected: &SegmentHeader,
    form: Form,
    mut buffer: Buffer,
) -> Option<(Payload, u64)> {
    let stored: [u8; ASSOCIATED_BYTES] = buffer.get(..ASSOCIATED_BYTES)?.try_into().ok()?;
    let stored_header = SegmentHeader::parse(&stored).ok()?;
    let wanted = SegmentHeader {
        nonce: stored_header.nonce,
        file_offset: stored_header.file_offset,
        codec: stored_header.codec,
        seal: [0; 32],
        ..expected.clone()
    };
    // FIG. 11, step 258: what stands there says itself that it is the expected segment.
    let is_consistent = stored_header.seal[TAG_BYTES..].iter().all(|byte| *byte == 0)
        && wanted == SegmentHeader { seal: [0; 32], ..stored_header };
    if !is_consistent {
        return None;
    }
    let mut page = [0; ASSOCIATED_BYTES];
    wanted.emit(&mut page);
    let associated = associated_of(&page);
    let length = usize::try_from(expected.stored_bytes).ok()?;
    let body = if form == Form::Inline { INLINE_OFFSET } else { HEADER_ROOM_BYTES };
    let fits = form != Form::Inline || length <= INLINE_MAX_BYTES;
    let bytes = buffer.get_mut(body..body.checked_add(length)?)?;
    let tag = &stored[SEAL_RANGE.start..SEAL_RANGE.start + TAG_BYTES];
    if !fits || wanted.codec != 0 || !key.open(&wanted.nonce, &associated, tag, bytes) {
        return None;
    }
    Some((Payload::inside(buffer, body, length), wanted.file_offset))
}

/// Opens an in-table message: nonce, tag, body.
#[must_use]
pub fn open_in_table(key: &XaesKey, expected: &SegmentHeader, bytes: &[u8]) -> Option<Payload> {
    let (nonce, rest) = bytes.split_at_checked(NONCE_BYTES)?;
    let (tag, body) = rest.split_at_checked(TAG_BYTES)?;
    let nonce: [u8; NONCE_BYTES] = nonce.try_into().ok()?;
    let mut page = [0; ASSOCIATED_BYTES];
    SegmentHeader { nonce, seal: [0; 32], ..expected.clone() }.emit(&mut page);
    let mut buffer = Buffer::copy_of(body);
    key.open(&nonce, &associated_of(&page), tag, &mut buffer).then(|| Payload::inside(buffer, 0, body.len()))
}

fn associated_of(page: &[u8; ASSOCIATED_BYTES]) -> [u8; ASSOCIATED_BYTES] {
    let mut associated = *page;
    associated[SEAL_RANGE].fill(0);
    associated
}

const _: () = assert!(NONCE_OFFSET + NONCE_BYTES == SEAL_RANGE.start);

/// Work that takes time and needs no state: for a pool of workers.
#[derive(Debug)]
pub enum SealWork {
    /// Seal a new segment.
    Seal {
        /// Key of the direction.
        key: Arc<XaesKey>,
        /// Header, nonce set.
        header: Box<SegmentHeader>,
        /// Where the bytes go.
        form: Form,
        /// What to seal.
        payload: Payload,
    },
    /// Open a sealed segment again and seal it for another place.
    Reseal {
        /// Key of the direction.
        key: Arc<XaesKey>,
        /// Header it was sealed with.
        old: Box<SegmentHeader>,
        /// The sealed bytes.
        sealed: SharedBuffer,
        /// The new header, nonce set.
        header: Box<SegmentHeader>,
        /// Where the bytes go.
        form: Form,
    },
    /// Open a segment that was read.
    Open {
        /// Key of the direction.
        key: Arc<XaesKey>,
        /// What the reader expects.
        expected: Box<SegmentHeader>,
        /// Where the bytes are.
        form: Form,
        /// The blocks.
        buffer: Buffer,
    },
}

/// What came of [`SealWork`].
#[derive(Debug)]
pub enum SealDone {
    /// Sealed: the bytes for the disk, and the first 16 bytes of the seal.
    Sealed(SharedBuffer, [u8; 16]),
    /// Opened: the payload and its file offset.
    Opened(Payload, u64),
    /// The seal does not fit.
    Failed,
}

impl SealWork {
    /// Bytes that will be worked on, to decide whether a worker is worth it.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        match self {
            Self::Seal { payload, .. } => payload.len(),
            Self::Reseal { sealed, .. } => sealed.len(),
            Self::Open { buffer, .. } => buffer.len(),
        }
    }

    /// Does the work.
    #[must_use]
    pub fn run(self, pool: &BufferPool) -> SealDone {
        match self {
            Self::Seal { key, header, form, payload } => {
                let (bytes, prefix) = seal_segment(&key, *header, form, payload, pool);
                SealDone::Sealed(bytes, prefix)
            }
            Self::Reseal { key, old, sealed, header, form } => {
                let mut copy = pool.take(sealed.len());
                copy.copy_from_slice(&sealed);
                match open_segment(&key, &old, form, copy) {
                    Some((payload, _)) => {
                        let (bytes, prefix) = seal_segment(&key, *header, form, payload, pool);
                        SealDone::Sealed(bytes, prefix)
                    }
                    None => SealDone::Failed,
                }
            }
            Self::Open { key, expected, form, buffer } => match open_segment(&key, &expected, form, buffer) {
                Some((payload, offset)) => SealDone::Opened(payload, offset),
                None => SealDone::Failed,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two vectors of the C2SP specification of XAES-256-GCM.
    #[test]
    fn xaes_matches_its_specification() {
        let nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX";
        for (key, associated, sealed) in [
            ([1; 32], &b""[..], "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
            ([3; 32], b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
        ] {
            let key = XaesKey::new(&key);
            let mut bytes = *b"XAES-256-GCM";
            let tag = key.seal(nonce, associated, &mut bytes);
            assert_eq!(volume::open::hex(&[&bytes[..], &tag].concat()), sealed);
            assert!(!key.open(nonce, b"other", &tag, &mut bytes.clone()));
            assert!(key.open(nonce, associated, &tag, &mut bytes));
            assert_eq!(&bytes, b"XAES-256-GCM");
        }
    }
}
