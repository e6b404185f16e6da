//! Rows that a user adds in his configuration, one a line:
//!
//! ```text
//!   WORDS OPCODE[-OPCODE] [AT:MASK=VALUE]... [override] CLASS REPEAT NAME
//!   scsi c1 1:1f=05 portable yes vendor counters
//! ```
//!
//! WORDS is `scsi`, `nvme-admin` or `nvme-io`; AT is decimal: the byte of a command descriptor block, or the command dword;
//! the other numbers are hexadecimal. CLASS and REPEAT are the words of the table.
//!
//! Keeps true: commands of a vendor and those without a row are the user's to judge; a row for a command that the shipped
//! table knows wants the word `override`, and where that makes a *never* repeatable it leaves a notice, so that nothing
//! is loosened by chance or in silence. Not here: where the lines come from.

use std::borrow::Cow;

use thiserror::Error;

use super::row::{BITS_MAX, Bits, Class, Repeat, Row, Verify, Words};
use super::{scsi_primary, shipped};

/// Why a line is no row. The line is named as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UserRowError {
    /// It has another form.
    #[error("`{line}`: {part}; a row is WORDS OPCODE [AT:MASK=VALUE]... [override] CLASS REPEAT NAME")]
    Form {
        /// The line.
        line: String,
        /// What is wrong with it.
        part: &'static str,
    },
    /// The shipped table has a row for such a command.
    #[error(
        "`{line}`: the table knows this command as {known}; write `override` before the class if you know better"
    )]
    Known {
        /// The line.
        line: String,
        /// The shipped row.
        known: String,
    },
    /// No command is known that tells whether it was executed.
    #[error("`{line}`: nothing is known that verifies it: write `never` or `yes`")]
    NothingVerifies {
        /// The line.
        line: String,
    },
}

/// Rows of the user.
#[derive(Clone, Debug, Default)]
pub struct UserRows {
    rows: Vec<Row>,
    notices: Vec<String>,
}

impl UserRows {
    /// Reads lines; empty ones, and those that begin with `#`, say nothing.
    ///
    /// # Errors
    /// The first line that is no row.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, UserRowError> {
        let mut own = Self::default();
        for line in lines.into_iter().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            own.add(line)?;
        }
        Ok(own)
    }

    /// The rows, in the order in which they are looked through.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// What the user should be told: which commands became repeatable against the shipped table.
    #[must_use]
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    fn add(&mut self, line: &str) -> Result<(), UserRowError> {
        let (mut row, overrides) = parse_row(line)?;
        let vendor = scsi_primary::VENDOR_ROWS;
        let is_known = |known: &&Row| !vendor.contains(known) && !known.name.contains("of the vendor");
        let known: Vec<&Row> = shipped().filter(is_known).filter(|known| known.overlaps(&row)).collect();
        if let Some(first) = known.first() {
            if !overrides {
                return Err(UserRowError::Known { line: line.to_owned(), known: first.to_string() });
            }
            row.verify = first.verify;
            row.access = first.access;
        }
        if row.repeat == Repeat::Verify && row.verify == Verify::None {
            return Err(UserRowError::NothingVerifies { line: line.to_owned() });
        }
        let loosened = |known: &&&Row| known.repeat == Repeat::Never && row.repeat != Repeat::Never;
        for known in known.iter().filter(loosened) {
            self.notices.push(format!("`{line}` lets {} be repeated, which the table forbids", known.name));
        }
        self.rows.push(row);
        Ok(())
    }
}

/// A row, and whether it says `override`.
fn parse_row(line: &str) -> Result<(Row, bool), UserRowError> {
    let bad = |part| UserRowError::Form { line: line.to_owned(), part };
    let mut rest = line;
    let mut next = || {
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = after.trim_start();
        word
    };
    let words = [Words::Scsi, Words::NvmeAdmin, Words::NvmeIo];
    let word = next();
    let words =
        words.into_iter().find(|known| known.word() == word).ok_or(bad("it begins with no known word"))?;
    let opcodes = parse_opcodes(next()).ok_or(bad("the opcode is no hexadecimal byte or range of them"))?;
    let mut row = Row::new(words, opcodes, "", Class::Exact, Repeat::Never);
    let mut word = next();
    let mut count = 0;
    while word.contains(':') {
        let bits =
            parse_bits(word).ok_or(bad("bits are AT:MASK=VALUE, and the value lies within the mask"))?;
        if count == BITS_MAX {
            return Err(bad("more than three selections by bits"));
        }
        row.bits[count] = bits;
        count += 1;
        word = next();
    }
    let overrides = word == "override";
    if overrides {
        word = next();
    }
    row.class = *Class::ALL.iter().find(|class| class.word() == word).ok_or(bad("the class is not one"))?;
    let word = next();
    row.repeat =
        *Repeat::ALL.iter().find(|repeat| repeat.word() == word).ok_or(bad("the repeat is not one"))?;
    if rest.is_empty() {
        return Err(bad("it has no name"));
    }
    row.name = Cow::Owned(rest.to_owned());
    row.reason = "the configuration says so";
    row.is_of_user = true;
    Ok((row, overrides))
}

pub(super) fn parse_opcodes(word: &str) -> Option<(u8, u8)> {
    let byte = |text| u8::from_str_radix(text, 16).ok();
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (byte(first)?, byte(last)?);
    (first <= last).then_some((first, last))
}

pub(super) fn parse_bits(word: &str) -> Option<Bits> {
    let (at, rest) = word.split_once(':')?;
    let (mask, value) = rest.split_once('=')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    let bits = Bits { at: at.parse().ok()?, mask: number(mask)?, value: number(value)? };
    (bits.mask != 0 && bits.value & !bits.mask == 0).then_some(bits)
}
