//! Two endpoints on one memory volume, in virtual time: they connect, carry segments both ways, close.

mod endpoints;

use std::time::Duration;

use endpoints::{Process, make_pair, make_volume, run};
use storage_mapping::Instant;
use transfer_core::format::process_id_table::CloseReason;
use transfer_core::payload::{Payload, Segment, SegmentKind};
use transfer_core::protocol::endpoint::Event;

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
