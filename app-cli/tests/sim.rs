//! `diskwire sim` as its user sees it: a summary, one run with its trace, one object for programs.

use std::process::{Command, Output};

fn sim(line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diskwire"));
    command.arg("sim").args(line.split_whitespace()).output().expect("the program runs")
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[test]
fn a_summary_says_what_was_run_and_that_nothing_broke() {
    let shown = text(&sim("--seeds 12 --from 30"));
    assert!(shown.starts_with("seeds       30 to 41: 12 in "), "{shown}");
    assert!(shown.ends_with("failures    0\n"), "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    for word in ["simulated", "deliveries", "faults", "process killed", "recovery", "hash"] {
        assert!(shown.contains(word), "{word} is missing in {shown}");
    }
}

#[test]
fn the_same_seeds_give_the_same_hash_however_many_run_at_once() {
    let hash = |line| {
        let object: serde_json::Value = serde_json::from_str(&text(&sim(line))).expect("one object");
        assert_eq!(object["seeds"], 8);
        assert_eq!(object["failures"], serde_json::json!([]));
        (object["hash"].clone(), object["faults"].clone(), object["bytes"].clone())
    };
    assert_eq!(hash("--seeds 8 --json --threads 1"), hash("--seeds 8 --json --threads 3"));
}

#[test]
fn a_trace_has_a_line_for_each_event_and_ends_with_the_verdict() {
    let shown = text(&sim("--seed 7 --trace"));
    assert!(shown.contains("host0.1") && shown.contains("has started"), "{shown}");
    let verdict = text(&sim("--seed 7"));
    assert!(verdict.contains("every promise kept"), "{verdict}");
    assert!(shown.ends_with(&verdict));
    let object: serde_json::Value = serde_json::from_str(&text(&sim("--seed 7 --json"))).expect("one object");
    assert!(verdict.contains(object["hash"].as_str().expect("a hash")));
}

#[test]
fn mistakes_are_usage_errors() {
    for line in ["--trace", "--seeds 0", "--seed 3 --seeds 5", "--seed x"] {
        assert_eq!(sim(line).status.code(), Some(2), "{line}");
    }
}
