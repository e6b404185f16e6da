//! `volume create`, `inspect` and `check` as a shell sees them: on a lab's volume, sound and damaged.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use volume::BLOCK_BYTES;
use volume::master_control_block::MasterControlBlock;
use volume::record::Record;

fn command(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_diskwire"));
    command.current_dir(dir).env_remove("DISKWIRE_CONFIG").env_remove("RUST_LOG").stdin(Stdio::null());
    command.args(line.split_whitespace());
    command
}

fn run(dir: &Path, line: &str) -> Output {
    command(dir, line).output().unwrap()
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks until there is an answer.
fn until<R>(mut ask: impl FnMut() -> Option<R>) -> R {
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < limit, "nothing comes");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn json(dir: &Path, line: &str) -> Value {
    serde_json::from_slice(&run(dir, line).stdout).unwrap()
}

/// A small lab in `w` of a scratch folder.
fn lab() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let made = run(dir.path(), "lab create w --size 64MiB --lanes 1 --paths 2");
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    dir
}

/// Changes one byte of a block of the master.
fn damage(dir: &Path, block: u64) {
    let file = File::options().read(true).write(true).open(dir.join("w/disks/master.img")).unwrap();
    let at = block * BLOCK_BYTES as u64 + 130;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

fn region(dir: &Path, number: usize) -> u64 {
    let bytes = fs::read(dir.join("w/disks/master.img")).unwrap();
    MasterControlBlock::parse(&bytes).unwrap().region(number).start
}

#[test]
fn a_new_volume_is_sound_and_shows_every_field_of_the_figures() {
    let dir = lab();
    for config in ["w/VOLUME.toml", "w/alpha.toml"] {
        let check = run(dir.path(), &format!("volume check {config}"));
        assert_eq!((check.status.code(), err(&check)), (Some(0), ""), "{}", out(&check));
        assert!(out(&check).ends_with("\nsound\n") && out(&check).contains("0 of 64 in use"));
        let inspect = run(dir.path(), &format!("-c {config} volume inspect"));
        assert_eq!((inspect.status.code(), err(&inspect)), (Some(0), ""));
        for name in MasterControlBlock::FIELDS.iter().filter(|field| field.name.starts_with("blk5_")) {
            assert!(out(&inspect).contains(name.name), "{}", name.name);
        }
        for name in ["sec_dev_id", "sec_str_seg_ptr", "sec_seg_number_for_device", "sec_start_segment_number"]
        {
            assert_eq!(out(&inspect).matches(name).count(), 3, "{name}");
        }
        assert!(out(&inspect).lines().all(|line| line.chars().count() <= 80));
    }
    let inspect = json(dir.path(), "volume inspect --json w/beta.toml");
    assert_eq!(inspect["sections"][0]["fields"]["blk5_id"], "MAS_EMC");
    assert_eq!(inspect["sections"][1]["parts"][2]["fields"]["sec_start_segment_number"], "25");
    let check = json(dir.path(), "volume check --json w/beta.toml");
    assert_eq!((&check["sound"], &check["slots"]), (&true.into(), &64.into()));
}

#[test]
fn a_damaged_record_is_named_with_its_place() {
    let dir = lab();
    damage(dir.path(), 0);
    let check = run(dir.path(), "volume check w/VOLUME.toml");
    assert_eq!(check.status.code(), Some(1));
    assert!(
        out(&check).contains("damaged  master control block (device 0 block 0): the seal"),
        "{}",
        out(&check)
    );
    assert!(out(&check).ends_with("\n1 record is damaged\n"));
    let inspect = run(dir.path(), "volume inspect w/VOLUME.toml");
    assert_eq!(inspect.status.code(), Some(0));
    assert!(err(&inspect).contains("device 0, block 0: master control block skipped"), "{}", err(&inspect));
    assert!(
        out(&inspect).contains("device 0 block 0  damaged") && out(&inspect).contains("blk5_tot_seg_num")
    );

    for (region_number, block, name) in [
        (0, 1, "secondary device table"),
        (1, 2, "host table row 2"),
        (1, 5, "host table row 1"),
        (2, 1, "beacon of alpha/1"),
        (4, 9, "incarnation record of beta"),
        (4, 10, "in-directory of beta"),
        (5, 7, "process id table entry 3"),
        (6, 126, "pointer table 63"),
    ] {
        let dir = lab();
        let block = region(dir.path(), region_number) + block;
        damage(dir.path(), block);
        let check = json(dir.path(), "volume check --json w/alpha.toml");
        let damaged: Vec<_> = check["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|finding| finding["severity"] == "damaged")
            .map(|finding| (finding["structure"].as_str().unwrap(), finding["block"].as_u64().unwrap()))
            .collect();
        assert_eq!(damaged, [(name, block)], "{check}");
    }
}

#[test]
fn what_is_no_volume_is_one_line() {
    let dir = lab();
    let disks = dir.path().join("w/disks");
    fs::copy(disks.join("secondary1.img"), disks.join("secondary2.img")).unwrap();
    let output = run(dir.path(), "volume check w/alpha.toml");
    assert_eq!((output.status.code(), out(&output)), (Some(1), ""));
    assert!(
        err(&output).contains("device 2 of the configuration is device 1 of the volume"),
        "{}",
        err(&output)
    );
    fs::write(disks.join("secondary2.img"), vec![0; 1 << 20]).unwrap();
    assert!(
        err(&run(dir.path(), "volume check w/alpha.toml")).contains("device 2 carries no Diskwire volume")
    );
    damage(dir.path(), 0);
    damage(dir.path(), 1);
    fs::write(disks.join("secondary1.img"), vec![0; 1 << 20]).unwrap();
    let output = run(dir.path(), "volume inspect w/VOLUME.toml");
    assert!(err(&output).contains("no copy of the master control block verifies"), "{}", err(&output));
    assert_eq!(err(&output).lines().count(), 1);
}

#[test]
fn a_volume_is_not_laid_out_over_something_unless_it_is_forced() {
    let dir = lab();
    let refused = run(dir.path(), "volume create w/VOLUME.toml");
    assert_eq!((refused.status.code(), out(&refused)), (Some(1), ""));
    assert!(err(&refused).contains("master.img is not free: a Diskwire master device"), "{}", err(&refused));
    assert!(err(&refused).contains("--force"));
    let one = run(dir.path(), "volume create w/VOLUME.toml --force w/disks/master.img");
    assert!(err(&one).contains("secondary1.img is not free"), "{}", err(&one));
    let stranger = run(dir.path(), "volume create w/VOLUME.toml --force w/VOLUME.toml");
    assert!(err(&stranger).contains("--force w/VOLUME.toml is no device of"), "{}", err(&stranger));
    assert_eq!(run(dir.path(), "volume check w/alpha.toml").status.code(), Some(0), "nothing was touched");

    let forced = ["master", "secondary1", "secondary2"].map(|name| format!("--force w/disks/{name}.img"));
    let created = run(dir.path(), &format!("volume create w/VOLUME.toml {}", forced.join(" ")));
    assert_eq!(created.status.code(), Some(0), "{created:?}");
    let section: toml::Table = out(&created).parse().unwrap();
    let id = section["volume"]["id"].as_str().unwrap();
    assert!(out(&run(dir.path(), "volume inspect w/VOLUME.toml")).contains(id));
    let old = run(dir.path(), "volume check w/alpha.toml");
    assert!(err(&old).contains(&format!("this is volume {id}, the configuration says")), "{}", err(&old));
}

#[test]
fn a_device_that_is_too_small_says_what_it_needs() {
    let dir = lab();
    let file = dir.path().join("w/disks/secondary1.img");
    fs::write(&file, vec![0; 2 << 20]).unwrap();
    let forced = "--force w/disks/master.img --force w/disks/secondary2.img";
    let output = run(dir.path(), &format!("volume create w/VOLUME.toml {forced}"));
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("device 1 (disk1) has 2097152 bytes and needs"), "{}", err(&output));
}

/// In the middle of a transfer, then with one side killed, then with both.
#[test]
fn a_transfer_can_be_watched() {
    let dir = lab();
    let mut serve =
        Running(command(dir.path(), "-c w/beta.toml serve").stderr(Stdio::piped()).spawn().unwrap());
    let mut said = String::new();
    BufReader::new(serve.0.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("serves"), "{said}");
    let mut cp = command(dir.path(), "-c w/alpha.toml cp - beta:inbox/x");
    let mut cp = Running(cp.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut input = cp.0.stdin.take().unwrap();
    input.write_all(&[1; 100_000]).unwrap();

    let connection = until(|| {
        let connection =
            json(dir.path(), "volume inspect --json w/VOLUME.toml")["sections"][4]["parts"][0].clone();
        (connection["fields"]["state"] == "Established (3)").then_some(connection)
    });
    assert_eq!(connection["title"], "alpha/1 calls beta");
    for name in [
        "pro_process_id",
        "pro_flag_process",
        "pro_con_rc",
        "pro_requestor",
        "pro_requestor_password",
        "pro_requestor_type",
        "pro_requestee",
        "pro_requestee_type",
        "pro_dtd",
        "InitM",
    ] {
        assert!(connection["fields"][name].is_string(), "{name}");
    }
    assert_eq!(connection["fields"]["pro_requestor"], "alpha");
    assert_eq!(connection["fields"]["seal"], "sealed with the connection's keys");
    let check = json(dir.path(), "volume check --json w/alpha.toml");
    assert_eq!((&check["sound"], &check["slots_established"]), (&true.into(), &2.into()), "{check}");
    assert_eq!(check["slots_reclaimable"], 0);

    // Nobody reads any more: what is written now stays in the writer's table.
    drop(serve);
    // The command takes no more than it may have under way: the rest waits in the pipe.
    let writer = std::thread::spawn(move || input.write_all(&[2; 3_000_000]));
    let entry = until(|| {
        let sections = json(dir.path(), "volume inspect --json w/VOLUME.toml")["sections"].clone();
        let tables = sections[5]["parts"].as_array().unwrap().clone();
        tables.iter().find_map(|table| Some(table["parts"].as_array()?.first()?.clone()))
    });
    for name in [
        "ptr_process_segment_ptr",
        "ptr_process_segment_flg",
        "ptr_process_block_seq",
        "ptr_process_req_id",
        "ptr_process_blk_read",
    ] {
        assert!(entry["fields"][name].is_string(), "{name}");
    }
    let shown = run(dir.path(), "volume inspect w/VOLUME.toml");
    let head = ["ptr_process_", "segment_ptr", "segment_flg", "block_seq", "req_id", "blk_read"];
    assert!(out(&shown).lines().any(|line| line.split_whitespace().eq(head)), "{}", out(&shown));
    assert!(out(&shown).lines().all(|line| line.chars().count() <= 80));

    drop(cp);
    let _ = writer.join().unwrap();
    for host in ["alpha", "beta"] {
        let check = json(dir.path(), &format!("volume check --json w/{host}.toml"));
        assert_eq!((&check["sound"], &check["slots_reclaimable"]), (&true.into(), &1.into()), "{check}");
    }
}
