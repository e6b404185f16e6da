//! Guards that no run of the simulator misses, because another one stands behind them: each alone.
//!
//! Without them nothing wrong is delivered; reads, rings and time are lost. So what they promise is said
//! here. Not here: what a build without them does (`tests/sabotage.toml`).

mod volume_of_two;

use std::time::Duration;

use storage_mapping::{Buffer, BufferPool, Instant};
use transfer_core::format::host_table::{HostFlags, HostRecord};
use transfer_core::format::map::TableMap;
use transfer_core::format::process_id_table::CloseReason;
use transfer_core::format::process_segment_pointer_table::{ENTRIES_BYTES, Nack};
use transfer_core::payload::{Payload, Segment, SegmentKind};
use transfer_core::protocol::connection::IoCommand;
use transfer_core::protocol::discovery::BellWatcher;
use transfer_core::protocol::endpoint::Identity;
use transfer_core::protocol::owner_mac::OwnerKey;
use transfer_core::protocol::pool::SegmentPool;
use transfer_core::protocol::seal::{Form, SealDone, SealWork};
use transfer_core::protocol::startup::{LocalState, Startup, StartupIo, StartupStep};
use transfer_core::protocol::timer::ATTEMPTS_MAX;
use transfer_core::protocol::writer::{Writer, WriterAction};
use transfer_core::random::SeededRandom;
use volume::SegmentNumber;
use volume::header::{HEADER_BYTES, Header, Place};
use volume::record::Record;
use volume_of_two::{stream, volume_of_two};

const START: Instant = Instant(1_000_000_000);
const CONNECTION: u64 = 1;

fn segments() -> SegmentPool {
    let (layout, record) = volume_of_two();
    let mut pool = SegmentPool::new(&layout, &record);
    pool.open(CONNECTION);
    pool
}

/// A writer whose first segment is on its way to the disk.
fn writing(pool: &mut SegmentPool) -> (Writer, SeededRandom) {
    let stream = stream();
    let (buffers, mut random) = (BufferPool::new(), SeededRandom::new(&[2; 32]));
    let mut writer = Writer::new(CONNECTION, stream, 8, 17);
    let payload = Payload::copy_of(&buffers, &[7; 5000]);
    let segment = Segment { kind: SegmentKind::Data, request: 1, offset: 0, last: false, payload };
    writer.push(START, segment, pool, &mut random);
    let Some(WriterAction::Work { seq, attempt, work }) = writer.poll_action() else {
        panic!("it seals first")
    };
    let SealDone::Sealed(bytes, prefix) = work.run(&buffers) else { panic!("it seals") };
    writer.handle_sealed(START, seq, attempt, bytes, prefix);
    assert!(matches!(writer.poll_action(), Some(WriterAction::Write { seq: 1, attempt: 0, .. })));
    (writer, random)
}

/// Rule 34.
#[test]
fn an_entry_is_published_when_its_segment_is_written() {
    let mut pool = segments();
    let (mut writer, mut random) = writing(&mut pool);
    let mut area = [0; ENTRIES_BYTES];
    assert_eq!(writer.emit_entries(&mut area), 0, "its write is in flight");
    writer.handle_written(START, 1, 0, true, &mut pool, &mut random).unwrap();
    assert_eq!(writer.emit_entries(&mut area), 1);
}

/// Rule 41.
#[test]
fn a_segment_whose_write_is_in_flight_is_not_free() {
    let mut pool = segments();
    let (mut writer, mut random) = writing(&mut pool);
    writer.handle_closed(START, &mut pool);
    assert_eq!(pool.free_count(), pool.total() - 1, "the disk may still write to it");
    assert!(!writer.is_quiet());
    writer.handle_written(START, 1, 0, true, &mut pool, &mut random).unwrap();
    assert_eq!(pool.free_count(), pool.total());
}

/// Rule 43.
#[test]
fn a_segment_in_doubt_rests() {
    let mut pool = segments();
    let place = pool.take(CONNECTION, None).unwrap();
    pool.give(START, CONNECTION, place, true);
    pool.handle_timeout(START + Duration::from_secs(179));
    assert_eq!(pool.free_count(), pool.total() - 1);
    pool.handle_timeout(START + Duration::from_secs(180));
    assert_eq!(pool.free_count(), pool.total());
}

/// Rule 17: between the scan and the next look at the bell somebody may have rung.
#[test]
fn a_ring_after_the_scan_causes_another_scan() {
    let mut bell = BellWatcher::new(START, Duration::from_secs(30), Duration::from_millis(20));
    let mut now = START;
    let mut look = |value: u8| {
        now = now + Duration::from_secs(1);
        bell.handle_bell(now, Some(&[value; 32]));
        let scans = bell.poll_scan(now);
        if scans {
            bell.handle_scanned(now, false);
        }
        scans
    };
    look(1);
    look(1);
    assert!(!look(1), "nobody rang");
    assert!(look(2));
    assert!(look(3), "this ring came after the scan of the last one");
    assert!(!look(3));
}

/// Rule 39: a reader that is slow says so by its limit.
#[test]
fn a_writer_stops_at_the_readers_limit() {
    let mut pool = segments();
    let (mut writer, mut random) = writing(&mut pool);
    let buffers = BufferPool::new();
    let mut sealed = |writer: &mut Writer, pool: &mut SegmentPool| {
        let payload = Payload::copy_of(&buffers, &[7; 500]);
        let segment = Segment { kind: SegmentKind::Data, request: 1, offset: 0, last: false, payload };
        writer.push(START, segment, pool, &mut random);
        std::iter::from_fn(|| writer.poll_action()).count()
    };
    for _ in 2..=8 {
        assert!(writer.has_room());
        assert_eq!(sealed(&mut writer, &mut pool), 1, "the window has room");
    }
    assert!(!writer.has_room(), "nobody piles up segments beyond the window");
    let mut other = SeededRandom::new(&[3; 32]);
    writer.handle_marks(START, 4, 8, 1000, &[], &mut pool, &mut other).unwrap();
    assert_eq!(sealed(&mut writer, &mut pool), 0, "the reader has not granted number 9");
    writer.handle_marks(START, 4, 9, 1000, &[], &mut pool, &mut other).unwrap();
    assert!(writer.poll_action().is_some());
}

/// A writer with nothing under way, and what it wants sealed.
struct Desk {
    pool: SegmentPool,
    writer: Writer,
    buffers: BufferPool,
    random: SeededRandom,
}

impl Desk {
    fn new() -> Self {
        let writer = Writer::new(CONNECTION, stream(), 8, 17);
        let (buffers, random) = (BufferPool::new(), SeededRandom::new(&[2; 32]));
        Self { pool: segments(), writer, buffers, random }
    }

    /// The forms of what is to be sealed after a segment of `length` bytes was handed in.
    fn push(&mut self, kind: SegmentKind, length: usize) -> Vec<Form> {
        let payload = Payload::copy_of(&self.buffers, &vec![7; length]);
        let segment = Segment { kind, request: 1, offset: 0, last: false, payload };
        self.writer.push(START, segment, &mut self.pool, &mut self.random);
        self.forms()
    }

    /// The same after the reader's marks.
    fn mark(&mut self, received: u64, credits: u64) -> Vec<Form> {
        let Self { pool, writer, random, .. } = self;
        writer
            .handle_marks(START, received, 1000, credits, &[], pool, random)
            .expect("marks of an honest reader");
        self.forms()
    }

    fn forms(&mut self) -> Vec<Form> {
        let actions = std::iter::from_fn(|| self.writer.poll_action());
        let form = |action| match action {
            WriterAction::Work { work: SealWork::Seal { form, .. }, .. } => form,
            other => panic!("nothing was sealed yet: {other:?}"),
        };
        actions.map(form).collect()
    }
}

/// Rule 39: what the reader has no memory for waits, but for one segment, without which nothing would move again.
#[test]
fn a_writer_stays_within_the_readers_memory() {
    let mut desk = Desk::new();
    desk.mark(0, 0);
    assert_eq!(desk.push(SegmentKind::Data, 5000), [Form::Full], "nothing is under way");
    for waiting in 1..=4 {
        assert!(desk.writer.has_room(), "{} wait", waiting - 1);
        assert_eq!(desk.push(SegmentKind::Data, 500), [], "there is no memory for {waiting}");
    }
    assert!(!desk.writer.has_room(), "four wait, so the source is not asked");
    // The first takes three blocks, each of the others one.
    assert_eq!(desk.mark(0, 3), []);
    assert_eq!(desk.mark(0, 4), [Form::Inline]);
    assert_eq!(desk.mark(1, 3), [Form::Inline; 2]);
}

/// Small commands travel in the table as long as they leave the entries of a full window their places; what was
/// acknowledged makes room again.
#[test]
fn commands_in_the_table_leave_room_for_the_entries() {
    let mut desk = Desk::new();
    // 57 − 8 places of 64 bytes are left: three messages of 1,000 bytes with nonce and tag, and 16 bytes.
    for round in 0..3 {
        assert_eq!(desk.push(SegmentKind::Command, 1000), [Form::InTable]);
        assert_eq!(desk.push(SegmentKind::Data, 10), [Form::Inline], "no command");
        assert_eq!(desk.push(SegmentKind::Command, 1000), [Form::InTable]);
        assert_eq!(
            desk.push(SegmentKind::Command, 1017),
            [Form::Inline],
            "one byte too long for what is left"
        );
        assert_eq!(desk.push(SegmentKind::Command, 1016), [Form::InTable]);
        assert_eq!(desk.push(SegmentKind::Command, 1), [Form::Inline], "full");
        assert_eq!(desk.mark(6 * (round + 1), 1000), []);
    }
    assert_eq!(desk.push(SegmentKind::Command, 1024), [Form::InTable]);
    assert_eq!(desk.push(SegmentKind::Command, 1025), [Form::Inline]);
    assert_eq!(desk.push(SegmentKind::Data, 3840), [Form::Inline]);
    assert_eq!(desk.push(SegmentKind::Data, 3841), [Form::Full]);
}

/// Rule 42: a segment that does not get through is sent again a few times, then the device is named.
#[test]
fn a_segment_has_its_attempts_and_no_more() {
    let mut pool = segments();
    let (mut writer, mut random) = writing(&mut pool);
    let buffers = BufferPool::new();
    let nack = |attempt| [Nack { seq: 1, attempt, reason: 1 }];
    for attempt in 0..ATTEMPTS_MAX {
        writer.handle_written(START, 1, attempt, true, &mut pool, &mut random).unwrap();
        assert_eq!(writer.resends, u64::from(attempt));
        let marks = writer.handle_marks(START, 0, 8, 1000, &nack(attempt), &mut pool, &mut random);
        if attempt + 1 == ATTEMPTS_MAX {
            assert_eq!(marks, Err(CloseReason::DeviceUnreliable));
            return;
        }
        marks.unwrap();
        let Some(WriterAction::Work { work, .. }) = writer.poll_action() else { panic!("it seals again") };
        let SealDone::Sealed(bytes, prefix) = work.run(&buffers) else { panic!("it seals") };
        writer.handle_sealed(START, 1, attempt + 1, bytes, prefix);
        assert!(matches!(writer.poll_action(), Some(WriterAction::Write { .. })));
    }
}

/// Rule 11: a life that nobody remembers on the volume is remembered on the host.
#[test]
fn every_life_has_a_higher_incarnation() {
    let (layout, record) = volume_of_two();
    let (key, buffers) = (OwnerKey::new(&[1; 32]), BufferPool::new());
    let local = LocalState { incarnation: 41, nonces: Vec::new() };
    let identity = Identity { lane: 0, name: record.name, incarnation: 0, nonce: [5; 16] };
    let mut startup = Startup::new(&layout, local, identity);
    while let Some(step) = startup.poll() {
        match step {
            StartupStep::Io(io, IoCommand::Read { length, .. }) => {
                let zeros = Buffer::copy_of(&vec![0; length]);
                startup.handle_io(START, &layout, &key, &buffers, io, true, Some(&zeros));
            }
            StartupStep::Io(StartupIo::Claim, IoCommand::Write { bytes, durable, .. }) => {
                let header = Header::parse(&bytes[..HEADER_BYTES]).unwrap();
                assert_eq!((header.incarnation, durable), (42, true));
                return;
            }
            other => panic!("it claims its lane first: {other:?}"),
        }
    }
    panic!("it claims its lane");
}

/// Rule 1: one writer for each block. No two records of any lane share one, and each lies in its region.
#[test]
fn every_record_has_blocks_of_its_own() {
    let (layout, _) = volume_of_two();
    let map = TableMap::new(&layout);
    let (lanes, connections) = (map.lanes(), map.connections());
    assert!(lanes > 1 && connections > 1);
    let mut blocks = Vec::new();
    let mut add = |region: usize, place: Place, count: u64| {
        let region = layout.master.region(region);
        for block in place.block..place.block + count {
            assert!((region.start..region.start + region.blocks).contains(&block), "{place:?}");
            blocks.push(block);
        }
    };
    for lane in 0..lanes {
        add(1, map.host_record(lane, 0), 1);
        add(1, map.host_record(lane, 1), 1);
        add(2, map.beacon(lane), 1);
        add(3, map.bell(lane), 1);
        add(4, map.incarnation(lane), 2);
        add(4, map.in_directory(lane), 2);
        for slot in 0..connections {
            let (calls, answers) = (map.initiator_id(lane, slot), map.connector_id(lane, slot));
            assert_eq!((map.split(calls), map.split(answers)), ((lane, slot), (lane, connections + slot)));
            for id in [calls, answers] {
                add(5, map.process_id_entry(id), 2);
                add(6, map.pointer_table(id), 2);
            }
        }
    }
    let regions: u64 = (1..7).map(|region| layout.master.region(region).blocks).sum();
    assert_eq!(blocks.len() as u64, regions, "no block is left over");
    blocks.sort_unstable();
    blocks.dedup();
    assert_eq!(blocks.len() as u64, regions, "none has two writers");
}

/// A row grants the segments of its ranges, from the first to the last and none beside.
#[test]
fn a_row_owns_its_ranges_to_their_ends() {
    let (layout, record) = volume_of_two();
    assert!(!record.pool_ranges.is_empty());
    for range in record.pool_ranges.iter() {
        let (first, last) = (range.first_segment, range.first_segment + range.count - 1);
        assert!(record.owns_segment(SegmentNumber(first)) && record.owns_segment(SegmentNumber(last)));
        for beside in [first - 1, last + 1] {
            let elsewhere = record
                .pool_ranges
                .iter()
                .any(|other| (other.first_segment..other.first_segment + other.count).contains(&beside));
            assert_eq!(record.owns_segment(SegmentNumber(beside)), elsewhere, "segment {beside}");
        }
    }
    assert_eq!(layout.pool_of_lane(0).len(), record.pool_ranges.len());
    let evicted = HostRecord { flags: HostFlags::ENROLLED | HostFlags::EVICTED, ..record.clone() };
    let empty = HostRecord { flags: HostFlags::empty(), ..record.clone() };
    assert!(record.is_active() && !evicted.is_active() && !empty.is_active());
}
