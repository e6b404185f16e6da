//! The answering side: the own bell, the scan of the beacons, the judgement of callers.
//!
//! What holds: the bell is remembered before the scan; a caller gets an entry only if its handshake
//! proves a key of the list that is also the key of its row; strangers learn nothing. Not here: calling
//! (`calls`).

use std::time::Duration;

use storage_mapping::{Buffer, Instant};
use volume::BLOCK_BYTES;
use volume::header::{Edition, Header, RecordType, parse_page, seal_page};
use volume::record::{Record, Rows};

use super::{Endpoint, Event, HANDSHAKES_PER_SECOND, Purpose, REFUSAL_KEPT, REFUSALS_MAX, Refusal};
use crate::format::beacon::Beacon;
use crate::format::control_area::{IN_STATE_ANSWERED, IN_STATE_REFUSED, InCall, InDirectory};
use crate::format::map::{TableMap, address};
use crate::format::process_id_table::{CloseReason, EntryState, ProcessIdEntry, Role};
use crate::protocol::connection::{Answer, Connection, IoCommand, Peer, Phase, binding, nonce_low};
use crate::protocol::handshake;
use crate::protocol::handshake::HandshakeError;
use crate::protocol::pair::{PairRead, PairReader};
use crate::random::random_bytes;

impl Endpoint {
    pub(super) fn tend_bell(&mut self, now: Instant) {
        let map = TableMap::new(&self.layout);
        if self.bell.poll_bell(now) {
            let address = address(map.bell(self.identity.lane));
            self.out.io.push_back((Purpose::BellRead, IoCommand::Read { address, length: BLOCK_BYTES }));
        }
        if self.bell.poll_scan(now) {
            self.counters.scans += 1;
            let enrolled = self.hosts.iter().rposition(Option::is_some).map_or(1, |last| last + 1);
            let length = enrolled * BLOCK_BYTES;
            let address = address(map.beacon(0));
            self.out.io.push_back((Purpose::Scan, IoCommand::Read { address, length }));
        }
        let kept = self.refusals.len();
        self.refusals.retain(|refusal| refusal.until > now);
        self.in_directory_dirty |= kept != self.refusals.len();
        if self.in_directory_dirty && self.in_directory.is_ready(now) {
            self.write_in_directory(now);
        } else if let Some(write) = self.in_directory.poll_retry(now) {
            let command =
                IoCommand::Write { address: address(write.place), bytes: write.bytes, durable: false };
            self.out.io.push_back((Purpose::InDirectory(write.version), command));
        }
    }

    pub(super) fn handle_bell(&mut self, now: Instant, page: Option<&Buffer>) {
        self.bell.handle_bell(now, page.map(|page| &page[..]));
    }

    pub(super) fn handle_scan(&mut self, now: Instant, region: Option<&Buffer>) {
        let Some(region) = region else { return self.bell.handle_scanned(now, true) };
        let map = TableMap::new(&self.layout);
        let mut unreadable = false;
        let mut calls = Vec::new();
        for (page, lane) in region.chunks_exact(BLOCK_BYTES).zip(0u16..) {
            if lane == self.identity.lane || page.iter().all(|byte| *byte == 0) {
                continue;
            }
            let beacon = parse_page::<Beacon>(page, None)
                .ok()
                .filter(|beacon| beacon.header.check::<Beacon>(RecordType::Beacon, map.beacon(lane)).is_ok());
            let Some(beacon) = beacon else {
                unreadable = true;
                continue;
            };
            for call in beacon.out_directory.iter() {
                let known = self.seen.get(&(lane, call.slot));
                let new = known != Some(&(beacon.header.incarnation, call.serial));
                if call.flags == 1 && call.target_host == self.identity.lane && new {
                    calls.push((lane, call.slot));
                }
            }
        }
        for (host, slot) in calls {
            if u16::from(slot) < map.connections() {
                let place = map.process_id_entry(map.initiator_id(host, slot.into()));
                let command = IoCommand::Read { address: address(place), length: 2 * BLOCK_BYTES };
                self.out.io.push_back((Purpose::CallerEntry { host, slot }, command));
            }
        }
        self.bell.handle_scanned(now, unreadable);
    }

    /// A caller's entry: opens its handshake and decides.
    pub(super) fn handle_caller(&mut self, now: Instant, host: u16, slot: u8, pair: Option<&Buffer>) {
        let Some(pair) = pair else { return };
        let map = TableMap::new(&self.layout);
        let process_id = map.initiator_id(host, slot.into());
        let place = map.process_id_entry(process_id);
        let mut reader = PairReader::default();
        let read = reader.read::<ProcessIdEntry>(RecordType::ProcessIdEntry, place, pair, None);
        let PairRead::New(entry) = read else { return };
        let known = self.seen.get(&(host, slot)).copied();
        let this = (entry.header.incarnation, entry.serial);
        let calls_us = entry.state == EntryState::Requested
            && entry.role == Role::Initiator
            && entry.peer_host == self.identity.lane
            && entry.pro_process_id == process_id;
        // Older incarnations of the caller are never answered again: older than one that a handshake has proven,
        // since anybody can write an entry that claims to be of a later life.
        let proven = self.proven.get(&(host, slot)).copied();
        if !calls_us || known == Some(this) || proven.is_some_and(|incarnation| incarnation > this.0) {
            return;
        }
        if !self.may_open_handshake(now, host) {
            return;
        }
        self.seen.insert((host, slot), this);
        match self.judge_caller(host, &entry) {
            Ok((answering, peer)) => {
                self.proven.insert((host, slot), entry.header.incarnation);
                self.answer(now, slot, entry.serial, answering, peer, reader);
            }
            Err(Some(reason)) => self.refuse(now, host, slot, entry.serial, reason),
            Err(None) => {
                self.counters.refused += 1;
                if self.hosts.get(usize::from(host)).is_none_or(Option::is_none) {
                    // Perhaps it was enrolled since: it is judged again when its row is known.
                    self.seen.remove(&(host, slot));
                    self.admin.ask(now);
                }
            }
        }
    }

    pub(super) fn may_open_handshake(&mut self, now: Instant, host: u16) -> bool {
        let (since, count) = self.openings.entry(host).or_insert((now, 0));
        if now.since(*since) >= Duration::from_secs(1) {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= HANDSHAKES_PER_SECOND
    }

    /// Opens message 1. `Err(Some(reason))` is told to the caller, `Err(None)` is silence: strangers
    /// learn nothing.
    pub(super) fn judge_caller(
        &mut self,
        host: u16,
        entry: &ProcessIdEntry,
    ) -> Result<(handshake::Answering, Peer), Option<CloseReason>> {
        let record =
            self.hosts.get(usize::from(host)).and_then(Option::as_ref).filter(|record| record.is_active());
        let record = record.ok_or(None)?.clone();
        let message = entry.handshake().ok_or(None)?;
        let initiator = (host, entry.header.incarnation, entry.header.incarnation_nonce_low);
        let binding = binding(
            &self.layout,
            initiator,
            self.identity.lane,
            entry.pro_process_id,
            entry.serial,
            entry.own_nonce,
        );
        let answering = handshake::answer(&self.config.secrets, &binding, message, self.random.as_mut())
            .map_err(|error| match error {
                HandshakeError::Payload => Some(CloseReason::VersionMismatch),
                _ => Some(CloseReason::HandshakeFailed),
            })?;
        let hello = &answering.hello;
        let consistent = hello.lane == host
            && hello.process_id == entry.pro_process_id
            && hello.nonce == entry.own_nonce
            && hello.incarnation == entry.header.incarnation
            && nonce_low(&hello.incarnation_nonce) == entry.header.incarnation_nonce_low
            && answering.peer_key == record.public_key;
        if !consistent {
            return Err(Some(CloseReason::HandshakeFailed));
        }
        if !self.config.peers.iter().any(|peer| peer.key == answering.peer_key) {
            return Err(Some(CloseReason::NotAllowed));
        }
        let of_peer = |connection: &&Connection| {
            connection.peer().key == answering.peer_key
                && !matches!(connection.phase(), Phase::Ending | Phase::Ended)
        };
        if self.connections.values().filter(of_peer).count() >= self.config.connections_per_peer_max {
            return Err(Some(CloseReason::LimitReached));
        }
        let peer = Peer { lane: host, name: record.name.clone(), key: answering.peer_key, record };
        Ok((answering, peer))
    }

    pub(super) fn answer(
        &mut self,
        now: Instant,
        slot: u8,
        serial: u32,
        answering: handshake::Answering,
        peer: Peer,
        reader: PairReader,
    ) {
        let map = TableMap::new(&self.layout);
        let first = map.connector_id(self.identity.lane, 0);
        let range = first..first + u32::from(map.connections());
        let Some(process_id) = self.slots.range(range).next().map(|(id, _)| *id) else {
            return self.refuse(now, peer.lane, slot, serial, CloseReason::LimitReached);
        };
        let nonce = random_bytes(self.random.as_mut());
        let own_hello = self.hello(process_id, nonce);
        let hello = answering.hello.clone();
        let Ok((session, message)) = answering.accept(&own_hello) else { return };
        let Some(mut pairs) = self.slots.remove(&process_id) else { return };
        pairs.serial = serial;
        let id = self.next_id();
        let answer = Answer { session, message, hello, nonce, peer_entry: reader, serial };
        let window = self.config.window;
        let connection = Connection::answer(&mut self.split(now).0, id, peer, pairs, answer, window);
        self.connections.insert(id, connection);
        self.bell.warm(now);
    }

    pub(super) fn refuse(&mut self, now: Instant, host: u16, slot: u8, serial: u32, reason: CloseReason) {
        self.counters.refused += 1;
        let name =
            self.hosts.get(usize::from(host)).and_then(Option::as_ref).map(|record| record.name.clone());
        let name = name.unwrap_or_default();
        let notice = format!("call of host {} (lane {host}) refused: {reason:?}", name.as_str());
        self.out.events.push_back(Event::Notice(notice));
        let state = IN_STATE_REFUSED + u8::try_from(reason.code()).unwrap_or(0);
        let call = InCall { initiator_host: host, initiator_slot: slot, state, serial, connector_entry: 0 };
        self.refusals.push(Refusal { call, until: now + REFUSAL_KEPT });
        if self.refusals.len() > REFUSALS_MAX {
            self.refusals.remove(0);
        }
        self.in_directory_dirty = true;
    }

    pub(super) fn write_in_directory(&mut self, now: Instant) {
        self.in_directory_dirty = false;
        let map = TableMap::new(&self.layout);
        let answered = self.connections.values().filter(|connection| {
            connection.role() == Role::Connector
                && matches!(connection.phase(), Phase::Answered | Phase::Established)
        });
        let mut calls: Vec<InCall> = answered
            .map(|connection| {
                let (process_id, serial) = connection.slot();
                let (peer_process_id, _) = connection.peer_slot();
                InCall {
                    initiator_host: connection.peer().lane,
                    initiator_slot: u8::try_from(map.split(peer_process_id).1).unwrap_or(u8::MAX),
                    state: IN_STATE_ANSWERED,
                    serial,
                    connector_entry: map.split(process_id).1 - map.connections(),
                }
            })
            .collect();
        calls.extend(self.refusals.iter().map(|refusal| refusal.call.clone()));
        calls.truncate(256);
        let identity = self.identity.clone();
        let (key, buffers) = (self.owner_key.clone(), self.buffers.clone());
        let write = self.in_directory.write(now, |version, place| {
            let edition =
                Edition { incarnation: identity.incarnation, nonce_low: identity.nonce_low(), version };
            let mut directory = InDirectory {
                header: Header::new::<InDirectory>(RecordType::InDirectory, place, edition),
                entry_count: u16::try_from(calls.len()).expect("at most 256"),
                in_directory: Rows::new(calls).expect("at most 256"),
                owner_mac: [0; 32],
            };
            directory.owner_mac = key.mac(&directory);
            let mut buffer = buffers.take_zeroed(BLOCK_BYTES);
            directory.emit(&mut buffer);
            seal_page(&mut buffer, None);
            buffer
        });
        let command = IoCommand::Write { address: address(write.place), bytes: write.bytes, durable: false };
        self.out.io.push_back((Purpose::InDirectory(write.version), command));
    }
}
