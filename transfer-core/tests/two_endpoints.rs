//! Two endpoints on one memory volume, in virtual time: they connect, carry segments both ways, close.

mod endpoints;

use std::time::Duration;

use endpoints::{Fate, Process, make_pair, make_volume, run};
use storage_mapping::Instant;
use transfer_core::format::beacon::Beacon;
use transfer_core::format::map::TableMap;
use transfer_core::format::process_id_table::CloseReason;
use transfer_core::payload::{Payload, Segment, SegmentKind};
use transfer_core::protocol::endpoint::Event;
use transfer_core::protocol::startup::StartupFailure;
use volume::BLOCK_BYTES;
use volume::header::{emit_page, parse_page};

#[test]
fn two_processes_connect_carry_and_close() {
    let disks = make_volume();
    let mut now = Instant(1_000_000_000);
    let mut both = make_pair(&disks, &mut now);
    let call = both[1].endpoint.connect(now, "beta").unwrap();
    both[1].endpoint.send_command(now, call, 77, 5, b"open sesame".to_vec());
    run(&mut now, &mut both, Duration::from_secs(5), |both, _| {
        both.iter().all(|process| process.connected().is_some())
    });
    let connected_after = now.since(Instant(1_000_000_000));
    assert!(connected_after < Duration::from_secs(2), "{connected_after:?}");

    let sizes = [10usize, 3000, 60_000, 65_536, 1, 2000, 65_536, 100];
    let (mut sent, mut answered) = (0, false);
    let answerer = both[0].connected().unwrap();
    run(&mut now, &mut both, Duration::from_secs(20), |both, now| {
        while sent < 400 && both[1].endpoint.has_room(call) {
            let size = sizes[sent % sizes.len()];
            let bytes: Vec<u8> = (0..size).map(|at| u8::try_from((at + sent) % 251).unwrap()).collect();
            let kind = if size < 200 { SegmentKind::Command } else { SegmentKind::Data };
            let payload = Payload::copy_of(&both[1].buffers, &bytes);
            let segment = Segment {
                kind,
                request: 1,
                offset: if kind == SegmentKind::Data { sent as u64 } else { 0 },
                last: sent == 399,
                payload,
            };
            both[1].endpoint.send(now, call, segment);
            sent += 1;
        }
        if both[0].endpoint.has_room(answerer) && both[0].received.len() >= 100 && !answered {
            answered = true;
            let payload = Payload::copy_of(&both[0].buffers, b"back");
            let segment = Segment { kind: SegmentKind::Command, request: 9, offset: 0, last: true, payload };
            both[0].endpoint.send(now, answerer, segment);
        }
        both[0].received.len() == 400 && !both[1].received.is_empty()
    });
    for (index, (_, _, bytes)) in both[0].received.iter().enumerate() {
        assert_eq!(bytes.len(), sizes[index % sizes.len()]);
        assert!(
            bytes.iter().enumerate().all(|(at, byte)| usize::from(*byte) == (at + index) % 251),
            "segment {index}"
        );
    }
    assert!(both[0].events.iter().any(
        |event| matches!(event, Event::Command { opcode: 77, request: 5, body, .. } if body == b"open sesame")
    ));
    both[1].endpoint.close(now, call);
    run(&mut now, &mut both, Duration::from_secs(5), |both, _| {
        both.iter().all(|process| process.endpoint.connections().count() == 0)
    });
    assert_eq!(both[1].closed(), Some(CloseReason::Done));
    assert_eq!(both[0].closed(), Some(CloseReason::ClosedByPeer));
    assert_eq!(both[1].endpoint.segments().0, both[1].endpoint.segments().1, "every segment came back");
}

#[test]
fn a_stranger_is_refused() {
    let disks = make_volume();
    let mut now = Instant(1_000_000_000);
    let mut both =
        [Process::new(&disks, 2, 2, ("gamma", 7), now), Process::new(&disks, 1, 1, ("beta", 2), now)];
    run(&mut now, &mut both, Duration::from_secs(5), |both, _| {
        both.iter().all(|process| process.events.iter().any(|event| matches!(event, Event::Started)))
    });
    both[1].endpoint.connect(now, "beta").unwrap();
    run(&mut now, &mut both, Duration::from_secs(5), |both, _| both[1].closed().is_some());
    assert_eq!(both[1].closed(), Some(CloseReason::NotAllowed));
}

fn started(both: &mut [Process], _now: Instant) -> bool {
    both.iter().all(|process| process.events.iter().any(|event| matches!(event, Event::Started)))
}

/// Rule 14: a host from a copy of the same state takes the lane; the one that had it finds its beacon.
#[test]
fn a_second_process_with_the_same_past_ends_the_first() {
    let disks = make_volume();
    let mut now = Instant(1_000_000_000);
    let mut first = [Process::new(&disks, 0, 1, ("beta", 2), now)];
    run(&mut now, &mut first, Duration::from_secs(5), started);
    let past = first[0].events.iter().find_map(|event| match event {
        Event::Persist(local) => Some(local.clone()),
        _ => None,
    });
    let [first] = first;
    let second = Process::with_past(&disks, 0, (1, 99), ("beta", 2), past.unwrap(), now);
    let mut both = [first, second];
    run(&mut now, &mut both, Duration::from_secs(120), |both, _| both[0].has_stopped().is_some());
    assert_eq!(both[0].has_stopped(), Some(StartupFailure::DuplicateIdentity));
    assert_eq!(both[1].has_stopped(), None);
}

/// A beacon in our place that does not carry our MAC was written by anybody, and ends nobody.
#[test]
fn a_forged_beacon_ends_nobody() {
    let disks = make_volume();
    let mut now = Instant(1_000_000_000);
    let mut alone = [Process::new(&disks, 0, 1, ("beta", 2), now)];
    run(&mut now, &mut alone, Duration::from_secs(5), started);
    let end = now + Duration::from_secs(10);
    run(&mut now, &mut alone, Duration::from_secs(30), |_, now| now >= end);
    let layout = alone[0].volume.layout().clone();
    let place = TableMap::new(&layout).beacon(0);
    let start = usize::try_from(place.block).unwrap() * BLOCK_BYTES;
    let on_disk =
        || disks[0].with_bytes(|bytes| parse_page::<Beacon>(&bytes[start..start + BLOCK_BYTES], None));
    let mut beacon = on_disk().unwrap();
    beacon.header.incarnation += 1;
    beacon.incarnation_nonce = [7; 16];
    let page = emit_page(&beacon, None);
    disks[0].with_bytes(|bytes| bytes[start..start + BLOCK_BYTES].copy_from_slice(&page[..]));
    let end = now + Duration::from_secs(90);
    run(&mut now, &mut alone, Duration::from_secs(200), |_, now| now >= end);
    assert_eq!(alone[0].has_stopped(), None);
    assert_ne!(on_disk().unwrap().incarnation_nonce, [7; 16], "its own beacon stands there again");
}

/// Rule 8: a call whose entry is gone from the disk is written again.
#[test]
fn an_entry_that_nobody_answers_is_written_again() {
    let disks = make_volume();
    let mut now = Instant(1_000_000_000);
    let mut alone = [Process::new(&disks, 1, 1, ("beta", 2), now)];
    run(&mut now, &mut alone, Duration::from_secs(5), started);
    alone[0].endpoint.connect(now, "beta").unwrap();
    let end = now + Duration::from_secs(2);
    run(&mut now, &mut alone, Duration::from_secs(5), |_, now| now >= end);
    let map_place = |slot| {
        let layout = alone[0].volume.layout();
        let map = TableMap::new(layout);
        usize::try_from(map.process_id_entry(map.initiator_id(1, slot)).block).unwrap() * BLOCK_BYTES
    };
    let rows = map_place(0)..map_place(0) + 4 * 2 * BLOCK_BYTES;
    let is_written = || disks[0].with_bytes(|bytes| bytes[rows.clone()].iter().any(|byte| *byte != 0));
    assert!(is_written());
    disks[0].with_bytes(|bytes| bytes[rows.clone()].fill(0));
    let end = now + Duration::from_secs(15);
    run(&mut now, &mut alone, Duration::from_secs(20), |_, now| now >= end);
    assert!(is_written());
}

/// Rule 16: a beacon names a call only when its entry stands on the disk.
#[test]
fn a_call_is_shown_when_its_entry_is_written() {
    let disks = make_volume();
    let mut now = Instant(1_000_000_000);
    let mut alone = [Process::new(&disks, 1, 1, ("beta", 2), now)];
    run(&mut now, &mut alone, Duration::from_secs(5), started);
    let layout = alone[0].volume.layout().clone();
    let map = TableMap::new(&layout);
    let entries: Vec<u64> = (0..map.connections())
        .flat_map(|slot| (0..2).map(move |half| (slot, half)))
        .map(|(slot, half)| map.process_id_entry(map.initiator_id(1, slot)).block + half)
        .collect();
    let is_entry = move |device, block| device == 0 && entries.contains(&block);
    alone[0].judge =
        Some(Box::new(move |device, block| if is_entry(device, block) { Fate::Held } else { Fate::Lands }));
    let start = usize::try_from(map.beacon(1).block).unwrap() * BLOCK_BYTES;
    let calls = || {
        let page = |bytes: &mut [u8]| parse_page::<Beacon>(&bytes[start..start + BLOCK_BYTES], None);
        disks[0].with_bytes(|bytes| page(bytes)).unwrap().out_directory.len()
    };
    alone[0].endpoint.connect(now, "beta").unwrap();
    let end = now + Duration::from_secs(10);
    run(&mut now, &mut alone, Duration::from_secs(20), |_, now| now >= end);
    assert!(!alone[0].held.is_empty());
    assert_eq!(calls(), 0, "nobody could read its entry yet");
    alone[0].judge = None;
    alone[0].release(now);
    run(&mut now, &mut alone, Duration::from_secs(5), |_, _| calls() == 1);
}

/// Rule 46: what was sent before the close arrives.
#[test]
fn a_connection_that_closes_delivers_what_was_sent() {
    let disks = make_volume();
    let mut now = Instant(1_000_000_000);
    let mut both =
        [Process::new(&disks, 2, 2, ("alpha", 1), now), Process::new(&disks, 1, 1, ("beta", 2), now)];
    run(&mut now, &mut both, Duration::from_secs(5), started);
    let call = both[1].endpoint.connect(now, "beta").unwrap();
    run(&mut now, &mut both, Duration::from_secs(5), |both, _| {
        both.iter().all(|process| process.connected().is_some())
    });
    for offset in 0..4 {
        let payload = Payload::copy_of(&both[1].buffers, &[7; 60_000]);
        let segment = Segment { kind: SegmentKind::Data, request: 1, offset, last: false, payload };
        both[1].endpoint.send(now, call, segment);
    }
    both[1].endpoint.close(now, call);
    run(&mut now, &mut both, Duration::from_secs(60), |both, _| {
        both.iter().all(|process| process.closed().is_some())
    });
    assert_eq!(both[0].received.len(), 4);
}

/// Commands go one after the other; a close waits for the last of them too.
#[test]
fn a_connection_that_closes_says_every_command() {
    let disks = make_volume();
    let mut now = Instant(1_000_000_000);
    let mut both = make_pair(&disks, &mut now);
    let call = both[1].endpoint.connect(now, "beta").unwrap();
    run(&mut now, &mut both, Duration::from_secs(5), |both, _| {
        both.iter().all(|process| process.connected().is_some())
    });
    for opcode in 1..=5 {
        both[1].endpoint.send_command(now, call, opcode, u64::from(opcode), vec![7; 100]);
    }
    both[1].endpoint.close(now, call);
    run(&mut now, &mut both, Duration::from_secs(60), |both, _| {
        both.iter().all(|process| process.closed().is_some())
    });
    assert_eq!(both[0].commands(), [1, 2, 3, 4, 5]);
    assert_eq!(
        (both[1].closed(), both[0].closed()),
        (Some(CloseReason::Done), Some(CloseReason::ClosedByPeer))
    );
}
