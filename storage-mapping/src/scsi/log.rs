//! LOG SENSE and LOG SELECT (SPC-6 6.8 and 6.7), log pages (7.3).
//!
//! Keeps true: a parameter that did not come whole is left out; each is kept to the byte, and what it means is read from it
//! when asked. Not here: who resets counters (`multipath::out_of_band`).

use super::number::{clipped, put, put_length, u16_at};
use super::{command, opcode};
use crate::control_port::{Cdb, ControlCommand, Transfer};

/// Page codes.
pub mod code {
    /// The list of pages.
    pub const SUPPORTED: u8 = 0x00;
    /// Counters of write errors.
    pub const WRITE_ERRORS: u8 = 0x02;
    /// Counters of read errors.
    pub const READ_ERRORS: u8 = 0x03;
    /// Counters of verify errors.
    pub const VERIFY_ERRORS: u8 = 0x05;
    /// Errors that no medium caused.
    pub const NON_MEDIUM_ERRORS: u8 = 0x06;
    /// Temperature.
    pub const TEMPERATURE: u8 = 0x0d;
    /// Start and stop cycles.
    pub const START_STOP: u8 = 0x0e;
    /// Results of self-tests.
    pub const SELF_TEST: u8 = 0x10;
    /// Solid state media.
    pub const SOLID_STATE: u8 = 0x11;
    /// Background scan.
    pub const BACKGROUND_SCAN: u8 = 0x15;
    /// Of the protocol of the port.
    pub const PROTOCOL_PORT: u8 = 0x18;
    /// Transitions between power conditions.
    pub const POWER: u8 = 0x1a;
    /// Informational exceptions.
    pub const EXCEPTIONS: u8 = 0x2f;
}

/// In [`LogSense::subpage`]: all subpages.
pub const ALL_SUBPAGES: u8 = 0xff;

/// The name of a page; a general one where it is not known.
#[must_use]
pub fn page_name(page: u8) -> &'static str {
    match page {
        code::SUPPORTED => "supported pages",
        0x01 => "buffer over-run or under-run",
        code::WRITE_ERRORS => "write error counters",
        code::READ_ERRORS => "read error counters",
        0x04 => "read reverse error counters",
        code::VERIFY_ERRORS => "verify error counters",
        code::NON_MEDIUM_ERRORS => "non-medium errors",
        0x07 => "last error events",
        0x08 => "format status",
        0x0b => "last deferred errors",
        0x0c => "logical block provisioning",
        code::TEMPERATURE => "temperature",
        code::START_STOP => "start-stop cycles",
        0x0f => "application client",
        code::SELF_TEST => "self-test results",
        code::SOLID_STATE => "solid state media",
        0x14 => "zoned block device statistics",
        code::BACKGROUND_SCAN => "background scan",
        code::PROTOCOL_PORT => "protocol specific port",
        0x19 => "general statistics and performance",
        code::POWER => "power condition transitions",
        code::EXCEPTIONS => "informational exceptions",
        0x30..=0x3e => "vendor specific page",
        _ => "reserved page",
    }
}

/// Which values of a log page (PC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LogValues {
    /// Thresholds.
    Thresholds,
    /// Cumulative values.
    #[default]
    Cumulative,
    /// Default thresholds.
    DefaultThresholds,
    /// Default cumulative values.
    DefaultCumulative,
}

impl LogValues {
    fn of(byte: u8) -> Self {
        match byte >> 6 {
            0 => Self::Thresholds,
            1 => Self::Cumulative,
            2 => Self::DefaultThresholds,
            _ => Self::DefaultCumulative,
        }
    }
}

/// LOG SENSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogSense {
    /// SP: the values are saved first.
    pub save: bool,
    /// Which values.
    pub values: LogValues,
    /// Page, 6 bits.
    pub page: u8,
    /// Subpage.
    pub subpage: u8,
    /// The first parameter that is asked for.
    pub from_parameter: u16,
    /// The most bytes that may come.
    pub allocation: u16,
}

impl LogSense {
    /// The cumulative values of a page.
    #[must_use]
    pub fn new(page: u8, allocation: u16) -> Self {
        let values = LogValues::Cumulative;
        Self { save: false, values, page, subpage: 0, from_parameter: 0, allocation }
    }

    /// The command.
    #[must_use]
    pub fn command(self) -> ControlCommand {
        let page = (self.values as u8) << 6 | self.page & 0x3f;
        let mut cdb = [opcode::LOG_SENSE, self.save.into(), page, self.subpage, 0, 0, 0, 0, 0, 0];
        put(&mut cdb, 5, 2, self.from_parameter);
        put(&mut cdb, 7, 2, self.allocation);
        command(&cdb, Transfer::In(self.allocation.into()))
    }

    /// Reads the command; `None` where it is another one.
    #[must_use]
    pub fn parse(cdb: &Cdb) -> Option<Self> {
        let bytes = cdb.bytes();
        if bytes.len() != 10 || bytes[0] != opcode::LOG_SENSE {
            return None;
        }
        Some(Self {
            save: bytes[1] & 1 != 0,
            values: LogValues::of(bytes[2]),
            page: bytes[2] & 0x3f,
            subpage: bytes[3],
            from_parameter: u16_at(bytes, 5)?,
            allocation: u16_at(bytes, 7)?,
        })
    }
}

/// LOG SELECT.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogSelect {
    /// PCR: resets parameters.
    pub reset: bool,
    /// SP: the values are saved.
    pub save: bool,
    /// Which values.
    pub values: LogValues,
    /// Page, 6 bits; with an empty list 0 is all pages.
    pub page: u8,
    /// Subpage.
    pub subpage: u8,
    /// The parameter list as it goes out; empty for a reset.
    pub list: Vec<u8>,
}

impl LogSelect {
    /// Resets the cumulative values of a page.
    #[must_use]
    pub fn reset(page: u8) -> Self {
        let values = LogValues::Cumulative;
        Self { reset: true, save: false, values, page, subpage: 0, list: Vec::new() }
    }

    /// The command.
    ///
    /// # Panics
    /// If the list is longer than 65,535 bytes.
    #[must_use]
    pub fn command(&self) -> ControlCommand {
        let flags = u8::from(self.reset) << 1 | u8::from(self.save);
        let page = (self.values as u8) << 6 | self.page & 0x3f;
        let mut cdb = [opcode::LOG_SELECT, flags, page, self.subpage, 0, 0, 0, 0, 0, 0];
        put_length(&mut cdb, 7, 2, self.list.len());
        let is_empty = self.list.is_empty();
        command(&cdb, if is_empty { Transfer::None } else { Transfer::Out(self.list.clone()) })
    }

    /// Reads the command and its list; `None` where it is another one, or the list has another length than it says.
    #[must_use]
    pub fn parse(cdb: &Cdb, data: &[u8]) -> Option<Self> {
        let bytes = cdb.bytes();
        if bytes.len() != 10 || bytes[0] != opcode::LOG_SELECT || usize::from(u16_at(bytes, 7)?) != data.len()
        {
            return None;
        }
        Some(Self {
            reset: bytes[1] & 2 != 0,
            save: bytes[1] & 1 != 0,
            values: LogValues::of(bytes[2]),
            page: bytes[2] & 0x3f,
            subpage: bytes[3],
            list: data.to_vec(),
        })
    }
}

/// A log parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LogParameter {
    /// Its code.
    pub code: u16,
    /// The control byte as it came.
    pub control: u8,
    /// Its value, at most 255 bytes.
    pub value: Vec<u8>,
}

impl LogParameter {
    /// A value of one to eight bytes as a number.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        let is_number = (1..=8).contains(&self.value.len());
        is_number.then(|| self.value.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

/// What a log page says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LogBody {
    /// Page 00h: codes of the pages that there are.
    Pages(Vec<u8>),
    /// Page 00h, subpage FFh: and their subpages.
    PagesAndSubpages(Vec<(u8, u8)>),
    /// Parameters.
    Parameters(Vec<LogParameter>),
}

/// A log page.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogPage {
    /// DS: its values are not saved.
    pub unsaved: bool,
    /// Page, 6 bits.
    pub code: u8,
    /// Subpage, where it has one (SPF).
    pub subpage: Option<u8>,
    /// What it says.
    pub body: LogBody,
    /// Whether all came.
    pub is_whole: bool,
}

impl LogPage {
    /// A page of parameters.
    #[must_use]
    pub fn of_parameters(code: u8, parameters: Vec<LogParameter>) -> Self {
        Self { unsaved: false, code, subpage: None, body: LogBody::Parameters(parameters), is_whole: true }
    }

    /// Reads a page; `None` where not even its head came.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (first, second, length) = (*bytes.first()?, *bytes.get(1)?, usize::from(u16_at(bytes, 2)?));
        let (body, came) = clipped(bytes, 4, length);
        let (code, subpage) = (first & 0x3f, (first & 0x40 != 0).then_some(second));
        let (body, fits) = match (code, subpage) {
            (code::SUPPORTED, None) => (LogBody::Pages(body.to_vec()), true),
            (code::SUPPORTED, Some(ALL_SUBPAGES)) => {
                let (pairs, rest) = body.as_chunks::<2>();
                (
                    LogBody::PagesAndSubpages(pairs.iter().map(|[page, sub]| (*page, *sub)).collect()),
                    rest.is_empty(),
                )
            }
            _ => {
                let (parameters, fits) = parse_parameters(body);
                (LogBody::Parameters(parameters), fits)
            }
        };
        Some(Self { unsaved: first & 0x80 != 0, code, subpage, body, is_whole: came && fits })
    }

    /// Its bytes.
    ///
    /// # Panics
    /// If they are more than 65,535, or a parameter has more than 255.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let first = u8::from(self.unsaved) << 7 | u8::from(self.subpage.is_some()) << 6 | self.code & 0x3f;
        let mut bytes = vec![first, self.subpage.unwrap_or(0), 0, 0];
        match &self.body {
            LogBody::Pages(pages) => bytes.extend_from_slice(pages),
            LogBody::PagesAndSubpages(pairs) => {
                pairs.iter().for_each(|(page, sub)| bytes.extend([*page, *sub]))
            }
            LogBody::Parameters(parameters) => {
                for parameter in parameters {
                    let at = bytes.len();
                    bytes.extend([0, 0, parameter.control, 0]);
                    put(&mut bytes, at, 2, parameter.code);
                    put_length(&mut bytes, at + 3, 1, parameter.value.len());
                    bytes.extend_from_slice(&parameter.value);
                }
            }
        }
        let length = bytes.len() - 4;
        put_length(&mut bytes, 2, 2, length);
        bytes
    }

    /// Its parameters; none for a list of pages.
    #[must_use]
    pub fn parameters(&self) -> &[LogParameter] {
        match &self.body {
            LogBody::Parameters(parameters) => parameters,
            LogBody::Pages(_) | LogBody::PagesAndSubpages(_) => &[],
        }
    }

    fn number(&self, code: u16) -> Option<u64> {
        self.parameters().iter().find(|parameter| parameter.code == code)?.number()
    }

    /// The counters of pages 02h, 03h, 05h; `None` for another page.
    #[must_use]
    pub fn error_counters(&self) -> Option<ErrorCounters> {
        if !matches!(self.code, code::WRITE_ERRORS | code::READ_ERRORS | code::VERIFY_ERRORS)
            || self.subpage.is_some()
        {
            return None;
        }
        Some(ErrorCounters {
            corrected_at_once: self.number(0),
            corrected_with_delay: self.number(1),
            repeated: self.number(2),
            corrected: self.number(3),
            corrections_run: self.number(4),
            bytes: self.number(5),
            uncorrected: self.number(6),
        })
    }

    /// The counter of page 06h.
    #[must_use]
    pub fn non_medium_errors(&self) -> Option<u64> {
        if self.code == code::NON_MEDIUM_ERRORS { self.number(0) } else { None }
    }

    /// Degrees Celsius of page 0Dh: now, and at most in operation; `None` where the device does not know.
    #[must_use]
    pub fn temperature(&self) -> Option<Temperature> {
        if self.code != code::TEMPERATURE || self.subpage.is_some_and(|subpage| subpage != 0) {
            return None;
        }
        let degrees =
            |code| self.number(code).map(|number| (number & 0xff) as u8).filter(|degrees| *degrees != 0xff);
        Some(Temperature { now: degrees(0), reference: degrees(1) })
    }
}

/// The parameters, and whether all of them came whole.
fn parse_parameters(mut body: &[u8]) -> (Vec<LogParameter>, bool) {
    let mut parameters = Vec::new();
    while let [first, second, control, length, ..] = *body {
        let (value, is_whole) = clipped(body, 4, length.into());
        if !is_whole {
            return (parameters, false);
        }
        let code = u16::from(first) << 8 | u16::from(second);
        parameters.push(LogParameter { code, control, value: value.to_vec() });
        body = &body[4 + value.len()..];
    }
    (parameters, body.is_empty())
}

/// Counters of errors; `None` where the device does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ErrorCounters {
    /// Corrected without delay.
    pub corrected_at_once: Option<u64>,
    /// Corrected with possible delay.
    pub corrected_with_delay: Option<u64>,
    /// Rewritten or reread.
    pub repeated: Option<u64>,
    /// Corrected in all.
    pub corrected: Option<u64>,
    /// How often the algorithm for corrections ran.
    pub corrections_run: Option<u64>,
    /// Bytes that were processed.
    pub bytes: Option<u64>,
    /// Not corrected.
    pub uncorrected: Option<u64>,
}

/// Degrees Celsius.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Temperature {
    /// Now.
    pub now: Option<u8>,
    /// The most at which the device works without end.
    pub reference: Option<u8>,
}
