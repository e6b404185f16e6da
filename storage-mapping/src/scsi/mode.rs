//! MODE SENSE and MODE SELECT of 6 and 10 bytes (SPC-6 6.14 and 6.15): commands, heads, block descriptors, pages.
//!
//! Keeps true: a page is kept to the byte; fields of known pages are read from it and put into it, and what is not known
//! stays. Not here: for whom a page is set (`vpd::PolicyDescriptor`), the known pages (`pages`).

mod pages;

pub use pages::{CachingPage, ControlPage};

use super::number::{clipped, push, put, put_length, u16_at, u32_at, u64_at};
use super::{command, opcode};
use crate::control_port::{Cdb, ControlCommand, Transfer};

/// Asks for all pages.
pub const ALL_PAGES: u8 = 0x3f;

/// The form of command and head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModeForm {
    /// 6 bytes; a head of 4.
    Six,
    /// 10 bytes; a head of 8.
    Ten,
}

/// Which values of a page are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PageControl {
    /// As they are.
    #[default]
    Current,
    /// Which bits can be changed.
    Changeable,
    /// As delivered.
    Default,
    /// As saved.
    Saved,
}

impl PageControl {
    /// Of the two highest bits of a byte.
    fn of(byte: u8) -> Self {
        match byte >> 6 {
            0 => Self::Current,
            1 => Self::Changeable,
            2 => Self::Default,
            _ => Self::Saved,
        }
    }
}

/// MODE SENSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModeSense {
    /// 6 or 10 bytes.
    pub form: ModeForm,
    /// DBD: without block descriptors.
    pub without_blocks: bool,
    /// LLBAA: long block descriptors are taken; 10 bytes only.
    pub long_blocks: bool,
    /// Which values.
    pub control: PageControl,
    /// Page, 6 bits.
    pub page: u8,
    /// Subpage; FFh: all.
    pub subpage: u8,
    /// The most bytes that may come; of the form of 6 bytes at most 255.
    pub allocation: u16,
}

impl ModeSense {
    /// The current values of one page, without block descriptors.
    #[must_use]
    pub fn new(form: ModeForm, page: u8, allocation: u16) -> Self {
        let control = PageControl::Current;
        Self { form, without_blocks: true, long_blocks: false, control, page, subpage: 0, allocation }
    }

    /// The command.
    ///
    /// # Panics
    /// If the form of 6 bytes is to bring more than 255.
    #[must_use]
    pub fn command(self) -> ControlCommand {
        let flags = u8::from(self.without_blocks) << 3;
        let page = (self.control as u8) << 6 | self.page & 0x3f;
        let transfer = Transfer::In(self.allocation.into());
        match self.form {
            ModeForm::Six => {
                let mut cdb = [opcode::MODE_SENSE_6, flags, page, self.subpage, 0, 0];
                put_length(&mut cdb, 4, 1, self.allocation.into());
                command(&cdb, transfer)
            }
            ModeForm::Ten => {
                let flags = flags | u8::from(self.long_blocks) << 4;
                let mut cdb = [opcode::MODE_SENSE_10, flags, page, self.subpage, 0, 0, 0, 0, 0, 0];
                put(&mut cdb, 7, 2, self.allocation);
                command(&cdb, transfer)
            }
        }
    }

    /// Reads the command; `None` where it is another one.
    #[must_use]
    pub fn parse(cdb: &Cdb) -> Option<Self> {
        let bytes = cdb.bytes();
        let (form, allocation) = match (cdb.opcode(), bytes.len()) {
            (opcode::MODE_SENSE_6, 6) => (ModeForm::Six, bytes[4].into()),
            (opcode::MODE_SENSE_10, 10) => (ModeForm::Ten, u16_at(bytes, 7)?),
            _ => return None,
        };
        Some(Self {
            form,
            without_blocks: bytes[1] & 8 != 0,
            long_blocks: form == ModeForm::Ten && bytes[1] & 0x10 != 0,
            control: PageControl::of(bytes[2]),
            page: bytes[2] & 0x3f,
            subpage: bytes[3],
            allocation,
        })
    }
}

/// MODE SELECT.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModeSelect {
    /// 6 or 10 bytes.
    pub form: ModeForm,
    /// SP: the values are saved.
    pub save: bool,
    /// What is set.
    pub data: ModeData,
}

impl ModeSelect {
    /// The command.
    ///
    /// # Panics
    /// If the data do not fit the form.
    #[must_use]
    pub fn command(&self) -> ControlCommand {
        let list = self.data.emit_list(self.form);
        let flags = 0x10 | u8::from(self.save);
        match self.form {
            ModeForm::Six => {
                let mut cdb = [opcode::MODE_SELECT_6, flags, 0, 0, 0, 0];
                put_length(&mut cdb, 4, 1, list.len());
                command(&cdb, Transfer::Out(list))
            }
            ModeForm::Ten => {
                let mut cdb = [opcode::MODE_SELECT_10, flags, 0, 0, 0, 0, 0, 0, 0, 0];
                put_length(&mut cdb, 7, 2, list.len());
                command(&cdb, Transfer::Out(list))
            }
        }
    }

    /// Reads the command and its parameter list; `None` where it is another one, or of the old kind without PF, or the
    /// list is not whole or has another length than the command says.
    #[must_use]
    pub fn parse(cdb: &Cdb, data: &[u8]) -> Option<Self> {
        let bytes = cdb.bytes();
        let (form, length) = match (cdb.opcode(), bytes.len()) {
            (opcode::MODE_SELECT_6, 6) => (ModeForm::Six, usize::from(bytes[4])),
            (opcode::MODE_SELECT_10, 10) => (ModeForm::Ten, usize::from(u16_at(bytes, 7)?)),
            _ => return None,
        };
        if bytes[1] & 0x10 == 0 || length != data.len() {
            return None;
        }
        let data = ModeData::parse_list(data, form).filter(|data| data.is_whole)?;
        Some(Self { form, save: bytes[1] & 1 != 0, data })
    }
}

/// A block descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockDescriptor {
    /// How many blocks; short ones carry 32 bits.
    pub blocks: u64,
    /// Bytes of a block; short ones carry 24 bits.
    pub block_bytes: u32,
}

/// A mode page to the byte.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ModePage {
    /// PS: it can be saved. Reserved in MODE SELECT, and left out there.
    pub savable: bool,
    /// Page, 6 bits.
    pub code: u8,
    /// Subpage, where it has the form of one (SPF).
    pub subpage: Option<u8>,
    /// What follows its head.
    pub body: Vec<u8>,
}

/// What MODE SENSE brings back, and MODE SELECT sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ModeData {
    /// Medium type; 0 for disks.
    pub medium_type: u8,
    /// Device specific parameter; of disks WP (80h) and DPOFUA (10h).
    pub device_specific: u8,
    /// LONGLBA: block descriptors are long; only in the form of 10 bytes.
    pub long_blocks: bool,
    /// Block descriptors.
    pub blocks: Vec<BlockDescriptor>,
    /// Pages.
    pub pages: Vec<ModePage>,
    /// Whether all came.
    pub is_whole: bool,
}

impl ModeData {
    /// Data with these pages and nothing else.
    #[must_use]
    pub fn of_pages(pages: Vec<ModePage>) -> Self {
        Self { pages, is_whole: true, ..Self::default() }
    }

    /// WP: the disk is write protected.
    #[must_use]
    pub fn is_write_protected(&self) -> bool {
        self.device_specific & 0x80 != 0
    }

    /// A page.
    #[must_use]
    pub fn page(&self, code: u8, subpage: u8) -> Option<&ModePage> {
        self.pages.iter().find(|page| (page.code, page.subpage.unwrap_or(0)) == (code, subpage))
    }

    /// Reads what MODE SENSE of this form brought; `None` where not even the head came.
    #[must_use]
    pub fn parse(bytes: &[u8], form: ModeForm) -> Option<Self> {
        let announced = match form {
            ModeForm::Six => 1 + usize::from(*bytes.first()?),
            ModeForm::Ten => 2 + usize::from(u16_at(bytes, 0)?),
        };
        let (own, came) = clipped(bytes, 0, announced);
        let data = Self::parse_list(own, form)?;
        Some(Self { is_whole: came && data.is_whole, ..data })
    }

    /// Reads a parameter list of MODE SELECT, in which the length of the data is reserved.
    fn parse_list(bytes: &[u8], form: ModeForm) -> Option<Self> {
        let head = match form {
            ModeForm::Six => [*bytes.get(1)?, *bytes.get(2)?, 0, 0, *bytes.get(3)?],
            ModeForm::Ten => [*bytes.get(2)?, *bytes.get(3)?, *bytes.get(4)?, *bytes.get(6)?, *bytes.get(7)?],
        };
        let [medium_type, device_specific, flags, ..] = head;
        let long_blocks = flags & 1 != 0;
        let length = usize::from(u16_at(&head, 3)?);
        let (blocks, came) = clipped(bytes, head_bytes(form), length);
        let (each, at) = if long_blocks { (16, 12) } else { (8, 4) };
        let (pages, all_pages) =
            ModePage::parse_list(bytes.get(head_bytes(form) + length..).unwrap_or_default());
        Some(Self {
            medium_type,
            device_specific,
            long_blocks,
            blocks: blocks.chunks_exact(each).filter_map(|block| BlockDescriptor::parse(block, at)).collect(),
            pages,
            is_whole: came && all_pages && length % each == 0,
        })
    }

    /// Its bytes as MODE SENSE of this form brings them.
    ///
    /// # Panics
    /// If they are more than the form can carry, or long block descriptors are in the form of 6 bytes.
    #[must_use]
    pub fn emit(&self, form: ModeForm) -> Vec<u8> {
        let (mut bytes, width) = (self.emit_body(form, true), if form == ModeForm::Six { 1 } else { 2 });
        let length = bytes.len() - width;
        put_length(&mut bytes, 0, width, length);
        bytes
    }

    /// Its bytes as MODE SELECT of this form takes them.
    fn emit_list(&self, form: ModeForm) -> Vec<u8> {
        self.emit_body(form, false)
    }

    fn emit_body(&self, form: ModeForm, savable: bool) -> Vec<u8> {
        assert!(
            form == ModeForm::Ten || !self.long_blocks,
            "long block descriptors need the form of 10 bytes"
        );
        let mut bytes = vec![0; head_bytes(form)];
        let length = self.blocks.len() * if self.long_blocks { 16 } else { 8 };
        match form {
            ModeForm::Six => {
                (bytes[1], bytes[2]) = (self.medium_type, self.device_specific);
                put_length(&mut bytes, 3, 1, length);
            }
            ModeForm::Ten => {
                (bytes[2], bytes[3], bytes[4]) =
                    (self.medium_type, self.device_specific, u8::from(self.long_blocks));
                put_length(&mut bytes, 6, 2, length);
            }
        }
        self.blocks.iter().for_each(|block| block.emit(self.long_blocks, &mut bytes));
        self.pages.iter().for_each(|page| page.emit(savable, &mut bytes));
        bytes
    }
}

const fn head_bytes(form: ModeForm) -> usize {
    match form {
        ModeForm::Six => 4,
        ModeForm::Ten => 8,
    }
}

impl BlockDescriptor {
    /// A short one (`at` = 4, where the length is 24 bits behind a reserved byte) or a long one (`at` = 12).
    fn parse(bytes: &[u8], at: usize) -> Option<Self> {
        let word = u32_at(bytes, at)?;
        Some(if at == 4 {
            Self { blocks: u32_at(bytes, 0)?.into(), block_bytes: word & 0xff_ffff }
        } else {
            Self { blocks: u64_at(bytes, 0)?, block_bytes: word }
        })
    }

    fn emit(&self, long: bool, bytes: &mut Vec<u8>) {
        if long {
            push(bytes, 8, self.blocks);
            push(bytes, 4, 0_u32);
            push(bytes, 4, self.block_bytes);
        } else {
            // A disk with more blocks than the field can tell says FFFFFFFFh (SBC-5 6.5.2.2).
            push(bytes, 4, self.blocks.min(u32::MAX.into()));
            push(bytes, 4, self.block_bytes & 0xff_ffff);
        }
    }
}

impl ModePage {
    /// The pages, and whether all of them came whole.
    fn parse_list(mut bytes: &[u8]) -> (Vec<Self>, bool) {
        let mut pages = Vec::new();
        while let [first, second, ..] = *bytes {
            let has_subpage = first & 0x40 != 0;
            let (head, length) = if has_subpage {
                let Some(length) = u16_at(bytes, 2) else { return (pages, false) };
                (4, usize::from(length))
            } else {
                (2, usize::from(second))
            };
            let (body, is_whole) = clipped(bytes, head, length);
            if !is_whole {
                return (pages, false);
            }
            pages.push(Self {
                savable: first & 0x80 != 0,
                code: first & 0x3f,
                subpage: has_subpage.then_some(second),
                body: body.to_vec(),
            });
            bytes = &bytes[head + length..];
        }
        (pages, bytes.is_empty())
    }

    fn emit(&self, savable: bool, bytes: &mut Vec<u8>) {
        let first = u8::from(self.savable && savable) << 7 | self.code & 0x3f;
        let at = bytes.len();
        if let Some(subpage) = self.subpage {
            bytes.extend([first | 0x40, subpage, 0, 0]);
            put_length(bytes, at + 2, 2, self.body.len());
        } else {
            bytes.extend([first, 0]);
            put_length(bytes, at + 1, 1, self.body.len());
        }
        bytes.extend_from_slice(&self.body);
    }
}
