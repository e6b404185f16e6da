//! I/Os a second through the layer, beside the same device without it: random reads of a file with O_DIRECT.
//!
//! `cargo run --release -p multipath --example file_iops -- [FOLDER]`
//!
//! Two openings of one file of 256 MiB as paths, io_uring, blocks of 4 KiB; with the layer and without it in turns, eleven rounds
//! of half a second each; the median of the ratios of neighbours counts, since other load comes and goes.

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;

use iops::{compare, print_head};
use storage_mapping::{PathAddress, path_address};

#[path = "support/iops.rs"]
mod iops;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    for _ in 0..256 {
        file.write_all(&[7; 1 << 20])?;
    }
    file.as_file().sync_all()?;
    let address: PathAddress = format!("file:{}", file.path().display()).parse()?;
    print_head();
    for depth in [1, 32] {
        compare(depth, 2, &|_| Ok(path_address::open(&address)?.device))?;
    }
    Ok(())
}
