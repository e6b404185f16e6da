//! The handshake that travels in the place of FIG. 5's password.
//!
//! Noise IK (IKpsk2 where the fleet has a secret), 25519, AES-256-GCM, BLAKE2s. The prologue binds the
//! messages to volume, lanes, slot, serial, nonce and incarnation, so that an old message cannot be
//! answered as a new one. Message 1 can be replayed: its receiver does nothing that lasts before the
//! first record sealed under the connection's keys arrives. The connection id is the first half of the
//! handshake hash. Not here: who is allowed (the endpoint's list of peers).

use snow::params::NoiseParams;
use snow::resolvers::{BoxedCryptoResolver, CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random as SnowRandom};
use snow::{Builder, HandshakeState};
use thiserror::Error;
use volume::record;
use volume::record::Record;
use zeroize::Zeroizing;

use super::seal::DirectionKeys;
use crate::random::{Random, SeededRandom, random_bytes};

const PATTERN: &str = "Noise_IK_25519_AESGCM_BLAKE2s";
const PATTERN_PSK: &str = "Noise_IKpsk2_25519_AESGCM_BLAKE2s";

record! {
    /// What each side tells in its handshake message.
    pub struct Hello: 64, "handshake payload" {
        /// Version of the protocol.
        0 => protocol_version: u16,
        /// Largest window it can take.
        2 => window: u16,
        /// Largest segment payload it can take.
        4 => seg_max: u32,
        /// Its slot.
        8 => process_id: u32,
        /// Its lane.
        12 => lane: u16,
        /// Incarnation.
        16 => incarnation: u64,
        /// Incarnation nonce, full.
        24 => incarnation_nonce: [u8; 16],
        /// Nonce of this connection.
        40 => nonce: [u8; 16],
    }
}

/// What the prologue binds.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Volume id.
    pub volume_id: [u8; 16],
    /// Lane of the initiator.
    pub initiator_lane: u16,
    /// Lane of the connector.
    pub connector_lane: u16,
    /// The initiator's slot.
    pub process_id: u32,
    /// Serial of its use.
    pub serial: u32,
    /// The initiator's nonce.
    pub nonce: [u8; 16],
    /// The initiator's incarnation.
    pub incarnation: u64,
    /// Low half of its incarnation nonce; the full one is in the payload.
    pub incarnation_nonce_low: u64,
}

impl Binding {
    fn prologue(&self) -> Vec<u8> {
        let mut bytes = b"diskwire protocol 1".to_vec();
        bytes.extend_from_slice(&self.volume_id);
        for number in [
            self.initiator_lane.into(),
            self.connector_lane.into(),
            self.process_id.into(),
            self.serial.into(),
            self.incarnation,
            self.incarnation_nonce_low,
        ] {
            bytes.extend_from_slice(&u64::to_le_bytes(number));
        }
        bytes.extend_from_slice(&self.nonce);
        bytes
    }
}

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The message does not open: another key, another fleet secret, a replay, or damage.
    #[error("the handshake message does not open: wrong key, or not meant for this connection")]
    Message,
    /// The payload is not one.
    #[error("the handshake carries a payload of another version")]
    Payload,
}

/// Keys, and the connection id.
#[derive(Debug)]
pub struct Session {
    /// 128-bit id of the connection.
    pub connection_id: [u8; 16],
    /// Initiator to connector.
    pub to_connector: DirectionKeys,
    /// Connector to initiator.
    pub to_initiator: DirectionKeys,
}

/// Own secrets.
#[derive(Clone)]
pub struct Secrets {
    /// X25519 static private key.
    pub private_key: Zeroizing<[u8; 32]>,
    /// Secret of the fleet, if there is one.
    pub fleet_secret: Option<Zeroizing<[u8; 32]>>,
    /// The curve of the key exchange.
    pub curve: Curve,
}

/// Makes an empty pair of keys of a curve. The program knows [`x25519`] only; a simulator, whose keys
/// protect nothing, may bring a faster one.
pub type Curve = fn() -> Box<dyn Dh>;

/// Curve25519, the one on every disk.
///
/// # Panics
/// Never: the library is built with it.
#[must_use]
pub fn x25519() -> Box<dyn Dh> {
    DefaultResolver.resolve_dh(&snow::params::DHChoice::Curve25519).expect("25519 is built in")
}

impl Secrets {
    /// A host's secrets, on Curve25519.
    #[must_use]
    pub fn new(private_key: [u8; 32]) -> Self {
        Self { private_key: Zeroizing::new(private_key), fleet_secret: None, curve: x25519 }
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

/// The initiator's side between its two messages.
pub struct Initiating {
    state: Box<HandshakeState>,
}

impl std::fmt::Debug for Initiating {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Initiating")
    }
}

/// Message 1, for a connector with the static key `peer_key`.
///
/// # Errors
/// If the peer's key is no key.
pub fn initiate(
    secrets: &Secrets,
    peer_key: &[u8; 32],
    binding: &Binding,
    hello: &Hello,
    random: &mut dyn Random,
) -> Result<(Initiating, Vec<u8>), HandshakeError> {
    let prologue = binding.prologue();
    let builder = builder(secrets, &prologue, random)?;
    let mut state = builder
        .remote_public_key(peer_key)
        .and_then(Builder::build_initiator)
        .map_err(|_| HandshakeError::Message)?;
    let message = write(&mut state, hello)?;
    Ok((Initiating { state: Box::new(state) }, message))
}

impl Initiating {
    /// Takes message 2.
    ///
    /// # Errors
    /// If it does not open.
    pub fn finish(mut self, message: &[u8]) -> Result<(Session, Hello), HandshakeError> {
        let hello = read(&mut self.state, message)?;
        Ok((session(&mut self.state), hello))
    }
}

/// The connector's side after message 1, before it is decided.
pub struct Answering {
    state: Box<HandshakeState>,
    /// What the initiator told.
    pub hello: Hello,
    /// The initiator's static key, proven by the message.
    pub peer_key: [u8; 32],
}

impl std::fmt::Debug for Answering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answering")
    }
}

/// Opens message 1.
///
/// # Errors
/// If it does not open.
pub fn answer(
    secrets: &Secrets,
    binding: &Binding,
    message: &[u8],
    random: &mut dyn Random,
) -> Result<Answering, HandshakeError> {
    let prologue = binding.prologue();
    let mut state =
        builder(secrets, &prologue, random)?.build_responder().map_err(|_| HandshakeError::Message)?;
    let hello = read(&mut state, message)?;
    let peer_key = state.get_remote_static().and_then(|key| key.try_into().ok());
    Ok(Answering { state: Box::new(state), hello, peer_key: peer_key.ok_or(HandshakeError::Message)? })
}

impl Answering {
    /// Message 2, and the keys.
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn accept(mut self, hello: &Hello) -> Result<(Session, Vec<u8>), HandshakeError> {
        let message = write(&mut self.state, hello)?;
        Ok((session(&mut self.state), message))
    }
}

/// The public key of a private one.
#[must_use]
pub fn public_key(private_key: &[u8; 32]) -> [u8; 32] {
    public_key_on(x25519, private_key)
}

/// The public key of a private one on `curve`.
///
/// # Panics
/// If its public keys do not have 32 bytes.
#[must_use]
pub fn public_key_on(curve: Curve, private_key: &[u8; 32]) -> [u8; 32] {
    let mut dh = curve();
    dh.set(private_key);
    dh.pubkey().try_into().expect("32 bytes")
}

fn builder<'a>(
    secrets: &'a Secrets,
    prologue: &'a [u8],
    random: &mut dyn Random,
) -> Result<Builder<'a>, HandshakeError> {
    let pattern = if secrets.fleet_secret.is_some() { PATTERN_PSK } else { PATTERN };
    let params: NoiseParams = pattern.parse().expect("a pattern of the library");
    let resolver = SeededResolver { seed: random_bytes(random), curve: secrets.curve };
    let mut builder = Builder::with_resolver(params, Box::new(resolver) as BoxedCryptoResolver);
    if let Some(secret) = &secrets.fleet_secret {
        builder = builder.psk(2, secret).map_err(|_| HandshakeError::Message)?;
    }
    builder
        .local_private_key(&secrets.private_key[..])
        .and_then(|builder| builder.prologue(prologue))
        .map_err(|_| HandshakeError::Message)
}

fn write(state: &mut HandshakeState, hello: &Hello) -> Result<Vec<u8>, HandshakeError> {
    let mut payload = [0; 64];
    hello.emit(&mut payload);
    let mut message = vec![0; 1024];
    let length = state.write_message(&payload, &mut message).map_err(|_| HandshakeError::Message)?;
    message.truncate(length);
    Ok(message)
}

fn read(state: &mut HandshakeState, message: &[u8]) -> Result<Hello, HandshakeError> {
    let mut payload = [0; 1024];
    let length = state.read_message(message, &mut payload).map_err(|_| HandshakeError::Message)?;
    let hello = Hello::parse(&payload[..length]).map_err(|_| HandshakeError::Payload)?;
    if hello.protocol_version == 1 { Ok(hello) } else { Err(HandshakeError::Payload) }
}

fn session(state: &mut HandshakeState) -> Session {
    let hash = state.get_handshake_hash().to_vec();
    let (to_connector, to_initiator) = state.dangerously_get_raw_split();
    let (to_connector, to_initiator) = (Zeroizing::new(to_connector), Zeroizing::new(to_initiator));
    Session {
        connection_id: hash[..16].try_into().expect("a handshake hash has 32 bytes"),
        to_connector: DirectionKeys::derive(&to_connector, &hash),
        to_initiator: DirectionKeys::derive(&to_initiator, &hash),
    }
}

/// The library's primitives, with ephemeral keys from our own source.
struct SeededResolver {
    seed: [u8; 32],
    curve: Curve,
}

struct SeededSnowRandom(SeededRandom);

impl SnowRandom for SeededSnowRandom {
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl CryptoResolver for SeededResolver {
    fn resolve_rng(&self) -> Option<Box<dyn SnowRandom>> {
        Some(Box::new(SeededSnowRandom(SeededRandom::new(&self.seed))))
    }
    fn resolve_dh(&self, _choice: &snow::params::DHChoice) -> Option<Box<dyn Dh>> {
        Some((self.curve)())
    }
    fn resolve_hash(&self, choice: &snow::params::HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }
    fn resolve_cipher(&self, choice: &snow::params::CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(byte: u8) -> Secrets {
        Secrets::new([byte; 32])
    }

    fn hello() -> Hello {
        Hello {
            protocol_version: 1,
            window: 32,
            seg_max: 1 << 20,
            process_id: 3,
            lane: 1,
            incarnation: 5,
            incarnation_nonce: [6; 16],
            nonce: [7; 16],
        }
    }

    fn binding() -> Binding {
        Binding {
            volume_id: [1; 16],
            initiator_lane: 1,
            connector_lane: 2,
            process_id: 3,
            serial: 4,
            nonce: [7; 16],
            incarnation: 5,
            incarnation_nonce_low: 6,
        }
    }

    #[test]
    fn both_sides_reach_the_same_keys() {
        let mut random = SeededRandom::new(&[9; 32]);
        let connector_key = public_key(&[2; 32]);
        let (initiating, first) =
            initiate(&secrets(1), &connector_key, &binding(), &hello(), &mut random).unwrap();
        let answering = answer(&secrets(2), &binding(), &first, &mut random).unwrap();
        assert_eq!(answering.peer_key, public_key(&[1; 32]));
        let (theirs, second) = answering.accept(&hello()).unwrap();
        let (ours, _) = initiating.finish(&second).unwrap();
        assert_eq!(ours.connection_id, theirs.connection_id);
        assert_eq!(ours.to_connector.page, theirs.to_connector.page);
        assert_eq!(ours.to_initiator.page, theirs.to_initiator.page);
        assert_ne!(ours.to_initiator.page, ours.to_connector.page);
    }

    /// Forward secrecy hangs on this: whoever learns the static keys later knows no ephemeral one.
    #[test]
    fn ephemeral_keys_come_from_the_random_source() {
        let ephemeral_keys = |seed: u8| {
            let mut random = SeededRandom::new(&[seed; 32]);
            let connector_key = public_key(&[2; 32]);
            let (_, first) =
                initiate(&secrets(1), &connector_key, &binding(), &hello(), &mut random).unwrap();
            let answering = answer(&secrets(2), &binding(), &first, &mut random).unwrap();
            let (_, second) = answering.accept(&hello()).unwrap();
            [first, second].map(|message| <[u8; 32]>::try_from(&message[..32]).unwrap())
        };
        let [first, second] = ephemeral_keys(9);
        let [other_first, other_second] = ephemeral_keys(8);
        let all = [first, second, other_first, other_second, public_key(&[0; 32])];
        assert_eq!(
            std::collections::BTreeSet::from(all).len(),
            all.len(),
            "all differ, and none is of zeros"
        );
        assert_eq!(ephemeral_keys(9), [first, second], "and from nothing else");
    }

    #[test]
    fn another_version_of_the_protocol_is_named() {
        let mut random = SeededRandom::new(&[9; 32]);
        let newer = Hello { protocol_version: 2, ..hello() };
        let connector_key = public_key(&[2; 32]);
        let (_, first) = initiate(&secrets(1), &connector_key, &binding(), &newer, &mut random).unwrap();
        let refused = answer(&secrets(2), &binding(), &first, &mut random).map(drop);
        assert_eq!(refused, Err(HandshakeError::Payload), "which is told as a version mismatch");
    }

    #[test]
    fn another_serial_or_key_does_not_open() {
        let mut random = SeededRandom::new(&[9; 32]);
        let connector_key = public_key(&[2; 32]);
        let (_, first) = initiate(&secrets(1), &connector_key, &binding(), &hello(), &mut random).unwrap();
        let other = Binding { serial: 5, ..binding() };
        assert!(answer(&secrets(2), &other, &first, &mut random).is_err());
        assert!(answer(&secrets(3), &binding(), &first, &mut random).is_err());
    }
}
