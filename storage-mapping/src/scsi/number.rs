//! Big-endian numbers of SCSI structures.
//!
//! Keeps true: reading beyond what came gives `None`. Not here: what a number means.

/// `N` bytes at `at` as one number, if they came. `N` is at most 8.
fn number_at<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(N)?)?;
    Some(field.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
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
    number_at::<8>(bytes, at)
}

/// A length of four bytes at `at`.
pub(super) fn length_at(bytes: &[u8], at: usize) -> Option<usize> {
    u32_at(bytes, at).and_then(|length| usize::try_from(length).ok())
}

/// The lowest `width` bytes of a number, first the highest.
fn digits(number: u64, width: usize) -> impl Iterator<Item = u8> {
    (0..width).rev().map(move |place| (number >> (8 * place) & 0xff) as u8)
}

/// Adds a number of `width` bytes.
pub(super) fn push(bytes: &mut Vec<u8>, width: usize, number: impl Into<u64>) {
    bytes.extend(digits(number.into(), width));
}

/// Puts a number of `width` bytes at `at`.
///
/// # Panics
/// If it does not lie within `bytes`.
pub(super) fn put(bytes: &mut [u8], at: usize, width: usize, number: impl Into<u64>) {
    for (place, digit) in bytes[at..at + width].iter_mut().zip(digits(number.into(), width)) {
        *place = digit;
    }
}

/// Puts a length of `width` bytes at `at`.
///
/// # Panics
/// If the length does not fit the field: what is emitted is ours, and short.
pub(super) fn put_length(bytes: &mut [u8], at: usize, width: usize, length: usize) {
    let length = length as u64;
    assert!(length >> (8 * width) == 0, "{length} bytes do not fit a length field of {width} bytes");
    put(bytes, at, width, length);
}

/// What came of the `length` bytes from `at` on, and whether all of them came.
pub(super) fn clipped(bytes: &[u8], at: usize, length: usize) -> (&[u8], bool) {
    let rest = bytes.get(at..).unwrap_or_default();
    (&rest[..length.min(rest.len())], bytes.len() >= at && rest.len() >= length)
}

/// A field of text: without what pads it, and nothing in it that is not a printable character of ASCII.
pub(crate) fn text(field: &[u8]) -> String {
    let text: String = field
        .iter()
        .map(|byte| match byte {
            0x20..=0x7e => char::from(*byte),
            0 => ' ',
            _ => '?',
        })
        .collect();
    text.trim_end().to_owned()
}

/// Puts text into a field and pads it with spaces; what does not fit is left out.
pub(crate) fn put_text(field: &mut [u8], text: &str) {
    field.fill(b' ');
    for (place, byte) in field.iter_mut().zip(text.bytes()) {
        *place = if byte.is_ascii_graphic() || byte == b' ' { byte } else { b'?' };
    }
}
