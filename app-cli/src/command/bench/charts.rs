//! `diskwire bench charts`: pictures of former measurements.
//!
//! Keeps true: what is drawn stands in the reports and nothing else. Not here: how bars look (`chart::bars`).

use std::fs;
use std::path::Path;

use serde::Deserialize;
use system_tests::multipath_goals::figure::Target;

use super::super::{CommandError, print};
use super::report::number;
use crate::args::bench::BenchChartsArgs;
use crate::chart::bars::{Bar, Bars};
use crate::escape;
use crate::exit::Exit;

/// A report, as `--json` prints it; that of `multipath` has other names for the same.
#[derive(Debug, Deserialize)]
struct Told {
    #[serde(default = "multipath")]
    bench: String,
    #[serde(default)]
    quick: bool,
    #[serde(default)]
    conditions: Vec<String>,
    #[serde(alias = "figures")]
    rows: Vec<ToldRow>,
}

/// Numbers that are none are `null` in JSON.
#[derive(Debug, Deserialize)]
struct ToldRow {
    what: String,
    unit: String,
    median: Option<f64>,
    least: Option<f64>,
    most: Option<f64>,
    goal: Option<GoalOrNumber>,
    target: Option<ToldGoal>,
    met: Option<bool>,
}

/// With `multipath` a goal has a number here, and what is aimed at is its target.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum GoalOrNumber {
    Goal(ToldGoal),
    Number(serde::de::IgnoredAny),
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum ToldGoal {
    #[serde(rename = "at-least")]
    AtLeast(f64),
    #[serde(rename = "at-most")]
    AtMost(f64),
}

fn multipath() -> String {
    "multipath".to_owned()
}

pub(super) fn run(args: &BenchChartsArgs) -> Result<Exit, CommandError> {
    // All reports first: one that is none leaves everything as it was.
    let charts = args.reports.iter().map(|file| Ok((file, chart(file)?)));
    let mut charts: Vec<_> = charts.collect::<Result<_, CommandError>>()?;
    if !args.units.is_empty() {
        charts.iter_mut().for_each(|(_, chart)| chart.keep_units(&args.units));
    }
    fs::create_dir_all(&args.out).map_err(|source| not_written(&args.out, source))?;
    for (report, chart) in charts {
        let file = args.out.join(report.file_name().unwrap_or_default()).with_extension("svg");
        fs::write(&file, chart.svg()).map_err(|source| not_written(&file, source))?;
        print(&format!("{}\n", escape::name(&file)))?;
    }
    Ok(Exit::Done)
}

fn chart(file: &Path) -> Result<Bars, CommandError> {
    let failed = |why: String| CommandError::BenchReport { file: escape::name(file), why };
    let text = fs::read(file).map_err(|error| failed(error.to_string()))?;
    let told: Told = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
    Ok(bars(told))
}

fn not_written(file: &Path, source: std::io::Error) -> CommandError {
    CommandError::Chart { file: escape::name(file), source }
}

fn bars(told: Told) -> Bars {
    let quick = if told.quick { ": a quick look, not to be quoted" } else { "" };
    Bars {
        title: format!("diskwire bench {}{quick}", told.bench),
        conditions: told.conditions,
        bars: told.rows.into_iter().map(bar).collect(),
    }
}

fn bar(row: ToldRow) -> Bar {
    let aim = match row.goal {
        Some(GoalOrNumber::Goal(goal)) => Some(goal),
        Some(GoalOrNumber::Number(_)) | None => row.target,
    };
    let goal = aim.map(|goal| match goal {
        ToldGoal::AtLeast(value) => (Target::AtLeast(value), value),
        ToldGoal::AtMost(value) => (Target::AtMost(value), value),
    });
    let is_missed = goal.is_some() && row.met == Some(false);
    let value = match (row.median, row.least, row.most) {
        (Some(median), Some(least), Some(most)) if least < most => {
            format!("{}  ({} to {})", number(median), number(least), number(most))
        }
        (Some(median), ..) => number(median),
        (None, ..) => "not measured".to_owned(),
    };
    let judged = goal.map_or_else(String::new, |(goal, _)| {
        format!(", goal {goal} {}", if is_missed { "missed" } else { "reached" })
    });
    let or_nothing = |value: Option<f64>| value.unwrap_or(f64::NAN);
    Bar {
        what: row.what,
        unit: row.unit,
        median: or_nothing(row.median),
        spread: (or_nothing(row.least), or_nothing(row.most)),
        goal: goal.map(|(_, value)| value),
        is_missed,
        value: value + &judged,
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{Report, Row};
    use super::*;

    #[test]
    fn a_report_becomes_bars() {
        let rows = vec![
            Row::new("diskwire, time", "s", vec![2.0, 1.0, 4.0]),
            Row::new("scp, time ratio", "", vec![3.0]).with_goal(Target::AtLeast(4.0)),
            Row::new("nothing", "s", Vec::new()),
        ];
        let report = Report { bench: "file", conditions: vec!["a line".into()], rows, quick: true };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file.json");
        fs::write(&file, report.json().to_string()).unwrap();
        let bars = chart(&file).unwrap();
        assert_eq!(bars.title, "diskwire bench file: a quick look, not to be quoted");
        let values: Vec<_> = bars.bars.iter().map(|bar| bar.value.as_str()).collect();
        assert_eq!(values, ["2.000  (1.000 to 4.000)", "3.000, goal ≥ 4 missed", "not measured"]);
        assert_eq!((bars.bars[0].spread, bars.bars[1].goal), ((1.0, 4.0), Some(4.0)));
        assert_eq!([0, 1].map(|row| bars.bars[row].is_missed), [false, true]);
    }

    #[test]
    fn the_goals_of_multipath_become_bars_too() {
        let text = r#"{"version":1,"quick":false,"notices":[],"figures":[{"goal":1,"what":"a","unit":"ns",
            "target":{"at-most":150.0},"judged":"median","median":120.0,"least":110.0,"most":200.0,"runs":[],"met":true}]}"#;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m.json");
        fs::write(&file, text).unwrap();
        let bars = chart(&file).unwrap();
        assert_eq!(bars.title, "diskwire bench multipath");
        assert_eq!(bars.bars[0].value, "120  (110 to 200), goal ≤ 150 reached");
    }

    #[test]
    fn what_is_no_report_is_told_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("odd.json");
        for text in ["", "{}", "[1]", "{\"rows\":[{\"what\":1}]}", "\u{0}"] {
            fs::write(&file, text).unwrap();
            let error = chart(&file).unwrap_err().to_string();
            assert!(error.contains("odd.json is no report"), "{text}: {error}");
        }
        assert!(chart(&folder.path().join("none")).unwrap_err().to_string().contains("No such file"));
    }
}
