//! Many executions of the fuzz targets without a fuzzer: inputs made from the corpus, on every processor.
//!
//! ```text
//! cargo run --profile simulation -p system-tests --bin blind-fuzz -- [--runs N] [--from N] [--corpus FOLDER]… TARGET…
//! ```
//!
//! A coverage-guided fuzzer finds its way into a decoder, but counts edges at every execution; once it has
//! found its corpus, plain mutation of that corpus runs many times as many inputs in the same time. The same
//! corpus and number give the same input, so `--from` goes on where an earlier run ended. Prints one
//! row of a table for each target. A broken promise ends it with the input in hexadecimal. Not here: the
//! guided runs (`fuzz/run`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use system_tests::chance::Chance;
use system_tests::fuzzing::mutate::mutated;
use system_tests::fuzzing::{TARGETS, Target};

/// Executions that a thread takes on at once.
const SHARE: u64 = 1000;

struct Arguments {
    runs: u64,
    from: u64,
    folders: Vec<PathBuf>,
    targets: Vec<&'static Target>,
}

fn arguments() -> Result<Arguments, String> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(|root| root.join("fuzz"));
    let fuzz = fuzz.ok_or("this package lies in no workspace")?;
    let mut read = Arguments {
        runs: 20_000_000,
        from: 0,
        folders: vec![fuzz.join("corpus"), fuzz.join("work")],
        targets: Vec::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--runs" | "--from" => {
                let number = words.next().and_then(|text| text.parse().ok());
                let number = number.ok_or_else(|| format!("{word} wants a number"))?;
                if word == "--runs" { read.runs = number } else { read.from = number }
            }
            "--corpus" => read.folders.push(words.next().ok_or("--corpus wants a folder")?.into()),
            name => {
                let target = TARGETS.iter().find(|target| target.name == name);
                read.targets.push(target.ok_or_else(|| format!("no target {name}"))?);
            }
        }
    }
    if read.targets.is_empty() {
        read.targets.extend(TARGETS);
    }
    Ok(read)
}

/// The inputs of a target in all folders, and those it begins with.
fn inputs(target: &Target, folders: &[PathBuf]) -> Vec<Vec<u8>> {
    let mut inputs = (target.seeds)();
    for folder in folders {
        let Ok(entries) = fs::read_dir(folder.join(target.name)) else { continue };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        inputs.extend(paths.iter().filter_map(|path| fs::read(path).ok()));
    }
    inputs
}

/// Runs inputs `from` to `from + runs`.
fn run(target: &Target, inputs: &[Vec<u8>], from: u64, runs: u64) {
    let (next, begun) = (AtomicU64::new(0), Instant::now());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let share = next.fetch_add(SHARE, Ordering::Relaxed);
                    if share >= runs {
                        return;
                    }
                    let mut chance = Chance::new((from + share) ^ 0xB11D);
                    for _ in 0..SHARE.min(runs - share) {
                        let input = mutated(&mut chance, inputs);
                        let guard = Told { name: target.name, input: &input };
                        (target.run)(&input);
                        std::mem::forget(guard);
                    }
                }
            });
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "shown without decimals")]
    let rate = runs as f64 / seconds;
    println!("| {} | {runs} | {seconds:.0} | {rate:.0} | {} | 0 |", target.name, inputs.len());
}

/// Says which input a target broke on.
struct Told<'a> {
    name: &'a str,
    input: &'a [u8],
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let hex: String = self.input.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("{} breaks with {hex}", self.name);
    }
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("blind-fuzz: {why}");
            return ExitCode::from(2);
        }
    };
    println!("| target | executions | seconds | per second | corpus | broken |");
    println!("|---|--:|--:|--:|--:|--:|");
    for target in arguments.targets {
        run(target, &inputs(target, &arguments.folders), arguments.from, arguments.runs);
    }
    ExitCode::SUCCESS
}
