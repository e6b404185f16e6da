//! How a process takes its lane: a new incarnation, and an end to what the last one left open.
//!
//! ```text
//!  Reading    incarnation pair, beacon and process id rows of the lane
//!     |         the beacon is of a life that we do not remember?
//!     +------> Watching   two of its periods; if it goes on, another process is alive: stop
//!     v
//!  Claiming   incarnation = highest seen + 1 with a fresh nonce, written durably, read back
//!     v
//!  Persisting the program writes it into its local state
//!     v
//!  Closing    entries and tables that are neither FREE nor CLOSED are written CLOSED
//!     v
//!  Done
//! ```
//!
//! What holds: no beacon, entry or segment is written before the incarnation is on the disk *and* in the
//! local state, so that no two lives of a lane ever carry the same incarnation. The maximum is taken only
//! from records that carry our own MAC.

use std::time::Duration;

use storage_mapping::{Buffer, BufferPool, Instant};
use volume::header::{Edition, Header, RecordType, parse_page, seal_page};
use volume::record::{Record, Rows};
use volume::{BLOCK_BYTES, Layout};

use super::connection::{IoCommand, SlotPairs, nonce_low};
use super::endpoint::Identity;
use super::owner_mac::OwnerKey;
use super::pair::PairWriter;
use crate::format::beacon::{Beacon, BeaconState};
use crate::format::control_area::IncarnationRecord;
use crate::format::map::{TableMap, address};
use crate::format::process_id_table::{CloseReason, EntryState, ProcessIdEntry, Role};
use crate::format::process_segment_pointer_table::{ENTRIES_BYTES, PointerTable, TableFlags};

/// Highest incarnation that is believed: beyond it a counter was forged.
const INCARNATION_MAX: u64 = 1 << 48;

/// I/O of a start that is repeated after an error, at most.
const REPEATS_MAX: u32 = 16;

/// What the host remembers of a lane's past, from its state directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalState {
    /// Highest incarnation used.
    pub incarnation: u64,
    /// Nonces of the last incarnations.
    pub nonces: Vec<[u8; 16]>,
}

/// Where the start stands; drawn at the head of the file.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Reading,
    Watching { until: Instant, counter: u64, rereading: bool },
    Claiming { written: bool },
    Persisting,
    Closing { pending: usize },
    Done,
}

/// What the start's I/O was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartupIo {
    /// The incarnation pair was read.
    Incarnation,
    /// The own beacon was read.
    Beacon,
    /// The own process id rows were read.
    Rows,
    /// The incarnation record was written.
    Claim,
    /// It was read back.
    ReadBack,
    /// A left-over entry or table was closed.
    Close,
}

/// Why a lane cannot be taken, or not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartupFailure {
    /// Another process with this identity is alive.
    DuplicateIdentity,
    /// The lane's records cannot be read or written.
    Device,
    /// A device shows nothing of the volume any more, or another volume.
    DeviceReplaced {
        /// Which, by its place in the configuration.
        device: u16,
    },
    /// The administrator has evicted this host.
    Evicted,
}

/// What the start asks of its endpoint.
#[derive(Debug)]
pub enum StartupStep {
    /// I/O.
    Io(StartupIo, IoCommand),
    /// Write this into the local state, then call [`Startup::handle_persisted`].
    Persist(LocalState),
    /// The lane is ours.
    Done(Identity, Vec<SlotPairs>),
    /// It is not.
    Failed(StartupFailure),
}

/// The start of a process.
#[derive(Debug)]
pub struct Startup {
    phase: Phase,
    local: LocalState,
    identity: Identity,
    highest: u64,
    incarnation_read: bool,
    beacon: Option<Option<Beacon>>,
    rows: Option<Vec<(u32, EntryState, u32)>>,
    /// I/O that was repeated after an error.
    repeats: u32,
    steps: Vec<StartupStep>,
}

impl Startup {
    /// Begins: reads the lane's records. `identity` carries lane and name; incarnation and nonce are set
    /// here, the nonce from `nonce`.
    #[must_use]
    pub fn new(layout: &Layout, local: LocalState, identity: Identity) -> Self {
        let reads = [StartupIo::Incarnation, StartupIo::Beacon, StartupIo::Rows];
        let steps = reads.map(|io| read_step(layout, identity.lane, io)).into();
        let highest = local.incarnation;
        Self {
            phase: Phase::Reading,
            local,
            identity,
            highest,
            incarnation_read: false,
            beacon: None,
            rows: None,
            repeats: 0,
            steps,
        }
    }

    /// The next step.
    pub fn poll(&mut self) -> Option<StartupStep> {
        if self.steps.is_empty() { None } else { Some(self.steps.remove(0)) }
    }

    /// When time alone will change something.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        match self.phase {
            Phase::Watching { until, rereading: false, .. } => Some(until),
            _ => None,
        }
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant, layout: &Layout) {
        if let Phase::Watching { until, rereading, .. } = &mut self.phase
            && now >= *until
            && !*rereading
        {
            *rereading = true;
            self.steps.push(read_step(layout, self.identity.lane, StartupIo::Beacon));
        }
    }

    /// An I/O has ended.
    pub fn handle_io(
        &mut self,
        now: Instant,
        layout: &Layout,
        key: &OwnerKey,
        buffers: &BufferPool,
        io: StartupIo,
        success: bool,
        buffer: Option<&Buffer>,
    ) {
        // A left-over that cannot be closed does no harm: its peers find the new incarnation.
        if !success && io != StartupIo::Close {
            return self.repeat(now, layout, key, buffers, io);
        }
        match (io, buffer) {
            (StartupIo::Incarnation, Some(pair)) => self.take_incarnation(layout, key, pair),
            (StartupIo::Beacon, Some(page)) => return self.take_beacon(now, layout, key, buffers, page),
            (StartupIo::Rows, Some(rows)) => self.rows = Some(read_rows(layout, self.identity.lane, rows)),
            (StartupIo::Claim, _) => {
                self.phase = Phase::Claiming { written: true };
                self.steps.push(read_step(layout, self.identity.lane, StartupIo::ReadBack));
            }
            (StartupIo::ReadBack, Some(pair)) => self.take_read_back(layout, key, pair),
            (StartupIo::Close, _) => {
                if let Phase::Closing { pending } = &mut self.phase {
                    *pending -= 1;
                }
                self.finish_if_closed(layout);
            }
            _ => {}
        }
        self.claim_if_read(now, layout, key, buffers);
    }

    /// One bad I/O does not end a process; many do.
    fn repeat(&mut self, now: Instant, layout: &Layout, key: &OwnerKey, buffers: &BufferPool, io: StartupIo) {
        self.repeats += 1;
        if self.repeats > REPEATS_MAX {
            self.steps.push(StartupStep::Failed(StartupFailure::Device));
        } else if io == StartupIo::Claim {
            self.claim(now, layout, key, buffers);
        } else {
            self.steps.push(read_step(layout, self.identity.lane, io));
        }
    }

    fn take_incarnation(&mut self, layout: &Layout, key: &OwnerKey, pair: &Buffer) {
        for record in own_incarnations(layout, self.identity.lane, key, pair) {
            self.highest = self.highest.max(record.header.incarnation);
        }
        self.incarnation_read = true;
    }

    fn take_beacon(
        &mut self,
        now: Instant,
        layout: &Layout,
        key: &OwnerKey,
        buffers: &BufferPool,
        page: &Buffer,
    ) {
        let place = TableMap::new(layout).beacon(self.identity.lane);
        let own = parse_page::<Beacon>(page, None).ok().filter(|beacon| {
            let unsealed = Beacon { owner_mac: [0; 32], ..beacon.clone() };
            beacon.header.check::<Beacon>(RecordType::Beacon, place).is_ok()
                && key.mac(&unsealed) == beacon.owner_mac
                && beacon.header.incarnation <= INCARNATION_MAX
        });
        if let Some(beacon) = &own {
            self.highest = self.highest.max(beacon.header.incarnation);
        }
        if let Phase::Watching { counter, .. } = self.phase {
            if own.is_some_and(|beacon| beacon.counter != counter) {
                self.steps.push(StartupStep::Failed(StartupFailure::DuplicateIdentity));
            } else {
                self.claim(now, layout, key, buffers);
            }
            return;
        }
        self.beacon = Some(own);
        self.claim_if_read(now, layout, key, buffers);
    }

    fn claim_if_read(&mut self, now: Instant, layout: &Layout, key: &OwnerKey, buffers: &BufferPool) {
        if self.phase != Phase::Reading || !self.incarnation_read || self.rows.is_none() {
            return;
        }
        let Some(beacon) = &self.beacon else { return };
        let stranger = beacon.as_ref().filter(|beacon| {
            beacon.state != BeaconState::Leaving && !self.local.nonces.contains(&beacon.incarnation_nonce)
        });
        if let Some(beacon) = stranger {
            let period = Duration::from_millis(beacon.period_ms.clamp(100, 60_000).into());
            let until = now + period * 2 + Duration::from_millis(500);
            self.phase = Phase::Watching { until, counter: beacon.counter, rereading: false };
        } else {
            self.claim(now, layout, key, buffers);
        }
    }

    fn claim(&mut self, _now: Instant, layout: &Layout, key: &OwnerKey, buffers: &BufferPool) {
        self.identity.incarnation = self.highest + 1;
        self.phase = Phase::Claiming { written: false };
        let pair = TableMap::new(layout).incarnation(self.identity.lane);
        // The version of this pair is the incarnation itself, so that it, too, alternates blocks.
        let version = self.identity.incarnation;
        let place = volume::header::Place { block: pair.block + version % 2, ..pair };
        let edition = Edition { incarnation: version, nonce_low: nonce_low(&self.identity.nonce), version };
        let mut record = IncarnationRecord {
            header: Header::new::<IncarnationRecord>(RecordType::Incarnation, place, edition),
            incarnation_nonce: self.identity.nonce,
            owner_mac: [0; 32],
        };
        record.owner_mac = key.mac(&record);
        let bytes = page(&record, buffers).freeze();
        let write = IoCommand::Write { address: address(place), bytes, durable: true };
        self.steps.push(StartupStep::Io(StartupIo::Claim, write));
    }

    fn take_read_back(&mut self, layout: &Layout, key: &OwnerKey, pair: &Buffer) {
        let found = own_incarnations(layout, self.identity.lane, key, pair).into_iter().any(|record| {
            record.header.incarnation == self.identity.incarnation
                && record.incarnation_nonce == self.identity.nonce
        });
        if !found {
            self.steps.push(StartupStep::Failed(StartupFailure::DuplicateIdentity));
            return;
        }
        const NONCES_KEPT: usize = 8;
        self.local.incarnation = self.identity.incarnation;
        self.local.nonces.push(self.identity.nonce);
        let surplus = self.local.nonces.len().saturating_sub(NONCES_KEPT);
        self.local.nonces.drain(..surplus);
        self.phase = Phase::Persisting;
        self.steps.push(StartupStep::Persist(self.local.clone()));
    }

    /// The local state is on the host's own disk: what the last life left open is closed now.
    pub fn handle_persisted(&mut self, layout: &Layout, buffers: &BufferPool) {
        let map = TableMap::new(layout);
        let rows = self.rows.clone().unwrap_or_default();
        let mut pending = 0;
        for (process_id, state, serial) in rows {
            if matches!(state, EntryState::Free | EntryState::Closed) {
                continue;
            }
            for bytes in closed_pages(layout, &self.identity, process_id, serial, buffers) {
                self.steps.push(StartupStep::Io(StartupIo::Close, bytes));
                pending += 1;
            }
        }
        debug_assert!(map.lanes() > 0);
        self.phase = Phase::Closing { pending };
        self.finish_if_closed(layout);
    }

    fn finish_if_closed(&mut self, layout: &Layout) {
        if self.phase != (Phase::Closing { pending: 0 }) {
            return;
        }
        self.phase = Phase::Done;
        let map = TableMap::new(layout);
        let slots = self.rows.take().unwrap_or_default().into_iter().map(|(process_id, state, serial)| {
            let (mut entry, mut table) =
                (map_pair(map.process_id_entry(process_id)), map_pair(map.pointer_table(process_id)));
            if !matches!(state, EntryState::Free | EntryState::Closed) {
                // Version 1 of this incarnation was the closing one.
                entry.skip_version();
                table.skip_version();
            }
            SlotPairs { process_id, serial, entry, table }
        });
        let slots = slots.collect();
        self.steps.push(StartupStep::Done(self.identity.clone(), slots));
    }
}

/// The read of the lane's own records that `io` names.
fn read_step(layout: &Layout, lane: u16, io: StartupIo) -> StartupStep {
    let map = TableMap::new(layout);
    let (start, blocks) = match io {
        StartupIo::Beacon => (address(map.beacon(lane)), 1),
        StartupIo::Rows => map.process_id_rows(lane),
        StartupIo::Incarnation | StartupIo::ReadBack | StartupIo::Claim | StartupIo::Close => {
            (address(map.incarnation(lane)), 2)
        }
    };
    let length = usize::try_from(blocks).expect("at most 1,024 blocks") * BLOCK_BYTES;
    StartupStep::Io(io, IoCommand::Read { address: start, length })
}

fn map_pair(place: volume::header::Place) -> PairWriter {
    PairWriter::new(place)
}

fn page<R: Record>(record: &R, buffers: &BufferPool) -> Buffer {
    let mut buffer = buffers.take_zeroed(BLOCK_BYTES);
    record.emit(&mut buffer);
    seal_page(&mut buffer, None);
    buffer
}

fn own_incarnations(layout: &Layout, lane: u16, key: &OwnerKey, pair: &Buffer) -> Vec<IncarnationRecord> {
    let place = TableMap::new(layout).incarnation(lane);
    let halves = pair.chunks_exact(BLOCK_BYTES).zip(0u64..);
    halves
        .filter_map(|(half, offset)| {
            let record = parse_page::<IncarnationRecord>(half, None).ok()?;
            let place = volume::header::Place { block: place.block + offset, ..place };
            let unsealed = IncarnationRecord { owner_mac: [0; 32], ..record.clone() };
            let own = record.header.check::<IncarnationRecord>(RecordType::Incarnation, place).is_ok()
                && key.mac(&unsealed) == record.owner_mac
                && record.header.incarnation <= INCARNATION_MAX;
            own.then_some(record)
        })
        .collect()
}

/// State and serial of every own slot. The records may be sealed under keys that nobody has any more, so
/// they are read as they stand: the worst that a wrong value does is a needless CLOSED.
fn read_rows(layout: &Layout, lane: u16, rows: &Buffer) -> Vec<(u32, EntryState, u32)> {
    let map = TableMap::new(layout);
    let pairs = rows.chunks_exact(2 * BLOCK_BYTES).zip(0u32..);
    pairs
        .map(|(pair, row)| {
            let newest = pair
                .chunks_exact(BLOCK_BYTES)
                .filter_map(|half| ProcessIdEntry::parse(half).ok())
                .max_by_key(|entry| (entry.header.incarnation, entry.header.version));
            let process_id = map.initiator_id(lane, 0) + row;
            let damaged = newest.is_none() && pair.iter().any(|byte| *byte != 0);
            match newest {
                Some(entry) => (process_id, entry.state, entry.serial),
                None if damaged => (process_id, EntryState::Established, 0),
                None => (process_id, EntryState::Free, 0),
            }
        })
        .collect()
}

fn closed_pages(
    layout: &Layout,
    me: &Identity,
    process_id: u32,
    serial: u32,
    buffers: &BufferPool,
) -> [IoCommand; 2] {
    let map = TableMap::new(layout);
    let (_, row) = map.split(process_id);
    let role = if row < map.connections() { Role::Initiator } else { Role::Connector };
    let edition = Edition { incarnation: me.incarnation, nonce_low: me.nonce_low(), version: 1 };
    let second = |place: volume::header::Place| volume::header::Place { block: place.block + 1, ..place };
    let entry_place = second(map.process_id_entry(process_id));
    let header = Header::new::<ProcessIdEntry>(RecordType::ProcessIdEntry, entry_place, edition);
    let mut entry = ProcessIdEntry::unused(header, process_id, role, EntryState::Closed);
    entry.serial = serial;
    entry.pro_con_rc = CloseReason::PeerLost;
    let table_place = second(map.pointer_table(process_id));
    let table = PointerTable {
        header: Header::new::<PointerTable>(RecordType::PointerTable, table_place, edition),
        connection_id: [0; 16],
        state: EntryState::Closed,
        role,
        flags: TableFlags::CLOSING,
        serial,
        keep_alive: 0,
        entry_version: 1,
        command_ack: 0,
        peer_process_id: u32::MAX,
        peer_host: u16::MAX,
        close_reason: CloseReason::PeerLost,
        peer_incarnation: 0,
        received: 0,
        durable: 0,
        window_limit: 0,
        credits: 0,
        nack_count: 0,
        read_flags: 0,
        nacks: Rows::default(),
        entry_area: [0; ENTRIES_BYTES],
        base_seq: 0,
        entry_count: 0,
    };
    let write = |place, bytes: Buffer| IoCommand::Write {
        address: address(place),
        bytes: bytes.freeze(),
        durable: false,
    };
    [write(entry_place, page(&entry, buffers)), write(table_place, page(&table, buffers))]
}
