//! Who a logical unit is: INQUIRY and its pages.
//!
//! Keeps true: what names the unit is the same through every port; what names the port is of the port that the command came
//! through. Not here: settings and counters (`pages`).

use super::answer::Answer;
use super::unit::{Call, LogicalUnit, relative_port};
use crate::control_port::Cdb;
use crate::scsi::inquiry::{InquiryCommand, InquiryData, InquiryFlags, TargetPortGroupSupport};
use crate::scsi::vpd::{
    Association, BlockCharacteristics, BlockLimits, Designator, ExtendedFlags, ExtendedInquiry, Page,
    PagePolicy, PolicyDescriptor, Provisioning, Vpd, code,
};

const VENDOR: &str = "DISKWIRE";
const PRODUCT: &str = "SIMULATED VOLUME";
/// SPC-5.
const VERSION: u8 = 7;
/// Pages of vital product data.
const PAGES: [u8; 8] = [
    code::SUPPORTED,
    code::SERIAL_NUMBER,
    code::IDENTIFICATION,
    code::EXTENDED_INQUIRY,
    code::MODE_PAGE_POLICY,
    code::BLOCK_LIMITS,
    code::BLOCK_CHARACTERISTICS,
    code::PROVISIONING,
];

impl LogicalUnit {
    pub(super) fn inquiry(&self, call: &Call<'_>) -> Answer {
        let Some(InquiryCommand { page, allocation }) =
            Cdb::new(call.cdb).ok().and_then(|cdb| InquiryCommand::parse(&cdb))
        else {
            return Answer::wrong_field(if call.cdb[1] > 1 { 1 } else { 2 });
        };
        let mut data = match page {
            None => standard_data().emit(),
            Some(page) => match self.page(page, call.nexus) {
                Some(page) => Vpd::new(page).emit(),
                None => return Answer::wrong_field(2),
            },
        };
        data.truncate(allocation.into());
        Answer::data(data)
    }

    /// The serial number: of the system and the volume.
    fn serial_number(&self) -> String {
        format!("{:08x}-{}", self.name.seed & 0xffff_ffff, self.name.volume)
    }

    /// NAA locally assigned (type 3): 60 bits out of the seed of the system and the name of the volume.
    fn naa(&self) -> [u8; 8] {
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = self.name.volume.bytes().fold(0xcbf2_9ce4_8422_2325 ^ self.name.seed, step);
        let mut name = [0; 8];
        for (place, byte) in name.iter_mut().rev().enumerate() {
            *byte = (hash >> (8 * place) & 0xff) as u8;
        }
        name[0] = 0x30 | name[0] & 0x0f;
        name
    }

    /// The SCSI name of the target port of this index.
    pub(in super::super) fn port_name(&self, port: usize, name: &str) -> String {
        format!("iqn.2026-11.diskwire.simulated:{name},t,0x{:04x}", relative_port(port))
    }

    fn page(&self, page: u8, nexus: usize) -> Option<Page> {
        Some(match page {
            code::SUPPORTED => Page::Supported(PAGES.to_vec()),
            code::SERIAL_NUMBER => Page::SerialNumber(self.serial_number()),
            code::IDENTIFICATION => Page::Identification(self.designators(nexus)),
            code::EXTENDED_INQUIRY => Page::ExtendedInquiry(ExtendedInquiry {
                flags: ExtendedFlags::HEAD_OF_QUEUE
                    | ExtendedFlags::ORDERED
                    | ExtendedFlags::SIMPLE
                    | ExtendedFlags::VOLATILE_CACHE,
                sense_max_bytes: 252,
                ..ExtendedInquiry::default()
            }),
            code::MODE_PAGE_POLICY => Page::ModePagePolicy(policies()),
            code::BLOCK_LIMITS => {
                let blocks =
                    u32::try_from(self.name.transfer_max_bytes / self.name.block_size.bytes()).unwrap_or(0);
                Page::BlockLimits(BlockLimits {
                    transfer_max: blocks,
                    transfer_optimal: blocks,
                    ..BlockLimits::default()
                })
            }
            code::BLOCK_CHARACTERISTICS => Page::BlockCharacteristics(BlockCharacteristics {
                rotation_rate: 1,
                ..BlockCharacteristics::default()
            }),
            code::PROVISIONING => Page::Provisioning(Provisioning::default()),
            _ => return None,
        })
    }

    fn designators(&self, nexus: usize) -> Vec<Designator> {
        let port = self.nexuses[nexus].port;
        vec![
            Designator::naa(Association::LogicalUnit, &self.naa()),
            Designator::t10(VENDOR, &self.serial_number()),
            Designator::relative_port(relative_port(port)),
            Designator::port_group(group_number(self.name.ports[port])),
        ]
    }
}

/// The identifier of the target port group of this index.
pub(super) fn group_number(index: usize) -> u16 {
    u16::try_from(index + 1).unwrap_or(u16::MAX)
}

fn standard_data() -> InquiryData {
    InquiryData {
        version: VERSION,
        response_format: 2,
        flags: InquiryFlags::HIERARCHICAL | InquiryFlags::MULTI_PORT | InquiryFlags::COMMAND_QUEUE,
        port_groups: TargetPortGroupSupport::ImplicitAndExplicit,
        vendor: VENDOR.to_owned(),
        product: PRODUCT.to_owned(),
        revision: "1".to_owned(),
        is_whole: true,
        ..InquiryData::default()
    }
}

/// The disconnect-reconnect page is kept for each nexus, all others are shared.
fn policies() -> Vec<PolicyDescriptor> {
    let of = |page, policy| PolicyDescriptor { page, subpage: 0, shared_by_units: false, policy };
    vec![of(0x02, PagePolicy::PerNexus), of(0x08, PagePolicy::Shared), of(0x0a, PagePolicy::Shared)]
}
