//! What we show: our entry and our table, and when they are written.
//!
//! What holds: one write of each pair is in flight; a table carries entries of written segments only;
//! CLOSED goes into the entry first and into the table after that. Not here: what we read (`peer_view`).

use storage_mapping::{Buffer, BufferPool, Instant};
use volume::BLOCK_BYTES;
use volume::header::{Edition, Header, HeaderFlags, Place, RecordType, seal_page};
use volume::record::{Record, Rows};

use super::command::seal_command;
use super::{Connection, ConnectionIo, Phase, Shared, Streams, nonce_low};
use crate::format::host_table::OsType;
use crate::format::map::{TableMap, address};
use crate::format::process_id_table::{CloseReason, EntryState, ProcessFlags, ProcessIdEntry, Role, Suite};
use crate::format::process_segment_pointer_table::{PointerTable, TableFlags};
use crate::format::segment::Direction;
use crate::protocol::endpoint::{Event, Identity};
use crate::protocol::handshake::{Hello, Session};
use crate::protocol::pair::{PairWrite, PairWriter};
use crate::protocol::reader::{Reader, ReaderAction};
use crate::protocol::seal::DirectionKeys;
use crate::protocol::timer::PUBLISH_GATHER;
use crate::protocol::writer::{Stream, Writer, WriterAction};
use crate::random::random_bytes;

impl Connection {
    pub(super) fn mark_dirty(&mut self, now: Instant, urgent: bool) {
        self.dirty_since.get_or_insert(now);
        self.urgent |= urgent;
    }

    /// Moves everything that can move: work, segment I/O, and the own table.
    pub(crate) fn pump(&mut self, shared: &mut Shared<'_>) {
        if matches!(self.phase, Phase::Ending | Phase::Ended) {
            return self.pump_ending(shared);
        }
        if self.entry_dirty && self.slot.entry.is_ready(shared.now) {
            self.write_entry(shared);
        }
        if self.phase != Phase::Established {
            return;
        }
        self.pump_actions(shared);
        if let Some(streams) = &mut self.streams {
            for (dirty, urgent) in [streams.writer.take_dirty(), streams.reader.take_dirty()] {
                if dirty {
                    self.dirty_since.get_or_insert(shared.now);
                    self.urgent |= urgent;
                }
            }
        }
        if shared.now >= self.keep_alive_due() {
            self.mark_dirty(shared.now, true);
        }
        self.publish_if_due(shared);
        self.finish_draining(shared);
    }

    pub(super) fn pump_actions(&mut self, shared: &mut Shared<'_>) {
        let Some(streams) = &mut self.streams else { return };
        while let Some(action) = streams.writer.poll_action() {
            match action {
                WriterAction::Work { seq, attempt, work } => {
                    shared.out.work(self.id, seq, attempt, false, work)
                }
                WriterAction::Write { seq, attempt, address, bytes } => {
                    shared.out.write(self.id, ConnectionIo::SegmentWrite(seq, attempt), address, bytes);
                }
            }
        }
        while let Some(action) = streams.reader.poll_action() {
            match action {
                ReaderAction::Work { seq, attempt, work } => {
                    shared.out.work(self.id, seq, attempt, true, work)
                }
                ReaderAction::Read { seq, attempt, address, length } => {
                    shared.out.read(self.id, ConnectionIo::SegmentRead(seq, attempt), address, length);
                }
            }
        }
    }

    /// Rule 35: publish when no table write is in flight and somebody waits or enough time has passed.
    pub(super) fn publish_if_due(&mut self, shared: &mut Shared<'_>) {
        let Some(since) = self.dirty_since else { return };
        let due = self.urgent || shared.now.since(since) >= PUBLISH_GATHER;
        if due && self.slot.table.is_ready(shared.now) {
            self.dirty_since = None;
            self.urgent = false;
            self.publish(shared);
        }
    }

    pub(super) fn finish_draining(&mut self, shared: &mut Shared<'_>) {
        let drained = self.streams.as_ref().is_none_or(|streams| streams.writer.is_drained());
        let told = self.dirty_since.is_none() && self.slot.table.is_idle() && self.commands.is_empty();
        let acked = self.command_acked == self.command_number;
        if self.draining_since.is_some() && drained && told && acked && !self.entry_dirty {
            self.end(shared, CloseReason::Done);
        }
    }

    /// Writes CLOSED into the entry, then into the table; then nothing is left to do.
    pub(super) fn pump_ending(&mut self, shared: &mut Shared<'_>) {
        if self.phase == Phase::Ended {
            return;
        }
        if self.entry_dirty {
            if self.slot.entry.is_ready(shared.now) {
                self.write_entry(shared);
            }
            return;
        }
        if !self.slot.entry.is_idle() {
            return;
        }
        if self.dirty_since.is_some() {
            if self.slot.table.is_ready(shared.now) {
                self.dirty_since = None;
                self.publish(shared);
            }
            return;
        }
        let quiet = self
            .streams
            .as_ref()
            .is_none_or(|streams| streams.writer.is_quiet() && streams.reader.is_quiet());
        if self.slot.table.is_idle() && quiet {
            self.phase = Phase::Ended;
            shared.pool.close(self.id.0);
        }
    }

    /// Seals the next command into the own entry, when the last one was taken.
    pub(super) fn place_command(&mut self, shared: &mut Shared<'_>) {
        let Some(streams) = &self.streams else { return };
        let ready = matches!(self.phase, Phase::Establishing | Phase::Established)
            && self.command_acked == self.command_number;
        if !ready {
            return;
        }
        let Some(command) = self.commands.pop_front() else { return };
        self.command_number += 1;
        self.command_in_place = seal_command(
            &streams.own,
            shared.layout.master.volume_id,
            streams.connection_id,
            self.direction().0,
            self.command_number,
            &command,
            random_bytes(shared.random),
        );
        self.entry_dirty = true;
        self.mark_dirty(shared.now, true);
    }

    pub(super) fn handle_entry_written(&mut self, shared: &mut Shared<'_>, version: u64, success: bool) {
        if !self.slot.entry.handle_written(shared.now, version, success) {
            return;
        }
        match self.phase {
            Phase::Requesting => {
                self.phase = Phase::Calling;
                self.poll_due = shared.now;
                shared.out.events.push_back(Event::CallsChanged);
            }
            Phase::Answering => {
                self.phase = Phase::Answered;
                self.poll_due = shared.now;
                shared.out.events.push_back(Event::AnswersChanged);
            }
            // What was written may be the repeated REQ; EST is written next.
            Phase::Establishing if self.entry_dirty => {}
            Phase::Establishing => self.enter_established(shared),
            _ => self.mark_dirty_after_entry(shared),
        }
    }

    /// The peer learns of a new entry by our table.
    pub(super) fn mark_dirty_after_entry(&mut self, shared: &mut Shared<'_>) {
        if self.phase == Phase::Established {
            self.mark_dirty(shared.now, true);
        }
    }

    pub(super) fn write_entry(&mut self, shared: &mut Shared<'_>) {
        self.entry_dirty = false;
        self.asserted = shared.now;
        let (me, buffers) = (shared.me, shared.buffers);
        let mut slot_entry = std::mem::replace(&mut self.slot.entry, PairWriter::new(placeholder()));
        let write = slot_entry.write(shared.now, |version, place| {
            let entry = self.build_entry(me, version, place);
            let key = entry.header.flags.contains(HeaderFlags::SEALED).then(|| self.own_page_key()).flatten();
            page_of(&entry, key.as_ref(), buffers)
        });
        self.slot.entry = slot_entry;
        self.push_pair_write(shared, write, false);
    }

    pub(super) fn own_page_key(&self) -> Option<[u8; 32]> {
        self.streams.as_ref().map(|streams| streams.own.page)
    }

    pub(super) fn build_entry(&self, me: &Identity, version: u64, place: Place) -> ProcessIdEntry {
        let edition = Edition { incarnation: me.incarnation, nonce_low: me.nonce_low(), version };
        let mut header = Header::new::<ProcessIdEntry>(RecordType::ProcessIdEntry, place, edition);
        let (state, sealed) = match self.phase {
            Phase::Requesting | Phase::Calling => (EntryState::Requested, false),
            Phase::Answering | Phase::Answered => (EntryState::Answered, false),
            Phase::Establishing | Phase::Established => (EntryState::Established, true),
            // A closed entry can only end the connection: it needs no key, and everyone may read it.
            Phase::Ending | Phase::Ended => (EntryState::Closed, false),
        };
        header.flags.set(HeaderFlags::SEALED, sealed);
        let initiator = self.role == Role::Initiator;
        let (own, other) = (me.name.clone(), self.peer.name.clone());
        let mut entry = ProcessIdEntry::unused(header, self.slot.process_id, self.role, state);
        if sealed {
            entry.connection_id = self.streams.as_ref().map_or([0; 16], |streams| streams.connection_id);
            entry.pro_flag_process.set(ProcessFlags::COMMAND, self.command_number > 0);
            entry.pro_dtd = self.command_in_place.clone();
        }
        entry.pro_flag_process.set(ProcessFlags::CLOSING, state == EntryState::Closed);
        entry.peer_process_id = self.peer_process_id;
        entry.pro_con_rc = self.close_reason;
        entry.peer_host = self.peer.lane;
        entry.serial = self.serial;
        entry.suite = Suite::Xaes256Gcm;
        entry.window = self.window;
        entry.seg_max = self.seg_max;
        entry.pro_requestor_type = OsType::Linux;
        entry.pro_requestee_type = OsType::Linux;
        entry.peer_incarnation = self.peer_incarnation;
        entry.own_nonce = self.own_nonce;
        entry.peer_nonce = self.peer_nonce;
        (entry.pro_requestor, entry.pro_requestee) = if initiator { (own, other) } else { (other, own) };
        if state != EntryState::Closed {
            entry.set_handshake(self.handshake.0, &self.handshake.1);
        }
        entry
    }

    /// W5 and step 262: writes the own table.
    pub(super) fn publish(&mut self, shared: &mut Shared<'_>) {
        let (me, buffers) = (shared.me, shared.buffers);
        self.keep_alive += 1;
        self.last_published = shared.now;
        let mut slot_table = std::mem::replace(&mut self.slot.table, PairWriter::new(placeholder()));
        let write = slot_table.write(shared.now, |version, place| {
            let table = self.build_table(me, version, place);
            page_of(&table, self.own_page_key().as_ref(), buffers)
        });
        self.slot.table = slot_table;
        self.push_pair_write(shared, write, true);
    }

    pub(super) fn build_table(&self, me: &Identity, version: u64, place: Place) -> PointerTable {
        let streams = self.streams.as_ref().expect("a table is published under keys");
        let edition = Edition { incarnation: me.incarnation, nonce_low: me.nonce_low(), version };
        let mut header = Header::new::<PointerTable>(RecordType::PointerTable, place, edition);
        header.flags = HeaderFlags::SEALED;
        let closed = matches!(self.phase, Phase::Ending | Phase::Ended);
        let nacks = streams.reader.nacks();
        let mut area = [0; crate::format::process_segment_pointer_table::ENTRIES_BYTES];
        let entry_count = streams.writer.emit_entries(&mut area);
        let segment_blocks = self.seg_max / 4096 + 1;
        PointerTable {
            header,
            connection_id: streams.connection_id,
            state: if closed {
                EntryState::Closed
            } else if self.draining_since.is_some() {
                EntryState::Draining
            } else {
                EntryState::Established
            },
            role: self.role,
            flags: if closed { TableFlags::CLOSING } else { TableFlags::empty() },
            serial: self.serial,
            keep_alive: self.keep_alive,
            entry_version: if self.slot.entry.is_idle() { self.slot.entry.version() } else { 0 },
            command_ack: self.command_taken,
            peer_process_id: self.peer_process_id,
            peer_host: self.peer.lane,
            close_reason: self.close_reason,
            peer_incarnation: self.peer_incarnation,
            received: streams.reader.received(),
            durable: 0,
            window_limit: streams.reader.window_limit(),
            credits: u32::from(self.window) * segment_blocks,
            nack_count: u16::try_from(nacks.len()).expect("at most 12"),
            read_flags: streams.reader.read_flags(),
            nacks: Rows::new(nacks).expect("at most 12"),
            entry_area: area,
            base_seq: streams.writer.base(),
            entry_count,
        }
    }

    pub(super) fn push_pair_write(&self, shared: &mut Shared<'_>, write: PairWrite, table: bool) {
        let io =
            if table { ConnectionIo::OwnTable(write.version) } else { ConnectionIo::OwnEntry(write.version) };
        shared.out.write(self.id, io, address(write.place), write.bytes);
    }

    pub(super) fn handle_segment_written(
        &mut self,
        shared: &mut Shared<'_>,
        seq: u64,
        attempt: u16,
        success: bool,
    ) {
        let Some(streams) = &mut self.streams else { return };
        let outcome =
            streams.writer.handle_written(shared.now, seq, attempt, success, shared.pool, shared.random);
        if let Err(reason) = outcome {
            self.end(shared, reason);
        }
    }

    /// Directions of this side: (out, in).
    pub(super) fn direction(&self) -> (Direction, Direction) {
        match self.role {
            Role::Connector => (Direction::ToInitiator, Direction::ToConnector),
            Role::Initiator | Role::None => (Direction::ToConnector, Direction::ToInitiator),
        }
    }

    pub(super) fn set_session(&mut self, shared: &Shared<'_>, session: Session, hello: &Hello) {
        let (own, peer) = match self.role {
            Role::Connector => (session.to_initiator, session.to_connector),
            Role::Initiator | Role::None => (session.to_connector, session.to_initiator),
        };
        let map = TableMap::new(shared.layout);
        let (out_direction, in_direction) = self.direction();
        let stream = |direction, keys: &DirectionKeys, process_id, owner, incarnation, nonce_low| Stream {
            volume_id: shared.layout.master.volume_id,
            connection_id: session.connection_id,
            direction,
            owner,
            incarnation,
            nonce_low,
            table: map.pointer_table(process_id),
            key: keys.data.clone(),
        };
        let me = shared.me;
        let out_stream =
            stream(out_direction, &own, self.slot.process_id, me.lane, me.incarnation, me.nonce_low());
        let in_stream = stream(
            in_direction,
            &peer,
            self.peer_process_id,
            self.peer.lane,
            hello.incarnation,
            nonce_low(&hello.incarnation_nonce),
        );
        let window = u64::from(self.window);
        let segment_blocks = u64::from(self.seg_max / 4096 + 1);
        self.streams = Some(Streams {
            connection_id: session.connection_id,
            writer: Writer::new(self.id.0, out_stream, window, segment_blocks),
            reader: Reader::new(in_stream, window),
            own,
            peer,
        });
    }
}

fn placeholder() -> Place {
    Place { volume_id: [0; 16], owner: 0, index: 0, device: 0, block: 0 }
}

fn page_of<R: Record>(record: &R, key: Option<&[u8; 32]>, buffers: &BufferPool) -> Buffer {
    let mut buffer = buffers.take_zeroed(BLOCK_BYTES);
    record.emit(&mut buffer);
    seal_page(&mut buffer, key);
    buffer
}
