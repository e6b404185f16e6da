//! `diskwire bench multipath`: the goals of the multipath layer, each with its target, what was measured, and whether it is
//! reached.
//!
//! Keeps true: what is printed was measured in this run. Not here: the measuring (`multipath_goals` of the package
//! `system-tests`), which goals are shown elsewhere (its description).

use serde_json::json;
use system_tests::multipath_goals::figure::{Figure, Judged, Target};
use system_tests::multipath_goals::{Effort, MEASUREMENTS, Measured, Measurement};

use super::super::{CommandError, print, say};
use super::report::number;
use super::rounds::spinner;
use crate::args::bench::BenchMultipathArgs;
use crate::exit::Exit;

pub(super) fn run(args: &BenchMultipathArgs) -> Result<Exit, CommandError> {
    let chosen = chosen(&args.goals)?;
    let effort = if args.quick { Effort::QUICK } else { Effort::FULL };
    let spinner = spinner(args.json);
    let mut all = Measured::default();
    for measurement in chosen {
        spinner.set_message(measurement.what);
        let found = measurement.run(&effort, &args.folder).map_err(CommandError::Measure)?;
        all.figures.extend(found.figures);
        all.notices.extend(found.notices);
    }
    spinner.finish_and_clear();
    all.figures.retain(|figure| args.goals.is_empty() || args.goals.contains(&figure.goal));
    all.figures.sort_by_key(|figure| figure.goal);
    all.notices.iter().for_each(|notice| say(notice));
    print(&if args.json { as_json(args, &all) } else { as_text(args, &all) })?;
    Ok(if all.figures.iter().all(Figure::is_met) { Exit::Done } else { Exit::Failed })
}

/// What measures these goals; everything, if none is named.
fn chosen(goals: &[u8]) -> Result<Vec<&'static Measurement>, CommandError> {
    for goal in goals {
        if !MEASUREMENTS.iter().any(|measurement| measurement.goals.contains(goal)) {
            let mut known: Vec<u8> = MEASUREMENTS.iter().flat_map(|found| found.goals).copied().collect();
            known.sort_unstable();
            let known = known.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
            return Err(CommandError::NoGoal { goal: *goal, known });
        }
    }
    let is_wanted = |measurement: &&Measurement| {
        goals.is_empty() || goals.iter().any(|goal| measurement.goals.contains(goal))
    };
    Ok(MEASUREMENTS.iter().filter(is_wanted).collect())
}

fn as_text(args: &BenchMultipathArgs, all: &Measured) -> String {
    let width = all.figures.iter().map(|figure| figure.what.chars().count()).max().unwrap_or(0);
    let mut text = format!(
        "goal  {:<width$}  {:>9}  {:>9}  {:>20}  runs\n",
        "what", "target", "median", "least to most"
    );
    for figure in &all.figures {
        let spread = format!("{} to {}", number(figure.least()), number(figure.most()));
        text += &format!(
            "{:>4}  {:<width$}  {:>9}  {:>9}  {spread:>20}  {:>4}  {}{}\n",
            figure.goal,
            figure.what,
            target(figure),
            number(figure.median()),
            figure.values().len(),
            if figure.is_met() { "reached" } else { "MISSED" },
            if figure.judged == Judged::Median { ", real time" } else { "" },
        );
    }
    if args.quick {
        text += "few and short runs (--quick): not to be quoted\n";
    }
    text
}

fn target(figure: &Figure) -> String {
    let unit = if figure.unit.is_empty() { String::new() } else { format!(" {}", figure.unit) };
    format!("{}{unit}", figure.target)
}

fn as_json(args: &BenchMultipathArgs, all: &Measured) -> String {
    let figure = |figure: &Figure| {
        let (relation, value) = match figure.target {
            Target::AtMost(value) => ("at-most", value),
            Target::AtLeast(value) => ("at-least", value),
        };
        json!({
            "goal": figure.goal,
            "what": figure.what,
            "unit": figure.unit,
            "target": { relation: value },
            "judged": match figure.judged { Judged::EveryRun => "every-run", Judged::Median => "median" },
            "median": figure.median(),
            "least": figure.least(),
            "most": figure.most(),
            "runs": figure.values(),
            "met": figure.is_met(),
        })
    };
    let figures: Vec<_> = all.figures.iter().map(figure).collect();
    let object = json!({ "version": 1, "quick": args.quick, "notices": all.notices, "figures": figures });
    object.to_string() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_that_is_not_measured_here_is_told_with_those_that_are() {
        assert_eq!(chosen(&[]).map(|all| all.len()).ok(), Some(MEASUREMENTS.len()));
        assert_eq!(chosen(&[21, 2]).map(|all| all.len()).ok(), Some(2));
        let error = chosen(&[15]).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("15") && error.contains("1, 2, 3, 4"), "{error}");
    }
}
