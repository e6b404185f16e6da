//! Processes on one memory volume, in virtual time; a test may lose or hold their writes.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(missing_docs, unreachable_pub, reason = "a test harness")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use storage_mapping::block::time::earliest;
use storage_mapping::device::MemoryDisk;
use storage_mapping::{
    BlockCount, BlockDevice, BlockSize, BufferPool, CopyFate, Effect, Instant, IoBuffer, IoCompletion,
    IoRequest, Operation,
};
use transfer_core::enrolment::read_host_table;
use transfer_core::format::host_table::HostRecord;
use transfer_core::format::process_id_table::CloseReason;
use transfer_core::payload::SegmentKind;
use transfer_core::protocol::connection::ConnectionId;
use transfer_core::protocol::discovery::BELL_WARM;
use transfer_core::protocol::endpoint::{AllowedPeer, Endpoint, EndpointConfig, Event, owned_ranges};
use transfer_core::protocol::handshake::{Secrets, public_key};
use transfer_core::protocol::startup::{LocalState, StartupFailure};
use transfer_core::random::SeededRandom;
use volume::layout::{PlannedDevice, VolumePlan};
use volume::record::Text;
use volume::sync::Waiter;
use volume::{Volume, create, open};

const BLOCKS: u64 = 6000;

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Lands,
    /// Reported as done, never on the disk.
    Lost,
    /// In flight until the test releases it.
    Held,
}

/// Decides by device and first block.
pub type Judge = Box<dyn FnMut(u16, u64) -> Fate>;

fn devices(disks: &[MemoryDisk]) -> Vec<Box<dyn BlockDevice>> {
    disks.iter().map(|disk| Box::new(disk.device()) as Box<dyn BlockDevice>).collect()
}

pub fn make_volume() -> Vec<MemoryDisk> {
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

pub struct Process {
    pub endpoint: Endpoint,
    pub volume: Volume,
    pub buffers: BufferPool,
    pub events: Vec<Event>,
    pub received: Vec<(SegmentKind, u64, Vec<u8>)>,
    pub judge: Option<Judge>,
    pub held: Vec<(u16, IoRequest)>,
}

impl Process {
    pub fn new(disks: &[MemoryDisk], row: usize, key: u8, peer: (&str, u8), now: Instant) -> Self {
        let random = u8::try_from(row).unwrap() + 50;
        Self::with_past(disks, row, (key, random), peer, LocalState::default(), now)
    }

    /// A process whose host remembers `local`.
    pub fn with_past(
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
        Self {
            endpoint,
            volume,
            buffers,
            events: Vec::new(),
            received: Vec::new(),
            judge: None,
            held: Vec::new(),
        }
    }

    fn submit(&mut self, now: Instant, device: u16, request: IoRequest) {
        let fate = match (&request.operation, &mut self.judge) {
            (Operation::Write { lba, .. }, Some(judge)) => judge(device, lba.0),
            _ => Fate::Lands,
        };
        match (fate, request.operation) {
            (Fate::Lost, Operation::Write { data, .. }) => {
                let completion = IoCompletion {
                    tag: request.tag,
                    outcome: Ok(()),
                    effect: Effect::Full,
                    copy: CopyFate::Dead,
                    buffer: IoBuffer::Write(data),
                };
                self.endpoint.handle_completion(now, completion);
            }
            (Fate::Held, operation) => self.held.push((device, IoRequest { operation, ..request })),
            (_, operation) => self.volume.submit(now, device, IoRequest { operation, ..request }),
        }
    }

    /// What was held reaches the disk now.
    pub fn release(&mut self, now: Instant) {
        for (device, request) in std::mem::take(&mut self.held) {
            self.volume.submit(now, device, request);
        }
    }

    /// Commands that came, by opcode.
    pub fn commands(&self) -> Vec<u16> {
        let opcode = |event: &Event| match event {
            Event::Command { opcode, .. } => Some(*opcode),
            _ => None,
        };
        self.events.iter().filter_map(opcode).collect()
    }

    pub fn step(&mut self, now: Instant) -> bool {
        let mut moved = false;
        self.endpoint.handle_timeout(now);
        loop {
            let mut again = false;
            while let Some((device, request)) = self.endpoint.poll_io() {
                self.submit(now, device, request);
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

    pub fn has_stopped(&self) -> Option<StartupFailure> {
        self.events.iter().find_map(|event| match event {
            Event::Stopped(failure) => Some(*failure),
            _ => None,
        })
    }

    pub fn connected(&self) -> Option<ConnectionId> {
        self.events.iter().find_map(|event| match event {
            Event::Connected { connection, .. } => Some(*connection),
            _ => None,
        })
    }

    pub fn closed(&self) -> Option<CloseReason> {
        self.events.iter().find_map(|event| match event {
            Event::Closed { reason, .. } => Some(*reason),
            _ => None,
        })
    }
}

/// Row 2 (beta, answers) and row 1 (alpha, calls), started.
pub fn make_pair(disks: &[MemoryDisk], now: &mut Instant) -> [Process; 2] {
    let mut both =
        [Process::new(disks, 2, 2, ("alpha", 1), *now), Process::new(disks, 1, 1, ("beta", 2), *now)];
    run(now, &mut both, Duration::from_secs(5), |both, _| {
        both.iter().all(|process| process.events.iter().any(|event| matches!(event, Event::Started)))
    });
    both
}

pub fn run(
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
