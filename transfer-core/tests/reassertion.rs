//! Writes that are lost or hang: what nobody reacts to is written again (rule 8), and taken once.

mod endpoints;

use std::time::Duration;

use endpoints::{Fate, Judge, Process, make_pair, make_volume, run};
use storage_mapping::Instant;
use transfer_core::format::map::TableMap;
use transfer_core::payload::{Payload, Segment, SegmentKind};
use transfer_core::protocol::connection::ConnectionId;
use transfer_core::protocol::pair::DOUBT;

/// The caller is the second process, the answerer the first.
const SIDES: [usize; 2] = [1, 0];

fn connect(now: &mut Instant) -> ([Process; 2], [ConnectionId; 2]) {
    let disks = make_volume();
    let mut both = make_pair(&disks, now);
    let call = both[1].endpoint.connect(*now, "beta").expect("a call");
    both[1].endpoint.send_command(*now, call, 1, 0, b"hello".to_vec());
    run(now, &mut both, Duration::from_secs(5), |both, _| {
        both[0].commands() == [1] && both[1].connected().is_some()
    });
    let answer = both[0].connected().expect("an answer");
    // Everything is acknowledged, and the tables rest.
    rest(now, &mut both, Duration::from_secs(5));
    (both, [answer, call])
}

fn rest(now: &mut Instant, both: &mut [Process], length: Duration) {
    let until = *now + length;
    run(now, both, length + Duration::from_secs(1), |_, now| now >= until);
}

/// `fate` for the first write of a side's entry, or of its table; all others land.
fn first_write(process: &Process, table: bool, fate: Fate) -> Judge {
    let process_id = process.endpoint.connections().next().expect("a connection").slot().0;
    let map = TableMap::new(process.volume.layout());
    let place = if table { map.pointer_table(process_id) } else { map.process_id_entry(process_id) };
    let mut met = false;
    Box::new(move |device, block| {
        let hit = device == place.device && (place.block..place.block + 2).contains(&block) && !met;
        met |= hit;
        if hit { fate } else { Fate::Lands }
    })
}

fn assert_calm(both: &[Process]) {
    assert!(both.iter().all(|process| process.closed().is_none()), "the connection stays open");
}

#[test]
fn a_command_whose_write_is_lost_is_written_again() {
    for from in SIDES {
        let mut now = Instant(1_000_000_000);
        let (mut both, ids) = connect(&mut now);
        let before = both[1 - from].commands();
        both[from].judge = Some(first_write(&both[from], false, Fate::Lost));
        both[from].endpoint.send_command(now, ids[from], 5, 0, b"lost once".to_vec());
        run(&mut now, &mut both, Duration::from_secs(5), |both, _| both[1 - from].commands().contains(&5));
        // It is taken once, and once it is acknowledged the entry rests.
        rest(&mut now, &mut both, Duration::from_secs(20));
        assert_eq!(both[1 - from].commands(), [&before[..], &[5]].concat());
        both[from].endpoint.send_command(now, ids[from], 6, 0, Vec::new());
        run(&mut now, &mut both, Duration::from_secs(1), |both, _| both[1 - from].commands().contains(&6));
        assert_calm(&both);
    }
}

#[test]
fn a_command_whose_write_hangs_passes_it_in_the_other_block() {
    for from in SIDES {
        let mut now = Instant(1_000_000_000);
        let (mut both, ids) = connect(&mut now);
        let before = both[1 - from].commands();
        both[from].judge = Some(first_write(&both[from], false, Fate::Held));
        both[from].endpoint.send_command(now, ids[from], 5, 0, b"held".to_vec());
        let limit = DOUBT + Duration::from_secs(5);
        run(&mut now, &mut both, limit, |both, _| both[1 - from].commands().contains(&5));
        assert_eq!(both[from].held.len(), 1, "the first write still hangs");
        // The next command goes to the block of the hung write, which lands on it before it is read.
        both[from].endpoint.send_command(now, ids[from], 6, 0, b"overwritten".to_vec());
        let mut released = false;
        run(&mut now, &mut both, Duration::from_secs(5), |both, now| {
            if !released {
                both[from].step(now);
                both[from].release(now);
                both[from].step(now);
                released = true;
            }
            both[1 - from].commands().contains(&6)
        });
        rest(&mut now, &mut both, Duration::from_secs(20));
        assert_eq!(both[1 - from].commands(), [&before[..], &[5, 6]].concat());
        assert_calm(&both);
    }
}

#[test]
fn a_table_whose_write_is_lost_is_published_again() {
    for from in SIDES {
        let mut now = Instant(1_000_000_000);
        let (mut both, ids) = connect(&mut now);
        both[from].judge = Some(first_write(&both[from], true, Fate::Lost));
        let payload = Payload::copy_of(&both[from].buffers, b"word");
        let segment = Segment { kind: SegmentKind::Command, request: 0, offset: 0, last: true, payload };
        both[from].endpoint.send(now, ids[from], segment);
        run(&mut now, &mut both, Duration::from_secs(11), |both, _| !both[1 - from].received.is_empty());
        rest(&mut now, &mut both, Duration::from_secs(20));
        assert_eq!(both[1 - from].received.len(), 1);
        assert_calm(&both);
    }
}
