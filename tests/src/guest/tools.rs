//! What the programs that ours are compared with print, as values.
//!
//! Keeps true: what is not there is a failure of the test that wants it. Not here: what the values should be.

use std::collections::BTreeMap;

/// The bytes of hexadecimal digits, on one line or several.
///
/// # Panics
/// Where they are none.
#[must_use]
pub fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<u8> = hexadecimal.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pair =
        |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    digits
        .chunks(2)
        .map(|digits| pair(digits).unwrap_or_else(|| panic!("no digits: {hexadecimal}")))
        .collect()
}

/// The numbers of a text such as `PQual=0  [AERC=0]  version=0x05`.
#[must_use]
pub fn numbers(text: &str) -> BTreeMap<&str, u64> {
    let parse = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let words = text.split(|c: char| c.is_whitespace() || "[](),".contains(c));
    words
        .filter_map(|word| word.split_once('='))
        .filter_map(|(name, value)| Some((name, parse(value)?)))
        .collect()
}

/// What stands after the label, in the line that has it.
///
/// # Panics
/// Where no line has it.
#[must_use]
pub fn labelled<'a>(text: &'a str, label: &str) -> &'a str {
    let found = text.lines().find_map(|line| line.trim().strip_prefix(label));
    found.unwrap_or_else(|| panic!("no {label} in {text}")).trim()
}

/// Values that stand alone in their lines: `0x` and digits.
pub fn lines_of_digits(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.trim().strip_prefix("0x"))
}

/// The keys that `sg_persist` lists, with the generation.
///
/// # Panics
/// Where it says no generation.
#[must_use]
pub fn listed_keys(text: &str) -> (u64, Vec<u64>) {
    let generation = numbers(text).get("generation").copied();
    let keys = lines_of_digits(text).filter_map(|digits| u64::from_str_radix(digits, 16).ok()).collect();
    (generation.unwrap_or_else(|| panic!("no generation in {text}")), keys)
}

/// The reservation that `sg_persist` shows: key of the holder, and type.
#[must_use]
pub fn shown_reservation(text: &str) -> Option<(u64, String)> {
    let key = *numbers(text).get("Key")?;
    let (_, kind) = text.split_once("  type:")?;
    Some((key, kind.trim().to_lowercase()))
}
