//! In a guest with a real kernel and two adapters: what the ports of the library give over SG_IO, `/dev/sgN` and the NVMe
//! ioctls agrees with `sg_inq`, `sg_vpd`, `sg_readcap` and `sg_persist`, field by field, and reservations belong to a nexus.
//!
//! The guest is booted once, does all steps, and each test reads the answers of its own. It is asked for with
//! `DISKWIRE_GUEST=1` (or `DISKWIRE_NO_SKIP=1`), since emulation takes half a minute; asked for, nothing may be missing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use storage_mapping::scsi::inquiry::{InquiryData, InquiryFlags};
use storage_mapping::scsi::reservations::{KeyList, ReservationReport};
use storage_mapping::scsi::sense::Sense;
use storage_mapping::scsi::vpd::{DesignatorValue, Page, Vpd};
use system_tests::guest::target::Target;
use system_tests::guest::tools::{bytes, labelled, listed_keys, numbers, shown_reservation};
use system_tests::guest::{Answers, Guest};
use system_tests::real_paths::{find_program, skip};

/// What must be installed.
const PACKAGES: &str = "needed: qemu-system-x86 qemu-block-extra busybox-static cpio kmod tgt sg3-utils";
/// Size of each disk.
const DISK_BYTES: u64 = 64 << 20;
/// Programs that are compared with.
const OTHERS: [&str; 5] = ["sg_inq", "sg_vpd", "sg_readcap", "sg_turs", "sg_persist"];
/// Paths: a disk of the emulator, and that of a target over each adapter; by block node and by the node of `sg`.
const PATHS: [&str; 5] = ["disk0_0", "generic0_1", "disk1_0", "disk1_1", "generic1_1"];

/// INQUIRY for 36 bytes, with which `sg_inq` begins: the disk of the emulator announces what it was asked for.
const INQUIRY_36: &str = "raw:120000002400:24";

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
    let target = Target::start(DISK_BYTES)?;
    let mut guest = Guest::new()?;
    guest.add_disk(DISK_BYTES)?;
    guest.add_target(&target);
    guest.add_nvme(DISK_BYTES)?;
    guest.add_program(commands_program());
    for program in OTHERS {
        guest.add_program(find_program(program).map_err(std::io::Error::other)?);
    }
    ask_every_path(&mut guest);
    reserve(&mut guest);
    ask_nvme(&mut guest);
    ask_without_privilege(&mut guest);
    guest.run(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest"))
}

/// The example of `storage-mapping` that sends commands, built beside this test.
fn commands_program() -> PathBuf {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "storage-mapping", "--example", "control_port_commands"]);
    let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo is there");
    assert!(status.success(), "{build:?}");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in the target folder");
    target.join("debug/examples/control_port_commands")
}

fn ask_every_path(guest: &mut Guest) {
    for path in PATHS {
        let ours = format!(
            "control_port_commands ${path} {INQUIRY_36} inquiry vpd:0 vpd:80 vpd:83 tur capacity keys reservation"
        );
        guest.add_step(format!("ours {path}"), ours);
        let mut other = |name: &str, command: &str| {
            guest.add_step(format!("{name} {path}"), command.replace("NODE", path))
        };
        other("sg_inq", "sg_inq $NODE");
        other("sg_inq raw", "sg_inq --raw $NODE | xxd -p -c 256");
        other("sg_vpd 80", "sg_vpd --page=0x80 $NODE");
        other("sg_vpd 83", "sg_vpd --page=0x83 $NODE");
        for page in ["00", "80", "83"] {
            other(
                &format!("sg_vpd raw {page}"),
                &format!("sg_vpd --page=0x{page} --raw $NODE | xxd -p -c 256"),
            );
        }
        other("sg_turs", "sg_turs $NODE");
        other("sg_readcap", "sg_readcap --16 $NODE");
        other("sg_persist keys", "sg_persist --in --read-keys $NODE");
    }
    guest.add_step("block address", "control_port_commands block:$disk1_0 tur");
}

/// Two nexuses to one disk, by turns of ours and of `sg_persist`.
fn reserve(guest: &mut Guest) {
    let mut step = |name: &str, shell: &str| guest.add_step(format!("reserve {name}"), shell);
    let (first, second) = ("control_port_commands $disk1_0", "control_port_commands $disk1_1");
    step("a", &format!("{first} register:0:aa0; {second} register:0:aa1; {first} reserve:aa0:5"));
    step("a ours", &format!("{second} keys reservation"));
    step("a keys", "sg_persist --in --read-keys $disk1_0");
    step("a reservation", "sg_persist --in --read-reservation $generic1_1");
    step("registered writes", &format!("{second} write:5:77"));
    step("wrong release", &format!("{second} release:aa1:5 reservation"));
    step("unregister", &format!("{second} register:aa1:0"));
    step("stranger writes", &format!("{second} write:5:78"));
    step("stranger releases", &format!("{second} release:0:5"));
    step("holder writes", &format!("{first} write:5:79"));
    // Theirs registers, ours pre-empts, theirs sees it.
    step("sg registers", "sg_persist --out --register --param-sark=0xbb1 $disk1_1");
    step("ours sees", &format!("{first} keys"));
    step("preempt", "control_port_commands $generic1_1 preempt:bb1:aa0:6");
    step("attention", &format!("{first} tur tur tur"));
    step("preempt keys", "sg_persist --in --read-keys $generic1_0");
    step("preempt reservation", "sg_persist --in --read-reservation $disk1_0");
    step("preempt ours", &format!("{second} keys reservation"));
    step("pre-empted writes", &format!("{first} write:5:7a"));
    step("clear", &format!("{second} clear:bb1 keys reservation"));
}

fn ask_nvme(guest: &mut Guest) {
    for number in 0..2 {
        let ours = "control_port_commands";
        guest.add_step(
            format!("controller {number}"),
            format!("{ours} $controller{number} identify:1:0 resv-report:1"),
        );
        guest.add_step(
            format!("namespace {number}"),
            format!("{ours} $namespace{number} identify:0:1 identify:1:0 resv-report:1"),
        );
        let facts = format!(
            "cd /sys/class/nvme/$(basename $controller{number}); cat cntlid; cat serial; cat model; cat firmware_rev; \
             blockdev --getsize64 $namespace{number}"
        );
        guest.add_step(format!("nvme facts {number}"), facts);
    }
    guest.add_step("nvme address", "control_port_commands block:$namespace1 identify:1:0");
}

fn ask_without_privilege(guest: &mut Guest) {
    let command = "chmod 666 $disk1_0; su -s /bin/sh nobody -c \"control_port_commands $disk1_0 inquiry register:0:c00\"";
    guest.add_step("nobody", command);
    guest.add_step("nobody keys", "sg_persist --in --read-keys $disk1_1");
}

/// What one command of ours said, by the names of its lines.
type Lines = BTreeMap<String, String>;

/// The commands of a step, in order.
fn commands(answers: &Answers, step: &str) -> Vec<Lines> {
    let answer = answers.of(step);
    assert_eq!(answer.status, Some(0), "{step}: {}", answer.text);
    let mut found: Vec<Lines> = Vec::new();
    for line in answer.text.lines() {
        let Some((name, value)) = line.split_once(':') else { panic!("{step}: {line}") };
        if name == "step" {
            found.push(Lines::new());
        }
        if let Some(command) = found.last_mut() {
            command.insert(name.to_owned(), value.trim().to_owned());
        }
    }
    found
}

fn command(answers: &Answers, step: &str, name: &str) -> Lines {
    let found = commands(answers, step).into_iter().find(|lines| lines["step"] == name);
    found.unwrap_or_else(|| panic!("{step}: no {name}"))
}

/// The data of a command that ended well.
fn data(answers: &Answers, step: &str, name: &str) -> Vec<u8> {
    let lines = command(answers, step, name);
    assert_eq!((lines["effect"].as_str(), lines["copy"].as_str()), ("Full", "Dead"), "{step} {name}");
    assert!(matches!(lines["status"].as_str(), "00" | "0/00"), "{step} {name}: {lines:?}");
    bytes(&lines["data"])
}

/// The sense of a command, as key, code and qualifier.
fn sense(lines: &Lines) -> (u8, u8, u8) {
    Sense::parse(&bytes(&lines["sense"])).expect("sense data").triple()
}

#[test]
fn inquiry_agrees_with_sg_inq() {
    let Some(answers) = answers("inquiry_agrees_with_sg_inq") else { return };
    for path in PATHS {
        let ours = data(answers, &format!("ours {path}"), "inquiry");
        let raw = bytes(&answers.of(&format!("sg_inq raw {path}")).text);
        let short = data(answers, &format!("ours {path}"), INQUIRY_36);
        assert_eq!((short.len(), &short[..]), (36, &raw[..36]), "{path}");
        assert!(ours[36..].starts_with(&raw[36..]), "{path}: {ours:02x?} and {raw:02x?}");

        let inquiry = InquiryData::parse(&ours).expect("a reply");
        let text = &answers.of(&format!("sg_inq {path}")).text;
        let theirs = numbers(text);
        let flag = |flag| u64::from(inquiry.flags.contains(flag));
        let fields = [
            ("PQual", u64::from(inquiry.peripheral.qualifier)),
            ("PDT", u64::from(inquiry.peripheral.device_type)),
            ("RMB", flag(InquiryFlags::REMOVABLE)),
            ("LU_CONG", flag(InquiryFlags::CONGLOMERATE)),
            ("version", u64::from(inquiry.version)),
            ("NormACA", flag(InquiryFlags::NORMAL_ACA)),
            ("HiSUP", flag(InquiryFlags::HIERARCHICAL)),
            ("Resp_data_format", u64::from(inquiry.response_format)),
            ("SCCS", flag(InquiryFlags::ARRAY_CONTROLLER)),
            ("TPGS", inquiry.port_groups as u64),
            ("3PC", flag(InquiryFlags::THIRD_PARTY_COPY)),
            ("Protect", flag(InquiryFlags::PROTECT)),
            ("EncServ", flag(InquiryFlags::ENCLOSURE)),
            ("MultiP", flag(InquiryFlags::MULTI_PORT)),
            ("CmdQue", flag(InquiryFlags::COMMAND_QUEUE)),
        ];
        for (name, value) in fields {
            assert_eq!(theirs.get(name), Some(&value), "{path}: {name} in {text}");
        }
        assert_eq!(labelled(text, "Vendor identification:"), inquiry.vendor);
        assert_eq!(labelled(text, "Product identification:"), inquiry.product);
        assert_eq!(labelled(text, "Product revision level:"), inquiry.revision);
    }
}

#[test]
fn pages_agree_with_sg_vpd() {
    let Some(answers) = answers("pages_agree_with_sg_vpd") else { return };
    for path in PATHS {
        let page = |code: &str| {
            let ours = data(
                answers,
                &format!("ours {path}"),
                &format!("vpd:{}", code.trim_start_matches("0").max("0")),
            );
            let raw = bytes(&answers.of(&format!("sg_vpd raw {code} {path}")).text);
            assert!(raw.len() > 4 && ours.starts_with(&raw), "{path}: {ours:02x?} and {raw:02x?}");
            let vpd = Vpd::parse(&ours).expect("a page");
            assert!(vpd.is_whole, "{path}: {vpd:?}");
            vpd.page
        };
        let Page::Supported(codes) = page("00") else { panic!("{path}: not page 00h") };
        assert!(codes.contains(&0x80) && codes.contains(&0x83), "{path}: {codes:02x?}");

        let Page::SerialNumber(serial) = page("80") else { panic!("{path}: not page 80h") };
        let text = &answers.of(&format!("sg_vpd 80 {path}")).text;
        assert_eq!(labelled(text, "Unit serial number:"), serial.trim(), "{path}");

        let Page::Identification(designators) = page("83") else { panic!("{path}: not page 83h") };
        let text = &answers.of(&format!("sg_vpd 83 {path}")).text;
        let types = text.lines().filter(|line| line.trim().starts_with("designator type:")).count();
        assert_eq!(types, designators.len(), "{path}: {text}");
        let names: Vec<_> = text.lines().map(str::trim).filter(|line| line.starts_with("0x")).collect();
        let ours: Vec<_> = designators
            .iter()
            .filter_map(|designator| match designator.value() {
                DesignatorValue::Naa(name) => {
                    Some(name.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}")))
                }
                _ => None,
            })
            .collect();
        assert!(!ours.is_empty());
        assert_eq!(names, ours, "{path}: {text}");
        for designator in &designators {
            if let DesignatorValue::T10 { vendor, id } = designator.value() {
                assert_eq!(labelled(text, "vendor id:"), vendor, "{path}");
                let id = String::from_utf8_lossy(id).trim_matches(['\0', ' ']).to_owned();
                assert_eq!(labelled(text, "vendor specific:"), id, "{path}");
            }
        }
    }
}

#[test]
fn readiness_and_capacity_agree_with_sg_turs_and_sg_readcap() {
    let Some(answers) = answers("readiness_and_capacity_agree_with_sg_turs_and_sg_readcap") else { return };
    for path in PATHS {
        assert_eq!(command(answers, &format!("ours {path}"), "tur")["status"], "00", "{path}");
        assert_eq!(answers.of(&format!("sg_turs {path}")).status, Some(0), "{path}");
        let capacity = data(answers, &format!("ours {path}"), "capacity");
        let number = |range: std::ops::Range<usize>| {
            capacity[range].iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
        };
        let (last, block) = (number(0..8), number(8..12));
        let text = &answers.of(&format!("sg_readcap {path}")).text;
        assert_eq!(labelled(text, "Last LBA=").split(' ').next(), Some(last.to_string().as_str()), "{path}");
        assert_eq!(labelled(text, "Logical block length="), format!("{block} bytes"), "{path}");
        assert_eq!((last + 1) * block, DISK_BYTES, "{path}");
    }
    assert_eq!(command(answers, "block address", "tur")["status"], "00", "block: has a port");
}

#[test]
fn two_nodes_of_a_path_are_one_nexus_and_two_paths_are_two() {
    let Some(answers) = answers("two_nodes_of_a_path_are_one_nexus_and_two_paths_are_two") else { return };
    let nexus = |path: &str| {
        let text = &answers.of(&format!("ours {path}")).text;
        (labelled(text, "initiator:"), labelled(text, "target:"))
    };
    assert_eq!(nexus("disk1_1"), nexus("generic1_1"));
    assert_ne!(nexus("disk1_0").0, nexus("disk1_1").0);
    assert_eq!(nexus("disk0_0").0, nexus("disk1_0").0, "one adapter, two targets");
    assert_ne!(nexus("disk0_0").1, nexus("disk1_0").1);
}

fn keys(answers: &Answers, step: &str) -> (u64, Vec<u64>) {
    let list = KeyList::parse(&data(answers, step, "keys")).expect("a list");
    assert!(list.is_whole);
    (list.generation.into(), list.keys)
}

/// Generation, key of the holder and type, as ours and as `sg_persist` say it.
fn check_reservation(answers: &Answers, ours: &str, theirs: &str, expected: (u64, u64, u8)) {
    let report = ReservationReport::parse(&data(answers, ours, "reservation")).expect("a report");
    let reservation = report.reservation.expect("there is one");
    assert_eq!(
        (u64::from(report.generation), reservation.key, reservation.kind.number()),
        expected,
        "{ours}"
    );
    let text = &answers.of(theirs).text;
    assert_eq!(numbers(text)["generation"], u64::from(report.generation), "{text}");
    assert_eq!(
        shown_reservation(text),
        Some((reservation.key, reservation.kind.name().to_owned())),
        "{text}"
    );
}

fn status(answers: &Answers, step: &str) -> String {
    commands(answers, &format!("reserve {step}")).remove(0)["status"].clone()
}

#[test]
fn reservations_belong_to_a_nexus_and_agree_with_sg_persist() {
    let Some(answers) = answers("reservations_belong_to_a_nexus_and_agree_with_sg_persist") else { return };
    assert_eq!(keys(answers, "ours disk1_0"), (0, vec![]));
    assert_eq!(listed_keys(&answers.of("sg_persist keys disk1_0").text), (0, vec![]));

    assert_eq!(keys(answers, "reserve a ours"), (2, vec![0xaa0, 0xaa1]));
    assert_eq!(listed_keys(&answers.of("reserve a keys").text), (2, vec![0xaa0, 0xaa1]));
    check_reservation(answers, "reserve a ours", "reserve a reservation", (2, 0xaa0, 5));

    assert_eq!(status(answers, "registered writes"), "00");
    // The wrong nexus releases: GOOD, and nothing has changed.
    assert_eq!(status(answers, "wrong release"), "00");
    check_reservation(answers, "reserve wrong release", "reserve a reservation", (2, 0xaa0, 5));

    assert_eq!(status(answers, "unregister"), "00");
    assert_eq!(status(answers, "stranger writes"), "18");
    assert_eq!(status(answers, "stranger releases"), "18");
    assert_eq!(status(answers, "holder writes"), "00");

    assert_eq!(answers.of("reserve sg registers").status, Some(0));
    let (_, mut seen) = keys(answers, "reserve ours sees");
    seen.sort_unstable();
    assert_eq!(seen, [0xaa0, 0xbb1]);

    assert_eq!(status(answers, "preempt"), "00");
    let (generation, left) = keys(answers, "reserve preempt ours");
    assert_eq!(left, [0xbb1]);
    assert_eq!(listed_keys(&answers.of("reserve preempt keys").text), (generation, left));
    check_reservation(answers, "reserve preempt ours", "reserve preempt reservation", (generation, 0xbb1, 6));
    assert_eq!(status(answers, "pre-empted writes"), "18");

    assert_eq!(status(answers, "clear"), "00");
    assert!(keys(answers, "reserve clear").1.is_empty());
    let report = ReservationReport::parse(&data(answers, "reserve clear", "reservation")).expect("a report");
    assert_eq!((report.reservation, report.is_whole), (None, true));
}

#[test]
fn a_unit_attention_comes_through_and_comes_once() {
    let Some(answers) = answers("a_unit_attention_comes_through_and_comes_once") else { return };
    let said = commands(answers, "reserve attention");
    let attentions: Vec<_> = said.iter().filter(|lines| lines["status"] == "02").map(sense).collect();
    // The standard has 05h here, registrations pre-empted; tgt says 03h, reservations pre-empted.
    assert!(matches!(attentions[..], [(6, 0x2a, 0x03 | 0x05)]), "{said:?}");
}

#[test]
fn a_command_that_fails_has_sense_and_no_data() {
    let Some(answers) = answers("a_command_that_fails_has_sense_and_no_data") else { return };
    // The disks of the emulator have no reservations.
    for path in ["disk0_0", "generic0_1"] {
        let keys = command(answers, &format!("ours {path}"), "keys");
        assert_eq!((keys["status"].as_str(), keys["data"].as_str()), ("02", ""), "{path}");
        assert_eq!(sense(&keys), (5, 0x20, 0), "{path}");
        let text = &answers.of(&format!("sg_persist keys {path}")).text;
        assert!(text.contains("Illegal request, Invalid opcode"), "{path}: {text}");
    }
}

#[test]
fn nvme_answers_are_those_of_the_controller_that_was_named() {
    let Some(answers) = answers("nvme_answers_are_those_of_the_controller_that_was_named") else { return };
    for number in 0..2_u8 {
        let facts: Vec<_> = answers.of(&format!("nvme facts {number}")).text.lines().map(str::trim).collect();
        let [id, serial, model, firmware, size] = facts[..] else { panic!("{facts:?}") };
        for step in ["controller", "namespace"] {
            let identity = data(answers, &format!("{step} {number}"), "identify:1:0");
            let text =
                |range: std::ops::Range<usize>| String::from_utf8_lossy(&identity[range]).trim().to_owned();
            // NVMe base specification, Identify Controller: SN, MN, FR, CNTLID.
            assert_eq!(
                [text(4..24), text(24..64), text(64..72)],
                [serial, model, firmware],
                "{step} {number}"
            );
            assert_eq!((identity.len(), identity[78], identity[79]), (4096, number, 0), "{step} {number}");
            assert_eq!(id, number.to_string());
        }
        let namespace = data(answers, &format!("namespace {number}"), "identify:0:1");
        let blocks = namespace[..8].iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
        assert_eq!((blocks * 512).to_string(), size);
        let text = &answers.of(&format!("controller {number}")).text;
        assert!(labelled(text, "target:").ends_with(&format!(":diskwire controller {number}")), "{text}");

        // Over the controller's node it is not sent; the namespace of this emulator has no reservations.
        let refused = command(answers, &format!("controller {number}"), "resv-report:1");
        assert_eq!((refused["effect"].as_str(), refused["copy"].as_str()), ("None", "Dead"));
        assert!(refused["remedy"].contains("/dev/nvme0n1"), "{refused:?}");
        let unknown = command(answers, &format!("namespace {number}"), "resv-report:1");
        assert_eq!((unknown["status"].as_str(), unknown["do not retry"].as_str()), ("0/01", "true"));
    }
    assert_eq!(data(answers, "nvme address", "identify:1:0")[78], 1, "block: has a port");
}

#[test]
fn what_the_kernel_does_not_let_through_was_not_sent_and_says_what_it_needs() {
    let test = "what_the_kernel_does_not_let_through_was_not_sent_and_says_what_it_needs";
    let Some(answers) = answers(test) else { return };
    assert_eq!(command(answers, "nobody", "inquiry")["status"], "00");
    let refused = command(answers, "nobody", "register:0:c00");
    assert_eq!((refused["effect"].as_str(), refused["copy"].as_str()), ("None", "Dead"));
    assert!(refused["remedy"].contains("CAP_SYS_RAWIO"), "{refused:?}");
    assert!(listed_keys(&answers.of("nobody keys").text).1.is_empty());
}
