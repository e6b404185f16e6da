//! `diskwire bench crypto`: the suites that a segment could be sealed with, and the hashes, on this processor.
//!
//! Keeps true: one thread, segments of 1 MiB in place, all suites in turns in every round; what was sealed is opened again, and
//! a seal that does not open ends the command. Not here: which suite is used (`transfer_core::protocol::seal`).

use std::hint::black_box;
use std::time::Instant;

use aws_lc_rs::aead::{
    AES_256_GCM, AES_256_GCM_SIV, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use transfer_core::protocol::seal::XaesKey;
use transfer_core::transfer::root::SegmentHash;
use volume::BLOCK_BYTES;
use volume::header::{seal_fits, seal_page};

use super::super::CommandError;
use super::report::{Report, Row};
use super::rounds::{MIB, instructions, processor, spinner};
use crate::args::bench::BenchCryptoArgs;
use crate::exit::Exit;

/// A segment.
const SEGMENT_BYTES: usize = 1 << 20;
/// What stands for the header that a seal binds.
const ASSOCIATED: [u8; 256] = [7; 256];
/// Different segments, so that not all of them stay in the nearest cache.
const SEGMENTS: usize = 8;
/// Pages of one round, for each pass over the segments.
const PAGES: usize = 64;

type Tag = [u8; 16];
type Seal = Box<dyn Fn(u64, &mut [u8]) -> Tag>;
type Open = Box<dyn Fn(u64, &Tag, &mut [u8]) -> bool>;

/// Something that seals a segment in place and opens it again; the number makes its nonce.
struct Suite {
    name: &'static str,
    seal: Seal,
    open: Open,
}

impl Suite {
    fn xaes() -> Self {
        let (key, same) = (XaesKey::new(&[1; 32]), XaesKey::new(&[1; 32]));
        let nonce = |number: u64| {
            let mut nonce = [0; 24];
            nonce[..8].copy_from_slice(&number.to_le_bytes());
            nonce[16..].copy_from_slice(&number.to_le_bytes());
            nonce
        };
        Self {
            name: "XAES-256-GCM",
            seal: Box::new(move |number, bytes| key.seal(&nonce(number), &ASSOCIATED, bytes)),
            open: Box::new(move |number, tag, bytes| same.open(&nonce(number), &ASSOCIATED, tag, bytes)),
        }
    }

    fn of(name: &'static str, algorithm: &'static Algorithm) -> Self {
        let key = || LessSafeKey::new(UnboundKey::new(algorithm, &[1; 32]).expect("a key of 32 bytes"));
        let nonce = |number: u64| {
            let mut nonce = [0; 12];
            nonce[..8].copy_from_slice(&number.to_le_bytes());
            Nonce::assume_unique_for_key(nonce)
        };
        let (sealing, opening) = (key(), key());
        Self {
            name,
            seal: Box::new(move |number, bytes| {
                let aad = Aad::from(&ASSOCIATED);
                let tag = sealing.seal_in_place_separate_tag(nonce(number), aad, bytes);
                tag.expect("a MiB is below the limit").as_ref().try_into().expect("a tag has 16 bytes")
            }),
            open: Box::new(move |number, tag, bytes| {
                let aad = Aad::from(&ASSOCIATED);
                opening.open_in_place_separate_tag(nonce(number), aad, tag, bytes).is_ok()
            }),
        }
    }

    fn all() -> [Self; 4] {
        [
            Self::xaes(),
            Self::of("AES-256-GCM", &AES_256_GCM),
            Self::of("AES-256-GCM-SIV", &AES_256_GCM_SIV),
            Self::of("ChaCha20-Poly1305", &CHACHA20_POLY1305),
        ]
    }

    /// MiB a second of sealing and of opening `segments`, so many times each.
    fn run(&self, segments: &mut [Vec<u8>], passes: usize) -> Result<[f64; 2], CommandError> {
        let mut seconds = [0.0; 2];
        let mut tags = Vec::with_capacity(segments.len());
        for pass in 0..passes {
            let numbers = (pass * SEGMENTS) as u64..;
            tags.clear();
            let start = Instant::now();
            for (number, segment) in numbers.clone().zip(segments.iter_mut()) {
                tags.push((self.seal)(number, segment));
            }
            seconds[0] += start.elapsed().as_secs_f64();
            let start = Instant::now();
            let mut fits = true;
            for ((number, segment), tag) in numbers.zip(segments.iter_mut()).zip(&tags) {
                fits &= (self.open)(number, tag, segment);
            }
            seconds[1] += start.elapsed().as_secs_f64();
            if !fits {
                return Err(CommandError::BenchSeal { suite: self.name });
            }
        }
        Ok(seconds.map(|seconds| (passes * segments.len()) as f64 / seconds))
    }
}

/// How much is done.
struct Effort {
    rounds: usize,
    passes: usize,
}

impl Effort {
    fn of(quick: bool) -> Self {
        if quick { Self { rounds: 3, passes: 1 } } else { Self { rounds: 15, passes: 8 } }
    }
}

pub(super) fn run(args: &BenchCryptoArgs) -> Result<Exit, CommandError> {
    let spinner = spinner(args.json);
    let effort = Effort::of(args.quick);
    let suites = Suite::all();
    let mut segments: Vec<Vec<u8>> =
        (0..SEGMENTS).map(|index| vec![u8::try_from(index).expect("few"); SEGMENT_BYTES]).collect();
    let mut sealing: Vec<[Vec<f64>; 2]> = vec![Default::default(); suites.len()];
    let (mut hashing, mut pages) = (Vec::new(), [Vec::new(), Vec::new()]);
    for round in 1..=effort.rounds {
        spinner.set_message(format!("round {round} of {}", effort.rounds));
        for (suite, figures) in suites.iter().zip(&mut sealing) {
            let found = suite.run(&mut segments, effort.passes)?;
            figures.iter_mut().zip(found).for_each(|(figures, found)| figures.push(found));
        }
        hashing.push(hash(&segments, effort.passes));
        pages.iter_mut().zip(page(effort.passes)).for_each(|(figures, found)| figures.push(found));
    }
    spinner.finish_and_clear();
    let seconds = seconds_per_gib(&sealing[0][0], &hashing);
    let mut rows = Vec::new();
    for (suite, [seal, open]) in suites.iter().zip(sealing) {
        rows.push(Row::new(format!("{}, seal", suite.name), "MiB/s", seal));
        rows.push(Row::new(format!("{}, open", suite.name), "MiB/s", open));
    }
    rows.push(Row::new("BLAKE3 of a segment", "MiB/s", hashing));
    let [seal, check] = pages;
    rows.push(Row::new("keyed BLAKE3, seal of a page", "us", seal));
    rows.push(Row::new("keyed BLAKE3, check of a page", "us", check));
    rows.push(Row::new("XAES-256-GCM and BLAKE3, one side", "s/GiB", seconds));
    Report { bench: "crypto", conditions: conditions(&effort), rows, quick: args.quick }.finish(args.json)
}

fn conditions(effort: &Effort) -> Vec<String> {
    vec![
        processor(),
        instructions(),
        format!(
            "one thread; {} rounds of {} segments of 1 MiB, in place",
            effort.rounds,
            effort.passes * SEGMENTS
        ),
        "Diskwire seals with XAES-256-GCM, a new key for each segment".to_owned(),
        "not here: XChaCha20-Poly1305, which no crate of this program has".to_owned(),
    ]
}

/// MiB a second of the hash of a segment, as a transfer makes it.
fn hash(segments: &[Vec<u8>], passes: usize) -> f64 {
    let start = Instant::now();
    for _ in 0..passes {
        for segment in segments {
            black_box(SegmentHash::of(0, black_box(segment)));
        }
    }
    (passes * segments.len() * SEGMENT_BYTES) as f64 / MIB / start.elapsed().as_secs_f64()
}

/// Microseconds of sealing a page, and of checking it.
fn page(passes: usize) -> [f64; 2] {
    let (key, mut page) = ([3; 32], vec![5; BLOCK_BYTES]);
    let count = passes * PAGES;
    let start = Instant::now();
    for _ in 0..count {
        seal_page(black_box(&mut page), Some(&key));
    }
    let sealing = start.elapsed();
    let start = Instant::now();
    for _ in 0..count {
        black_box(seal_fits(black_box(&page), Some(&key)));
    }
    [sealing, start.elapsed()].map(|time| time.as_secs_f64() * 1e6 / count as f64)
}

/// What a side spends at least on a GiB, round by round.
fn seconds_per_gib(seal: &[f64], hash: &[f64]) -> Vec<f64> {
    seal.iter().zip(hash).map(|(seal, hash)| 1024.0 / seal + 1024.0 / hash).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_opens_what_it_sealed_and_nothing_else() {
        for suite in Suite::all() {
            let mut bytes = vec![9; 100];
            let tag = (suite.seal)(5, &mut bytes);
            assert_ne!(bytes, [9; 100], "{}", suite.name);
            assert!(!(suite.open)(6, &tag, &mut bytes.clone()), "{}", suite.name);
            assert!((suite.open)(5, &tag, &mut bytes), "{}", suite.name);
            assert_eq!(bytes, [9; 100], "{}", suite.name);
        }
    }

    #[test]
    fn a_gib_costs_both_passes() {
        let seconds = seconds_per_gib(&[1024.0, 512.0], &[1024.0, 2048.0]);
        assert_eq!(seconds, [2.0, 2.5]);
    }
}
