//! What a unit is asked after each login, as a pure machine: is it there, which one is it, how large is it.
//!
//! ```text
//!  ready ─▶ identity ─▶ capacity ─▶ limits ─▶ mode ─▶ done
//!    each step is asked again where a unit attention was the answer, 32 times in all
//! ```
//!
//! Keeps true: nothing but TEST UNIT READY, INQUIRY, READ CAPACITY and MODE SENSE is asked, none of which changes
//! anything; every unit attention that comes up is handed on. Not here: sending.

use super::command::{self, GOOD, RESERVATION_CONFLICT, Sense, attention_in, number};
use super::ffi::Answer;

/// Unit attentions that one login may bring.
const ATTENTIONS_MAX: usize = 32;
/// READ CAPACITY(16) has said all that is needed after these, in bytes.
const CAPACITY_BYTES: usize = 12;

/// What is known of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unit {
    /// The page Device Identification as it came; empty where there is none.
    pub(super) identity: Vec<u8>,
    /// Bytes of one of its blocks, and their number; `None` where a reservation hides them.
    pub(super) size: Option<(u32, u64)>,
    /// The most blocks of one transfer, where it says.
    pub(super) transfer_max_blocks: Option<u32>,
    /// A write can be made durable by a bit of its command.
    pub(super) has_fua: bool,
    /// Writes fail.
    pub(super) is_read_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Ready,
    Identity,
    Capacity,
    Limits,
    Mode,
}

/// What an answer led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The next command is to be sent.
    Next,
    /// A unit attention; then the same command again.
    Attention(Sense),
    /// All is known.
    Done(Unit),
}

/// A probe that goes on.
#[derive(Debug)]
pub(super) struct Probe {
    step: Step,
    attentions: usize,
    unit: Unit,
}

impl Probe {
    pub(super) fn new() -> Self {
        Self { step: Step::Ready, attentions: 0, unit: Unit::default() }
    }

    /// The command that is to be sent now, and how many bytes may come.
    pub(super) fn command(&self) -> (&'static [u8], usize) {
        match self.step {
            Step::Ready => (&command::TEST_UNIT_READY, 0),
            Step::Identity => (&command::INQUIRY_IDENTITY, 1024),
            Step::Capacity => (&command::READ_CAPACITY, 32),
            Step::Limits => (&command::INQUIRY_LIMITS, 64),
            Step::Mode => (&command::MODE_SENSE, 192),
        }
    }

    /// Takes the answer to it, with the bytes that came. An error is why the unit cannot be used, in words.
    pub(super) fn handle_answer(&mut self, answer: &Answer, bytes: &[u8]) -> Result<Progress, String> {
        if let Some(sense) = attention_in(answer) {
            self.attentions += 1;
            let is_too_much = self.attentions > ATTENTIONS_MAX;
            return if is_too_much {
                Err("unit attentions without end".to_owned())
            } else {
                Ok(Progress::Attention(sense))
            };
        }
        let is_good = answer.status == GOOD;
        self.step = match self.step {
            // Only an answer is asked for here: a unit that is reserved or not ready answers, too.
            Step::Ready => Step::Identity,
            Step::Identity => {
                if is_good {
                    self.unit.identity = bytes.to_vec();
                }
                Step::Capacity
            }
            Step::Capacity => {
                self.unit.size = size_in(answer, bytes)?;
                Step::Limits
            }
            Step::Limits => {
                // SBC-4, 6.6.4: MAXIMUM TRANSFER LENGTH, 0 where there is none.
                let blocks = if is_good { number(bytes, 8, 4) } else { 0 };
                self.unit.transfer_max_blocks = u32::try_from(blocks).ok().filter(|blocks| *blocks > 0);
                Step::Mode
            }
            Step::Mode => {
                // SBC-4, 6.5.1: WP and DPOFUA in the device-specific parameter of the header.
                let parameter = if is_good { number(bytes, 2, 1) } else { 0 };
                self.unit.has_fua = parameter & 0x10 != 0;
                self.unit.is_read_only = parameter & 0x80 != 0;
                return Ok(Progress::Done(std::mem::take(&mut self.unit)));
            }
        };
        Ok(Progress::Next)
    }
}

/// Bytes of a block and number of blocks (SBC-4, 5.21).
fn size_in(answer: &Answer, bytes: &[u8]) -> Result<Option<(u32, u64)>, String> {
    match answer.status {
        GOOD if bytes.len() >= CAPACITY_BYTES => {
            let block = u32::try_from(number(bytes, 8, 4)).expect("four bytes");
            let last = number(bytes, 0, 8);
            let blocks = last.checked_add(1).ok_or("a unit of 2^64 blocks, which cannot be")?;
            Ok(Some((block, blocks)))
        }
        GOOD => Err("an answer to READ CAPACITY(16) that is too short".to_owned()),
        RESERVATION_CONFLICT => Ok(None),
        status => {
            let Sense { key, asc, ascq, .. } = Sense::parse(&answer.sense);
            Err(format!(
                "the unit does not say its size: status {status:02x}h, sense {key:x}/{asc:02x}/{ascq:02x}"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::*;

    fn good() -> Answer {
        Answer { status: GOOD, missing: 0, sense: Vec::new() }
    }

    fn attention() -> Answer {
        Answer { status: command::CHECK_CONDITION, missing: 0, sense: vec![0x72, 6, 0x29, 0] }
    }

    fn capacity() -> [u8; 32] {
        let mut bytes = [0; 32];
        (bytes[7], bytes[10]) = (99, 2);
        bytes
    }

    #[test]
    fn a_unit_is_asked_for_all_there_is() {
        let mut probe = Probe::new();
        assert_eq!(probe.command(), (&[0; 6][..], 0));
        let reset = Sense { key: 6, asc: 0x29, ascq: 0, is_deferred: false };
        assert_eq!(probe.handle_answer(&attention(), &[]), Ok(Progress::Attention(reset)));
        assert_eq!(probe.command(), (&[0; 6][..], 0), "the attention stood in the way of this answer");
        let mut limits = [0; 64];
        limits[10] = 1;
        for bytes in [&[][..], b"who", &capacity(), &limits] {
            assert_eq!(probe.handle_answer(&good(), bytes), Ok(Progress::Next));
        }
        let unit = Unit {
            identity: b"who".to_vec(),
            size: Some((512, 100)),
            transfer_max_blocks: Some(256),
            has_fua: true,
            is_read_only: false,
        };
        assert_eq!(probe.handle_answer(&good(), &[3, 0, 0x10, 0]), Ok(Progress::Done(unit)));
    }

    #[test]
    fn attentions_end_some_time() {
        let mut probe = Probe::new();
        let answers: Vec<_> = (0..=ATTENTIONS_MAX).map(|_| probe.handle_answer(&attention(), &[])).collect();
        assert!(answers[..ATTENTIONS_MAX].iter().all(Result::is_ok) && answers[ATTENTIONS_MAX].is_err());
    }

    #[test]
    fn a_size_is_needed_and_must_be_one() {
        let at_capacity = || Probe { step: Step::Capacity, ..Probe::new() };
        assert!(at_capacity().handle_answer(&good(), &[0; 11]).is_err());
        assert!(at_capacity().handle_answer(&good(), &[0xff; 12]).is_err());
        let conflict = Answer { status: RESERVATION_CONFLICT, ..good() };
        assert_eq!(at_capacity().handle_answer(&conflict, &[]), Ok(Progress::Next));
    }

    proptest! {
        #[test]
        fn no_answers_make_it_panic(answers: Vec<(u8, Vec<u8>, Vec<u8>)>) {
            let mut probe = Probe::new();
            for (status, sense, bytes) in answers {
                let _ = probe.handle_answer(&Answer { status, missing: 0, sense }, &bytes);
            }
        }
    }
}
