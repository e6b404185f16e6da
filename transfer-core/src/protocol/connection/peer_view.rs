//! What the peer shows: its in-directory, its entry, its table, and its silence.
//!
//! What holds: a record is acted upon only if it opens under what is expected here (unsealed before the
//! keys exist, under the peer's page key afterwards) and is newer than the last one; what does not open
//! can end the connection and never cause delivery. Not here: what we answer (`own_view`).

use storage_mapping::{Buffer, Instant};
use volume::BLOCK_BYTES;
use volume::header::{Place, RecordType};
use volume::record::Record;

use super::command::{Announced, judge_command, open_command};
use super::{Connection, ConnectionIo, Phase, Shared, Silence};
use crate::format::map::{TableMap, address};
use crate::format::process_id_table::{CloseReason, EntryState, ProcessIdEntry, Role};
use crate::format::process_segment_pointer_table::PointerTable;
use crate::protocol::endpoint::Event;
use crate::protocol::pair::{PairRead, PairReader};
use crate::protocol::timer::{Look, SILENCE_STEP_MAX, SUSPECT};

/// Reads a pair that no key seals yet. Anybody can make a record that claims to be newer than any other, so
/// nothing of it is remembered: it hides the owner's only until that writes its pair again (rule 8). Gives the
/// reader too, for a record that proves to be the owner's.
fn read_hint<R: Record>(record_type: RecordType, place: Place, pair: &[u8]) -> Option<(R, PairReader)> {
    let mut reader = PairReader::default();
    match reader.read(record_type, place, pair, None) {
        PairRead::New(record) => Some((record, reader)),
        PairRead::Same | PairRead::Invalid => None,
    }
}

impl Connection {
    /// Starts the read that this phase polls, if it is due.
    pub(super) fn poll_peer(&mut self, shared: &mut Shared<'_>) {
        if self.polling || self.poll_due > shared.now {
            return;
        }
        let map = TableMap::new(shared.layout);
        let (io, place) = match self.phase {
            Phase::Calling => (ConnectionIo::InDirectory, map.in_directory(self.peer.lane)),
            Phase::Answered => (ConnectionIo::PeerEntry, map.process_id_entry(self.peer_process_id)),
            Phase::Established => (ConnectionIo::PeerTable, map.pointer_table(self.peer_process_id)),
            _ => return,
        };
        self.polling = true;
        shared.out.read(self.id, io, address(place), 2 * BLOCK_BYTES);
    }

    pub(super) fn schedule_poll(&mut self, now: Instant) {
        self.polling = false;
        let look = match &self.streams {
            Some(streams) if streams.reader.is_bulk() || streams.writer.is_bulk() => Look::Bulk,
            Some(streams) if streams.writer.awaits_answer() => Look::Awaited,
            _ => Look::Idle,
        };
        self.poll_due = now + self.backoff.next_pause(now, look);
    }

    /// Initiator: has the connector answered?
    pub(super) fn handle_in_directory(&mut self, shared: &mut Shared<'_>, buffer: Option<Buffer>) {
        use crate::format::control_area::{IN_STATE_ANSWERED, IN_STATE_REFUSED, InDirectory};
        self.schedule_poll(shared.now);
        let Some(buffer) = buffer.filter(|_| self.phase == Phase::Calling) else { return };
        let map = TableMap::new(shared.layout);
        let place = map.in_directory(self.peer.lane);
        let Some((directory, _)) = read_hint::<InDirectory>(RecordType::InDirectory, place, &buffer) else {
            return;
        };
        let (_, slot) = map.split(self.slot.process_id);
        let mine = directory.in_directory.iter().find(|call| {
            call.initiator_host == shared.me.lane
                && u16::from(call.initiator_slot) == slot
                && call.serial == self.serial
        });
        let Some(mine) = mine else { return };
        if mine.state == IN_STATE_ANSWERED && mine.connector_entry < map.connections() {
            self.peer_process_id = map.connector_id(self.peer.lane, mine.connector_entry);
            self.read_peer_entry(shared);
        } else if mine.state > IN_STATE_REFUSED {
            let code = CloseReason::from_code(u16::from(mine.state - IN_STATE_REFUSED));
            self.end(shared, code.unwrap_or(CloseReason::NotAllowed));
        }
    }

    pub(super) fn read_peer_entry(&mut self, shared: &mut Shared<'_>) {
        if !self.entry_read_in_flight && self.peer_process_id != u32::MAX {
            self.entry_read_in_flight = true;
            let place = TableMap::new(shared.layout).process_id_entry(self.peer_process_id);
            shared.out.read(self.id, ConnectionIo::PeerEntry, address(place), 2 * BLOCK_BYTES);
        }
    }

    pub(super) fn handle_peer_entry(&mut self, shared: &mut Shared<'_>, buffer: Option<Buffer>) {
        self.entry_read_in_flight = false;
        if self.phase == Phase::Answered {
            self.schedule_poll(shared.now);
        }
        let Some(buffer) = buffer else { return };
        let place = TableMap::new(shared.layout).process_id_entry(self.peer_process_id);
        if self.phase == Phase::Calling {
            if let Some((entry, reader)) = read_hint(RecordType::ProcessIdEntry, place, &buffer) {
                self.handle_answer(shared, &entry, reader);
            }
            return;
        }
        let key = self.streams.as_ref().map(|streams| streams.peer.page);
        let read: PairRead<ProcessIdEntry> =
            self.peer_entry.read(RecordType::ProcessIdEntry, place, &buffer, key.as_ref());
        match (read, self.phase) {
            (PairRead::New(entry), Phase::Answered) => self.handle_established(shared, &entry),
            (PairRead::New(entry), Phase::Established) => self.handle_command(shared, &entry),
            (PairRead::Invalid, Phase::Established) => self.handle_foreign_entry(shared, &buffer),
            _ => {}
        }
    }

    /// Initiator: message 2, and the reader that found it.
    fn handle_answer(&mut self, shared: &mut Shared<'_>, entry: &ProcessIdEntry, reader: PairReader) {
        let mine = entry.role == Role::Connector
            && entry.state == EntryState::Answered
            && entry.serial == self.serial
            && entry.peer_host == shared.me.lane
            && entry.peer_process_id == self.slot.process_id
            && entry.peer_nonce == self.own_nonce;
        let Some(message) = entry.handshake().filter(|_| mine) else { return };
        let Some(initiating) = self.initiating.take() else { return };
        let Ok((session, hello)) = initiating.finish(message) else {
            return self.end(shared, CloseReason::HandshakeFailed);
        };
        if hello.lane != self.peer.lane || hello.process_id != self.peer_process_id {
            return self.end(shared, CloseReason::HandshakeFailed);
        }
        self.peer_entry = reader;
        self.peer_nonce = hello.nonce;
        self.peer_incarnation = hello.incarnation;
        self.window = self.window.min(hello.window).max(1);
        self.seg_max = self.seg_max.min(hello.seg_max);
        self.set_session(shared, session, &hello);
        self.handshake = (0, Vec::new());
        self.phase = Phase::Establishing;
        self.place_command(shared);
        // A repeated REQ may still be in flight; the entry follows when it is written.
        self.entry_dirty = true;
    }

    /// Connector: the first record under the keys.
    pub(super) fn handle_established(&mut self, shared: &mut Shared<'_>, entry: &ProcessIdEntry) {
        let streams = self.streams.as_ref();
        let fits = entry.state == EntryState::Established
            && entry.role == Role::Initiator
            && streams.is_some_and(|streams| streams.connection_id == entry.connection_id)
            && entry.header.incarnation == self.peer_incarnation
            && entry.serial == self.serial;
        if !fits {
            return;
        }
        self.enter_established(shared);
        self.handle_command(shared, entry);
    }

    pub(super) fn enter_established(&mut self, shared: &mut Shared<'_>) {
        self.phase = Phase::Established;
        self.since = shared.now;
        self.handshake = (0, Vec::new());
        self.backoff.handle_change(shared.now);
        self.poll_due = shared.now;
        self.mark_dirty(shared.now, true);
        let peer = self.peer.name.as_str().to_owned();
        let seg_max = self.seg_max;
        shared.out.events.push_back(Event::Connected { connection: self.id, role: self.role, peer, seg_max });
    }

    /// Rule 28: takes the command of the peer's entry, once and in order.
    pub(super) fn handle_command(&mut self, shared: &mut Shared<'_>, entry: &ProcessIdEntry) {
        let Some(streams) = &self.streams else { return };
        if entry.connection_id != streams.connection_id {
            return;
        }
        if entry.state == EntryState::Closed {
            return self.end(shared, peer_reason(entry.pro_con_rc));
        }
        match judge_command(entry, self.command_taken) {
            Announced::Next => {}
            Announced::Same => return,
            Announced::Wrong => return self.end(shared, CloseReason::ProtocolViolated),
        }
        let command = &entry.pro_dtd;
        let direction = self.direction().1;
        let opened = open_command(
            &streams.peer,
            shared.layout.master.volume_id,
            entry.connection_id,
            direction,
            command,
        );
        let Some(body) = opened else { return self.end(shared, CloseReason::ProtocolViolated) };
        self.command_taken += 1;
        let (opcode, request) = (command.opcode, command.request_id);
        shared.out.events.push_back(Event::Command { connection: self.id, opcode, request, body });
        self.mark_dirty(shared.now, true);
    }

    /// Rule 48: an entry that does not open under our keys can end the connection, never more.
    pub(super) fn handle_foreign_entry(&mut self, shared: &mut Shared<'_>, buffer: &Buffer) {
        for half in 0..2 {
            let page = &buffer[half * BLOCK_BYTES..(half + 1) * BLOCK_BYTES];
            let Ok(entry) = volume::header::parse_page::<ProcessIdEntry>(page, None) else { continue };
            let newer = entry.header.incarnation > self.peer_incarnation;
            let later = entry.header.incarnation == self.peer_incarnation
                && (entry.serial != self.serial || entry.state == EntryState::Closed)
                && entry.header.version > self.peer_entry.version();
            if entry.header.owner == self.peer.lane && (newer || later) {
                return self.end(shared, CloseReason::PeerLost);
            }
        }
    }

    pub(super) fn handle_peer_table(&mut self, shared: &mut Shared<'_>, buffer: Option<Buffer>) {
        if self.phase != Phase::Established {
            self.polling = false;
            return;
        }
        let now = shared.now;
        if let Some(buffer) = buffer {
            let place = TableMap::new(shared.layout).pointer_table(self.peer_process_id);
            let key = self.streams.as_ref().map(|streams| streams.peer.page);
            let read =
                self.peer_table.read::<PointerTable>(RecordType::PointerTable, place, &buffer, key.as_ref());
            match read {
                PairRead::New(table) => {
                    self.invalid_reads = 0;
                    self.silence = Silence { last_read: Some(now), ..Silence::NONE };
                    self.take_table(shared, &table);
                }
                PairRead::Same => self.count_silence(shared, false),
                PairRead::Invalid => self.count_silence(shared, true),
            }
        }
        self.schedule_poll(now);
    }

    pub(super) fn count_silence(&mut self, shared: &mut Shared<'_>, invalid: bool) {
        let now = shared.now;
        if let Some(last) = self.silence.last_read.replace(now) {
            self.silence.silent += now.since(last).min(SILENCE_STEP_MAX);
            self.silence.reads += 1;
        }
        self.invalid_reads += u32::from(invalid);
        let suspicious = self.silence.silent >= SUSPECT || self.invalid_reads >= 3;
        if suspicious && !self.silence.looked {
            self.silence.looked = true;
            self.invalid_reads = 0;
            self.read_peer_entry(shared);
        } else if self.silence.looked && self.silence.reads.is_multiple_of(16) {
            self.silence.looked = false;
        }
    }

    /// A new table of the peer: its marks, its entries, its state.
    pub(super) fn take_table(&mut self, shared: &mut Shared<'_>, table: &PointerTable) {
        let Some(streams) = &mut self.streams else { return };
        let fits = table.connection_id == streams.connection_id
            && table.header.incarnation == self.peer_incarnation
            && table.peer_host == shared.me.lane
            && table.peer_process_id == self.slot.process_id;
        if !fits || usize::from(table.nack_count) != table.nacks.len() {
            return self.end(shared, CloseReason::ProtocolViolated);
        }
        let before = (streams.reader.is_bulk(), streams.writer.base(), streams.reader.received());
        let marks = streams.writer.handle_marks(
            shared.now,
            table.received,
            table.window_limit,
            table.credits.into(),
            &table.nacks,
            shared.pool,
            shared.random,
        );
        let entries = marks
            .and_then(|()| streams.reader.handle_table(shared.now, table, shared.layout, &self.peer.record));
        let changed = table.entry_count > 0
            || before != (streams.reader.is_bulk(), streams.writer.base(), streams.reader.received());
        if let Err(reason) = entries {
            return self.end(shared, reason);
        }
        if table.command_ack > self.command_number {
            return self.end(shared, CloseReason::ProtocolViolated);
        }
        if changed {
            self.backoff.handle_change(shared.now);
        }
        self.command_acked = self.command_acked.max(table.command_ack);
        self.peer_entry_wanted = self.peer_entry_wanted.max(table.entry_version);
        if self.peer_entry_wanted > self.peer_entry.version() {
            self.read_peer_entry(shared);
        }
        if table.state == EntryState::Closed {
            return self.end(shared, peer_reason(table.close_reason));
        }
        self.place_command(shared);
    }
}

fn peer_reason(reason: CloseReason) -> CloseReason {
    match reason {
        CloseReason::None | CloseReason::Done => CloseReason::ClosedByPeer,
        other => other,
    }
}
