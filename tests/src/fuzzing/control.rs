//! What a target answers to control commands: sense data, every reply of SCSI, every reply of NVMe.
//!
//! What holds: nothing panics; what was read can be emitted, and is read again as it was, now whole. Not here: what a status
//! means (`multipath::error_class`).

use std::fmt::Debug;

use storage_mapping::control_port::ControlReply;
use storage_mapping::nvme::identify::{IdentifyController, IdentifyNamespace, NameList, NamespaceList};
use storage_mapping::nvme::log_page::{AccessLog, ErrorLog, FirmwareLog, SmartLog};
use storage_mapping::nvme::reservations::{
    RegisteredController, ReservationStatus, ReservationType as NvmeReservationType,
};
use storage_mapping::scsi::capacity::{Capacity, ShortCapacity};
use storage_mapping::scsi::inquiry::InquiryData;
use storage_mapping::scsi::log::LogPage;
use storage_mapping::scsi::luns::{Lun, LunList};
use storage_mapping::scsi::mode::{CachingPage, ControlPage, ModeData, ModeForm};
use storage_mapping::scsi::port_groups::PortGroups;
use storage_mapping::scsi::reservations::{
    Capabilities, FullStatus, KeyList, ParameterList, ReservationReport, ReserveOutAction,
};
use storage_mapping::scsi::sense::{Sense, SenseFormat};
use storage_mapping::scsi::transport_id::TransportId;
use storage_mapping::scsi::vpd::identification::unit_identity;
use storage_mapping::scsi::vpd::{Designator, Page, PortIdentity, Vpd};

use super::input::Input;

/// What was read is emitted so that it is read again; gives what was read.
fn stable<T: PartialEq + Debug>(
    bytes: &[u8],
    parse: impl Fn(&[u8]) -> Option<T>,
    emit: impl Fn(&T) -> Vec<u8>,
    whole: impl Fn(&mut T),
) -> Option<T> {
    let mut first = parse(bytes)?;
    let again = parse(&emit(&first));
    whole(&mut first);
    assert_eq!(again.as_ref(), Some(&first), "read otherwise when it comes back");
    Some(first)
}

/// [`stable`] for a type with `parse`, `emit` and `is_whole`.
macro_rules! stable {
    ($name:ty, $bytes:expr) => {
        stable($bytes, <$name>::parse, <$name>::emit, |reply| reply.is_whole = true)
    };
}

/// Text that is printed has no control characters.
fn printable(text: &str) {
    assert!(!text.chars().any(char::is_control), "it could drive a terminal: {text:?}");
}

/// Sense data, and what they say of a command.
///
/// # Panics
/// If a promise is broken.
pub fn scsi_sense(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let status = input.byte();
    let bytes = input.rest();
    let reply = ControlReply::Scsi { status, sense: bytes.to_vec(), data: Vec::new() };
    assert_eq!(reply.outcome().is_ok(), matches!(status, 0x00 | 0x04), "only what is a success");
    let Some(sense) = stable!(Sense, bytes) else { return };
    assert!(sense.emit().len() <= 252 && !sense.key_name().is_empty());
    let other = match sense.format {
        SenseFormat::Fixed => SenseFormat::Descriptor,
        SenseFormat::Descriptor => SenseFormat::Fixed,
    };
    // What stands behind the fields has no meaning in the other format.
    let other = Sense { format: other, rest: Vec::new(), ..sense.clone() };
    let again = Sense::parse(&other.emit()).expect("our own sense data");
    assert_eq!(
        (again.triple(), again.deferred),
        (sense.triple(), sense.deferred),
        "codes are in both formats"
    );
}

/// Every reply of SCSI: the first byte chooses which.
///
/// # Panics
/// If a promise is broken.
pub fn scsi_replies(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (choice, bytes) = (input.byte(), input.rest());
    match choice % 14 {
        0 => inquiry(bytes),
        1 => pages(bytes),
        2 => drop(stable!(KeyList, bytes)),
        3 => drop(stable!(FullStatus, bytes)),
        4 => {
            stable!(ReservationReport, bytes);
            stable!(Capabilities, bytes);
        }
        5 => {
            if let Some(groups) = stable!(PortGroups, bytes) {
                assert!(groups.groups.len() * 8 <= bytes.len());
            }
        }
        6 => {
            let Some(list) = stable!(LunList, bytes) else { return };
            for lun in list.luns {
                assert!(lun.number().is_none_or(|number| Lun::of_number(number).is_some()));
            }
        }
        7 => drop(stable!(Capacity, bytes)),
        8 => drop(stable(bytes, ShortCapacity::parse, ShortCapacity::emit, |_| ())),
        9 => drop(stable!(LogPage, bytes).map(|page| (page.error_counters(), page.temperature()))),
        10 => mode(bytes, ModeForm::Six),
        11 => mode(bytes, ModeForm::Ten),
        12 => {
            let Some((id, length)) = TransportId::parse(bytes) else { return };
            assert!(length <= bytes.len());
            printable(&id.to_string());
            let emitted = id.emit();
            assert_eq!(TransportId::parse(&emitted), Some((id, emitted.len())));
        }
        _ => {
            for action in ReserveOutAction::ALL {
                let Ok(list) = ParameterList::parse(action, bytes) else { continue };
                assert_eq!(ParameterList::parse(action, &list.emit()), Ok(list));
            }
        }
    }
}

fn inquiry(bytes: &[u8]) {
    let Some(data) = stable!(InquiryData, bytes) else { return };
    [&data.vendor, &data.product, &data.revision].into_iter().for_each(|text| printable(text));
}

fn pages(bytes: &[u8]) {
    let Some(vpd) = stable!(Vpd, bytes) else { return };
    if let Page::Identification(designators) = &vpd.page {
        let _ = PortIdentity::of(designators);
        designators.iter().filter_map(Designator::unique_name).for_each(|name| printable(&name));
        let best = unit_identity(designators);
        assert!(
            best.is_none_or(|best| designators.iter().any(|one| one.unique_name() == Some(best.clone())))
        );
    }
}

fn mode(bytes: &[u8], form: ModeForm) {
    let parse = |bytes: &[u8]| ModeData::parse(bytes, form);
    let Some(data) = stable(bytes, parse, |data| data.emit(form), |data| data.is_whole = true) else {
        return;
    };
    for page in &data.pages {
        let mut same = page.clone();
        if let Some(control) = ControlPage::of(page) {
            control.put(&mut same);
        } else if let Some(caching) = CachingPage::of(page) {
            caching.put(&mut same);
        }
        assert!(same.body.starts_with(&page.body), "putting back what was read changes nothing");
    }
}

/// Every reply of NVMe: the first byte chooses which. Where a page has a fixed length, zeros follow what came.
///
/// # Panics
/// If a promise is broken.
pub fn nvme_replies(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (choice, bytes) = (input.byte(), input.rest());
    let mut page = vec![0; 4096.max(bytes.len())];
    page[..bytes.len()].copy_from_slice(bytes);
    match choice % 10 {
        0 => {
            let _ = IdentifyController::parse(bytes);
            let Some(controller) = stable!(IdentifyController, &page) else { return };
            let texts = [&controller.serial, &controller.model, &controller.firmware, &controller.subsystem];
            texts.into_iter().for_each(|text| printable(text));
        }
        1 => {
            let _ = IdentifyNamespace::parse(bytes);
            let Some(namespace) = stable!(IdentifyNamespace, &page) else { return };
            assert!(namespace.block_bytes().is_none_or(|bytes| bytes.is_power_of_two() && bytes >= 512));
        }
        2 => drop(stable!(NamespaceList, bytes)),
        3 => drop(stable!(NameList, bytes).and_then(|list| list.unique_name())),
        4 => drop(stable!(AccessLog, bytes)),
        5 => drop(stable!(ErrorLog, bytes)),
        6 => drop(stable!(SmartLog, bytes)),
        7 => drop(stable!(FirmwareLog, bytes)),
        form => {
            let extended = form == 8;
            let parse = |bytes: &[u8]| ReservationStatus::parse(bytes, extended);
            drop(stable(bytes, parse, ReservationStatus::emit, |status| status.is_whole = true));
        }
    }
}

/// Inputs to begin with.
#[must_use]
pub fn scsi_sense_seeds() -> Vec<Vec<u8>> {
    let mut sense = Sense::new(5, 0x24, 0);
    sense.information = Some(7);
    sense.rest = vec![1, 2, 3];
    let with_status = |bytes: Vec<u8>| [&[2][..], &bytes].concat();
    let descriptors = Sense { rest: vec![0x80, 2, 1, 2], ..sense.clone() }.as_descriptors();
    vec![
        vec![0x18],
        with_status(sense.emit()),
        with_status(descriptors.emit()),
        with_status(vec![0x71, 0, 4, 0, 0, 0, 0, 10]),
        with_status(vec![
            0x72, 6, 0x29, 0, 0, 0, 0, 16, 3, 2, 0, 9, 4, 2, 0, 0xe0, 5, 2, 0, 0x20, 2, 6, 0, 0,
        ]),
    ]
}

/// Inputs to begin with.
#[must_use]
pub fn scsi_replies_seeds() -> Vec<Vec<u8>> {
    let names = Vpd::new(Page::Identification(vec![
        Designator::t10("DISKWIRE", "7"),
        Designator::relative_port(1),
        Designator::port_group(2),
    ]));
    let policies = vec![1, 0, 0x87, 0, 8, 0x08, 0, 0, 0, 0x0a, 0, 3, 0];
    let id = [&[0x45, 0, 0, 20][..], b"iqn.a,i,0x012345678\0"].concat();
    let registrant =
        [&[0, 0, 0, 1, 0, 0, 0, 48][..], &[0; 12], &[1, 5, 0, 0, 0, 0, 0, 2, 0, 0, 0, 24], &id].concat();
    let with = |choice: u8, bytes: &[u8]| [&[choice][..], bytes].concat();
    vec![
        with(
            0,
            &InquiryData { vendor: "DISKWIRE".into(), versions: vec![5], ..InquiryData::default() }.emit(),
        ),
        with(1, &names.emit()),
        policies,
        with(1, &[0, 0xb0, 0, 8, 1, 1, 0, 0, 0, 0, 0, 9]),
        with(1, &[0, 0xb2, 0, 4, 0, 0xe5, 2, 0]),
        with(1, &[0, 0x86, 0, 4, 1, 2, 3, 4]),
        with(2, &[0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7]),
        with(3, &registrant),
        with(4, &[0, 0, 0, 1, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 5, 0, 0]),
        with(5, &[0, 0, 0, 16, 0x10, 9, 0, 0, 0x80, 5, 0, 1, 0, 2, 0, 1, 0, 0, 0, 1]),
        with(6, &[0, 0, 0, 8, 0, 0, 0, 0, 0x40, 1, 0, 0, 0, 0, 0, 0]),
        with(7, &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 2, 0, 3, 0x13, 0xc0, 1]),
        with(8, &[0, 0, 0, 9, 0, 0, 2, 0]),
        with(9, &[3, 0, 0, 6, 0, 0, 3, 2, 1, 1]),
        with(9, &[0x40, 0xff, 0, 2, 0x0d, 1]),
        with(10, &[23, 0, 0, 8, 0, 0, 0, 1, 0, 0, 2, 0, 0x0a, 10, 4, 0, 0, 0x40, 0, 0, 0, 0, 0, 0]),
        with(
            11,
            &[
                0, 30, 0, 0, 1, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 0, 0x48, 1, 0, 4, 1,
                2, 3, 4,
            ],
        ),
        with(12, &id),
        with(13, &[&[0; 20][..], &[9, 0, 0, 0, 0, 0, 0, 24], &id].concat()),
        with(13, &[&[0; 20][..], &[0, 0, 0, 24], &id].concat()),
    ]
}

/// Inputs to begin with.
#[must_use]
pub fn nvme_replies_seeds() -> Vec<Vec<u8>> {
    let one = RegisteredController { controller: 1, is_holder: true, host: [0; 16], key: 7 };
    let status = |extended| {
        let (kind, controllers) = (NvmeReservationType::WriteExclusive, vec![one]);
        ReservationStatus { extended, generation: 1, kind, persistent: true, controllers, is_whole: true }
            .emit()
    };
    let access = [
        &[0, 0, 0, 0, 0, 0, 0, 0, 1][..],
        &[0; 7],
        &[1, 0, 0, 0, 1],
        &[0; 11],
        &[2],
        &[0; 15],
        &[1, 0, 0, 0],
    ];
    let with = |choice: u8, bytes: &[u8]| [&[choice][..], bytes].concat();
    vec![
        with(0, &[&[0; 4][..], b"serial", &[0; 14], b"model"].concat()),
        with(1, &[&[9][..], &[0; 24], &[1, 1], &[0; 100], &[0, 0, 9, 0, 0, 0, 12, 1]].concat()),
        with(2, &[1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]),
        with(3, &[1, 8, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 1, 0, 0, 0, 0, 0, 0, 0]),
        with(4, &access.concat()),
        with(5, &[7; 64]),
        with(6, &[1, 0x2c, 1, 100, 10, 3]),
        with(7, &[0x21, 0, 0, 0, 0, 0, 0, 0, b'1', b'.', b'0']),
        with(8, &status(true)),
        with(9, &status(false)),
    ]
}
