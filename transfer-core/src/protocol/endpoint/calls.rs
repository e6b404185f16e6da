//! The calling side: the own beacon, the calls it shows, the rings.
//!
//! What holds: a ring follows the beacon that shows the call, which follows the entry; if the own beacon
//! is another process's, nothing is written any more. Not here: answering (`answers`).

use std::time::Duration;

use storage_mapping::{Buffer, Instant};
use volume::BLOCK_BYTES;
use volume::header::{Edition, Header, RecordType, emit_page, parse_page};
use volume::record::{Record, Rows};

use super::{Endpoint, Event, Life, Purpose};
use crate::format::beacon::{Beacon, BeaconState, Bell, OutCall};
use crate::format::map::{TableMap, address};
use crate::format::process_id_table::{CloseReason, Role};
use crate::protocol::connection::{Connection, ConnectionId, IoCommand, Phase};
use crate::protocol::discovery::{ReadBack, Ringing};
use crate::protocol::roster::Roster;
use crate::protocol::startup::StartupFailure;
use crate::protocol::timer::ANSWER_TIMEOUT;
use crate::random::random_bytes;

impl Endpoint {
    pub(super) fn beacon_period(&self, now: Instant) -> Duration {
        let timers = &self.layout.master.timers;
        let index = if !self.connections.is_empty() {
            0
        } else if self.bell.quiet(now) < Duration::from_secs(600) {
            1
        } else {
            2
        };
        Duration::from_millis(timers[index].into())
    }

    pub(super) fn tend_beacon(&mut self, now: Instant) {
        match self.beacon.poll_due(now) {
            Some(true) => {
                let address = address(TableMap::new(&self.layout).beacon(self.identity.lane));
                self.out
                    .io
                    .push_back((Purpose::BeaconRead, IoCommand::Read { address, length: BLOCK_BYTES }));
            }
            Some(false) => self.write_beacon(now),
            None => {}
        }
    }

    pub(super) fn handle_beacon_read(&mut self, now: Instant, page: Option<&Buffer>) {
        let Some(page) = page else { return self.beacon.handle_read_again(now) };
        let place = TableMap::new(&self.layout).beacon(self.identity.lane);
        let beacon = parse_page::<Beacon>(page, None)
            .ok()
            .filter(|beacon| beacon.header.check::<Beacon>(RecordType::Beacon, place).is_ok());
        match self.beacon.judge(beacon.as_ref(), self.identity.incarnation, &self.identity.nonce) {
            ReadBack::Current => self.write_beacon(now),
            ReadBack::Old | ReadBack::Unreadable => {
                self.beacon.late_writes += 1;
                self.write_beacon(now);
            }
            // Only a beacon with our own MAC is another instance of us; anybody can write the rest.
            ReadBack::Foreign => {
                let ours = beacon.is_some_and(|beacon| {
                    let unsealed = Beacon { owner_mac: [0; 32], ..beacon.clone() };
                    self.owner_key.mac(&unsealed) == beacon.owner_mac
                });
                if ours {
                    self.stop(StartupFailure::DuplicateIdentity);
                } else {
                    self.beacon.late_writes += 1;
                    self.write_beacon(now);
                }
            }
        }
    }

    /// The lane is not ours, or the volume is gone: nothing more is written, not even closing entries.
    pub(super) fn stop(&mut self, failure: StartupFailure) {
        let reason = match failure {
            StartupFailure::DuplicateIdentity => CloseReason::DuplicateIdentity,
            _ => CloseReason::DeviceUnreliable,
        };
        self.life = Life::Stopped;
        self.out.io.clear();
        for connection in self.connections.ids() {
            self.out.events.push_back(Event::Closed { connection, reason });
            self.connections.remove(connection);
        }
        self.out.events.push_back(Event::Stopped(failure));
    }

    pub(super) fn write_beacon(&mut self, now: Instant) {
        let map = TableMap::new(&self.layout);
        let place = map.beacon(self.identity.lane);
        let token: [u8; 8] = random_bytes(self.random.as_mut());
        let calls = self.out_calls();
        let counter = self.beacon.next(token);
        let edition = Edition {
            incarnation: self.identity.incarnation,
            nonce_low: self.identity.nonce_low(),
            version: counter,
        };
        let own_page = emit_page(&self.config.own, None);
        let period = self.beacon_period(now);
        let mut beacon = Beacon {
            header: Header::new::<Beacon>(RecordType::Beacon, place, edition),
            counter,
            token,
            period_ms: u32::try_from(period.as_millis()).unwrap_or(u32::MAX),
            state: if self.leaving { BeaconState::Leaving } else { BeaconState::Running },
            incarnation_nonce: self.identity.nonce,
            enrolment_hash: own_page[4064..4072].try_into().expect("8 bytes"),
            entry_count: u16::try_from(calls.len()).expect("at most 256"),
            out_directory: Rows::new(calls).expect("at most M calls"),
            owner_mac: [0; 32],
        };
        beacon.owner_mac = self.owner_key.mac(&beacon);
        let bytes = self.page(&beacon);
        let command = IoCommand::Write { address: address(place), bytes, durable: false };
        self.out.io.push_back((Purpose::BeaconWrite, command));
    }

    pub(super) fn out_calls(&self) -> Vec<OutCall> {
        let map = TableMap::new(&self.layout);
        let calling = self.connections.values().filter(|connection| {
            connection.role() == Role::Initiator
                && matches!(connection.phase(), Phase::Calling | Phase::Establishing)
        });
        calling
            .map(|connection| {
                let (process_id, serial) = connection.slot();
                let slot = u8::try_from(map.split(process_id).1).expect("at most 256 initiator entries");
                OutCall { target_host: connection.peer().lane, slot, flags: 1, serial }
            })
            .collect()
    }

    pub(super) fn handle_beacon_written(&mut self, now: Instant, success: bool) {
        self.beacon.handle_written(now, success, self.beacon_period(now));
        if !success {
            return;
        }
        for (id, connection) in self.connections.iter() {
            if connection.phase() == Phase::Calling {
                self.ringing.entry(id).or_insert_with(|| Ringing::new(now));
            }
        }
    }

    /// Rings for calls that are shown and unanswered, and looks whether the called hosts live.
    pub(super) fn tend_calls(&mut self, now: Instant) {
        let calling = |connections: &Roster<Connection>, id: &ConnectionId| {
            connections
                .get(*id)
                .is_some_and(|connection| matches!(connection.phase(), Phase::Requesting | Phase::Calling))
        };
        self.ringing.retain(|id, _| calling(&self.connections, id));
        self.watched.retain(|id, _| calling(&self.connections, id));
        let due: Vec<_> =
            self.ringing.iter_mut().filter_map(|(id, ringing)| ringing.poll(now).then_some(*id)).collect();
        for id in due {
            if let Some(lane) = self.connections.get(id).map(|connection| connection.peer().lane) {
                self.ring(lane);
            }
        }
        let map = TableMap::new(&self.layout);
        let mut reads = Vec::new();
        for (id, watch) in &mut self.watched {
            if now >= watch.due
                && let Some(connection) = self.connections.get(*id)
            {
                watch.due = now + Duration::from_secs(3);
                reads.push((*id, address(map.beacon(connection.peer().lane))));
            }
        }
        for (id, address) in reads {
            let command = IoCommand::Read { address, length: BLOCK_BYTES };
            self.out.io.push_back((Purpose::PeerBeacon(id), command));
        }
    }

    pub(super) fn handle_peer_beacon(&mut self, now: Instant, id: ConnectionId, page: Option<&Buffer>) {
        let Some(watch) = self.watched.get_mut(&id) else { return };
        let Some(beacon) = page.and_then(|page| parse_page::<Beacon>(page, None).ok()) else { return };
        match watch.first {
            None => watch.first = Some(beacon.counter),
            Some(first) => watch.advanced |= beacon.counter != first && beacon.state == BeaconState::Running,
        }
        // It lives and does not answer: it does not know our key, or we do not know its.
        if watch.advanced && now.since(watch.since) >= ANSWER_TIMEOUT {
            self.end(now, id, CloseReason::NotAllowed);
        }
    }

    pub(super) fn ring(&mut self, lane: u16) {
        let place = TableMap::new(&self.layout).bell(lane);
        let edition = Edition::default();
        let bell = Bell {
            header: Header::new::<Bell>(RecordType::Bell, place, edition),
            ring_value: random_bytes(self.random.as_mut()),
            ringer: self.identity.lane,
        };
        let mut buffer = self.buffers.take_zeroed(BLOCK_BYTES);
        bell.emit(&mut buffer);
        let command = IoCommand::Write { address: address(place), bytes: buffer.freeze(), durable: false };
        self.counters.rings += 1;
        self.out.io.push_back((Purpose::Ring, command));
    }
}
