//! A transfer on a disk that somebody else writes to; and surveys of what such a disk holds.
//!
//! The input is a program: so many steps of the hosts, then an act of the hostile writer, and so on. What
//! holds: no panic; what arrives is what was sent, byte for byte and in order; a job that says *done* is
//! done; hosts write only what is theirs; the work is bounded. In one of eight runs also: when the writer has
//! gone, the admin's records are put back and both processes start again, the transfer comes to its end.
//! Not here: hostile peers with valid keys (`session`, `pointer_table`).

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use transfer_core::format::process_id_table::ProcessIdEntry;
use transfer_core::format::process_segment_pointer_table::PointerTable;
use transfer_core::transfer::Verdict;
use transfer_core::{check, inspect, survey};
use volume::header::Header;
use volume::open;
use volume::record::{Field, Record};
use volume::sync::Waiter;

use super::disk::{Disks, Image, created};
use super::input::Input;
use super::sample::{VOLUME_ID, sample};
use super::scene::Scene;

/// Acts of one program, at most.
const ACTS_MAX: usize = 48;
/// Steps of one run while the writer is there, at most.
const STEPS_MAX: usize = 1500;
/// Steps after its last act.
const STEPS_AFTER: usize = 60;
/// Steps in which an undisturbed transfer is done.
const STEPS_TO_END: usize = 6000;

/// Places worth hitting: those of the header, of entries and of tables.
fn fields() -> &'static [Field] {
    static FIELDS: OnceLock<Vec<Field>> = OnceLock::new();
    FIELDS.get_or_init(|| {
        let of = [Header::FIELDS, ProcessIdEntry::FIELDS, PointerTable::FIELDS];
        of.iter().flat_map(|fields| fields.iter().copied().filter(|field| field.offset > 0)).collect()
    })
}

/// Two hosts, a transfer, and a hostile writer.
///
/// # Panics
/// If a promise is broken.
pub fn hostile_disk(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mode = input.byte();
    let mut scene = Scene::new(Disks::new(created()), mode & 8 != 0);
    let mut steps = 0;
    for _ in 0..ACTS_MAX {
        if input.is_empty() || steps >= STEPS_MAX || scene.outcome().is_some() {
            break;
        }
        for _ in 0..=input.byte() {
            scene.step();
            steps += 1;
        }
        scene.disks.attack(&mut input, fields());
    }
    for _ in 0..STEPS_AFTER {
        scene.step();
    }
    if mode & 7 == 0 {
        recover(&mut scene);
    }
}

/// The writer has gone: whatever it left, the transfer comes to its end.
fn recover(scene: &mut Scene) {
    scene.disks.restore_image();
    scene.restart();
    let begun = scene.now;
    for _ in 0..STEPS_TO_END {
        scene.step();
        if let Some(outcome) = scene.outcome() {
            assert_eq!(outcome.verdict, Verdict::Done, "{outcome:?}");
            return;
        }
    }
    let took = scene.now.since(begun);
    panic!("no end after {STEPS_TO_END} steps and {took:?} of virtual time: {scene:?}");
}

/// Steps of an undisturbed transfer from the start, for tests of the scene itself.
///
/// # Panics
/// If a promise is broken.
#[must_use]
pub fn undisturbed(stream: bool) -> (usize, Duration) {
    let mut scene = Scene::new(Disks::new(created()), stream);
    let begun = scene.now;
    for steps in 1..STEPS_TO_END {
        scene.step();
        if let Some(outcome) = scene.outcome() {
            assert_eq!(outcome.verdict, Verdict::Done, "{outcome:?}");
            return (steps, scene.now.since(begun));
        }
    }
    panic!("no end after {STEPS_TO_END} steps: {scene:?}");
}

/// A volume in the middle of a transfer.
fn in_use() -> Arc<Image> {
    static IMAGE: OnceLock<Arc<Image>> = OnceLock::new();
    Arc::clone(IMAGE.get_or_init(|| {
        let mut scene = Scene::new(Disks::new(created()), false);
        let (steps, _) = undisturbed(false);
        (0..steps * 3 / 4).for_each(|_| scene.step());
        scene.disks.image()
    }))
}

/// Opening, survey, check and inspection of a volume in use that somebody wrote to.
///
/// # Panics
/// If a promise is broken.
pub fn volume_survey(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mode = input.byte();
    let disks = Disks::new(in_use());
    for _ in 0..ACTS_MAX {
        if input.is_empty() {
            break;
        }
        disks.attack(&mut input, fields());
    }
    let admin = sample().layout.master.admin_public_key;
    let waiter = Waiter::idle();
    let mut opened = match open::open(&waiter, disks.devices(), Some(VOLUME_ID), Some(&admin)) {
        Ok(opened) => opened.volume,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert!(opened.layout().master.agrees_with(&sample().layout.master), "the admin signed something else");
    assert_eq!(opened.layout().table.rows, sample().layout.table.rows);
    if mode & 1 == 0 {
        let contents = survey::read(&waiter, &mut opened, Some(&admin));
        let report = check::check(&contents, &BTreeSet::new());
        assert_eq!(report.is_sound(), report.summary.damaged == 0);
        if mode & 2 == 0 {
            assert!(!inspect::volume(&contents).is_empty());
        }
    }
}

/// Inputs to begin with.
#[must_use]
pub fn hostile_disk_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0], vec![8], vec![1], vec![9]];
    for kind in 0..8u8 {
        for pause in [40, 90, 160] {
            seeds.push(vec![8 * (kind & 1), pause, kind, 3, 9, 1, 4, pause, kind | 8, 7, 2, 2, 2]);
            let mut program = vec![8 * (kind & 1) + 1];
            for at in 0..20u8 {
                program.extend([pause / 4, kind | at << 4 & 0x70, at.wrapping_mul(7), at, 1, 2]);
            }
            seeds.push(program);
        }
    }
    seeds
}

/// Inputs to begin with.
#[must_use]
pub fn volume_survey_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0], vec![2]];
    for kind in 0..16u8 {
        seeds.push(vec![0, kind, 4, 1, 2, 3, kind | 0x80, 5, 9, 8, 7]);
        seeds.push(vec![0, 0x8F, kind, 6, 4, kind, 15, 5, 1, 1, 0x0F, kind * 3, 4, 4, kind, 14, 9]);
    }
    seeds
}
