//! `diskwire sim`: many runs of the simulator, or one with its trace.
//!
//! A broken promise is a failure (exit 1), told with its seed and the command that replays it. Not here:
//! the simulator.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use system_tests::runner::{Seeds, Summary, replay_command, run_seed, run_seeds, running_seed};

use super::{CommandError, print};
use crate::args::sim::SimArgs;
use crate::exit::Exit;

pub(super) fn run(args: &SimArgs) -> Result<Exit, CommandError> {
    tell_panics();
    match args.seed {
        Some(seed) => run_one(args, seed),
        None => run_many(args),
    }
}

fn run_one(args: &SimArgs, seed: u64) -> Result<Exit, CommandError> {
    let outcome = run_seed(seed, args.trace && !args.json);
    let exit = if outcome.is_ok() { Exit::Done } else { Exit::Failed };
    if args.json {
        let object = match &outcome {
            Ok(report) => json!({
                "version": 1, "seed": seed, "hash": format!("{:016x}", report.hash), "events": report.events,
                "simulated_seconds": report.simulated.as_secs_f64(), "files": report.delivered,
                "bytes": report.delivered_bytes, "faults": faults(&report.faults), "failure": null,
            }),
            Err(why) => json!({ "version": 1, "seed": seed, "failure": why }),
        };
        print(&format!("{object}\n"))?;
        return Ok(exit);
    }
    match outcome {
        Ok(report) => print(&format!(
            "seed {seed}: {} events in {:.3} s of its time, {} files with {} bytes compared,\n\
             {} faults, hash {:016x}: every promise kept\n",
            grouped(report.events),
            report.simulated.as_secs_f64(),
            report.delivered,
            grouped(report.delivered_bytes),
            grouped(report.faults.total()),
            report.hash
        ))?,
        Err(why) => print(&format!("seed {seed}: a promise was broken: {why}\n"))?,
    }
    Ok(exit)
}

fn run_many(args: &SimArgs) -> Result<Exit, CommandError> {
    let bar = ProgressBar::new(args.seeds);
    let shown = !args.quiet && !args.json && io::stderr().is_terminal();
    bar.set_draw_target(if shown {
        ProgressDrawTarget::stderr_with_hz(8)
    } else {
        ProgressDrawTarget::hidden()
    });
    let style = "{bar:30} {human_pos}/{human_len} seeds, {per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    let seeds = Seeds {
        first: args.from,
        count: args.seeds,
        limit: Duration::MAX,
        threads: args.threads,
        stops_at_first: args.stop_at_first,
    };
    let start = std::time::Instant::now();
    let summary = run_seeds(seeds, &|| bar.inc(1));
    bar.finish_and_clear();
    let took = start.elapsed();
    let text = if args.json { as_json(args, &summary, took) } else { as_text(args, &summary, took) };
    print(&text)?;
    Ok(if summary.failures.is_empty() { Exit::Done } else { Exit::Failed })
}

fn as_text(args: &SimArgs, summary: &Summary, took: Duration) -> String {
    let mut text = format!(
        "seeds       {} to {}: {} in {:.1} s, {:.1} a second\n",
        args.from,
        args.from + summary.seeds - 1,
        grouped(summary.seeds),
        took.as_secs_f64(),
        rate(summary, took)
    );
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<11} {value}\n"));
    line("simulated", format!("{:.1} hours, {} events", hours(summary), grouped(summary.events)));
    line(
        "deliveries",
        format!(
            "{} files with {} bytes compared,",
            grouped(summary.delivered),
            grouped(summary.delivered_bytes)
        ),
    );
    line("", format!("by {} runs of commands", grouped(summary.attempts)));
    line("faults", format!("{} injected", grouped(summary.faults.total())));
    for (fault, count) in summary.faults.iter() {
        line("", format!("{:>13}  {}", grouped(count), fault.name()));
    }
    let (longest, seed) = summary.recovery_longest;
    line("recovery", format!("{:.1} s at most after the last fault (seed {seed})", longest.as_secs_f64()));
    line("hash", format!("{:016x}", summary.hash));
    line("failures", summary.failures.len().to_string());
    for (seed, why) in &summary.failures {
        text.push_str(&format!("seed {seed}: {why}\n  {}\n", replay_command(*seed)));
    }
    text
}

fn as_json(args: &SimArgs, summary: &Summary, took: Duration) -> String {
    let failures: Vec<_> =
        summary.failures.iter().map(|(seed, why)| json!({ "seed": seed, "why": why })).collect();
    let object = json!({
        "version": 1,
        "first_seed": args.from,
        "seeds": summary.seeds,
        "seconds": took.as_secs_f64(),
        "seeds_per_second": rate(summary, took),
        "simulated_hours": hours(summary),
        "events": summary.events,
        "commands": summary.attempts,
        "files": summary.delivered,
        "bytes": summary.delivered_bytes,
        "faults": faults(&summary.faults),
        "recovery_seconds_max": summary.recovery_longest.0.as_secs_f64(),
        "hash": format!("{:016x}", summary.hash),
        "failures": failures,
    });
    format!("{object}\n")
}

fn faults(counters: &system_tests::fault::FaultCounters) -> serde_json::Value {
    counters.iter().map(|(fault, count)| (fault.name().to_owned(), json!(count))).collect()
}

fn hours(summary: &Summary) -> f64 {
    summary.simulated.as_secs_f64() / 3600.0
}

#[expect(clippy::cast_precision_loss, reason = "shown with a decimal")]
fn rate(summary: &Summary, took: Duration) -> f64 {
    summary.seeds as f64 / took.as_secs_f64().max(1e-9)
}

/// With a comma between groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A panic ends a program that is built to trust nothing after one; its seed must not be lost.
fn tell_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if let Some(seed) = running_seed() {
            let _ = writeln!(io::stderr(), "diskwire: seed {seed} broke a promise; {}", replay_command(seed));
        }
        before(panic);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_threes() {
        let numbers = [0, 12, 123, 1234, 123_456, 1_234_567];
        assert_eq!(numbers.map(grouped), ["0", "12", "123", "1,234", "123,456", "1,234,567"]);
    }
}
