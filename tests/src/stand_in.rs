//! A key exchange that costs nothing: for runs in which keys protect nothing.
//!
//! The group is that of the numbers below 2^61 − 1. Both sides reach the same secret and a wrong key does
//! not, which is all that the protocol needs from it; anybody could compute the private keys. One run in
//! fifty uses Curve25519. Not here: the rest of the handshake, which is the real one.

use snow::types::{Dh, Random};

/// A Mersenne prime.
const PRIME: u64 = (1 << 61) - 1;
/// Base of all powers.
const BASE: u64 = 37;
const KEY_BYTES: usize = 32;

/// An empty pair of keys.
#[must_use]
pub fn curve() -> Box<dyn Dh> {
    Box::new(Powers { private: [0; KEY_BYTES], public: [0; KEY_BYTES] })
}

struct Powers {
    private: [u8; KEY_BYTES],
    public: [u8; KEY_BYTES],
}

fn number(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
    words.fold(1, |sum, word| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
}

fn power(base: u64, mut exponent: u64) -> u64 {
    let times = |a: u64, b: u64| {
        u64::try_from(u128::from(a) * u128::from(b) % u128::from(PRIME)).expect("below the prime")
    };
    let (mut result, mut square) = (1, base % PRIME);
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = times(result, square);
        }
        square = times(square, square);
        exponent >>= 1;
    }
    result
}

fn bytes(number: u64) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

impl Dh for Powers {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_BYTES
    }

    fn priv_len(&self) -> usize {
        KEY_BYTES
    }

    fn set(&mut self, private: &[u8]) {
        self.private.copy_from_slice(private);
        self.public = bytes(power(BASE, number(private)));
    }

    fn generate(&mut self, random: &mut dyn Random) -> Result<(), snow::Error> {
        let mut private = [0; KEY_BYTES];
        random.try_fill_bytes(&mut private)?;
        self.set(&private);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &self.private
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let base: [u8; 8] = public[..8].try_into().map_err(|_| snow::Error::Dh)?;
        let shared = power(u64::from_le_bytes(base), number(&self.private));
        out[..KEY_BYTES].copy_from_slice(&bytes(shared));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_reach_one_secret_and_a_third_does_not() {
        let pair = |byte: u8| {
            let mut pair = curve();
            pair.set(&[byte; KEY_BYTES]);
            pair
        };
        let shared = |mine: &dyn Dh, theirs: &dyn Dh| {
            let mut out = [0; KEY_BYTES];
            mine.dh(theirs.pubkey(), &mut out).expect("any key is good");
            out
        };
        let (a, b, c) = (pair(1), pair(2), pair(3));
        assert_eq!(shared(a.as_ref(), b.as_ref()), shared(b.as_ref(), a.as_ref()));
        assert_ne!(shared(a.as_ref(), b.as_ref()), shared(c.as_ref(), b.as_ref()));
        assert_ne!(a.pubkey(), b.pubkey());
    }
}
