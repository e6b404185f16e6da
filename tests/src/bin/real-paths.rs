//! Real paths, failed on purpose: `real-paths [DRILLS] [WORD]` prints how long requests waited, for each layout
//! and fault, over so many drills (20 without the number), of those faults that have the word in their name.
//!
//! Keeps true: anything that is not as it must be (a wrong block, a failed request) makes the exit code 1. As
//! `real-paths relay LISTEN TARGET` it is one of its own relays. Not here: how (`system_tests::real_paths`).

use std::process::ExitCode;

use storage_mapping::FencePolicy;
use system_tests::real_paths::drill::Drill;
use system_tests::real_paths::figures::{Figures, mean, median_and_worst, ms, of_histogram, quantile};
use system_tests::real_paths::stage::RelayProgram;
use system_tests::real_paths::{Fault, Layout, ghost};
use system_tests::relay::console::obey;

const DRILLS: u64 = 20;
/// What is done, in the order of the table.
const ROWS: [(Fault, Layout); 15] = [
    (Fault::RelayKilled, Layout::ONE_NBDKIT),
    (Fault::RelayKilled, Layout::NBDKIT_AND_QEMU),
    (Fault::RelayCut, Layout::ONE_NBDKIT),
    (Fault::RelayCut, Layout::NBDKIT_AND_QEMU),
    (Fault::ServerKilled, Layout::TWO_NBDKIT),
    (Fault::ServerKilled, Layout::NBDKIT_AND_QEMU),
    (Fault::ServerKilled, Layout::FILE_AND_NBDKIT),
    (Fault::ServerStopped, Layout::TWO_NBDKIT),
    (Fault::ServerStopped, Layout::NBDKIT_AND_QEMU),
    (Fault::ServerStopped, Layout::FILE_AND_NBDKIT),
    (Fault::RelayPaused, Layout::ONE_NBDKIT),
    (Fault::RelayPaused, Layout::NBDKIT_AND_QEMU),
    (Fault::Throttled, Layout::ONE_NBDKIT),
    (Fault::Throttled, Layout::NBDKIT_AND_QEMU),
    (Fault::Delayed, Layout::ONE_NBDKIT),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["relay", listen, target] => {
            let relayed = obey(listen, target, std::io::stdin().lock(), std::io::stdout());
            relayed.map(|()| true).map_err(|error| error.to_string())
        }
        _ => run(&words),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("real-paths: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints everything; says whether all was as it must be.
fn run(words: &[&str]) -> Result<bool, String> {
    let drills = match words.first() {
        Some(word) => word.parse().map_err(|_| format!("`{word}` is no number of drills: try 20"))?,
        None => DRILLS,
    };
    let wanted = words.get(1).copied().unwrap_or_default();
    let program = std::env::current_exe().map_err(|error| format!("this program is not found: {error}"))?;
    let relay = RelayProgram { program, arguments: vec!["relay".to_owned()] };
    let mut rows = Vec::new();
    let mut is_good = true;
    for (fault, layout) in ROWS.into_iter().filter(|(fault, _)| fault.to_string().contains(wanted)) {
        let mut figures = Figures::default();
        for seed in 0..drills {
            figures.add(&Drill { layout, fault, seed }.run(&relay)?);
        }
        eprintln!("{fault}, {}: done", layout.name);
        figures
            .wrong
            .iter()
            .chain(&figures.errors)
            .take(10)
            .for_each(|wrong| println!("WRONG {fault}, {}: {wrong}", layout.name));
        is_good &= figures.wrong.is_empty() && figures.errors.is_empty() && figures.late_landings == 0;
        rows.push((fault, layout, figures));
    }
    println!("{drills} drills a row; times in ms, median / worst of the drills where nothing else is said\n");
    print_waits(&rows);
    print_checks(&rows);
    for (fence, name) in [(FencePolicy::Fence, "fence"), (FencePolicy::Unsafe, "unsafe")] {
        let made = ghost::make(&relay, fence)?;
        println!("old write let go after a newer one, policy {name}: {made:?}");
        is_good &= made.is_newer == (fence == FencePolicy::Fence);
    }
    Ok(is_good)
}

fn print_waits(rows: &[(Fault, Layout, Figures)]) {
    println!(
        "| fault | paths | fault to last stuck request | slowest request | no completion at all | detect p50 / max | resubmit p99 / max | healed to all paths used |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (fault, layout, figures) in rows {
        println!(
            "| {fault} | {} | {} | {} | {} | {} | {} | {} |",
            layout.name,
            median_and_worst(&figures.stuck),
            median_and_worst(&figures.slowest),
            median_and_worst(&figures.silence),
            of_histogram(&figures.times.detect, 0.5),
            of_histogram(&figures.times.resubmit, 0.99),
            median_and_worst(&figures.back),
        );
    }
    println!();
}

fn print_checks(rows: &[(Fault, Layout, Figures)]) {
    println!(
        "| fault | paths | service p50 / p99 before | hung reads: count, p99.9, max | requests/s before → during | share before → after | failed requests | blocks verified | late copies landed | held writes |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for (fault, layout, figures) in rows {
        let part = |of: fn(&[f64; 2]) -> f64, pairs: &[[f64; 2]]| mean(pairs.iter().map(of));
        let (rates, shares) = (&figures.rates, &figures.shares);
        let hung = &figures.hung_reads;
        println!(
            "| {fault} | {} | {} / {} | {}, {}, {} | {:.0} → {:.0} | {:.1} % → {:.1} % | {} of {} | {} | {} | {} |",
            layout.name,
            ms(quantile(&figures.service, 0.5)),
            ms(quantile(&figures.service, 0.99)),
            hung.len(),
            ms(quantile(hung, 0.999)),
            ms(quantile(hung, 1.0)),
            part(|pair| pair[0], rates),
            part(|pair| pair[1], rates),
            100.0 * part(|pair| pair[0], shares),
            100.0 * part(|pair| pair[1], shares),
            figures.errors.len(),
            figures.requests,
            figures.blocks_checked,
            figures.ghosts,
            figures.held,
        );
    }
    println!();
}
