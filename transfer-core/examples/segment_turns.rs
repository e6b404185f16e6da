//! One segment on its way: its bytes, the tables that point to it, the writer and the reader of one direction, and two whole
//! endpoints; and what an endpoint does that has nothing to do. How it is called: `turns.rs` of the examples of `multipath`.

#[path = "../tests/endpoints/mod.rs"]
mod endpoints;
#[path = "../../multipath/examples/support/turns.rs"]
mod turns;
#[path = "../tests/volume_of_two/mod.rs"]
mod volume_of_two;

use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

use endpoints::{make_pair, make_volume};
use storage_mapping::{Buffer, BufferPool, Instant};
use transfer_core::format::process_id_table::{CloseReason, EntryState, Role};
use transfer_core::format::process_segment_pointer_table::{
    ENTRIES_BYTES, ENTRY_BYTES, PointerEntry, PointerTable, SegmentFlags, TableFlags,
};
use transfer_core::format::segment::{ASSOCIATED_BYTES, SegmentHeader};
use transfer_core::payload::{Payload, Segment, SegmentKind};
use transfer_core::protocol::pool::SegmentPool;
use transfer_core::protocol::reader::{Reader, ReaderAction};
use transfer_core::protocol::seal::{Form, open_segment, seal_segment};
use transfer_core::protocol::writer::{Stream, Writer, WriterAction};
use transfer_core::random::SeededRandom;
use turns::{HotFunction, Turn};
use volume::BLOCK_BYTES;
use volume::header::{Edition, Header, RecordType, emit_page, parse_page};
use volume::record::{Record, Rows};
use volume_of_two::{stream, volume_of_two};

const START: Instant = Instant(1_000_000_000);
const WINDOW: u64 = 8;
/// Little, so that what counts is what a segment costs beside its bytes.
const PAYLOAD: [u8; 64] = [7; 64];

const HOT_FUNCTIONS: [HotFunction; 10] = [
    ("buffer_take_and_give_back", buffers),
    ("segment_header_emit_and_parse", headers),
    ("segment_seal", seals),
    ("segment_open", opens),
    ("pointer_entry_emit_and_parse", entries),
    ("pointer_table_emit_and_parse", tables),
    ("pointer_table_seal_and_open", sealed_tables),
    ("segment_through_writer_and_reader", writer_and_reader),
    ("segment_through_two_endpoints", two_endpoints),
    ("endpoint_idle_poll", idle_endpoint),
];

fn main() -> Result<(), Box<dyn Error>> {
    turns::run(&HOT_FUNCTIONS)
}

/// A payload comes from the pool, and its buffer goes back.
fn buffers() -> Turn {
    let pool = BufferPool::new();
    Box::new(move |_| drop(black_box(Payload::outgoing(&pool, 1 << 16))))
}

fn entry(seq: u64) -> PointerEntry {
    let bytes = PAYLOAD.len() as u32;
    PointerEntry {
        ptr_process_block_seq: seq,
        attempt: 0,
        ptr_process_segment_flg: SegmentFlags::INLINE,
        device: 0,
        ptr_process_blk_read: 1,
        ptr_process_segment_ptr: 4000 + seq,
        ptr_process_req_id: 1,
        plain_bytes: bytes,
        stored_bytes: bytes,
        seal_prefix: [5; 16],
        connection_id_low: stream().connection_id_low(),
    }
}

fn header(stream: &Stream) -> SegmentHeader {
    SegmentHeader { nonce: [9; 24], ..stream.expected_header(&entry(1)) }
}

fn headers() -> Turn {
    let header = header(&stream());
    let mut page = [0; ASSOCIATED_BYTES];
    Box::new(move |_| {
        black_box(&header).emit(&mut page);
        assert!(SegmentHeader::parse(black_box(&page)).is_ok());
    })
}

fn seals() -> Turn {
    let (stream, pool) = (stream(), BufferPool::new());
    let header = header(&stream);
    Box::new(move |_| {
        let payload = Payload::copy_of(&pool, &PAYLOAD);
        drop(black_box(seal_segment(&stream.key, header.clone(), Form::Inline, payload, &pool)));
    })
}

fn opens() -> Turn {
    let (stream, pool) = (stream(), BufferPool::new());
    let header = header(&stream);
    let payload = Payload::copy_of(&pool, &PAYLOAD);
    let (sealed, _) = seal_segment(&stream.key, header.clone(), Form::Inline, payload, &pool);
    Box::new(move |_| {
        let mut buffer = pool.take(BLOCK_BYTES);
        buffer.copy_from_slice(&sealed);
        assert!(open_segment(&stream.key, &header, Form::Inline, buffer).is_some());
    })
}

fn entries() -> Turn {
    let entry = entry(1);
    let mut place = [0; ENTRY_BYTES];
    Box::new(move |_| {
        black_box(&entry).emit(&mut place);
        assert!(PointerEntry::parse(black_box(&place)).is_ok());
    })
}

/// A table with these entries.
fn table(stream: &Stream, entry_area: [u8; ENTRIES_BYTES], entry_count: u16, base_seq: u64) -> PointerTable {
    let edition = Edition { incarnation: 1, nonce_low: 2, version: 1 };
    PointerTable {
        header: Header::new::<PointerTable>(RecordType::PointerTable, stream.table, edition),
        connection_id: stream.connection_id,
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
        entry_area,
        base_seq,
        entry_count,
    }
}

fn full_table() -> PointerTable {
    let mut area = [0; ENTRIES_BYTES];
    for (seq, place) in (1..=WINDOW).zip(area.chunks_exact_mut(ENTRY_BYTES)) {
        entry(seq).emit(place);
    }
    table(&stream(), area, WINDOW as u16, 1)
}

fn tables() -> Turn {
    let table = full_table();
    let mut page = [0; BLOCK_BYTES];
    Box::new(move |_| {
        black_box(&table).emit(&mut page);
        let found = PointerTable::parse(black_box(&page)).expect("it was emitted just now");
        assert!(found.entries().is_some_and(|entries| entries.len() as u64 == WINDOW));
    })
}

fn sealed_tables() -> Turn {
    let (table, key) = (full_table(), [3; 32]);
    Box::new(move |_| {
        let page = emit_page(black_box(&table), Some(&key));
        assert!(parse_page::<PointerTable>(black_box(&page[..]), Some(&key)).is_ok());
    })
}

/// A segment goes from the writer over its table to the reader, and the reader's mark frees its place. Nothing is sealed:
/// what was sealed comes as it is, and is taken as opened.
fn writer_and_reader() -> Turn {
    let ((layout, own), pool) = (volume_of_two(), BufferPool::new());
    let (mut segments, mut random) = (SegmentPool::new(&layout, &own), SeededRandom::new(&[1; 32]));
    segments.open(1);
    let mut writer = Writer::new(1, stream(), WINDOW, layout.segment_blocks());
    let (stream, mut reader) = (stream(), Reader::new(stream(), WINDOW));
    let sealed = Buffer::zeroed(BLOCK_BYTES).freeze();
    Box::new(move |_| {
        writer.push(START, segment(&pool), &mut segments, &mut random);
        let Some(WriterAction::Work { seq, attempt, .. }) = writer.poll_action() else {
            unreachable!("a segment is sealed first");
        };
        writer.handle_sealed(START, seq, attempt, sealed.clone(), [0; 16]);
        let Some(WriterAction::Write { .. }) = writer.poll_action() else {
            unreachable!("and written then");
        };
        writer.handle_written(START, seq, attempt, true, &mut segments, &mut random).expect("it was written");
        let mut area = [0; ENTRIES_BYTES];
        let count = writer.emit_entries(&mut area);
        let table = table(&stream, area, count, writer.base());
        reader.handle_table(START, &table, &layout, &own).expect("what the writer says");
        let Some(ReaderAction::Read { .. }) = reader.poll_action() else {
            unreachable!("an entry is read");
        };
        reader.handle_read(START, seq, attempt, Some(pool.take_zeroed(BLOCK_BYTES)));
        let Some(ReaderAction::Work { .. }) = reader.poll_action() else {
            unreachable!("and opened then");
        };
        reader.handle_opened(START, seq, attempt, Some((Payload::copy_of(&pool, &PAYLOAD), 0)));
        drop(reader.poll_segment().expect("it is next"));
        let (received, limit) = (reader.received(), reader.window_limit());
        let credits = WINDOW * layout.segment_blocks();
        writer
            .handle_marks(START, received, limit, credits, &[], &mut segments, &mut random)
            .expect("what the reader says");
    })
}

fn segment(pool: &BufferPool) -> Segment {
    let payload = Payload::copy_of(pool, &PAYLOAD);
    Segment { kind: SegmentKind::Data, request: 1, offset: 0, last: true, payload }
}

/// Two endpoints over one volume in memory, between which a connection stands, and the time.
fn connected() -> ([endpoints::Process; 2], Instant) {
    let mut now = START;
    let mut both = make_pair(&make_volume(), &mut now);
    both[1].endpoint.connect(now, "beta").expect("it is not connected yet");
    endpoints::run(&mut now, &mut both, Duration::from_secs(5), |both, _| {
        both.iter().all(|process| process.connected().is_some())
    });
    (both, now)
}

/// A segment goes from one endpoint to the other: sealed, written, published, seen, read, opened and acknowledged.
fn two_endpoints() -> Turn {
    let (mut both, mut now) = connected();
    let call = both[1].connected().expect("it stands");
    Box::new(move |_| {
        let segment = segment(&both[1].buffers);
        both[1].endpoint.send(now, call, segment);
        endpoints::run(&mut now, &mut both, Duration::from_secs(5), |both, _| !both[0].received.is_empty());
        both[0].received.clear();
    })
}

/// An endpoint with a connection on which nothing happens is asked what there is to do.
fn idle_endpoint() -> Turn {
    let ([_, mut caller], now) = connected();
    while caller.step(now) {}
    Box::new(move |_| {
        caller.endpoint.handle_timeout(now);
        assert!(caller.endpoint.poll_io().is_none() && caller.endpoint.poll_work().is_none());
        assert!(caller.endpoint.poll_event().is_none());
        black_box(caller.endpoint.next_wakeup());
    })
}
