//! What holds for every record, whatever its bytes: the checks that all record targets share.
//!
//! * a record that parses emits the same bytes again, and shows itself without control characters;
//! * a page opens only under the key that sealed it, and a changed page does not open;
//! * a header that passes `check` names the place that was expected.
//!
//! Not here: what the fields of one record mean.

use std::fmt::Debug;

use volume::header::{HEADER_BYTES, Header, Page, Place, RecordType, parse_page, seal_page};
use volume::record::Record;

use super::input::Input;

/// A key that nobody uses.
const FOREIGN_KEY: [u8; 32] = [0xEE; 32];

/// How an input wants its record made: bits of its first byte.
#[derive(Clone, Copy, Debug)]
pub struct Mode(pub u8);

impl Mode {
    /// Seal again behind the changes.
    #[must_use]
    pub fn reseal(self) -> bool {
        self.0 & 1 != 0
    }
    /// Sign or authenticate again behind the changes.
    #[must_use]
    pub fn resign(self) -> bool {
        self.0 & 2 != 0
    }
    /// Take the input itself for the record, not for changes.
    #[must_use]
    pub fn raw(self) -> bool {
        self.0 & 4 != 0
    }
    /// Print it too.
    #[must_use]
    pub fn show(self) -> bool {
        self.0 & 8 != 0
    }
    /// The upper bits: which sample.
    #[must_use]
    pub fn variant(self) -> usize {
        usize::from(self.0 >> 4)
    }
}

/// Parses; what parses must emit the same bytes.
///
/// # Panics
/// If the record breaks a promise.
pub fn check_record<R: Record + PartialEq + Debug>(bytes: &[u8], show: bool) -> Option<R> {
    let record = R::parse(bytes).ok()?;
    let mut again = vec![0xA5; R::SIZE];
    record.emit(&mut again);
    assert_eq!(again, bytes[..R::SIZE], "{} emits what it was parsed from", R::NAME);
    if show {
        for (field, text) in record.show_fields() {
            let clean = |character: char| character == '\n' || !character.is_control();
            assert!(text.chars().all(clean), "{}.{} shows a control character", R::NAME, field.name);
        }
    }
    Some(record)
}

/// Fills `page` as the input says: changes to what is there, or other bytes altogether.
pub fn shape<R: Record>(input: &mut Input<'_>, mode: Mode, page: &mut Page) {
    if mode.raw() {
        let bytes = input.rest();
        let length = bytes.len().min(page.len());
        page[..length].copy_from_slice(&bytes[..length]);
    } else {
        input.patch(page, R::FIELDS);
    }
}

/// Opens `page`, which was made from `sound`; `resealed` says that the right key sealed it behind the change.
///
/// # Panics
/// If the page breaks a promise.
pub fn check_page<R: Record + PartialEq + Debug>(
    page: &Page,
    sound: &Page,
    key: Option<&[u8; 32]>,
    mode: Mode,
) -> Option<R> {
    let opened = parse_page::<R>(page, key);
    if !mode.reseal() {
        assert!(opened.is_err() || page == sound, "{}: a changed page opened", R::NAME);
    }
    let record = opened.ok()?;
    if mode.show() {
        assert!(parse_page::<R>(page, Some(&FOREIGN_KEY)).is_err(), "{}: opened under any key", R::NAME);
    }
    let again = check_record::<R>(page, mode.show());
    assert_eq!(again.as_ref(), Some(&record));
    Some(record)
}

/// The whole run of a record target: shape, seal, open, and hold the header against `place`.
///
/// # Panics
/// If the record breaks a promise.
pub fn run_record<R: Record + PartialEq + Debug>(
    input: &mut Input<'_>,
    mode: Mode,
    sound: &Page,
    key: Option<&[u8; 32]>,
    expected: (RecordType, Place),
) -> Option<R> {
    let mut page = *sound;
    shape::<R>(input, mode, &mut page);
    if mode.reseal() {
        seal_page(&mut page, key);
    }
    let record = check_page::<R>(&page, sound, key, mode)?;
    let header = Header::parse(&page[..HEADER_BYTES]).expect("the record holds one");
    check_header::<R>(&header, expected);
    Some(record)
}

fn check_header<R: Record>(header: &Header, (record_type, place): (RecordType, Place)) {
    if header.check::<R>(record_type, place).is_ok() {
        let found = Place {
            volume_id: header.volume_id,
            owner: header.owner,
            index: header.index,
            device: header.device,
            block: header.own_block,
        };
        assert_eq!((header.record_type, found), (record_type, place));
    }
}

/// Inputs to begin with: each mode alone, and each field with a few values, sealed again.
#[must_use]
pub fn record_seeds<R: Record>() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = (0..16).map(|mode| vec![mode]).collect();
    for index in 0..R::FIELDS.len().min(40) {
        let index = u8::try_from(index).expect("at most 40");
        seeds.push(vec![0x0B, 4, index, 15]);
        seeds.push(vec![0x0B, 5, index, 1]);
    }
    seeds
}
