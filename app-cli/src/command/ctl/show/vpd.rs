//! Pages of vital product data. Not here: standard INQUIRY data (`inquiry`).

use storage_mapping::scsi::vpd::block::{BlockCharacteristics, BlockLimits, Provisioning};
use storage_mapping::scsi::vpd::extended::{ExtendedInquiry, PagePolicy, PolicyDescriptor};
use storage_mapping::scsi::vpd::identification::{Association, Designator, DesignatorValue, unit_identity};
use storage_mapping::scsi::vpd::{Page, Vpd, page_name};
use transfer_core::inspect::Section;
use volume::open::hex;

use super::{dump, note_cut, set_of, unreadable, yes};

/// A page.
pub(in super::super) fn page(data: &[u8]) -> Section {
    let Some(vpd) = Vpd::parse(data) else { return unreadable("Vital product data", data) };
    let code = vpd.page.code();
    let mut section = Section::new(format!("Vital product data, page {code:02x}h: {}", page_name(code)));
    match &vpd.page {
        Page::Supported(codes) => {
            for code in codes {
                section.field(&format!("{code:02x}h"), page_name(*code));
            }
        }
        Page::SerialNumber(serial) => {
            section.field("serial_number", serial);
        }
        Page::Identification(designators) => identification(&mut section, designators),
        Page::ExtendedInquiry(page) => extended(&mut section, page),
        Page::ModePagePolicy(rows) => section.children = rows.iter().map(policy).collect(),
        Page::BlockLimits(limits) => block_limits(&mut section, limits),
        Page::BlockCharacteristics(page) => characteristics(&mut section, page),
        Page::Provisioning(page) => provisioning(&mut section, page),
        Page::Other { bytes, .. } => section.fields = dump(bytes),
    }
    note_cut(&mut section, vpd.is_whole);
    section
}

fn identification(section: &mut Section, designators: &[Designator]) {
    if let Some(identity) = unit_identity(designators) {
        section.field("unit", identity);
    }
    for designator in designators {
        let (kind, value) = value_text(&designator.value());
        let names = match designator.association {
            Association::LogicalUnit => "logical unit",
            Association::TargetPort => "target port",
            Association::TargetDevice => "target device",
            Association::Reserved => "reserved",
        };
        let mut part = Section::new(names);
        part.field("type", kind).field("value", value);
        section.children.push(part);
    }
}

fn value_text(value: &DesignatorValue<'_>) -> (&'static str, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches([' ', '\0']).to_owned();
    match value {
        DesignatorValue::VendorSpecific(bytes) => ("vendor specific", hex(bytes)),
        DesignatorValue::T10 { vendor, id } => ("T10 vendor", format!("{vendor} {}", text(id))),
        DesignatorValue::Eui64(bytes) => ("EUI-64", hex(bytes)),
        DesignatorValue::Naa(bytes) => ("NAA", hex(bytes)),
        DesignatorValue::RelativePort(port) => ("relative target port", port.to_string()),
        DesignatorValue::PortGroup(group) => ("target port group", group.to_string()),
        DesignatorValue::UnitGroup(group) => ("logical unit group", group.to_string()),
        DesignatorValue::Md5(bytes) => ("MD5", hex(bytes)),
        DesignatorValue::Name(name) => ("SCSI name", (*name).to_owned()),
        DesignatorValue::ProtocolSpecific(bytes) => ("protocol specific", hex(bytes)),
        DesignatorValue::Uuid(bytes) => ("UUID", hex(bytes)),
        DesignatorValue::Other(bytes) => ("unknown", hex(bytes)),
    }
}

fn extended(section: &mut Section, page: &ExtendedInquiry) {
    section
        .field("protection_types", format!("{:03b} (one bit for each of 3, 2, 1)", page.protection_types()));
    section.field("flags", format!("{:?}", page.flags));
    section.field("self_test_minutes", page.self_test_minutes);
    section.field("sense_max_bytes", page.sense_max_bytes);
}

fn policy(row: &PolicyDescriptor) -> Section {
    let of = match row.policy {
        PagePolicy::Shared => "shared",
        PagePolicy::PerTargetPort => "per target port",
        PagePolicy::PerNexus => "per I_T nexus",
        PagePolicy::Reserved => "reserved",
    };
    let mut part = Section::new(format!("mode page {:02x}h/{:02x}h", row.page, row.subpage));
    part.field("policy", of).field("shared_by_units", yes(row.shared_by_units));
    part
}

/// A number of blocks, of which 0 means that nothing is told.
fn told(blocks: impl Into<u64>) -> String {
    match blocks.into() {
        0 => "not told".to_owned(),
        blocks => format!("{blocks} blocks"),
    }
}

fn block_limits(section: &mut Section, limits: &BlockLimits) {
    section.field("transfer_max", told(limits.transfer_max));
    section.field("transfer_optimal", told(limits.transfer_optimal));
    section.field("transfer_granularity", told(limits.transfer_granularity));
    section.field("compare_and_write_max", told(limits.compare_and_write_max));
    section.field("prefetch_max", told(limits.prefetch_max));
    section.field("unmap_max", told(limits.unmap_max));
    section.field("unmap_descriptors_max", limits.unmap_descriptors_max);
    section.field("unmap_granularity", told(limits.unmap_granularity));
    let alignment = limits.unmap_alignment.map_or("not told".to_owned(), |blocks| format!("{blocks} blocks"));
    section.field("unmap_alignment", alignment);
    section.field("write_same_max", told(limits.write_same_max));
    section.field("write_same_0_refused", yes(limits.write_same_not_zero));
    let names =
        ["atomic_max", "atomic_alignment", "atomic_granularity", "atomic_boundary_max", "atomic_boundary"];
    for (name, blocks) in names.iter().zip(limits.atomic) {
        section.field(name, told(blocks));
    }
}

fn characteristics(section: &mut Section, page: &BlockCharacteristics) {
    let rate = match page.rotation_rate {
        0 => "not told".to_owned(),
        1 => "none: it does not rotate".to_owned(),
        rate => format!("{rate} a minute"),
    };
    section.field("rotation", rate);
    section.field("product_type", format!("{:02x}h", page.product_type));
    section.field("form_factor", form_factor(page.form_factor));
    section.field("zoned", page.zoned);
    section.field("fua_writes_are_non_volatile", yes(page.fua_is_non_volatile));
    section.field("verifies_unmapped_blocks", yes(page.verify_unmapped));
}

fn form_factor(code: u8) -> &'static str {
    match code {
        0 => "not told",
        1 => "5.25 inch",
        2 => "3.5 inch",
        3 => "2.5 inch",
        4 => "1.8 inch",
        5 => "below 1.8 inch",
        _ => "reserved",
    }
}

fn provisioning(section: &mut Section, page: &Provisioning) {
    let kind = match page.kind {
        1 => "resource",
        2 => "thin",
        0 => "full, or not told",
        _ => "reserved",
    };
    section.field("type", kind);
    let ways = [
        (page.unmap, "UNMAP"),
        (page.write_same_16, "WRITE SAME (16)"),
        (page.write_same_10, "WRITE SAME (10)"),
    ];
    section.field("unmaps_by", set_of(&ways));
    let reads = match page.reads_zeros {
        0 => "not told",
        value if value & 1 != 0 => "zeros",
        2 => "a pattern of its own",
        _ => "reserved",
    };
    section.field("unmapped_blocks_read_as", reads);
    section.field("anchored_blocks", yes(page.anchored));
    section.field("threshold_exponent", page.threshold_exponent);
}
