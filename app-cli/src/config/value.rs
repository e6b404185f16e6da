//! Values that check themselves while they are read, so that a mistake carries its place.
//!
//! Not here: what needs two values to judge (`host`, `volume`).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

/// `N` bytes written as hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Hex<const N: usize>(pub [u8; N]);

/// Id of a volume, drawn when it is created.
pub type VolumeId = Hex<16>;

/// Public key of a host (X25519) or of an admin (Ed25519).
pub type PublicKey = Hex<32>;

impl<const N: usize> FromStr for Hex<N> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0; N];
        if !decode_hex(text.as_bytes(), &mut bytes) {
            let remedy = match N {
                32 => "a public key, as `diskwire keygen` prints it",
                _ => "a volume's id, as `diskwire volume create` prints it",
            };
            let shown: String = text.chars().take(80).collect();
            let shown = crate::escape::name(shown);
            return Err(format!("`{shown}` is no {} hex digits; give {remedy}", 2 * N));
        }
        if bytes == [0; N] {
            return Err("a key or id of zeros only belongs to nobody; give the one that was printed".into());
        }
        Ok(Self(bytes))
    }
}

impl<const N: usize> TryFrom<String> for Hex<N> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<const N: usize> fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Fills `bytes` from twice as many hex digits; whether that went.
pub(crate) fn decode_hex(digits: &[u8], bytes: &mut [u8]) -> bool {
    let digit = |sign: u8| char::from(sign).to_digit(16);
    digits.len() == 2 * bytes.len()
        && digits.chunks_exact(2).zip(bytes).all(|(pair, byte)| {
            let value = digit(pair[0]).zip(digit(pair[1])).map(|(high, low)| 16 * high + low);
            value.and_then(|value| u8::try_from(value).ok()).map(|value| *byte = value).is_some()
        })
}

/// A path of this host: not empty, and without a NUL.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct FilePath(PathBuf);

impl FilePath {
    /// The path as seen from `base`.
    pub(super) fn from(self, base: &Path) -> PathBuf {
        base.join(self.0)
    }
}

impl TryFrom<String> for FilePath {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() || text.contains('\0') {
            return Err("an empty path; name a file or a folder, relative to this file or from / on");
        }
        Ok(Self(text.into()))
    }
}

/// A size, as a number of bytes or as text with a unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size(pub(super) u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size like \"64MiB\"")
            }

            fn visit_i64<E: serde::de::Error>(self, bytes: i64) -> Result<Size, E> {
                self.visit_str(&bytes.to_string())
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Size, E> {
                crate::byte_size::parse(text).map(|size| Size(size.0)).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_both_ways() {
        let text = "00ff10A0".repeat(4);
        let id: VolumeId = text.parse().unwrap();
        assert_eq!(id.to_string(), text.to_lowercase());
        for bad in ["", "0", &"0".repeat(32), &"g".repeat(32), &"+1".repeat(16), &"ab".repeat(17)] {
            assert!(bad.parse::<VolumeId>().is_err(), "{bad}");
        }
    }
}
