//! Values of every type that stands on disk, and what holds for every record.
//!
//! [`Sample`] makes a value out of a [`Source`] of numbers: random ones for properties, counted ones for
//! golden bytes. Used by the tests of `transfer-core` too.

#![allow(dead_code, reason = "each test uses its part")]

use std::path::Path;

use proptest::prelude::{Just, Rng, Strategy};
use proptest::test_runner::TestRng;
use volume::header::{
    BLOCK_BYTES, Header, HeaderFlags, Page, RecordType, SEAL_OFFSET, parse_page, seal_page,
};
use volume::master_control_block::{MasterControlBlock, Region};
use volume::record::{Record, Rows, Text, Wire, reserved_byte};
use volume::secondary_device_table::{DeviceFlags, SecondaryDevice, SecondaryDeviceTable};

/// Where the numbers of a value come from.
pub(crate) trait Source {
    fn next(&mut self) -> u64;
}

/// Random numbers, the smallest and the largest more often than by chance.
struct Random(TestRng);

impl Source for Random {
    fn next(&mut self) -> u64 {
        match self.0.next_u32() % 8 {
            0 => 0,
            1 => u64::MAX,
            _ => self.0.next_u64(),
        }
    }
}

/// Numbers whose bytes all differ from those around them.
pub(crate) struct Counted(u8);

impl Counted {
    pub(crate) fn new() -> Self {
        Self(0)
    }
}

impl Source for Counted {
    fn next(&mut self) -> u64 {
        let bytes = std::array::from_fn(|_| {
            self.0 = self.0 % 251 + 1;
            self.0
        });
        u64::from_le_bytes(bytes)
    }
}

/// A type with values to test with.
pub(crate) trait Sample: Sized {
    fn sample(source: &mut dyn Source) -> Self;
}

/// Any value of `T`.
pub(crate) fn any_value<T: Sample + std::fmt::Debug>() -> impl Strategy<Value = T> {
    Just(()).prop_perturb(|(), rng| T::sample(&mut Random(rng)))
}

macro_rules! sample_integer {
    ($($type:ty),*) => {$(
        impl Sample for $type {
            #[allow(clippy::cast_possible_truncation, reason = "any bits will do")]
            fn sample(source: &mut dyn Source) -> Self {
                source.next() as $type
            }
        }
    )*};
}
sample_integer!(u8, u16, u32, u64);

impl<const N: usize> Sample for [u8; N] {
    fn sample(source: &mut dyn Source) -> Self {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&source.next().to_le_bytes()[..chunk.len()]);
        }
        bytes
    }
}

impl<const N: usize> Sample for Text<N> {
    fn sample(source: &mut dyn Source) -> Self {
        const SIGNS: [char; 8] = ['a', 'Z', '-', '/', 'ü', '数', '\n', '\u{202e}'];
        let length = pick(source, N);
        let mut text = String::new();
        while let Some(sign) = SIGNS.get(pick(source, SIGNS.len()))
            && text.len() + sign.len_utf8() <= length
        {
            text.push(*sign);
        }
        Self::new(&text).expect("short enough, and without NUL")
    }
}

impl<T: Sample + Wire, const N: usize> Sample for Rows<T, N> {
    /// Rows that end with one that is not all zeros: others do not exist.
    fn sample(source: &mut dyn Source) -> Self {
        let mut rows: Vec<T> = (0..pick(source, N + 1)).map(|_| T::sample(source)).collect();
        let is_zero = |row: &T| {
            let mut bytes = vec![0; T::SIZE];
            row.put(&mut bytes);
            bytes.iter().all(|byte| *byte == 0)
        };
        while rows.last().is_some_and(is_zero) {
            rows.pop();
        }
        Self::new(rows).expect("at most N")
    }
}

/// A number below `below`.
pub(crate) fn pick(source: &mut dyn Source, below: usize) -> usize {
    usize::try_from(source.next() % below as u64).expect("below a usize")
}

/// Values of enumerations and flags.
#[macro_export]
macro_rules! sample_enum {
    ($($type:ty),*) => {$(
        impl Sample for $type {
            fn sample(source: &mut dyn Source) -> Self {
                Self::ALL[$crate::support::pick(source, Self::ALL.len())]
            }
        }
    )*};
}

/// Values of flag words.
#[macro_export]
macro_rules! sample_flags {
    ($($type:ty),*) => {$(
        impl Sample for $type {
            #[allow(clippy::cast_possible_truncation, reason = "any bits will do")]
            fn sample(source: &mut dyn Source) -> Self {
                Self::from_bits_truncate(source.next() as _)
            }
        }
    )*};
}

/// Values of a record, field by field.
#[macro_export]
macro_rules! sample_record {
    ($($type:ident { $($field:ident),* $(,)? })*) => {$(
        impl Sample for $type {
            fn sample(source: &mut dyn Source) -> Self {
                Self { $($field: Sample::sample(source),)* }
            }
        }
    )*};
}

sample_enum!(RecordType);
sample_flags!(HeaderFlags, DeviceFlags);
sample_record! {
    Header {
        magic, record_type, major, length, volume_id, owner, index, device, flags, own_block, incarnation,
        version, incarnation_nonce_low,
    }
    Region { start, blocks }
    MasterControlBlock {
        blk5_id, volume_id, owner, index, device, own_block, version, blk5_dev_id, blk5_seg_size,
        blk5_version, blk5_secondary_device_entrynum, blk5_time_id, blk5_tot_seg_num,
        blk5_process_id_table_ptr, blk5_start_process_segment_ptr, blk5_mast_sec_start_ptr,
        blk5_mast_sec_start_segment_ptr, blk5_max_connections, blk5_ptr_seg_per_process, blk5_maxptr,
        blk5_unix_filename, lanes, connections, seg_max, feature_bits, regions, timers, device_table_hash,
        admin_public_key, admin_signature,
    }
    SecondaryDevice {
        sec_dev_id, sec_str_seg_ptr, sec_seg_number_for_device, sec_start_segment_number, device_size,
        device_index, flags,
    }
    SecondaryDeviceTable { header, rows, row_count }
}

/// The bytes of a record.
pub(crate) fn bytes_of<R: Record>(record: &R) -> Vec<u8> {
    let mut bytes = vec![0xAA; R::SIZE];
    record.emit(&mut bytes);
    bytes
}

/// `parse` gives back what `emit` wrote; reserved bytes are zeros and must be; the byte map is whole.
pub(crate) fn check_round_trip<R: Record + PartialEq + std::fmt::Debug>(record: &R) {
    let bytes = bytes_of(record);
    assert_eq!(R::parse(&bytes).as_ref(), Ok(record));
    assert_eq!(reserved_byte(R::FIELDS, &bytes), None);
    assert!(R::parse(&bytes[..R::SIZE - 1]).is_err());
    let shown = record.show_fields();
    assert!(shown.iter().map(|(field, _)| field).eq(R::FIELDS));
    let in_a_field =
        |at: usize| R::FIELDS.iter().any(|field| (field.offset..field.offset + field.size).contains(&at));
    for at in (0..R::SIZE).filter(|at| !in_a_field(*at)) {
        let mut damaged = bytes.clone();
        damaged[at] = 1;
        assert!(R::parse(&damaged).is_err(), "{} byte {at} is not in the map", R::NAME);
    }
}

/// Whatever the bytes are, they are a record or an error; what is a record is that record.
pub(crate) fn check_any_bytes<R: Record + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(record) = R::parse(bytes) {
        assert_eq!(record.show_fields().len(), R::FIELDS.len());
        assert_eq!(bytes_of(&record), bytes[..R::SIZE], "{}", R::NAME);
    }
    let Ok(page) = <&Page>::try_from(bytes) else { return };
    let mut page = *page;
    let _ = parse_page::<R>(&page, None);
    let _ = parse_page::<R>(&page, Some(&[7; 32]));
    seal_page(&mut page, None);
    assert_eq!(parse_page::<R>(&page, None).is_ok(), R::parse(&page).is_ok());
}

/// A sealed record that had one byte changed does not open; nor does it open with another key.
pub(crate) fn check_flipped_byte<R: Record>(record: &R, at: usize, change: u8) {
    for key in [None, Some(&[7; 32])] {
        let mut page = volume::header::emit_page(record, key);
        assert!(parse_page::<R>(&page[..], key).is_ok());
        assert!(parse_page::<R>(&page[..], Some(&[8; 32])).is_err());
        page[at % BLOCK_BYTES] ^= change.max(1);
        assert!(parse_page::<R>(&page[..], key).is_err());
    }
    const { assert!(SEAL_OFFSET + 32 == BLOCK_BYTES) };
}

/// 4,096 bytes: noise, or a record with some bytes changed, so that more than the first check is met.
pub(crate) fn noisy_page<R: Sample + Record + std::fmt::Debug>() -> impl Strategy<Value = Vec<u8>> {
    (any_value::<R>(), 0usize..6).prop_perturb(|(record, changes), mut rng| {
        let mut page = vec![0; BLOCK_BYTES];
        if changes == 5 {
            rng.fill_bytes(&mut page);
            return page;
        }
        record.emit(&mut page);
        for _ in 0..changes {
            let at = usize::try_from(rng.next_u32()).expect("32 bits") % R::SIZE;
            page[at] = rng.next_u32().to_le_bytes()[0];
        }
        page
    })
}

/// Properties of every record of a list.
#[macro_export]
macro_rules! record_properties {
    ($($name:ident: $type:ty,)*) => {$(
        mod $name {
            use super::*;
            use proptest::prelude::{ProptestConfig, proptest};

            proptest! {
                #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

                #[test]
                fn parse_is_the_inverse_of_emit(record in support::any_value::<$type>()) {
                    support::check_round_trip(&record);
                }

                #[test]
                fn no_bytes_make_it_panic(page in support::noisy_page::<$type>(), cut in 0usize..4097) {
                    support::check_any_bytes::<$type>(&page);
                    support::check_any_bytes::<$type>(&page[..cut]);
                }
            }
        }
    )*};
}

/// The same for records with a seal: one changed byte, and it does not open.
#[macro_export]
macro_rules! sealed_record_properties {
    ($($name:ident: $type:ty,)*) => {
        mod sealed {
            use super::*;
            use proptest::prelude::{ProptestConfig, any, proptest};

            proptest! {
                #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
                $(
                    #[test]
                    fn $name(record in support::any_value::<$type>(), at in 0usize..4096, change in any::<u8>()) {
                        support::check_flipped_byte(&record, at, change);
                    }
                )*
            }
        }
    };
}

/// Compares `bytes` with the golden file, which UPDATE_GOLDEN=1 writes anew.
pub(crate) fn check_golden(folder: &Path, name: &str, bytes: &[u8]) {
    let file = folder.join(format!("{name}.hex"));
    let mut text = String::new();
    for line in bytes.chunks(32) {
        text.push_str(&volume::open::hex(line));
        text.push('\n');
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &text).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    let at = golden.lines().zip(text.lines()).position(|(golden, now)| golden != now);
    assert!(
        golden == text,
        "{name}: the bytes on disk have changed, first from byte {:?} on. Volumes that exist become \
         unreadable: raise the version, then UPDATE_GOLDEN=1",
        at.map(|line| 32 * line),
    );
}

/// Compares one counted value of a record with its golden bytes, which must give that value back.
pub(crate) fn check_golden_record<R>(folder: &Path, name: &str)
where
    R: Sample + Record + PartialEq + std::fmt::Debug,
{
    let record = R::sample(&mut Counted::new());
    let bytes = bytes_of(&record);
    check_golden(folder, name, &bytes);
    check_shown(folder, name, &record);
    assert_eq!(R::parse(&bytes), Ok(record));
}

/// Compares what `volume inspect` shows of a record with the golden text, which UPDATE_GOLDEN=1 writes anew.
fn check_shown<R: Record>(folder: &Path, name: &str, record: &R) {
    let file = folder.join(format!("{name}.shown"));
    let fields = record.show_fields();
    let text: String = fields.iter().map(|(field, shown)| format!("{}: {shown}\n", field.name)).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &text).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, golden, "{name} is shown otherwise than before; if that is right: UPDATE_GOLDEN=1");
}
