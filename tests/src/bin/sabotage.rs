//! Runs the program with one guard less, again and again, and says who noticed.
//!
//! ```text
//! cargo run --release -p system-tests --bin sabotage                    every row of tests/sabotage.toml
//! cargo run --release -p system-tests --bin sabotage -- --only WORD     rows with WORD in their name or who notices
//! ```
//!
//! Works on a copy of the tracked files in `target/sabotage`, which is built once with every row behind a
//! switch; the working tree is never broken. First the copy with all switches off must be found sound by
//! everybody who is asked later. The table comes as Markdown. Not here: the rows and their texts
//! (`system_tests::sabotage`).

use std::error::Error;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Output};
use std::time::{Duration, Instant};

use system_tests::plan::Plan;
use system_tests::runner::{Seeds, run_plan, run_seeds};
use system_tests::sabotage::{Catcher, SWITCH_VARIABLE, Sabotage, copy_workspace, load, switched, workspace};

/// Seeds within which the simulator must notice.
const SEEDS: u64 = 10_000;
/// Seeds of the unbroken build, and of rows that nobody notices.
const SOUND_SEEDS: u64 = 1000;

/// What the one who was asked said.
struct Told {
    /// What is wrong, or nothing.
    found: Option<String>,
    seeds: Option<u64>,
    took: Duration,
}

/// The copy that is broken.
struct Copy {
    original: PathBuf,
    folder: PathBuf,
    target: PathBuf,
    seeds: u64,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.first().map(String::as_str) {
        Some("seeds") => return run_simulator(&args[1..]),
        Some("--only") => run_table(args.get(1).map_or("", String::as_str), SEEDS),
        Some("--seeds") => run_table("", args.get(1).and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS)),
        _ => run_table("", SEEDS),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sabotage: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `seeds N [power]`: the simulator of this very build, to the first failure.
fn run_simulator(args: &[String]) -> ExitCode {
    let count = args.first().and_then(|count| count.parse().ok()).unwrap_or(SEEDS);
    std::panic::set_hook(Box::new(|_| {}));
    let (seeds, failures) = if args.get(1).is_some_and(|arg| arg == "power") {
        let failed = |seed| Some((seed, run_plan(Plan::of_power_losses(seed), false).err()?));
        let first = (1..=count).find_map(failed);
        (first.as_ref().map_or(count, |first| first.0), Vec::from_iter(first))
    } else {
        let seeds = Seeds { first: 1, count, limit: Duration::MAX, threads: 0, stops_at_first: true };
        let summary = run_seeds(seeds, &|| {});
        (summary.seeds, summary.failures)
    };
    match failures.first() {
        Some((seed, why)) => {
            println!("{seeds} seed {seed}: {}", why.lines().next().unwrap_or_default());
            ExitCode::FAILURE
        }
        None => {
            println!("{seeds}");
            ExitCode::SUCCESS
        }
    }
}

fn run_table(only: &str, seeds: u64) -> Result<bool, Box<dyn Error>> {
    let original = workspace();
    let all_rows = load(&original)?;
    let broken = switched(&all_rows, &original)?;
    let asked = |row: &&Sabotage| format!("{} {:?}", row.name, row.catcher).contains(only);
    let rows: Vec<(usize, &Sabotage)> = (1..).zip(&all_rows).filter(|(_, row)| asked(row)).collect();
    let scratch = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target).join("sabotage"),
        None => original.join("target/sabotage"),
    };
    let copy = Copy { original, folder: scratch.join("workspace"), target: scratch.join("target"), seeds };
    copy_workspace(&copy.original, &copy.folder, &broken)?;
    copy.check_sound(&rows)?;
    println!("| what is taken away | rule | noticed by | seeds | seconds |\n|---|---|---|--:|--:|");
    let mut all = true;
    for (number, row) in rows {
        let told = copy.run_broken(number, row).map_err(|error| error.to_string());
        let (line, good) = match &told {
            Ok(told) => line_of(row, told),
            Err(error) => (format!("`{}`: {error}", row.name), false),
        };
        println!("{line}");
        all &= good;
    }
    Ok(all)
}

fn line_of(row: &Sabotage, told: &Told) -> (String, bool) {
    let (text, good) = match (&row.catcher, &told.found) {
        (Catcher::Nobody(why), None) => (format!("nobody, as it should be: {why}"), true),
        (Catcher::Nobody(_), Some(found)) => (format!("**another guard should have held**: {found}"), false),
        (_, Some(found)) => (found.clone(), true),
        (_, None) => ("**NOBODY**".to_owned(), false),
    };
    let seeds = told.seeds.map_or("–".to_owned(), |seeds| seeds.to_string());
    let text = text.replace('|', "/");
    let line = format!(
        "| `{}`: {} | {} | {text} | {seeds} | {:.0} |",
        row.name,
        row.guard,
        row.rule,
        told.took.as_secs_f64()
    );
    (line, good)
}

impl Copy {
    fn cargo(&self, row: usize, args: &[&str]) -> std::io::Result<Output> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Command::new(cargo)
            .args(args)
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", &self.target)
            .env(SWITCH_VARIABLE, row.to_string())
            .env_remove("CARGO_MANIFEST_DIR")
            .output()
    }

    /// Everybody who is asked later must find nothing in the unbroken copy.
    fn check_sound(&self, rows: &[(usize, &Sabotage)]) -> Result<(), Box<dyn Error>> {
        let mut asked: Vec<&Catcher> = Vec::new();
        for (_, row) in rows {
            if matches!(row.catcher, Catcher::Nobody(_)) || asked.contains(&&row.catcher) {
                continue;
            }
            asked.push(&row.catcher);
            let told = self.ask(0, &row.catcher, SOUND_SEEDS.min(self.seeds))?;
            if let Some(found) = told.found {
                return Err(format!("the unbroken build is not sound: {found}").into());
            }
            eprintln!("sound: {:?}, {:.0} s", row.catcher, told.took.as_secs_f64());
        }
        Ok(())
    }

    fn run_broken(&self, number: usize, row: &Sabotage) -> Result<Told, Box<dyn Error>> {
        let seeds = if matches!(row.catcher, Catcher::Nobody(_)) { SOUND_SEEDS } else { self.seeds };
        self.ask(number, &row.catcher, seeds)
    }

    fn ask(&self, row: usize, catcher: &Catcher, seeds: u64) -> Result<Told, Box<dyn Error>> {
        match catcher {
            Catcher::Seeds | Catcher::Nobody(_) => self.ask_simulator(row, seeds, &[]),
            Catcher::PowerLosses => self.ask_simulator(row, seeds, &["power"]),
            Catcher::Test(args) => self.ask_test(row, args),
        }
    }

    fn ask_simulator(&self, row: usize, seeds: u64, how: &[&str]) -> Result<Told, Box<dyn Error>> {
        let built = self.cargo(row, &["build", "-p", "system-tests", "--bin", "sabotage"])?;
        if !built.status.success() {
            return Err(format!("it does not build:\n{}", text_of(&built)).into());
        }
        let start = Instant::now();
        let program = self.target.join("debug/sabotage");
        let mut command = Command::new(program);
        command.args(["seeds", &seeds.to_string()]).args(how).env(SWITCH_VARIABLE, row.to_string());
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let (number, found) = text.split_once(' ').unwrap_or((&text, ""));
        let seeds = number.parse().ok();
        let found = if output.status.success() {
            None
        } else if found.is_empty() {
            Some(format!("the simulator ended: {}", text_of(&output)))
        } else {
            Some(found.to_owned())
        };
        Ok(Told { found, seeds, took: start.elapsed() })
    }

    fn ask_test(&self, row: usize, args: &[String]) -> Result<Told, Box<dyn Error>> {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (options, filter) = args.split_at(args.iter().position(|arg| *arg == "--").unwrap_or(args.len()));
        let mut build = vec!["test", "--no-run"];
        build.extend(options);
        let built = self.cargo(row, &build)?;
        if !built.status.success() {
            return Err(format!("it does not build:\n{}", text_of(&built)).into());
        }
        let start = Instant::now();
        let mut run = vec!["test"];
        run.extend(options);
        run.extend(filter);
        let output = self.cargo(row, &run)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() && !text.contains("test result: ok. ") {
            return Err("no such test".into());
        }
        let failed = |line: &&str| line.starts_with("test ") && line.ends_with("FAILED");
        let names: Vec<&str> =
            text.lines().filter(failed).filter_map(|line| line.split(' ').nth(1)).collect();
        let file = options.windows(2).find(|pair| pair[0] == "--test").map_or("unit test", |pair| pair[1]);
        let found = (!output.status.success()).then(|| format!("test `{file}`: `{}`", names.join("`, `")));
        Ok(Told { found, seeds: None, took: start.elapsed() })
    }
}

fn text_of(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
