//! Pages of vital product data (SPC-6 7.7, SBC-5 6.6): what INQUIRY gives for a page code.
//!
//! * [`identification`]: page 83h, the names of the unit and of the port that answered;
//! * [`extended`]: pages 86h and 87h; [`block`]: pages B0h, B1h and B2h.
//!
//! Keeps true: a page that is not decoded here is kept as it came. Not here: asking for it (`inquiry`).

pub mod block;
pub mod extended;
pub mod identification;

pub use block::{BlockCharacteristics, BlockLimits, Provisioning};
pub use extended::{ExtendedFlags, ExtendedInquiry, PagePolicy, PolicyDescriptor};
pub use identification::{Association, Designator, DesignatorValue, PortIdentity};

use super::inquiry::Peripheral;
use super::number::{clipped, put_length, text, u16_at};

/// Bytes of the head of a page.
const HEAD_BYTES: usize = 4;

/// Page codes.
pub mod code {
    /// Supported pages.
    pub const SUPPORTED: u8 = 0x00;
    /// Unit serial number.
    pub const SERIAL_NUMBER: u8 = 0x80;
    /// Device identification.
    pub const IDENTIFICATION: u8 = 0x83;
    /// Extended INQUIRY data.
    pub const EXTENDED_INQUIRY: u8 = 0x86;
    /// Mode page policy.
    pub const MODE_PAGE_POLICY: u8 = 0x87;
    /// Block limits.
    pub const BLOCK_LIMITS: u8 = 0xb0;
    /// Block device characteristics.
    pub const BLOCK_CHARACTERISTICS: u8 = 0xb1;
    /// Logical block provisioning.
    pub const PROVISIONING: u8 = 0xb2;
}

/// The names of the pages that INQUIRY gives.
const NAMES: &[(u8, &str)] = &[
    (code::SUPPORTED, "supported pages"),
    (code::SERIAL_NUMBER, "unit serial number"),
    (code::IDENTIFICATION, "device identification"),
    (0x84, "software interface identification"),
    (0x85, "management network addresses"),
    (code::EXTENDED_INQUIRY, "extended INQUIRY data"),
    (code::MODE_PAGE_POLICY, "mode page policy"),
    (0x88, "SCSI ports"),
    (0x89, "ATA information"),
    (0x8a, "power condition"),
    (0x8b, "device constituents"),
    (0x8f, "third party copy"),
    (0x90, "protocol specific logical unit information"),
    (0x91, "protocol specific port information"),
    (0x92, "SCSI feature sets"),
    (code::BLOCK_LIMITS, "block limits"),
    (code::BLOCK_CHARACTERISTICS, "block device characteristics"),
    (code::PROVISIONING, "logical block provisioning"),
    (0xb3, "referrals"),
    (0xb5, "block device characteristics extension"),
    (0xb6, "zoned block device characteristics"),
    (0xb7, "block limits extension"),
];

/// The name of a page; a general one where it is not known.
#[must_use]
pub fn page_name(code: u8) -> &'static str {
    let known = NAMES.iter().find(|(own, _)| *own == code).map(|(_, name)| *name);
    known.unwrap_or(if code >= 0xc0 { "vendor specific page" } else { "reserved page" })
}

/// A page of vital product data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vpd {
    /// What is connected.
    pub peripheral: Peripheral,
    /// What the page says.
    pub page: Page,
    /// Whether all came that its length announces.
    pub is_whole: bool,
}

/// What a page says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Page {
    /// 00h: codes of the pages that there are.
    Supported(Vec<u8>),
    /// 80h: the serial number, without spaces at its end.
    SerialNumber(String),
    /// 83h.
    Identification(Vec<Designator>),
    /// 86h.
    ExtendedInquiry(ExtendedInquiry),
    /// 87h.
    ModePagePolicy(Vec<PolicyDescriptor>),
    /// B0h.
    BlockLimits(BlockLimits),
    /// B1h.
    BlockCharacteristics(BlockCharacteristics),
    /// B2h.
    Provisioning(Provisioning),
    /// Any other.
    Other {
        /// Page code.
        code: u8,
        /// What follows the head.
        bytes: Vec<u8>,
    },
}

impl Vpd {
    /// A page of a connected disk.
    #[must_use]
    pub fn new(page: Page) -> Self {
        Self { peripheral: Peripheral::default(), page, is_whole: true }
    }

    /// Reads a page; `None` where not even its head came.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (peripheral, length) = (Peripheral::of(*bytes.first()?), usize::from(u16_at(bytes, 2)?));
        let (body, came) = clipped(bytes, HEAD_BYTES, length);
        let (page, fits) = match bytes[1] {
            code::SUPPORTED => (Page::Supported(body.to_vec()), true),
            code::SERIAL_NUMBER => (Page::SerialNumber(text(body)), true),
            code::IDENTIFICATION => {
                let (designators, fits) = Designator::parse_list(body);
                (Page::Identification(designators), fits)
            }
            code::EXTENDED_INQUIRY => {
                (Page::ExtendedInquiry(ExtendedInquiry::parse(body)), body.len() >= extended::BYTES_MIN)
            }
            code::MODE_PAGE_POLICY => {
                (Page::ModePagePolicy(PolicyDescriptor::parse_list(body)), body.len() % 4 == 0)
            }
            code::BLOCK_LIMITS => {
                (Page::BlockLimits(BlockLimits::parse(body)), body.len() >= block::LIMITS_BYTES_MIN)
            }
            code::BLOCK_CHARACTERISTICS => {
                let page = BlockCharacteristics::parse(body);
                (Page::BlockCharacteristics(page), body.len() >= block::CHARACTERISTICS_BYTES_MIN)
            }
            code::PROVISIONING => {
                (Page::Provisioning(Provisioning::parse(body)), body.len() >= block::PROVISIONING_BYTES_MIN)
            }
            code => (Page::Other { code, bytes: body.to_vec() }, true),
        };
        Some(Self { peripheral, page, is_whole: came && fits })
    }

    /// Its bytes.
    ///
    /// # Panics
    /// If they are more than a page of 65,535 bytes can have.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let body = match &self.page {
            Page::Supported(codes) => codes.clone(),
            Page::SerialNumber(serial) => {
                let mut field = vec![0; serial.len()];
                super::number::put_text(&mut field, serial);
                field
            }
            Page::Identification(list) => list.iter().flat_map(Designator::emit).collect(),
            Page::ExtendedInquiry(page) => page.emit(),
            Page::ModePagePolicy(list) => list.iter().flat_map(|policy| policy.emit()).collect(),
            Page::BlockLimits(page) => page.emit(),
            Page::BlockCharacteristics(page) => page.emit(),
            Page::Provisioning(page) => page.emit(),
            Page::Other { bytes, .. } => bytes.clone(),
        };
        let mut bytes = vec![self.peripheral.byte(), self.page.code(), 0, 0];
        put_length(&mut bytes, 2, 2, body.len());
        bytes.extend(body);
        bytes
    }
}

impl Page {
    /// Its page code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Supported(_) => code::SUPPORTED,
            Self::SerialNumber(_) => code::SERIAL_NUMBER,
            Self::Identification(_) => code::IDENTIFICATION,
            Self::ExtendedInquiry(_) => code::EXTENDED_INQUIRY,
            Self::ModePagePolicy(_) => code::MODE_PAGE_POLICY,
            Self::BlockLimits(_) => code::BLOCK_LIMITS,
            Self::BlockCharacteristics(_) => code::BLOCK_CHARACTERISTICS,
            Self::Provisioning(_) => code::PROVISIONING,
            Self::Other { code, .. } => *code,
        }
    }
}
