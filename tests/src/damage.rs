//! What is written past every rule: bells that are lost or flooded, tables and records that are wiped.
//!
//! Not here: when it happens (`world`), what goes wrong with single requests (`disk`).

use storage_mapping::Instant;
use transfer_core::format::map::{TableMap, address};
use volume::BLOCK_BYTES;

use crate::chance::Chance;
use crate::disk::Block;
use crate::site::Site;

/// A run of blocks of the master, with its name for the trace.
#[derive(Clone, Copy, Debug)]
struct Target {
    name: &'static str,
    start: u64,
    blocks: u64,
}

/// Overwrites the bell of `lane` with noise, or with what a host may have written there.
pub fn flood_bell(site: &Site, chance: &mut Chance, lane: u16, now: Instant) {
    let bell = address(TableMap::new(&site.layout).bell(lane)).block;
    let mut content = site.disks[0].block(now, bell);
    let words = if chance.below(4) == 0 { BLOCK_BYTES / 8 } else { 1 };
    for _ in 0..words {
        let word = 8 * chance.index(BLOCK_BYTES / 8);
        content[word..word + 8].copy_from_slice(&chance.bits().to_le_bytes());
    }
    site.disks[0].set_block(now, bell, &content);
}

/// Clears the bell of `lane`, or sets it back to `old`; gives what it was.
pub fn lose_bell(
    site: &Site,
    chance: &mut Chance,
    lane: u16,
    old: Option<&Block>,
    now: Instant,
) -> Box<Block> {
    let bell = address(TableMap::new(&site.layout).bell(lane)).block;
    let was = site.disks[0].block(now, bell);
    let content = old.filter(|_| chance.below(3) > 0).copied().unwrap_or([0; BLOCK_BYTES]);
    site.disks[0].set_block(now, bell, &content);
    Box::new(was)
}

/// Overwrites records of `lane`, or of the administrator, with zeros or noise; says which.
pub fn wipe(site: &Site, chance: &mut Chance, lane: u16, now: Instant) -> String {
    let map = TableMap::new(&site.layout);
    let of = |name, (start, blocks): (volume::BlockAddress, u64)| Target { name, start: start.block, blocks };
    let targets = [
        of("beacon", (address(map.beacon(lane)), 1)),
        of("bell", (address(map.bell(lane)), 1)),
        of("control area", map.control_area(lane)),
        of("process id rows", map.process_id_rows(lane)),
        of("process id rows", map.process_id_rows(lane)),
        of("pointer tables", map.pointer_tables(lane)),
        of("pointer tables", map.pointer_tables(lane)),
        Target { name: "administrator's blocks", start: 0, blocks: site.layout.master.region(2).start },
    ];
    let target = chance.pick(&targets);
    let first = chance.below(target.blocks);
    let count = if chance.below(3) == 0 { target.blocks } else { 1 };
    let noise = chance.below(2) == 0;
    for block in (first..target.blocks).take(usize::try_from(count).unwrap_or(1)) {
        let mut content = [0; BLOCK_BYTES];
        if noise {
            content.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&chance.bits().to_le_bytes()));
        }
        site.disks[0].set_block(now, target.start + block, &content);
    }
    let with = if noise { "noise" } else { "zeros" };
    format!("{} of lane {lane} from block {first} on are overwritten with {with}", target.name)
}
