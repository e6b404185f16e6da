//! FIG. 10A and 10B, the writing side of one direction.
//!
//! | step | what |
//! |---|---|
//! | W1 | take the next sequence number, within window, limit and credits, and a free segment |
//! | W2 | seal |
//! | W3 | write the data segment, wait for completion |
//! | W4, W5 | the entry goes into the own pointer table, which is written to the master |
//! | W6 | the reader's table frees segments or asks for one again |
//! | W7, W8 | LAST acknowledged: the entries are gone from the table |
//!
//! What holds: an entry is published only after its segment was written; a sealed buffer is kept until
//! the cumulative acknowledgement passes it; one sequence number names one plaintext for ever, attempts
//! differ in place and nonce only. Not here: when tables are written (`connection`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use storage_mapping::{Instant, SharedBuffer};
use volume::header::{Edition, Header, Place, RecordType};
use volume::record::Record;
use volume::{BlockAddress, SegmentNumber};

use super::depth::Depth;
use super::pair::DOUBT;
use super::pool::SegmentPool;
use super::seal::{Form, NONCE_BYTES, SealWork, TAG_BYTES, XaesKey};
use super::timer::ATTEMPTS_MAX;
use crate::format::process_id_table::CloseReason;
use crate::format::process_segment_pointer_table::{
    ENTRIES_BYTES, ENTRY_BYTES, Nack, PointerEntry, SegmentFlags,
};
use crate::format::segment::{Direction, INLINE_MAX_BYTES, Kind, SegmentHeader};
use crate::payload::{Segment, SegmentKind};
use crate::random::{Random, random_bytes};

/// Largest in-table message.
const IN_TABLE_MAX_BYTES: usize = 1024;
/// When a write in doubt, for which no other segment was free, is looked at again.
const DOUBT_LASTS: Duration = Duration::from_secs(1);
/// Segments that wait for a sequence number, at most: the source is asked only when there is room.
const QUEUED_MAX: usize = 4;
/// Of the entry area, what in-table messages may take beside a full window of entries.
const fn in_table_room(window: u64) -> usize {
    ENTRIES_BYTES.saturating_sub(window as usize * ENTRY_BYTES)
}

/// What both sides of a direction agree on; part of every seal.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Volume.
    pub volume_id: [u8; 16],
    /// Connection id.
    pub connection_id: [u8; 16],
    /// Direction.
    pub direction: Direction,
    /// Lane of the producer.
    pub owner: u16,
    /// Its incarnation.
    pub incarnation: u64,
    /// Low half of its incarnation nonce.
    pub nonce_low: u64,
    /// The producer's pointer table: the place of its in-table messages.
    pub table: Place,
    /// Key.
    pub key: Arc<XaesKey>,
}

impl Stream {
    /// Low half of the connection id, as pointer entries carry it.
    #[must_use]
    pub fn connection_id_low(&self) -> u64 {
        connection_id_low(&self.connection_id)
    }

    /// The header of the segment that `entry` points to, nonce, offset and seal as zeros.
    #[must_use]
    pub fn expected_header(&self, entry: &PointerEntry) -> SegmentHeader {
        let flags = entry.ptr_process_segment_flg;
        let in_table = flags.contains(SegmentFlags::IN_TABLE);
        let place = Place {
            volume_id: self.volume_id,
            owner: self.owner,
            index: 0,
            device: if in_table { self.table.device } else { entry.device },
            block: if in_table { self.table.block } else { entry.ptr_process_segment_ptr },
        };
        let edition = Edition { incarnation: self.incarnation, nonce_low: self.nonce_low, version: 0 };
        SegmentHeader {
            header: Header::new::<SegmentHeader>(RecordType::Segment, place, edition),
            connection_id: self.connection_id,
            direction: self.direction,
            kind: if flags.contains(SegmentFlags::CMD) {
                Kind::Command
            } else if flags.contains(SegmentFlags::PACK) {
                Kind::Pack
            } else {
                Kind::Data
            },
            flags,
            attempt: entry.attempt.into(),
            seq: entry.ptr_process_block_seq,
            request_id: entry.ptr_process_req_id,
            file_offset: 0,
            plain_bytes: entry.plain_bytes,
            stored_bytes: entry.stored_bytes,
            codec: 0,
            nonce: [0; NONCE_BYTES],
            seal: [0; 32],
        }
    }
}

/// Low half of a connection id.
#[must_use]
pub fn connection_id_low(connection_id: &[u8; 16]) -> u64 {
    u64::from_le_bytes(connection_id[..8].try_into().expect("8 bytes"))
}

/// Form of a segment by its flags.
#[must_use]
pub fn form_of(flags: SegmentFlags) -> Form {
    if flags.contains(SegmentFlags::IN_TABLE) {
        Form::InTable
    } else if flags.contains(SegmentFlags::INLINE) {
        Form::Inline
    } else {
        Form::Full
    }
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Sealing,
    /// It can be written when there is room on its device.
    Sealed,
    /// `look_at`: when it is, or was last found to be, in doubt.
    Writing {
        since: Instant,
        look_at: Instant,
    },
    Written,
}

#[derive(Debug)]
struct Outgoing {
    entry: PointerEntry,
    offset: u64,
    form: Form,
    place: Option<(SegmentNumber, BlockAddress)>,
    state: State,
    sealed: Option<SharedBuffer>,
    /// Header of the current seal.
    header: Box<SegmentHeader>,
}

/// Something for the layer above to do.
#[derive(Debug)]
pub enum WriterAction {
    /// Seal; the answer goes to [`Writer::handle_sealed`].
    Work {
        /// Sequence number.
        seq: u64,
        /// Attempt.
        attempt: u16,
        /// The work.
        work: SealWork,
    },
    /// Write; the answer goes to [`Writer::handle_written`].
    Write {
        /// Sequence number.
        seq: u64,
        /// Attempt.
        attempt: u16,
        /// Where.
        address: BlockAddress,
        /// What.
        bytes: SharedBuffer,
    },
}

/// Writes in doubt or given up whose completion has not come: (seq, attempt) → place.
type Abandoned = Vec<(u64, u16, (SegmentNumber, BlockAddress), bool)>;

/// The writing side of one direction.
#[derive(Debug)]
pub struct Writer {
    connection: u64,
    stream: Stream,
    window: u64,
    /// Of the window, what this process has memory for while other connections are open.
    share: u64,
    queue: VecDeque<Segment>,
    outgoing: VecDeque<Outgoing>,
    /// Sequence number of `outgoing[0]`.
    base: u64,
    peer_limit: u64,
    credits_blocks: u64,
    in_table_bytes: usize,
    /// Writes in flight.
    depth: Depth,
    abandoned: Abandoned,
    actions: VecDeque<WriterAction>,
    /// Something published has changed.
    dirty: bool,
    /// Somebody waits for what is unpublished.
    urgent: bool,
    /// Segments sent again.
    pub resends: u64,
}

impl Writer {
    /// A writer that starts at sequence number 1.
    #[must_use]
    pub fn new(connection: u64, stream: Stream, window: u64, segment_blocks: u64) -> Self {
        Self {
            connection,
            stream,
            window,
            share: window,
            queue: VecDeque::new(),
            outgoing: VecDeque::new(),
            base: 1,
            peer_limit: window,
            credits_blocks: window * segment_blocks,
            in_table_bytes: 0,
            depth: Depth::new(window as usize),
            abandoned: Vec::new(),
            actions: VecDeque::new(),
            dirty: false,
            urgent: false,
            resends: 0,
        }
    }

    /// Whether another segment may be queued.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.queue.len() < QUEUED_MAX && (self.outgoing.len() as u64) < self.share
    }

    /// Says how much of the window may be used; what is under way already stays.
    pub fn set_share(&mut self, share: u64) {
        self.share = share.min(self.window);
    }

    /// Whether everything handed in was acknowledged.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.queue.is_empty() && self.outgoing.is_empty()
    }

    /// Whether a message is under way and nothing else, so that its answer is what is waited for.
    #[must_use]
    pub fn awaits_answer(&self) -> bool {
        let is_message =
            |segment: &Outgoing| segment.entry.ptr_process_segment_flg.contains(SegmentFlags::CMD);
        !self.outgoing.is_empty() && self.outgoing.iter().all(is_message)
    }

    /// Whether no write is in flight, abandoned ones included.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.abandoned.is_empty()
            && self.outgoing.iter().all(|segment| !matches!(segment.state, State::Writing { .. }))
    }

    /// Half of what it may send or more is unacknowledged: nobody needs the next table at once.
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        self.outgoing.len() as u64 * 2 >= self.share
    }

    /// The next action.
    pub fn poll_action(&mut self) -> Option<WriterAction> {
        self.actions.pop_front()
    }

    /// Takes the mark that the table must be written; the second is true if at once.
    pub fn take_dirty(&mut self) -> (bool, bool) {
        (std::mem::take(&mut self.dirty), std::mem::take(&mut self.urgent))
    }

    /// Queues a segment.
    pub fn push(&mut self, now: Instant, segment: Segment, pool: &mut SegmentPool, random: &mut dyn Random) {
        self.queue.push_back(segment);
        self.fill(now, pool, random);
    }

    /// W1 and W2: gives waiting segments a number, a place and a seal, as long as there is room.
    pub fn fill(&mut self, _now: Instant, pool: &mut SegmentPool, random: &mut dyn Random) {
        while let Some(segment) = self.queue.front() {
            let seq = self.base + self.outgoing.len() as u64;
            let length = segment.payload.len();
            let form = self.form_for(segment);
            let blocks = form.blocks(length) as u64;
            if seq >= self.base + self.share
                || seq > self.peer_limit
                || (self.unacknowledged_blocks() + blocks > self.credits_blocks && !self.outgoing.is_empty())
            {
                return;
            }
            let place = if form == Form::InTable {
                None
            } else {
                let Some(place) = pool.take(self.connection, None) else { return };
                Some(place)
            };
            let segment = self.queue.pop_front().expect("looked at above");
            self.seal_new(seq, segment, form, place, random);
        }
    }

    fn form_for(&self, segment: &Segment) -> Form {
        let length = segment.payload.len();
        let need = NONCE_BYTES + TAG_BYTES + length;
        if segment.kind == SegmentKind::Command
            && length <= IN_TABLE_MAX_BYTES
            && self.in_table_bytes + need <= in_table_room(self.window)
        {
            Form::InTable
        } else if length <= INLINE_MAX_BYTES {
            Form::Inline
        } else {
            Form::Full
        }
    }

    fn seal_new(
        &mut self,
        seq: u64,
        segment: Segment,
        form: Form,
        place: Option<(SegmentNumber, BlockAddress)>,
        random: &mut dyn Random,
    ) {
        let length = u32::try_from(segment.payload.len()).expect("a payload is at most 64 MiB");
        let mut flags = match segment.kind {
            SegmentKind::Data => SegmentFlags::empty(),
            SegmentKind::Command => SegmentFlags::CMD,
            SegmentKind::Pack => SegmentFlags::PACK,
        };
        flags.set(SegmentFlags::LAST, segment.last);
        flags.set(SegmentFlags::INLINE, form == Form::Inline);
        flags.set(SegmentFlags::IN_TABLE, form == Form::InTable);
        let address = place.map_or(BlockAddress { device: 0, block: 0 }, |(_, address)| address);
        let entry = PointerEntry {
            ptr_process_block_seq: seq,
            attempt: 0,
            ptr_process_segment_flg: flags,
            device: address.device,
            ptr_process_blk_read: u16::try_from(form.blocks(segment.payload.len())).unwrap_or(u16::MAX),
            ptr_process_segment_ptr: address.block,
            ptr_process_req_id: segment.request,
            plain_bytes: length,
            stored_bytes: length,
            seal_prefix: [0; 16],
            connection_id_low: self.stream.connection_id_low(),
        };
        let header = Box::new(SegmentHeader {
            nonce: random_bytes(random),
            file_offset: if form == Form::InTable { 0 } else { segment.offset },
            ..self.stream.expected_header(&entry)
        });
        if form == Form::InTable {
            self.in_table_bytes += NONCE_BYTES + TAG_BYTES + segment.payload.len();
        }
        let work = SealWork::Seal {
            key: Arc::clone(&self.stream.key),
            header: header.clone(),
            form,
            payload: segment.payload,
        };
        self.outgoing.push_back(Outgoing {
            entry,
            offset: segment.offset,
            form,
            place,
            state: State::Sealing,
            sealed: None,
            header,
        });
        self.actions.push_back(WriterAction::Work { seq, attempt: 0, work });
    }

    /// W3: the segment is sealed and can be written.
    pub fn handle_sealed(
        &mut self,
        now: Instant,
        seq: u64,
        attempt: u16,
        sealed: SharedBuffer,
        prefix: [u8; 16],
    ) {
        let Some(segment) = self.find(seq, attempt) else { return };
        segment.entry.seal_prefix = prefix;
        segment.sealed = Some(sealed.clone());
        match segment.place {
            None => {
                segment.state = State::Written;
                self.dirty = true;
                self.urgent = true;
            }
            Some(_) => {
                segment.state = State::Sealed;
                self.issue(now);
            }
        }
    }

    /// W3: writes what is sealed, in order, as far as there is room on its device.
    fn issue(&mut self, now: Instant) {
        for segment in self.outgoing.iter_mut().filter(|segment| segment.state == State::Sealed) {
            let (_, address) = segment.place.expect("what has no place is not written");
            let (seq, attempt) = (segment.entry.ptr_process_block_seq, segment.entry.attempt);
            if self.depth.begin(now, (seq, attempt), address.device, segment.entry.ptr_process_blk_read) {
                let bytes = segment.sealed.clone().expect("it is sealed");
                segment.state = State::Writing { since: now, look_at: now + DOUBT };
                self.actions.push_back(WriterAction::Write { seq, attempt, address, bytes });
            }
        }
    }

    /// W4: the segment is on the disk; its entry may be published. After an error it goes elsewhere.
    ///
    /// # Errors
    /// If a sequence number has used up its attempts.
    pub fn handle_written(
        &mut self,
        now: Instant,
        seq: u64,
        attempt: u16,
        success: bool,
        pool: &mut SegmentPool,
        random: &mut dyn Random,
    ) -> Result<(), CloseReason> {
        self.depth.end(now, seq, attempt);
        self.issue(now);
        let abandoned =
            self.abandoned.iter().position(|(number, tried, ..)| (*number, *tried) == (seq, attempt));
        if let Some(index) = abandoned {
            let (_, _, place, doubtful) = self.abandoned.swap_remove(index);
            pool.give(now, self.connection, place, doubtful);
            return Ok(());
        }
        let Some(segment) = self.find(seq, attempt) else { return Ok(()) };
        if success {
            segment.state = State::Written;
            let last = segment.entry.ptr_process_segment_flg.contains(SegmentFlags::LAST);
            self.dirty = true;
            self.urgent |= last;
            return Ok(());
        }
        segment.state = State::Written;
        self.send_again(now, seq, false, pool, random)
    }

    /// W6: the reader's acknowledgement, limit and negative acknowledgements.
    ///
    /// # Errors
    /// If the reader acknowledges what was never published, or less than before (it runs twice, or was set
    /// back to an older state: what it has forgotten would never be sent again), or a segment has used up
    /// its attempts.
    pub fn handle_marks(
        &mut self,
        now: Instant,
        received: u64,
        window_limit: u64,
        credits_blocks: u64,
        nacks: &[Nack],
        pool: &mut SegmentPool,
        random: &mut dyn Random,
    ) -> Result<(), CloseReason> {
        let published = self.base + self.outgoing.len() as u64;
        if received >= published {
            return Err(CloseReason::ProtocolViolated);
        }
        if received + 1 < self.base {
            return Err(CloseReason::DuplicateIdentity);
        }
        while self.base <= received {
            let segment = self.outgoing.pop_front().expect("checked above");
            self.forget(now, segment, pool);
            self.base += 1;
            self.dirty = true;
        }
        self.peer_limit = self.peer_limit.max(window_limit);
        self.credits_blocks = credits_blocks;
        for nack in nacks {
            let current =
                self.find(nack.seq, nack.attempt).is_some_and(|segment| segment.state == State::Written);
            if current {
                self.send_again(now, nack.seq, false, pool, random)?;
            }
        }
        self.fill(now, pool, random);
        Ok(())
    }

    fn forget(&mut self, now: Instant, segment: Outgoing, pool: &mut SegmentPool) {
        if segment.form == Form::InTable {
            let length = usize::try_from(segment.entry.stored_bytes).expect("an in-table message is small");
            self.in_table_bytes -= NONCE_BYTES + TAG_BYTES + length;
        }
        let Some(place) = segment.place else { return };
        if let State::Writing { since, .. } = segment.state {
            let doubtful = now.since(since) >= DOUBT;
            let entry = segment.entry;
            self.abandoned.push((entry.ptr_process_block_seq, entry.attempt, place, doubtful));
        } else {
            pool.give(now, self.connection, place, false);
        }
    }

    /// Seals a segment again for another place, one attempt on. `doubtful`: its write has not come back.
    fn send_again(
        &mut self,
        now: Instant,
        seq: u64,
        doubtful: bool,
        pool: &mut SegmentPool,
        random: &mut dyn Random,
    ) -> Result<(), CloseReason> {
        let Some(index) = seq.checked_sub(self.base).and_then(|index| usize::try_from(index).ok()) else {
            return Ok(());
        };
        let segment = &self.outgoing[index];
        if segment.entry.attempt + 1 >= ATTEMPTS_MAX {
            return Err(CloseReason::DeviceUnreliable);
        }
        // An in-table message has no other place; it is only published again.
        let Some(old_place) = segment.place else {
            self.dirty = true;
            return Ok(());
        };
        let place = match pool.take(self.connection, Some(old_place.1.device)) {
            Some(place) => place,
            // Every segment may wait behind this very one, so none would ever become free. Its write has
            // ended: it can go where it was. A late copy of the old write would be one more bad read.
            None if !doubtful => old_place,
            None => {
                let segment = &mut self.outgoing[index];
                if let State::Writing { look_at, .. } = &mut segment.state {
                    *look_at = now + DOUBT_LASTS;
                }
                return Ok(());
            }
        };
        let sealed = segment.sealed.clone().expect("a written segment was sealed");
        let (old, form) = (segment.header.clone(), segment.form);
        let mut entry = segment.entry.clone();
        if doubtful {
            self.abandoned.push((seq, entry.attempt, old_place, true));
        } else if place != old_place {
            pool.give(now, self.connection, old_place, false);
        }
        entry.attempt += 1;
        entry.device = place.1.device;
        entry.ptr_process_segment_ptr = place.1.block;
        let header = Box::new(SegmentHeader {
            nonce: random_bytes(random),
            file_offset: segment.offset,
            ..self.stream.expected_header(&entry)
        });
        let attempt = entry.attempt;
        let work =
            SealWork::Reseal { key: Arc::clone(&self.stream.key), old, sealed, header: header.clone(), form };
        let segment = &mut self.outgoing[index];
        *segment = Outgoing {
            entry,
            offset: segment.offset,
            form,
            place: Some(place),
            state: State::Sealing,
            sealed: None,
            header,
        };
        self.resends += 1;
        self.dirty = true;
        self.actions.push_back(WriterAction::Work { seq, attempt, work });
        Ok(())
    }

    /// Sends elsewhere what has been in flight for too long.
    ///
    /// # Errors
    /// If a segment has used up its attempts.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        pool: &mut SegmentPool,
        random: &mut dyn Random,
    ) -> Result<(), CloseReason> {
        let doubtful: Vec<u64> = self
            .outgoing
            .iter()
            .filter(|segment| matches!(segment.state, State::Writing { look_at, .. } if now >= look_at))
            .map(|segment| segment.entry.ptr_process_block_seq)
            .collect();
        for seq in doubtful {
            self.send_again(now, seq, true, pool, random)?;
        }
        self.issue(now);
        self.fill(now, pool, random);
        Ok(())
    }

    /// When a write in flight will be in doubt, or is to be looked at again, or holds up others no more.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        let look_at = self.outgoing.iter().filter_map(|segment| match segment.state {
            State::Writing { look_at, .. } => Some(look_at),
            State::Sealed => self.depth.next_room(),
            State::Sealing | State::Written => None,
        });
        look_at.min()
    }

    /// W5: fills the entry area of a table. Gives the number of entries.
    pub fn emit_entries(&self, area: &mut [u8; ENTRIES_BYTES]) -> u16 {
        area.fill(0);
        let mut count = 0;
        let mut end = ENTRIES_BYTES;
        for (index, segment) in self.outgoing.iter().enumerate() {
            if segment.state != State::Written || segment.sealed.is_none() {
                continue;
            }
            let mut entry = segment.entry.clone();
            if segment.form == Form::InTable {
                let body = segment.sealed.as_ref().expect("checked above");
                end -= body.len();
                area[end..end + body.len()].copy_from_slice(body);
                entry.ptr_process_segment_ptr = end as u64;
            }
            entry.emit(&mut area[index * ENTRY_BYTES..(index + 1) * ENTRY_BYTES]);
            count = index + 1;
        }
        assert!(count * ENTRY_BYTES <= end, "entries and in-table messages do not meet");
        u16::try_from(count).expect("at most 57")
    }

    /// Sequence number of entry 0.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The connection ends: every place goes back, those of writes in flight when they complete.
    pub fn handle_closed(&mut self, now: Instant, pool: &mut SegmentPool) {
        self.queue.clear();
        self.actions.clear();
        while let Some(segment) = self.outgoing.pop_front() {
            self.base += 1;
            self.forget(now, segment, pool);
        }
    }

    fn unacknowledged_blocks(&self) -> u64 {
        self.outgoing.iter().map(|segment| u64::from(segment.entry.ptr_process_blk_read)).sum()
    }

    fn find(&mut self, seq: u64, attempt: u16) -> Option<&mut Outgoing> {
        let index = usize::try_from(seq.checked_sub(self.base)?).ok()?;
        self.outgoing.get_mut(index).filter(|segment| segment.entry.attempt == attempt)
    }
}
