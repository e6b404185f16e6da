//! What a measurement found: rows of samples, shown as a table of 80 columns or as JSON, and judged.
//!
//! Keeps true: what is printed and what is judged comes from the samples of this run and nothing else; a row with a goal is
//! judged by its median. Not here: the measuring.

use serde_json::{Value, json};
use system_tests::multipath_goals::figure::Target;

use super::super::{CommandError, print};
use crate::exit::Exit;

/// A longer name stands on a line of its own, so that its figures and its goal fit the table.
const NAME_SIGNS_MAX: usize = 28;

/// One thing that was measured, several times.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// What, in a few words.
    what: String,
    /// Of what the samples are; nothing for a ratio.
    unit: &'static str,
    /// One for each round, in order of size.
    samples: Vec<f64>,
    /// What is aimed at.
    goal: Option<Target>,
}

impl Row {
    /// A row without a goal.
    pub(super) fn new(what: impl Into<String>, unit: &'static str, mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self { what: what.into(), unit, samples, goal: None }
    }

    /// The same with a goal.
    pub(super) fn with_goal(self, goal: Target) -> Self {
        Self { goal: Some(goal), ..self }
    }

    /// The middle sample, or what lies between the two in the middle; not a number if there is none.
    pub(super) fn median(&self) -> f64 {
        let middle = self.samples.len() / 2;
        let upper = self.samples.get(middle).copied().unwrap_or(f64::NAN);
        if self.samples.len().is_multiple_of(2) && middle > 0 {
            f64::midpoint(self.samples[middle - 1], upper)
        } else {
            upper
        }
    }

    fn least(&self) -> f64 {
        self.samples.first().copied().unwrap_or(f64::NAN)
    }

    fn most(&self) -> f64 {
        self.samples.last().copied().unwrap_or(f64::NAN)
    }

    /// Whether the goal is reached, if there is one. Without any sample it is not.
    pub(super) fn is_met(&self) -> Option<bool> {
        self.goal.map(|goal| goal.is_met_by(self.median()))
    }
}

/// All that a command measured.
#[derive(Clone, Debug)]
pub(super) struct Report {
    /// Which command, as `channel`.
    pub(super) bench: &'static str,
    /// On what it was measured: sizes, file systems, devices; a line each.
    pub(super) conditions: Vec<String>,
    /// What was measured.
    pub(super) rows: Vec<Row>,
    /// Few and short runs: not to be quoted.
    pub(super) quick: bool,
}

impl Report {
    /// Prints it. A goal that is missed makes the exit code 1.
    pub(super) fn finish(&self, as_json: bool) -> Result<Exit, CommandError> {
        print(&if as_json { self.json().to_string() + "\n" } else { self.text() })?;
        Ok(if self.rows.iter().all(|row| row.is_met() != Some(false)) { Exit::Done } else { Exit::Failed })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for condition in &self.conditions {
            text += &format!("{condition}\n");
        }
        let longest = self.rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
        let width = longest.min(NAME_SIGNS_MAX);
        text += &format!("\n{:<width$}  {:>8} {:<8} {:>17}  goal\n", "", "median", "", "least to most");
        for row in &self.rows {
            let spread = format!("{} to {}", number(row.least()), number(row.most()));
            let judged = match (row.goal, row.is_met()) {
                (Some(goal), Some(true)) => format!("  {goal} reached"),
                (Some(goal), _) => format!("  {goal} MISSED"),
                (None, _) => String::new(),
            };
            let (mut what, median) = (row.what.as_str(), number(row.median()));
            if what.chars().count() > width {
                text += &format!("{what}\n");
                what = "";
            }
            let line = format!("{what:<width$}  {median:>8} {:<8} {spread:>17}{judged}", row.unit);
            text += line.trim_end();
            text += "\n";
        }
        if self.quick {
            text += "few and short runs (--quick): not to be quoted\n";
        }
        text
    }

    /// It as `--json` prints it.
    pub(super) fn json(&self) -> Value {
        let row = |row: &Row| {
            let goal = row.goal.map(|goal| match goal {
                Target::AtMost(value) => json!({ "at-most": value }),
                Target::AtLeast(value) => json!({ "at-least": value }),
            });
            json!({
                "what": row.what,
                "unit": row.unit,
                "median": row.median(),
                "least": row.least(),
                "most": row.most(),
                "samples": row.samples,
                "goal": goal,
                "met": row.is_met(),
            })
        };
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        json!({
            "version": 1,
            "bench": self.bench,
            "quick": self.quick,
            "conditions": self.conditions,
            "rows": rows,
        })
    }
}

/// Three digits that say something, or so.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.5}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_say_something() {
        let texts = [0.0, 0.0012, 0.9999, 12.34, 1234.5].map(number);
        assert_eq!(texts, ["0", "0.00120", "1.000", "12.3", "1234"]);
    }

    #[test]
    fn the_median_is_judged_and_nothing_measured_is_a_miss() {
        let row = |samples| Row::new("x", "", samples).with_goal(Target::AtLeast(2.0));
        assert_eq!(row(vec![9.0, 1.0, 2.0]).is_met(), Some(true));
        assert_eq!(row(vec![9.0, 1.0, 1.5]).is_met(), Some(false));
        assert_eq!(row(vec![1.0, 9.0]).median(), 5.0, "between two");
        assert_eq!(row(Vec::new()).is_met(), Some(false));
        assert_eq!(Row::new("x", "", Vec::new()).is_met(), None);
    }

    #[test]
    fn a_table_fits_a_terminal_and_json_says_the_same() {
        let rows = vec![
            Row::new("writing and reading at once, a MiB each", "MiB/s", vec![1234.5, 1200.0, 1300.0]),
            Row::new("diskwire / device", "", vec![0.95]).with_goal(Target::AtLeast(0.9)),
        ];
        let report = Report { bench: "x", conditions: vec!["a line".into()], rows, quick: false };
        let text = report.text();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("≥ 0.9 reached"), "{text}");
        assert!(text.contains("\nwriting and reading at once, a MiB each\n     "), "{text}");
        let json = report.json();
        assert_eq!(json["rows"][0]["median"], 1234.5);
        assert_eq!(json["rows"][1]["met"], true);
    }
}
