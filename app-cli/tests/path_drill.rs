//! `diskwire path plan` and `drill` against real processes, and all of `path` against a lab.
//!
//! Not here: what a drill does inside a device (`multipath/tests/drills.rs`), the other commands of `path` (`path.rs`).

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;

use std::fs;

use serde_json::Value;
use support::{Done, LIMIT, Lab, Running};

/// Two paths to every device; a hang is found out after half a second.
fn lab() -> Lab {
    let lab = Lab::with("--size 64MiB --paths 2");
    let paths = "paths = [\"file:disks/master.img\", \"file:disks/master.img\"]";
    lab.reconfigure("beta", paths, &format!("{paths}\nattempt_timeout = \"500ms\""));
    lab
}

fn stdout(done: &Done) -> String {
    String::from_utf8(done.stdout.clone()).unwrap()
}

/// A command against the lab as a whole.
fn of_lab(lab: &Lab, line: &str) -> Done {
    let mut command = lab.program();
    command.args(line.split_whitespace()).arg("--lab").arg(lab.path(""));
    Running::start(command).wait(LIMIT)
}

fn assert_fits(text: &str) {
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn a_plan_is_made_of_the_configuration_or_of_what_runs() {
    let lab = lab();
    let plan = stdout(&lab.run("beta", "path plan").expect(0));
    assert_fits(&plan);
    assert!(plan.starts_with("no process runs: from ") && plan.contains("beta.toml\n"), "{plan}");
    assert!(plan.contains("\ndisk0: 2 paths, a path takes 10ms at most (assumed)\n"), "{plan}");
    assert!(plan.contains("  hang                   530ms  attempt_timeout 500ms + "), "{plan}");
    let json = |done: Done| serde_json::from_str::<Value>(&stdout(&done.expect(0))).unwrap();
    let plan = json(lab.run("beta", "path plan disk1 --service-time 20ms --json"));
    let origin = &plan["origins"][0];
    assert_eq!((&origin["from"], &origin["plans"][0]["device"]), (&"configuration".into(), &"disk1".into()));
    let sum = |prediction: &Value| {
        let terms = prediction["terms"].as_array().unwrap();
        terms.iter().map(|term| term["time"].as_f64().unwrap()).sum::<f64>()
    };
    for prediction in origin["plans"][0]["predictions"].as_array().unwrap() {
        assert!((sum(prediction) - prediction["worst"].as_f64().unwrap()).abs() < 1e-6, "{prediction}");
    }
    lab.run("beta", "path plan disk9").expect_line(1, "there is no device `disk9`; the devices are disk0");
    lab.run("beta", "path plan --service-time fast").expect_line(2, "is not a number with a unit");

    let serve = lab.serve("beta");
    let plan = stdout(&lab.run("beta", "path plan disk0").expect(0));
    assert!(plan.starts_with("serve (lane 0, process "), "{plan}");
    assert!(plan.contains("(measured)\n") && !plan.contains("disk1"), "{plan}");
    assert_fits(&plan);
    lab.run("beta", "path plan disk9").expect_line(1, "there is no device `disk9`; the devices are disk0");
    // Of a lab, each host as far as it goes.
    let plan = json(of_lab(&lab, "path plan disk0 --json"));
    let origins: Vec<_> = plan["origins"].as_array().unwrap().iter().collect();
    assert_eq!(origins.len(), 2);
    assert_eq!((&origins[0]["host"], &origins[0]["from"]), (&"beta".into(), &"process".into()));
    assert_eq!((&origins[1]["host"], &origins[1]["from"]), (&"alpha".into(), &"configuration".into()));
    drop(serve);
}

#[test]
fn a_drill_is_measured_drawn_and_judged() {
    let lab = lab();
    let serve = lab.serve("beta");
    let svg = lab.scratch("drill.svg");
    // The bound is far away: this machine has other work, and what a bound is good for is tested where time is a number.
    let line = format!(
        "path drill disk0/1 --fault hang --for 1500ms --load --service-time 20s --svg {}",
        svg.display()
    );
    let done = lab.run("beta", &line).expect_line(0, "drill of disk0/1 in serve (lane 0, process ");
    let shown = stdout(&done);
    assert_fits(&shown);
    assert!(shown.contains("As predicted: all requests that met the fault were done"), "{shown}");
    assert!(shown.contains(" s: path 1 is failed: it gave no answer in time"), "{shown}");
    assert!(shown.contains(" s: path 1 is active: "), "{shown}");
    let chart = fs::read_to_string(&svg).unwrap();
    for part in
        ["<svg ", "Drill of disk0/1 of serve", ">hang of path 1<", ">failed<", "predicted worst", "</svg>"]
    {
        assert!(chart.contains(part), "{part}: {chart}");
    }
    let line = "path drill disk0/0 --fault error --for 300ms --load --service-time 20s --json";
    let json: Value = serde_json::from_str(&stdout(&lab.run("beta", line).expect(0))).unwrap();
    let drill = &json["drill"];
    assert_eq!(
        (&drill["fault"], &drill["failed"], &drill["stage"]),
        (&"error".into(), &0.into(), &"over".into())
    );
    assert!(drill["requests"]["count"].as_u64().unwrap() > 0, "{drill}");
    let samples = drill["samples"].as_array().unwrap();
    assert_eq!(samples.len() as u64, drill["all"].as_u64().unwrap());
    assert!(samples.iter().any(|sample| sample["met_fault"] == true), "{drill}");
    // What no process can keep is not called kept.
    let line = "path drill disk0/1 --fault hang --for 1500ms --load --service-time 0";
    let done = lab.run("beta", line);
    let shown = stdout(&done);
    assert_eq!(done.code().unwrap() != 0, shown.contains("Not as predicted"), "{shown}");
    drop(serve);
}

#[test]
fn a_drill_that_cannot_be_is_one_line() {
    let lab = lab();
    lab.run("beta", "path drill disk0/1 --fault hang").expect_line(1, "no process of host beta is running");
    let serve = lab.serve("beta");
    for (line, code, part) in [
        ("path drill disk0 --fault hang", 2, "name one path of disk0, as in disk0/0"),
        ("path drill disk0/2 --fault hang", 1, "device disk0 has no path 2: its paths are 0 to 1"),
        ("path drill disk9/0 --fault hang", 1, "there is no device `disk9`"),
        ("path drill disk0/1 --fault fire", 2, "invalid value 'fire'"),
        ("path drill disk0/1 --fault hang --for 2h", 2, "a drill lasts from 1ms to 50min"),
        ("path drill disk0/1 --fault hang --lane 3", 1, "no process has lane 3"),
        (
            "path drill disk0/1 --fault hang --svg no/such/folder.svg",
            1,
            "cannot write the chart no/such/folder.svg",
        ),
    ] {
        lab.run("beta", line).expect_line(code, part);
    }
    // Nothing but what a device that nobody uses does by itself.
    let done = lab.run("beta", "path drill disk2/1 --fault error --for 100ms").expect(1);
    assert!(stdout(&done).contains("Nothing was measured: no request met the fault."), "{done:?}");
    lab.run("beta", "path fail disk0/0").expect(0);
    lab.run("beta", "path drill disk0/1 --fault hang").expect_line(1, "a drill needs two");
    lab.run("beta", "path drill disk0/0 --fault hang")
        .expect_line(1, "this path is not in use; wait until it is");
    fs::remove_file(lab.path("LAB")).unwrap();
    let done = lab.run("beta", "path drill disk0/1 --fault hang").expect_line(2, "host beta is in no lab");
    assert!(done.stderr.contains("say --yes if that is meant"), "{done:?}");
    of_lab(&lab, "path list").expect_line(2, "is no lab: it has no file LAB");
    lab.run("beta", "path reinstate disk0/0").expect(0);
    lab.run("beta", "path drill disk0/1 --fault error --for 100ms --load --yes --service-time 20s").expect(0);
    drop(serve);
}

#[test]
fn all_hosts_of_a_lab_answer_at_once() {
    let lab = lab();
    of_lab(&lab, "path list").expect_line(1, "no process of host alpha, beta is running");
    let beta = lab.serve("beta");
    let done = of_lab(&lab, "path list").expect_line(0, "diskwire: alpha: no process is running");
    assert!(stdout(&done).starts_with("beta: serve (lane 0, process "), "{done:?}");
    let alpha = lab.serve("alpha");
    let list = stdout(&of_lab(&lab, "path list").expect(0));
    assert!(
        list.contains("alpha: serve (lane 0, process ") && list.contains("\nbeta: serve (lane 0, "),
        "{list}"
    );
    assert_fits(&list);
    let json: Value = serde_json::from_str(&stdout(&of_lab(&lab, "path list --json").expect(0))).unwrap();
    assert_eq!((&json["lanes"][0]["host"], &json["lanes"][1]["host"]), (&"alpha".into(), &"beta".into()));
    let text = stdout(&of_lab(&lab, "path stat --prometheus").expect(0));
    assert!(
        text.contains("{host=\"alpha\",lane=\"0\",") && text.contains("{host=\"beta\",lane=\"0\","),
        "{text}"
    );
    for line in
        ["path fail disk0/1", "path why disk0/1", "path show disk0/1", "path stat", "path policy disk0"]
    {
        let shown = stdout(&of_lab(&lab, line).expect(0));
        assert!(shown.contains("alpha: serve") && shown.contains("beta: serve"), "{line}: {shown}");
    }
    let watch = stdout(&of_lab(&lab, "path watch --count 1").expect(0));
    assert!(
        watch.contains("alpha, lane 0 disk0/1 is disabled") && watch.contains("beta, lane 0 disk0/1 is"),
        "{watch}"
    );
    of_lab(&lab, "path drill disk0/1 --fault hang")
        .expect_line(2, "several processes have disk0 open (alpha: serve");
    drop((alpha, beta));
}

#[test]
fn a_wider_screen_shows_more_of_addresses() {
    let lab = lab();
    let long = "file:disks/secondary1.img?latency=1us&jitter=1us&rate=1GiB";
    let faulty = format!("paths = [\"{long}&seed=1\", \"{long}&seed=2\"]");
    lab.reconfigure(
        "beta",
        "paths = [\"file:disks/secondary1.img\", \"file:disks/secondary1.img\"]",
        &faulty,
    );
    let serve = lab.serve("beta");
    let list = |columns: &str| {
        let mut command = lab.command("beta");
        command.args(["path", "list"]).env("COLUMNS", columns);
        stdout(&Running::start(command).wait(LIMIT).expect(0))
    };
    let narrow = list("80");
    assert_fits(&narrow);
    let end = |text: &str, seed: &str| text.lines().filter(|line| line.ends_with(seed)).count();
    assert_eq!((end(&narrow, "seed=1"), end(&narrow, "seed=2")), (1, 1), "{narrow}");
    let wide = list("140");
    assert!(wide.contains(&format!("{long}&seed=1\n")), "{wide}");
    drop(serve);
}
