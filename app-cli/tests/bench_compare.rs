//! `diskwire bench` of whole processes, as a shell sees it: what is counted, and that every row is there.
//!
//! Nothing here asks how fast something is. Not here: the ratios (`command::bench::compare::standing`).

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::skip;

/// Burns CPU time, always as much.
const BURN: &str = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";

fn bench(words: &[&str]) -> (Option<i32>, Value, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_diskwire"))
        .arg("bench")
        .args(words)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .expect("diskwire starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {output:?}"));
    (output.status.code(), told, said)
}

fn meter(script: &str) -> Value {
    let (code, told, said) = bench(&["meter", "--", "sh", "-c", script]);
    assert_eq!(code, Some(0), "{said}");
    told
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain([Path::new("/usr/sbin").into()]).any(|dir| dir.join(program).exists())
}

/// The medians of all rows, each of them positive.
fn medians(told: &Value) -> Vec<(String, f64)> {
    let rows = told["rows"].as_array().expect("rows");
    let median = |row: &Value| {
        let text = |field: &str| row[field].as_str().expect("a text");
        let name = format!("{} [{}]", text("what"), text("unit"));
        let median = row["median"].as_f64().unwrap_or_else(|| panic!("{name}: nothing measured"));
        assert!(median > 0.0, "{name}: {median}");
        (name, median)
    };
    rows.iter().map(median).collect()
}

fn median(told: &Value, name: &str) -> f64 {
    let all = medians(told);
    all.iter().find(|(found, _)| found == name).unwrap_or_else(|| panic!("{name} is not in {all:?}")).1
}

fn conditions(told: &Value) -> String {
    told["conditions"].as_array().expect("conditions").iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_cpu_time_of_a_process_that_outlives_its_parent_is_counted() {
    let at_once = meter(BURN);
    let orphan = meter(&format!("({BURN}) & exit 0"));
    let cpu = |told: &Value| told["cpu_seconds"].as_f64().unwrap();
    assert!(cpu(&at_once) > 0.01, "{at_once}");
    // Of the shell alone it would be a hundredth.
    assert!(cpu(&orphan) > cpu(&at_once) / 3.0, "{orphan}, and as a child {at_once}");
    assert!(orphan["seconds"].as_f64() < at_once["seconds"].as_f64(), "the orphan is not waited for here");
}

#[test]
fn a_daemon_ends_with_the_input_of_its_meter_and_its_orphans_are_counted() {
    // The daemon leaves somebody at work when it is told to end, as sshd does.
    let script = format!("trap '({BURN}) & exit 0' TERM; echo ready >&2; while :; do sleep 0.01; done");
    let mut child = Command::new(env!("CARGO_BIN_EXE_diskwire"))
        .args(["bench", "meter", "--daemon", "--", "sh", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(child.stderr.as_mut().unwrap(), &mut ready).unwrap();
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["is_success"], true);
    assert!(
        told["cpu_seconds"].as_f64() > meter(BURN)["cpu_seconds"].as_f64().map(|cpu| cpu / 3.0),
        "{told}"
    );
}

#[test]
fn a_program_that_fails_or_is_not_there_is_told() {
    assert_eq!(meter("exit 3")["is_success"], false);
    let output = Command::new(env!("CARGO_BIN_EXE_diskwire"))
        .args(["bench", "meter", "--", "/no/such/program"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("diskwire: /no/such/program does not work: No such file"), "{said}");
}

#[test]
fn memory_is_that_of_the_largest_process() {
    // A shell has a few MiB, and a variable of 64 MiB beside them.
    let small = meter(":")["memory_bytes"].as_u64().unwrap();
    let script = "x=$(head -c 67108864 /dev/zero | tr '\\0' 'x'); : \"${#x}\"";
    let large = meter(script)["memory_bytes"].as_u64().unwrap();
    assert!(small < 32 << 20 && large >= 64 << 20, "{small} and {large}");
}

#[test]
fn one_file_is_measured() {
    let (code, told, said) = bench(&["file", "--quick", "--size", "9MiB", "--json"]);
    assert_eq!(code, Some(0), "{said}{told}");
    assert_eq!((&told["bench"], &told["quick"]), (&"file".into(), &true.into()));
    let (seconds, rate) = (median(&told, "diskwire, time [s]"), median(&told, "diskwire, rate [MiB/s]"));
    assert!((rate * seconds - 9.0).abs() < 1e-6, "{rate} and {seconds}");
    let (cpu, per_gib) = (median(&told, "diskwire, CPU [CPU s]"), median(&told, "diskwire, CPU [s/GiB]"));
    assert!((cpu * 1024.0 / 9.0 - per_gib).abs() < 1e-6, "{cpu} and {per_gib}");
    for host in ["cp", "serve"] {
        let mib = median(&told, &format!("{host}, peak memory [MiB]"));
        assert!((2.0..4096.0).contains(&mib), "{host}: {mib}");
    }
    assert!(median(&told, "diskwire, context switches [/MiB]") > 0.1);
    assert!(conditions(&told).contains("file systems: source "), "{told}");
}

#[test]
fn one_file_is_measured_beside_what_is_installed() {
    if !["ssh", "ssh-keygen", "sshd", "scp", "rsync", "tar"].into_iter().all(is_there) {
        return skip(
            "one_file_is_measured_beside_what_is_installed",
            "ssh, sshd, scp, rsync or tar is missing",
        );
    }
    let words = ["file", "--quick", "--size", "3MiB", "--compare", "--sync", "--json"];
    let (code, told, said) = bench(&words);
    assert_eq!(code, Some(0), "{said}{told}");
    for name in ["scp", "rsync -W", "rsync -a", "tar | ssh"] {
        let ratio = median(&told, &format!("{name}, time [s]")) / median(&told, "diskwire, time [s]");
        assert!((ratio - median(&told, &format!("{name}, time ratio []"))).abs() < 1e-6, "{name}: {ratio}");
        let synced = median(&told, &format!("{name} + sync, time [s]"));
        assert!(synced >= median(&told, &format!("{name}, time [s]")), "{name}");
        assert!(median(&told, &format!("{name}, CPU [CPU s]")) > 0.005, "{name}");
    }
    assert!(is_there("nbdcopy") || conditions(&told).contains("not measured: nbdcopy"), "{told}");
}

#[test]
fn what_is_not_installed_is_told() {
    let output = Command::new(env!("CARGO_BIN_EXE_diskwire"))
        .args(["bench", "file", "--quick", "--size", "1MiB", "--compare"])
        .env("PATH", "/nowhere")
        .output()
        .unwrap();
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(text.contains("not measured: scp, scp is not installed\n"), "{text}");
    assert!(text.contains("diskwire, time") && text.contains("not to be quoted"), "{text}");
    assert!(!text.contains("scp, time"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn small_files_are_measured() {
    let words = ["small-files", "--quick", "--files", "250", "--bytes", "1000", "--json"];
    let (code, told, said) = bench(&words);
    assert_eq!(code, Some(0), "{said}{told}");
    assert!(median(&told, "diskwire, time [s]") > 0.001);
    // A packed segment carries many files, and a look at the tables is a request too.
    assert!(median(&told, "serve, I/Os [/file]") > 0.01);
    assert!(conditions(&told).contains("250 files of 1000"), "{told}");
}

#[test]
fn small_files_are_measured_beside_what_is_installed() {
    if !["ssh", "ssh-keygen", "sshd", "rsync", "tar"].into_iter().all(is_there) {
        return skip(
            "small_files_are_measured_beside_what_is_installed",
            "ssh, sshd, rsync or tar is missing",
        );
    }
    let (code, told, said) = bench(&["small-files", "--quick", "--files", "110", "--compare", "--json"]);
    assert_eq!(code, Some(0), "{said}{told}");
    for name in ["rsync -a", "tar | ssh"] {
        assert!(median(&told, &format!("{name}, time ratio []")) > 0.01);
    }
}

#[test]
fn a_folder_that_cannot_be_used_is_wrong_usage() {
    let output = Command::new(env!("CARGO_BIN_EXE_diskwire"))
        .args(["bench", "file", "--quick", "--folder", "/no/such folder"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/no/such folder: No such file") && said.contains("--folder"), "{said}");
}

#[test]
fn reports_become_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("one.json");
    let row = r#"{"what":"scp, time","unit":"s","median":2.0,"least":1.0,"most":3.0,"goal":{"at-least":4.0},"met":false}"#;
    std::fs::write(&report, format!(r#"{{"bench":"file","rows":[{row}]}}"#)).unwrap();
    let out = folder.path().join("new/pictures");
    let charts = |report: &Path| {
        Command::new(env!("CARGO_BIN_EXE_diskwire"))
            .args(["bench", "charts", "--out"])
            .args([&out, report])
            .output()
            .unwrap()
    };
    let output = charts(&report);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let picture = std::fs::read_to_string(out.join("one.svg")).unwrap();
    assert!(picture.contains("scp, time") && picture.contains("goal ≥ 4 missed"), "{picture}");
    let output = charts(&folder.path().join("none.json"));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("none.json is no report"));
}
