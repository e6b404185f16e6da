//! `diskwire demo`: a lab, a second host as a process of its own, one file there and back, the proof.
//!
//! Nothing is shared between the two processes but the volume: the other host gets its configuration
//! file as an argument and no pipe. Everything lies in one temporary folder and is removed at the end.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use storage_mapping::ByteSize;

use super::{CommandError, lab, print};
use crate::args::lab::{DemoArgs, LabCreateArgs};
use crate::config::HostConfig;
use crate::escape;
use crate::exit::Exit;
use crate::survey::{Survey, Surveyor};

/// Size of the demo's volume.
const VOLUME_BYTES: u64 = 256 << 20;

/// The second host: killed with the demo, whatever happens.
struct Beta(Child);

impl Drop for Beta {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end or to wait for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn run(args: &DemoArgs) -> Result<Exit, CommandError> {
    let program = std::env::current_exe().map_err(CommandError::Demo)?;
    let file = args.file.clone().unwrap_or_else(|| program.clone());
    let folder = tempfile::Builder::new().prefix("diskwire-demo-").tempdir().map_err(CommandError::Demo)?;
    let world = folder.path().join("world");
    let told = tell(&program, &file, &world);
    if args.keep {
        let kept = folder.keep();
        print(&format!("\nkept in {}\n", escape::name(&kept)))?;
    }
    told
}

fn tell(program: &Path, file: &Path, world: &Path) -> Result<Exit, CommandError> {
    let size = std::fs::metadata(file).map_err(|source| input(file, source))?.len();
    print(&format!(
        "1. A volume for two hosts: a master and two devices for data, {}\n",
        ByteSize(VOLUME_BYTES)
    ))?;
    let plan = lab::make(&lab_args(world), true)?;
    let [alpha, beta] = ["alpha", "beta"].map(|host| plan.dir.join(format!("{host}.toml")));
    let before = survey(&alpha)?;
    print(&tables("before", &before))?;

    print("2. Host beta as a process of its own; nothing but the volume between them\n")?;
    let _serving = start_beta(program, &beta)?;

    let name = file.file_name().unwrap_or(file.as_os_str());
    print(&format!("3. {} ({}) from alpha to beta\n", escape::name(name), ByteSize(size)))?;
    let there = copy(program, &alpha, &[file.into(), "beta:inbox/".into()])?;
    let arrived = plan.dir.join("exports/beta/inbox").join(name);

    print("4. and back again\n")?;
    let mut remote = std::ffi::OsString::from("beta:inbox/");
    remote.push(name);
    let returned = plan.dir.join("returned");
    let back = copy(program, &alpha, &[remote.into(), returned.clone()])?;

    let [original, at_beta, at_alpha] =
        [hash(file)?, hash(&arrived)?, hash(&returned)?].map(|hash| hash.to_hex().to_string());
    let after = survey(&alpha)?;
    print(&format!(
        "5. Proof (BLAKE3)\n   sent      {original}\n   at beta   {at_beta}\n   came back {at_alpha}\n"
    ))?;
    print(&tables("after", &after))?;
    if original != at_beta || original != at_alpha {
        return Err(CommandError::DemoDiffers);
    }
    if !after.connections.is_empty() {
        return Err(CommandError::DemoOpen);
    }
    print(&format!(
        "Equal. {} there in {:.2} s ({}/s) and back in {:.2} s ({}/s),\nsealed, over {} connection slots that are free again.\n",
        ByteSize(size),
        there.as_secs_f64(),
        rate(size, there),
        back.as_secs_f64(),
        rate(size, back),
        after.slots_used,
    ))?;
    Ok(Exit::Done)
}

pub(super) fn lab_args(world: &Path) -> LabCreateArgs {
    LabCreateArgs {
        dir: world.to_owned(),
        hosts: Vec::new(),
        secondaries: 2,
        paths: 1,
        size: ByteSize(VOLUME_BYTES),
        lanes: 1,
        master: None,
        secondary: Vec::new(),
        force: Vec::new(),
    }
}

/// Starts `serve` and waits until it says that it serves.
fn start_beta(program: &Path, config: &Path) -> Result<Beta, CommandError> {
    let mut child = Command::new(program)
        .arg("-c")
        .arg(config)
        .arg("serve")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(CommandError::Demo)?;
    let said = child.stderr.take().expect("it was asked for");
    let beta = Beta(child);
    wait_until_it_serves(said)?;
    Ok(beta)
}

/// Waits until `serve` says on standard error that it serves.
pub(super) fn wait_until_it_serves(said: ChildStderr) -> Result<(), CommandError> {
    let mut lines = BufReader::new(said).lines();
    let mut last = "it ended without a word".to_owned();
    for line in lines.by_ref().map_while(Result::ok) {
        if line.contains(" serves ") {
            // Its further lines are read and dropped, so that it never waits for a reader.
            std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
            return Ok(());
        }
        last = line;
    }
    Err(CommandError::DemoBeta { why: escape::one_line(&last) })
}

/// One `cp` as a process of its own; how long it took.
fn copy(program: &Path, config: &Path, ends: &[PathBuf]) -> Result<Duration, CommandError> {
    let start = Instant::now();
    let status = Command::new(program)
        .arg("-c")
        .arg(config)
        .args(["cp", "--quiet"])
        .args(ends)
        .stdin(Stdio::null())
        .status()
        .map_err(CommandError::Demo)?;
    if status.success() { Ok(start.elapsed()) } else { Err(CommandError::DemoCopy { status }) }
}

fn survey(config: &Path) -> Result<Survey, CommandError> {
    Ok(Surveyor::open(&HostConfig::load(config)?)?.look())
}

fn tables(when: &str, survey: &Survey) -> String {
    let segments: u64 = survey.devices.iter().map(|device| device.segments).sum();
    format!(
        "   tables {when}: {} lanes, {segments} data segments, {} connection slots, {} used, {} open\n",
        survey.lanes.len(),
        survey.slots,
        survey.slots_used,
        survey.connections.len(),
    )
}

pub(super) fn hash(file: &Path) -> Result<blake3::Hash, CommandError> {
    let read = || -> std::io::Result<blake3::Hash> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(File::open(file)?)?;
        Ok(hasher.finalize())
    };
    read().map_err(|source| input(file, source))
}

fn input(file: &Path, source: std::io::Error) -> CommandError {
    CommandError::DemoFile { file: escape::name(file), source }
}

fn rate(bytes: u64, time: Duration) -> ByteSize {
    let micros = time.as_micros().max(1);
    ByteSize(u64::try_from(u128::from(bytes) * 1_000_000 / micros).unwrap_or(u64::MAX))
}
