//! A small volume with two enrolled hosts, and sound records of every kind to start from.
//!
//! Everything is made once and from fixed seeds. Not here: damage.

use std::sync::{Arc, OnceLock};

use crate::stand_in::curve;
use aws_lc_rs::signature::Ed25519KeyPair;
use transfer_core::format::beacon::{Beacon, BeaconState, Bell, OutCall};
use transfer_core::format::control_area::{InCall, InDirectory, IncarnationRecord};
use transfer_core::format::host_table::HostRecord;
use transfer_core::format::map::TableMap;
use transfer_core::format::process_id_table::{EntryState, ProcessFlags, ProcessIdEntry, Role, Suite};
use transfer_core::format::process_segment_pointer_table::{PointerTable, TableFlags};
use transfer_core::format::segment::Direction;
use transfer_core::protocol::handshake::public_key_on;
use transfer_core::protocol::owner_mac::OwnerKey;
use transfer_core::protocol::seal::DirectionKeys;
use transfer_core::protocol::writer::Stream;
use volume::Layout;
use volume::header::{Edition, Header, Page, Place, RecordType, emit_page};
use volume::layout::{PlannedDevice, VolumePlan};
use volume::record::{Record, Rows, Text};

/// Bytes of a segment's payload: the least that a session takes.
pub const SEGMENT_BYTES: u32 = 16 << 10;
/// Segments of each lane: few, so that they are used again and again.
const SEGMENTS_PER_LANE: u64 = 10;
/// The hosts, each with one lane.
pub const HOSTS: [&str; 2] = ["alpha", "beta"];
/// Id of the volume.
pub const VOLUME_ID: [u8; 16] = [3; 16];
/// Id of the connection that the sample records belong to.
pub const CONNECTION_ID: [u8; 16] = *b"connection id 16";
/// The life in which they were written.
pub const EDITION: Edition = Edition { incarnation: 5, nonce_low: 6, version: 4 };

/// What all targets start from.
#[derive(Debug)]
pub struct Sample {
    /// What lies where.
    pub layout: Arc<Layout>,
    /// The key that signed it.
    pub admin: Ed25519KeyPair,
    /// The rows of the host table.
    pub hosts: Arc<Vec<Option<HostRecord>>>,
    /// Keys of the direction from the initiator.
    pub keys: DirectionKeys,
    /// The key by which host 0 knows its own records.
    pub owner_key: OwnerKey,
}

/// The one sample.
pub fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(Sample::make)
}

/// Private key of a host.
#[must_use]
pub fn private_key(host: usize) -> [u8; 32] {
    [u8::try_from(host).expect("two hosts") + 1; 32]
}

impl Sample {
    fn make() -> Self {
        let admin = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("32 bytes are a seed");
        let segment_blocks = u64::from(SEGMENT_BYTES) / 4096 + 1;
        let secondary = 256 + HOSTS.len() as u64 * SEGMENTS_PER_LANE * segment_blocks;
        let device = |id, blocks| PlannedDevice::new(id, blocks).expect("a short name");
        let plan = VolumePlan {
            devices: vec![device("master", 8 * 256), device("secondary", secondary)],
            lanes: 2,
            connections: 2,
            segment_payload_bytes: SEGMENT_BYTES,
            volume_id: VOLUME_ID,
            time_id: 1,
            unix_filename: "master".into(),
        };
        let layout = plan.layout(&admin).expect("the plan fits");
        let row = |(row, name): (u16, &&str)| {
            let name = Text::new(name).expect("a short name");
            Some(HostRecord::new(
                &layout,
                row,
                name,
                public_key_on(curve, &private_key(row.into())),
                0,
                &admin,
            ))
        };
        let hosts = Arc::new((0..).zip(&HOSTS).map(row).collect());
        let keys = DirectionKeys::derive(&[7; 32], b"a handshake hash");
        let owner_key = OwnerKey::new(&private_key(0));
        Self { layout: Arc::new(layout), admin, hosts, keys, owner_key }
    }

    /// The places of the control structures.
    #[must_use]
    pub fn map(&self) -> TableMap<'_> {
        TableMap::new(&self.layout)
    }

    /// Row `host` of the host table.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn host(&self, host: usize) -> &HostRecord {
        self.hosts[host].as_ref().expect("every sample host is enrolled")
    }

    /// What both ends of the sample connection agree on, from the initiator to the connector.
    #[must_use]
    pub fn stream(&self) -> Stream {
        Stream {
            volume_id: VOLUME_ID,
            connection_id: CONNECTION_ID,
            direction: Direction::ToConnector,
            owner: 0,
            incarnation: EDITION.incarnation,
            nonce_low: EDITION.nonce_low,
            table: self.map().pointer_table(0),
            key: Arc::clone(&self.keys.data),
        }
    }

    /// A beacon of host 0 that calls host 1.
    #[must_use]
    pub fn beacon(&self) -> Beacon {
        let call = OutCall { target_host: 1, slot: 0, flags: 1, serial: 1 };
        let mut beacon = Beacon {
            header: header::<Beacon>(RecordType::Beacon, self.map().beacon(0)),
            counter: 8,
            token: [2; 8],
            period_ms: 2000,
            state: BeaconState::Running,
            incarnation_nonce: [6; 16],
            enrolment_hash: [1; 8],
            entry_count: 1,
            out_directory: Rows::new(vec![call]).expect("one row"),
            owner_mac: [0; 32],
        };
        beacon.owner_mac = self.owner_key.mac(&beacon);
        beacon
    }

    /// A bell of host 0.
    #[must_use]
    pub fn bell(&self) -> Bell {
        Bell { header: header::<Bell>(RecordType::Bell, self.map().bell(0)), ring_value: [4; 32], ringer: 1 }
    }

    /// The incarnation record of host 0.
    #[must_use]
    pub fn incarnation(&self) -> IncarnationRecord {
        let mut record = IncarnationRecord {
            header: header::<IncarnationRecord>(RecordType::Incarnation, self.map().incarnation(0)),
            incarnation_nonce: [6; 16],
            owner_mac: [0; 32],
        };
        record.owner_mac = self.owner_key.mac(&record);
        record
    }

    /// An in-directory of host 0 with an answer to host 1.
    #[must_use]
    pub fn in_directory(&self) -> InDirectory {
        let call = InCall { initiator_host: 1, initiator_slot: 0, state: 1, serial: 1, connector_entry: 0 };
        let mut directory = InDirectory {
            header: header::<InDirectory>(RecordType::InDirectory, self.map().in_directory(0)),
            entry_count: 1,
            in_directory: Rows::new(vec![call]).expect("one row"),
            owner_mac: [0; 32],
        };
        directory.owner_mac = self.owner_key.mac(&directory);
        directory
    }

    /// An entry of host 0 for an established connection, without a command.
    #[must_use]
    pub fn process_id_entry(&self) -> ProcessIdEntry {
        let header = header::<ProcessIdEntry>(RecordType::ProcessIdEntry, self.map().process_id_entry(0));
        ProcessIdEntry {
            connection_id: CONNECTION_ID,
            peer_process_id: self.map().connector_id(1, 0),
            pro_flag_process: ProcessFlags::COMMAND,
            peer_host: 1,
            serial: 1,
            suite: Suite::Xaes256Gcm,
            window: 8,
            seg_max: SEGMENT_BYTES,
            peer_incarnation: 1,
            own_nonce: [8; 16],
            peer_nonce: [9; 16],
            pro_requestor: Text::new(HOSTS[0]).expect("a short name"),
            pro_requestee: Text::new(HOSTS[1]).expect("a short name"),
            ..ProcessIdEntry::unused(header, 0, Role::Initiator, EntryState::Established)
        }
    }

    /// A pointer table of host 0 without entries.
    #[must_use]
    pub fn pointer_table(&self) -> PointerTable {
        PointerTable {
            header: header::<PointerTable>(RecordType::PointerTable, self.map().pointer_table(0)),
            connection_id: CONNECTION_ID,
            state: EntryState::Established,
            role: Role::Initiator,
            flags: TableFlags::empty(),
            serial: 1,
            keep_alive: 3,
            entry_version: 2,
            command_ack: 0,
            peer_process_id: self.map().connector_id(1, 0),
            peer_host: 1,
            close_reason: transfer_core::format::process_id_table::CloseReason::None,
            peer_incarnation: 1,
            received: 0,
            durable: 0,
            window_limit: 8,
            credits: 40,
            nack_count: 0,
            read_flags: 0,
            nacks: Rows::default(),
            entry_area: [0; 3648],
            base_seq: 1,
            entry_count: 0,
        }
    }
}

/// A sound record and its page, which is made once: a seal costs as much as all that is done with it.
#[derive(Debug)]
pub struct Sound<R> {
    /// The record.
    pub record: R,
    /// Its page, sealed for everybody.
    pub page: Box<Page>,
}

impl<R: Record> Sound<R> {
    /// Seals a record.
    #[must_use]
    pub fn new(record: R) -> Self {
        let page = emit_page(&record, None);
        Self { record, page }
    }
}

/// A header of the sample's edition, in the half of a pair where that belongs.
#[must_use]
pub fn header<R: Record>(record_type: RecordType, first: Place) -> Header {
    Header::new::<R>(record_type, first, EDITION)
}
