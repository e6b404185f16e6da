//! Sealed segments: what was changed does not open; and their golden bytes.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

#[macro_use]
mod support;

use std::path::Path;

use proptest::prelude::{Just, any, prop_assume, prop_oneof, proptest};
use storage_mapping::{Buffer, BufferPool};
use support::{Sample, any_value, check_golden};
use transfer_core::format::segment::{SEAL_RANGE, SegmentHeader};
use transfer_core::payload::Payload;
use transfer_core::protocol::seal::{Form, XaesKey, open_in_table, open_segment, seal_segment};
use volume::BLOCK_BYTES;

fn sealed(key: &XaesKey, header: &SegmentHeader, form: Form, payload: &[u8]) -> Vec<u8> {
    let pool = BufferPool::new();
    let payload = Payload::copy_of(&pool, payload);
    let (bytes, _) = seal_segment(key, header.clone(), form, payload, &pool);
    bytes[..].to_vec()
}

/// The header that the reader expects for a payload of `length` bytes.
fn expected(header: SegmentHeader, length: usize) -> SegmentHeader {
    let length = u32::try_from(length).unwrap();
    SegmentHeader { stored_bytes: length, plain_bytes: length, codec: 0, seal: [0; 32], ..header }
}

proptest! {
    #[test]
    fn a_segment_opens_as_it_was_sealed_and_not_when_changed(
        header in any_value::<SegmentHeader>(),
        payload in proptest::collection::vec(any::<u8>(), 1..3840),
        form in prop_oneof![Just(Form::Inline), Just(Form::Full)],
        at in any::<usize>(),
        change in 1u8..,
    ) {
        let key = XaesKey::new(&[4; 32]);
        let header = expected(header, payload.len());
        let bytes = sealed(&key, &header, form, &payload);
        let (opened, offset) = open_segment(&key, &header, form, Buffer::copy_of(&bytes)).unwrap();
        assert_eq!((opened.bytes(), offset), (&payload[..], header.file_offset));

        // Header and payload are under the seal; the zeros that fill up the last block are not.
        let body = if form == Form::Inline { 256 } else { BLOCK_BYTES };
        let at = at % (256 + payload.len());
        let at = if at < 256 { at } else { at - 256 + body };
        let mut changed = bytes.clone();
        changed[at] ^= change;
        assert!(open_segment(&key, &header, form, Buffer::copy_of(&changed)).is_none(), "byte {at}");
        assert!(open_segment(&XaesKey::new(&[5; 32]), &header, form, Buffer::copy_of(&bytes)).is_none());
    }

    #[test]
    fn a_segment_opens_only_as_the_one_it_is(
        header in any_value::<SegmentHeader>(),
        other in any_value::<SegmentHeader>(),
    ) {
        let key = XaesKey::new(&[4; 32]);
        let header = expected(header, 5);
        let other = SegmentHeader {
            nonce: header.nonce,
            file_offset: header.file_offset,
            ..expected(other, 5)
        };
        prop_assume!(header != other);
        let bytes = sealed(&key, &header, Form::Inline, b"five!");
        assert!(open_segment(&key, &other, Form::Inline, Buffer::copy_of(&bytes)).is_none());
    }

    #[test]
    fn no_bytes_make_it_panic(
        header in any_value::<SegmentHeader>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..9000),
    ) {
        let key = XaesKey::new(&[4; 32]);
        for form in [Form::Inline, Form::Full] {
            assert!(open_segment(&key, &header, form, Buffer::copy_of(&bytes)).is_none());
        }
        assert!(open_in_table(&key, &header, &bytes).is_none());
    }

    #[test]
    fn a_message_in_the_table_opens_as_it_was_sealed(
        header in any_value::<SegmentHeader>(),
        payload in proptest::collection::vec(any::<u8>(), 1..600),
        at in any::<usize>(),
        change in 1u8..,
    ) {
        let key = XaesKey::new(&[4; 32]);
        let header = expected(header, payload.len());
        let mut bytes = sealed(&key, &header, Form::InTable, &payload);
        assert_eq!(bytes.len(), 40 + payload.len());
        assert_eq!(open_in_table(&key, &header, &bytes).unwrap().bytes(), payload);
        let at = at % bytes.len();
        bytes[at] ^= change;
        assert!(open_in_table(&key, &header, &bytes).is_none(), "byte {at}");
    }
}

/// The codec is taken as stored; what this version cannot decompress is not handed out as if it were plain.
#[test]
fn a_codec_that_is_not_known_does_not_open() {
    let key = XaesKey::new(&[4; 32]);
    let header = expected(SegmentHeader::sample(&mut support::Counted::new()), 11);
    for form in [Form::Inline, Form::Full] {
        for codec in [0, 1, 255] {
            let bytes = sealed(&key, &SegmentHeader { codec, ..header.clone() }, form, b"eleven byte");
            let opened = open_segment(&key, &header, form, Buffer::copy_of(&bytes));
            assert_eq!(opened.is_some(), codec == 0, "{form:?}, codec {codec}");
        }
    }
}

/// What stands in the seal of the expected header does not count: it is the seal of the bytes that is looked at.
#[test]
fn the_expected_header_needs_no_seal() {
    let key = XaesKey::new(&[4; 32]);
    let header = expected(SegmentHeader::sample(&mut support::Counted::new()), 11);
    let bytes = sealed(&key, &header, Form::Inline, b"eleven byte");
    let with_seal = SegmentHeader { seal: [9; 32], ..header };
    assert_eq!(bytes, sealed(&key, &with_seal, Form::Inline, b"eleven byte"));
    assert!(open_segment(&key, &with_seal, Form::Inline, Buffer::copy_of(&bytes)).is_some());
}

/// The seal has 16 bytes of tag; the others are zeros, so that a segment has one form on the disk.
#[test]
fn a_segment_with_more_in_its_seal_does_not_open() {
    let key = XaesKey::new(&[4; 32]);
    let header = expected(SegmentHeader::sample(&mut support::Counted::new()), 11);
    let mut bytes = sealed(&key, &header, Form::Inline, b"eleven byte");
    bytes[SEAL_RANGE.end - 1] = 1;
    assert!(open_segment(&key, &header, Form::Inline, Buffer::copy_of(&bytes)).is_none());
}

#[test]
fn sealed_bytes_are_golden() {
    let folder = &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let header = expected(SegmentHeader::sample(&mut support::Counted::new()), 11);
    let key = XaesKey::new(&[4; 32]);
    for (name, form) in
        [("sealed_inline", Form::Inline), ("sealed_full", Form::Full), ("sealed_in_table", Form::InTable)]
    {
        check_golden(folder, name, &sealed(&key, &header, form, b"eleven byte"));
    }
}
