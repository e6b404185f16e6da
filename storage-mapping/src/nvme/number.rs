//! Little-endian numbers of NVMe structures.
//!
//! Keeps true: reading beyond what came gives `None`. Not here: what a number means.

/// `N` bytes at `at` as one number, if they came. `N` is at most 16.
fn number_at<const N: usize>(bytes: &[u8], at: usize) -> Option<u128> {
    let field = bytes.get(at..at.checked_add(N)?)?;
    Some(field.iter().rev().fold(0, |number, byte| number << 8 | u128::from(*byte)))
}

/// Two bytes at `at`.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    number_at::<2>(bytes, at).and_then(|number| u16::try_from(number).ok())
}

/// Four bytes at `at`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    number_at::<4>(bytes, at).and_then(|number| u32::try_from(number).ok())
}

/// Eight bytes at `at`.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    number_at::<8>(bytes, at).and_then(|number| u64::try_from(number).ok())
}

/// Sixteen bytes at `at`.
pub(super) fn u128_at(bytes: &[u8], at: usize) -> Option<u128> {
    number_at::<16>(bytes, at)
}

/// Puts a number of `width` bytes at `at`.
///
/// # Panics
/// If it does not lie within `bytes`.
pub(super) fn put(bytes: &mut [u8], at: usize, width: usize, number: impl Into<u128>) {
    let number = number.into();
    for (place, byte) in bytes[at..at + width].iter_mut().enumerate() {
        *byte = (number >> (8 * place) & 0xff) as u8;
    }
}

/// Adds a number of `width` bytes.
pub(super) fn push(bytes: &mut Vec<u8>, width: usize, number: impl Into<u128>) {
    let at = bytes.len();
    bytes.resize(at + width, 0);
    put(bytes, at, width, number);
}

/// `N` bytes at `at`; zeros where they did not come.
pub(super) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk().copied()).unwrap_or([0; N])
}
