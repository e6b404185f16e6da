//! Who gets which segment of a lane: two for everybody, at most half of the rest for one, the devices in turn.

mod volume_of_two;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use storage_mapping::Instant;
use transfer_core::protocol::pool::SegmentPool;
use volume::{BlockAddress, SegmentNumber};
use volume_of_two::volume_on;

const START: Instant = Instant(1_000_000_000);
/// Connections.
const A: u64 = 1;
const B: u64 = 2;
const C: u64 = 3;

fn pool(devices: &[&str]) -> SegmentPool {
    let (layout, record) = volume_on(devices);
    SegmentPool::new(&layout, &record)
}

fn take_all(pool: &mut SegmentPool, connection: u64) -> Vec<(SegmentNumber, BlockAddress)> {
    std::iter::from_fn(|| pool.take(connection, None)).collect()
}

#[test]
fn one_alone_gets_everything() {
    let mut pool = pool(&["m", "s1", "s2"]);
    let total = pool.total();
    assert!(total > 20 && pool.free_count() == total);
    pool.open(A);
    let taken = take_all(&mut pool, A);
    assert_eq!((taken.len(), pool.free_count(), pool.total()), (total, 0, total));
    let numbers: BTreeSet<_> = taken.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers.len(), total, "each once");
    for place in taken {
        pool.give(START, A, place, false);
    }
    assert_eq!(pool.free_count(), total);
}

#[test]
fn one_of_several_leaves_half_of_the_rest_and_two_for_each() {
    let mut pool = pool(&["m", "s1", "s2"]);
    let total = pool.total();
    [A, B, C].iter().for_each(|connection| pool.open(*connection));
    let mut first = take_all(&mut pool, A);
    // Two for each of the others are kept; of what is left one gets about half.
    let (least, most) = ((total - 4) / 2, (total - 4) / 2 + 1);
    assert!((least..=most).contains(&first.len()), "{} of {total}", first.len());
    let second = take_all(&mut pool, B);
    assert!(second.len() > 2 && second.len() < first.len(), "{}", second.len());
    let third = take_all(&mut pool, C);
    assert!(third.len() >= 2, "{}", third.len());

    // A connection that is closed keeps nothing back for itself.
    for (connection, places) in [(B, second), (C, third)] {
        pool.close(connection);
        places.into_iter().for_each(|place| pool.give(START, connection, place, false));
    }
    first.extend(take_all(&mut pool, A));
    assert_eq!((first.len(), pool.free_count()), (total, 0));
}

#[test]
fn two_are_kept_for_whoever_comes_late() {
    let mut pool = pool(&["m"]);
    pool.open(A);
    pool.open(B);
    let taken = take_all(&mut pool, A);
    let free = pool.free_count();
    assert!(free >= 2 && !taken.is_empty());
    let late = take_all(&mut pool, B);
    assert!(late.len() >= 2, "{}", late.len());
}

#[test]
fn devices_take_turns_and_one_can_be_avoided() {
    let mut pool = pool(&["m", "s1", "s2"]);
    pool.open(A);
    let mut devices = BTreeMap::new();
    for _ in 0..12 {
        let (_, place) = pool.take(A, None).expect("a free one");
        *devices.entry(place.device).or_insert(0) += 1;
    }
    let counts: Vec<_> = devices.values().copied().collect();
    assert!(counts.len() >= 2 && counts.iter().all(|count| *count == 12 / counts.len()), "{devices:?}");
    let avoided = *devices.keys().next().expect("a device");
    for _ in 0..6 {
        assert_ne!(pool.take(A, Some(avoided)).expect("a free one").1.device, avoided);
    }
    // With nothing free elsewhere it is taken all the same.
    let left = std::iter::from_fn(|| pool.take(A, Some(avoided))).map(|(_, place)| place.device);
    let left: Vec<_> = left.collect();
    assert_eq!(left.last(), Some(&avoided));
    assert_eq!(pool.free_count(), 0);
}

#[test]
fn a_segment_in_doubt_rests_for_three_minutes() {
    let mut pool = pool(&["m"]);
    pool.open(A);
    let total = pool.total();
    let place = pool.take(A, None).expect("a free one");
    pool.give(START, A, place, true);
    assert_eq!(pool.free_count(), total - 1);
    pool.handle_timeout(START + Duration::from_secs(179));
    assert_eq!(pool.free_count(), total - 1);
    pool.handle_timeout(START + Duration::from_secs(180));
    assert_eq!(pool.free_count(), total);
    assert_eq!(take_all(&mut pool, A).len(), total, "it is not held any more");
}
