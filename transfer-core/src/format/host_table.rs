//! The host table: who may write what.
//!
//! One row is one *lane*: a process of a host with its own beacon, control area, process id rows,
//! pointer tables and pool of segments. All lanes of a host carry its name and key; lane 0 is that of
//! `serve`. Rows are signed by the admin and only a phone book: whom a host talks to is decided by its
//! own list of keys. The table stands twice.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use bitflags::bitflags;
use volume::header::{Edition, Header, RecordType, emit_page, parse_page};
use volume::record::{Record, RecordError, Rows, Text, Wire};
use volume::{BlockAddress, Layout, Page, SegmentNumber, record, wire_enum, wire_flags};

use super::map::TableMap;

wire_enum! {
    /// Operating system of a host (`pro_requestor_type`, `pro_requestee_type`).
    pub enum OsType: u16 {
        /// Not known.
        Unknown = 0,
        /// Linux.
        Linux = 1,
        /// Another UNIX.
        OtherUnix = 2,
        /// Windows.
        Windows = 3,
        /// A mainframe.
        Mainframe = 4,
    }
}

bitflags! {
    /// Flags of a host record.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct HostFlags: u32 {
        /// May take part.
        const ENROLLED = 1;
        /// May no longer.
        const EVICTED = 2;
        /// Its rows and tables lie on a device of its own.
        const SPLIT_LAYOUT = 4;
    }
}
wire_flags!(HostFlags, u32);

record! {
    /// A run of blocks on one device.
    pub struct Extent: 24, "extent" {
        /// Entry number of the device.
        0 => device: u16,
        /// First block.
        8 => start: u64,
        /// Blocks.
        16 => blocks: u64,
    }
}

record! {
    /// A run of segments on one device.
    pub struct PoolRange: 16, "pool range" {
        /// Number of the first segment.
        0 => first_segment: u64,
        /// Segments.
        8 => count: u64,
    }
}

record! {
    /// One row of the host table.
    pub struct HostRecord: 4064, "host record" {
        /// Common header.
        0 => header: Header,
        /// Row number: the owner that its records carry.
        64 => host_id: u16,
        /// Operating system.
        66 => os_type: OsType,
        /// Flags.
        68 => flags: HostFlags,
        /// Name of the host.
        72 => name: Text<64>,
        /// X25519 static key.
        136 => public_key: [u8; 32],
        /// Control area.
        168 => control_area: Extent,
        /// Process id rows.
        192 => process_id_rows: Extent,
        /// Pointer tables.
        216 => pointer_tables: Extent,
        /// Number of pool ranges.
        240 => range_count: u16,
        /// Lane of the host: 0 = `serve`.
        242 => lane: u16,
        /// The segments it may write.
        248 => pool_ranges: Rows<PoolRange, 62>,
        /// Ed25519 over the volume id, the header's version and bytes 64–1,239.
        1240 => admin_signature: [u8; 64],
    }
}

/// Bytes under the admin's signature, beside the volume id and the version.
const SIGNED: std::ops::Range<usize> = 64..1240;

impl HostRecord {
    /// The row of lane `lane` of the host `name`, as row `host_id` of the volume, signed.
    #[must_use]
    pub fn new(
        layout: &Layout,
        host_id: u16,
        name: Text<64>,
        public_key: [u8; 32],
        lane: u16,
        admin: &Ed25519KeyPair,
    ) -> Self {
        let map = TableMap::new(layout);
        let ranges: Vec<_> = layout
            .pool_of_lane(host_id)
            .into_iter()
            .map(|(first, count)| PoolRange { first_segment: first.0, count })
            .collect();
        let extent = |(start, blocks): (BlockAddress, u64)| Extent {
            device: start.device,
            start: start.block,
            blocks,
        };
        let edition = Edition { version: 1, ..Edition::default() };
        let place = map.host_record(host_id, 0);
        let mut record = Self {
            header: Header::new::<Self>(RecordType::HostRecord, place, edition),
            host_id,
            os_type: OsType::Linux,
            flags: HostFlags::ENROLLED,
            name,
            public_key,
            control_area: extent(map.control_area(host_id)),
            process_id_rows: extent(map.process_id_rows(host_id)),
            pointer_tables: extent(map.pointer_tables(host_id)),
            range_count: u16::try_from(ranges.len()).expect("at most 62 devices"),
            lane,
            pool_ranges: Rows::new(ranges).expect("at most 62 devices"),
            admin_signature: [0; 64],
        };
        let mut bytes = vec![0; Self::SIZE];
        record.emit(&mut bytes);
        record.admin_signature.copy_from_slice(admin.sign(&signed_bytes(&bytes)).as_ref());
        record
    }

    /// The blocks of both copies.
    #[must_use]
    pub fn pages(&self, layout: &Layout) -> Vec<(BlockAddress, Box<Page>)> {
        (0..2)
            .map(|copy| {
                let place = TableMap::new(layout).host_record(self.host_id, copy);
                let mut record = self.clone();
                record.header.own_block = place.block;
                (BlockAddress { device: place.device, block: place.block }, emit_page(&record, None))
            })
            .collect()
    }

    /// Opens a row: seal, place, the admin's signature, and what it grants against the layout.
    ///
    /// # Errors
    /// If it is damaged, not signed by the admin of the volume, or grants what is not its to give.
    pub fn open(page: &Page, layout: &Layout, host_id: u16, copy: u16) -> Result<Self, RecordError> {
        let record: Self = parse_page(page, None)?;
        let map = TableMap::new(layout);
        record.header.check::<Self>(RecordType::HostRecord, map.host_record(host_id, copy))?;
        UnparsedPublicKey::new(&ED25519, &layout.master.admin_public_key)
            .verify(&signed_bytes(page), &record.admin_signature)
            .map_err(|_| RecordError::Field { record: Self::NAME, field: "admin_signature" })?;
        let grants = |extent: &Extent, (start, blocks): (BlockAddress, u64)| {
            (extent.device, extent.start, extent.blocks) == (start.device, start.block, blocks)
        };
        let fits = record.host_id == host_id
            && grants(&record.control_area, map.control_area(host_id))
            && grants(&record.process_id_rows, map.process_id_rows(host_id))
            && grants(&record.pointer_tables, map.pointer_tables(host_id))
            && record.pool_ranges.len() == usize::from(record.range_count)
            && record.pool_ranges.iter().all(|range| range_is_on_one_device(layout, range));
        if fits { Ok(record) } else { Err(RecordError::Field { record: Self::NAME, field: "pool_ranges" }) }
    }

    /// Whether segment `number` is in the pool.
    #[must_use]
    pub fn owns_segment(&self, number: SegmentNumber) -> bool {
        self.pool_ranges
            .iter()
            .any(|range| number.0.checked_sub(range.first_segment).is_some_and(|offset| offset < range.count))
    }

    /// Whether the row may take part.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.flags.contains(HostFlags::ENROLLED) && !self.flags.contains(HostFlags::EVICTED)
    }
}

fn signed_bytes(bytes: &[u8]) -> Vec<u8> {
    [&bytes[8..24], &bytes[48..56], &bytes[SIGNED]].concat()
}

fn range_is_on_one_device(layout: &Layout, range: &PoolRange) -> bool {
    let Some(last) = range.count.checked_sub(1).and_then(|more| range.first_segment.checked_add(more)) else {
        return false;
    };
    let place = |number| layout.locate(SegmentNumber(number));
    matches!((place(range.first_segment), place(last)), (Some(a), Some(b)) if a.device == b.device)
}

#[cfg(test)]
mod tests {
    use volume::header::{Place, emit_page};
    use volume::layout::{PlannedDevice, VolumePlan};

    use super::*;

    fn admin() -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[9; 32]).expect("a key")
    }

    /// A volume of three devices and two lanes, and the row of lane 1.
    fn row() -> (Layout, HostRecord) {
        let plan = VolumePlan {
            devices: ["m", "s", "t"]
                .iter()
                .map(|id| PlannedDevice::new(id, 6000).expect("a device"))
                .collect(),
            lanes: 2,
            connections: 4,
            segment_payload_bytes: 1 << 16,
            volume_id: [3; 16],
            time_id: 1,
            unix_filename: "m".into(),
        };
        let layout = plan.layout(&admin()).expect("a layout");
        let name = Text::new("alpha").expect("a name");
        let record = HostRecord::new(&layout, 1, name, [1; 32], 0, &admin());
        (layout, record)
    }

    /// What a row of the admin's that is changed like this grants.
    fn opened(change: impl FnOnce(&mut HostRecord)) -> Result<HostRecord, RecordError> {
        let (layout, mut record) = row();
        change(&mut record);
        let mut bytes = vec![0; HostRecord::SIZE];
        record.emit(&mut bytes);
        record.admin_signature.copy_from_slice(admin().sign(&signed_bytes(&bytes)).as_ref());
        HostRecord::open(&emit_page(&record, None), &layout, 1, 0)
    }

    /// A signature that fits does not make a row grant what is another's.
    #[test]
    fn a_signed_row_grants_what_the_layout_gives_its_lane() {
        assert_eq!(opened(|_| {}), Ok(row().1));
        assert_eq!(row().1.pool_ranges.len(), 2, "a range on each device with segments");
        let refused = Err(RecordError::Field { record: HostRecord::NAME, field: "pool_ranges" });
        assert_eq!(opened(|row| row.host_id = 0), refused);
        let extents: [fn(&mut HostRecord) -> &mut Extent; 3] =
            [|row| &mut row.control_area, |row| &mut row.process_id_rows, |row| &mut row.pointer_tables];
        for extent in extents {
            assert_eq!(opened(|row| extent(row).device = 1), refused);
            assert_eq!(opened(|row| extent(row).start -= 1), refused);
            assert_eq!(opened(|row| extent(row).blocks += 1), refused);
        }
        assert_eq!(opened(|row| row.range_count += 1), refused);
        let (layout, _) = row();
        let is_there = |number: &u64| layout.locate(SegmentNumber(*number)).is_some();
        let last = (1..).take_while(is_there).last().expect("there are segments");
        let ranges = |ranges: &[(u64, u64)]| {
            let rows = ranges.iter().map(|&(first_segment, count)| PoolRange { first_segment, count });
            let rows: Vec<_> = rows.collect();
            opened(|row| {
                row.range_count = u16::try_from(rows.len()).expect("few");
                row.pool_ranges = Rows::new(rows).expect("few");
            })
        };
        assert!(ranges(&[(1, 1), (last, 1)]).is_ok());
        assert_eq!(ranges(&[(1, 1), (last, 2)]), refused, "beyond the last segment");
        assert_eq!(ranges(&[(1, last)]), refused, "over both devices");
        assert_eq!(ranges(&[(1, 0)]), refused, "nothing");
        assert_eq!(ranges(&[(2, u64::MAX)]), refused, "around the end of all numbers");
        assert_eq!(ranges(&[(last + 1, 1)]), refused, "no segment");
    }

    /// A row is one of its place, of the admin, and of its version: nothing else has a signature that fits.
    #[test]
    fn a_row_that_the_admin_did_not_sign_for_this_place_does_not_open() {
        let (layout, record) = row();
        let open = |record: &HostRecord, host, copy| {
            HostRecord::open(&emit_page(record, None), &layout, host, copy).map(drop)
        };
        assert_eq!(open(&record, 1, 0), Ok(()));
        assert!(matches!(open(&record, 0, 0), Err(RecordError::Header { .. })));
        assert!(matches!(open(&record, 1, 1), Err(RecordError::Header { .. })));
        let signature = Err(RecordError::Field { record: HostRecord::NAME, field: "admin_signature" });
        let mut other = record.clone();
        other.public_key[0] ^= 1;
        assert_eq!(open(&other, 1, 0), signature);
        other = record.clone();
        other.header.version += 1;
        assert_eq!(open(&other, 1, 0), signature, "a later version");
        let pages = record.pages(&layout);
        for (copy, (address, page)) in (0..).zip(pages) {
            let Place { device, block, .. } = TableMap::new(&layout).host_record(1, copy);
            assert_eq!(address, BlockAddress { device, block });
            assert!(HostRecord::open(&page, &layout, 1, copy).is_ok());
        }
    }
}
