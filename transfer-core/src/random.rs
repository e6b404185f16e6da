//! Where random bytes come from: a passed-in source, so that a simulator can replay a run.

/// A source of random bytes fit for keys and nonces.
pub trait Random: Send {
    /// Fills `bytes`.
    fn fill(&mut self, bytes: &mut [u8]);
}

/// `N` random bytes.
pub fn random_bytes<const N: usize>(random: &mut dyn Random) -> [u8; N] {
    let mut bytes = [0; N];
    random.fill(&mut bytes);
    bytes
}

/// Random bytes from a 32-byte seed: BLAKE3 in counter mode. For simulation, and for the ephemeral keys
/// of a handshake whose seed came from a real source.
#[derive(Clone, Debug)]
pub struct SeededRandom {
    reader: blake3::OutputReader,
}

impl SeededRandom {
    /// The stream of `seed`.
    #[must_use]
    pub fn new(seed: &[u8; 32]) -> Self {
        Self { reader: blake3::Hasher::new_keyed(seed).finalize_xof() }
    }
}

impl Random for SeededRandom {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.reader.fill(bytes);
    }
}
