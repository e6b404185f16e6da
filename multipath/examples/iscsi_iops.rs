//! I/Os a second through the layer, beside the same iSCSI device without it: random reads from `tgtd`.
//!
//! `cargo run --release -p multipath --features iscsi --example iscsi_iops` (needs root and the package tgt)
//!
//! A file of 64 MiB, blocks of 4 KiB. First one path over one portal, then one path each over two portals of the same
//! target; with the layer and without it in turns, eleven rounds of half a second each; the median of the ratios of
//! neighbours counts, since other load comes and goes.

use std::error::Error;

use iops::{compare, print_head};
use storage_mapping::{PathAddress, path_address};

#[path = "support/iops.rs"]
mod iops;
#[path = "../../storage-mapping/tests/support/programs.rs"]
mod programs;
#[path = "../../storage-mapping/tests/support/tgt.rs"]
mod tgt;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("disk.img");
    std::fs::write(&image, vec![7; 64 << 20])?;
    let target = tgt::Tgtd::start(&image)?;
    print_head();
    for (depth, paths) in [(1, 1), (32, 1), (32, 2)] {
        compare(depth, paths, &|portal| {
            let address: PathAddress = format!("{}?block=4096", target.address(portal)).parse()?;
            Ok(path_address::open(&address)?.device)
        })?;
    }
    Ok(())
}
