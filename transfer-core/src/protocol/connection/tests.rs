//! One side of a connection; the peer is in the test's hand, with its keys, and may say anything.
//!
//! No I/O is done: the test says what was read and written. Not here: two sides that talk to one another
//! (`tests/two_endpoints.rs`).

use aws_lc_rs::signature::Ed25519KeyPair;
use volume::header::{Edition, Header, HeaderFlags, Page, Place, RecordType, emit_page};
use volume::layout::{PlannedDevice, VolumePlan};
use volume::record::{Record, Rows};
use volume::{BLOCK_BYTES, Layout};

use super::time::keep_alive_after;
use super::*;
use crate::format::control_area::{IN_STATE_ANSWERED, IN_STATE_REFUSED, InCall, InDirectory};
use crate::format::map::TableMap;
use crate::format::process_id_table::{EntryState, ProcessFlags, ProcessIdEntry};
use crate::format::process_segment_pointer_table::{Nack, PointerTable, TableFlags};
use crate::payload::{Payload, SegmentKind};
use crate::protocol::handshake::{self, Secrets, public_key};
use crate::protocol::timer::{
    ASSERT_AGAIN, DRAIN_TIMEOUT, KEEP_ALIVE_ACTIVE, KEEP_ALIVE_IDLE, POLL_IDLE, POLL_SHORTEST, PUBLISH_GATHER,
};
use crate::random::SeededRandom;

const START: Instant = Instant(1_000_000_000);
const MY_LANE: u16 = 1;
const PEER_LANE: u16 = 2;
const SERIAL: u32 = 7;
const PEER_LIFE: u64 = 20;
const PEER_NONCE: [u8; 16] = [8; 16];
const MY_NONCE: [u8; 16] = [6; 16];
const WINDOW: u16 = 8;
const SEG_MAX: u32 = 1 << 16;

/// One side, and what the peer knows.
struct Bench {
    layout: Layout,
    me: Identity,
    pool: SegmentPool,
    buffers: BufferPool,
    random: SeededRandom,
    out: Output,
    now: Instant,
    connection: Connection,
    /// The peer's view of the handshake: for the connector its message, and the keys.
    answer: Vec<u8>,
    session: Session,
    peer_process_id: u32,
}

fn admin() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("a key")
}

fn layout() -> Layout {
    let plan = VolumePlan {
        devices: vec![PlannedDevice::new("m", 6000).expect("a device")],
        lanes: 4,
        connections: 4,
        segment_payload_bytes: SEG_MAX,
        volume_id: [3; 16],
        time_id: 1,
        unix_filename: "m".into(),
    };
    plan.layout(&admin()).expect("a layout")
}

fn hello(process_id: u32, lane: u16, incarnation: u64, nonce: [u8; 16]) -> Hello {
    Hello {
        protocol_version: 1,
        window: WINDOW,
        seg_max: SEG_MAX,
        process_id,
        lane,
        incarnation,
        incarnation_nonce: [4; 16],
        nonce,
    }
}

fn slot(layout: &Layout, process_id: u32) -> SlotPairs {
    let map = TableMap::new(layout);
    SlotPairs {
        process_id,
        serial: SERIAL,
        entry: PairWriter::new(map.process_id_entry(process_id)),
        table: PairWriter::new(map.pointer_table(process_id)),
    }
}

/// The row of a host whose private key is this byte, over and over.
fn row(layout: &Layout, lane: u16, name: &str, key: u8) -> HostRecord {
    HostRecord::new(layout, lane, Text::new(name).expect("a name"), public_key(&[key; 32]), 0, &admin())
}

impl Bench {
    /// A side in `role` that has asked, or answered, and has written that. `lie` changes what the peer tells in the
    /// handshake.
    fn new(role: Role, lie: impl FnOnce(&mut Hello)) -> Self {
        let layout = layout();
        let map = TableMap::new(&layout);
        let (own, peer) = (row(&layout, MY_LANE, "alpha", 1), row(&layout, PEER_LANE, "beta", 2));
        let peer = Peer { lane: PEER_LANE, name: peer.name.clone(), key: peer.public_key, record: peer };
        let me = Identity { lane: MY_LANE, name: own.name.clone(), incarnation: 10, nonce: [4; 16] };
        let mut pool = SegmentPool::new(&layout, &own);
        let (buffers, mut random) = (BufferPool::new(), SeededRandom::new(&[2; 32]));
        let mut out = Output::default();
        let asks = role == Role::Initiator;
        let (own_id, peer_id) = if asks {
            (map.initiator_id(MY_LANE, 0), map.connector_id(PEER_LANE, 0))
        } else {
            (map.connector_id(MY_LANE, 0), map.initiator_id(PEER_LANE, 3))
        };
        let mut theirs = hello(peer_id, PEER_LANE, PEER_LIFE, PEER_NONCE);
        lie(&mut theirs);
        let ours = hello(own_id, MY_LANE, me.incarnation, MY_NONCE);
        let (secrets, peer_secrets) = (Secrets::new([1; 32]), Secrets::new([2; 32]));
        let low = nonce_low(&[4; 16]);
        let mut shared = Shared {
            now: START,
            layout: &layout,
            me: &me,
            pool: &mut pool,
            buffers: &buffers,
            random: &mut random,
            out: &mut out,
        };
        let (connection, answer, session) = if asks {
            let bound = binding(&layout, (MY_LANE, 10, low), PEER_LANE, own_id, SERIAL, MY_NONCE);
            let (initiating, message) =
                handshake::initiate(&secrets, &peer.key, &bound, &ours, shared.random).expect("message 1");
            let answering =
                handshake::answer(&peer_secrets, &bound, &message, shared.random).expect("it opens");
            let (session, answer) = answering.accept(&theirs).expect("message 2");
            let opening = Opening { initiating, message, nonce: MY_NONCE };
            let slot = slot(&layout, own_id);
            let connection = Connection::initiate(&mut shared, ConnectionId(1), peer, slot, opening, WINDOW);
            (connection, answer, session)
        } else {
            let bound = binding(&layout, (PEER_LANE, PEER_LIFE, low), MY_LANE, peer_id, SERIAL, PEER_NONCE);
            let own_key = public_key(&[1; 32]);
            let (initiating, message) =
                handshake::initiate(&peer_secrets, &own_key, &bound, &theirs, shared.random)
                    .expect("message 1");
            let answering = handshake::answer(&secrets, &bound, &message, shared.random).expect("it opens");
            let hello = answering.hello.clone();
            let (own_session, message) = answering.accept(&ours).expect("message 2");
            let (session, _) = initiating.finish(&message).expect("it opens");
            let answer = Answer {
                session: own_session,
                message,
                hello,
                nonce: MY_NONCE,
                peer_entry: PairReader::default(),
                serial: SERIAL,
            };
            let slot = slot(&layout, own_id);
            let connection = Connection::answer(&mut shared, ConnectionId(1), peer, slot, answer, WINDOW);
            (connection, Vec::new(), session)
        };
        let now = START;
        let mut bench = Self {
            layout,
            me,
            pool,
            buffers,
            random,
            out,
            now,
            connection,
            answer,
            session,
            peer_process_id: peer_id,
        };
        bench.write_entry();
        bench
    }

    /// A side in `role` that is connected; its first table is being written.
    fn established(role: Role) -> Self {
        let mut bench = Self::new(role, |_| {});
        if role == Role::Initiator {
            bench.read_answered();
            bench.read_entry(&bench.answered(1), None);
            assert_eq!(bench.connection.phase, Phase::Establishing);
            bench.write_entry();
        } else {
            bench.read_sealed_entry(&bench.established_entry(2));
        }
        assert_eq!(bench.connection.phase, Phase::Established);
        bench.out.events.clear();
        bench
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Connection, &mut Shared<'_>) -> T) -> T {
        let mut shared = Shared {
            now: self.now,
            layout: &self.layout,
            me: &self.me,
            pool: &mut self.pool,
            buffers: &self.buffers,
            random: &mut self.random,
            out: &mut self.out,
        };
        act(&mut self.connection, &mut shared)
    }

    fn io(&mut self, io: ConnectionIo, buffer: Option<Buffer>) {
        self.with(|connection, shared| connection.handle_io(shared, io, true, buffer));
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.with(Connection::handle_timeout);
    }

    /// The own entry, or table, is on the disk.
    fn write_entry(&mut self) {
        let version = self.connection.slot.entry.version();
        self.io(ConnectionIo::OwnEntry(version), None);
    }

    fn write_table(&mut self) {
        let version = self.connection.slot.table.version();
        self.io(ConnectionIo::OwnTable(version), None);
    }

    /// Why it has ended; `None` while it has not.
    fn ended(&self) -> Option<CloseReason> {
        let over = matches!(self.connection.phase, Phase::Ending | Phase::Ended);
        over.then_some(self.connection.close_reason)
    }

    // ---- what the peer shows --------------------------------------------------------------------

    fn header<R: Record>(&self, record_type: RecordType, first: Place, version: u64) -> Header {
        let place = Place { block: first.block + version % 2, ..first };
        Header::new::<R>(record_type, place, Edition { incarnation: PEER_LIFE, nonce_low: 0, version })
    }

    fn peer_key(&self) -> [u8; 32] {
        let initiator = self.connection.role == Role::Initiator;
        if initiator { self.session.to_initiator.page } else { self.session.to_connector.page }
    }

    fn pair(pages: [Option<Box<Page>>; 2]) -> Buffer {
        let blocks: Vec<u8> =
            pages.into_iter().flat_map(|page| page.map_or([0; BLOCK_BYTES], |page| *page)).collect();
        Buffer::copy_of(&blocks)
    }

    fn one_of_pair<R: Record>(record: &R, version: u64, key: Option<&[u8; 32]>) -> Buffer {
        let mut pages = [None, None];
        pages[usize::from(version % 2 == 1)] = Some(emit_page(record, key));
        Self::pair(pages)
    }

    fn read_call(&mut self, call: InCall) {
        let place = TableMap::new(&self.layout).in_directory(PEER_LANE);
        let directory = InDirectory {
            header: self.header::<InDirectory>(RecordType::InDirectory, place, 1),
            entry_count: 1,
            in_directory: Rows::new(vec![call]).expect("one"),
            owner_mac: [0; 32],
        };
        self.io(ConnectionIo::InDirectory, Some(Self::one_of_pair(&directory, 1, None)));
    }

    fn read_answered(&mut self) {
        self.read_call(InCall { state: IN_STATE_ANSWERED, connector_entry: 0, ..own_call() });
    }

    fn entry(&self, version: u64, role: Role, state: EntryState) -> ProcessIdEntry {
        let place = TableMap::new(&self.layout).process_id_entry(self.peer_process_id);
        let header = self.header::<ProcessIdEntry>(RecordType::ProcessIdEntry, place, version);
        let mut entry = ProcessIdEntry::unused(header, self.peer_process_id, role, state);
        entry.peer_process_id = self.connection.slot.process_id;
        entry.peer_host = MY_LANE;
        entry.serial = SERIAL;
        entry.peer_incarnation = self.me.incarnation;
        (entry.own_nonce, entry.peer_nonce) = (PEER_NONCE, MY_NONCE);
        entry
    }

    fn answered(&self, version: u64) -> ProcessIdEntry {
        let mut entry = self.entry(version, Role::Connector, EntryState::Answered);
        entry.set_handshake(2, &self.answer);
        entry
    }

    /// The peer's entry under the keys.
    fn established_entry(&self, version: u64) -> ProcessIdEntry {
        let initiator = self.connection.role == Role::Initiator;
        let role = if initiator { Role::Connector } else { Role::Initiator };
        let mut entry = self.entry(version, role, EntryState::Established);
        entry.header.flags = HeaderFlags::SEALED;
        entry.connection_id = self.session.connection_id;
        entry
    }

    fn read_entry(&mut self, entry: &ProcessIdEntry, key: Option<&[u8; 32]>) {
        let buffer = Self::one_of_pair(entry, entry.header.version, key);
        self.io(ConnectionIo::PeerEntry, Some(buffer));
    }

    fn read_sealed_entry(&mut self, entry: &ProcessIdEntry) {
        self.read_entry(entry, Some(&self.peer_key()));
    }

    fn table(&self, version: u64) -> PointerTable {
        let place = TableMap::new(&self.layout).pointer_table(self.peer_process_id);
        let mut header = self.header::<PointerTable>(RecordType::PointerTable, place, version);
        header.flags = HeaderFlags::SEALED;
        PointerTable {
            header,
            connection_id: self.session.connection_id,
            state: EntryState::Established,
            role: Role::Connector,
            flags: TableFlags::empty(),
            serial: SERIAL,
            keep_alive: version,
            entry_version: 0,
            command_ack: 0,
            peer_process_id: self.connection.slot.process_id,
            peer_host: MY_LANE,
            close_reason: CloseReason::None,
            peer_incarnation: self.me.incarnation,
            received: 0,
            durable: 0,
            window_limit: WINDOW.into(),
            credits: 1000,
            nack_count: 0,
            read_flags: 0,
            nacks: Rows::default(),
            entry_area: [0; 3648],
            base_seq: 1,
            entry_count: 0,
        }
    }

    fn read_table(&mut self, table: &PointerTable) {
        let buffer = Self::one_of_pair(table, table.header.version, Some(&self.peer_key()));
        self.io(ConnectionIo::PeerTable, Some(buffer));
    }

    fn send(&mut self, kind: SegmentKind, length: usize) {
        let payload = Payload::copy_of(&self.buffers, &vec![7; length]);
        let segment = Segment { kind, request: 1, offset: 0, last: true, payload };
        self.with(|connection, shared| connection.send(shared, segment));
    }
}

/// The call of the side under test, not answered.
fn own_call() -> InCall {
    InCall { initiator_host: MY_LANE, initiator_slot: 0, state: 0, serial: SERIAL, connector_entry: 0 }
}

// ---- the handshake ----------------------------------------------------------------------------------

#[test]
fn only_the_word_about_the_own_call_is_taken() {
    let refused = |code: u8| InCall { state: IN_STATE_REFUSED + code, ..own_call() };
    let after = |call: InCall| {
        let mut bench = Bench::new(Role::Initiator, |_| {});
        bench.read_call(call);
        (bench.ended(), bench.connection.peer_process_id == u32::MAX)
    };
    let untouched = (None, true);
    assert_eq!(after(InCall { initiator_host: 3, ..refused(4) }), untouched, "another host's");
    assert_eq!(after(InCall { initiator_slot: 1, ..refused(4) }), untouched, "another of ours");
    assert_eq!(after(InCall { serial: SERIAL - 1, ..refused(4) }), untouched, "an earlier one of ours");
    assert_eq!(after(InCall { initiator_slot: 1, serial: 9, ..refused(4) }), untouched);
    assert_eq!(after(own_call()), untouched, "no word yet");
    assert_eq!(after(refused(0)), untouched, "refused without a reason");
    assert_eq!(after(InCall { state: IN_STATE_REFUSED - 1, ..own_call() }), untouched, "no state");
    assert_eq!(after(refused(4)).0, Some(CloseReason::LimitReached));
    assert_eq!(after(refused(200)).0, Some(CloseReason::NotAllowed), "a reason of a newer program");
    let answered = |connector_entry| InCall { state: IN_STATE_ANSWERED, connector_entry, ..own_call() };
    assert_eq!(after(answered(3)), (None, false));
    assert_eq!(after(answered(4)), untouched, "in an entry that the peer does not have");
}

type EntryChange = fn(&mut ProcessIdEntry);

#[test]
fn only_the_answer_to_the_own_call_is_taken() {
    let changes: [(&str, EntryChange); 7] = [
        ("role", |entry| entry.role = Role::Initiator),
        ("state", |entry| entry.state = EntryState::Established),
        ("serial", |entry| entry.serial -= 1),
        ("peer_host", |entry| entry.peer_host = 3),
        ("peer_process_id", |entry| entry.peer_process_id += 1),
        ("peer_nonce", |entry| entry.peer_nonce[0] ^= 1),
        ("two of them", |entry| (entry.serial, entry.peer_host) = (1, 3)),
    ];
    let mut bench = Bench::new(Role::Initiator, |_| {});
    bench.read_answered();
    for (field, change) in changes {
        let mut entry = bench.answered(1);
        change(&mut entry);
        bench.read_entry(&entry, None);
        assert_eq!((bench.connection.phase, bench.ended()), (Phase::Calling, None), "{field}");
    }
    bench.read_entry(&bench.answered(1), None);
    assert_eq!(bench.connection.phase, Phase::Establishing);
    assert_eq!(bench.connection.peer_slot(), (bench.peer_process_id, PEER_LIFE));
}

/// What the answer says under the handshake's own seal must be what the call was for.
#[test]
fn an_answer_of_another_lane_or_slot_ends_the_call() {
    let after = |lie: fn(&mut Hello)| {
        let mut bench = Bench::new(Role::Initiator, lie);
        bench.read_answered();
        bench.read_entry(&bench.answered(1), None);
        (bench.connection.phase, bench.ended(), bench.connection.window, bench.connection.seg_max)
    };
    for lie in [|hello: &mut Hello| hello.lane = 3, |hello: &mut Hello| hello.process_id += 1] {
        assert_eq!(after(lie).1, Some(CloseReason::HandshakeFailed));
    }
    let smaller = |hello: &mut Hello| (hello.window, hello.seg_max) = (2, 4096);
    assert_eq!(after(smaller), (Phase::Establishing, None, 2, 4096), "the smaller of both counts");
    assert_eq!(after(|hello| hello.window = 0), (Phase::Establishing, None, 1, SEG_MAX));
}

#[test]
fn only_an_entry_of_this_connection_establishes_it() {
    let changes: [(&str, EntryChange); 5] = [
        ("state", |entry| entry.state = EntryState::Draining),
        ("role", |entry| entry.role = Role::Connector),
        ("connection_id", |entry| entry.connection_id[0] ^= 1),
        ("incarnation", |entry| entry.header.incarnation += 1),
        ("serial", |entry| entry.serial += 1),
    ];
    for (field, change) in changes {
        let mut bench = Bench::new(Role::Connector, |_| {});
        let mut entry = bench.established_entry(2);
        change(&mut entry);
        bench.read_sealed_entry(&entry);
        assert_eq!((bench.connection.phase, bench.ended()), (Phase::Answered, None), "{field}");
    }
    let mut bench = Bench::new(Role::Connector, |_| {});
    bench.read_entry(&bench.established_entry(2), None);
    assert_eq!(bench.connection.phase, Phase::Answered, "without the keys");
    bench.read_sealed_entry(&bench.established_entry(4));
    assert_eq!(bench.connection.phase, Phase::Established);
    assert_eq!(bench.connection.peer_slot(), (bench.peer_process_id, PEER_LIFE));
}

/// The call may be on its way a second time when the answer comes: connected is who has written the word that says so.
#[test]
fn a_repeated_call_that_lands_late_is_not_taken_for_the_next_word() {
    let mut bench = Bench::new(Role::Initiator, |_| {});
    bench.pass(ASSERT_AGAIN);
    assert_eq!(bench.connection.slot.entry.version(), 2, "the call, again");
    bench.read_answered();
    bench.read_entry(&bench.answered(1), None);
    assert_eq!((bench.connection.phase, bench.connection.slot.entry.version()), (Phase::Establishing, 2));
    bench.write_entry();
    assert_eq!((bench.connection.phase, bench.connection.slot.entry.version()), (Phase::Establishing, 3));
    bench.write_entry();
    assert_eq!(bench.connection.phase, Phase::Established);
}

#[test]
fn a_segment_is_sent_only_on_an_open_connection() {
    let answered = Bench::new(Role::Connector, |_| {});
    assert!(answered.connection.streams.is_some() && !answered.connection.has_room(), "before it is open");
    let mut bench = Bench::established(Role::Connector);
    assert!(bench.connection.has_room());
    bench.with(Connection::close);
    assert!(bench.ended().is_none() && !bench.connection.has_room(), "once it closes");
}

// ---- the peer's entry and table ---------------------------------------------------------------------

/// Rule 48: an entry that no key seals ends the connection if it is the peer's and later, and else does nothing.
#[test]
fn an_entry_without_keys_ends_the_connection_only_if_it_is_later() {
    // Read together with a block that claims to be newer than anything, so that the pair is looked at.
    let after = |change: EntryChange| {
        let mut bench = Bench::established(Role::Connector);
        let mut entry = bench.entry(4, Role::Initiator, EntryState::Established);
        change(&mut entry);
        let mut newest = bench.established_entry(9);
        newest.header.incarnation += 5;
        let pages = [Some(emit_page(&entry, None)), Some(emit_page(&newest, Some(&[0; 32])))];
        bench.io(ConnectionIo::PeerEntry, Some(Bench::pair(pages)));
        bench.ended()
    };
    let lost = Some(CloseReason::PeerLost);
    assert_eq!(after(|_| {}), None, "the same use of the slot, open");
    assert_eq!(after(|entry| entry.header.incarnation += 1), lost, "the next life of the peer");
    assert_eq!(after(|entry| entry.serial += 1), lost, "the next use of the slot");
    assert_eq!(after(|entry| entry.state = EntryState::Closed), lost, "closed");
    let old: EntryChange = |entry| (entry.state, entry.header.version) = (EntryState::Closed, 2);
    assert_eq!(after(old), None, "not newer than what was seen");
    let dead: EntryChange = |entry| (entry.state, entry.header.incarnation) = (EntryState::Closed, 19);
    assert_eq!(after(dead), None, "of an earlier life");
    let dead: EntryChange = |entry| (entry.serial, entry.header.incarnation) = (1, 19);
    assert_eq!(after(dead), None, "of an earlier life");
    let foreign: EntryChange = |entry| (entry.header.owner, entry.header.incarnation) = (3, 21);
    assert_eq!(after(foreign), None, "another lane's");
    let foreign: EntryChange = |entry| (entry.header.owner, entry.state) = (3, EntryState::Closed);
    assert_eq!(after(foreign), None, "another lane's");
}

/// What a lie changes in a table.
type TableChange = fn(&mut PointerTable);

#[test]
fn a_table_that_is_not_of_this_connection_ends_it() {
    let changes: [(&str, TableChange); 8] = [
        ("connection_id", |table| table.connection_id[0] ^= 1),
        ("incarnation", |table| table.header.incarnation += 1),
        ("peer_host", |table| table.peer_host = 3),
        ("peer_process_id", |table| table.peer_process_id += 1),
        ("nack_count", |table| table.nack_count = 1),
        ("nacks", |table| {
            table.nacks = Rows::new(vec![Nack { seq: 1, attempt: 0, reason: 1 }]).expect("one");
        }),
        ("command_ack", |table| table.command_ack = 1),
        ("received", |table| table.received = 1),
    ];
    for (field, change) in changes {
        let mut bench = Bench::established(Role::Initiator);
        let mut table = bench.table(1);
        change(&mut table);
        bench.read_table(&table);
        assert_eq!(bench.ended(), Some(CloseReason::ProtocolViolated), "{field}");
    }
    let mut bench = Bench::established(Role::Initiator);
    bench.read_table(&bench.table(1));
    assert_eq!((bench.ended(), bench.connection.peer_table.version()), (None, 1));
}

/// A command is acknowledged when it was placed, and no sooner.
#[test]
fn a_command_that_was_placed_may_be_acknowledged() {
    let mut bench = Bench::established(Role::Initiator);
    bench.with(|connection, shared| connection.send_command(shared, 5, 0, vec![1]));
    assert_eq!(bench.connection.command_number, 1);
    bench.read_table(&PointerTable { command_ack: 1, ..bench.table(1) });
    assert_eq!((bench.ended(), bench.connection.command_acked), (None, 1));
}

// ---- silence and pace -------------------------------------------------------------------------------

/// The numbers of those of `count` reads after which the peer's entry is looked at.
fn looks(bench: &mut Bench, count: usize, mut read: impl FnMut(&mut Bench)) -> Vec<usize> {
    let mut looks = Vec::new();
    for number in 1..=count {
        read(bench);
        if bench.connection.entry_read_in_flight {
            looks.push(number);
            bench.io(ConnectionIo::PeerEntry, None);
        }
    }
    looks
}

#[test]
fn a_peer_that_is_silent_or_unreadable_is_looked_at_now_and_then() {
    // Three tables that do not open, then once in sixteen reads.
    let mut bench = Bench::established(Role::Initiator);
    let table = bench.table(1);
    let unreadable = looks(&mut bench, 40, |bench| {
        bench.now = bench.now + Duration::from_millis(1);
        bench.io(ConnectionIo::PeerTable, Some(Bench::one_of_pair(&table, 1, Some(&[0; 32]))));
    });
    assert_eq!(unreadable, [3, 18, 34]);
    // The same table for five seconds; the first read is the beginning.
    let mut bench = Bench::established(Role::Initiator);
    let silent = looks(&mut bench, 12, |bench| {
        bench.now = bench.now + Duration::from_secs(1);
        bench.read_table(&table);
    });
    assert_eq!(silent, [6]);
}

/// A table with nothing new in it is no reason to look again soon; entries, or marks, are one.
#[test]
fn a_change_of_the_peers_table_makes_the_next_look_come_soon() {
    let after = |change: fn(&mut PointerTable)| {
        let mut bench = Bench::established(Role::Initiator);
        bench.write_table();
        bench.send(SegmentKind::Data, 10);
        bench.pass(Duration::from_secs(3));
        let mut table = bench.table(1);
        change(&mut table);
        bench.read_table(&table);
        assert_eq!(bench.ended(), None);
        bench.connection.poll_due.since(bench.now)
    };
    assert_eq!(after(|_| {}), POLL_IDLE, "it lives, that is all");
    assert_eq!(after(|table| table.entry_count = 1), POLL_SHORTEST, "it has something for us");
    assert_eq!(after(|table| table.received = 1), POLL_SHORTEST, "it has taken all of ours");
}

#[test]
fn the_peer_is_polled_when_it_is_due() {
    let mut bench = Bench::established(Role::Initiator);
    bench.read_table(&bench.table(1));
    let due = bench.connection.poll_due;
    assert!(due > bench.now && !bench.connection.polling);
    bench.pass(Duration::from_nanos(due.since(bench.now).as_nanos() as u64 - 1));
    assert!(!bench.connection.polling);
    bench.pass(Duration::from_nanos(1));
    assert!(bench.connection.polling, "at its time, or the loop would turn for nothing");
}

// ---- what the own side shows, and when --------------------------------------------------------------

#[test]
fn the_own_records_say_what_holds() {
    let mut bench = Bench::established(Role::Initiator);
    let place = Place { volume_id: [3; 16], owner: MY_LANE, index: 0, device: 0, block: 9 };
    let table = bench.connection.build_table(&bench.me, 1, place);
    // Each segment of the window is its payload and a header block.
    assert_eq!(table.credits, u32::from(WINDOW) * 17);
    let has_command = |bench: &Bench| {
        let entry = bench.connection.build_entry(&bench.me, 1, place);
        assert_eq!((entry.handshake_number, entry.handshake_length), (0, 0), "keys need no message");
        entry.pro_flag_process.contains(ProcessFlags::COMMAND)
    };
    assert!(!has_command(&bench));
    bench.with(|connection, shared| connection.send_command(shared, 5, 0, vec![1]));
    assert!(has_command(&bench));
    let asking = Bench::new(Role::Initiator, |_| {});
    assert_eq!(asking.connection.build_entry(&asking.me, 1, place).handshake_number, 1);
}

/// Before the peer's first table the whole window is granted, of the largest segments too.
#[test]
fn a_new_connection_has_a_window_of_the_largest_segments() {
    let mut bench = Bench::established(Role::Initiator);
    for sent in 0..WINDOW {
        assert!(bench.connection.has_room(), "{sent} sent");
        bench.send(SegmentKind::Data, SEG_MAX as usize);
    }
    assert!(!bench.connection.has_room(), "all of them are under way, and none waits");
}

/// Rule 35: a table goes out at once if somebody waits for it, and else when more may have gathered.
#[test]
fn a_table_that_somebody_waits_for_goes_out_at_once() {
    let rested = || {
        let mut bench = Bench::established(Role::Initiator);
        bench.write_table();
        bench.read_table(&bench.table(1));
        bench.pass(Duration::from_millis(500));
        let version = bench.connection.slot.table.version();
        assert!(bench.connection.slot.table.is_idle());
        (bench, version)
    };
    let published = |bench: &Bench, version| bench.connection.slot.table.version() > version;
    for urgent in [false, true] {
        let (mut bench, version) = rested();
        bench.connection.mark_dirty(bench.now, urgent);
        bench.pass(Duration::ZERO);
        assert_eq!(published(&bench, version), urgent);
        bench.pass(PUBLISH_GATHER);
        assert!(published(&bench, version));
    }
    // A small command is in the table itself.
    let (mut bench, version) = rested();
    bench.send(SegmentKind::Command, 4);
    let sealed = bench.buffers.take_zeroed(44).freeze();
    bench.with(|connection, shared| {
        connection.handle_work(shared, 1, 0, SealDone::Sealed(sealed, [0; 16]), false);
    });
    assert!(published(&bench, version));
}

/// Rule 46: CLOSED follows the last acknowledgements, or the peer would take what it sent for lost.
#[test]
fn a_connection_closes_when_its_last_table_is_written() {
    let mut bench = Bench::established(Role::Initiator);
    bench.with(Connection::close);
    assert_eq!(bench.connection.phase, Phase::Established, "its first table is being written");
    bench.write_table();
    assert_eq!(bench.connection.phase, Phase::Established, "the one that says DRAINING is being written");
    bench.write_table();
    assert_eq!(bench.ended(), Some(CloseReason::Done));
}

/// A command that still has to be taken keeps a closing connection open; so does a segment, for a while.
#[test]
fn a_connection_that_does_not_drain_is_cut() {
    let mut bench = Bench::established(Role::Initiator);
    bench.write_table();
    bench.send(SegmentKind::Data, 10);
    bench.with(Connection::close);
    for _ in 0..49 {
        bench.pass(DRAIN_TIMEOUT / 50);
        bench.write_table();
        assert_eq!(bench.ended(), None);
    }
    bench.pass(DRAIN_TIMEOUT / 50);
    assert_eq!(bench.ended(), Some(CloseReason::PeerLost));
}

/// A device that does not answer is named, whichever of our requests hangs.
#[test]
fn a_request_that_hangs_ends_the_connection() {
    let stuck = |answer: fn(&mut Bench, u64)| {
        let mut bench = Bench::established(Role::Initiator);
        for second in 1..=130 {
            bench.pass(Duration::from_secs(1));
            if let Some(reason) = bench.ended() {
                assert_eq!(reason, CloseReason::DeviceStuck);
                return second;
            }
            answer(&mut bench, second);
        }
        panic!("nothing hangs")
    };
    let reads_hang = stuck(|bench, _| bench.write_table());
    let writes_hang = stuck(|bench, second| bench.read_table(&bench.table(second)));
    assert_eq!((reads_hang, writes_hang), (120, 120));
}

/// Rule 8: what nobody reacts to is written again; what was taken rests.
#[test]
fn an_entry_is_written_again_until_it_is_taken() {
    let written = |bench: &mut Bench, seconds: u64| {
        let before = bench.connection.slot.entry.version();
        for _ in 0..seconds {
            bench.pass(Duration::from_secs(1));
            bench.write_table();
            if !bench.connection.slot.entry.is_idle() {
                bench.write_entry();
            }
        }
        assert_eq!(bench.ended(), None);
        bench.connection.slot.entry.version() - before
    };
    let shown = |bench: &mut Bench| {
        let events = std::mem::take(&mut bench.out.events);
        events.into_iter().filter(|event| matches!(event, Event::AnswersChanged)).count()
    };
    let mut calling = Bench::new(Role::Initiator, |_| {});
    assert_eq!((written(&mut calling, 9), shown(&mut calling)), (3, 0));
    // The in-directory that shows the answer may be what was lost.
    let mut answered = Bench::new(Role::Connector, |_| {});
    assert_eq!(shown(&mut answered), 1);
    assert_eq!((written(&mut answered, 9), shown(&mut answered)), (3, 3));
    let mut established = Bench::established(Role::Initiator);
    assert_eq!(written(&mut established, 9), 3, "the peer has shown no table");
    established.read_table(&established.table(1));
    assert_eq!(written(&mut established, 9), 0);
    established.with(|connection, shared| connection.send_command(shared, 5, 0, vec![1]));
    established.write_entry();
    assert_eq!(written(&mut established, 9), 3, "the command is not taken");
    established.read_table(&PointerTable { command_ack: 1, ..established.table(2) });
    assert_eq!((written(&mut established, 9), shown(&mut established)), (0, 0));
}

#[test]
#[should_panic(expected = "a sealed segment in memory no longer opens")]
fn a_sealed_segment_that_no_longer_opens_is_broken_memory() {
    let mut bench = Bench::established(Role::Initiator);
    bench.with(|connection, shared| connection.handle_work(shared, 1, 0, SealDone::Failed, true));
    assert_eq!(bench.ended(), None, "one of the peer's is read again");
    bench.with(|connection, shared| connection.handle_work(shared, 1, 0, SealDone::Failed, false));
}

// ---- small parts ------------------------------------------------------------------------------------

/// A peer that has changed its table since ours was published hears of us soon; one that rests costs a write
/// every ten seconds and no more.
#[test]
fn a_table_is_kept_alive_by_what_the_peer_does() {
    let published = Instant(5_000_000_000);
    let due = |change| keep_alive_after(published, &Backoff::new(Instant(change)));
    for change in [0, published.0 - 1, published.0] {
        assert_eq!(due(change), published + KEEP_ALIVE_IDLE, "the last change was seen at {change}");
    }
    for change in [published.0 + 1, published.0 + 900_000_000, published.0 + 2_000_000_000] {
        assert_eq!(due(change), published + KEEP_ALIVE_ACTIVE, "the last change was seen at {change}");
    }
}

/// As docs/format.md has it, and as every header on a disk.
#[test]
fn the_low_half_of_a_nonce_or_id_is_its_first_eight_bytes() {
    let bytes = std::array::from_fn(|at| u8::try_from(at).expect("few") + 1);
    assert_eq!(nonce_low(&bytes), 0x0807_0605_0403_0201);
    assert_eq!(crate::protocol::writer::connection_id_low(&bytes), 0x0807_0605_0403_0201);
}
