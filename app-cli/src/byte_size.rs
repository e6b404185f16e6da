//! Sizes as people write them: `4096`, `512KiB`, `1.5GiB`, `2G`.
//!
//! `K`, `M`, `G`, `T` and `KiB`… are powers of 1,024, as in `dd` and `qemu-img`; `kB`, `MB`, `GB`, `TB`
//! are powers of 1,000. Not here: how a size is shown (`ByteSize`'s `Display`).

use storage_mapping::ByteSize;
use thiserror::Error;

/// A text that is no size.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a size; write bytes or a number with a unit, as in 4096, 512KiB or 2GiB")]
pub struct NotASize(String);

/// Reads a size.
///
/// # Errors
/// [`NotASize`] for anything else, fractions of a byte and sizes beyond 2⁶³ included.
pub fn parse(text: &str) -> Result<ByteSize, NotASize> {
    exact(text.trim()).map(ByteSize).ok_or_else(|| NotASize(crate::escape::name(text)))
}

fn exact(text: &str) -> Option<u64> {
    let digits_end = text.find(|sign: char| !sign.is_ascii_digit() && sign != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let unit = u128::from(unit_bytes(unit.trim_start())?);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 6 {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let scaled = (whole.parse::<u64>().ok()? as u128 * scale + fraction.parse::<u128>().ok()?) * unit;
    let bytes = u64::try_from(scaled / scale).ok()?;
    (scaled.is_multiple_of(scale) && bytes <= 1 << 63).then_some(bytes)
}

fn unit_bytes(unit: &str) -> Option<u64> {
    Some(match unit {
        "" | "B" => 1,
        "K" | "k" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4096B", 4096),
            ("512KiB", 512 << 10),
            ("1 MiB", 1 << 20),
            ("1.5GiB", 3 << 29),
            ("2G", 2 << 30),
            ("1MB", 1_000_000),
            (" 7k ", 7 << 10),
        ] {
            assert_eq!(parse(text), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["", "-1", "1.5", "GiB", "1e9", "1.", ".5M", "5 apples", "99999999TiB", "0x10", "1.0000001T"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
