//! Inputs made from a corpus without a fuzzer: for the tests that run on every machine.
//!
//! What holds: the same seed gives the same inputs. Not here: guidance by coverage, which found the corpus.

use crate::chance::Chance;

/// Bytes of an input, at most.
const LENGTH_MAX: usize = 4096;

/// An input made of one or two of `corpus`.
///
/// # Panics
/// If the corpus is empty.
pub fn mutated(chance: &mut Chance, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = chance.pick(corpus).clone();
    for _ in 0..=chance.below(4) {
        mutate(chance, &mut bytes, corpus);
    }
    bytes.truncate(LENGTH_MAX);
    bytes
}

fn mutate(chance: &mut Chance, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let at = chance.index(bytes.len() + 1);
    let byte = chance.bits().to_le_bytes()[0];
    match chance.below(9) {
        0 | 1 if at < bytes.len() => bytes[at] ^= 1 << (byte % 8),
        2 | 3 if at < bytes.len() => bytes[at] = byte,
        4 => bytes.insert(at, byte),
        5 if at < bytes.len() => drop(bytes.remove(at)),
        6 => bytes.truncate(at),
        7 => {
            // The end of another one behind the beginning of this.
            let other = chance.pick(corpus);
            let from = chance.index(other.len() + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        8 => {
            let end = at + chance.index(bytes.len() - at + 1);
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        _ => bytes.extend_from_slice(&chance.bits().to_le_bytes()),
    }
}
