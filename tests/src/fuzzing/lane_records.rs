//! The records of a lane that is alive: beacon, bell, incarnation record, in-directory, A/B pairs.
//!
//! What holds: a record that its owner takes for its own carries the owner's MAC; a reader of a pair takes
//! exactly the newest valid half and never goes back; a writer of a pair has one write in flight. Not here:
//! what follows from a record (`hostile_disk`).

use std::sync::OnceLock;
use std::time::Duration;

use storage_mapping::{Buffer, Instant};
use transfer_core::format::beacon::{Beacon, Bell};
use transfer_core::format::control_area::{InDirectory, IncarnationRecord};
use transfer_core::format::process_id_table::ProcessIdEntry;
use transfer_core::protocol::pair::{DOUBT, PairRead, PairReader, PairWriter};
use volume::header::{
    Edition, HEADER_BYTES, Header, Page, Place, RecordType, emit_page, parse_page, seal_page,
};
use volume::record::Record;

use super::input::Input;
use super::record::{Mode, check_record, record_seeds, run_record, shape};
use super::sample::{EDITION, Sound, sample};

/// Beacon or incarnation record: hints to everybody, and to the owner only with its MAC.
///
/// # Panics
/// If a promise is broken.
pub fn beacon(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mode = Mode(input.byte());
    let sample = sample();
    let map = sample.map();
    if mode.variant() & 1 == 0 {
        static SOUND: OnceLock<Sound<Beacon>> = OnceLock::new();
        let Sound { record: sound, page } = SOUND.get_or_init(|| Sound::new(sample.beacon()));
        let expected = (RecordType::Beacon, map.beacon(0));
        let Some(found) = run_record::<Beacon>(&mut input, mode, page, None, expected) else { return };
        let mac = sample.owner_key.mac(&Beacon { owner_mac: [0; 32], ..found.clone() });
        assert!(mac != found.owner_mac || found == *sound, "a forged beacon carries the owner's MAC");
    } else {
        static SOUND: OnceLock<Sound<IncarnationRecord>> = OnceLock::new();
        let Sound { record: sound, page } = SOUND.get_or_init(|| Sound::new(sample.incarnation()));
        let expected = (RecordType::Incarnation, map.incarnation(0));
        let Some(found) = run_record::<IncarnationRecord>(&mut input, mode, page, None, expected) else {
            return;
        };
        let mac = sample.owner_key.mac(&IncarnationRecord { owner_mac: [0; 32], ..found.clone() });
        assert!(mac != found.owner_mac || found == *sound, "a forged record carries the owner's MAC");
    }
}

/// Bell: no seal, no meaning, no panic.
///
/// # Panics
/// If a promise is broken.
pub fn bell(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mode = Mode(input.byte());
    let sample = sample();
    let mut page = emit_page(&sample.bell(), None);
    shape::<Bell>(&mut input, mode, &mut page);
    let Some(bell) = check_record::<Bell>(&page[..], mode.show()) else { return };
    let _ = bell.header.check::<Bell>(RecordType::Bell, sample.map().bell(0));
}

/// Control area: the in-directory, sealed for everybody.
///
/// # Panics
/// If a promise is broken.
pub fn control_area(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mode = Mode(input.byte());
    let sample = sample();
    static SOUND: OnceLock<Sound<InDirectory>> = OnceLock::new();
    let Sound { record: sound, page } = SOUND.get_or_init(|| Sound::new(sample.in_directory()));
    let expected = (RecordType::InDirectory, sample.map().in_directory(0));
    let Some(found) = run_record::<InDirectory>(&mut input, mode, page, None, expected) else { return };
    assert!(found.in_directory.len() <= 256);
    let mac = sample.owner_key.mac(&InDirectory { owner_mac: [0; 32], ..found.clone() });
    assert!(mac != found.owner_mac || found == *sound, "a forged in-directory carries the owner's MAC");
}

/// A/B pairs: reading against a model, and writing with lost and failed writes.
///
/// # Panics
/// If a promise is broken.
pub fn pair(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    if input.byte() & 1 == 0 {
        read_pairs(&mut input);
    } else {
        write_pair(&mut input);
    }
}

fn read_pairs(input: &mut Input<'_>) {
    let sample = sample();
    let place = sample.map().process_id_entry(0);
    let key = Some(sample.keys.page);
    let mut reader = PairReader::default();
    let mut accepted = None;
    for _ in 0..4 {
        let halves = [half(input, place, 0, key.as_ref()), half(input, place, 1, key.as_ref())];
        let bytes = halves.concat();
        let expected = model(&halves, place, key.as_ref(), accepted);
        match reader.read::<ProcessIdEntry>(RecordType::ProcessIdEntry, place, &bytes, key.as_ref()) {
            PairRead::New(record) => {
                let edition = (record.header.incarnation, record.header.version);
                assert_eq!(Ok(Some(edition)), expected, "the newest valid half");
                assert!(accepted.is_none_or(|last| edition > last), "a reader goes back");
                accepted = Some(edition);
                assert_eq!(reader.version(), edition.1);
            }
            PairRead::Same => assert_eq!(expected, Ok(None)),
            PairRead::Invalid => assert_eq!(expected, Err(())),
        }
    }
}

/// One half: nothing, a record of some edition there or beside it, or bytes.
fn half(input: &mut Input<'_>, place: Place, number: u64, key: Option<&[u8; 32]>) -> Page {
    let choice = input.byte();
    if choice & 3 == 0 {
        return [0; 4096];
    }
    let mut record = sample().process_id_entry();
    let version = u64::from(choice >> 4);
    let edition =
        Edition { version, incarnation: EDITION.incarnation + u64::from(choice >> 3 & 1), ..EDITION };
    let block = place.block + number;
    record.header =
        Header::new::<ProcessIdEntry>(RecordType::ProcessIdEntry, Place { block, ..place }, edition);
    let mut page = *emit_page(&record, key);
    if choice & 3 == 1 {
        return page;
    }
    let count = usize::from(input.byte() % 24);
    Input::new(input.take(count)).patch(&mut page, Header::FIELDS);
    if choice & 4 != 0 {
        seal_page(&mut page, key);
    }
    page
}

type Outcome = Result<Option<(u64, u64)>, ()>;

/// What a reader must give: written for being read, not for speed.
fn model(halves: &[Page; 2], place: Place, key: Option<&[u8; 32]>, accepted: Option<(u64, u64)>) -> Outcome {
    let mut valid = Vec::new();
    let mut claims = Vec::new();
    for (number, page) in (0..).zip(halves) {
        let Ok(header) = Header::parse(&page[..HEADER_BYTES]) else { continue };
        let edition = (header.incarnation, header.version);
        if accepted.is_some_and(|last| edition <= last) {
            continue;
        }
        claims.push(edition);
        let place = Place { block: place.block + number, ..place };
        let opens = parse_page::<ProcessIdEntry>(page, key).is_ok()
            && header.version % 2 == number
            && header.check::<ProcessIdEntry>(RecordType::ProcessIdEntry, place).is_ok();
        if opens {
            valid.push(edition);
        }
    }
    match valid.into_iter().max() {
        Some(edition) => Ok(Some(edition)),
        None if claims.is_empty() => Ok(None),
        None => Err(()),
    }
}

fn write_pair(input: &mut Input<'_>) {
    let place = sample().map().pointer_table(0);
    let mut writer = PairWriter::new(place);
    let mut now = Instant(1);
    let (mut version, mut done) = (0, 0);
    // Of the versions in flight, when the last began.
    let mut since = None;
    while !input.is_empty() {
        match input.byte() % 5 {
            0 if writer.is_ready(now) => {
                assert!(since.is_none_or(|since| now.since(since) >= DOUBT), "two writes in flight");
                let write = writer.write(now, |_, _| Buffer::zeroed(4096));
                version += 1;
                since = Some(now);
                assert_eq!((write.version, write.place.block), (version, place.block + version % 2));
            }
            0 => assert!(!writer.is_idle()),
            1 | 2 => {
                let about = version.saturating_sub(u64::from(input.byte() % 3));
                let success = input.byte() & 1 == 0;
                let latest = writer.handle_written(now, about, success);
                assert!(!latest || about == version && success);
                if latest {
                    assert!(version > done, "a version is written once");
                    done = version;
                    since = None;
                }
            }
            3 => now = now + Duration::from_millis(input.number() % 40_000),
            _ => {
                if let Some(again) = writer.poll_retry(now) {
                    assert_eq!((again.version, again.place.block), (version, place.block + version % 2));
                    assert!(since.is_some(), "only what is in flight is repeated");
                }
            }
        }
        assert_eq!((writer.version(), writer.is_idle()), (version, since.is_none()));
        assert!(writer.next_wakeup().is_none() || since.is_some());
        assert_eq!(writer.doubt_at(), since.map(|since| since + DOUBT));
    }
}

/// Inputs to begin with.
#[must_use]
pub fn beacon_seeds() -> Vec<Vec<u8>> {
    let mut seeds = record_seeds::<Beacon>();
    let others = record_seeds::<IncarnationRecord>();
    seeds.extend(others.into_iter().map(|mut seed| {
        seed[0] |= 0x10;
        seed
    }));
    seeds
}

/// Inputs to begin with.
#[must_use]
pub fn bell_seeds() -> Vec<Vec<u8>> {
    record_seeds::<Bell>()
}

/// Inputs to begin with.
#[must_use]
pub fn control_area_seeds() -> Vec<Vec<u8>> {
    record_seeds::<InDirectory>()
}

/// Inputs to begin with.
#[must_use]
pub fn pair_seeds() -> Vec<Vec<u8>> {
    vec![
        vec![],
        vec![0, 0x41, 0x51, 0x61, 0x51, 0x61, 0x71, 0x69, 0x71],
        vec![0, 0x46, 3, 4, 4, 1, 0x56, 0, 0x61, 0x50],
        vec![1, 0, 1, 0, 0, 0, 1, 0, 1, 3, 0xE5, 60, 0, 4],
        vec![1, 0, 3, 0xE0, 48, 117, 0, 1, 1, 0, 1, 0, 0],
    ]
}
