//! A small volume of one device and two lanes, and one direction of a connection from lane 0.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(missing_docs, unreachable_pub, reason = "a test harness")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside the test functions")]

use std::sync::Arc;

use aws_lc_rs::signature::Ed25519KeyPair;
use transfer_core::format::host_table::HostRecord;
use transfer_core::format::segment::Direction;
use transfer_core::protocol::seal::XaesKey;
use transfer_core::protocol::writer::Stream;
use volume::Layout;
use volume::header::Place;
use volume::layout::{PlannedDevice, VolumePlan};
use volume::record::Text;

/// Its layout, and the row of lane 0.
pub fn volume_of_two() -> (Layout, HostRecord) {
    volume_on(&["m"])
}

/// The same with these devices.
pub fn volume_on(devices: &[&str]) -> (Layout, HostRecord) {
    let admin = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
    let plan = VolumePlan {
        devices: devices.iter().map(|id| PlannedDevice::new(id, 6000).unwrap()).collect(),
        lanes: 2,
        connections: 4,
        segment_payload_bytes: 1 << 16,
        volume_id: [3; 16],
        time_id: 1,
        unix_filename: "m".into(),
    };
    let layout = plan.layout(&admin).unwrap();
    let record = HostRecord::new(&layout, 0, Text::new("alpha").unwrap(), [1; 32], 0, &admin);
    (layout, record)
}

pub fn stream() -> Stream {
    Stream {
        volume_id: [3; 16],
        connection_id: [1; 16],
        direction: Direction::ToConnector,
        owner: 0,
        incarnation: 1,
        nonce_low: 2,
        table: Place { volume_id: [3; 16], owner: 0, index: 0, device: 0, block: 9 },
        key: Arc::new(XaesKey::new(&[1; 32])),
    }
}
