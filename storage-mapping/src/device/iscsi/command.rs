//! The commands that the device itself sends, and what their answers say.
//!
//! Keeps true: parsing never panics, reads nothing beyond what came, and trusts no length in it. Not here: commands of
//! others, which are passed on as they are.

use super::ffi::Answer;
use crate::block::request::ErrorSource;

/// GOOD.
pub(super) const GOOD: u8 = 0x00;
/// CHECK CONDITION.
pub(super) const CHECK_CONDITION: u8 = 0x02;
/// CONDITION MET.
const CONDITION_MET: u8 = 0x04;
/// RESERVATION CONFLICT.
pub(super) const RESERVATION_CONFLICT: u8 = 0x18;
/// The sense key RECOVERED ERROR.
const RECOVERED: u8 = 0x1;
/// The sense key UNIT ATTENTION.
const UNIT_ATTENTION: u8 = 0x6;

/// TEST UNIT READY.
pub(super) const TEST_UNIT_READY: [u8; 6] = [0; 6];
/// INQUIRY for the page Device Identification, up to 1,024 bytes.
pub(super) const INQUIRY_IDENTITY: [u8; 6] = [0x12, 1, 0x83, 4, 0, 0];
/// INQUIRY for the page Block Limits, up to 64 bytes.
pub(super) const INQUIRY_LIMITS: [u8; 6] = [0x12, 1, 0xb0, 0, 64, 0];
/// READ CAPACITY(16), up to 32 bytes.
pub(super) const READ_CAPACITY: [u8; 16] = [0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
/// MODE SENSE(6) for all pages without block descriptors, up to 192 bytes; only its header is looked at.
pub(super) const MODE_SENSE: [u8; 6] = [0x1a, 8, 0x3f, 0, 192, 0];
/// SYNCHRONIZE CACHE(16) of the whole unit.
pub(super) const SYNCHRONIZE_CACHE: [u8; 16] = [0x91, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// READ(16) (SBC-4, 5.16), in blocks of the unit.
pub(super) fn read(lba: u64, blocks: u32) -> [u8; 16] {
    transfer(0x88, 0, lba, blocks)
}

/// WRITE(16) (SBC-4, 5.41), in blocks of the unit; `fua` makes it durable before it is answered.
pub(super) fn write(lba: u64, blocks: u32, fua: bool) -> [u8; 16] {
    transfer(0x8a, if fua { 0x08 } else { 0 }, lba, blocks)
}

fn transfer(opcode: u8, flags: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut command = [0; 16];
    (command[0], command[1]) = (opcode, flags);
    for (place, byte) in command[2..10].iter_mut().enumerate() {
        *byte = (lba >> (56 - 8 * place)) as u8;
    }
    for (place, byte) in command[10..14].iter_mut().enumerate() {
        *byte = (blocks >> (24 - 8 * place)) as u8;
    }
    command
}

/// A number of which the highest byte comes first; zero where bytes are missing.
pub(super) fn number(bytes: &[u8], from: usize, length: usize) -> u64 {
    let bytes = from.checked_add(length).and_then(|end| bytes.get(from..end)).unwrap_or_default();
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What sense data say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sense {
    pub(super) key: u8,
    pub(super) asc: u8,
    pub(super) ascq: u8,
    /// They concern an earlier command.
    pub(super) is_deferred: bool,
}

impl Sense {
    /// Of both formats (SPC-5, 4.4); all zero where they are neither.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let byte = |place: usize| bytes.get(place).copied().unwrap_or_default();
        let (key, asc, ascq) = match byte(0) & 0x7f {
            0x70 | 0x71 => (byte(2), byte(12), byte(13)),
            0x72 | 0x73 => (byte(1), byte(2), byte(3)),
            _ => return Self::default(),
        };
        Self { key: key & 0x0f, asc, ascq, is_deferred: byte(0) & 1 == 1 }
    }
}

/// The unit attention that an answer is, if it is one.
pub(super) fn attention_in(answer: &Answer) -> Option<Sense> {
    let sense = Sense::parse(&answer.sense);
    let is_one = answer.status == CHECK_CONDITION && sense.key == UNIT_ATTENTION && !sense.is_deferred;
    is_one.then_some(sense)
}

/// What an answer says about a read, a write or a flush of so many bytes.
pub(super) fn outcome_of(answer: &Answer, length: usize) -> Result<(), ErrorSource> {
    let sense = Sense::parse(&answer.sense);
    let is_recovered = answer.status == CHECK_CONDITION && sense.key == RECOVERED && !sense.is_deferred;
    if !is_recovered && !matches!(answer.status, GOOD | CONDITION_MET) {
        let Sense { key, asc, ascq, is_deferred: deferred } = sense;
        return Err(ErrorSource::Scsi { status: answer.status, host_status: 0, key, asc, ascq, deferred });
    }
    if answer.missing == 0 {
        return Ok(());
    }
    let clamp = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    Err(ErrorSource::Short { expected: clamp(length), done: clamp(length.saturating_sub(answer.missing)) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn answer(status: u8, missing: usize, sense: &[u8]) -> Answer {
        Answer { status, missing, sense: sense.to_vec() }
    }

    #[test]
    fn transfers_are_as_the_standard_has_them() {
        assert_eq!(
            read(0x0102_0304_0506_0708, 0x1112_1314),
            [0x88, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0, 0]
        );
        assert_eq!(write(9, 8, true)[..10], [0x8a, 8, 0, 0, 0, 0, 0, 0, 0, 9]);
        assert_eq!(write(9, 8, false)[1], 0);
    }

    #[test]
    fn sense_of_both_formats_is_understood() {
        let mut fixed = [0; 18];
        (fixed[0], fixed[2], fixed[12], fixed[13]) = (0x70, 6, 0x29, 0);
        let attention = Sense { key: 6, asc: 0x29, ascq: 0, is_deferred: false };
        assert_eq!(Sense::parse(&fixed), attention);
        assert_eq!(Sense::parse(&[0x72, 6, 0x29, 0, 0, 0, 0, 0]), attention);
        assert!(Sense::parse(&[0x73, 3, 0x11, 0]).is_deferred);
        assert_eq!(attention_in(&answer(CHECK_CONDITION, 0, &fixed)), Some(attention));
        assert_eq!(attention_in(&answer(GOOD, 0, &fixed)), None);
    }

    #[test]
    fn an_answer_is_good_only_when_all_moved() {
        assert_eq!(outcome_of(&answer(GOOD, 0, &[]), 512), Ok(()));
        assert_eq!(
            outcome_of(&answer(GOOD, 512, &[]), 512),
            Err(ErrorSource::Short { expected: 512, done: 0 })
        );
        assert_eq!(outcome_of(&answer(CHECK_CONDITION, 0, &[0x72, 1, 0x17, 1]), 512), Ok(()));
        let deferred = outcome_of(&answer(CHECK_CONDITION, 0, &[0x73, 1, 0x17, 1]), 512);
        assert!(matches!(deferred, Err(ErrorSource::Scsi { deferred: true, .. })));
        let conflict = outcome_of(&answer(RESERVATION_CONFLICT, 512, &[]), 512);
        assert!(matches!(conflict, Err(ErrorSource::Scsi { status: 0x18, key: 0, .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, status: u8, missing: usize, from in any::<usize>(), length in 0_usize..9) {
            let answer = answer(status, missing, &bytes);
            let _ = (outcome_of(&answer, 512), attention_in(&answer), number(&bytes, from, length));
        }
    }
}
