//! Names of hosts, exports and devices.
//!
//! They stand before and after the colon of `HOST:EXPORT/PATH`, in file names of the lab and in the
//! volume's tables, so they are made of letters, digits, `.`, `_` and `-`, begin with a letter or a digit and
//! have at most 63 bytes. Not here: names of files, which may be anything.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use thiserror::Error;

/// The longest name, in bytes: the tables hold 64, zero padded.
pub const NAME_MAX_BYTES: usize = 63;

/// A name of a host, an export or a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Name(String);

/// A text that is no name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not a name; use 1 to {NAME_MAX_BYTES} letters, digits, `.`, `_`, `-`, the first a letter or digit"
)]
pub struct NotAName(String);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let fits = text.len() <= NAME_MAX_BYTES
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.chars().all(|sign| sign.is_ascii_alphanumeric() || ".-_".contains(sign));
        if fits { Ok(Self(text.to_owned())) } else { Err(NotAName(crate::escape::name(text))) }
    }
}

impl TryFrom<String> for Name {
    type Error = NotAName;

    fn try_from(text: String) -> Result<Self, NotAName> {
        text.parse()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        let longest = "a".repeat(63);
        for good in ["alpha", "db-1.example", "A_b", "0", longest.as_str()] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        let too_long = "a".repeat(64);
        for bad in ["", ".", "..", "-n", "_x", "a b", "a/b", "a:b", "ä", "a\n", too_long.as_str()] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }
}
