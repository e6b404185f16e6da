//! The tables against `reference.txt`, which was written apart from them; then the special cases, one
//! by one, and every value that a hostile device may send.

use std::collections::BTreeSet;

use nix::errno::Errno;
use proptest::prelude::*;
use storage_mapping::{CopyFate, Effect, ErrorSource, IoError};

use super::*;

const REFERENCE: &str = include_str!("reference.txt");
const KINDS: [IoKind; 3] = [IoKind::Read, IoKind::Write, IoKind::Flush];

fn facts(kind: IoKind) -> RequestFacts {
    RequestFacts { kind, sent: Sent::Yes, address_checked: false }
}

fn read(source: ErrorSource) -> Classified {
    classify(&source.into(), &facts(IoKind::Read))
}

fn write(source: ErrorSource) -> Classified {
    classify(&source.into(), &facts(IoKind::Write))
}

fn errno(code: Errno) -> ErrorSource {
    ErrorSource::Errno(code as i32)
}

fn sense(key: u8, asc: u8, ascq: u8) -> ErrorSource {
    ErrorSource::Scsi { status: 2, host_status: 0, key, asc, ascq, deferred: false }
}

fn status(status: u8) -> ErrorSource {
    ErrorSource::Scsi { status, host_status: 0, key: 0, asc: 0, ascq: 0, deferred: false }
}

fn host(host_status: u8) -> ErrorSource {
    ErrorSource::Scsi { status: 0, host_status, key: 0, asc: 0, ascq: 0, deferred: false }
}

fn deferred(key: u8) -> ErrorSource {
    ErrorSource::Scsi { status: 2, host_status: 0, key, asc: 3, ascq: 1, deferred: true }
}

fn nvme(sct: u8, sc: u8) -> ErrorSource {
    ErrorSource::Nvme { sct, sc, dnr: false, crd: 0 }
}

/// The error of a code in the reference; an `xx` becomes `any`.
fn source_of(code: &str, any: u8) -> ErrorSource {
    let (origin, value) = code.split_once(' ').expect("origin and value");
    let hex = |digits: &str| if digits == "xx" { any } else { u8::from_str_radix(digits, 16).unwrap() };
    let parts: Vec<_> = value.split('/').collect();
    match (origin, &parts[..]) {
        ("errno", [name]) => {
            let known = (1..200).map(Errno::from_raw).find(|code| format!("{code:?}") == *name);
            errno(known.unwrap_or_else(|| panic!("{name}: no such errno")))
        }
        ("nbd", [number]) => ErrorSource::Nbd(number.parse().unwrap()),
        ("status", [byte]) => status(hex(byte)),
        ("host", [byte]) => host(hex(byte)),
        ("deferred", [key]) => deferred(hex(key)),
        ("sense", [key, asc, ascq]) => sense(hex(key), hex(asc), hex(ascq)),
        ("nvme", [sct, sc]) => nvme(hex(sct), hex(sc)),
        _ => panic!("{code}: not understood"),
    }
}

fn shown(classified: &Classified) -> String {
    let effect = match classified.effect {
        Effect::None => "none",
        Effect::Full => "full",
        Effect::Unknown => "unknown",
    };
    let copy = if classified.copy == CopyFate::Dead { "dead" } else { "may-land" };
    let path = format!("{:?}", classified.path).to_lowercase();
    format!("{:?} | {effect} {copy} | {path}", classified.class)
}

fn reference() -> impl Iterator<Item = (&'static str, String)> {
    let lines = REFERENCE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| {
        let (code, rest) = line.split_once('|').expect("columns");
        let columns: Vec<_> =
            rest.split('|').map(|c| c.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        (code.trim(), columns.join(" | "))
    })
}

/// A value that no row of the reference names in any place of a code.
const UNNAMED: u8 = 0xee;

#[test]
fn every_row_of_the_reference_is_in_the_tables() {
    let mut texts = BTreeSet::new();
    for (code, expected) in reference() {
        let source = source_of(code, UNNAMED);
        let (read, write) = (read(source), write(source));
        let action = |classified: &Classified| format!("{:?}", classified.request).to_lowercase();
        let found = format!("{} | {} | {}", shown(&write), action(&read), action(&write));
        assert_eq!(found, expected, "{code}");
        assert!(
            texts.insert((code.split(' ').next(), write.text)),
            "{code}: its row is also that of another"
        );
    }
    // And the other way: no row that the text does not name.
    let rows = errno::ROWS.len()
        + nbd::ROWS.len()
        + nvme::ROWS.len()
        + scsi::STATUS_ROWS.len()
        + scsi::SENSE_ROWS.len()
        + scsi::DEFERRED_ROWS.len()
        + scsi::HOST_ROWS.len();
    assert_eq!(texts.len(), rows);
}

#[test]
fn no_two_rows_are_for_the_same_code_and_the_narrower_comes_first() {
    let codes: BTreeSet<_> = errno::ROWS.iter().map(|(code, _)| *code as i32).collect();
    assert_eq!(codes.len(), errno::ROWS.len());
    let codes: BTreeSet<_> = nbd::ROWS.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes.len(), nbd::ROWS.len());
    for rows in [scsi::STATUS_ROWS, scsi::HOST_ROWS] {
        let codes: BTreeSet<_> = rows.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes.len(), rows.len());
    }
    for rows in [scsi::SENSE_ROWS, scsi::DEFERRED_ROWS] {
        for (index, (first, _)) in rows.iter().enumerate() {
            for (second, _) in &rows[index + 1..] {
                let meet = |a: Option<u8>, b: Option<u8>| a.is_none() || b.is_none() || a == b;
                let overlap =
                    first.key == second.key && meet(first.asc, second.asc) && meet(first.ascq, second.ascq);
                let narrower = |a: Option<u8>, b: Option<u8>| b.is_none() || a == b;
                let inside = narrower(first.asc, second.asc) && narrower(first.ascq, second.ascq);
                assert!(!overlap || (inside && first != second), "{first:?} and {second:?}");
            }
        }
    }
    for (index, (first, _)) in nvme::ROWS.iter().enumerate() {
        for (second, _) in &nvme::ROWS[index + 1..] {
            let overlap = first.sct == second.sct
                && (first.sc == second.sc || first.sc.is_none() || second.sc.is_none());
            assert!(!overlap || (first.sc.is_some() && second.sc.is_none()), "{first:?} and {second:?}");
        }
    }
}

/// What holds for every reading.
fn check(source: ErrorSource, facts: &RequestFacts) {
    let found = classify(&source.into(), facts);
    let context = || format!("{source:?}, {facts:?}: {found:?}");
    assert!(!found.text.is_empty(), "{}", context());
    let unsent = facts.sent == Sent::No || source == ErrorSource::ConnectionLost { sent: false };
    assert_eq!(found.effect == Effect::None, unsent, "{}", context());
    assert!(found.copy == CopyFate::Dead || facts.kind == IoKind::Write, "{}", context());
    assert!(found.effect != Effect::Full || found.copy == CopyFate::Dead, "{}", context());
    let of_the_request =
        matches!(found.class, ErrorClass::Caller | ErrorClass::Target | ErrorClass::Reservation);
    assert!(!of_the_request || found.path == PathAction::Nothing, "{}", context());
    assert_eq!(found.request == RequestAction::Done, found.class == ErrorClass::Success, "{}", context());
    let waits = found.class == ErrorClass::Busy && found.request == RequestAction::Later;
    assert!(found.delay.is_zero() || waits, "{}", context());
}

fn every_facts() -> impl Iterator<Item = RequestFacts> {
    KINDS.into_iter().flat_map(|kind| {
        [(Sent::No, false), (Sent::No, true), (Sent::Yes, false), (Sent::Yes, true)]
            .map(|(sent, address_checked)| RequestFacts { kind, sent, address_checked })
    })
}

#[test]
fn every_sense_status_and_host_status_has_a_reading() {
    let write = facts(IoKind::Write);
    // Keys have four bits; those above are what a hostile device may send.
    for key in (0..=16).chain([UNNAMED, 255]) {
        for asc in 0..=255 {
            for ascq in 0..=255 {
                check(sense(key, asc, ascq), &write);
            }
        }
    }
    for facts in every_facts() {
        for byte in 0..=255 {
            for deferred in [false, true] {
                let (key, asc, ascq) = (byte % 16, 0, 0);
                for (status, host_status) in [(byte, 0), (2, byte), (byte, byte), (2, 0)] {
                    check(ErrorSource::Scsi { status, host_status, key, asc, ascq, deferred }, &facts);
                }
            }
        }
    }
}

#[test]
fn every_nvme_status_errno_and_nbd_error_has_a_reading() {
    for facts in every_facts() {
        for sct in (0..=8).chain([255]) {
            for sc in 0..=255 {
                for dnr in [false, true] {
                    for crd in [0, 1, 3, 255] {
                        check(ErrorSource::Nvme { sct, sc, dnr, crd }, &facts);
                    }
                }
            }
        }
        for code in (-300..5000).chain([i32::MIN, i32::MAX]) {
            check(ErrorSource::Errno(code), &facts);
            check(ErrorSource::Nbd(code.unsigned_abs()), &facts);
        }
        check(ErrorSource::Nbd(u32::MAX), &facts);
        for other in [ErrorSource::Deadline, ErrorSource::NoPath] {
            check(other, &facts);
        }
        for sent in [false, true] {
            check(ErrorSource::ConnectionLost { sent }, &facts);
        }
        for (expected, done) in [(0, 0), (4096, 0), (4096, 512), (0, u32::MAX)] {
            check(ErrorSource::Short { expected, done }, &facts);
        }
    }
}

proptest! {
    #[test]
    fn no_value_panics(code: i32, nbd: u32, bytes: [u8; 5], flags: [bool; 3], kind in 0..3_usize) {
        let sent = if flags[2] { Sent::Yes } else { Sent::No };
        let facts = RequestFacts { kind: KINDS[kind], sent, address_checked: flags[1] };
        let [status, host_status, key, asc, ascq] = bytes;
        check(ErrorSource::Errno(code), &facts);
        check(ErrorSource::Nbd(nbd), &facts);
        check(ErrorSource::Scsi { status, host_status, key, asc, ascq, deferred: flags[0] }, &facts);
        check(ErrorSource::Nvme { sct: status, sc: asc, dnr: flags[0], crd: ascq }, &facts);
    }
}

#[test]
fn a_bad_request_never_fails_a_path() {
    let bad = [
        errno(Errno::EINVAL),
        errno(Errno::EOPNOTSUPP),
        errno(Errno::EFAULT),
        errno(Errno::EFBIG),
        errno(Errno::EPERM),
        sense(5, 0x20, 0),
        sense(5, 0x24, 0),
        sense(5, 0x55, 3),
        nvme(0, 1),
        nvme(0, 2),
        nvme(1, 0x80),
        ErrorSource::Nbd(22),
        ErrorSource::Nbd(77),
    ];
    for source in bad {
        for facts in every_facts() {
            let found = classify(&source.into(), &facts);
            assert_eq!((found.class, found.path), (ErrorClass::Caller, PathAction::Nothing), "{source:?}");
        }
        assert_eq!(ErrorClass::of(&source.into()), ErrorClass::Caller, "{source:?}");
    }
}

/// Nor proof of the opposite: that is certain only for what never left.
#[test]
fn these_answers_are_no_proof_of_execution() {
    let answers = [
        status(0x08),
        status(0x28),
        status(0x18),
        sense(6, 0x29, 0),
        sense(2, 0x04, 0x0a),
        sense(2, 0x04, 0x77),
        sense(5, 0x20, 0),
        sense(5, 0x25, 0),
        sense(5, 0x26, 0),
    ];
    for source in answers {
        let found = write(source);
        assert_eq!((found.effect, found.copy), (Effect::Unknown, CopyFate::Dead), "{source:?}");
        let refused = RequestFacts { sent: Sent::No, ..facts(IoKind::Write) };
        let found = classify(&source.into(), &refused);
        assert_eq!((found.effect, found.copy), (Effect::None, CopyFate::Dead), "{source:?}");
    }
}

/// Whether it came by time-out or by error, a write in doubt needs the fence.
#[test]
fn these_leave_a_write_that_may_land() {
    let codes = [Errno::EIO, Errno::ENOLINK, Errno::ENODEV, Errno::ENXIO, Errno::ETIMEDOUT, Errno::ETIME];
    let others = [ErrorSource::ConnectionLost { sent: true }, ErrorSource::Deadline, host(1)];
    let statuses = [nvme(3, 0), nvme(3, 0x60), nvme(3, 0x70), nvme(0, 7)];
    for source in codes.map(errno).into_iter().chain(others).chain(statuses) {
        let found = write(source);
        assert_eq!((found.effect, found.copy), (Effect::Unknown, CopyFate::MayLand), "{source:?}");
    }
    let unsent = write(ErrorSource::ConnectionLost { sent: false });
    assert_eq!((unsent.effect, unsent.copy), (Effect::None, CopyFate::Dead));
}

#[test]
fn a_deferred_sense_repeats_and_tells_of_lost_data() {
    for key in [0, 2, 3, 4, 6, 0xb] {
        let found = write(deferred(key));
        assert_eq!(found.notice, Some(Notice::AcknowledgedDataLost), "{key}");
        assert_eq!((found.request, found.path), (RequestAction::Again, PathAction::Nothing), "{key}");
        assert_ne!(found.effect, Effect::Full, "the current command was not processed");
    }
    assert_eq!(write(deferred(1)).notice, Some(Notice::Recovered), "recovered: nothing is lost");
    assert_eq!(write(sense(3, 0x0c, 0)).notice, None, "the same sense of the current command");
}

#[test]
fn further_errors_one_by_one() {
    // MEDIUM on a write goes elsewhere now, on a read it is the answer.
    for medium in [errno(Errno::ENODATA), sense(3, 0x11, 0), nvme(2, 0x80)] {
        assert_eq!(write(medium).request, RequestAction::Elsewhere);
        assert_eq!(read(medium).request, RequestAction::Answer);
    }
    // Out of range although the address was checked: the path leads elsewhere.
    let checked = RequestFacts { address_checked: true, ..facts(IoKind::Read) };
    for source in [sense(5, 0x21, 0), nvme(0, 0x0b)] {
        let found = classify(&source.into(), &checked);
        assert_eq!((found.class, found.path), (ErrorClass::Reidentify, PathAction::Reidentify));
        assert_eq!((read(source).class, read(source).path), (ErrorClass::Caller, PathAction::Nothing));
    }
    for integrity in [sense(0xb, 0x10, 1), errno(Errno::EILSEQ)] {
        assert_eq!(read(integrity).request, RequestAction::Witness);
        assert_eq!(write(integrity).request, RequestAction::Answer);
    }
    for ascq in [0x04, 0x07, 0x09, 0x14, 0x1b, 0x20] {
        assert_eq!(read(sense(2, 0x04, ascq)).class, ErrorClass::Busy, "2/04/{ascq:02x}");
    }
    assert_eq!(read(sense(6, 0x2f, 0)).notice, Some(Notice::ClearedByOther));
    assert_eq!(read(sense(6, 0x3f, 5)).path, PathAction::Reidentify);
    assert_eq!(read(nvme(0, 0x22)).class, ErrorClass::PathSuspect);
    assert_eq!((read(nvme(2, 0x85)).class, read(nvme(2, 0x85)).effect), (ErrorClass::Target, Effect::Full));
    assert_eq!(read(nvme(2, 0x86)).class, ErrorClass::Caller);
    // A read of no byte means that the size changed; a part of it, or a write, does not.
    let ended = read(ErrorSource::Short { expected: 4096, done: 0 });
    assert_eq!((ended.path, ended.notice), (PathAction::Reidentify, Some(Notice::CapacityChanged)));
    for other in [
        read(ErrorSource::Short { expected: 4096, done: 512 }),
        write(ErrorSource::Short { expected: 4096, done: 0 }),
    ] {
        assert_eq!(other.class, ErrorClass::PathSuspect);
    }
}

#[test]
fn do_not_retry_ends_the_request_and_spares_the_path() {
    for (sct, sc) in [(0, 0x04), (0, 0x21), (0, 0x22), (2, 0x80), (1, 0x80), (7, 0xc0)] {
        let found = write(ErrorSource::Nvme { sct, sc, dnr: true, crd: 2 });
        assert_eq!(
            (found.request, found.path),
            (RequestAction::Answer, PathAction::Nothing),
            "{sct}/{sc:02x}"
        );
        assert!(found.delay.is_zero());
    }
    let gone = write(ErrorSource::Nvme { sct: 3, sc: 0, dnr: true, crd: 0 });
    assert_eq!((gone.request, gone.path), (RequestAction::Answer, PathAction::Fail));
}

#[test]
fn a_retry_delay_makes_it_busy() {
    let later = read(ErrorSource::Nvme { sct: 0, sc: 0x06, dnr: false, crd: 2 });
    assert_eq!((later.class, later.request), (ErrorClass::Busy, RequestAction::Later));
    assert_eq!(later.delay, Duration::from_millis(200));
    for (sct, sc) in [(3, 0), (0, 0x83), (0, 2), (2, 0x85), (0, 0)] {
        let source = ErrorSource::Nvme { sct, sc, dnr: false, crd: 2 };
        assert_eq!(read(source), read(nvme(sct, sc)), "{sct}/{sc:02x}");
    }
}

#[test]
fn a_host_status_hides_the_status_and_its_sense() {
    let source = ErrorSource::Scsi { status: 2, host_status: 3, key: 5, asc: 0x24, ascq: 0, deferred: true };
    assert_eq!(write(source), write(host(3)));
}

#[test]
fn the_report_of_the_device_and_the_table_are_merged() {
    const NONE: Effect = Effect::None;
    const FULL: Effect = Effect::Full;
    const UNKNOWN: Effect = Effect::Unknown;
    const DEAD: CopyFate = CopyFate::Dead;
    const LAND: CopyFate = CopyFate::MayLand;
    let merged = |table: (Effect, CopyFate), device: (Effect, CopyFate)| {
        let row = Row::new(ErrorClass::Target, table.0, table.1, "a row");
        let found = row.read(&facts(IoKind::Write)).with_report(device.0, device.1);
        (found.effect, found.copy)
    };
    // The device is surer: its abort was answered, or the kernel refused the call.
    assert_eq!(merged((UNKNOWN, LAND), (UNKNOWN, DEAD)), (UNKNOWN, DEAD));
    assert_eq!(merged((UNKNOWN, LAND), (NONE, DEAD)), (NONE, DEAD));
    assert_eq!(merged((UNKNOWN, DEAD), (FULL, DEAD)), (FULL, DEAD));
    // The table is surer of the effect; a doubt about a copy stays.
    assert_eq!(merged((FULL, DEAD), (UNKNOWN, DEAD)), (FULL, DEAD));
    assert_eq!(merged((UNKNOWN, DEAD), (UNKNOWN, LAND)), (UNKNOWN, LAND));
    // They disagree, or the device contradicts itself.
    assert_eq!(merged((FULL, DEAD), (NONE, DEAD)), (UNKNOWN, DEAD));
    assert_eq!(merged((NONE, DEAD), (FULL, DEAD)), (UNKNOWN, DEAD));
    assert_eq!(merged((UNKNOWN, DEAD), (NONE, LAND)), (UNKNOWN, LAND));
    for table in [(NONE, DEAD), (FULL, DEAD), (UNKNOWN, DEAD), (UNKNOWN, LAND)] {
        for effect in [NONE, FULL, UNKNOWN] {
            for copy in [DEAD, LAND] {
                let found = merged(table, (effect, copy));
                assert_ne!(found, (NONE, LAND));
                assert!(found.1 == copy, "the device has the last word on its copies");
            }
        }
    }
}

#[test]
fn an_unsent_error_is_known_not_to_have_run() {
    let error = IoError::errno(Errno::EIO as i32);
    let unsent = RequestFacts { kind: IoKind::Write, sent: Sent::No, address_checked: true };
    let found = classify(&error, &unsent);
    assert_eq!(
        (found.class, found.effect, found.copy),
        (ErrorClass::PathSuspect, Effect::None, CopyFate::Dead)
    );
}
