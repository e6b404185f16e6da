//! Standard INQUIRY data. Not here: vital product data (`vpd`).

use storage_mapping::scsi::inquiry::{InquiryData, InquiryFlags, TargetPortGroupSupport};
use transfer_core::inspect::Section;

use super::{note_cut, set_of, unreadable, yes};

/// What the unit says it is.
pub(in super::super) fn standard(data: &[u8]) -> Section {
    let Some(inquiry) = InquiryData::parse(data) else { return unreadable("Standard INQUIRY", data) };
    let mut section = Section::new("Standard INQUIRY");
    let kind = inquiry.peripheral;
    section.field("vendor", &inquiry.vendor);
    section.field("product", &inquiry.product);
    section.field("revision", &inquiry.revision);
    section.field("device_type", format!("{:02x}h {}", kind.device_type, kind.type_name()));
    section.field("qualifier", format!("{}: {}", kind.qualifier, qualifier(kind.qualifier)));
    section.field("version", format!("{:02x}h {}", inquiry.version, version(inquiry.version)));
    section.field("port_groups", port_groups(inquiry.port_groups));
    section.field("several_ports", yes(inquiry.flags.contains(InquiryFlags::MULTI_PORT)));
    section.field("queues_commands", yes(inquiry.flags.contains(InquiryFlags::COMMAND_QUEUE)));
    section.field("abilities", abilities(inquiry.flags));
    if !inquiry.versions.is_empty() {
        let list: Vec<String> = inquiry.versions.iter().map(|one| format!("{one:04x}")).collect();
        section.field("version_descriptors", list.join(" "));
    }
    note_cut(&mut section, inquiry.is_whole);
    section
}

fn abilities(flags: InquiryFlags) -> String {
    set_of(&[
        (flags.contains(InquiryFlags::REMOVABLE), "removable medium"),
        (flags.contains(InquiryFlags::THIRD_PARTY_COPY), "third-party copy"),
        (flags.contains(InquiryFlags::PROTECT), "protection information"),
        (flags.contains(InquiryFlags::HIERARCHICAL), "hierarchical unit numbers"),
        (flags.contains(InquiryFlags::NORMAL_ACA), "ACA"),
        (flags.contains(InquiryFlags::ARRAY_CONTROLLER), "array controller"),
        (flags.contains(InquiryFlags::ENCLOSURE), "enclosure services"),
        (flags.contains(InquiryFlags::CONGLOMERATE), "part of a conglomerate"),
    ])
}

fn qualifier(qualifier: u8) -> &'static str {
    match qualifier {
        0 => "connected",
        1 => "not connected now",
        3 => "there is no such unit",
        _ => "reserved or of the vendor",
    }
}

fn version(version: u8) -> &'static str {
    match version {
        0 => "none claimed",
        2 => "SCSI-2",
        3 => "SPC",
        4 => "SPC-2",
        5 => "SPC-3",
        6 => "SPC-4",
        7 => "SPC-5",
        0x0d => "SPC-6",
        _ => "unknown",
    }
}

fn port_groups(support: TargetPortGroupSupport) -> &'static str {
    match support {
        TargetPortGroupSupport::None => "no access states",
        TargetPortGroupSupport::Implicit => "the target changes access states",
        TargetPortGroupSupport::Explicit => "commands change access states",
        TargetPortGroupSupport::ImplicitAndExplicit => "the target and commands change access states",
    }
}
