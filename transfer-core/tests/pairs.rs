//! A/B pairs under damage: the last good version is read, and never an older one than before.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

use proptest::prelude::{any, proptest};
use storage_mapping::{Buffer, Instant};
use transfer_core::format::control_area::IncarnationRecord;
use transfer_core::protocol::pair::{DOUBT, PairRead, PairReader, PairWriter};
use volume::BLOCK_BYTES;
use volume::header::{Edition, Header, Place, RecordType, SEAL_OFFSET, emit_page};

const PLACE: Place = Place { volume_id: [2; 16], owner: 3, index: 0, device: 0, block: 40 };

/// Both blocks of a pair, as they stand on the disk.
struct Pair {
    writer: PairWriter,
    blocks: Vec<u8>,
}

impl Pair {
    fn new() -> Self {
        Self { writer: PairWriter::new(PLACE), blocks: vec![0; 2 * BLOCK_BYTES] }
    }

    /// Writes the next version; of a torn write only the first `landed` bytes arrive.
    fn write(&mut self, key: Option<&[u8; 32]>, landed: usize) {
        let write = self.writer.write(Instant::ZERO, |version, place| {
            let edition = Edition { incarnation: 1, nonce_low: 9, version };
            let nonce = std::array::from_fn(|at| version.to_le_bytes()[at % 8]);
            let record = IncarnationRecord {
                header: Header::new::<IncarnationRecord>(RecordType::Incarnation, place, edition),
                incarnation_nonce: nonce,
                owner_mac: [0; 32],
            };
            Buffer::copy_of(&emit_page(&record, key)[..])
        });
        let start = usize::try_from(write.place.block - PLACE.block).unwrap() * BLOCK_BYTES;
        self.blocks[start..start + landed].copy_from_slice(&write.bytes[..landed]);
        self.writer.handle_written(Instant::ZERO, write.version, true);
    }
}

fn read(reader: &mut PairReader, blocks: &[u8], key: Option<&[u8; 32]>) -> Option<u64> {
    match reader.read::<IncarnationRecord>(RecordType::Incarnation, PLACE, blocks, key) {
        PairRead::New(record) => {
            assert_eq!(record.incarnation_nonce[..8], record.header.version.to_le_bytes());
            Some(record.header.version)
        }
        PairRead::Same | PairRead::Invalid => None,
    }
}

proptest! {
    #[test]
    fn one_changed_byte_never_hides_the_last_good_version_but_its_own(
        versions in 1u64..9, seen in 0u64..9, at in 0..2 * BLOCK_BYTES, change in 1u8.., keyed in any::<bool>(),
    ) {
        let key = keyed.then_some(&[6; 32]);
        let mut pair = Pair::new();
        let mut reader = PairReader::default();
        for version in 1..=versions {
            pair.write(key, BLOCK_BYTES);
            if version == seen {
                assert_eq!(read(&mut reader, &pair.blocks, key), Some(version));
            }
        }
        let mut blocks = pair.blocks.clone();
        blocks[at] ^= change;
        let newest_is_hit = at / BLOCK_BYTES == usize::try_from(versions % 2).unwrap();
        let readable = if newest_is_hit { versions - 1 } else { versions };
        let accepted = reader.version();
        let got = read(&mut reader, &blocks, key);
        assert_eq!(got, (readable > accepted).then_some(readable));
        // The damage is repaired: the newest comes after all, and once only.
        let repaired = read(&mut reader, &pair.blocks, key);
        assert_eq!(repaired, (versions > reader_version(got, accepted)).then_some(versions));
        assert_eq!(read(&mut reader, &pair.blocks, key), None);
    }

    #[test]
    fn a_torn_write_leaves_the_version_before_it(versions in 1u64..9, landed in 0..SEAL_OFFSET) {
        let mut pair = Pair::new();
        for _ in 0..versions {
            pair.write(None, BLOCK_BYTES);
        }
        pair.write(None, landed);
        assert_eq!(read(&mut PairReader::default(), &pair.blocks, None), Some(versions));
    }

    /// Old blocks that come back (a stale read, a late write) are not taken.
    #[test]
    fn nothing_older_is_accepted(versions in 2u64..9, back in 1u64..8) {
        let mut pair = Pair::new();
        let mut history = vec![pair.blocks.clone()];
        for _ in 0..versions {
            pair.write(None, BLOCK_BYTES);
            history.push(pair.blocks.clone());
        }
        let mut reader = PairReader::default();
        assert_eq!(read(&mut reader, &pair.blocks, None), Some(versions));
        let old = usize::try_from(versions.saturating_sub(back)).unwrap();
        assert_eq!(read(&mut reader, &history[old], None), None);
        assert_eq!(reader.version(), versions);
    }

    /// A block in the place of the other one, or of another pair, is not taken.
    #[test]
    fn a_misplaced_block_is_not_taken(versions in 1u64..9, shift in 1u64..5) {
        let mut pair = Pair::new();
        for _ in 0..versions {
            pair.write(None, BLOCK_BYTES);
        }
        let mut swapped = pair.blocks.clone();
        swapped.rotate_left(BLOCK_BYTES);
        assert_eq!(read(&mut PairReader::default(), &swapped, None), None);
        let elsewhere = Place { block: PLACE.block + 2 * shift, ..PLACE };
        let got = PairReader::default().read::<IncarnationRecord>(RecordType::Incarnation, elsewhere, &pair.blocks, None);
        assert!(matches!(got, PairRead::Invalid));
    }

    #[test]
    fn no_bytes_make_it_panic(blocks in proptest::collection::vec(any::<u8>(), 0..2 * BLOCK_BYTES)) {
        assert_eq!(read(&mut PairReader::default(), &blocks, None), None);
    }
}

fn reader_version(got: Option<u64>, accepted: u64) -> u64 {
    got.unwrap_or(accepted)
}

/// A failed write goes to the same block again; only long doubt lets the next version pass it.
#[test]
fn a_write_in_doubt_keeps_its_block() {
    let mut writer = PairWriter::new(PLACE);
    let build = |version: u64, _| Buffer::copy_of(&[version.to_le_bytes()[0]; BLOCK_BYTES]);
    let first = writer.write(Instant::ZERO, build);
    assert!(!writer.is_ready(Instant::ZERO));
    assert!(!writer.handle_written(Instant::ZERO, first.version, false));
    assert!(writer.poll_retry(Instant::ZERO).is_none());
    let again = writer.poll_retry(writer.next_wakeup().unwrap()).unwrap();
    assert_eq!((again.version, again.place, &again.bytes[..]), (1, first.place, &first.bytes[..]));
    let later = Instant::ZERO + DOUBT;
    assert!(writer.is_ready(later));
    assert_ne!(writer.write(later, build).place.block, first.place.block);
    assert!(!writer.handle_written(later, 1, true), "the first has been passed");
    assert!(writer.handle_written(later, 2, true) && writer.is_idle());
}

/// Version 1 hangs, 2 passes it, and 1 lands in the block of 3 after all: it hides 3, like a lost write,
/// and brings nothing old; 4 is read as soon as it is written.
#[test]
fn a_write_that_was_passed_and_lands_late_is_no_more_than_a_lost_write() {
    let mut pair = Pair::new();
    pair.write(None, BLOCK_BYTES);
    let late = pair.blocks[BLOCK_BYTES..].to_vec();
    for _ in 2..=3 {
        pair.write(None, BLOCK_BYTES);
    }
    let third = pair.blocks.clone();
    pair.write(None, BLOCK_BYTES);
    let fourth = pair.blocks;
    for read_between in [false, true] {
        for landed in [BLOCK_BYTES, SEAL_OFFSET, 100] {
            let mut blocks = third.clone();
            let mut reader = PairReader::default();
            if read_between {
                assert_eq!(read(&mut reader, &blocks, None), Some(3));
            }
            blocks[BLOCK_BYTES..BLOCK_BYTES + landed].copy_from_slice(&late[..landed]);
            assert_eq!(read(&mut reader, &blocks, None), (!read_between).then_some(2));
            blocks[..BLOCK_BYTES].copy_from_slice(&fourth[..BLOCK_BYTES]);
            assert_eq!(read(&mut reader, &blocks, None), Some(4));
        }
    }
}
