//! Sizes and times as people write them: `1.5GiB`, `2ms`.
//!
//! Keeps true: what is not a whole number of bytes or nanoseconds, or does not fit 64 bits, is an
//! error, not a rounding. Not here: sizes for people to read (`ByteSize` prints those).

use std::time::Duration;

use thiserror::Error;

/// Units of sizes; `K` is `KiB`, as in truncate(1).
const SIZE_UNITS: [(&str, u64); 15] = [
    ("", 1),
    ("B", 1),
    ("K", 1 << 10),
    ("KiB", 1 << 10),
    ("M", 1 << 20),
    ("MiB", 1 << 20),
    ("G", 1 << 30),
    ("GiB", 1 << 30),
    ("T", 1 << 40),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];
/// Units of times, in nanoseconds.
const TIME_UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Why a size or a time was not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// It does not start with a number.
    #[error("`{text}` is not a number with a unit, such as 64MiB or 2ms")]
    NotANumber {
        /// What was written.
        text: String,
    },
    /// A unit that is none, or none where one is needed.
    #[error("`{text}` has no unit known here: use one of {known}")]
    Unit {
        /// What was written.
        text: String,
        /// The units.
        known: &'static str,
    },
    /// Above 64 bits, or a fraction of the smallest unit.
    #[error("`{text}` is too large, or finer than can be told apart")]
    Range {
        /// What was written.
        text: String,
    },
}

/// Reads a size in bytes: `4096`, `64K`, `1.5GiB`, `2MB`.
///
/// # Errors
/// See [`QuantityError`].
pub fn parse_byte_size(text: &str) -> Result<u64, QuantityError> {
    parse(text, &SIZE_UNITS, "KiB, MiB, GiB, TiB (or K, M, G, T), kB, MB, GB, TB")
}

/// Reads a time: `2ms`, `1.5s`, `0`.
///
/// # Errors
/// See [`QuantityError`]; a time other than 0 needs a unit.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    parse(text, &TIME_UNITS, "ns, us, ms, s, min, h").map(Duration::from_nanos)
}

fn parse(text: &str, units: &[(&str, u64)], known: &'static str) -> Result<u64, QuantityError> {
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if whole.is_empty() || fraction.contains('.') || number.ends_with('.') {
        return Err(QuantityError::NotANumber { text: text.to_owned() });
    }
    let unit = unit.trim();
    let Some((_, scale)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(QuantityError::Unit { text: text.to_owned(), known });
    };
    let exact = || {
        let scaled = digits.parse::<u128>().ok()?.checked_mul(u128::from(*scale))?;
        let divisor = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let is_whole = scaled.is_multiple_of(divisor);
        is_whole.then(|| u64::try_from(scaled / divisor).ok()).flatten()
    };
    exact().ok_or_else(|| QuantityError::Range { text: text.to_owned() })
}

/// The shortest way to write a size exactly.
pub(crate) fn exact_byte_size(bytes: u64) -> String {
    write_exact(bytes, &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)], "")
}

/// The shortest way to write a time exactly.
pub(crate) fn exact_duration(time: Duration) -> String {
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    write_exact(nanoseconds, &[("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)], "ns")
}

fn write_exact(value: u64, units: &[(&str, u64)], smallest: &str) -> String {
    let fits = units.iter().find(|(_, scale)| value > 0 && value.is_multiple_of(*scale));
    fits.map_or_else(|| format!("{value}{smallest}"), |(unit, scale)| format!("{}{unit}", value / scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("512B", 512),
            ("64K", 65_536),
            ("1.5GiB", 3 << 29),
            ("2 MiB", 2 << 20),
            ("1TB", 1_000_000_000_000),
        ] {
            assert_eq!(parse_byte_size(text), Ok(bytes), "{text}");
        }
        assert_eq!(parse_duration("2ms"), Ok(Duration::from_millis(2)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn what_is_not_exact_is_an_error() {
        for text in ["", "K", ".5K", "1.", "1.2.3", "-1", "1QiB", "0.3", "99999999TiB", "1e3"] {
            assert!(parse_byte_size(text).is_err(), "{text}");
        }
        assert!(parse_duration("5").unwrap_err().to_string().contains("ms"));
    }

    #[test]
    fn exact_forms_parse_back() {
        for value in [0, 1, 1000, 1024, 1 << 20, 3 << 29, 1_500_000, u64::MAX] {
            assert_eq!(parse_byte_size(&exact_byte_size(value)), Ok(value));
            let time = Duration::from_nanos(value);
            assert_eq!(parse_duration(&exact_duration(time)), Ok(time));
        }
    }
}
