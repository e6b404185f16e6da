//! Tries every mutant that cargo-mutants lists, from one build, and says which of them nobody noticed.
//!
//! ```text
//! cargo install cargo-mutants --locked
//! cargo run --profile simulation -p system-tests --example mutants                 every mutant of .cargo/mutants.toml
//! cargo run --profile simulation -p system-tests --example mutants -- --only WORD  those with WORD in their name
//! cargo run --profile simulation -p system-tests --example mutants -- --missed     those that nobody noticed last time
//! cargo run --profile simulation -p system-tests --example mutants -- --hung       those by which something did not end
//! cargo run --profile simulation -p system-tests --example mutants -- --go-on      those that the last run did not reach
//! cargo run --profile simulation -p system-tests --example mutants -- --table      what the last run found so far
//! ```
//!
//! cargo-mutants builds the project once for each mutant, which takes hours; here all of them stand behind
//! switches in a copy in `target/mutants`, as the deliberately broken builds do. Each one is shown to the tests
//! and to the simulator, first to who notices most in the time that it takes, until a test fails or somebody does
//! not end in time. What does not compile is no mutant. They come in no order, so that a run that is stopped has tried a fair sample. The
//! results are in `target/mutants/results`, line by line, and come as Markdown. `--missed` and `--hung` replace what is
//! known of the same changes to the same functions, wherever in the file these stand now. Not here: the switches
//! (`switches`).

mod switches;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use serde_json::Value;
use switches::{Mutant, mutant_at, switched};
use system_tests::runner::{Seeds, run_seeds};
use system_tests::sabotage::{copy_workspace, workspace};

/// The variable that says which mutant is on.
const VARIABLE: &str = "DISKWIRE_MUTANT";
const SWITCH_FILE: &str = "storage-mapping/src/lib.rs";
const SWITCH: &str = r#"
/// Whether this mutant is on.
#[must_use]
pub fn mutant(number: u32) -> bool {
    static ON: std::sync::LazyLock<u32> = std::sync::LazyLock::new(|| {
        std::env::var("DISKWIRE_MUTANT").ok().and_then(|number| number.parse().ok()).unwrap_or(0)
    });
    *ON == number
}
"#;
/// Packages whose tests are asked.
const PACKAGES: [&str; 3] = ["volume", "transfer-core", "system-tests"];
/// Tests that read sources, or do not run the code that is changed.
const NOT_ASKED: [&str; 8] =
    ["tidy", "layers", "figures", "sabotage", "models", "simulation", "format_doc", "mutants"];
/// The simulator's seeds, in two parts: few at first.
const SEEDS: [(u64, u64); 2] = [(1, 100), (101, 300)];
/// Where tests have their files, if it is there: syncs cost nothing in memory.
const MEMORY: &str = "/dev/shm";
/// How the copy is built.
const PROFILE: &str = "mutants";

type Failure = Box<dyn Error + Send + Sync>;

/// Somebody who may notice.
#[derive(Clone, Debug)]
struct Catcher {
    name: String,
    /// The folder of its package: that of a lower layer runs nothing of a higher one.
    package: String,
    program: PathBuf,
    args: Vec<String>,
    folder: PathBuf,
    /// How long it takes when there is nothing to notice.
    takes: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It does not compile, or cannot stand behind a switch.
    NotBuilt,
    /// Who failed.
    Noticed(String),
    /// Who did not end.
    Hung(String),
    Missed,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        ["seeds", first, count] => return run_simulator(first, count),
        [] => run(Choice::All),
        ["--only", word] => run(Choice::Named(word)),
        ["--missed"] => run(Choice::Known("missed")),
        ["--hung"] => run(Choice::Known("hung")),
        ["--go-on"] => run(Choice::Left),
        ["--table"] => fs::read_to_string(results()).map_err(Failure::from).map(|text| print_table(&text)),
        _ => Err("usage: mutants [--only WORD | --missed | --hung | --go-on | --table]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mutants: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `seeds FIRST COUNT`: the simulator of this very build, to the first failure.
fn run_simulator(first: &str, count: &str) -> ExitCode {
    let (Ok(first), Ok(count)) = (first.parse(), count.parse()) else { return ExitCode::from(2) };
    std::panic::set_hook(Box::new(|_| {}));
    let seeds = Seeds { first, count, limit: Duration::MAX, threads: 1, stops_at_first: true };
    if run_seeds(seeds, &|| {}).failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Which mutants are tried.
enum Choice<'a> {
    All,
    Named(&'a str),
    /// What the last run found to be so.
    Known(&'a str),
    /// What the last run did not reach.
    Left,
}

fn run(choice: Choice<'_>) -> Result<(), Failure> {
    let original = workspace();
    let scratch = original.join("target/mutants");
    let before = match choice {
        Choice::Known(_) | Choice::Left => fs::read_to_string(results())?,
        Choice::All | Choice::Named(_) => String::new(),
    };
    let lines = || before.lines().filter_map(|line| line.split_once('\t'));
    let known: BTreeSet<&str> = lines().map(|(_, name)| name).collect();
    let again = |verdict: &str| match choice {
        Choice::Known(word) => verdict.split(' ').next() == Some(word),
        Choice::All | Choice::Named(_) | Choice::Left => false,
    };
    let again: BTreeSet<String> =
        lines().filter(|(verdict, _)| again(verdict)).map(|(_, name)| without_place(name)).collect();
    let mutants = list(&original)?;
    let is_asked = |mutant: &&Mutant| match choice {
        Choice::All => true,
        Choice::Named(word) => mutant.name.contains(word),
        Choice::Known(_) => again.contains(&without_place(&mutant.name)),
        Choice::Left => !known.contains(mutant.name.as_str()),
    };
    let copy = Copy { folder: scratch.join("workspace"), target: scratch.join("target"), original };
    let not_built = copy.write(&mutants)?;
    let catchers = copy.catchers()?;
    let mut asked: Vec<&Mutant> = mutants.iter().filter(is_asked).collect();
    asked.sort_by_key(|mutant| *blake3::hash(mutant.name.as_bytes()).as_bytes());
    let kept = lines().filter(|(_, name)| !again.contains(&without_place(name)));
    let kept: String = kept.map(|(verdict, name)| format!("{verdict}\t{name}\n")).collect();
    fs::write(results(), kept)?;
    let file = fs::File::options().append(true).open(results())?;
    try_all(&asked, &not_built, &catchers, &Mutex::new(file))?;
    print_table(&fs::read_to_string(results())?);
    Ok(())
}

/// The name of a mutant without line and column, which move when something above is changed.
fn without_place(name: &str) -> String {
    let parts: Vec<&str> = name.splitn(4, ':').collect();
    match parts[..] {
        [file, _, _, change] => format!("{file}:{change}"),
        _ => name.to_owned(),
    }
}

/// Where results are noted: verdict and name, a line for each mutant.
fn results() -> PathBuf {
    workspace().join("target/mutants/results")
}

/// What cargo-mutants would try.
fn list(workspace: &Path) -> Result<Vec<Mutant>, Failure> {
    let mut command = Command::new(cargo());
    command.args(["mutants", "--workspace", "--list", "--json"]).current_dir(workspace);
    let listed = command.stderr(Stdio::inherit()).output()?;
    if !listed.status.success() {
        return Err("cargo mutants --list failed; is it installed?".into());
    }
    let listed: Vec<Value> = serde_json::from_slice(&listed.stdout)?;
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let mut mutants = Vec::new();
    for (number, value) in (1..).zip(&listed) {
        let word = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let file = word("file");
        if !texts.contains_key(&file) {
            texts.insert(file.clone(), fs::read_to_string(workspace.join(&file))?);
        }
        let position = &value["span"]["start"];
        let (line, column) = (position["line"].as_u64(), position["column"].as_u64());
        let start = offset(&texts[&file], line.unwrap_or(0), column.unwrap_or(0));
        let start = start.ok_or_else(|| format!("no such place: {}", word("name")))?;
        let (name, genre, replacement) = (word("name"), word("genre"), word("replacement"));
        mutants.push(Mutant { number, file, name, genre, replacement, start });
    }
    Ok(mutants)
}

/// The byte at a line and column, both from 1, columns in characters.
fn offset(text: &str, line: u64, column: u64) -> Option<usize> {
    let line = usize::try_from(line).ok()?.checked_sub(1)?;
    let column = usize::try_from(column).ok()?.checked_sub(1)?;
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    text[start..].char_indices().nth(column).map(|(at, _)| start + at)
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The copy with all mutants in it.
struct Copy {
    original: PathBuf,
    folder: PathBuf,
    target: PathBuf,
}

impl Copy {
    fn cargo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(cargo());
        command.args(args).current_dir(&self.folder).env("CARGO_TARGET_DIR", &self.target);
        command.env_remove("CARGO_MANIFEST_DIR").env_remove(VARIABLE);
        command
    }

    /// Writes it until it compiles; gives the mutants that do not.
    fn write(&self, mutants: &[Mutant]) -> Result<BTreeSet<u32>, Failure> {
        let mut not_built = BTreeSet::new();
        loop {
            let mut files = BTreeMap::new();
            let names: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.file.as_str()).collect();
            for name in names {
                let text = fs::read_to_string(self.original.join(name))?;
                let here: Vec<&Mutant> =
                    mutants.iter().filter(|m| m.file == name && !not_built.contains(&m.number)).collect();
                let (text, left) = switched(&text, &here)?;
                not_built.extend(left);
                files.insert(name.to_owned(), text);
            }
            let switch = fs::read_to_string(self.original.join(SWITCH_FILE))? + SWITCH;
            files.insert(SWITCH_FILE.to_owned(), switch);
            copy_workspace(&self.original, &self.folder, &files)?;
            let broken = self.check(&files)?;
            eprintln!("{} mutants do not compile, {} are left out", broken.len(), not_built.len());
            if broken.is_empty() {
                return Ok(not_built);
            }
            not_built.extend(broken);
        }
    }

    /// The mutants in which the compiler finds errors.
    fn check(&self, files: &BTreeMap<String, String>) -> Result<BTreeSet<u32>, Failure> {
        let mut args = vec!["check", "--message-format", "json", "--keep-going"];
        PACKAGES.iter().for_each(|package| args.extend(["-p", package]));
        let checked = self.cargo(&args).stderr(Stdio::null()).output()?;
        let mut broken = BTreeSet::new();
        let mut others = Vec::new();
        for line in String::from_utf8_lossy(&checked.stdout).lines() {
            let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
            let message = &message["message"];
            let spans = message["spans"].as_array().map(Vec::as_slice).unwrap_or_default();
            if message["level"] != "error" || spans.is_empty() {
                continue;
            }
            let found = spans.iter().find_map(|span| {
                let text = files.get(span["file_name"].as_str()?)?;
                mutant_at(text, usize::try_from(span["byte_start"].as_u64()?).ok()?)
            });
            match found {
                Some(number) => {
                    broken.insert(number);
                }
                None => others.push(message["rendered"].as_str().unwrap_or_default().to_owned()),
            }
        }
        if broken.is_empty() && !checked.status.success() {
            return Err(format!("the copy does not compile:\n{}", others.concat()).into());
        }
        Ok(broken)
    }

    /// Everybody who may notice; each must find nothing in the copy with all switches off.
    fn catchers(&self) -> Result<Vec<Catcher>, Failure> {
        let mut args = vec!["test", "--no-run", "--profile", PROFILE, "--message-format", "json"];
        PACKAGES.iter().for_each(|package| args.extend(["-p", package]));
        let built = self.cargo(&args).stderr(Stdio::inherit()).output()?;
        if !built.status.success() {
            return Err("the tests of the copy do not build".into());
        }
        let mut catchers = Vec::new();
        for line in String::from_utf8_lossy(&built.stdout).lines() {
            let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (name, program) = (word(&message["target"]["name"]), word(&message["executable"]));
            let is_test = message["profile"]["test"] == true;
            let kind = word(&message["target"]["kind"][0]);
            if program.is_empty() || !is_test || kind == "bin" || NOT_ASKED.contains(&name.as_str()) {
                continue;
            }
            let manifest = PathBuf::from(word(&message["manifest_path"]));
            let folder = manifest.parent().unwrap_or(&self.folder).to_owned();
            let args = vec!["--test-threads".to_owned(), "1".to_owned()];
            let package = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let takes = Duration::ZERO;
            catchers.push(Catcher { name, package, program: program.into(), args, folder, takes });
        }
        let simulator = ["build", "--profile", PROFILE, "-p", "system-tests", "--example", "mutants"];
        if !self.cargo(&simulator).status()?.success() {
            return Err("the simulator of the copy does not build".into());
        }
        for (first, count) in SEEDS {
            let args = vec!["seeds".to_owned(), first.to_string(), count.to_string()];
            let program = self.target.join(PROFILE).join("examples/mutants");
            let name = format!("{count} seeds");
            let (folder, package, takes) = (self.folder.clone(), String::new(), Duration::ZERO);
            catchers.push(Catcher { name, package, program, args, folder, takes });
        }
        for catcher in &mut catchers {
            let begun = Instant::now();
            if ask(catcher, 0, Duration::from_secs(600))? != Some(true) {
                return Err(format!("{} finds something in the unchanged copy", catcher.name).into());
            }
            catcher.takes = begun.elapsed();
            eprintln!("sound: {}, {:.1} s", catcher.name, catcher.takes.as_secs_f64());
        }
        Ok(catchers)
    }
}

/// Whether the catcher passes with a mutant on, to its first test that fails; `None` if it does not end.
fn ask(catcher: &Catcher, mutant: u32, limit: Duration) -> Result<Option<bool>, Failure> {
    let mut command = Command::new(&catcher.program);
    command.args(&catcher.args).current_dir(&catcher.folder).env(VARIABLE, mutant.to_string());
    command.env("RUST_BACKTRACE", "0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    if Path::new(MEMORY).is_dir() {
        command.env("TMPDIR", MEMORY);
    }
    let mut child = command.spawn()?;
    let output = child.stdout.take().ok_or("a pipe was asked for")?;
    let (sender, failed) = mpsc::channel();
    let watch = move || {
        let failed = |line: String| line.starts_with("test ") && line.ends_with(" ... FAILED");
        let any = BufReader::new(output).lines().map_while(Result::ok).any(failed);
        // Nobody listens any more to what comes after the time limit.
        let _ = sender.send(any);
    };
    std::thread::spawn(watch);
    match failed.recv_timeout(limit) {
        Ok(false) => Ok(Some(child.wait()?.success())),
        result => {
            child.kill()?;
            child.wait()?;
            Ok(result.ok().map(|_| false))
        }
    }
}

/// How often a catcher was asked about a file's mutants, and how often it noticed.
type Luck = Mutex<BTreeMap<(String, String), (u32, u32)>>;

/// What is to be expected of a catcher in a second, after Laplace: most first.
fn promise(catcher: &Catcher, mutant: &Mutant, luck: &Luck) -> f64 {
    let key = (mutant.file.clone(), catcher.name.clone());
    let known = luck.lock().ok().and_then(|luck| luck.get(&key).copied());
    let (asked, noticed) = known.unwrap_or_default();
    f64::from(noticed + 1) / f64::from(asked + 2) / (catcher.takes.as_secs_f64() + 0.01)
}

fn judge(mutant: &Mutant, catchers: &[Catcher], luck: &Luck) -> Result<Verdict, Failure> {
    let is_below = |catcher: &Catcher| catcher.package == "volume" && !mutant.file.starts_with("volume/");
    let able = catchers.iter().filter(|catcher| !is_below(catcher));
    let mut order: Vec<(f64, &Catcher)> = able.map(|c| (promise(c, mutant, luck), c)).collect();
    order.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    for (_, catcher) in order {
        let limit = Duration::from_secs(10) + 10 * catcher.takes;
        let answer = ask(catcher, mutant.number, limit)?;
        if let Ok(mut luck) = luck.lock() {
            let (asked, noticed) = luck.entry((mutant.file.clone(), catcher.name.clone())).or_default();
            *asked += 1;
            *noticed += u32::from(answer != Some(true));
        }
        match answer {
            Some(true) => {}
            Some(false) => return Ok(Verdict::Noticed(catcher.name.clone())),
            None => return Ok(Verdict::Hung(catcher.name.clone())),
        }
    }
    Ok(Verdict::Missed)
}

fn try_all(
    asked: &[&Mutant],
    not_built: &BTreeSet<u32>,
    catchers: &[Catcher],
    results: &Mutex<fs::File>,
) -> Result<(), Failure> {
    let next = AtomicUsize::new(0);
    let luck = Luck::default();
    let failure = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let work = || -> Result<(), Failure> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(mutant) = asked.get(index) else { return Ok(()) };
            let verdict = if not_built.contains(&mutant.number) {
                Verdict::NotBuilt
            } else {
                judge(mutant, catchers, &luck)?
            };
            let word = match &verdict {
                Verdict::NotBuilt => "not built".to_owned(),
                Verdict::Noticed(name) => format!("noticed by {name}"),
                Verdict::Hung(name) => format!("hung in {name}"),
                Verdict::Missed => "missed".to_owned(),
            };
            if let Ok(mut file) = results.lock() {
                writeln!(file, "{word}\t{}", mutant.name)?;
            }
            if verdict == Verdict::Missed {
                eprintln!("{index}/{} missed: {}", asked.len(), mutant.name);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                if let (Err(error), Ok(mut failure)) = (work(), failure.lock()) {
                    *failure = Some(error);
                }
            });
        }
    });
    failure.into_inner().map_err(|_| "a worker panicked")?.map_or(Ok(()), Err)
}

/// Mutants, not built, noticed and missed, for each file and in all.
fn print_table(results: &str) {
    let mut files: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    for (word, name) in results.lines().filter_map(|line| line.split_once('\t')) {
        let column = match word.split(' ').next() {
            Some("not") => 0,
            Some("noticed") => 1,
            Some("hung") => 2,
            _ => 3,
        };
        files.entry(name.split(':').next().unwrap_or_default()).or_default()[column] += 1;
        files.entry("in all").or_default()[column] += 1;
    }
    println!("| file | mutants | not built | noticed | did not end | missed | caught |");
    println!("|---|--:|--:|--:|--:|--:|--:|");
    for (file, [not_built, noticed, hung, missed]) in files {
        let tried = noticed + hung + missed;
        let share = (noticed + hung) * 1000 / tried.max(1);
        let (all, tenths) = (not_built + tried, share % 10);
        let share = share / 10;
        println!("| {file} | {all} | {not_built} | {noticed} | {hung} | {missed} | {share}.{tenths} % |");
    }
}
