//! The common header and the seal of every record.
//!
//! Every record is one block of [`BLOCK_BYTES`]; its first 64 bytes say what it is, whose it is and
//! where it belongs, its last 32 are a BLAKE3 seal over all before, keyed once a connection has keys.
//! A record that was torn, misdirected or damaged does not open. Not here: who may write what.

use bitflags::bitflags;

use crate::record::{Record, RecordError};
use crate::{record, wire_enum, wire_flags};

/// Size of a block of the volume, on every device, whatever its logical block is.
pub const BLOCK_BYTES: usize = 4096;
/// Where the seal stands.
pub const SEAL_OFFSET: usize = BLOCK_BYTES - SEAL_BYTES;
/// Size of the seal.
pub const SEAL_BYTES: usize = 32;
/// Bytes of the common header.
pub const HEADER_BYTES: usize = 64;
/// The first four bytes of every record but the master control block.
pub const MAGIC: [u8; 4] = *b"DWR1";
/// Major version of the format.
pub const FORMAT_MAJOR: u8 = 1;
/// Owner of the records that only format and admin write.
pub const OWNER_ADMIN: u16 = 0xFFFF;

/// One block.
pub type Page = [u8; BLOCK_BYTES];

wire_enum! {
    /// What a record is.
    pub enum RecordType: u8 {
        /// Master control block; shown by `blk5_id`, so the code is on no disk.
        MasterControlBlock = 1,
        /// Secondary device table.
        SecondaryDeviceTable = 2,
        /// One row of the host table.
        HostRecord = 3,
        /// Beacon.
        Beacon = 4,
        /// Bell.
        Bell = 5,
        /// Incarnation record.
        Incarnation = 6,
        /// In-directory.
        InDirectory = 7,
        /// Process id entry.
        ProcessIdEntry = 8,
        /// Process segment pointer table.
        PointerTable = 9,
        /// Header block of a segment.
        Segment = 10,
    }
}

bitflags! {
    /// Flags of the common header.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct HeaderFlags: u16 {
        /// The seal is keyed with a connection's page key.
        const SEALED = 1;
    }
}
wire_flags!(HeaderFlags, u16);

record! {
    /// The first 64 bytes of a record.
    pub struct Header: 64, "common header" {
        /// `DWR1`.
        0 => magic: [u8; 4],
        /// What it is.
        4 => record_type: RecordType,
        /// Format major version.
        5 => major: u8,
        /// Bytes in use before the seal.
        6 => length: u16,
        /// The volume's id.
        8 => volume_id: [u8; 16],
        /// Lane that may write this record; 0xFFFF = admin.
        24 => owner: u16,
        /// Index within the owner's part.
        26 => index: u16,
        /// Entry number of the device this block is on.
        28 => device: u16,
        /// Flags.
        30 => flags: HeaderFlags,
        /// Block this record belongs to: detects misdirected reads and writes.
        32 => own_block: u64,
        /// Incarnation of the owner.
        40 => incarnation: u64,
        /// Version of this record; pairs: block = version mod 2.
        48 => version: u64,
        /// Incarnation nonce of the owner, low half.
        56 => incarnation_nonce_low: u64,
    }
}

/// Where a record belongs, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The volume.
    pub volume_id: [u8; 16],
    /// The lane that writes it.
    pub owner: u16,
    /// Index within the owner's part.
    pub index: u16,
    /// Device.
    pub device: u16,
    /// Block on the device.
    pub block: u64,
}

/// The life of its owner in which a record was written, and its version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edition {
    /// Incarnation of the owner.
    pub incarnation: u64,
    /// Low half of the incarnation nonce.
    pub nonce_low: u64,
    /// Version of the record.
    pub version: u64,
}

impl Header {
    /// A header for a record of type `record_type` with the byte map of `R`.
    #[must_use]
    pub fn new<R: Record>(record_type: RecordType, place: Place, edition: Edition) -> Self {
        let used = R::FIELDS.last().map_or(HEADER_BYTES, |field| field.offset + field.size);
        Self {
            magic: MAGIC,
            record_type,
            major: FORMAT_MAJOR,
            length: u16::try_from(used).expect("a record fits a block"),
            volume_id: place.volume_id,
            owner: place.owner,
            index: place.index,
            device: place.device,
            flags: HeaderFlags::empty(),
            own_block: place.block,
            incarnation: edition.incarnation,
            version: edition.version,
            incarnation_nonce_low: edition.nonce_low,
        }
    }

    /// Whether this header is one of `record_type` at `place`.
    ///
    /// # Errors
    /// Names the first field that differs.
    pub fn check<R: Record>(&self, record_type: RecordType, place: Place) -> Result<(), RecordError> {
        let expected = Self { flags: self.flags, ..Self::new::<R>(record_type, place, self.edition()) };
        let what = if self.magic != expected.magic {
            "magic"
        } else if self.record_type != record_type {
            "type"
        } else if self.major != expected.major {
            "format version"
        } else if self.length != expected.length {
            "length"
        } else if self.volume_id != expected.volume_id {
            "volume id"
        } else if self.owner != expected.owner {
            "owner"
        } else if self.index != expected.index {
            "index"
        } else if (self.device, self.own_block) != (expected.device, expected.own_block) {
            "own address"
        } else {
            return Ok(());
        };
        Err(RecordError::Header { record: R::NAME, what })
    }

    /// Incarnation, nonce and version.
    #[must_use]
    pub fn edition(&self) -> Edition {
        Edition {
            incarnation: self.incarnation,
            nonce_low: self.incarnation_nonce_low,
            version: self.version,
        }
    }
}

/// Computes the seal over the block's first 4,064 bytes and writes it behind them.
pub fn seal_page(page: &mut [u8], key: Option<&[u8; 32]>) {
    let seal = seal_of(page, key);
    page[SEAL_OFFSET..BLOCK_BYTES].copy_from_slice(seal.as_bytes());
}

/// Whether the block's seal fits its bytes. Compares in constant time.
#[must_use]
pub fn seal_fits(page: &[u8], key: Option<&[u8; 32]>) -> bool {
    page.len() == BLOCK_BYTES
        && <[u8; SEAL_BYTES]>::try_from(&page[SEAL_OFFSET..])
            .is_ok_and(|stored| seal_of(page, key) == blake3::Hash::from_bytes(stored))
}

fn seal_of(page: &[u8], key: Option<&[u8; 32]>) -> blake3::Hash {
    match key {
        Some(key) => blake3::keyed_hash(key, &page[..SEAL_OFFSET]),
        None => blake3::hash(&page[..SEAL_OFFSET]),
    }
}

/// Emits a record into a block and seals it.
#[must_use]
pub fn emit_page<R: Record>(record: &R, key: Option<&[u8; 32]>) -> Box<Page> {
    let mut page = Box::new([0; BLOCK_BYTES]);
    record.emit(&mut page[..]);
    seal_page(&mut page[..], key);
    page
}

/// Opens a block: seal first, then the record.
///
/// # Errors
/// If the seal does not fit or the bytes are no record of this type.
pub fn parse_page<R: Record>(page: &[u8], key: Option<&[u8; 32]>) -> Result<R, RecordError> {
    if !seal_fits(page, key) {
        return Err(RecordError::Seal { record: R::NAME });
    }
    R::parse(page)
}
