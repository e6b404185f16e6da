//! FIG. 11, the reading side of one direction.
//!
//! | step of the sheet | here |
//! |---|---|
//! | 250 | the expected number is `received` + 1; its entry is number − base of the writer's table |
//! | 252, 254 | new entries? else the connection polls on |
//! | 256 | read the segment, several at once |
//! | 258 | open its seal with the header that *we* expect |
//! | 260, 262 | `received` and `read_flags` go into the own table, which is written back |
//! | 264–268 | LAST ends a message; the writer's entries go, marks are cleared |
//!
//! What holds: bytes are handed out as number n only if they opened as number n, in order, once. An
//! entry is a hint and nothing more. Bad segments are read again, then asked for again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use storage_mapping::Instant;
use volume::{BLOCK_BYTES, BlockAddress, Layout};

use super::depth::Depth;
use super::seal::{Form, SealWork, open_in_table};
use super::timer::{READS_MAX, REREAD_PAUSE};
use super::writer::{Stream, form_of};
use crate::format::host_table::HostRecord;
use crate::format::process_id_table::CloseReason;
use crate::format::process_segment_pointer_table::{
    NACKS_MAX, Nack, PointerEntry, PointerTable, SegmentFlags,
};
use crate::format::segment::SEAL_RANGE;
use crate::payload::{Payload, Segment, SegmentKind};

/// Reason of a negative acknowledgement: the seal does not open.
const NACK_SEAL: u16 = 1;

/// What a read completion brings: the buffer, or nothing after an error.
pub type ReadOutcome = Option<storage_mapping::Buffer>;

#[derive(Debug)]
enum State {
    /// Waiting to be read at a time.
    Pending {
        at: Instant,
    },
    /// It can be read when there is room on its device.
    Due,
    Reading,
    Opening,
    Opened(Segment),
    /// Given up until the writer sends another attempt.
    Nacked,
}

#[derive(Debug)]
struct Incoming {
    entry: PointerEntry,
    state: State,
    reads: u32,
}

/// Something for the layer above to do.
#[derive(Debug)]
pub enum ReaderAction {
    /// Read; the answer goes to [`Reader::handle_read`].
    Read {
        /// Sequence number.
        seq: u64,
        /// Attempt.
        attempt: u16,
        /// Where.
        address: BlockAddress,
        /// Length in bytes.
        length: usize,
    },
    /// Open; the answer goes to [`Reader::handle_opened`].
    Work {
        /// Sequence number.
        seq: u64,
        /// Attempt.
        attempt: u16,
        /// The work.
        work: SealWork,
    },
}

/// The reading side of one direction.
#[derive(Debug)]
pub struct Reader {
    stream: Stream,
    window: u64,
    /// Of the window, what this process has memory for while other connections are open.
    share: u64,
    /// Highest number that was granted: it never falls.
    granted: u64,
    received: u64,
    /// The writer's first unacknowledged sequence number, as last seen.
    base_seen: u64,
    /// Attempt and seal of each entry from there on, as last published.
    published: BTreeMap<u64, (u16, [u8; 16])>,
    delivered: u64,
    incoming: BTreeMap<u64, Incoming>,
    ready: VecDeque<Segment>,
    /// Reads in flight.
    depth: Depth,
    actions: VecDeque<ReaderAction>,
    dirty: bool,
    urgent: bool,
    /// Segments that did not open.
    pub torn: u64,
}

impl Reader {
    /// A reader that expects number 1.
    #[must_use]
    pub fn new(stream: Stream, window: u64) -> Self {
        Self {
            stream,
            window,
            share: window,
            granted: window,
            received: 0,
            base_seen: 0,
            published: BTreeMap::new(),
            delivered: 0,
            incoming: BTreeMap::new(),
            ready: VecDeque::new(),
            depth: Depth::new(window as usize),
            actions: VecDeque::new(),
            dirty: false,
            urgent: false,
            torn: 0,
        }
    }

    /// Every segment up to this was opened and is in memory.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Highest sequence number the writer may publish.
    #[must_use]
    pub fn window_limit(&self) -> u64 {
        self.granted
    }

    /// Says how much of the window may be granted; what was granted already stays.
    pub fn set_share(&mut self, share: u64) {
        self.share = share.min(self.window);
        self.grant();
    }

    fn grant(&mut self) {
        let limit = self.delivered + self.share;
        self.dirty |= limit > self.granted && self.ready.is_empty();
        self.granted = self.granted.max(limit);
    }

    /// Four or more segments are on their way: the next table can wait.
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        self.incoming.len() >= 4
    }

    /// Whether no read is in flight.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        !self.incoming.values().any(|incoming| matches!(incoming.state, State::Reading))
    }

    /// Segments that can be taken, in order.
    #[must_use]
    pub fn segments_waiting(&self) -> usize {
        self.ready.len()
    }

    /// The next action.
    pub fn poll_action(&mut self) -> Option<ReaderAction> {
        self.actions.pop_front()
    }

    /// Takes the mark that the table must be written; the second is true if at once.
    pub fn take_dirty(&mut self) -> (bool, bool) {
        (std::mem::take(&mut self.dirty), std::mem::take(&mut self.urgent))
    }

    /// The next segment, in order. Taking it grants the writer one more.
    pub fn poll_segment(&mut self) -> Option<Segment> {
        let segment = self.ready.pop_front()?;
        self.delivered += 1;
        // Limits are worth a table of their own only when a quarter of a window has gathered.
        self.dirty |= self.delivered.is_multiple_of((self.share / 4).max(1)) || self.ready.is_empty();
        self.grant();
        Some(segment)
    }

    /// Steps 250 to 256: looks at the entries of the writer's table, as published.
    ///
    /// # Errors
    /// If the table points outside the writer's segments or beyond what it was granted; or if the writer has
    /// forgotten what it published: it runs twice, or was set back to an older state, and one of its two
    /// selves would fill the places of the other.
    pub fn handle_table(
        &mut self,
        now: Instant,
        table: &PointerTable,
        layout: &Layout,
        producer: &HostRecord,
    ) -> Result<(), CloseReason> {
        let entries = table.entries().ok_or(CloseReason::ProtocolViolated)?;
        if table.base_seq < self.base_seen {
            return Err(CloseReason::DuplicateIdentity);
        }
        self.base_seen = table.base_seq;
        self.published = self.published.split_off(&table.base_seq);
        for (index, entry) in entries.into_iter().enumerate() {
            let Some(entry) = entry else { continue };
            let seq = entry.ptr_process_block_seq;
            if table.base_seq.checked_add(index as u64) != Some(seq)
                || entry.connection_id_low != self.stream.connection_id_low()
                || seq > self.window_limit()
            {
                return Err(CloseReason::ProtocolViolated);
            }
            let this = (entry.attempt, entry.seal_prefix);
            if self.published.insert(seq, this).is_some_and(|was| was.0 >= this.0 && was != this) {
                return Err(CloseReason::DuplicateIdentity);
            }
            if seq <= self.received {
                continue;
            }
            let known = self.incoming.get(&seq);
            let newer = known.is_none_or(|known| {
                known.entry.attempt < entry.attempt && !matches!(known.state, State::Opened(_))
            });
            if newer {
                self.start(now, entry, table, layout, producer)?;
            }
        }
        Ok(())
    }

    fn start(
        &mut self,
        now: Instant,
        entry: PointerEntry,
        table: &PointerTable,
        layout: &Layout,
        producer: &HostRecord,
    ) -> Result<(), CloseReason> {
        let seq = entry.ptr_process_block_seq;
        if entry.ptr_process_segment_flg.contains(SegmentFlags::IN_TABLE) {
            return self.take_in_table(entry, table);
        }
        check_entry(&entry, layout, producer)?;
        self.incoming.insert(seq, Incoming { entry, state: State::Pending { at: now }, reads: 0 });
        self.issue(now);
        Ok(())
    }

    fn take_in_table(&mut self, entry: PointerEntry, table: &PointerTable) -> Result<(), CloseReason> {
        let body = in_table_body(&entry, table).ok_or(CloseReason::ProtocolViolated)?;
        let expected = self.stream.expected_header(&entry);
        // The page that carried it was authentic, so a body that does not open is the peer's fault.
        let payload =
            open_in_table(&self.stream.key, &expected, body).ok_or(CloseReason::ProtocolViolated)?;
        let seq = entry.ptr_process_block_seq;
        let segment = segment_of(&entry, payload, 0);
        self.incoming.insert(seq, Incoming { entry, state: State::Opened(segment), reads: 0 });
        self.advance();
        Ok(())
    }

    /// Issues the reads that are due, in order, as far as there is room on their devices.
    fn issue(&mut self, now: Instant) {
        for (seq, incoming) in &mut self.incoming {
            match incoming.state {
                State::Due => {}
                State::Pending { at } if at <= now => incoming.state = State::Due,
                _ => continue,
            }
            let entry = &incoming.entry;
            if !self.depth.begin(now, (*seq, entry.attempt), entry.device, entry.ptr_process_blk_read) {
                continue;
            }
            incoming.state = State::Reading;
            incoming.reads += 1;
            self.actions.push_back(ReaderAction::Read {
                seq: *seq,
                attempt: entry.attempt,
                address: BlockAddress { device: entry.device, block: entry.ptr_process_segment_ptr },
                length: usize::from(entry.ptr_process_blk_read) * BLOCK_BYTES,
            });
        }
    }

    /// Step 258: what was read goes to be opened.
    pub fn handle_read(&mut self, now: Instant, seq: u64, attempt: u16, outcome: ReadOutcome) {
        self.depth.end(now, seq, attempt);
        self.issue(now);
        let Some(incoming) = self.incoming.get_mut(&seq) else { return };
        if incoming.entry.attempt != attempt || !matches!(incoming.state, State::Reading) {
            return;
        }
        let Some(buffer) = outcome else { return self.handle_failed(now, seq) };
        // The entry repeats the seal: old bytes at this place are seen without opening them.
        let prefix = SEAL_RANGE.start..SEAL_RANGE.start + incoming.entry.seal_prefix.len();
        if buffer.get(prefix) != Some(&incoming.entry.seal_prefix[..]) {
            self.torn += 1;
            return self.handle_failed(now, seq);
        }
        incoming.state = State::Opening;
        let work = SealWork::Open {
            key: Arc::clone(&self.stream.key),
            expected: Box::new(self.stream.expected_header(&incoming.entry)),
            form: form_of(incoming.entry.ptr_process_segment_flg),
            buffer,
        };
        self.actions.push_back(ReaderAction::Work { seq, attempt, work });
    }

    /// Steps 258 and 260: the outcome of opening.
    pub fn handle_opened(&mut self, now: Instant, seq: u64, attempt: u16, opened: Option<(Payload, u64)>) {
        let Some(incoming) = self.incoming.get_mut(&seq) else { return };
        if incoming.entry.attempt != attempt || !matches!(incoming.state, State::Opening) {
            return;
        }
        let Some((payload, offset)) = opened else {
            self.torn += 1;
            return self.handle_failed(now, seq);
        };
        incoming.state = State::Opened(segment_of(&incoming.entry, payload, offset));
        self.advance();
    }

    fn handle_failed(&mut self, now: Instant, seq: u64) {
        let Some(incoming) = self.incoming.get_mut(&seq) else { return };
        if incoming.reads < READS_MAX {
            incoming.state = State::Pending { at: now + REREAD_PAUSE };
        } else {
            incoming.state = State::Nacked;
            self.dirty = true;
            self.urgent = true;
        }
    }

    /// Hands over what is next in order.
    fn advance(&mut self) {
        while let Some(first) = self.incoming.first_entry() {
            let next = *first.key() == self.received + 1 && matches!(first.get().state, State::Opened(_));
            if !next {
                return;
            }
            if let State::Opened(segment) = first.remove().state {
                // Whoever sent a message waits for its answer, which takes the word along; a write of the table
                // for the word alone would hold the answer up.
                self.urgent |= segment.last && segment.kind != SegmentKind::Command;
                self.ready.push_back(segment);
                self.received += 1;
                self.dirty = true;
            }
        }
    }

    /// Time passed: reads that wait are issued.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.issue(now);
    }

    /// When the next read is due, or one in flight holds up others no more.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        let due = self.incoming.values().filter_map(|incoming| match incoming.state {
            State::Pending { at } => Some(at),
            State::Due => self.depth.next_room(),
            _ => None,
        });
        due.min()
    }

    /// The negative acknowledgements for the own table.
    #[must_use]
    pub fn nacks(&self) -> Vec<Nack> {
        let nacked = self.incoming.iter().filter(|(_, incoming)| matches!(incoming.state, State::Nacked));
        nacked
            .take(NACKS_MAX)
            .map(|(seq, incoming)| Nack { seq: *seq, attempt: incoming.entry.attempt, reason: NACK_SEAL })
            .collect()
    }

    /// Marks of segments read ahead of order (step 260).
    #[must_use]
    pub fn read_flags(&self) -> u64 {
        let opened = self.incoming.iter().filter(|(_, incoming)| matches!(incoming.state, State::Opened(_)));
        opened.fold(0, |flags, (seq, _)| match seq - self.received - 1 {
            bit @ 0..64 => flags | 1 << bit,
            _ => flags,
        })
    }
}

fn segment_of(entry: &PointerEntry, payload: Payload, offset: u64) -> Segment {
    let flags = entry.ptr_process_segment_flg;
    Segment {
        kind: if flags.contains(SegmentFlags::CMD) {
            SegmentKind::Command
        } else if flags.contains(SegmentFlags::PACK) {
            SegmentKind::Pack
        } else {
            SegmentKind::Data
        },
        request: entry.ptr_process_req_id,
        offset,
        last: flags.contains(SegmentFlags::LAST),
        payload,
    }
}

/// An entry must point to a whole segment of the producer's pool, with lengths that fit.
fn check_entry(entry: &PointerEntry, layout: &Layout, producer: &HostRecord) -> Result<(), CloseReason> {
    let address = BlockAddress { device: entry.device, block: entry.ptr_process_segment_ptr };
    let owned = layout.segment_at(address).is_some_and(|number| producer.owns_segment(number));
    let form = form_of(entry.ptr_process_segment_flg);
    let stored = usize::try_from(entry.stored_bytes).unwrap_or(usize::MAX);
    let fits = stored <= usize::try_from(layout.master.seg_max).unwrap_or(0)
        && (form != Form::Inline || stored <= crate::format::segment::INLINE_MAX_BYTES)
        && form.blocks(stored) == usize::from(entry.ptr_process_blk_read)
        && entry.plain_bytes == entry.stored_bytes;
    if owned && fits { Ok(()) } else { Err(CloseReason::ProtocolViolated) }
}

fn in_table_body<'a>(entry: &PointerEntry, table: &'a PointerTable) -> Option<&'a [u8]> {
    let start = usize::try_from(entry.ptr_process_segment_ptr).ok()?;
    let length = usize::try_from(entry.stored_bytes).ok()?;
    let total = length.checked_add(super::seal::NONCE_BYTES + super::seal::TAG_BYTES)?;
    let used = usize::from(table.entry_count) * crate::format::process_segment_pointer_table::ENTRY_BYTES;
    table.entry_area.get(start..start.checked_add(total)?).filter(|_| start >= used)
}
