//! The records of a connection: entries of the process id table and their commands, pointer tables, segments.
//!
//! What holds: a command or segment opens only as what it was sealed as; whatever a peer with the right keys
//! writes into its pointer table, the reader looks only into that peer's own segments and hands out number
//! n as number n; whatever it acknowledges, the writer keeps one place for one segment. Not here: the state
//! of the connection around them (`hostile_disk`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use storage_mapping::{Buffer, BufferPool, Instant};
use transfer_core::format::process_id_table::{COMMAND_BODY_MAX_BYTES, CommandStructure, ProcessIdEntry};
use transfer_core::format::process_segment_pointer_table::{
    ENTRIES_BYTES, ENTRIES_MAX, ENTRY_BYTES, Nack, PointerEntry, PointerTable, SegmentFlags,
};
use transfer_core::format::segment::{Direction, SegmentHeader};
use transfer_core::payload::{Payload, Segment, SegmentKind};
use transfer_core::protocol::connection::command::{PendingCommand, open_command, seal_command};
use transfer_core::protocol::pool::SegmentPool;
use transfer_core::protocol::reader::{Reader, ReaderAction};
use transfer_core::protocol::seal::{Form, SealDone, open_in_table, open_segment, seal_segment};
use transfer_core::protocol::writer::{Stream, Writer, WriterAction, form_of};
use transfer_core::random::SeededRandom;
use volume::BLOCK_BYTES;
use volume::header::{RecordType, emit_page, seal_page};
use volume::record::{Record, Wire};

use super::input::Input;
use super::record::{Mode, check_page, check_record, record_seeds, run_record, shape};
use super::sample::{CONNECTION_ID, SEGMENT_BYTES, VOLUME_ID, sample};

/// Segments in flight.
const WINDOW: u64 = 16;

/// Process id table entry: sealed for everybody, or with the keys of the connection.
///
/// # Panics
/// If a promise is broken.
pub fn process_id_entry(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mode = Mode(input.byte());
    let sample = sample();
    let key = (mode.variant() % 2 == 1).then_some(&sample.keys.page);
    let page = emit_page(&sample.process_id_entry(), key);
    let expected = (RecordType::ProcessIdEntry, sample.map().process_id_entry(0));
    let Some(entry) = run_record::<ProcessIdEntry>(&mut input, mode, &page, key, expected) else { return };
    if let Some(message) = entry.handshake() {
        assert_eq!(message.len(), usize::from(entry.handshake_length));
    }
    let ids = (entry.pro_process_id, entry.peer_process_id);
    let (owner, row) = sample.map().split(ids.1);
    assert!(owner == u16::MAX || u64::from(owner) * 4 + u64::from(row) == u64::from(ids.1));
    let body =
        open_command(&sample.keys, VOLUME_ID, entry.connection_id, Direction::ToConnector, &entry.pro_dtd);
    assert!(body.is_none(), "a command that nobody sealed");
}

/// Command structure: a sealed command, changed.
///
/// # Panics
/// If a promise is broken.
pub fn command_structure(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mode = Mode(input.byte());
    let keys = &sample().keys;
    let length = usize::from(input.short()) % (COMMAND_BODY_MAX_BYTES + 1);
    let pending = PendingCommand { opcode: input.short(), request: input.number(), body: vec![0x5A; length] };
    let number = input.number();
    let direction = Direction::ToConnector;
    let command = seal_command(keys, VOLUME_ID, CONNECTION_ID, direction, number, &pending, [1; 24]);
    let mut emitted = vec![0; CommandStructure::SIZE];
    command.emit(&mut emitted);
    if mode.raw() {
        let rest = input.rest();
        let length = rest.len().min(emitted.len());
        emitted[..length].copy_from_slice(&rest[..length]);
    } else {
        input.patch(&mut emitted, CommandStructure::FIELDS);
    }
    let Some(found) = check_record::<CommandStructure>(&emitted, mode.show()) else { return };
    let opened = open_command(keys, VOLUME_ID, CONNECTION_ID, direction, &found);
    // `flags` and what stands behind the body are not under the seal: they mean nothing.
    let unsealed = CommandStructure { flags: command.flags, body: command.body, ..found.clone() };
    let same = unsealed == command && found.body[..length] == command.body[..length];
    assert_eq!(opened.is_some(), same, "a command opens as what it was sealed as");
    assert!(opened.is_none_or(|body| body == pending.body));
    assert!(open_command(keys, VOLUME_ID, CONNECTION_ID, Direction::ToInitiator, &found).is_none());
    assert!(open_command(keys, VOLUME_ID, [0; 16], direction, &found).is_none());
}

/// Process segment pointer table: entries of all kinds with genuine seals, changed, given to a reader.
///
/// # Panics
/// If a promise is broken.
pub fn pointer_table(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mode = Mode(input.byte());
    let sample = sample();
    let key = Some(&sample.keys.page);
    let mut table = sample.pointer_table();
    table.base_seq = if mode.variant() & 1 == 0 { 1 } else { input.number() };
    let count = usize::from(input.byte()) % (ENTRIES_MAX + 1);
    fill_table(&mut input, &mut table, count);
    let sound = emit_page(&table, key);
    let mut page = sound.clone();
    shape::<PointerTable>(&mut input, mode, &mut page);
    if mode.reseal() {
        seal_page(&mut page[..], key);
    }
    let Some(table) = check_page::<PointerTable>(&page, &sound, key, mode) else { return };
    let entries = table.entries();
    if let Some(entries) = &entries {
        assert_eq!(entries.len(), usize::from(table.entry_count));
    }
    read_table(&table);
}

/// Puts `count` entries into a table, some as messages in the table itself.
fn fill_table(input: &mut Input<'_>, table: &mut PointerTable, count: usize) {
    let sample = sample();
    let stream = sample.stream();
    let mut end = ENTRIES_BYTES;
    for index in 0..count {
        let kind = input.byte();
        if kind & 7 == 0 {
            continue;
        }
        let seq = table.base_seq.wrapping_add(index as u64);
        let mut entry = entry_for(&stream, seq, kind);
        if kind & 7 == 1 && end - 48 >= count * ENTRY_BYTES {
            end -= 48;
            entry.ptr_process_segment_ptr = end as u64;
            entry.ptr_process_segment_flg = SegmentFlags::CMD | SegmentFlags::IN_TABLE;
            (entry.plain_bytes, entry.stored_bytes, entry.ptr_process_blk_read) = (8, 8, 0);
            table.entry_area[end..end + 48].copy_from_slice(&sealed(&stream, &entry, seq).0);
        }
        entry.emit(&mut table.entry_area[index * ENTRY_BYTES..(index + 1) * ENTRY_BYTES]);
    }
    table.entry_count = u16::try_from(count).expect("at most 57");
}

/// An entry for a segment that would open: which of the pool, and how long, says `kind`.
fn entry_for(stream: &Stream, seq: u64, kind: u8) -> PointerEntry {
    let sample = sample();
    let range = &sample.host(0).pool_ranges[0];
    let number = range.first_segment + u64::from(kind >> 3) % range.count;
    let place = sample.layout.locate(volume::SegmentNumber(number)).expect("a segment of the pool");
    let inline = kind & 1 == 0;
    let mut entry = PointerEntry {
        ptr_process_block_seq: seq,
        attempt: 0,
        ptr_process_segment_flg: if inline { SegmentFlags::INLINE } else { SegmentFlags::empty() },
        device: place.device,
        ptr_process_blk_read: if inline { 1 } else { 2 },
        ptr_process_segment_ptr: place.block,
        ptr_process_req_id: 1,
        plain_bytes: 8,
        stored_bytes: 8,
        seal_prefix: [0; 16],
        connection_id_low: stream.connection_id_low(),
    };
    entry.seal_prefix = sealed(stream, &entry, seq).1;
    entry
}

/// The segment of `entry`: its payload is its number.
fn sealed(stream: &Stream, entry: &PointerEntry, seq: u64) -> (Vec<u8>, [u8; 16]) {
    let pool = BufferPool::new();
    let payload = Payload::copy_of(&pool, &seq.to_le_bytes());
    let header = SegmentHeader { nonce: [9; 24], ..stream.expected_header(entry) };
    let form = form_of(entry.ptr_process_segment_flg);
    let (bytes, prefix) = seal_segment(&stream.key, header, form, payload, &pool);
    (bytes.to_vec(), prefix)
}

/// What a reader makes of a table: nothing outside the producer's segments, everything in order.
fn read_table(table: &PointerTable) {
    let sample = sample();
    let (stream, producer) = (sample.stream(), sample.host(0));
    let mut reader = Reader::new(stream.clone(), WINDOW);
    let mut now = Instant(1);
    let (mut delivered, mut reads) = (0u64, 0usize);
    for _ in 0..3 {
        let refused = reader.handle_table(now, table, &sample.layout, producer).is_err();
        while let Some(action) = reader.poll_action() {
            match action {
                ReaderAction::Read { seq, attempt, address, length } => {
                    reads += 1;
                    let number = sample.layout.segment_at(address).expect("a segment starts there");
                    assert!(producer.owns_segment(number), "a read outside the producer's pool");
                    assert!((BLOCK_BYTES..=SEGMENT_BYTES as usize + BLOCK_BYTES).contains(&length));
                    assert!((1..=WINDOW * 4).contains(&seq), "{seq} was never granted");
                    reader.handle_read(now, seq, attempt, on_disk(table, &stream, seq, length));
                }
                ReaderAction::Work { seq, attempt, work } => {
                    let opened = match work.run(&BufferPool::new()) {
                        SealDone::Opened(payload, offset) => Some((payload, offset)),
                        SealDone::Failed | SealDone::Sealed(..) => None,
                    };
                    reader.handle_opened(now, seq, attempt, opened);
                }
            }
            assert!(reads <= 4 * 3 * ENTRIES_MAX, "reads without end");
        }
        while let Some(segment) = reader.poll_segment() {
            delivered += 1;
            assert_eq!(segment.payload.bytes(), delivered.to_le_bytes(), "number n is not number n");
        }
        assert_eq!(reader.received(), delivered);
        assert!(reader.nacks().len() <= 12 && reader.window_limit() == delivered + WINDOW);
        let _ = (reader.read_flags(), reader.is_bulk(), reader.next_wakeup());
        now = now + Duration::from_secs(1);
        reader.handle_timeout(now);
        if refused {
            return;
        }
    }
}

/// What stands where the entry of `seq` points: the genuine segment, if the entry could have one.
fn on_disk(table: &PointerTable, stream: &Stream, seq: u64, length: usize) -> Option<Buffer> {
    let mut buffer = Buffer::zeroed(length);
    let index = usize::try_from(seq.wrapping_sub(table.base_seq)).ok()?;
    let entry = table.entries()?.get(index)?.clone()?;
    if entry.stored_bytes == 8 {
        let (bytes, _) = sealed(stream, &entry, seq);
        let length = bytes.len().min(length);
        buffer[..length].copy_from_slice(&bytes[..length]);
    }
    Some(buffer)
}

/// What a writer makes of acknowledgements, of failed writes and of time.
///
/// # Panics
/// If a promise is broken.
pub fn writer_marks(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let sample = sample();
    let own = sample.host(0);
    let mut writer = Writer::new(1, sample.stream(), WINDOW, sample.layout.segment_blocks());
    let mut pool = SegmentPool::new(&sample.layout, own);
    pool.open(1);
    let mut random = SeededRandom::new(&[1; 32]);
    let buffers = BufferPool::new();
    let mut now = Instant(1);
    let mut sealing = Vec::new();
    // Writes in flight, and the segments that carry a number now.
    let mut writing: BTreeMap<(u64, u16), volume::BlockAddress> = BTreeMap::new();
    let mut steps = 0;
    while !input.is_empty() && steps < 200 {
        steps += 1;
        let outcome = match input.byte() % 6 {
            0 if writer.has_room() => {
                let length = [8, 100, 3840, 5000][input.index(4)];
                let kind = [SegmentKind::Data, SegmentKind::Command, SegmentKind::Pack][input.index(3)];
                let payload = Payload::copy_of(&buffers, &vec![1; length]);
                let segment = Segment { kind, request: 1, offset: 0, last: length == 8, payload };
                writer.push(now, segment, &mut pool, &mut random);
                Ok(())
            }
            1 if !sealing.is_empty() => {
                let (seq, attempt, work): (u64, u16, transfer_core::protocol::seal::SealWork) =
                    sealing.swap_remove(input.index(sealing.len()));
                if let SealDone::Sealed(bytes, prefix) = work.run(&buffers) {
                    writer.handle_sealed(now, seq, attempt, bytes, prefix);
                } else {
                    panic!("own segments open");
                }
                Ok(())
            }
            2 if !writing.is_empty() => {
                let at = input.index(writing.len());
                let (seq, attempt) = *writing.keys().nth(at).expect("counted");
                writing.remove(&(seq, attempt));
                let success = input.byte() & 1 == 0;
                writer.handle_written(now, seq, attempt, success, &mut pool, &mut random)
            }
            3 => {
                let (received, limit) = (input.number(), input.number());
                let nack = Nack { seq: input.number(), attempt: input.short() % 8, reason: 1 };
                let nacks = if input.byte() & 1 == 0 { vec![nack.clone(), nack] } else { Vec::new() };
                let credits = u64::from(input.short());
                writer.handle_marks(now, received, limit, credits, &nacks, &mut pool, &mut random)
            }
            4 => {
                now = now + Duration::from_millis(input.number() % 100_000);
                pool.handle_timeout(now);
                writer.handle_timeout(now, &mut pool, &mut random)
            }
            _ => check_published(&writer),
        };
        while let Some(action) = writer.poll_action() {
            match action {
                WriterAction::Work { seq, attempt, work } => sealing.push((seq, attempt, work)),
                WriterAction::Write { seq, attempt, address, .. } => {
                    let number = sample.layout.segment_at(address).expect("a segment starts there");
                    assert!(own.owns_segment(number), "a write outside the own pool");
                    assert!(writing.values().all(|other| *other != address), "two writes for one place");
                    assert!(writing.insert((seq, attempt), address).is_none(), "one write for each attempt");
                }
            }
        }
        assert!(pool.free_count() <= pool.total());
        if outcome.is_err() {
            break;
        }
    }
    finish(writer, &mut pool, writing, now);
}

/// Entries that a reader could take, each place once.
fn check_published(writer: &Writer) -> Result<(), transfer_core::format::process_id_table::CloseReason> {
    let mut table = sample().pointer_table();
    table.entry_count = writer.emit_entries(&mut table.entry_area);
    let entries = table.entries().expect("the own entries parse");
    let mut places = BTreeSet::new();
    for (index, entry) in entries.iter().enumerate() {
        let Some(entry) = entry else { continue };
        assert_eq!(entry.ptr_process_block_seq, writer.base() + index as u64);
        if !entry.ptr_process_segment_flg.contains(SegmentFlags::IN_TABLE) {
            assert!(places.insert(entry.ptr_process_segment_ptr), "two entries for one place");
        }
    }
    Ok(())
}

/// The connection ends: when the last write has come back and rested, every segment is free again.
fn finish(
    mut writer: Writer,
    pool: &mut SegmentPool,
    writing: BTreeMap<(u64, u16), volume::BlockAddress>,
    now: Instant,
) {
    writer.handle_closed(now, pool);
    let mut random = SeededRandom::new(&[2; 32]);
    for (seq, attempt) in writing.into_keys() {
        let _ = writer.handle_written(now, seq, attempt, true, pool, &mut random);
    }
    assert!(writer.is_quiet() && writer.is_drained());
    pool.close(1);
    pool.handle_timeout(now + Duration::from_secs(3600));
    assert_eq!(pool.free_count(), pool.total(), "a segment was lost, or given back twice");
}

/// Segment header: a sealed segment of each form, changed, and opened with what was expected.
///
/// # Panics
/// If a promise is broken.
pub fn segment_header(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mode = Mode(input.byte());
    let stream = sample().stream();
    let seq = input.number();
    let mut entry = entry_for(&stream, seq, 8 + (mode.variant() as u8 & 1));
    let in_table = mode.variant() & 2 != 0;
    if in_table {
        entry.ptr_process_segment_flg = SegmentFlags::CMD | SegmentFlags::IN_TABLE;
    }
    let form = form_of(entry.ptr_process_segment_flg);
    let (sound, _) = sealed(&stream, &entry, seq);
    let mut bytes = sound.clone();
    if mode.raw() {
        bytes = input.rest().to_vec();
    } else {
        input.patch(&mut bytes, if in_table { &[] } else { SegmentHeader::FIELDS });
    }
    let expected = stream.expected_header(&entry);
    if in_table {
        let opened = open_in_table(&stream.key, &expected, &bytes);
        assert_eq!(opened.is_some(), bytes == sound, "a changed message opened");
        return;
    }
    check_record::<SegmentHeader>(&bytes, mode.show());
    let opened = open_segment(&stream.key, &expected, form, Buffer::copy_of(&bytes));
    let body = if form == Form::Inline { 256 } else { BLOCK_BYTES };
    let covered = |bytes: &[u8]| Some((bytes.get(..256)?.to_vec(), bytes.get(body..body + 8)?.to_vec()));
    assert_eq!(opened.is_some(), covered(&bytes) == covered(&sound), "a changed segment opened");
    if let Some((payload, _)) = opened {
        assert_eq!(payload.bytes(), seq.to_le_bytes());
    }
}

/// Inputs to begin with.
#[must_use]
pub fn process_id_entry_seeds() -> Vec<Vec<u8>> {
    record_seeds::<ProcessIdEntry>()
}

/// Inputs to begin with.
#[must_use]
pub fn command_structure_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0], vec![0, 0xC0, 7, 32, 0, 17, 17], vec![4, 0, 0, 1, 0, 17, 17]];
    for field in 0..u8::try_from(CommandStructure::FIELDS.len()).expect("few") {
        seeds.push(vec![8, 9, 0, 32, 0, 17, 17, 5, field, 1]);
    }
    seeds
}

/// Inputs to begin with.
#[must_use]
pub fn pointer_table_seeds() -> Vec<Vec<u8>> {
    let mut seeds = record_seeds::<PointerTable>();
    seeds.push(vec![1, 6, 9, 10, 11, 17, 18, 19]);
    seeds.push(vec![1, 57, 9, 9, 9, 9, 0, 9, 9]);
    for field in PointerEntry::FIELDS {
        let at = u8::try_from(field.offset).expect("below 64");
        seeds.push(vec![1, 2, 10, 11, 0, 0x80, at + 1 - 1, 1, 1]);
        seeds.push([&[1, 2, 10, 9, 1][..], &(384 + u16::from(at)).to_le_bytes(), &[0]].concat());
    }
    seeds
}

/// Inputs to begin with.
#[must_use]
pub fn writer_marks_seeds() -> Vec<Vec<u8>> {
    vec![
        vec![0, 0, 0, 1, 0, 2, 0, 0, 5, 3, 17, 40, 16, 0, 0, 1, 40, 0],
        vec![0, 1, 1, 1, 0, 5, 0, 3, 0, 1, 0, 2, 0, 1, 1, 0, 5, 4, 0xE0, 0xFF, 0xFF, 1, 0, 2, 0, 1],
        vec![0, 2, 0, 1, 0, 2, 0, 0, 3, 16, 40, 17, 0, 0, 0, 40, 0, 1, 0, 2, 0, 0, 5],
    ]
}

/// Inputs to begin with.
#[must_use]
pub fn segment_header_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = (0..64).map(|mode| vec![mode, 17]).collect();
    for field in 0..u8::try_from(SegmentHeader::FIELDS.len()).expect("few") {
        seeds.push(vec![0x00, 17, 5, field, 1]);
        seeds.push(vec![0x10, 17, 5, field, 1]);
    }
    seeds
}
