//! In a guest with a real kernel and two paths to each disk of a target: what `diskwire ctl` says agrees with the `sg_*`
//! programs, field by field, and `diskwire pr-helper` with `qemu-pr-helper`, byte by byte.
//!
//! The guest is booted once, does all steps, and each test reads the answers of its own. It is asked for with
//! `DISKWIRE_GUEST=1` (or `DISKWIRE_NO_SKIP=1`); asked for, nothing may be missing. Not here: what the ports of the library
//! give (`guest` of the system tests), paths that fail.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use system_tests::guest::target::Target;
use system_tests::guest::tools::{bytes, labelled, lines_of_digits, listed_keys, numbers, shown_reservation};
use system_tests::guest::{Answers, Guest};
use system_tests::real_paths::{find_program, skip};

/// What must be installed.
const PACKAGES: &str = "needed: qemu-system-x86 qemu-system-common qemu-block-extra busybox-static cpio kmod binutils tgt \
                        sg3-utils";
/// Size of each disk.
const DISK_BYTES: u64 = 512 << 20;
/// Programs that are compared with.
const OTHERS: [&str; 9] = [
    "sg_inq",
    "sg_vpd",
    "sg_readcap",
    "sg_turs",
    "sg_persist",
    "sg_luns",
    "sg_modes",
    "sg_raw",
    "qemu-pr-helper",
];
/// One disk for `ctl`, and one for each helper: `qemu-pr-helper`, ours over two paths, ours over one.
const DISKS: usize = 4;
/// The two paths of the first.
const BOTH: &str = "$disk0_0,$disk0_1";
/// How a command is told where to go, and the path that is to answer, where one was named.
const PLACES: [(&str, &str, Option<u64>); 3] =
    [("both", "", None), ("first", "--path 0", Some(0)), ("second", "--path 1", Some(1))];

/// The answers of the guest, once for all tests of this file; `None` where nobody asked for it.
fn answers(test: &str) -> Option<&'static Answers> {
    // A failure is kept, too: no test boots it again.
    static ANSWERS: OnceLock<Option<Result<Answers, String>>> = OnceLock::new();
    let is_asked_for = |name| std::env::var_os(name).is_some_and(|value| value == "1");
    let run = || {
        if !is_asked_for("DISKWIRE_GUEST") && !is_asked_for("DISKWIRE_NO_SKIP") {
            return None;
        }
        let missing = Guest::missing_program().or_else(Target::missing_program);
        Some(missing.map_or_else(boot, |reason| Err(format!("{reason}; {PACKAGES}"))))
    };
    match ANSWERS.get_or_init(run) {
        Some(Ok(answers)) => Some(answers),
        Some(Err(error)) => panic!("{error}"),
        None => {
            skip(test, "it boots a guest: set DISKWIRE_GUEST=1");
            None
        }
    }
}

fn boot() -> Result<Answers, String> {
    let answers = put_together().map_err(|error| error.to_string())?;
    println!("guest: first step after {:?}, end after {:?}", answers.boot, answers.whole);
    Ok(answers)
}

fn put_together() -> std::io::Result<Answers> {
    let scratch = tempfile::tempdir()?;
    let mut guest = Guest::new()?;
    let targets = (0..DISKS).map(|_| Target::start(DISK_BYTES)).collect::<std::io::Result<Vec<Target>>>()?;
    targets.iter().for_each(|target| guest.add_target(target));
    guest.add_program(stripped(Path::new(env!("CARGO_BIN_EXE_diskwire")), scratch.path()));
    guest.add_program(stripped(&pr_client_program(), scratch.path()));
    for program in OTHERS {
        guest.add_program(find_program(program).map_err(std::io::Error::other)?);
    }
    ask(&mut guest);
    reserve(&mut guest);
    ask_without_privilege(&mut guest);
    ask_a_process(&mut guest);
    help(&mut guest);
    guest.run(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest"))
}

/// A program without what is for a debugger: the guest has it in memory.
fn stripped(program: &Path, folder: &Path) -> PathBuf {
    let copy = folder.join(program.file_name().expect("a file"));
    let mut strip = Command::new("strip");
    let status = strip.arg("-o").arg(&copy).arg(program).status().expect(PACKAGES);
    assert!(status.success(), "{strip:?}");
    copy
}

/// The example that speaks to a helper, built beside this test.
fn pr_client_program() -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "diskwire", "--example", "pr_client"]);
    let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo is there");
    assert!(status.success(), "{build:?}");
    Path::new(env!("CARGO_BIN_EXE_diskwire")).with_file_name("examples").join("pr_client")
}

// ---- what is asked ----------------------------------------------------------------------------------

fn ask(guest: &mut Guest) {
    for (place, option, _) in PLACES {
        for (name, words) in [
            ("inquiry", "inquiry"),
            ("vpd 80", "vpd -p 80"),
            ("vpd 83", "vpd -p 83"),
            ("tur", "tur"),
            ("capacity", "capacity"),
            ("luns", "luns"),
            ("mode", "mode"),
        ] {
            let (verb, rest) = words.split_once(' ').unwrap_or((words, ""));
            guest.add_step(
                format!("{name} {place}"),
                format!("diskwire ctl {verb} {BOTH} {rest} {option} --json"),
            );
        }
    }
    guest.add_step("inquiry text", format!("diskwire ctl inquiry {BOTH} --path 1 --explain"));
    for path in 0..2 {
        let mut other = |name: &str, command: &str| {
            guest.add_step(format!("{name} {path}"), command.replace("NODE", &format!("$disk0_{path}")));
        };
        other("sg_inq", "sg_inq NODE");
        other("sg_vpd 80", "sg_vpd --page=0x80 NODE");
        other("sg_vpd 83", "sg_vpd --page=0x83 NODE");
        other("sg_turs", "sg_turs NODE");
        other("sg_readcap", "sg_readcap --16 NODE");
        other("sg_luns", "sg_luns --quiet NODE");
        other("sg_modes", "sg_modes --dbd --page=0x3f --maxlen=8192 --raw NODE | xxd -p -c 256");
        for (name, bytes, cdb) in RAW {
            other(
                &format!("sg_raw {name}"),
                &format!("sg_raw --binary --request={bytes} NODE {cdb} 2>&- | xxd -p -c 256"),
            );
            other(
                &format!("raw {name}"),
                &format!("diskwire ctl raw {BOTH} {cdb} --in {bytes} --path {path} --binary | xxd -p -c 256"),
            );
        }
        other("sg_raw refused", &format!("sg_raw --request=64 NODE {REFUSED}"));
        other(
            "raw refused",
            &format!("diskwire ctl raw {BOTH} {REFUSED} --in 64 --path {path} --exact --json"),
        );
    }
    guest.add_step("raw of a vendor", format!("diskwire ctl raw {BOTH} c0 00 00 00 00 00"));
}

/// Commands that are sent as bytes: name, most that they bring, bytes.
const RAW: [(&str, u32, &str); 4] = [
    ("inquiry", 96, "12 00 00 00 60 00"),
    ("identification", 252, "12 01 83 00 fc 00"),
    ("mode", 192, "5a 00 3f 00 00 00 00 00 c0 00"),
    ("keys", 512, "5e 00 00 00 00 00 00 02 00 00"),
];
/// PERSISTENT RESERVE IN with a service action that there is not.
const REFUSED: &str = "5e 1f 00 00 00 00 00 00 40 00";

/// Each line is another process, and so another time that the nodes are opened.
fn reserve(guest: &mut Guest) {
    let ctl = |guest: &mut Guest, name: &str, words: &str| {
        let (action, rest) = words.split_once(' ').unwrap_or((words, ""));
        guest.add_step(format!("pr {name}"), format!("diskwire ctl pr {action} {BOTH} {rest} --json"));
    };
    look(guest, "empty");
    ctl(guest, "register", "register --key 0xabc");
    look(guest, "registered");
    ctl(guest, "reserve", "reserve --path 0 --key 0xabc");
    look(guest, "reserved");
    ctl(guest, "wrong key", "release --path 1 --key 0xabd");
    look(guest, "wrong key");
    ctl(guest, "wrong nexus", "release --path 1 --key 0xabc");
    look(guest, "wrong nexus");
    ctl(guest, "release", "release --key 0xabc");
    look(guest, "released");
    ctl(guest, "reserve all", "reserve");
    ctl(guest, "release all", "release");
    ctl(guest, "preempt", "preempt --path 1 --key 0xabd --victim 0xabc");
    look(guest, "preempted");
    ctl(guest, "unregister", "register --key 0");
    look(guest, "unregistered");
}

/// What ours and theirs say of the reservations.
fn look(guest: &mut Guest, moment: &str) {
    let mut step = |name: &str, shell: &str| guest.add_step(format!("{moment}: {name}"), shell);
    step("keys", &format!("diskwire ctl pr keys {BOTH} --json"));
    step("reservation", &format!("diskwire ctl pr reservation {BOTH} --path 1 --json"));
    step("sg keys", "sg_persist --in --read-keys $disk0_1");
    step("sg reservation", "sg_persist --in --read-reservation $disk0_0");
}

fn ask_without_privilege(guest: &mut Guest) {
    let nobody = |words: &str| format!("chmod 666 $disk0_0 $disk0_1; su -s /bin/sh nobody -c \"{words}\"");
    guest.add_step("nobody inquiry", nobody(&format!("diskwire ctl inquiry {BOTH} --json")));
    guest.add_step("nobody register", nobody(&format!("diskwire ctl pr register {BOTH} --key 0xc00")));
    guest.add_step(
        "nobody registers one",
        nobody(&format!("diskwire ctl pr register {BOTH} --key 0xc00 --path 1 --exact --json")),
    );
    guest.add_step(
        "nobody generic",
        "chmod 666 $generic0_0; su -s /bin/sh nobody -c \"sg_persist --in --read-keys $generic0_0\"",
    );
    guest.add_step("nobody keys", "sg_persist --in --read-keys $disk0_1");
}

/// A process of the host has the paths, and knows over which one what was done.
fn ask_a_process(guest: &mut Guest) {
    let begin = "diskwire lab create /tmp/world --master $disk0_0 --paths 2 && \
        sed -i \"s|, .block:$disk0_0.]|, 'block:$disk0_1']|\" /tmp/world/beta.toml && \
        grep paths /tmp/world/beta.toml; \
        diskwire -c /tmp/world/beta.toml serve > /tmp/serve.log 2>&1 & await 'grep -q serves /tmp/serve.log'";
    guest.add_step("process begin", begin);
    for (name, words) in [
        ("register", "register disk0 --key 0xabc"),
        ("reserve", "reserve disk0/0 --key 0xabc"),
        ("release", "release disk0/1 --key 0xabc"),
    ] {
        guest.add_step(
            format!("process {name}"),
            format!("diskwire -c /tmp/world/beta.toml ctl pr {words} --json"),
        );
        look(guest, &format!("process {name}"));
    }
    guest.add_step(
        "process end",
        "diskwire -c /tmp/world/beta.toml ctl pr register disk0 --key 0; cat /tmp/serve.log",
    );
    look(guest, "process end");
}

/// The same commands to each helper, over a disk of its own that nobody has used.
fn help(guest: &mut Guest) {
    let steps = HELPER_STEPS.join(" ");
    let mut helper = |name: &str, disk: usize, command: &str| {
        let command =
            command.replace("DISK", &format!("$disk{disk}")).replace("SOCKET", &format!("/tmp/{name}"));
        let serve = format!("{command} > /tmp/{name}.log 2>&1 & await '[ -S /tmp/{name} ]'");
        let client = format!("pr_client /tmp/{name} $disk{disk}_0 {steps}");
        guest.add_step(format!("helper {name}"), format!("{serve}; {client}"));
        guest.add_step(format!("log {name}"), format!("cat /tmp/{name}.log"));
    };
    helper("theirs", 1, "qemu-pr-helper -k SOCKET");
    helper("ours", 2, "diskwire pr-helper --socket SOCKET --disk DISK_0=DISK_0,DISK_1");
    helper("one", 3, "diskwire pr-helper --socket SOCKET --disk DISK_0=DISK_0");
}

/// What each helper is asked for, see the example `pr_client`.
const HELPER_STEPS: [&str; 24] = [
    "in:0:2000",
    "out:0:0:0:aaa",
    "in:0:2000",
    "in:0:8",
    "in:0:0",
    "out:1:5:aaa:0",
    "in:1:2000",
    "in:2:2000",
    "in:3:2000",
    "out:1:5:bad:0",
    "out:2:5:aaa:0",
    "in:1:2000",
    "out:1f:0:aaa:0",
    "in:1f:2000",
    "ro-out:0:0:aaa:bbb",
    "ro-in:0:2000",
    "out:0:0:aaa:0",
    "in:0:2000",
    "out:2:5:aaa:0",
    "in:0:2001",
    "in:0:2000",
    "raw:120000002400",
    "raw:5f0000000000000000",
    "in:0:2000",
];

// ---- reading what came ------------------------------------------------------------------------------

/// What one command of ours said, as JSON.
fn json(answers: &Answers, step: &str) -> Value {
    let answer = answers.of(step);
    let line = answer.text.lines().find(|line| line.starts_with('{'));
    let line = line.unwrap_or_else(|| panic!("{step}: {}", answer.text));
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{step}: {error}: {line}"))
}

/// The data of a command that ended well over the path that was named, as the program shows it: fields by name.
fn fields(answers: &Answers, step: &str, path: Option<u64>) -> BTreeMap<String, String> {
    let whole = json(answers, step);
    check_path(&whole, path, step);
    let fields = whole["answer"][0]["fields"].as_object().unwrap_or_else(|| panic!("{step}: {whole}"));
    fields.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// The same as bytes.
fn data(answers: &Answers, step: &str) -> Vec<u8> {
    let whole = json(answers, step);
    bytes(
        whole["outcome"]["conclusions"][0]["reply"]["data"]
            .as_str()
            .unwrap_or_else(|| panic!("{step}: {whole}")),
    )
}

fn check_path(whole: &Value, path: Option<u64>, step: &str) {
    let conclusion = &whole["outcome"]["conclusions"][0];
    assert_eq!(conclusion["certainty"], "executed", "{step}: {whole}");
    if path.is_some() {
        assert_eq!(conclusion["path"].as_u64(), path, "{step}: {whole}");
    }
}

/// What `sg_*` said over the path, the first where none was named.
fn theirs<'a>(answers: &'a Answers, program: &str, path: Option<u64>) -> &'a str {
    let answer = answers.of(&format!("{program} {}", path.unwrap_or(0)));
    assert_eq!(answer.status, Some(0), "{program}: {}", answer.text);
    &answer.text
}

#[test]
fn inquiry_agrees_with_sg_inq() {
    let Some(answers) = answers("inquiry_agrees_with_sg_inq") else { return };
    for (place, _, path) in PLACES {
        let ours = fields(answers, &format!("inquiry {place}"), path);
        let text = theirs(answers, "sg_inq", path);
        let numbers = numbers(text);
        assert_eq!(ours["vendor"], labelled(text, "Vendor identification:"));
        assert_eq!(ours["product"], labelled(text, "Product identification:"));
        assert_eq!(ours["revision"], labelled(text, "Product revision level:"));
        let (_, kind) = text.split_once("Peripheral device type:").expect("a type");
        let kind = kind.lines().next().map(str::trim).expect("a line");
        assert_eq!(ours["device_type"], format!("{:02x}h {kind}", numbers["PDT"]));
        assert_eq!(ours["qualifier"], format!("{}: connected", numbers["PQual"]));
        let (_, name) = text.split_once("version=0x05  [").expect("tgt says version 05h");
        let name = name.split(']').next().expect("a name");
        assert_eq!(ours["version"], format!("05h {name}"));
        let yes = |name: &str| if numbers[name] == 1 { "yes" } else { "no" };
        assert_eq!(
            (ours["queues_commands"].as_str(), ours["several_ports"].as_str()),
            (yes("CmdQue"), yes("MultiP"))
        );
        assert_eq!((ours["port_groups"].as_str(), numbers["TPGS"]), ("no access states", 0));
        let hierarchical = ours["abilities"].contains("hierarchical unit numbers");
        assert_eq!(hierarchical, numbers["HiSUP"] == 1, "{ours:?}");
    }
    let text = &answers.of("inquiry text").text;
    assert!(
        text.contains("path 1 was named, mode prefer: path 1 was taken")
            && text.contains("vendor               IET"),
        "{text}"
    );
}

#[test]
fn serial_number_and_designators_agree_with_sg_vpd() {
    let Some(answers) = answers("serial_number_and_designators_agree_with_sg_vpd") else { return };
    for (place, _, path) in PLACES {
        let serial = fields(answers, &format!("vpd 80 {place}"), path)["serial_number"].clone();
        assert_eq!(serial.trim(), labelled(theirs(answers, "sg_vpd 80", path), "Unit serial number:"));

        let whole = json(answers, &format!("vpd 83 {place}"));
        check_path(&whole, path, place);
        let text = theirs(answers, "sg_vpd 83", path);
        let parts = whole["answer"][0]["parts"].as_array().expect("designators").clone();
        let of = |kind: &str| -> Vec<String> {
            let is_it = |part: &&Value| part["fields"]["type"] == kind;
            let value = |part: &Value| part["fields"]["value"].as_str().unwrap_or_default().to_owned();
            parts.iter().filter(is_it).map(value).collect()
        };
        let count = text.lines().filter(|line| line.trim().starts_with("designator type:")).count();
        assert_eq!(parts.len(), count, "{text}");
        let named: Vec<&str> = lines_of_digits(text).collect();
        assert_eq!(of("NAA"), named);
        assert!(!named.is_empty());
        let t10 = format!("{} {}", labelled(text, "vendor id:"), labelled(text, "vendor specific:"));
        assert_eq!(of("T10 vendor"), [t10]);
    }
}

#[test]
fn size_units_readiness_and_mode_pages_agree() {
    let Some(answers) = answers("size_units_readiness_and_mode_pages_agree") else { return };
    for (place, _, path) in PLACES {
        let ours = fields(answers, &format!("capacity {place}"), path);
        let text = theirs(answers, "sg_readcap", path);
        let last: u64 = labelled(text, "Last LBA=")
            .split(' ')
            .next()
            .and_then(|last| last.parse().ok())
            .expect("a number");
        assert_eq!(ours["blocks"], (last + 1).to_string());
        assert_eq!(format!("{} bytes", ours["block_bytes"]), labelled(text, "Logical block length="));
        let size = labelled(text, "Device size:").split(' ').next().expect("a number");
        assert!(ours["size"].ends_with(&format!("({size} bytes)")), "{ours:?}");
        let physical = format!("[so physical block length={} bytes]", ours["physical_block_bytes"]);
        assert!(text.contains(&physical), "{physical}: {text}");
        assert_eq!(ours["lowest_aligned_block"], labelled(text, "Lowest aligned LBA="));
        let numbers = numbers(text);
        assert_eq!((ours["protection"].as_str(), numbers["prot_en"]), ("none", 0));
        assert_eq!((ours["thin"].as_str(), numbers["lbpme"]), ("no", 0));

        let luns: Vec<String> = fields(answers, &format!("luns {place}"), path).into_keys().collect();
        let listed: Vec<&str> =
            theirs(answers, "sg_luns", path).lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        assert_eq!(luns, listed);

        check_path(&json(answers, &format!("tur {place}")), path, place);
        theirs(answers, "sg_turs", path);

        let mode = data(answers, &format!("mode {place}"));
        let raw = bytes(theirs(answers, "sg_modes", path));
        assert!(raw.len() > 8 && mode.starts_with(&raw), "{mode:02x?} and {raw:02x?}");
    }
}

#[test]
fn raw_commands_bring_the_bytes_of_sg_raw() {
    let Some(answers) = answers("raw_commands_bring_the_bytes_of_sg_raw") else { return };
    for path in 0..2 {
        for (name, _, _) in RAW {
            let ours = bytes(&answers.of(&format!("raw {name} {path}")).text);
            let raw = bytes(&answers.of(&format!("sg_raw {name} {path}")).text);
            assert!(raw.len() > 8, "{name}: {raw:02x?}");
            assert_eq!(ours, raw, "{name}");
        }
        let whole = json(answers, &format!("raw refused {path}"));
        let reply = &whole["outcome"]["conclusions"][0]["reply"];
        let sense = bytes(reply["sense"].as_str().expect("sense"));
        assert_eq!(
            (reply["status"].as_u64(), sense[2] & 0x0f, sense[12], sense[13]),
            (Some(2), 5, 0x24, 0),
            "{whole}"
        );
        let text = &answers.of(&format!("sg_raw refused {path}")).text;
        assert!(text.contains("Illegal Request") && text.contains("Invalid field in cdb"), "{text}");
    }
    let vendor = answers.of("raw of a vendor");
    assert!(vendor.text.contains("name a path and say --exact"), "{}", vendor.text);
}

/// Generation, keys and reservation, as ours and as `sg_persist` say them, which must be the same.
fn state(answers: &Answers, moment: &str) -> (u64, Vec<u64>, Option<(u64, String)>) {
    let number = |text: &str| {
        let digits = text.rsplit("0x").next().unwrap_or_default();
        u64::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{moment}: {text}"))
    };
    let ours = fields(answers, &format!("{moment}: keys"), None);
    let keys: Vec<u64> =
        ours.iter().filter(|(name, _)| name.starts_with("key_")).map(|(_, key)| number(key)).collect();
    let listed = listed_keys(&answers.of(&format!("{moment}: sg keys")).text);
    assert_eq!((number(&ours["generation"]), keys.clone()), listed, "{moment}");

    let ours = fields(answers, &format!("{moment}: reservation"), Some(1));
    assert_eq!(number(&ours["generation"]), listed.0, "{moment}");
    let kind = |text: &str| text.split_once('(').map(|(_, kind)| kind.trim_end_matches(')').to_owned());
    let reservation =
        ours.get("holder").map(|holder| (number(holder), kind(&ours["type"]).unwrap_or_default()));
    let text = &answers.of(&format!("{moment}: sg reservation")).text;
    assert_eq!(shown_reservation(text), reservation, "{moment}: {text}");
    assert_eq!(numbers(text)["generation"], listed.0, "{moment}");
    (listed.0, keys, reservation)
}

/// How a command of ours ended: exit code, and the certainty of its first conclusion.
fn ended(answers: &Answers, step: &str) -> (Option<i32>, String) {
    let certainty = &json(answers, step)["outcome"]["conclusions"][0]["certainty"];
    (answers.of(step).status, certainty.as_str().unwrap_or_default().to_owned())
}

/// The same of a change of all paths together.
fn result(answers: &Answers, step: &str) -> (Option<i32>, String) {
    let result = &json(answers, step)["reservation"]["result"];
    (answers.of(step).status, result.as_str().unwrap_or_default().to_owned())
}

fn sorted(keys: &[u64]) -> Vec<u64> {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    keys
}

/// Write exclusive for those who registered, as `sg_persist` calls it.
fn held_by(key: u64) -> Option<(u64, String)> {
    Some((key, "write exclusive, registrants only".to_owned()))
}

#[test]
fn reservations_of_one_process_are_there_for_the_next_and_agree_with_sg_persist() {
    let test = "reservations_of_one_process_are_there_for_the_next_and_agree_with_sg_persist";
    let Some(answers) = answers(test) else { return };
    let done = |word: &str| (Some(0), word.to_owned());
    assert_eq!(state(answers, "empty"), (0, vec![], None));

    assert_eq!(result(answers, "pr register"), done("done"));
    let (generation, keys, reservation) = state(answers, "registered");
    assert_eq!((generation, sorted(&keys), reservation), (2, vec![0xabc, 0xabd], None));

    assert_eq!(ended(answers, "pr reserve"), done("executed"));
    assert_eq!(state(answers, "reserved").2, held_by(0xabc));

    // Over the other nexus: GOOD, which is not taken for done. tgt does not look whether the key is that of the nexus.
    for step in ["wrong key", "wrong nexus"] {
        assert_eq!(ended(answers, &format!("pr {step}")), (Some(1), "without effect".to_owned()));
        assert_eq!(state(answers, step), (2, keys.clone(), held_by(0xabc)));
    }
    assert_eq!(ended(answers, "pr release"), done("executed"));
    assert_eq!(state(answers, "released"), (2, keys, None));

    // A process that begins knows no keys, and says so.
    assert_eq!(result(answers, "pr reserve all"), (Some(1), "no path".to_owned()));
    assert_eq!(result(answers, "pr release all"), done("done"));

    assert_eq!(ended(answers, "pr preempt"), done("executed"));
    assert_eq!(state(answers, "preempted"), (3, vec![0xabd], None));
    assert_eq!(result(answers, "pr unregister"), done("done"));
    let (_, keys, reservation) = state(answers, "unregistered");
    assert_eq!((keys, reservation), (vec![], None));
}

#[test]
fn a_release_named_for_the_wrong_nexus_goes_to_the_holder() {
    let Some(answers) = answers("a_release_named_for_the_wrong_nexus_goes_to_the_holder") else { return };
    let begin = &answers.of("process begin").text;
    assert!(begin.contains("paths = [\"block:/dev/") && begin.contains("\", 'block:/dev/"), "{begin}");
    assert_eq!(result(answers, "process register"), (Some(0), "done".to_owned()));
    assert_eq!(sorted(&state(answers, "process register").1), [0xabc, 0xabd]);
    assert_eq!(ended(answers, "process reserve"), (Some(0), "executed".to_owned()));
    assert_eq!(state(answers, "process reserve").2, held_by(0xabc));

    assert_eq!(ended(answers, "process release"), (Some(0), "executed".to_owned()));
    let whole = json(answers, "process release");
    let decision = &whole["outcome"]["decision"];
    assert_eq!((decision["named"].as_u64(), decision["chosen"].as_u64()), (Some(1), Some(0)), "{whole}");
    assert!(
        decision["why_not_named"].as_str().is_some_and(|why| why.contains("holds the reservation")),
        "{whole}"
    );
    assert_eq!(state(answers, "process release").2, None);

    let (_, keys, reservation) = state(answers, "process end");
    assert_eq!((keys, reservation), (vec![], None));
}

#[test]
fn what_the_kernel_does_not_let_through_says_what_it_needs() {
    let Some(answers) = answers("what_the_kernel_does_not_let_through_says_what_it_needs") else { return };
    fields(answers, "nobody inquiry", None);
    let register = answers.of("nobody register");
    assert_eq!(register.status, Some(1), "{}", register.text);
    assert!(register.text.starts_with("no path"), "{}", register.text);
    assert_eq!(register.text.matches("CAP_SYS_RAWIO").count(), 1, "{}", register.text);

    assert_eq!(ended(answers, "nobody registers one"), (Some(1), "not executed".to_owned()));
    let whole = json(answers, "nobody registers one");
    let remedy = whole["outcome"]["decision"]["remedy"].as_str();
    assert!(remedy.is_some_and(|remedy| remedy.contains("CAP_SYS_RAWIO")), "{whole}");

    // The node of `sg` lets the same program ask.
    for step in ["nobody generic", "nobody keys"] {
        assert!(listed_keys(&answers.of(step).text).1.is_empty(), "{step}");
    }
}

/// What a helper answered, step by step: the lines of `pr_client` by name.
fn helped(answers: &Answers, name: &str) -> Vec<BTreeMap<String, String>> {
    let answer = answers.of(&format!("helper {name}"));
    assert_eq!(answer.status, Some(0), "{}", answer.text);
    let mut steps: Vec<BTreeMap<String, String>> = Vec::new();
    for line in answer.text.lines() {
        let Some((field, value)) = line.split_once(':') else { panic!("{name}: {line}") };
        if field == "step" {
            steps.push(BTreeMap::new());
        }
        if let Some(step) = steps.last_mut() {
            step.insert(field.to_owned(), value.trim().to_owned());
        }
    }
    assert_eq!(steps.len(), HELPER_STEPS.len(), "{name}");
    steps
}

#[test]
fn the_helper_agrees_with_qemu_pr_helper_byte_by_byte() {
    let Some(answers) = answers("the_helper_agrees_with_qemu_pr_helper_byte_by_byte") else { return };
    let theirs = helped(answers, "theirs");
    for (ours, theirs) in helped(answers, "one").iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    // Two registrations, reservation and release, a request that is none: they were not all the same answer.
    let of = |field: &str, value: &str| {
        theirs.iter().filter(|step| step.get(field).is_some_and(|it| it == value)).count()
    };
    assert_eq!((of("status", "18"), of("error", "unexpected end of file")), (1, 2), "{theirs:?}");
    assert!(of("status", "2") >= 5 && of("status", "0") >= 10, "{theirs:?}");

    // Over two paths there are two registrations: each counts, and READ KEYS lists the key twice.
    for (ours, theirs) in helped(answers, "ours").iter().zip(&theirs) {
        let but_data = |step: &BTreeMap<String, String>| {
            let but_data = step.iter().filter(|(field, _)| *field != "data");
            but_data.map(|(field, value)| (field.clone(), value.clone())).collect::<Vec<_>>()
        };
        assert_eq!(but_data(ours), but_data(theirs));
        let (Some(ours), Some(data)) = (ours.get("data"), theirs.get("data")) else { continue };
        let (ours, data) = (bytes(ours), bytes(data));
        let command = &theirs["step"];
        let expected = match command.as_str() {
            // Service actions 0 and 1 begin with a generation.
            _ if data.is_empty() || command.starts_with("in:2") => data,
            _ => twice(data, command.contains("in:0")),
        };
        assert_eq!(ours, expected, "{command}");
    }
}

/// The same answer with each registration made twice: the generation, and the list of keys where it is one.
fn twice(mut data: Vec<u8>, lists_keys: bool) -> Vec<u8> {
    data[3] *= 2;
    let listed = usize::from(data[7]);
    if lists_keys {
        data[7] *= 2;
        if data.len() > 8 {
            data.copy_within(8..8 + listed, 8 + listed);
        }
    }
    data
}
