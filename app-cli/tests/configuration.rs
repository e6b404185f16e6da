//! The fuzz target of the configuration on the stable toolchain: its corpus, and inputs made from it.
//!
//! The other targets: `tests/tests/fuzzing.rs`.

#[path = "configuration/target.rs"]
mod target;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use system_tests::chance::Chance;
use system_tests::fuzzing::mutate::mutated;
use target::configuration;

/// Made inputs, at most, and for how long.
const INPUTS: u64 = 20_000;
const TIME_MAX: Duration = Duration::from_secs(2);

#[test]
fn any_text_is_understood_or_refused_in_one_line() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/configuration");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let corpus: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    corpus.iter().for_each(|input| configuration(input));
    let full = std::env::var_os("DISKWIRE_FULL").is_some();
    let (mut chance, began) = (Chance::new(1), Instant::now());
    for made in 0..if full { 50 * INPUTS } else { INPUTS } {
        let input = mutated(&mut chance, &corpus);
        configuration(&input);
        if !full && made >= 100 && began.elapsed() > TIME_MAX {
            break;
        }
    }
}
