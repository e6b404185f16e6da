//! Persistent reservations: keys, holder, registrants, abilities. Not here: changing them.

use storage_mapping::scsi::reservations::{
    Capabilities, FullStatus, KeyList, Registrant, ReservationReport, ReservationType,
};
use storage_mapping::scsi::transport_id::TransportId;
use transfer_core::inspect::Section;
use volume::open::hex;

use super::{note_cut, set_of, unreadable, yes};

fn key(key: u64) -> String {
    format!("0x{key:016x}")
}

fn kind(kind: ReservationType) -> String {
    format!("{} ({})", kind.number(), kind.name())
}

/// READ KEYS.
pub(in super::super) fn keys(data: &[u8]) -> Section {
    let Some(list) = KeyList::parse(data) else { return unreadable("Registered keys", data) };
    let mut section = Section::new(match list.keys.len() {
        0 => "Registered keys: none".to_owned(),
        count => format!("Registered keys: {count}"),
    });
    section.field("generation", format!("0x{:x}", list.generation));
    for (place, one) in list.keys.iter().enumerate() {
        section.field(&format!("key_{place}"), key(*one));
    }
    note_cut(&mut section, list.is_whole);
    section
}

/// READ RESERVATION.
pub(in super::super) fn reservation(data: &[u8]) -> Section {
    let Some(report) = ReservationReport::parse(data) else { return unreadable("Reservation", data) };
    let mut section =
        Section::new(if report.reservation.is_some() { "Reservation: held" } else { "Reservation: none" });
    section.field("generation", format!("0x{:x}", report.generation));
    if let Some(held) = report.reservation {
        let holder = if held.kind.is_all_registrants() {
            "every registrant".to_owned()
        } else {
            format!("who registered {}", key(held.key))
        };
        section.field("holder", holder);
        section.field("type", kind(held.kind));
        section
            .field("scope", if held.scope == 0 { "logical unit".to_owned() } else { held.scope.to_string() });
    }
    note_cut(&mut section, report.is_whole);
    section
}

/// READ FULL STATUS.
pub(in super::super) fn status(data: &[u8]) -> Section {
    let Some(status) = FullStatus::parse(data) else { return unreadable("Registrations", data) };
    let mut section = Section::new(match status.registrants.len() {
        0 => "Registrations: none".to_owned(),
        count => format!("Registrations: {count}"),
    });
    section.field("generation", format!("0x{:x}", status.generation));
    section.children = status.registrants.iter().map(registrant).collect();
    note_cut(&mut section, status.is_whole);
    section
}

fn registrant(one: &Registrant) -> Section {
    let mut part = Section::new(key(one.key));
    let ports = if one.all_target_ports { "all".to_owned() } else { one.relative_port.to_string() };
    part.field("port", ports);
    part.field("holds", if one.is_holder { kind(one.kind) } else { "no".to_owned() });
    part.field("initiator", one.initiator.as_ref().map_or("not told".to_owned(), initiator));
    part
}

fn initiator(id: &TransportId) -> String {
    match id {
        TransportId::FibreChannel(name) => format!("FC {}", hex(name)),
        TransportId::Iscsi { name, session: None } => name.clone(),
        TransportId::Iscsi { name, session: Some(session) } => format!("{name},{session}"),
        TransportId::Sas(address) => format!("SAS {}", hex(address)),
        TransportId::Srp(port) => format!("SRP {}", hex(port)),
        TransportId::Other(bytes) => hex(bytes),
    }
}

/// REPORT CAPABILITIES.
pub(in super::super) fn capabilities(data: &[u8]) -> Section {
    let Some(able) = Capabilities::parse(data) else {
        return unreadable("Abilities of persistent reservations", data);
    };
    let mut section = Section::new("Abilities of persistent reservations");
    let types: Vec<(bool, &str)> =
        ReservationType::ALL.iter().map(|(kind, _, name)| (able.knows(*kind), *name)).collect();
    section.field("types", if able.types.is_some() { set_of(&types) } else { "not told".to_owned() });
    section.field("registers_for_all_ports", yes(able.all_target_ports));
    section.field("registers_for_others", yes(able.specify_initiators));
    section.field("outlives_power_loss", yes(able.persist_capable));
    section.field("outlives_power_loss_now", yes(able.persist_active));
    section.field("reserve_6_10_compatible", yes(able.compatible_handling));
    section.field("replaces_lost", yes(able.replace_lost));
    section.field("allow_commands", able.allow_commands);
    note_cut(&mut section, able.is_whole);
    section
}
