//! Hosts on one machine whose volume is a unit of a real iSCSI target, each over two portals.
//!
//! Needs tgtd and root; `DISKWIRE_NO_SKIP=1` makes a skip a failure. Not here: the sessions (crate `storage-mapping`).

#![cfg(feature = "iscsi")]
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

#[path = "../../storage-mapping/tests/support/programs.rs"]
mod programs;
mod support;
#[path = "../../storage-mapping/tests/support/tgt.rs"]
mod tgt;

use serde_json::Value;
use support::{LIMIT, Lab, Running, hash_of, skip, write_random};
use tgt::Tgtd;

/// A lab whose one device is the unit, over both portals.
fn lab(target: &Tgtd) -> Lab {
    let lab = Lab::with("--size 64MiB --secondaries 0 --lanes 2");
    let made = "\"file:disks/master.img\"";
    let portals = format!("\"{}\", \"{}\"", target.address(0), target.address(1));
    for file in ["VOLUME", "alpha", "beta"] {
        lab.reconfigure(file, made, &portals);
    }
    let mut create = lab.program();
    create.args(["volume", "create"]).arg(lab.path("VOLUME.toml"));
    let created = Running::start(create).wait(LIMIT).expect(0);
    let of_volume: toml::Table = String::from_utf8(created.stdout).unwrap().parse().unwrap();
    for host in ["alpha", "beta"] {
        let text = std::fs::read_to_string(lab.path(format!("{host}.toml"))).unwrap();
        let config: toml::Table = text.parse().unwrap();
        for key in ["id", "admin_key"] {
            let text = |table: &toml::Table| table["volume"][key].as_str().unwrap().to_owned();
            lab.reconfigure(host, &text(&config), &text(&of_volume));
        }
    }
    lab
}

#[test]
fn processes_of_one_machine_share_a_unit_over_two_portals_without_a_word_about_sessions() {
    let test = "processes_of_one_machine_share_a_unit_over_two_portals_without_a_word_about_sessions";
    let folder = tempfile::tempdir().unwrap();
    let target = match Tgtd::start(&Tgtd::image(folder.path(), "unit", 64 << 20)) {
        Ok(target) => target,
        Err(reason) => return skip(test, &reason),
    };
    let lab = lab(&target);
    let (serve, other) = (lab.serve("beta"), lab.serve("alpha"));
    write_random(&lab.scratch("f"), 1, 4 << 20);
    write_random(&lab.scratch("g"), 2, 4 << 20);
    // Four processes: of one host `serve` and two commands, which are at work at once.
    let copies = ["f", "g"].map(|file| lab.start("alpha", &format!("cp -q {file} beta:inbox/{file}")));
    for copy in copies {
        copy.wait(LIMIT).expect(0);
    }
    for file in ["f", "g"] {
        assert_eq!(hash_of(&lab.inbox("beta", file)), hash_of(&lab.scratch(file)));
    }
    let shown = lab.run("beta", "path list --json").expect(0);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let paths = shown["lanes"][0]["devices"][0]["paths"].as_array().unwrap();
    assert_eq!(paths.len(), 2, "{shown}");
    for path in paths {
        assert_eq!(path["state"], "active", "{shown}");
        assert!(path["requests"].as_u64().unwrap() > 0, "{shown}");
    }
    lab.assert_volume_sound("alpha");
    // A second `serve` of a host takes no session of the first one.
    let second = lab.run("beta", "serve");
    assert!(second.stderr.contains("served already"), "{second:?}");
    lab.run("alpha", "ls beta:inbox/").expect(0);
    drop((serve, other));
}
