//! Two endpoints on one memory volume, in virtual time: they connect, carry segments both ways, close.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use storage_mapping::block::time::earliest;
use storage_mapping::device::MemoryDisk;
use storage_mapping::{BlockCount, BlockDevice, BlockSize, BufferPool, Instant};
use transfer_core::enrolment::read_host_table;
use transfer_core::format::beacon::Beacon;
use transfer_core::format::host_table::HostRecord;
use transfer_core::format::map::TableMap;
use transfer_core::format::process_id_table::CloseReason;
use transfer_core::payload::{Payload, Segment, SegmentKind};
use transfer_core::protocol::connection::ConnectionId;
use transfer_core::protocol::discovery::BELL_WARM;
use transfer_core::protocol::endpoint::{AllowedPeer, Endpoint, EndpointConfig, Event, owned_ranges};
use transfer_core::protocol::handshake::{Secrets, public_key};
use transfer_core::protocol::startup::{LocalState, StartupFailure};
use transfer_core::random::SeededRandom;
use volume::header::{emit_page, parse_page};
use volume::layout::{PlannedDevice, VolumePlan};
use volume::record::Text;
use volume::sync::Waiter;
use volume::{BLOCK_BYTES, Volume, create, open};

const BLOCKS: u64 = 6000;

fn devices(disks: &[MemoryDisk]) -> Vec<Box<dyn BlockDevice>> {
    disks.iter().map(|disk| Box::new(disk.device()) as Box<dyn BlockDevice>).collect()
}

fn make_volume() -> Vec<MemoryDisk> {
    let disks: Vec<_> = (0..3).map(|_| MemoryDisk::new(BlockSize::B512, BlockCount(BLOCKS * 8))).collect();
    let admin = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
    let plan = VolumePlan {
        devices: ["m", "s1", "s2"].iter().map(|id| PlannedDevice::new(id, BLOCKS).unwrap()).collect(),
        lanes: 4,
        connections: 4,
        segment_payload_bytes: 1 << 16,
        volume_id: [3; 16],
        time_id: 1,
        unix_filename: "m".into(),
    };
    let layout = plan.layout(&admin).unwrap();
    let mut extra = Vec::new();
    for (row, (name, key, lane)) in
        [("alpha", 1u8, 0), ("alpha", 1, 1), ("beta", 2, 0), ("beta", 2, 1)].into_iter().enumerate()
    {
        let record = HostRecord::new(
            &layout,
            u16::try_from(row).unwrap(),
            Text::new(name).unwrap(),
            public_key(&[key; 32]),
            lane,
            &admin,
        );
        extra.extend(record.pages(&layout));
    }
    create::create(&Waiter::idle(), devices(&disks), &layout, &extra).unwrap();
    disks
}

struct Process {
    endpoint: Endpoint,
    volume: Volume,
    buffers: BufferPool,
    events: Vec<Event>,
    received: Vec<(SegmentKind, u64, Vec<u8>)>,
}

impl Process {
    fn new(disks: &[MemoryDisk], row: usize, key: u8, peer: (&str, u8), now: Instant) -> Self {
        let random = u8::try_from(row).unwrap() + 50;
        Self::with_past(disks, row, (key, random), peer, LocalState::default(), now)
    }

    /// A process whose host remembers `local`.
    fn with_past(
        disks: &[MemoryDisk],
        row: usize,
        (key, random): (u8, u8),
        peer: (&str, u8),
        local: LocalState,
        now: Instant,
    ) -> Self {
        let opened = open::open(&Waiter::idle(), devices(disks), Some([3; 16]), None).unwrap();
        let mut volume = opened.volume;
        let layout = Arc::new(volume.layout().clone());
        let table = read_host_table(&Waiter::idle(), volume.device_mut(0).unwrap(), &layout).unwrap();
        assert!(table.notices.is_empty(), "{:?}", table.notices);
        let own = table.rows[row].clone().unwrap();
        volume.own(owned_ranges(&layout, &own));
        let buffers = BufferPool::new();
        let config = EndpointConfig {
            answers: own.lane == 0,
            own,
            secrets: Secrets::new([key; 32]),
            peers: vec![AllowedPeer { name: peer.0.into(), key: public_key(&[peer.1; 32]) }],
            window: 8,
            connections_per_peer_max: 4,
            bell_pause: BELL_WARM,
            local,
        };
        let random = Box::new(SeededRandom::new(&[random; 32]));
        let endpoint = Endpoint::new(layout, Arc::new(table.rows), config, buffers.clone(), random, now);
        Self { endpoint, volume, buffers, events: Vec::new(), received: Vec::new() }
    }

    fn step(&mut self, now: Instant) -> bool {
        let mut moved = false;
        self.endpoint.handle_timeout(now);
        loop {
            let mut again = false;
            while let Some((device, request)) = self.endpoint.poll_io() {
                self.volume.submit(now, device, request);
                again = true;
            }
            while let Some((tag, work)) = self.endpoint.poll_work() {
                let done = work.run(&self.buffers);
                self.endpoint.handle_work(now, tag, done);
                again = true;
            }
            while let Some((_, done)) = self.volume.poll(now) {
                assert!(done.outcome.is_ok());
                self.endpoint.handle_completion(now, done);
                again = true;
            }
            while let Some(event) = self.endpoint.poll_event() {
                if let Event::Persist(_) = event {
                    self.endpoint.handle_persisted(now);
                }
                self.events.push(event);
                again = true;
            }
            let ids: Vec<ConnectionId> =
                self.endpoint.connections().map(|connection| connection.id).collect();
            for id in ids {
                while let Some(segment) = self.endpoint.poll_segment(now, id) {
                    self.received.push((segment.kind, segment.offset, segment.payload.bytes().to_vec()));
                    again = true;
                }
            }
            if !again {
                return moved;
            }
            moved = true;
        }
    }

    fn connected(&self) -> Option<ConnectionId> {
        self.events.iter().find_map(|event| match event {
            Event::Connected { connection, .. } => Some(*connection),
            _ => None,
        })
    }

    fn closed(&self) -> Option<CloseReason> {
        self.events.iter().find_map(|event| match event {
            Event::Closed { reason, .. } => Some(*reason),
            _ => None,
        })
    }

    fn has_stopped(&self) -> Option<StartupFailure> {
        self.events.iter().find_map(|event| match event {
            Event::Stopped(failure) => Some(*failure),
            _ => None,
        })
    }
}

fn started(both: &mut [Process], _now: Instant) -> bool {
    both.iter().all(|process| process.events.iter().any(|event| matches!(event, Event::Started)))
}

fn run(
    now: &mut Instant,
    processes: &mut [Process],
    limit: Duration,
    mut done: impl FnMut(&mut [Process], Instant) -> bool,
) {
    let end = *now + limit;
    while !done(processes, *now) {
        assert!(
            *now < end,
            "not done in {limit:?} of virtual time: {processes:?}",
            processes = processes
                .iter()
                .map(|process| (&process.events, process.endpoint.connections().collect::<Vec<_>>()))
                .collect::<Vec<_>>()
        );
        for process in processes.iter_mut() {
            process.step(*now);
        }
        let next =
            processes.iter().fold(None, |soonest, process| earliest(soonest, process.endpoint.next_wakeup()));
        *now =
            next.map_or(*now + Duration::from_millis(1), |next| next.max(*now + Duration::from_micros(10)));
    }
}

#[test]
fn two_processes_connect_carry_and_close() {
    let disks = make_volume();
    let mut now = Instant(1_000_000_000);
    let mut both =
        [Process::new(&disks, 2, 2, ("alpha", 1), now), Process::new(&disks, 1, 1, ("beta", 2), now)];
    run(&mut now, &mut both, Duration::from_secs(5), |both, _| {
        both.iter().all(|process| process.events.iter().any(|event| matches!(event, Event::Started)))
    });
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
