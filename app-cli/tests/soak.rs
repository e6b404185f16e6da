//! The soak: real hosts on one block device, transfers between them, and processes that are killed,
//! stopped and interrupted all the time.
//!
//! What is asserted: under a final name is at every instant the old file or the whole new one; what was
//! delivered stays, and is its source, by hash; every transfer is carried through by running the same
//! command again, [`CALM_MAX`] after the last act of chaos at the latest; processes end only with
//! documented exit codes; at the end no partial file is left and the volume is sound.
//!
//! What is done follows from a seed, which is printed: `DISKWIRE_SOAK_SEED=s` repeats it.
//! `DISKWIRE_SOAK_MINUTES=n` runs for so long; DISKWIRE_FULL=1 is ten minutes. Not here: faults of
//! devices (`e2e_faults.rs`), instants of one transfer (`e2e_crash.rs`).

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod support;
#[path = "soak/transfer.rs"]
mod transfer;
#[path = "soak/watch.rs"]
mod watch;
#[path = "soak/world.rs"]
mod world;

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use support::loop_device::LoopDevice;
use support::{Lab, Numbers, full, skip};
use transfer::pull_folder;
use watch::Watch;
use world::{Counts, World};

/// After the last act of chaos every transfer ends within this.
const CALM_MAX: Duration = Duration::from_secs(90);
/// Chaos of one round: short, so that both sector sizes have their turn; long, so that hosts age.
const ROUND_SHORT: Duration = Duration::from_secs(10);
const ROUND_LONG: Duration = Duration::from_secs(60);
/// Chaos of all rounds where nothing else is asked for.
const CHAOS_USUAL: Duration = Duration::from_secs(20);
/// Bytes of all devices of a round.
const VOLUME_BYTES: u64 = 768 << 20;
/// The seed where none is given: every change is held to the same soak.
const SEED: u64 = 1;

fn number_from(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is no number")))
}

/// Past the capture of the test harness: how much was done is to be seen.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// How one round is laid out.
#[derive(Debug)]
struct Layout {
    hosts: usize,
    slots: usize,
    block_bytes: u32,
    secondaries: usize,
}

impl Layout {
    /// The sector sizes take turns; the seed says which is the first.
    fn draw(turn: u64, numbers: &mut Numbers) -> Self {
        let hosts = 2 + numbers.below(7) as usize;
        let block_bytes = if turn.is_multiple_of(2) { 512 } else { 4096 };
        let secondaries = numbers.below(6).saturating_sub(2) as usize;
        Self { hosts, slots: (2 * hosts).min(6), block_bytes, secondaries }
    }
}

/// A lab, and the devices it is on.
struct Site {
    lab: Lab,
    // Detached after the lab has gone.
    _devices: Vec<LoopDevice>,
    _folder: tempfile::TempDir,
}

impl Site {
    /// On loop devices, or on files where there are none.
    fn new(layout: &Layout, hosts: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let count = 1 + layout.secondaries;
        let device = |number: usize| {
            let file = folder.path().join(number.to_string());
            LoopDevice::new(&file, VOLUME_BYTES / count as u64, layout.block_bytes)
        };
        let names: String = hosts.iter().map(|host| format!("--host {host} ")).collect();
        let (devices, place) = match (0..count).map(device).collect::<Result<Vec<_>, _>>() {
            Ok(devices) => {
                let master = format!("--master {}", devices[0].node.display());
                let more =
                    devices[1..].iter().map(|device| format!(" --secondary {}", device.node.display()));
                let place = master + &more.collect::<String>();
                (devices, place)
            }
            Err(why) => {
                skip("soak on loop devices (it runs on files)", &why);
                let place = format!("--size {VOLUME_BYTES} --secondaries {}", layout.secondaries);
                (Vec::new(), place)
            }
        };
        let lab = Lab::with(&format!("{names}{place}"));
        Self { lab, _devices: devices, _folder: folder }
    }
}

fn round(turn: u64, length: Duration, numbers: &mut Numbers) -> (Layout, Counts) {
    let layout = Layout::draw(turn, numbers);
    let seed = numbers.below(u64::MAX);
    let hosts: Vec<_> = (0..layout.hosts).map(|host| format!("h{host}")).collect();
    let site = Site::new(&layout, &hosts);
    let lab = &site.lab;
    let inboxes = hosts.iter().map(|host| lab.inbox(host, ""));
    let targets: Vec<_> = inboxes.chain([pull_folder(lab)]).collect();
    let sources = hosts.iter().map(|host| lab.scratch(host));
    targets.iter().cloned().chain(sources).for_each(|folder| fs::create_dir_all(folder).unwrap());
    let watch = Watch::new(targets.clone());
    let watching = watch.start();
    let mut world = World::start(lab, &hosts, layout.slots, seed, watch.clone());
    world.chaos(length);
    let calm = world.settle(CALM_MAX);
    let counts = world.counts;
    world.assert_no_partial(&targets);
    world.end();
    watch.look();
    drop(watching);
    assert_eq!(watch.wrong(), Vec::<String>::new());
    lab.run(&hosts[0], "volume check").expect(0);
    say(&format!("soak: {layout:?}, {counts:?}, calm in {calm:?}, {} looks", watch.looks()));
    (layout, counts)
}

#[test]
fn nothing_is_ever_wrong_and_every_transfer_is_carried_through() {
    let seed = number_from("DISKWIRE_SOAK_SEED").unwrap_or(SEED);
    let minutes = number_from("DISKWIRE_SOAK_MINUTES").or(full().then_some(10));
    let length = minutes.map_or(CHAOS_USUAL, |minutes| Duration::from_secs(60 * minutes));
    let round_length = if minutes.is_some() { ROUND_LONG } else { ROUND_SHORT };
    say(&format!("soak: DISKWIRE_SOAK_SEED={seed}, {length:?} of chaos"));
    let start = Instant::now();
    let mut numbers = Numbers::new(seed);
    let mut all = Counts::default();
    let mut hosts = 0;
    for number in 0..length.as_secs().div_ceil(round_length.as_secs()) {
        let (layout, counts) = round(seed.wrapping_add(number), round_length, &mut numbers);
        hosts += layout.hosts;
        all.add(&counts);
    }
    let Counts { transfers, files, bytes, kills, stops, asked, re_runs, longest_recovery } = all;
    say(&format!(
        "soak: {hosts} hosts, {transfers} transfers, {files} files, {bytes} bytes, {kills} kills, {stops} stops, \
         {asked} SIGINT or SIGTERM, {re_runs} re-runs, longest recovery {longest_recovery:.1?}, 0 wrong, in {:.0?}",
        start.elapsed()
    ));
    assert!(transfers > 0 && kills > 0 && stops > 0 && re_runs > 0);
}
