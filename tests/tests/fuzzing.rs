//! The fuzz targets on the stable toolchain: the committed corpus, then inputs made from it.
//!
//! `DISKWIRE_FULL=1` runs a hundred times as many, half an hour at most. Long runs, guided by coverage: `fuzz/run`.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use system_tests::chance::Chance;
use system_tests::fuzzing::mutate::mutated;
use system_tests::fuzzing::{TARGETS, Target, hostile_disk};

/// The target of the application, which this package must not know.
const CONFIGURATION: &str = "configuration";
/// Made inputs of a target, at most, and for how long.
const INPUTS: u64 = 3000;
const TIME_MAX: Duration = Duration::from_millis(700);
/// A corpus is small: files of a target, bytes of a target, bytes of all.
const FILES_MAX: usize = 60;
const BYTES_MAX: u64 = 200 << 10;
const TOTAL_BYTES_MAX: u64 = 2 << 20;

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the workspace").join("fuzz")
}

fn names_in(folder: &str, extension: &str) -> BTreeSet<String> {
    let folder = fuzz_folder().join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let names =
        entries.map(|entry| entry.expect("a readable folder").file_name().into_string().expect("text"));
    names.filter_map(|name| name.strip_suffix(extension).map(str::to_owned)).collect()
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = fuzz_folder().join("corpus").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a readable file")).collect()
}

/// Runs one input; what broke, in one line.
fn run(target: &Target, input: &[u8]) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|_| {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{0} breaks with {hex}; when it is mended, add it to fuzz/corpus/{0}", target.name)
    })
}

/// The corpus, then inputs made from it; how many were made.
fn run_all(target: &Target, full: bool) -> Result<u64, String> {
    let mut inputs = corpus(target.name);
    inputs.extend((target.seeds)());
    inputs.iter().try_for_each(|input| run(target, input))?;
    let mut chance = Chance::new(blake3::hash(target.name.as_bytes()).as_bytes()[0].into());
    let began = Instant::now();
    let mut made = 0;
    let times = if full { 100 } else { 1 };
    while made < u64::from(times) * INPUTS && began.elapsed() < times * TIME_MAX {
        run(target, &mutated(&mut chance, &inputs))?;
        made += 1;
    }
    println!("{:<24} {:>4} of the corpus, {made:>6} made, {:?}", target.name, inputs.len(), began.elapsed());
    Ok(made)
}

#[test]
fn every_target_holds_on_its_corpus_and_beyond() {
    let full = std::env::var_os("DISKWIRE_FULL").is_some();
    let broken: Vec<_> = TARGETS.iter().filter_map(|target| run_all(target, full).err()).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn an_undisturbed_transfer_ends() {
    for stream in [false, true] {
        let (steps, time) = hostile_disk::undisturbed(stream);
        println!("stream {stream}: {steps} steps, {time:?} of virtual time");
        assert!(time < Duration::from_secs(10));
    }
}

/// Writes the seeds of each target into its corpus, for a new target: then `fuzz/run --minimise`.
#[test]
#[ignore = "changes the corpus"]
fn write_seeds() {
    for target in TARGETS {
        let folder = fuzz_folder().join("corpus").join(target.name);
        fs::create_dir_all(&folder).expect("a folder");
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(folder.join(format!("seed{number:03}")), seed).expect("a file");
        }
    }
}

#[test]
fn table_crate_and_corpus_agree() {
    let mut table: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(table.len(), TARGETS.len(), "two targets of one name");
    assert!(table.insert(CONFIGURATION.to_owned()));
    assert_eq!(table, names_in("fuzz_targets", ".rs"), "fuzz/fuzz_targets");
    assert_eq!(table, names_in("corpus", ""), "fuzz/corpus");
    let manifest = fs::read_to_string(fuzz_folder().join("Cargo.toml")).expect("the fuzz crate");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let programs = manifest["bin"].as_array().expect("programs").iter();
    let programs: BTreeSet<_> =
        programs.filter_map(|bin| Some(bin.get("name")?.as_str()?.to_owned())).collect();
    assert_eq!(table, programs, "fuzz/Cargo.toml");
    let script = fs::read_to_string(fuzz_folder().join("run")).expect("the script");
    let listed = script.lines().find_map(|line| line.strip_prefix("TARGETS=\"")).expect("a line TARGETS=");
    let listed: BTreeSet<_> = listed.trim_end_matches('"').split_whitespace().map(str::to_owned).collect();
    assert_eq!(table, listed, "fuzz/run");
}

#[test]
fn the_corpus_stays_small() {
    let mut total = 0;
    for name in names_in("corpus", "") {
        let files = corpus(&name);
        let bytes: u64 = files.iter().map(|file| file.len() as u64).sum();
        assert!(!files.is_empty(), "{name} has no corpus");
        assert!(
            files.len() <= FILES_MAX && bytes <= BYTES_MAX,
            "{name}: {} files, {bytes} bytes",
            files.len()
        );
        total += bytes;
    }
    assert!(total <= TOTAL_BYTES_MAX, "{total} bytes");
}
