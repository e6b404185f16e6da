//! Random fault schedules against the multipath device: many seeds and a table, or one seed with every event.
//!
//! ```text
//! cargo run --profile simulation -p system-tests --bin multipath-swarm -- --seeds 100000 [--from 1]
//!     [--mode sound|short-quiesce|unsafe-as-fenced] [--threads N]
//! cargo run --profile simulation -p system-tests --bin multipath-swarm -- --seed 7 --trace
//! ```
//!
//! Ends with 1 where a seed broke a promise, and prints the command that replays it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use system_tests::multipath_swarm::{Mode, Seeds, Summary, replay_command, run_seed, run_seeds};

/// Failures that are told in words.
const TOLD: usize = 300;

struct Arguments {
    seeds: Seeds,
    one: Option<u64>,
    printed: bool,
}

fn arguments() -> Result<Arguments, String> {
    let seeds = Seeds {
        mode: Mode::Sound,
        first: 1,
        count: 10_000,
        limit: Duration::MAX,
        threads: 0,
        stops_at_first: false,
    };
    let mut read = Arguments { seeds, one: None, printed: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().and_then(|text| text.parse::<u64>().ok());
            value.ok_or_else(|| format!("{word} wants a number"))
        };
        match word.as_str() {
            "--seeds" => read.seeds.count = number()?,
            "--from" => read.seeds.first = number()?,
            "--seed" => read.one = Some(number()?),
            "--threads" => read.seeds.threads = usize::try_from(number()?).unwrap_or(0),
            "--seconds" => read.seeds.limit = Duration::from_secs(number()?),
            "--trace" => read.printed = true,
            "--mode" => {
                read.seeds.mode = match words.next().as_deref() {
                    Some("sound") => Mode::Sound,
                    Some("short-quiesce") => Mode::ShortQuiesce,
                    Some("unsafe-as-fenced") => Mode::UnsafeAsFenced,
                    _ => return Err("--mode is sound, short-quiesce or unsafe-as-fenced".to_owned()),
                }
            }
            other => {
                return Err(format!(
                    "{other}: there are --seeds, --from, --seed, --trace, --mode, --threads, --seconds"
                ));
            }
        }
    }
    Ok(read)
}

#[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
fn print(summary: &Summary, took: f64) {
    let total = &summary.total;
    let simulated = total.simulated.as_secs_f64();
    println!("| what | count |");
    println!("|---|--:|");
    println!("| seeds | {} |", summary.seeds);
    println!("| simulated hours | {:.1} |", simulated / 3600.0);
    println!("| requests | {} |", total.requests);
    println!("| … answered with an error | {} |", total.errors);
    println!("| … withdrawn | {} |", total.withdrawn);
    println!("| attempts on paths | {} |", total.attempts);
    println!("| failovers | {} |", total.failovers);
    println!("| held writes | {} |", total.held);
    println!("| late landings | {} |", total.late_landings);
    println!("| … of copies assumed dead | {} |", total.wrongly_assumed);
    for (kind, count) in &total.faults {
        println!("| fault: {kind} | {count} |");
    }
    println!("| longest way back to rest | {:.1} s |", total.recovery.as_secs_f64());
    println!("| failures | {} |", summary.failures.len());
    println!("| seeds a second | {:.0} |", summary.seeds as f64 / took);
    println!("| I/Os a second | {:.0} |", total.attempts as f64 / took);
    println!("| simulated seconds a second | {:.0} |", simulated / took);
    println!("| hash of all events | {:016x} |", summary.hash);
}

fn main() -> ExitCode {
    let Arguments { seeds, one, printed } = match arguments() {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("multipath-swarm: {why}");
            return ExitCode::from(2);
        }
    };
    if let Some(seed) = one {
        let report = run_seed(seed, seeds.mode, printed);
        println!("seed {seed}: {report:#?}");
        return if report.violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let start = Instant::now();
    let summary = run_seeds(seeds);
    print(&summary, start.elapsed().as_secs_f64());
    for (broken, count) in summary.by_promise() {
        println!("{broken:?}: {count} seeds");
    }
    for (seed, violation) in summary.failures.iter().take(TOLD) {
        let at = violation.at;
        println!(
            "seed {seed}, {at}: {:?}: {}\n    {}",
            violation.broken,
            violation.text,
            replay_command(*seed)
        );
    }
    if summary.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
