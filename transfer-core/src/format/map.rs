//! Where each record of each lane lies on the master (FIG. 3): the arithmetic of regions 1 to 6.

use volume::header::{OWNER_ADMIN, Place};
use volume::{BlockAddress, Layout};

/// The places of a volume's control structures.
#[derive(Clone, Copy, Debug)]
pub struct TableMap<'a> {
    layout: &'a Layout,
}

impl<'a> TableMap<'a> {
    /// The places of `layout`.
    #[must_use]
    pub fn new(layout: &'a Layout) -> Self {
        Self { layout }
    }

    /// Lanes of the volume (N).
    #[must_use]
    pub fn lanes(&self) -> u16 {
        self.layout.master.lanes
    }

    /// Connections per lane and role (M).
    #[must_use]
    pub fn connections(&self) -> u16 {
        self.layout.master.connections
    }

    /// Copy `copy` (0 or 1) of row `host` of the host table.
    #[must_use]
    pub fn host_record(&self, host: u16, copy: u16) -> Place {
        let block = u64::from(copy) * u64::from(self.lanes()) + u64::from(host);
        self.place(1, block, OWNER_ADMIN, host)
    }

    /// Beacon of lane `host`.
    #[must_use]
    pub fn beacon(&self, host: u16) -> Place {
        self.place(2, host.into(), host, 0)
    }

    /// Bell of lane `host`.
    #[must_use]
    pub fn bell(&self, host: u16) -> Place {
        self.place(3, host.into(), host, 0)
    }

    /// First block of the incarnation pair of lane `host`.
    #[must_use]
    pub fn incarnation(&self, host: u16) -> Place {
        self.place(4, 4 * u64::from(host), host, 0)
    }

    /// First block of the in-directory pair of lane `host`.
    #[must_use]
    pub fn in_directory(&self, host: u16) -> Place {
        self.place(4, 4 * u64::from(host) + 2, host, 1)
    }

    /// First block of the pair of entry `process_id` of the process id table.
    #[must_use]
    pub fn process_id_entry(&self, process_id: u32) -> Place {
        let (owner, index) = self.split(process_id);
        self.place(5, 2 * u64::from(process_id), owner, index)
    }

    /// First block of the pair of the pointer table of entry `process_id`.
    #[must_use]
    pub fn pointer_table(&self, process_id: u32) -> Place {
        let (owner, index) = self.split(process_id);
        self.place(6, 2 * u64::from(process_id), owner, index)
    }

    /// Slot number of initiator entry `slot` of lane `host`.
    #[must_use]
    pub fn initiator_id(&self, host: u16, slot: u16) -> u32 {
        u32::from(host) * 2 * u32::from(self.connections()) + u32::from(slot)
    }

    /// Slot number of connector entry `slot` of lane `host`.
    #[must_use]
    pub fn connector_id(&self, host: u16, slot: u16) -> u32 {
        self.initiator_id(host, self.connections() + slot)
    }

    /// The lane that owns `process_id`, and its row there. Out-of-range ids give an owner ≥ N.
    #[must_use]
    pub fn split(&self, process_id: u32) -> (u16, u16) {
        let rows = 2 * u32::from(self.connections());
        let owner = u16::try_from(process_id / rows).unwrap_or(u16::MAX);
        (owner, u16::try_from(process_id % rows).expect("at most 512 rows"))
    }

    /// Control area of lane `host`: start and blocks.
    #[must_use]
    pub fn control_area(&self, host: u16) -> (BlockAddress, u64) {
        (address(self.incarnation(host)), 4)
    }

    /// Process id rows of lane `host`: start and blocks.
    #[must_use]
    pub fn process_id_rows(&self, host: u16) -> (BlockAddress, u64) {
        let start = self.process_id_entry(self.initiator_id(host, 0));
        (address(start), 4 * u64::from(self.connections()))
    }

    /// Pointer tables of lane `host`: start and blocks.
    #[must_use]
    pub fn pointer_tables(&self, host: u16) -> (BlockAddress, u64) {
        let start = self.pointer_table(self.initiator_id(host, 0));
        (address(start), 4 * u64::from(self.connections()))
    }

    fn place(&self, region: usize, block: u64, owner: u16, index: u16) -> Place {
        let region = self.layout.master.region(region);
        debug_assert!(block < region.blocks || owner >= self.lanes());
        Place {
            volume_id: self.layout.master.volume_id,
            owner,
            index,
            device: 0,
            block: region.start + block,
        }
    }
}

/// The address of a place.
#[must_use]
pub fn address(place: Place) -> BlockAddress {
    BlockAddress { device: place.device, block: place.block }
}
