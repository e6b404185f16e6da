//! Records that no key seals yet may be anybody's: what is forged delays a call, and only while it stands there.

mod endpoints;

use std::time::Duration;

use endpoints::{make_pair, make_volume, run};
use storage_mapping::Instant;
use storage_mapping::device::MemoryDisk;
use transfer_core::format::control_area::InDirectory;
use transfer_core::format::map::TableMap;
use transfer_core::format::process_id_table::{EntryState, ProcessIdEntry};
use volume::BLOCK_BYTES;
use volume::header::{Header, Page, Place, emit_page, parse_page};
use volume::record::{Record, Rows};

/// An incarnation that no lane has reached.
const LATER_LIFE: u64 = 1 << 32;

fn page_at(disks: &[MemoryDisk], block: u64) -> Page {
    let start = usize::try_from(block).expect("a small disk") * BLOCK_BYTES;
    disks[0].with_bytes(|bytes| bytes[start..start + BLOCK_BYTES].try_into().expect("a block"))
}

/// Makes a header that of version `version` of a later life, in its half of the pair at `first`; gives the block.
fn forge<R: Record>(header: &mut Header, first: Place, version: u64) -> u64 {
    let block = first.block + version % 2;
    (header.incarnation, header.version, header.own_block) = (LATER_LIFE, version, block);
    assert!(header.check::<R>(header.record_type, Place { block, ..first }).is_ok());
    block
}

fn write(disks: &[MemoryDisk], block: u64, page: &Page) {
    let start = usize::try_from(block).expect("a small disk") * BLOCK_BYTES;
    disks[0].with_bytes(|bytes| bytes[start..start + BLOCK_BYTES].copy_from_slice(page));
}

/// The caller saw a forged in-directory first, and took the true one for older ever after.
#[test]
fn a_forged_in_directory_does_not_hide_the_answer() {
    let disks = make_volume();
    let mut now = Instant(1_000_000_000);
    let mut both = make_pair(&disks, &mut now);
    let place = TableMap::new(both[1].volume.layout()).in_directory(2);
    let is_there =
        || (0..2).find_map(|half| parse_page::<InDirectory>(&page_at(&disks, place.block + half), None).ok());
    run(&mut now, &mut both, Duration::from_secs(5), |_, _| is_there().is_some());
    let mut forged = is_there().expect("it was just there");
    let version = forged.header.version + 1;
    forged.in_directory = Rows::default();
    forged.entry_count = 0;
    let block = forge::<InDirectory>(&mut forged.header, place, version);
    write(&disks, block, &emit_page(&forged, None));

    both[1].endpoint.connect(now, "beta").expect("a peer");
    run(&mut now, &mut both, Duration::from_secs(9), |both, _| {
        both.iter().all(|process| process.connected().is_some())
    });
}

/// An entry that claims to be of a later life of the caller is judged by its handshake, and does not make the
/// caller's own life an older one.
#[test]
fn a_forged_call_of_a_later_life_silences_nobody() {
    let disks = make_volume();
    let mut now = Instant(1_000_000_000);
    let mut both = make_pair(&disks, &mut now);
    let map = TableMap::new(both[1].volume.layout());
    let place = map.process_id_entry(map.initiator_id(1, 0));
    both[1].endpoint.connect(now, "beta").expect("a peer");
    let call = || {
        let entries = (0..2)
            .filter_map(|half| parse_page::<ProcessIdEntry>(&page_at(&disks, place.block + half), None).ok());
        entries.into_iter().find(|entry| entry.state == EntryState::Requested)
    };
    run(&mut now, &mut both[1..], Duration::from_secs(5), |_, _| call().is_some());
    let mut forged = call().expect("it was just there");
    let version = forged.header.version + 1;
    forged.serial += 1;
    let block = forge::<ProcessIdEntry>(&mut forged.header, place, version);
    write(&disks, block, &emit_page(&forged, None));
    let refused = |both: &mut [endpoints::Process], _| both[0].endpoint.counters().refused > 0;
    run(&mut now, &mut both, Duration::from_secs(9), refused);

    run(&mut now, &mut both, Duration::from_secs(20), |both, _| {
        both.iter().all(|process| process.connected().is_some())
    });
}
