//! Regression guard: the instructions of each hot function, counted by callgrind and compared with `instruction_counts.toml`.
//!
//! Two examples take turns of one hot function each (`multipath_turns`, `segment_turns`); what is counted are the instructions
//! within `take_turns`, which are the same in every run on whatever machine, so that a few per cent more are somebody's doing
//! and no other load's. `DISKWIRE_BLESS=1 cargo test -p system-tests --test instruction_counts` writes the table anew.
//!
//! Another compiler makes other code: five times as much is allowed then. Skipped where valgrind is missing, which
//! `DISKWIRE_NO_SKIP=1` makes a failure, and on a processor that takes other ways.
#![expect(clippy::unwrap_used, reason = "helpers of a test, outside the test function")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{env, fs, thread};

use system_tests::real_paths::skip;

/// The programs, each with its package.
const PROGRAMS: [(&str, &str); 2] = [("multipath", "multipath_turns"), ("transfer-core", "segment_turns")];
/// Turns that are counted.
const TURNS: u64 = 400;
/// What a count may change by, in per cent, where the table does not say otherwise.
const PERCENT: f64 = 3.0;
/// How many times that where the table is of another compiler.
const OTHER_COMPILER: f64 = 5.0;

/// The table.
#[derive(Debug)]
struct Table {
    /// Its comment.
    head: String,
    /// The compiler that it is of.
    rustc: String,
    /// By function: instructions of a turn, and what they may change by in per cent.
    rows: BTreeMap<String, (f64, f64)>,
}

impl Table {
    fn path() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("instruction_counts.toml")
    }

    fn read() -> Self {
        let text = fs::read_to_string(Self::path()).unwrap();
        let head = text
            .lines()
            .take_while(|line| line.starts_with('#'))
            .fold(String::new(), |head, line| head + line + "\n");
        let parsed: toml::Table = text.parse().unwrap();
        let number = |value: &toml::Value| value.as_float().or(value.as_integer().map(|value| value as f64));
        let rows = parsed["counts"].as_table().unwrap().iter().map(|(name, row)| {
            let field = |field| row.get(field).and_then(number);
            (name.clone(), (field("instructions").unwrap(), field("percent").unwrap_or(PERCENT)))
        });
        Self { head, rustc: parsed["rustc"].as_str().unwrap().to_owned(), rows: rows.collect() }
    }

    fn write(&self) {
        let mut text = format!("{}\nrustc = \"{}\"\n\n[counts]\n", self.head, self.rustc);
        for (name, (instructions, percent)) in &self.rows {
            let percent =
                if *percent == PERCENT { String::new() } else { format!(", percent = {percent:?}") };
            writeln!(text, "{name} = {{ instructions = {instructions:.1}{percent} }}").unwrap();
        }
        fs::write(Self::path(), text).unwrap();
    }
}

/// What the compiler calls itself, without the date: `rustc 1.95.0`.
fn rustc() -> String {
    let said = output(Command::new(env::var("RUSTC").unwrap_or("rustc".into())).arg("--version"));
    said.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// Whether what asks the processor for its abilities, which valgrind passes on up to AVX2, takes the same way as it did for the table.
#[cfg(target_arch = "x86_64")]
fn has_processor() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("aes")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_processor() -> bool {
    false
}

/// Runs a program to its end, and gives what it printed.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Builds the programs as they are shipped, whatever the tests are built as. Gives the folder they are in.
fn build() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--release", "--target-dir"]).arg(target);
    for (package, program) in PROGRAMS {
        cargo.args(["--package", package, "--example", program]);
    }
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    output(&mut cargo);
    target.join("release/examples")
}

/// Instructions of one turn.
fn count(program: &Path, name: &str) -> f64 {
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*take_turns*"])
        .arg(program)
        .args([name, &TURNS.to_string()]);
    let said = output(&mut valgrind);
    let collected = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    let collected: u64 = collected.unwrap_or_else(|| panic!("{valgrind:?} counted nothing: {said}"));
    collected as f64 / TURNS as f64
}

/// Instructions of one turn of each function, as many at a time as there are processors.
fn count_all(folder: &Path) -> BTreeMap<String, f64> {
    let names_of = |(_, program): (&str, &str)| {
        let program = folder.join(program);
        let names = output(&mut Command::new(&program));
        names.lines().map(|name| (program.clone(), name.to_owned())).collect::<Vec<_>>()
    };
    let left: Mutex<Vec<(PathBuf, String)>> = Mutex::new(PROGRAMS.into_iter().flat_map(names_of).collect());
    let counts = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap().pop();
                    let Some((program, name)) = next else { return };
                    let counted = count(&program, &name);
                    counts.lock().unwrap().insert(name, counted);
                }
            });
        }
    });
    counts.into_inner().unwrap()
}

/// What differs from the table by more than may be, a line each.
fn differences(table: &Table, counts: &BTreeMap<String, f64>, times: f64) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, counted) in counts {
        let Some((expected, percent)) = table.rows.get(name) else {
            lines.push(format!("{name}: {counted:.1} instructions a turn, and no row in the table"));
            continue;
        };
        let (change, percent) = ((counted / expected - 1.0) * 100.0, percent * times);
        if change.abs() > percent {
            lines.push(format!(
                "{name}: {expected:.1} → {counted:.1} instructions a turn: {change:+.1} %, {percent} are allowed"
            ));
        }
    }
    let gone = table.rows.keys().filter(|name| !counts.contains_key(*name));
    lines.extend(gone.map(|name| format!("{name}: a row in the table, and no such function")));
    lines
}

#[test]
fn hot_functions_take_as_many_instructions_as_the_table_says() {
    let blesses = env::var_os("DISKWIRE_BLESS").is_some_and(|value| value == "1");
    let (mut table, rustc) = (Table::read(), rustc());
    if Command::new("valgrind").arg("--version").output().is_err() {
        return skip("instruction_counts", "valgrind is not installed");
    }
    if !has_processor() {
        return println!("not counted: the table is of an x86-64 processor with AVX2");
    }
    let times = if rustc == table.rustc { 1.0 } else { OTHER_COMPILER };
    let counts = count_all(&build());
    for (name, counted) in &counts {
        println!("{name}: {counted:.1}");
    }
    let found = differences(&table, &counts, times);
    if blesses {
        let percent = |name| table.rows.get(name).map_or(PERCENT, |(_, percent)| *percent);
        table.rows = counts.iter().map(|(name, counted)| (name.clone(), (*counted, percent(name)))).collect();
        table.rustc = rustc;
        return table.write();
    }
    assert!(
        found.is_empty(),
        "{}\nIf that is meant, write the table anew (its head says how) and say in the commit what it buys.",
        found.join("\n")
    );
}

#[test]
fn a_few_per_cent_more_or_less_a_new_function_and_one_that_is_gone_are_seen() {
    let row = |name: &str, count| (name.to_owned(), (count, PERCENT));
    let rows = BTreeMap::from([row("same", 100.0), row("more", 100.0), row("less", 100.0), row("gone", 1.0)]);
    let table = Table { head: String::new(), rustc: String::new(), rows };
    let counts = [("same", 102.9), ("more", 103.1), ("less", 96.9), ("new", 5.0)];
    let found = differences(&table, &counts.map(|(name, count)| (name.to_owned(), count)).into(), 1.0);
    let names: Vec<&str> = found.iter().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(names, ["less", "more", "new", "gone"]);
    assert!(found[1].contains("100.0 → 103.1 instructions a turn: +3.1 %"), "{}", found[1]);
}
