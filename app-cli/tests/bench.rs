//! `diskwire bench` as a shell sees it: every measurement runs, briefly, and its rows hold together.
//!
//! Not here: how fast anything is, and whether goals are reached: other work of this machine decides that too.

use std::process::{Command, Stdio};

use serde_json::Value;

/// Runs a measurement, quickly; its report.
fn bench(line: &str) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_diskwire"))
        .arg("bench")
        .args(line.split_whitespace())
        .args(["--quick", "--json"])
        .stdin(Stdio::null())
        .output()
        .expect("diskwire starts");
    // A goal that is missed is 1; a command that fails says why.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{line}: {:?}", output.status);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{line}: {:?}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["quick"], true);
    assert_eq!(report["bench"], line.split(' ').next().expect("a word"));
    for row in report["rows"].as_array().expect("rows") {
        let samples: Vec<_> = row["samples"].as_array().expect("samples").iter().map(Value::as_f64).collect();
        assert!(!samples.is_empty(), "{row}");
        assert!(samples.iter().all(|sample| sample.is_some_and(|value| value >= 0.0)), "{row}");
    }
    report
}

/// The median of the row that is called so.
fn median(report: &Value, what: &str) -> f64 {
    let mut rows = report["rows"].as_array().expect("rows").iter();
    let row = rows.find(|row| row["what"] == what).unwrap_or_else(|| panic!("no row {what}: {report:#}"));
    row["median"].as_f64().expect("a number")
}

#[test]
fn ciphers_and_hashes() {
    let report = bench("crypto");
    for suite in ["XAES-256-GCM", "AES-256-GCM", "AES-256-GCM-SIV", "ChaCha20-Poly1305"] {
        for what in ["seal", "open"] {
            assert!(median(&report, &format!("{suite}, {what}")) > 1.0);
        }
    }
    // A page is 4 KiB, and nothing here works at more than 40 GiB/s.
    assert!(median(&report, "keyed BLAKE3, seal of a page") > 0.1);
    assert!(median(&report, "XAES-256-GCM and BLAKE3, one side") > 0.0);
}

#[test]
fn a_sender_and_a_receiver_on_one_volume_beside_the_bare_device() {
    let report = bench("channel --size 16MiB --secondaries 2");
    let (channel, bare) = (median(&report, "channel"), median(&report, "bare device"));
    assert!(channel > 0.0 && bare > 0.0);
    // A ratio is one of a round, so that of the medians is near and not the same.
    assert!(median(&report, "channel / bare") > 0.0);
    assert!(median(&report, "CPU, both hosts") > 0.0);
    // Both hosts have payloads of 1 MiB in hand, and the file is never whole in memory.
    assert!(median(&report, "memory, both") > 8.0);
    // In memory there is no goal, so nothing can be missed.
    assert!(report["rows"].as_array().expect("rows").iter().all(|row| row["met"].is_null()));
}

#[test]
fn an_idle_host_is_counted_in_virtual_and_in_real_time() {
    let report = bench("idle");
    let of = |what: &str| median(&report, what);
    // The less is going on, the less often a host looks.
    assert!(of("first minute") > of("idle, to 10 min"));
    assert!(of("idle, to 10 min") > of("deep idle"));
    // A beacon at least every two minutes.
    assert!(of("deep idle") > 0.008);
    // The bell, every 20 ms: no more often in real time, on any machine.
    assert!((1.0..80.0).contains(&of("warm, real time")));
    assert!(of("warm, CPU") > 0.0);
}

#[test]
fn a_request_is_shown_beside_its_four_ios() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = bench(&format!("latency --folder {}", folder.path().display()));
    assert!(median(&report, "request and answer") > 1.0);
    assert!(median(&report, "its four I/Os") > 1.0);
    assert!(median(&report, "request / four I/Os") > 0.0);
    assert!(median(&report, "first answer, 20 min later") > median(&report, "first answer, 2 min later"));
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0, "files are left behind");
}

#[test]
fn several_connections_and_several_devices() {
    let report = bench("scaling --connections 1,3 --secondaries 1,2 --rate 64MiB --size 16MiB");
    for what in ["1 conn.", "3 conn.", "3 conn. / 1 conn.", "1 dev.", "2 dev. / 1 dev.", "3 conn., memory"] {
        assert!(median(&report, what) > 0.0, "{what}");
    }
    // A throttle lets no more through than it says; the first bytes may be there at once.
    assert!(median(&report, "1 dev., of their rates") < 1.3);
}
