//! The models of the protocol: every variant gives its known result.
//!
//! `DISKWIRE_FULL=1` takes the large bounds: tens of millions of states for each of the largest searches,
//! some up to a limit of states. What came out is printed with `--nocapture`.

use std::sync::OnceLock;
use system_tests::models::table::{Expected, Form, Row, markdown, report};

/// States of all models together, at least.
const STATES_MIN: [(Form, usize); 2] = [(Form::Short, 5_000_000), (Form::Full, 100_000_000)];

fn form() -> Form {
    if std::env::var_os("DISKWIRE_FULL").is_some() { Form::Full } else { Form::Short }
}

/// Every search is done once, whichever test comes first.
fn rows() -> &'static [Row] {
    static ROWS: OnceLock<Vec<Row>> = OnceLock::new();
    ROWS.get_or_init(|| {
        let rows = report(form());
        println!("\n{}", markdown(&rows));
        rows
    })
}

fn check(model: &str) {
    let rows = || rows().iter().filter(|row| row.model == model);
    let broken = |row: &&Row| matches!(row.expected, Expected::Broken(..) | Expected::Stuck(..));
    assert!(rows().filter(broken).count() >= 3, "variants without a rule are what a model is judged by");
    let differs = |row: &&Row| !row.is_as_expected();
    let findings: Vec<String> = rows()
        .filter(differs)
        .map(|row| {
            let (name, outcome) = (format!("{}, {}", row.variant, row.bounds), &row.outcome);
            format!(
                "{name}: expected {:?}, found {} in {} states\n{}",
                row.expected,
                row.verdict(),
                outcome.states,
                outcome.trace_lines()
            )
        })
        .collect();
    assert!(findings.is_empty(), "{model}:\n{}", findings.join("\n"));
}

#[test]
fn data_path() {
    check("data path");
}

#[test]
fn commit() {
    check("commit");
}

#[test]
fn bell() {
    check("bell");
}

#[test]
fn hand_over() {
    check("hand-over");
}

#[test]
fn enough_states_are_visited() {
    let states: usize = rows().iter().map(|row| row.outcome.states).sum();
    let (_, least) = STATES_MIN.into_iter().find(|(of, _)| *of == form()).expect("both forms are listed");
    assert!(states >= least, "{states} states in all, at least {least} are to be visited");
}
