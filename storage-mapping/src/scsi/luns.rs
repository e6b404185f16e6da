//! REPORT LUNS (SPC-6 6.33) and logical unit numbers (SAM-6 4.7).
//!
//! Keeps true: a logical unit number is eight bytes, compared as such. Not here: which unit answers under a number (`vpd`).

use std::fmt;

use super::number::{clipped, length_at, put, put_length, u32_at};
use super::{command, opcode};
use crate::control_port::{Cdb, ControlCommand, Transfer};

/// REPORT LUNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReportLuns {
    /// SELECT REPORT: 0 ordinary units, 1 well known ones, 2 both.
    pub select: u8,
    /// The most bytes that may come; at least 16.
    pub allocation: u32,
}

impl ReportLuns {
    /// The command.
    #[must_use]
    pub fn command(self) -> ControlCommand {
        let mut cdb = [0; 12];
        (cdb[0], cdb[2]) = (opcode::REPORT_LUNS, self.select);
        put(&mut cdb, 6, 4, self.allocation);
        command(&cdb, Transfer::In(self.allocation as usize))
    }

    /// Reads the command; `None` where it is another one.
    #[must_use]
    pub fn parse(cdb: &Cdb) -> Option<Self> {
        let bytes = cdb.bytes();
        if bytes.len() != 12 || bytes[0] != opcode::REPORT_LUNS {
            return None;
        }
        Some(Self { select: bytes[2], allocation: u32_at(bytes, 6)? })
    }
}

/// A logical unit number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lun(pub [u8; 8]);

impl Lun {
    /// A unit of one level: below 256 in peripheral, below 16,384 in flat addressing; `None` above.
    #[must_use]
    pub fn of_number(number: u16) -> Option<Self> {
        let mut lun = [0; 8];
        put(&mut lun, 0, 2, if number < 0x100 { number } else { number | 0x4000 });
        (number < 0x4000).then_some(Self(lun))
    }

    /// The number of a unit of one level in peripheral (bus 0) or flat addressing.
    #[must_use]
    pub fn number(self) -> Option<u16> {
        let [first, second, rest @ ..] = self.0;
        let number = u16::from(first & 0x3f) << 8 | u16::from(second);
        let is_simple = first == 0 || first >> 6 == 1;
        (is_simple && rest == [0; 6]).then_some(number)
    }
}

impl fmt::Display for Lun {
    /// Its number, or its sixteen hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number() {
            Some(number) => write!(f, "{number}"),
            None => self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

/// What REPORT LUNS brings back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LunList {
    /// The numbers.
    pub luns: Vec<Lun>,
    /// Whether all came.
    pub is_whole: bool,
}

impl LunList {
    /// Reads it; `None` where not even the length came.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, came) = clipped(bytes, 8, length_at(bytes, 0)?);
        let (luns, rest) = body.as_chunks::<8>();
        Some(Self { luns: luns.iter().copied().map(Lun).collect(), is_whole: came && rest.is_empty() })
    }

    /// Its bytes.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        put_length(&mut bytes, 0, 4, 8 * self.luns.len());
        self.luns.iter().for_each(|lun| bytes.extend(lun.0));
        bytes
    }
}
