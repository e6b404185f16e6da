//! `diskwire ctl` against a real iSCSI target over two portals: what it shows is what `iscsi-inq` and its sisters show, and
//! its exit codes say what became of a command.
//!
//! Built with the feature `iscsi`. Skipped where `tgtd`, root or the programs of `libiscsi-bin` are missing;
//! `DISKWIRE_NO_SKIP=1` makes that a failure.

#![cfg(feature = "iscsi")]
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

#[path = "../../storage-mapping/tests/support/programs.rs"]
mod programs;
mod support;
#[path = "../../storage-mapping/tests/support/tgt.rs"]
mod tgt;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use programs::find;
use serde_json::Value;
use support::{Done, LIMIT, Running, skip};
use system_tests::relay::Relay;
use system_tests::relay::command::{Command as RelayCommand, Direction, Endpoint, Ways};
use tempfile::TempDir;
use tgt::{Tgtd, address};

const DONE: i32 = 0;
const REFUSED: i32 = 1;
const USAGE: i32 = 2;
const IN_DOUBT: i32 = 4;

struct Stage {
    target: Tgtd,
    folder: TempDir,
}

impl Stage {
    fn start() -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let target = Tgtd::start(&Tgtd::image(folder.path(), "disk.img", 1 << 20))?;
        Ok(Self { target, folder })
    }

    /// Both addresses of the unit.
    fn both(&self) -> String {
        format!("{},{}", self.target.address(0), self.target.address(1))
    }

    /// The same of another host.
    fn of_host(&self, host: &str) -> String {
        let one = |portal| format!("{}?initiator=iqn.2026-11.diskwire:{host}", self.target.address(portal));
        format!("{},{}", one(0), one(1))
    }

    fn ctl(&self, arguments: &str) -> Done {
        ctl(self.folder.path(), arguments)
    }

    fn json(&self, arguments: &str, code: i32) -> Value {
        json(&self.ctl(&format!("{arguments} --json")), code)
    }

    /// The keys that are registered, as another host sees them.
    fn keys(&self) -> Vec<String> {
        let list = self.json(&format!("pr keys {}", self.of_host("watch")), DONE);
        let fields = list["answer"][0]["fields"].as_object().unwrap();
        fields.iter().filter(|(name, _)| name.starts_with("key_")).map(|(_, key)| text(key)).collect()
    }
}

fn ctl(folder: &Path, arguments: &str) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diskwire"));
    command.current_dir(folder).env_remove("DISKWIRE_CONFIG").env_remove("RUST_LOG");
    command.arg("ctl").args(arguments.split_whitespace());
    Running::start(command).wait(LIMIT)
}

#[track_caller]
fn json(done: &Done, code: i32) -> Value {
    assert_eq!(done.code(), Some(code), "{done:#?}");
    serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:#?}"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

macro_rules! stage_or_skip {
    ($test:expr) => {
        match Stage::start() {
            Ok(stage) => stage,
            Err(reason) => return skip($test, &reason),
        }
    };
}

/// What another program says, line by line, where there is one.
fn said(program: &str, arguments: &[&str]) -> Result<Vec<String>, String> {
    let mut command = Command::new(find(program)?);
    command.args(arguments);
    let done = Running::start(command).wait(LIMIT).expect(0);
    Ok(String::from_utf8_lossy(&done.stdout).lines().map(str::to_owned).collect())
}

/// Lines of the form `name:value`.
fn pairs(lines: &[String]) -> BTreeMap<&str, &str> {
    lines.iter().filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim())).collect()
}

#[test]
fn inquiry_agrees_with_iscsi_inq_field_by_field() {
    let test = "inquiry_agrees_with_iscsi_inq_field_by_field";
    let stage = stage_or_skip!(test);
    let lines = match said("iscsi-inq", &[&stage.target.address(0)]) {
        Ok(lines) => lines,
        Err(reason) => return skip(test, &reason),
    };
    let theirs = pairs(&lines);
    let whole = stage.json(&format!("inquiry {}", stage.both()), DONE);
    let ours = &whole["answer"][0]["fields"];
    let field = |name: &str| text(&ours[name]);
    let abilities = field("abilities");
    let mut compared = 0;
    for (name, value) in &theirs {
        let (own, expected) = match *name {
            "Vendor" => (field("vendor"), (*value).to_owned()),
            "Product" => (field("product"), (*value).to_owned()),
            "Revision" => (field("revision"), (*value).to_owned()),
            "Peripheral Qualifier" => (field("qualifier"), format!("0: {}", value.to_lowercase())),
            "Peripheral Device Type" => {
                assert_eq!(*value, "DIRECT_ACCESS");
                (field("device_type"), "00h disk".to_owned())
            }
            "Version" => {
                let (number, rest) = value.split_once(' ').unwrap();
                let standard = rest.rsplit_once('(').unwrap().1.trim_end_matches(')');
                (field("version"), format!("{:02x}h {standard}", number.parse::<u8>().unwrap()))
            }
            "TPGS" => {
                let words = [
                    "no access states",
                    "the target changes access states",
                    "commands change access states",
                    "the target and commands change access states",
                ];
                (field("port_groups"), words[value.parse::<usize>().unwrap()].to_owned())
            }
            "MultiP" => (field("several_ports"), yes(value)),
            "CmdQue" => (field("queues_commands"), yes(value)),
            "Removable" => (has(&abilities, "removable medium"), yes(value)),
            "NormACA" => (has(&abilities, "ACA"), yes(value)),
            "HiSup" => (has(&abilities, "hierarchical unit numbers"), yes(value)),
            "SCCS" => (has(&abilities, "array controller"), yes(value)),
            "3PC" => (has(&abilities, "third-party copy"), yes(value)),
            "Protect" => (has(&abilities, "protection information"), yes(value)),
            "EncServ" => (has(&abilities, "enclosure services"), yes(value)),
            // Bits that later standards took back, and descriptors, which come below.
            "ACC" | "SYNC" | "ReponseDataFormat" | "Version Descriptor" => continue,
            other => panic!("{other} is compared with nothing"),
        };
        assert_eq!(own, expected, "{name}");
        compared += 1;
    }
    let of_versions = lines.iter().filter_map(|line| line.strip_prefix("Version Descriptor:"));
    let versions: Vec<&str> = of_versions.filter_map(|line| line.split(' ').next()).collect();
    let own = field("version_descriptors");
    assert_eq!(own.split(' ').filter(|one| *one != "0000").collect::<Vec<_>>(), versions);
    println!("{compared} fields and {} version descriptors agree", versions.len());
    assert!(compared >= 16);
}

fn yes(bit: &str) -> String {
    if bit == "0" { "no".to_owned() } else { "yes".to_owned() }
}

fn has(abilities: &str, name: &str) -> String {
    if abilities.split(", ").any(|one| one == name) { "yes".to_owned() } else { "no".to_owned() }
}

fn vpd(stage: &Stage, page: &str) -> Value {
    let mut whole = stage.json(&format!("vpd {} --page {page}", stage.both()), DONE);
    assert_eq!(whole["outcome"]["conclusions"].as_array().unwrap().len(), 1);
    whole["answer"][0].take()
}

#[test]
fn pages_agree_with_iscsi_inq_field_by_field() {
    let test = "pages_agree_with_iscsi_inq_field_by_field";
    let stage = stage_or_skip!(test);
    let url = stage.target.address(0);
    let theirs = |page: &str| said("iscsi-inq", &["-e", "1", "-c", page, &url]);
    let lines = match theirs("0") {
        Ok(lines) => lines,
        Err(reason) => return skip(test, &reason),
    };
    // 00h: the pages that there are.
    let codes: Vec<String> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("Page:0x"))
        .map(|line| format!("{}h", &line[..2]))
        .collect();
    let page = vpd(&stage, "00");
    let own: Vec<&String> = page["fields"].as_object().unwrap().keys().collect();
    assert!(codes.len() > 3 && own.iter().copied().eq(&codes), "{own:?}, {codes:?}");

    // 80h: the serial number, which they show with its blanks.
    let lines = theirs("128").unwrap();
    let serial = lines[0].split_once('[').unwrap().1.trim_end_matches(']').trim();
    assert_eq!(text(&vpd(&stage, "sn")["fields"]["serial_number"]).trim(), serial);
    assert!(!serial.is_empty());

    // 83h: the designators, which they show from last to first. Of binary ones they print bytes up to the first zero.
    let lines = theirs("131").unwrap();
    let page = vpd(&stage, "di");
    let parts = page["parts"].as_array().unwrap();
    let values = |name: &str| -> Vec<&str> {
        lines.iter().rev().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':')).collect()
    };
    let (kinds, names, designators) =
        (values("Designator Type"), values("Association"), values("Designator"));
    assert!(parts.len() == kinds.len() && parts.len() >= 2, "{page}, {lines:#?}");
    for (place, part) in parts.iter().enumerate() {
        let (kind, value) = (text(&part["fields"]["type"]), text(&part["fields"]["value"]));
        let word = |shown: &str| shown.split_once(") ").unwrap().1.replace('_', " ").to_lowercase();
        assert_eq!(text(&part["title"]), word(names[place]));
        let shown = designators[place].trim_start_matches('[').trim_end_matches(']');
        match kind.as_str() {
            "NAA" => {
                assert_eq!(word(kinds[place]), "naa");
                let digits: String = shown.bytes().map(|byte| format!("{byte:02x}")).collect();
                assert!(!digits.is_empty() && value.starts_with(&digits), "{value}, {shown:?}");
            }
            "T10 vendor" => {
                assert!(word(kinds[place]).starts_with("t10 vendor"), "{}", kinds[place]);
                let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
                assert_eq!(squeezed(&value), squeezed(shown));
            }
            other => panic!("{other} is compared with nothing"),
        }
    }

    // B0h: block limits; 0 is shown as what it means.
    let lines = theirs("176").unwrap();
    let limits = pairs(&lines);
    let page = vpd(&stage, "bl");
    for (name, theirs) in [
        ("transfer_max", "maximum transfer length"),
        ("transfer_optimal", "optimal transfer length"),
        ("transfer_granularity", "optimal transfer length granularity"),
        ("compare_and_write_max", "maximum compare and write length"),
        ("prefetch_max", "maximum prefetch xdread xdwrite transfer length"),
        ("unmap_max", "maximum unmap lba count"),
        ("unmap_granularity", "optimal unmap granularity"),
        ("write_same_max", "maximum write same length"),
    ] {
        let expected = match limits[theirs] {
            "0" => "not told".to_owned(),
            blocks => format!("{blocks} blocks"),
        };
        assert_eq!(text(&page["fields"][name]), expected, "{name}");
    }
    println!("pages 00, 80, 83 ({} designators) and b0 agree", parts.len());
}

#[test]
fn capacity_and_units_agree_with_libiscsi() {
    let test = "capacity_and_units_agree_with_libiscsi";
    let stage = stage_or_skip!(test);
    let url = stage.target.address(0);
    let portal = format!("iscsi://127.0.0.1:{}", stage.target.ports()[0]);
    let (lines, units) = match (said("iscsi-readcapacity16", &[&url]), said("iscsi-ls", &["-s", &portal])) {
        (Ok(lines), Ok(units)) => (lines, units),
        (Err(reason), _) | (_, Err(reason)) => return skip(test, &reason),
    };
    let theirs = pairs(&lines);
    let whole = stage.json(&format!("capacity {}", stage.both()), DONE);
    let field = |name: &str| text(&whole["answer"][0]["fields"][name]);
    let last: u64 = theirs["RETURNED LOGICAL BLOCK ADDRESS"].parse().unwrap();
    assert_eq!(field("blocks"), (last + 1).to_string());
    assert_eq!(field("block_bytes"), theirs["LOGICAL BLOCK LENGTH IN BYTES"]);
    assert!(field("size").contains(&format!("({} bytes)", theirs["Total size"])), "{}", field("size"));
    assert_eq!(field("lowest_aligned_block"), theirs["LOWEST ALIGNED LOGICAL BLOCK ADDRESS"]);

    let numbers = |line: &String| Some(line.strip_prefix("Lun:")?.split_whitespace().next()?.to_owned());
    let theirs: Vec<String> = units.iter().filter_map(numbers).collect();
    let whole = stage.json(&format!("luns {}", stage.both()), DONE);
    let mut own: Vec<String> = whole["answer"][0]["fields"].as_object().unwrap().values().map(text).collect();
    own.sort_unstable();
    assert!(theirs.len() == 2 && own == theirs, "{own:?}, {theirs:?}");
}

#[test]
fn people_read_the_answer_and_on_request_the_decision() {
    let stage = stage_or_skip!("people_read_the_answer_and_on_request_the_decision");
    let plain = stage.ctl(&format!("inquiry {}", stage.both())).expect(DONE);
    let shown = String::from_utf8(plain.stdout).unwrap();
    assert!(shown.contains("VIRTUAL-DISK") && !shown.contains("taken"), "{shown}");
    let explained = stage.ctl(&format!("vpd {} -p di --path 1 --explain", stage.both())).expect(DONE);
    let shown = String::from_utf8(explained.stdout).unwrap();
    println!("{shown}");
    for part in
        ["path 1 was taken", "not path 0: it ends at another target port", "outcome over path 1: executed"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(shown.lines().all(|line| line.chars().count() <= 80 || line.contains("iscsi://")), "{shown}");
}

#[test]
fn reservations_are_made_over_every_path_and_read_back() {
    let stage = stage_or_skip!("reservations_are_made_over_every_path_and_read_back");
    let both = stage.both();
    // A session of one command ends with what it set: that is said before anything is sent.
    let done = stage.ctl(&format!("pr register-ignore {both} --key 0xabc"));
    assert!(done.stderr.contains("--ephemeral"), "{done:#?}");
    done.expect(USAGE);
    stage.ctl(&format!("pr register-ignore {both} --ephemeral")).expect_line(USAGE, "--key");
    assert_eq!(stage.keys(), Vec::<String>::new());

    let whole = stage.json(&format!("pr register-ignore {both} --key 0xabc --ephemeral"), DONE);
    let conclusions = whole["outcome"]["conclusions"].as_array().unwrap();
    let certain: Vec<String> = conclusions.iter().map(|one| text(&one["certainty"])).collect();
    assert_eq!(certain, ["executed", "executed"]);
    let keys = stage.keys();
    println!("keys after the end of the session that registered them: {keys:?}");
    assert!(keys.iter().all(|key| key == "0x0000000000000abc"), "{keys:?}");

    // Without a registration a reservation conflicts.
    let whole = stage.json(&format!("pr reserve {} --key 1 --ephemeral", stage.of_host("b")), REFUSED);
    assert_eq!(whole["outcome"]["conclusions"][0]["certainty"], "refused");
    assert_eq!(whole["outcome"]["conclusions"][0]["reply"]["status"], 0x18);
    let whole = stage.json(&format!("pr reservation {both}"), DONE);
    assert_eq!(text(&whole["answer"][0]["title"]), "Reservation: none");
    let whole = stage.json(&format!("pr capabilities {both}"), DONE);
    assert!(text(&whole["answer"][0]["fields"]["types"]).contains("registrants only"), "{whole}");
    // This target has no READ FULL STATUS, and that is its word.
    let done = stage.ctl(&format!("pr status {both}")).expect(REFUSED);
    let shown = String::from_utf8(done.stdout).unwrap();
    assert!(shown.contains("CHECK CONDITION") && shown.contains("refused"), "{shown}");
}

#[test]
fn raw_commands_stay_where_they_must_and_a_dry_run_sends_nothing() {
    let stage = stage_or_skip!("raw_commands_stay_where_they_must_and_a_dry_run_sends_nothing");
    let both = stage.both();
    // Of the vendor: nobody knows what it does, so that it goes over no path but one that was meant.
    let vendor = "c0 00 00 00 00 00";
    for arguments in ["", "--path 1", "--any", "--exact"] {
        let done = stage.ctl(&format!("raw {both} {vendor} {arguments}"));
        assert!(done.stderr.contains("--exact"), "{arguments}: {done:#?}");
        done.expect(USAGE);
    }
    let done = stage.json(&format!("raw {both} {vendor} --path 1 --exact --ephemeral"), REFUSED);
    assert_eq!(done["outcome"]["decision"]["chosen"], 1);
    assert_eq!(done["outcome"]["conclusions"][0]["reply"]["status"], 2);
    let shown = stage.ctl(&format!("raw {both} 12 00 00 00 60 00 --in 96")).expect(DONE);
    assert!(String::from_utf8(shown.stdout).unwrap().contains("IET"));
    let bytes = stage.ctl(&format!("raw {both} 12 00 00 00 24 00 --in 36 --binary")).expect(DONE);
    assert_eq!((bytes.stdout.len(), &bytes.stdout[8..11]), (36, &b"IET"[..]));
    stage.ctl(&format!("raw {both} 12 00 00")).expect_line(USAGE, "3 bytes are no command");
    stage.ctl(&format!("raw {both} xx")).expect(USAGE);

    // A registration that is only thought of.
    for arguments in ["pr register-ignore {} --key 7", "raw {} c0 00 00 00 00 00 --path 0"] {
        let line = arguments.replace("{}", &both);
        let whole = stage.json(&format!("{line} --dry-run"), DONE);
        assert_eq!(whole["outcome"]["conclusions"], Value::Array(Vec::new()));
        assert_eq!(whole["outcome"]["decision"]["attempts"], Value::Array(Vec::new()));
        let done = stage.ctl(&format!("{line} --dry-run")).expect(DONE);
        let shown = String::from_utf8(done.stdout).unwrap();
        assert!(shown.contains("would be taken"), "{shown}");
    }
    assert_eq!(stage.keys(), Vec::<String>::new());
}

/// Both paths through relays that are slow on the way back.
fn slow_paths(stage: &Stage, delay: Duration) -> ([Relay; 2], String) {
    let relays = stage.target.ports().map(|port| {
        let listen = Endpoint::Tcp("127.0.0.1:0".to_owned());
        let mut relay =
            Relay::start(&listen, &Endpoint::Tcp(format!("127.0.0.1:{port}")), 7).expect("a port");
        let (ways, jitter) = (Ways::One(Direction::ToClient), Duration::ZERO);
        relay.command(RelayCommand::Delay { ways, delay, jitter }).unwrap();
        relay
    });
    let listens = |relay: &Relay| match relay.endpoint() {
        Endpoint::Tcp(listens) => address(listens.rsplit(':').next().unwrap().parse().unwrap()),
        Endpoint::Unix(_) => unreachable!("it was given a port"),
    };
    let addresses = format!("{},{}", listens(&relays[0]), listens(&relays[1]));
    (relays, addresses)
}

#[test]
fn what_nobody_knows_is_in_doubt_and_is_not_done_twice() {
    let stage = stage_or_skip!("what_nobody_knows_is_in_doubt_and_is_not_done_twice");
    let (relays, slow) = slow_paths(&stage, Duration::from_millis(300));
    // COMPARE AND WRITE of block 9, from zeros to ones: every path could carry it, and none may do so again.
    let data = [[0; 512], [1; 512]].concat();
    std::fs::write(stage.folder.path().join("data"), data).unwrap();
    let line =
        format!("raw {slow} 89 00 00 00 00 00 00 00 00 09 00 00 00 01 00 00 --out data --deadline 100ms");
    let done = stage.ctl(&line);
    let shown = String::from_utf8_lossy(&done.stdout).into_owned();
    println!("{shown}");
    for part in ["unknown; it may still be executed", "it is not sent again: it must not be executed twice"] {
        assert!(shown.contains(part), "{part}: {done:#?}");
    }
    let sent = shown.lines().filter(|line| line.starts_with("sent over path"));
    assert_eq!(sent.count(), 1, "{shown}");
    done.expect(IN_DOUBT);
    drop(relays);
    let read = stage.ctl(&format!("raw {} 28 00 00 00 00 09 00 00 01 00 --in 512 --binary", stage.both()));
    let read = read.expect(DONE).stdout;
    assert!(read == [1; 512] || read == [0; 512], "{read:?}");
}

#[test]
fn a_target_that_is_not_there_is_no_answer() {
    let stage = stage_or_skip!("a_target_that_is_not_there_is_no_answer");
    let both = stage.both();
    let Stage { target, folder } = stage;
    drop(target);
    let done = ctl(folder.path(), &format!("inquiry {both}")).expect(REFUSED);
    assert!(done.stderr.contains("iscsi://127.0.0.1"), "{done:#?}");
    ctl(folder.path(), "inquiry iscsi://127.0.0.1/").expect(USAGE);
}

#[test]
fn a_dead_portal_is_no_obstacle_to_an_answer_over_the_live_one() {
    let stage = stage_or_skip!("a_dead_portal_is_no_obstacle_to_an_answer_over_the_live_one");
    // Nobody listens there any more.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = address(listener.local_addr().unwrap().port());
    drop(listener);
    let whole = stage.json(&format!("inquiry {dead},{} --path 0", stage.target.address(0)), DONE);
    assert_eq!(text(&whole["answer"][0]["fields"]["vendor"]), "IET");
    let decision = &whole["outcome"]["decision"];
    assert_eq!((&decision["named"], &decision["chosen"]), (&Value::from(0), &Value::from(1)));
}
