//! What a process has memory for of a window: the writer, the reader and an endpoint whose connections come and go.

mod endpoints;
mod volume_of_two;

use std::time::Duration;

use endpoints::{Process, make_pair, make_volume, run};
use storage_mapping::{BufferPool, Instant};
use transfer_core::format::process_segment_pointer_table::ENTRIES_BYTES;
use transfer_core::payload::{Payload, Segment, SegmentKind};
use transfer_core::protocol::connection::ConnectionId;
use transfer_core::protocol::pool::SegmentPool;
use transfer_core::protocol::seal::SealDone;
use transfer_core::protocol::writer::{Writer, WriterAction};
use transfer_core::random::SeededRandom;
use volume_of_two::{stream, volume_of_two};

const START: Instant = Instant(1_000_000_000);
const CONNECTION: u64 = 1;
const WINDOW: u64 = 8;
const SEGMENT_BLOCKS: u64 = 17;

fn segment(buffers: &BufferPool) -> Segment {
    let payload = Payload::copy_of(buffers, &[7; 5000]);
    Segment { kind: SegmentKind::Data, request: 1, offset: 0, last: false, payload }
}

/// A writer, and a disk on which every write has landed.
struct Bench {
    writer: Writer,
    pool: SegmentPool,
    buffers: BufferPool,
    random: SeededRandom,
}

impl Bench {
    fn new() -> Self {
        let (layout, record) = volume_of_two();
        let mut pool = SegmentPool::new(&layout, &record);
        pool.open(CONNECTION);
        let writer = Writer::new(CONNECTION, stream(), WINDOW, SEGMENT_BLOCKS);
        Self { writer, pool, buffers: BufferPool::new(), random: SeededRandom::new(&[2; 32]) }
    }

    fn push(&mut self) {
        self.writer.push(START, segment(&self.buffers), &mut self.pool, &mut self.random);
    }

    /// Pushes as many as it takes; says how many.
    fn fill(&mut self) -> u64 {
        let mut pushed = 0;
        while self.writer.has_room() {
            self.push();
            pushed += 1;
        }
        pushed
    }

    /// Seals and writes what it wants; the numbers of what it did.
    fn write(&mut self) -> Vec<u64> {
        let mut written = Vec::new();
        while let Some(action) = self.writer.poll_action() {
            match action {
                WriterAction::Work { seq, attempt, work } => {
                    let SealDone::Sealed(bytes, prefix) = work.run(&self.buffers) else { panic!("it seals") };
                    self.writer.handle_sealed(START, seq, attempt, bytes, prefix);
                }
                WriterAction::Write { seq, attempt, .. } => {
                    let (pool, random) = (&mut self.pool, &mut self.random);
                    self.writer.handle_written(START, seq, attempt, true, pool, random).expect("it landed");
                    written.push(seq);
                }
            }
        }
        written
    }

    /// The reader has everything up to `received`, and would take any number.
    fn acknowledge(&mut self, received: u64) {
        let credits = WINDOW * SEGMENT_BLOCKS;
        let (pool, random) = (&mut self.pool, &mut self.random);
        self.writer.handle_marks(START, received, 1000, credits, &[], pool, random).expect("a mark");
    }

    fn published(&self) -> u16 {
        self.writer.emit_entries(&mut [0; ENTRIES_BYTES])
    }
}

#[test]
fn a_writer_keeps_what_is_under_way_and_takes_no_more_than_its_share_once_that_is_done() {
    let mut bench = Bench::new();
    assert_eq!(bench.fill(), WINDOW);
    assert_eq!(bench.write(), [1, 2, 3, 4, 5, 6, 7, 8]);
    bench.writer.set_share(2);
    assert_eq!((bench.published(), bench.fill()), (8, 0), "nothing is taken back, nothing is added");
    for (received, room) in [(5, 0), (6, 0), (7, 1)] {
        bench.acknowledge(received);
        assert_eq!(bench.fill(), room, "with {received} acknowledged");
    }
    assert_eq!(bench.write(), [9]);
    bench.acknowledge(9);
    assert!(bench.writer.is_drained());
    for turn in 0..3 {
        assert_eq!(bench.fill(), 2);
        let first = 10 + 2 * turn;
        assert_eq!(bench.write(), [first, first + 1]);
        assert!(bench.writer.is_bulk(), "all that it may send is under way");
        bench.acknowledge(first + 1);
    }
}

#[test]
fn a_writer_whose_share_grows_sends_what_waits_and_never_more_than_the_window() {
    let mut bench = Bench::new();
    bench.writer.set_share(2);
    (0..5).for_each(|_| bench.push());
    assert_eq!(bench.write(), [1, 2], "three wait");
    bench.writer.set_share(4);
    bench.writer.fill(START, &mut bench.pool, &mut bench.random);
    assert_eq!(bench.write(), [3, 4]);
    bench.writer.set_share(1000);
    bench.writer.fill(START, &mut bench.pool, &mut bench.random);
    assert_eq!(bench.write(), [5]);
    assert_eq!((bench.fill(), bench.published()), (WINDOW - 5, 5));
    assert_eq!(bench.write(), [6, 7, 8]);
    bench.acknowledge(8);
    assert_eq!((bench.fill(), bench.fill()), (WINDOW, 0));
}

fn open(process: &Process) -> Vec<ConnectionId> {
    process.endpoint.connections().map(|connection| connection.id).collect()
}

/// Connections come and go: each has room for its part of the window, at once.
#[test]
fn connections_share_a_window_and_get_it_back() {
    let disks = make_volume();
    let mut now = START;
    let mut both = make_pair(&disks, &mut now);
    let limit = Duration::from_secs(20);
    for count in 1..=4 {
        both[1].endpoint.connect(now, "beta").expect("a slot is free");
        run(&mut now, &mut both, limit, |both, _| {
            let open = |process: &Process| {
                open(process).iter().filter(|id| process.endpoint.has_room(**id)).count() == count
            };
            both.iter().all(open)
        });
    }
    // The first has nothing under way, so all that it takes is what it may.
    let taken = |process: &mut Process, id, now| {
        let mut taken = 0;
        while process.endpoint.has_room(id) {
            let segment = segment(&process.buffers);
            process.endpoint.send(now, id, segment);
            taken += 1;
        }
        taken
    };
    let ids = open(&both[1]);
    for (closed, share) in [(None, 2), (Some(3), 2), (Some(2), 4), (Some(1), 8)] {
        if let Some(closed) = closed {
            both[1].endpoint.close(now, ids[closed]);
            let left = open(&both[1]).len() - 1;
            run(&mut now, &mut both, limit, |both, _| {
                both.iter().all(|process| process.endpoint.connections().count() == left)
            });
        }
        let came = both[0].received.len();
        assert_eq!(taken(&mut both[1], ids[0], now), share);
        assert_eq!(taken(&mut both[1], ids[0], now), 0);
        run(&mut now, &mut both, limit, |both, _| {
            both[0].received.len() == came + share && both[1].endpoint.has_room(ids[0])
        });
        // Everything acknowledged.
        let until = now + Duration::from_secs(1);
        run(&mut now, &mut both, limit, |_, now| now >= until);
    }
}
