//! FIG. 11: the reader alone, with a table of the writer's in its hand.

mod volume_of_two;

use std::time::Duration;

use storage_mapping::{Buffer, BufferPool, Instant};
use transfer_core::format::host_table::HostRecord;
use transfer_core::format::process_id_table::{CloseReason, EntryState, Role};
use transfer_core::format::process_segment_pointer_table::{
    ENTRY_BYTES, Nack, PointerEntry, PointerTable, SegmentFlags, TableFlags,
};
use transfer_core::format::segment::{INLINE_OFFSET, SegmentHeader};
use transfer_core::payload::Payload;
use transfer_core::protocol::reader::{Reader, ReaderAction};
use transfer_core::protocol::seal::{Form, SealDone, seal_segment};
use transfer_core::protocol::timer::READS_MAX;
use transfer_core::protocol::writer::{Stream, form_of};
use volume::header::{Edition, Header, RecordType};
use volume::record::{Record, Rows};
use volume::{BLOCK_BYTES, Layout, SegmentNumber};
use volume_of_two::{stream, volume_of_two};

const START: Instant = Instant(1_000_000_000);
const WINDOW: u64 = 8;
/// Reads of a segment before it is asked for again.
const READS: u32 = READS_MAX;

/// A reader, and the disk that it reads from.
struct Bench {
    reader: Reader,
    stream: Stream,
    layout: Layout,
    producer: HostRecord,
    pool: BufferPool,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let (layout, producer) = volume_of_two();
        let (reader, pool) = (Reader::new(stream(), WINDOW), BufferPool::new());
        Self { reader, stream: stream(), layout, producer, pool, now: START }
    }

    /// The entry of number `seq`, in the segment of the pool with that number, and the bytes there: the payload is
    /// the number.
    fn segment(&self, seq: u64, attempt: u16) -> (PointerEntry, Buffer) {
        self.flagged(seq, attempt, SegmentFlags::INLINE)
    }

    fn flagged(&self, seq: u64, attempt: u16, flags: SegmentFlags) -> (PointerEntry, Buffer) {
        let number = SegmentNumber(self.producer.pool_ranges[0].first_segment + seq);
        let place = self.layout.locate(number).expect("a segment of the pool");
        let mut entry = PointerEntry {
            ptr_process_block_seq: seq,
            attempt,
            ptr_process_segment_flg: flags,
            device: place.device,
            ptr_process_blk_read: 1,
            ptr_process_segment_ptr: place.block,
            ptr_process_req_id: 1,
            plain_bytes: 8,
            stored_bytes: 8,
            seal_prefix: [0; 16],
            connection_id_low: self.stream.connection_id_low(),
        };
        let nonce = [u8::try_from(attempt).expect("few") + 1; 24];
        let header = SegmentHeader { nonce, ..self.stream.expected_header(&entry) };
        let payload = Payload::copy_of(&self.pool, &seq.to_le_bytes());
        let form = form_of(entry.ptr_process_segment_flg);
        let (bytes, prefix) = seal_segment(&self.stream.key, header, form, payload, &self.pool);
        entry.seal_prefix = prefix;
        let mut buffer = self.pool.take_zeroed(BLOCK_BYTES);
        buffer[..bytes.len()].copy_from_slice(&bytes);
        (entry, buffer)
    }

    fn table(&self, base_seq: u64, entries: &[Option<PointerEntry>]) -> PointerTable {
        let edition = Edition { incarnation: 1, nonce_low: 2, version: 1 };
        let header = Header::new::<PointerTable>(RecordType::PointerTable, self.stream.table, edition);
        let mut table = PointerTable {
            header,
            connection_id: [1; 16],
            state: EntryState::Established,
            role: Role::Initiator,
            flags: TableFlags::empty(),
            serial: 1,
            keep_alive: 0,
            entry_version: 1,
            command_ack: 0,
            peer_process_id: 0,
            peer_host: 1,
            close_reason: CloseReason::None,
            peer_incarnation: 1,
            received: 0,
            durable: 0,
            window_limit: WINDOW,
            credits: 0,
            nack_count: 0,
            read_flags: 0,
            nacks: Rows::default(),
            entry_area: [0; 3648],
            base_seq,
            entry_count: u16::try_from(entries.len()).expect("few"),
        };
        for (entry, place) in entries.iter().zip(table.entry_area.chunks_exact_mut(ENTRY_BYTES)) {
            if let Some(entry) = entry {
                entry.emit(place);
            }
        }
        table
    }

    fn show(&mut self, base_seq: u64, entries: &[Option<PointerEntry>]) -> Result<(), CloseReason> {
        let table = self.table(base_seq, entries);
        self.reader.handle_table(self.now, &table, &self.layout, &self.producer)
    }

    /// The reads that it asks for now, by number and attempt.
    fn reads(&mut self) -> Vec<(u64, u16)> {
        std::iter::from_fn(|| self.reader.poll_action())
            .map(|action| match action {
                ReaderAction::Read { seq, attempt, length, .. } => {
                    assert_eq!(length, BLOCK_BYTES);
                    (seq, attempt)
                }
                ReaderAction::Work { .. } => panic!("nothing was read yet"),
            })
            .collect()
    }

    /// Gives it what it asked for, and opens that.
    fn give(&mut self, seq: u64, attempt: u16, buffer: Buffer) {
        self.reader.handle_read(self.now, seq, attempt, Some(buffer));
        if let Some(ReaderAction::Work { seq, attempt, work }) = self.reader.poll_action() {
            let opened = match work.run(&self.pool) {
                SealDone::Opened(payload, offset) => Some((payload, offset)),
                SealDone::Failed => None,
                SealDone::Sealed(..) => panic!("it was to be opened"),
            };
            self.reader.handle_opened(self.now, seq, attempt, opened);
        }
    }

    fn received(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.reader.poll_segment())
            .map(|segment| u64::from_le_bytes(segment.payload.bytes().try_into().expect("8 bytes")))
            .collect()
    }
}

#[test]
fn segments_come_in_order_and_marks_say_which_are_ahead() {
    let mut bench = Bench::new();
    let mut made: Vec<_> = (1..=4).map(|seq| bench.segment(seq, 0)).collect();
    let entries: Vec<_> = made.iter().map(|(entry, _)| Some(entry.clone())).collect();
    bench.show(1, &entries).expect("a table");
    assert_eq!(bench.reads(), [(1, 0), (2, 0), (3, 0), (4, 0)]);
    assert!(!bench.reader.is_quiet());
    for (seq, marks, ready) in
        [(4, 0b1000, vec![]), (2, 0b1010, vec![]), (1, 0b10, vec![1, 2]), (3, 0, vec![3, 4])]
    {
        let buffer = std::mem::replace(&mut made[seq as usize - 1].1, bench.pool.take_zeroed(BLOCK_BYTES));
        bench.give(seq, 0, buffer);
        assert_eq!((bench.reader.read_flags(), bench.received()), (marks, ready), "after {seq}");
    }
    assert_eq!((bench.reader.received(), bench.reader.window_limit()), (4, 4 + WINDOW));
    assert!(bench.reader.is_quiet() && bench.reader.next_wakeup().is_none());
    bench.show(1, &entries).expect("the same table again");
    assert_eq!(bench.reads(), []);
}

#[test]
fn what_does_not_open_is_read_again_then_asked_for_again() {
    let mut bench = Bench::new();
    let (entry, _) = bench.segment(1, 0);
    bench.show(1, &[Some(entry)]).expect("a table");
    for read in 1..=READS {
        assert_eq!(bench.reads(), [(1, 0)], "read {read}");
        assert!(bench.reader.nacks().is_empty());
        let other = bench.pool.take_zeroed(BLOCK_BYTES);
        bench.give(1, 0, other);
        if read < READS {
            let wakeup = bench.reader.next_wakeup().expect("it will be read again");
            assert!(wakeup > bench.now, "not at once");
            bench.reader.handle_timeout(bench.now);
            assert_eq!(bench.reads(), [], "not before its time");
            bench.now = wakeup;
            bench.reader.handle_timeout(bench.now);
        }
    }
    assert_eq!(bench.reader.take_dirty(), (true, true), "the writer is to hear of it at once");
    assert_eq!(bench.reader.nacks(), [Nack { seq: 1, attempt: 0, reason: 1 }]);
    assert_eq!((bench.reader.torn, bench.reader.next_wakeup()), (u64::from(READS), None));
    bench.now = bench.now + Duration::from_secs(60);
    bench.reader.handle_timeout(bench.now);
    assert_eq!(bench.reads(), [], "the same attempt is given up");

    let (entry, buffer) = bench.segment(1, 1);
    bench.show(1, &[Some(entry)]).expect("the next attempt");
    assert_eq!(bench.reads(), [(1, 1)]);
    bench.give(1, 0, bench.pool.take_zeroed(BLOCK_BYTES));
    assert_eq!(bench.reader.torn, u64::from(READS), "an answer of the old attempt is not looked at");
    bench.give(1, 1, buffer);
    assert_eq!(bench.received(), [1]);
    assert!(bench.reader.nacks().is_empty());
}

/// An answer that comes late, or twice, is not taken for the one that is awaited.
#[test]
fn only_the_answer_that_is_awaited_is_taken() {
    let mut bench = Bench::new();
    let (entry, buffer) = bench.segment(1, 0);
    bench.show(1, &[Some(entry)]).expect("a table");
    assert_eq!(bench.reads(), [(1, 0)]);
    bench.reader.handle_opened(bench.now, 1, 0, None);
    assert_eq!(bench.reader.torn, 0, "nothing was read yet");
    bench.reader.handle_read(bench.now, 1, 0, Some(buffer));
    assert!(matches!(bench.reader.poll_action(), Some(ReaderAction::Work { seq: 1, attempt: 0, .. })));
    // The next attempt comes while the first one is being opened.
    let (entry, mut buffer) = bench.segment(1, 1);
    bench.show(1, &[Some(entry)]).expect("the next attempt");
    assert_eq!(bench.reads(), [(1, 1)]);
    buffer[INLINE_OFFSET] ^= 1;
    bench.reader.handle_read(bench.now, 1, 1, Some(buffer));
    let Some(ReaderAction::Work { work, .. }) = bench.reader.poll_action() else {
        panic!("it is to be opened")
    };
    bench.reader.handle_opened(bench.now, 1, 0, None);
    assert_eq!((bench.reader.torn, bench.reader.next_wakeup()), (0, None), "of the first attempt");
    assert!(matches!(work.run(&bench.pool), SealDone::Failed), "damage behind the seal");
    bench.reader.handle_opened(bench.now, 1, 1, None);
    assert_eq!((bench.reader.torn, bench.received()), (1, vec![]));
    assert!(bench.reader.next_wakeup().is_some(), "it is read again");
}

/// Rule 35: who waits for the end of a message hears of it at once; a limit is worth a table when a part of the
/// window has gathered.
#[test]
fn the_writer_hears_at_once_what_it_waits_for() {
    let mut bench = Bench::new();
    let last = SegmentFlags::INLINE | SegmentFlags::LAST;
    let (entries, buffers): (Vec<_>, Vec<_>) = (1..=WINDOW)
        .map(|seq| if seq == WINDOW { bench.flagged(seq, 0, last) } else { bench.segment(seq, 0) })
        .unzip();
    bench.show(1, &entries.into_iter().map(Some).collect::<Vec<_>>()).expect("a table");
    assert_eq!(bench.reads().len() as u64, WINDOW);
    for (seq, buffer) in (1..).zip(buffers) {
        bench.give(seq, 0, buffer);
        assert_eq!(bench.reader.take_dirty(), (true, seq == WINDOW), "number {seq}");
    }
    for taken in 1..=WINDOW {
        assert!(bench.reader.poll_segment().is_some());
        assert_eq!(bench.reader.take_dirty(), (taken % (WINDOW / 4) == 0, false), "{taken} taken");
    }
}

/// What was granted stays; from then on the writer gets no more than the share, and the window at most.
#[test]
fn a_reader_grants_its_share_and_never_takes_a_grant_back() {
    let mut bench = Bench::new();
    let mut seq = 0;
    let mut take = |bench: &mut Bench| {
        seq += 1;
        let (entry, buffer) = bench.segment(seq, 0);
        bench.show(seq, &[Some(entry)]).expect("a table");
        bench.reads();
        bench.give(seq, 0, buffer);
        assert_eq!(bench.received(), [seq]);
        bench.reader.window_limit() - seq
    };
    bench.reader.set_share(2);
    assert_eq!((bench.reader.window_limit(), bench.reader.take_dirty()), (WINDOW, (false, false)));
    let granted: Vec<_> = (0..WINDOW + 2).map(|_| take(&mut bench)).collect();
    assert_eq!(granted, [7, 6, 5, 4, 3, 2, 2, 2, 2, 2]);
    bench.reader.take_dirty();

    bench.reader.set_share(4);
    assert_eq!(bench.reader.window_limit(), 10 + 4);
    assert_eq!(bench.reader.take_dirty(), (true, false), "the writer is to hear of it");
    assert_eq!([take(&mut bench), take(&mut bench)], [4, 4]);
    bench.reader.set_share(1000);
    assert_eq!(bench.reader.window_limit(), 12 + WINDOW, "the window at most");
    bench.reader.set_share(1);
    assert_eq!(bench.reader.window_limit(), 12 + WINDOW);
    let granted: Vec<_> = (0..WINDOW).map(|_| take(&mut bench)).collect();
    assert_eq!(granted, [7, 6, 5, 4, 3, 2, 1, 1]);
}

/// A message in the table lies behind the places of all entries that the table claims to have.
#[test]
fn a_message_in_the_table_keeps_out_of_the_entries() {
    let shown = |start: usize, entries: usize| {
        let mut bench = Bench::new();
        let (mut entry, _) = bench.segment(1, 0);
        entry.ptr_process_segment_flg = SegmentFlags::IN_TABLE | SegmentFlags::CMD;
        entry.ptr_process_segment_ptr = start as u64;
        // With this nonce the place of the entry before the tag looks like a hole.
        let header = SegmentHeader { nonce: [0; 24], ..bench.stream.expected_header(&entry) };
        let payload = Payload::copy_of(&bench.pool, &1u64.to_le_bytes());
        let (body, prefix) = seal_segment(&bench.stream.key, header, Form::InTable, payload, &bench.pool);
        entry.seal_prefix = prefix;
        let mut shown = vec![None; entries];
        shown[0] = Some(entry);
        let mut table = bench.table(1, &shown);
        let end = table.entry_area.len().min(start + body.len());
        table.entry_area[start..end].copy_from_slice(&body[..end - start]);
        let taken = bench.reader.handle_table(bench.now, &table, &bench.layout, &bench.producer);
        (taken, bench.received())
    };
    let violated = (Err(CloseReason::ProtocolViolated), vec![]);
    assert_eq!(shown(2 * ENTRY_BYTES, 2), (Ok(()), vec![1]));
    assert_eq!(shown(2 * ENTRY_BYTES - 24, 2), violated, "in the place of the second entry");
    assert_eq!(shown(3648 - 48, 1), (Ok(()), vec![1]), "at the end");
    assert_eq!(shown(3648 - 47, 1), violated, "beyond the end");
}

#[test]
fn what_is_opened_is_not_read_again_for_another_attempt() {
    let mut bench = Bench::new();
    let (second, buffer) = bench.segment(2, 0);
    bench.show(1, &[None, Some(second)]).expect("a hole is allowed");
    assert_eq!(bench.reads(), [(2, 0)]);
    bench.give(2, 0, buffer);
    let (again, _) = bench.segment(2, 1);
    bench.show(1, &[None, Some(again)]).expect("a table");
    assert_eq!(bench.reads(), []);
    let (first, buffer) = bench.segment(1, 0);
    bench.show(1, &[Some(first)]).expect("a table");
    assert_eq!(bench.reads(), [(1, 0)]);
    bench.give(1, 0, buffer);
    assert_eq!(bench.received(), [1, 2]);
}

#[test]
fn a_table_that_breaks_the_protocol_is_named() {
    let beyond = |change: &dyn Fn(&mut PointerEntry)| {
        let mut bench = Bench::new();
        let (mut entry, _) = bench.segment(1, 0);
        change(&mut entry);
        bench.show(1, &[Some(entry)])
    };
    assert_eq!(beyond(&|_| {}), Ok(()));
    let violated = Err(CloseReason::ProtocolViolated);
    assert_eq!(beyond(&|entry| entry.ptr_process_block_seq = 2), violated, "in another's place");
    assert_eq!(beyond(&|entry| entry.connection_id_low ^= 1), violated, "of another connection");
    assert_eq!(beyond(&|entry| entry.ptr_process_segment_ptr += 1), violated, "in the middle of a segment");
    assert_eq!(beyond(&|entry| entry.device = 1), violated, "on a device that is not there");
    assert_eq!(beyond(&|entry| entry.plain_bytes += 1), violated, "two lengths");
    assert_eq!(beyond(&|entry| entry.ptr_process_blk_read = 2), violated, "more blocks than its bytes need");
    assert_eq!(
        beyond(&|entry| (entry.plain_bytes, entry.stored_bytes) = (1 << 20, 1 << 20)),
        violated,
        "too long"
    );
    let of_blocks = |flags: SegmentFlags, bytes: u32, blocks: u16| {
        beyond(&|entry| {
            (entry.ptr_process_segment_flg, entry.ptr_process_blk_read) = (flags, blocks);
            (entry.plain_bytes, entry.stored_bytes) = (bytes, bytes);
        })
    };
    assert_eq!(of_blocks(SegmentFlags::empty(), 1 << 16, 17), Ok(()), "the longest");
    assert_eq!(of_blocks(SegmentFlags::empty(), (1 << 16) + 1, 18), violated, "a byte and a block too long");
    assert_eq!(of_blocks(SegmentFlags::INLINE, 3840, 1), Ok(()), "the longest in a header block");
    assert_eq!(of_blocks(SegmentFlags::INLINE, 3841, 1), violated, "a byte too long for a header block");

    let mut bench = Bench::new();
    let entries: Vec<_> = (1..=WINDOW + 1).map(|seq| Some(bench.segment(seq % 8, 0).0)).collect();
    let numbered = |(seq, entry): (u64, Option<PointerEntry>)| {
        entry.map(|entry| PointerEntry { ptr_process_block_seq: seq, ..entry })
    };
    let entries: Vec<_> = (1..).zip(entries).map(numbered).collect();
    assert_eq!(bench.show(1, &entries[..8]), Ok(()));
    assert_eq!(bench.show(1, &entries), violated, "beyond the window");
}

#[test]
fn a_writer_that_forgot_what_it_said_runs_twice() {
    let twice = Err(CloseReason::DuplicateIdentity);
    let mut bench = Bench::new();
    let (first, buffer) = bench.segment(1, 1);
    bench.show(1, &[Some(first.clone())]).expect("a table");
    assert_eq!(bench.show(1, &[Some(first.clone())]), Ok(()));
    let other = PointerEntry { seal_prefix: [9; 16], ..first.clone() };
    assert_eq!(bench.show(1, &[Some(other)]), twice, "the same attempt with another seal");

    let mut bench = Bench::new();
    bench.show(1, &[Some(first.clone())]).expect("a table");
    assert_eq!(bench.show(1, &[Some(bench.segment(1, 0).0)]), twice, "an earlier attempt");

    let mut bench = Bench::new();
    bench.show(1, &[Some(first.clone())]).expect("a table");
    bench.reads();
    bench.give(1, 1, buffer);
    bench.show(2, &[]).expect("it was acknowledged");
    assert_eq!(bench.show(1, &[Some(first)]), twice, "what was acknowledged");
}
