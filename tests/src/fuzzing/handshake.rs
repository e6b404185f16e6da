//! The handshake: its payload, and both of its state machines fed with what a hostile disk holds.
//!
//! What holds: a message opens only unchanged, for the connection that it was written for and with the key
//! that it was written to; both sides then have the same keys; a peer with a valid key may say anything in
//! its payload. Not here: what an endpoint does with a payload (`hostile_disk`).

use std::cell::OnceCell;

use transfer_core::protocol::handshake::{
    Binding, Hello, Initiating, Secrets, answer, initiate, public_key_on,
};
use transfer_core::random::SeededRandom;
use volume::record::Record;
use zeroize::Zeroizing;

use super::input::Input;
use super::record::{check_record, record_seeds};
use super::sample::{VOLUME_ID, private_key};
use crate::stand_in::curve;

fn secrets(host: usize, fleet: bool) -> Secrets {
    let fleet_secret = fleet.then(|| Zeroizing::new([0xF1; 32]));
    Secrets { fleet_secret, curve, ..Secrets::new(private_key(host)) }
}

fn hello(lane: u16) -> Hello {
    Hello {
        protocol_version: 1,
        window: 32,
        seg_max: 1 << 14,
        process_id: u32::from(lane) * 4,
        lane,
        incarnation: 5,
        incarnation_nonce: [6; 16],
        nonce: [7; 16],
    }
}

fn binding() -> Binding {
    Binding {
        volume_id: VOLUME_ID,
        initiator_lane: 0,
        connector_lane: 1,
        process_id: 0,
        serial: 4,
        nonce: [7; 16],
        incarnation: 5,
        incarnation_nonce_low: 6,
    }
}

fn other_binding(choice: u8) -> Binding {
    let mut other = binding();
    match choice % 8 {
        0 => other.volume_id[15] ^= 1,
        1 => other.initiator_lane += 1,
        2 => other.connector_lane += 1,
        3 => other.process_id += 1,
        4 => other.serial += 1,
        5 => other.nonce[0] ^= 1,
        6 => other.incarnation += 1,
        _ => other.incarnation_nonce_low += 1,
    }
    other
}

fn first(fleet: bool, says: &Hello) -> (Initiating, Vec<u8>) {
    thread_local! {
        static KEY: OnceCell<[u8; 32]> = const { OnceCell::new() };
    }
    let key = KEY.with(|key| *key.get_or_init(|| public_key_on(curve, &private_key(1))));
    initiate(&secrets(0, fleet), &key, &binding(), says, &mut SeededRandom::new(&[3; 32]))
        .expect("a valid key")
}

/// The first message never changes: it is made once for each form.
fn first_message(fleet: bool) -> Vec<u8> {
    thread_local! {
        static MESSAGES: OnceCell<[Vec<u8>; 2]> = const { OnceCell::new() };
    }
    MESSAGES.with(|cell| {
        let both = cell.get_or_init(|| [first(false, &hello(0)).1, first(true, &hello(0)).1]);
        both[usize::from(fleet)].clone()
    })
}

/// The payload and the messages.
///
/// # Panics
/// If a promise is broken.
pub fn handshake(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mode = input.byte();
    let fleet = mode & 0x10 != 0;
    match mode % 8 {
        0 | 1 => payload(&mut input, mode),
        2 | 3 => changed_first(&mut input, fleet),
        4 => changed_second(&mut input, fleet),
        5 => elsewhere(&mut input, fleet),
        6 => odd_payload(&mut input, fleet),
        _ => {
            let message = input.rest();
            let mut random = SeededRandom::new(&[4; 32]);
            assert!(answer(&secrets(1, fleet), &binding(), message, &mut random).is_err());
        }
    }
}

fn payload(input: &mut Input<'_>, mode: u8) {
    let mut bytes = [0; 64];
    hello(0).emit(&mut bytes);
    input.patch(&mut bytes, Hello::FIELDS);
    let length = if mode & 1 == 0 { 64 } else { input.index(65) };
    check_record::<Hello>(&bytes[..length], true);
}

fn changed_first(input: &mut Input<'_>, fleet: bool) {
    let sound = first_message(fleet);
    let mut message = sound.clone();
    input.patch(&mut message, &[]);
    if input.byte() & 1 == 1 {
        message.truncate(input.index(sound.len() + 1));
    }
    let mut random = SeededRandom::new(&[4; 32]);
    let answered = answer(&secrets(1, fleet), &binding(), &message, &mut random);
    assert_eq!(answered.is_ok(), message == sound, "a changed message 1 opened");
    if let Ok(answering) = answered {
        assert_eq!(answering.hello, hello(0));
    }
}

fn changed_second(input: &mut Input<'_>, fleet: bool) {
    let (initiating, message) = first(fleet, &hello(0));
    let mut random = SeededRandom::new(&[4; 32]);
    let answering = answer(&secrets(1, fleet), &binding(), &message, &mut random).expect("a sound message");
    assert_eq!(answering.peer_key, public_key_on(curve, &private_key(0)));
    let (theirs, sound) = answering.accept(&hello(1)).expect("nothing to refuse");
    let mut second = sound.clone();
    input.patch(&mut second, &[]);
    let finished = initiating.finish(&second);
    assert_eq!(finished.is_ok(), second == sound, "a changed message 2 opened");
    if let Ok((ours, heard)) = finished {
        assert_eq!(heard, hello(1));
        assert_eq!(ours.connection_id, theirs.connection_id);
        assert_eq!(ours.to_connector.page, theirs.to_connector.page);
        assert_eq!(ours.to_initiator.page, theirs.to_initiator.page);
    }
}

/// Another connection, another key, or with the fleet's secret instead of without.
fn elsewhere(input: &mut Input<'_>, fleet: bool) {
    let message = first_message(fleet);
    let choice = input.byte();
    let (host, bound) = if choice & 8 == 0 { (1, other_binding(choice)) } else { (0, binding()) };
    let mut random = SeededRandom::new(&[4; 32]);
    assert!(answer(&secrets(host, fleet), &bound, &message, &mut random).is_err(), "a replay opened");
}

/// A peer with a valid key says something odd.
fn odd_payload(input: &mut Input<'_>, fleet: bool) {
    let mut bytes = [0; 64];
    hello(0).emit(&mut bytes);
    input.patch(&mut bytes, Hello::FIELDS);
    let Ok(says) = Hello::parse(&bytes) else { return };
    let (_, message) = first(fleet, &says);
    let mut random = SeededRandom::new(&[4; 32]);
    match answer(&secrets(1, fleet), &binding(), &message, &mut random) {
        Ok(answering) => assert_eq!(answering.hello, says),
        Err(_) => assert_ne!(says.protocol_version, 1, "a sound message was refused"),
    }
}

/// Inputs to begin with.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = (0..32).map(|mode| vec![mode]).collect();
    seeds.extend((0..16).map(|choice| vec![5, choice]));
    seeds.extend(record_seeds::<Hello>().into_iter().map(|mut seed| {
        seed[0] = 6;
        seed
    }));
    for (mode, length) in [(7, 96), (7, 176), (2, 3), (4, 3)] {
        seeds.push([&[mode][..], &vec![1; length]].concat());
    }
    seeds
}
