//! Every variant of the models, its bounds, and what is known to come out.
//!
//! What holds: a broken variant names what it breaks and the length of the shortest way there; a safe one
//! names its number of states, so that a model that has lost steps is noticed. Not here: the models.
//!
//! The column "in the design" has the figures of the models that the protocol was designed with. They cut
//! the same steps otherwise, so that lengths and counts differ where the verdict does not.

use super::Model;
use super::bell::{Bell, DuringScan, Remember, Rules as BellRules};
use super::commit::{self, Commit, FailedRename};
use super::data_path::{Binding, DataPath, Tables};
use super::hand_over::{self, HandOver};
use super::search::{Limits, Outcome, search};
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Searches that run side by side.
const THREADS: usize = 2;
/// States of a search without a limit of its own.
const STATES_MAX: usize = 60_000_000;

/// How large the bounds are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For every run of the tests.
    Short,
    /// For a long run.
    Full,
}

/// What is known to come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing wrong in exactly so many states.
    Safe(usize),
    /// Nothing wrong, and an end stays reachable from each of so many states.
    Live(usize),
    /// Nothing wrong up to a limit of states: not exhaustive.
    Limit(usize),
    /// This, by so many steps.
    Broken(&'static str, usize),
    /// So many states from which no end can be reached, the nearest by so many steps.
    Stuck(usize, usize),
}

/// One variant of a model.
pub struct Case {
    /// The model.
    pub model: &'static str,
    /// What is different about this variant.
    pub variant: &'static str,
    /// Its bounds.
    pub bounds: &'static str,
    /// The figure of the design's models.
    pub design: &'static str,
    /// What is known to come out.
    pub expected: Expected,
    run: Box<dyn Fn(Limits) -> Outcome + Send + Sync>,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Row {
    /// The model.
    pub model: &'static str,
    /// What is different about this variant.
    pub variant: &'static str,
    /// Its bounds.
    pub bounds: &'static str,
    /// The figure of the design's models.
    pub design: &'static str,
    /// What is known to come out.
    pub expected: Expected,
    /// What did.
    pub outcome: Outcome,
}

impl Row {
    /// Whether it came out as it is known to.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        let outcome = &self.outcome;
        let clean = outcome.violation.is_none();
        match self.expected {
            Expected::Safe(states) => clean && outcome.exhaustive && outcome.states == states,
            Expected::Live(states) => clean && outcome.stuck == Some(0) && outcome.states == states,
            Expected::Limit(states) => clean && (outcome.exhaustive || outcome.states >= states),
            Expected::Broken(what, steps) => outcome.violation == Some(what) && outcome.trace.len() == steps,
            Expected::Stuck(stuck, steps) => {
                clean && outcome.stuck == Some(stuck) && outcome.trace.len() == steps
            }
        }
    }

    /// What came out, in words.
    #[must_use]
    pub fn verdict(&self) -> String {
        let outcome = &self.outcome;
        match (outcome.violation, outcome.stuck) {
            (Some(what), _) => format!("**{what}**"),
            (None, Some(0)) => "safe, never stuck".to_owned(),
            (None, Some(stuck)) => format!("**{stuck} stuck states**"),
            (None, None) if outcome.exhaustive => "safe".to_owned(),
            (None, None) => "nothing found, not exhaustive".to_owned(),
        }
    }
}

fn case<M: Model + Send + Sync + 'static>(
    [model, variant, bounds, design]: [&'static str; 4],
    expected: Expected,
    rules: M,
) -> Case {
    Case { model, variant, bounds, design, expected, run: Box::new(move |limits| search(&rules, limits)) }
}

/// Bounds of the variants of the data path that are alike in both forms.
const ONE_LATE: &str = "2 lives, 1 late pending";

fn of_data_path(variant: &'static str, bounds: &'static str, design: &'static str) -> [&'static str; 4] {
    ["data path", variant, bounds, design]
}

fn bound(data: bool, entry: bool, ack: bool) -> DataPath {
    DataPath { binding: Binding { data, entry, ack }, ..DataPath::FULL }
}

fn data_path(form: Form) -> Vec<Case> {
    let wrong = |steps| Expected::Broken("wrong data delivered", steps);
    let mut cases = vec![
        case(of_data_path("sequence number only", ONE_LATE, "9 steps"), wrong(9), bound(false, false, false)),
        case(of_data_path("segment not bound", ONE_LATE, "13 steps"), wrong(13), bound(false, true, true)),
        case(
            of_data_path("acknowledgement not bound", ONE_LATE, "31 steps, to the last one"),
            Expected::Broken("taken as acknowledged, never delivered", 15),
            bound(true, true, false),
        ),
    ];
    cases.extend(match form {
        Form::Short => data_path_short(),
        Form::Full => data_path_full(),
    });
    cases
}

fn data_path_short() -> Vec<Case> {
    let full = DataPath::FULL;

    let few = DataPath { late_total: 1, ..full };
    let pages = DataPath { tables: Tables::Pages(3), ..few };
    let calm = DataPath { lives: 1, attempts: 8, lost: 1, torn: 1, ..few };
    let live_pages = DataPath { lost: 0, torn: 0, tables: Tables::Pages(6), ..calm };
    let entry = DataPath { late_total: 1, ..bound(true, false, true) };
    let twice = DataPath { late_total: 2, ..full };
    let once = "2 lives, 1 late in all";
    vec![
        case(of_data_path("entry not bound", once, "683,844 states"), Expected::Safe(1_672_808), entry),
        case(of_data_path("full rules", once, "280,677 states"), Expected::Safe(525_334), few),
        case(
            of_data_path("full rules", "2 lives, 2 late, one at a time", "–"),
            Expected::Safe(3_123_492),
            twice,
        ),
        case(
            of_data_path("full rules, whole pages", "2 lives, 1 late in all, 3 versions", "–"),
            Expected::Safe(8_758_523),
            pages,
        ),
        case(
            of_data_path("full rules, liveness", "1 life; 1 late, 1 lost, 1 torn", "–"),
            Expected::Live(140_115),
            calm,
        ),
        case(
            of_data_path("full rules, liveness, whole pages", "1 life, 1 late, 6 versions", "–"),
            Expected::Live(186_935),
            live_pages,
        ),
    ]
}

fn data_path_full() -> Vec<Case> {
    let full = DataPath::FULL;

    let two = DataPath { late: 2, ..full };
    let faulty = DataPath { lost: 1, torn: 1, ..two };
    let pages = DataPath { tables: Tables::Pages(6), ..full };
    let calm = DataPath { lives: 1, attempts: 8, late_total: 1, lost: 1, torn: 1, ..full };
    let entry = bound(true, false, true);
    let worst = "2 lives; 2 late pending, 1 lost, 1 torn";
    vec![
        case(of_data_path("entry not bound", ONE_LATE, "683,844 states"), Expected::Safe(29_833_017), entry),
        case(of_data_path("full rules", ONE_LATE, "280,677 states"), Expected::Safe(10_124_317), full),
        case(
            of_data_path("full rules", "2 lives, 2 late pending", "15,637,666 states"),
            Expected::Limit(25_000_000),
            two,
        ),
        case(
            of_data_path("full rules", worst, "90,000,000 states, a limit"),
            Expected::Limit(25_000_000),
            faulty,
        ),
        case(
            of_data_path("full rules, whole pages", "2 lives, 1 late pending, 6 versions", "–"),
            Expected::Limit(20_000_000),
            pages,
        ),
        case(
            of_data_path("full rules, liveness", "1 life; 1 late, 1 lost, 1 torn", "–"),
            Expected::Live(140_115),
            calm,
        ),
    ]
}

fn commit() -> Vec<Case> {
    let rules = commit::Rules::FULL;
    let remembers = Commit { prune: false, refusals: false, ..Commit::FULL };
    let with = |rules| Commit { rules, ..remembers };
    let named = |variant, design| ["commit", variant, "3 crashes", design];
    let forgets = |variant, design| ["commit", variant, "3 crashes, journal forgets", design];
    let failed = |steps| Expected::Broken("said to have failed, but published", steps);
    let without = |steps| Expected::Broken("COMMITTED without a file", steps);
    let at_last = commit::Rules { permit: false, journal: false, in_doubt: false, ..rules };
    let no_bit = commit::Rules { permit_bit: false, ..rules };
    let done = commit::Rules { failed_rename: FailedRename::TakenAsDone, ..rules };
    let again = commit::Rules { failed_rename: FailedRename::TriedAgain, ..rules };
    let shared = commit::Rules { exclusive: false, ..rules };
    let forgetful = commit::Rules { refuse_keeps_permit: false, ..rules };
    vec![
        case(named("published at LAST, time-out is failure", "4 steps"), failed(9), with(at_last)),
        case(
            named("no receiver's journal", "12 steps, published twice"),
            failed(19),
            with(commit::Rules { journal: false, ..no_bit }),
        ),
        case(
            named("time-out after PERMIT is failure", "7 steps"),
            failed(12),
            with(commit::Rules { in_doubt: false, ..rules }),
        ),
        case(
            named("partial's folder not synced", "6 steps"),
            without(17),
            with(commit::Rules { sync_partial: false, ..rules }),
        ),
        case(
            named("target's folder not synced", "9 steps"),
            without(15),
            with(commit::Rules { sync_target: false, ..rules }),
        ),
        case(named("failed rename reported as done", "7 steps"), without(15), with(done)),
        case(forgets("no permit bit", "13 steps"), failed(21), Commit { prune: true, ..with(no_bit) }),
        case(
            named("ABORT after PERMIT taken as final", "7 steps"),
            failed(12),
            with(commit::Rules { abort_is_final: true, ..rules }),
        ),
        case(
            named("failed rename only tried again", "186 stuck states"),
            Expected::Stuck(60, 10),
            with(again),
        ),
        case(named("two connections work on one file", "–"), failed(18), with(shared)),
        case(
            forgets("REFUSE forgets the permit", "–"),
            failed(17),
            Commit { rules: forgetful, ..Commit::FULL },
        ),
        case(named("full rules", "518,950 states"), Expected::Live(4_142), remembers),
        case(forgets("full rules", "640,944 states"), Expected::Live(6_904), Commit::FULL),
    ]
}

fn bell() -> Vec<Case> {
    let rules = BellRules { fallback: false, ..BellRules::FULL };
    let calm = |rules| Bell { rules, late: 0, ..Bell::FULL };
    let forgotten = BellRules { during_scan: DuringScan::Forgotten, ..rules };
    let named = |variant, bounds, design| ["bell", variant, bounds, design];
    let two = "2 callers × 2 requests";
    let late = "2 callers × 2 requests, 2 late";
    vec![
        case(
            named("beacon, ring; remembered before the scan", two, "433 states"),
            Expected::Live(690),
            calm(rules),
        ),
        case(
            named("remembered after the scan", two, "11 steps"),
            Expected::Stuck(53, 11),
            calm(BellRules { remember: Remember::AfterScan, ..rules }),
        ),
        case(
            named("ring first, then the beacon", two, "11 steps"),
            Expected::Stuck(80, 6),
            calm(BellRules { beacon_first: false, ..rules }),
        ),
        case(
            named("no fallback scan", late, "12 steps"),
            Expected::Stuck(74, 12),
            Bell { rules, ..Bell::FULL },
        ),
        case(named("a ring during a scan is forgotten", two, "–"), Expected::Stuck(26, 12), calm(forgotten)),
        case(
            named("the same with the fallback scan", late, "–"),
            Expected::Live(36_423),
            Bell { rules: BellRules { fallback: true, ..forgotten }, ..Bell::FULL },
        ),
        case(named("full rules", late, "7,747 states"), Expected::Live(35_848), Bell::FULL),
        case(
            named("full rules", "3 callers × 2 requests, 2 late", "–"),
            Expected::Live(1_201_421),
            Bell { callers: 3, ..Bell::FULL },
        ),
    ]
}

fn hand_over(form: Form) -> Vec<Case> {
    let full = HandOver::FULL;
    let rules = hand_over::Rules::FULL;
    let with = |rules| HandOver { rules, ..full };
    let named = |variant, bounds, design| ["hand-over", variant, bounds, design];
    let two = "2 connections × 2 commands, 1 late pending, 9 versions";
    let mut cases = vec![
        case(
            named("the next command does not wait", two, "5 steps"),
            Expected::Broken("command skipped", 5),
            with(hand_over::Rules { waits_for_ack: false, ..rules }),
        ),
        case(
            named("known by the entry's version", two, "8 steps"),
            Expected::Broken("command repeated", 7),
            with(hand_over::Rules { by_number: false, ..rules }),
        ),
        case(
            named("not bound, versions restart", two, "5 steps"),
            Expected::Broken("command of the old connection taken", 5),
            with(hand_over::Rules { bound: false, ..rules }),
        ),
        case(
            named("an entry is not written again", "1 connection × 2 commands, 1 lost", "–"),
            Expected::Stuck(6, 1),
            HandOver {
                rules: hand_over::Rules { asserts_again: false, ..rules },
                connections: 1,
                late: 0,
                lost: 1,
                ..full
            },
        ),
    ];
    let live = HandOver { connections: 1, late_total: 1, lost: 1, versions: 5, ..full };
    cases.push(case(
        named(
            "full rules, liveness",
            "1 connection × 2 commands, 1 late, 1 lost, 5 versions",
            "2,230,590 states",
        ),
        Expected::Live(466_205),
        live,
    ));
    cases.push(match form {
        Form::Short => case(
            named("full rules", "2 connections × 2 commands, 1 late in all, 5 versions", "1,333,542 states"),
            Expected::Safe(315_539),
            HandOver { late_total: 1, versions: 5, ..full },
        ),
        Form::Full => case(
            named("full rules", "2 connections × 2 commands, 2 late pending, 9 versions", "1,333,542 states"),
            Expected::Limit(15_000_000),
            HandOver { late: 2, ..full },
        ),
    });
    cases
}

/// Every variant in its bounds.
#[must_use]
pub fn cases(form: Form) -> Vec<Case> {
    [data_path(form), commit(), bell(), hand_over(form)].into_iter().flatten().collect()
}

/// Searches every variant, two side by side.
///
/// # Panics
/// If a model panics.
#[must_use]
pub fn report(form: Form) -> Vec<Row> {
    let cases = cases(form);
    let next = AtomicUsize::new(0);
    let rows: Vec<Mutex<Option<Row>>> = cases.iter().map(|_| Mutex::default()).collect();
    let work = || {
        // The last ones of the data path are the longest; whoever is free takes the next.
        while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < cases.len()) {
            let Case { model, variant, bounds, design, expected, run } = &cases[at];
            let liveness = matches!(expected, Expected::Live(_) | Expected::Stuck(..));
            let states_max = if let Expected::Limit(states) = expected { *states } else { STATES_MAX };
            let outcome = run(Limits { states_max, liveness });
            let row = Row { model, variant, bounds, design, expected: *expected, outcome };
            *rows[at].lock().expect("no thread panics with a row in hand") = Some(row);
        }
    };
    std::thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(work))));
    let row = |row: Mutex<Option<Row>>| row.into_inner().expect("no thread panics with a row in hand");
    rows.into_iter().map(|cell| row(cell).expect("every case was run")).collect()
}

/// Rows as a table in Markdown.
#[must_use]
pub fn markdown(rows: &[Row]) -> String {
    let mut text = "| model | variant | bounds | states | steps | depth | result | trace | in the design |\n\
                    |---|---|---|--:|--:|--:|---|--:|---|\n"
        .to_owned();
    for row in rows {
        let outcome = &row.outcome;
        let trace = if outcome.trace.is_empty() { "–".to_owned() } else { outcome.trace.len().to_string() };
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {trace} | {} |",
            row.model,
            row.variant,
            row.bounds,
            grouped(outcome.states as u64),
            grouped(outcome.transitions),
            outcome.depth,
            row.verdict(),
            row.design,
        )
        .expect("a string takes everything");
    }
    text
}

/// A number with a comma before every three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
