//! NVMe bytes: what is emitted is read back as it was, what was cut short says so, and nothing panics, whatever comes.

#[path = "support/reply.rs"]
mod reply;

use proptest::collection::vec;
use proptest::prelude::*;
use reply::{comes_back, comes_back_and_knows_its_length, fields, hostile, is_stable, out, replies, text};
use storage_mapping::control_port::{NvmeFields, Transfer};
use storage_mapping::nvme::features::{FeatureValue, GetFeatures, SetFeatures, host_identifier, id};
use storage_mapping::nvme::identify::{
    BlockFormat, Identify, IdentifyController, IdentifyNamespace, IdentifyWhat, NameList, NamespaceList,
    NamespaceName, ReservationCapabilities,
};
use storage_mapping::nvme::log_page::{
    AccessGroup, AccessLog, AsymmetricState, ErrorEntry, ErrorLog, FirmwareLog, GetLogPage, SmartLog,
};
use storage_mapping::nvme::reservations::{
    AcquireAction, ChangePersistence, RegisterAction, RegisteredController, ReleaseAction, ReservationChange,
    ReservationCommand, ReservationReport, ReservationStatus, ReservationType,
};
use storage_mapping::nvme::{opcode, status};

replies!(
    IdentifyController,
    IdentifyNamespace,
    NamespaceList,
    NameList,
    AccessLog,
    ErrorLog,
    SmartLog,
    FirmwareLog
);

/// A report in the short form.
#[derive(Clone, Debug, PartialEq)]
struct Short(ReservationStatus);

/// A report in the extended form.
#[derive(Clone, Debug, PartialEq)]
struct Extended(ReservationStatus);

macro_rules! report_replies {
    ($($name:ident = $extended:literal),+) => {$(
        impl reply::Reply for $name {
            fn read(bytes: &[u8]) -> Option<Self> {
                ReservationStatus::parse(bytes, $extended).map(Self)
            }
            fn make(&self) -> Vec<u8> {
                self.0.emit()
            }
            fn whole(&mut self) -> &mut bool {
                &mut self.0.is_whole
            }
        }
    )+};
}
report_replies!(Short = false, Extended = true);

fn controller() -> impl Strategy<Value = IdentifyController> {
    let texts = (text(20), text(40), text(8), text(255));
    (texts, any::<[u8; 9]>(), any::<[u16; 6]>(), any::<[u32; 6]>()).prop_map(
        |(texts, bytes, shorts, words)| {
            let (serial, model, firmware, subsystem) = texts;
            IdentifyController {
                vendor: shorts[0],
                subsystem_vendor: shorts[1],
                serial,
                model,
                firmware,
                multi_path: bytes[0],
                transfer_exponent: bytes[1],
                controller: shorts[2],
                version: words[0],
                events: words[1],
                attributes: words[2],
                admin_commands: shorts[3],
                abort_limit: bytes[2],
                firmware_slots: bytes[3],
                log_attributes: bytes[4],
                error_entries: bytes[5],
                keep_alive: shorts[4],
                access_change_seconds: bytes[6],
                access_capabilities: bytes[7],
                access_group_max: words[3],
                access_groups: words[4],
                namespaces: words[5],
                io_commands: shorts[5],
                write_cache: bytes[8],
                subsystem,
                is_whole: true,
            }
        },
    )
}

fn namespace() -> impl Strategy<Value = IdentifyNamespace> {
    let format = any::<(u16, u8, u8)>().prop_map(|(metadata_bytes, block_exponent, performance)| {
        BlockFormat { metadata_bytes, block_exponent, performance: performance & 3 }
    });
    (any::<[u64; 3]>(), any::<[u8; 5]>(), any::<(u32, [u8; 16], [u8; 8])>(), vec(format, 1..=64)).prop_map(
        |(sizes, bytes, (access_group, nguid, eui64), formats)| IdentifyNamespace {
            size_blocks: sizes[0],
            capacity_blocks: sizes[1],
            used_blocks: sizes[2],
            features: bytes[0],
            format_in_use: bytes[1],
            sharing: bytes[2],
            reservations: ReservationCapabilities::from_bits_retain(bytes[3]),
            access_group,
            attributes: bytes[4],
            nguid,
            eui64,
            formats,
            is_whole: true,
        },
    )
}

fn name() -> impl Strategy<Value = NamespaceName> {
    prop_oneof![
        any::<[u8; 8]>().prop_map(NamespaceName::Eui64),
        any::<[u8; 16]>().prop_map(NamespaceName::Nguid),
        any::<[u8; 16]>().prop_map(NamespaceName::Uuid),
        any::<u8>().prop_map(NamespaceName::CommandSet),
        (5..=u8::MAX, vec(any::<u8>(), 1..40)).prop_map(|(kind, bytes)| NamespaceName::Other { kind, bytes }),
    ]
}

fn access_log() -> impl Strategy<Value = AccessLog> {
    let group = (any::<(u32, u64, u8)>(), vec(any::<u32>(), 0..6)).prop_map(
        |((group, change_count, state), namespaces)| AccessGroup {
            group,
            change_count,
            state: AsymmetricState::of(state),
            namespaces,
        },
    );
    (any::<u64>(), vec(group, 0..5)).prop_map(|(change_count, groups)| AccessLog {
        change_count,
        groups,
        is_whole: true,
    })
}

fn report(extended: bool) -> impl Strategy<Value = ReservationStatus> {
    let controller =
        any::<(u16, bool, [u8; 16], u64)>().prop_map(move |(controller, is_holder, mut host, key)| {
            if !extended {
                host[8..].fill(0);
            }
            RegisteredController { controller, is_holder, host, key }
        });
    (any::<(u32, u8, bool)>(), vec(controller, 0..5)).prop_map(
        move |((generation, kind, persistent), controllers)| ReservationStatus {
            extended,
            generation,
            kind: ReservationType::of(kind),
            persistent,
            controllers,
            is_whole: true,
        },
    )
}

fn change() -> impl Strategy<Value = ReservationChange> {
    use ReservationChange as C;
    let registers = [RegisterAction::Register, RegisterAction::Unregister, RegisterAction::Replace];
    let persistences = [ChangePersistence::Keep, ChangePersistence::Clear, ChangePersistence::Set];
    let acquires = [AcquireAction::Acquire, AcquireAction::Preempt, AcquireAction::PreemptAndAbort];
    let releases = [ReleaseAction::Release, ReleaseAction::Clear];
    prop_oneof![
        (0_usize..3, 0_usize..3, any::<u64>()).prop_map(move |(action, persistence, new_key)| C::Register {
            action: registers[action],
            persistence: persistences[persistence],
            new_key,
        }),
        (0_usize..3, any::<u8>(), any::<u64>()).prop_map(move |(action, kind, preempt_key)| C::Acquire {
            action: acquires[action],
            kind: ReservationType::of(kind),
            preempt_key,
        }),
        (0_usize..2, any::<u8>()).prop_map(move |(action, kind)| C::Release {
            action: releases[action],
            kind: ReservationType::of(kind),
        }),
    ]
}

proptest! {
    #[test]
    fn identify_data_come_back(
        controller in controller(),
        namespace in namespace(),
        numbers in vec(1..=u32::MAX, 0..=1024),
        names in vec(name(), 0..9),
    ) {
        comes_back(&controller);
        comes_back(&namespace);
        comes_back(&NamespaceList { namespaces: numbers, is_whole: true });
        comes_back(&NameList { names, is_whole: true });
        for bytes in [controller.emit(), namespace.emit()] {
            let part = &bytes[..4095];
            prop_assert!(!IdentifyController::parse(part).is_some_and(|it| it.is_whole));
            prop_assert!(!IdentifyNamespace::parse(part).is_some_and(|it| it.is_whole));
        }
    }

    #[test]
    fn a_list_that_did_not_end_is_not_whole(numbers in vec(1..=u32::MAX, 1..40), cut in any::<prop::sample::Index>()) {
        let bytes = NamespaceList { namespaces: numbers.clone(), is_whole: true }.emit();
        let cut = cut.index(4 * numbers.len() + 4);
        let part = NamespaceList::parse(&bytes[..cut]).expect("every list is read");
        prop_assert_eq!(&part.namespaces, &numbers[..cut / 4]);
        prop_assert!(!part.is_whole);
    }

    #[test]
    fn logs_come_back(
        access in access_log(),
        counters: [u128; 10],
        minutes: [u32; 2],
        bytes: [u8; 4],
        kelvin: [u16; 9],
        revisions: [bool; 7],
        revision in text(8),
        entries in vec(any::<(u64, [u16; 4], u64, u32)>(), 1..5),
    ) {
        comes_back_and_knows_its_length(&access);
        let [data_units_read, data_units_written, host_reads, host_writes, busy_minutes, ..] = counters;
        let [.., power_cycles, power_on_hours, unsafe_shutdowns, media_errors, error_entries] = counters;
        comes_back_and_knows_its_length(&SmartLog {
            critical_warning: bytes[0],
            temperature_kelvin: kelvin[8],
            available_spare: bytes[1],
            spare_threshold: bytes[2],
            percentage_used: bytes[3],
            data_units_read,
            data_units_written,
            host_reads,
            host_writes,
            busy_minutes,
            power_cycles,
            power_on_hours,
            unsafe_shutdowns,
            media_errors,
            error_entries,
            warning_minutes: minutes[0],
            critical_minutes: minutes[1],
            sensors_kelvin: *kelvin.first_chunk().expect("nine are eight and one"),
            is_whole: true,
        });
        comes_back_and_knows_its_length(&FirmwareLog {
            active: bytes[0] & 7,
            next: bytes[1] & 7,
            revisions: revisions.map(|is_there| if is_there { revision.clone() } else { String::new() }),
            is_whole: true,
        });
        let entries = entries.into_iter().map(|(count, [queue, command, status, location], lba, namespace)| {
            ErrorEntry { count, queue, command, status, location, lba, namespace }
        });
        let log = ErrorLog { entries: entries.collect(), is_whole: true };
        prop_assert_eq!(ErrorLog::parse(&log.emit()), Some(log));
    }

    #[test]
    fn reservations_come_back(
        short in report(false),
        extended in report(true),
        (namespace, ignore_key, key) in any::<(u32, bool, u64)>(),
        change in change(),
        dwords in 1_u32..1 << 20,
        wide: bool,
    ) {
        comes_back_and_knows_its_length(&Short(short));
        comes_back_and_knows_its_length(&Extended(extended));
        let reservation = ReservationCommand { namespace, ignore_key, key, change };
        let command = reservation.command();
        prop_assert_eq!(ReservationCommand::parse(&fields(&command), out(&command)), Some(reservation));
        let short = &out(&command)[..out(&command).len() - 1];
        prop_assert_eq!(ReservationCommand::parse(&fields(&command), short), None);
        let report = ReservationReport { namespace, extended: wide, allocation: 4 * dwords };
        prop_assert_eq!(ReservationReport::parse(&fields(&report.command())), Some(report));
        prop_assert_eq!(report.command().transfer, Transfer::In(4 * dwords as usize));
    }

    #[test]
    fn commands_come_back(
        (namespace, page, specific, retain_event) in any::<(u32, u8, u8, bool)>(),
        (offset, dwords, dword, save) in (any::<u64>(), 1_u32..1 << 24, any::<u32>(), any::<bool>()),
        data in vec(any::<u8>(), 0..20),
        what in 0_usize..4,
    ) {
        use IdentifyWhat::{ActiveNamespaces, Controller, Namespace, NamespaceNames};
        let identify = Identify { what: [Namespace, Controller, ActiveNamespaces, NamespaceNames][what], namespace };
        prop_assert_eq!(Identify::parse(&fields(&identify.command())), Some(identify));
        let get =
            GetLogPage { namespace, page, specific: specific & 0x7f, retain_event, offset, allocation: 4 * dwords };
        prop_assert_eq!(GetLogPage::parse(&fields(&get.command())), Some(get));
        use FeatureValue::{Capabilities, Current, Default, Saved};
        let value = [Current, Default, Saved, Capabilities][what];
        let get = GetFeatures { namespace, feature: page, value, dword, data_bytes: data.len() };
        prop_assert_eq!(GetFeatures::parse(&fields(&get.command()), data.len()), Some(get));
        let set = SetFeatures { namespace, feature: page, save, dword, data };
        let command = set.command();
        prop_assert_eq!(SetFeatures::parse(&fields(&command), out(&command)), Some(set));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in hostile()) {
        is_stable::<AccessLog>(&bytes);
        is_stable::<ErrorLog>(&bytes);
        is_stable::<SmartLog>(&bytes);
        is_stable::<FirmwareLog>(&bytes);
        is_stable::<NamespaceList>(&bytes);
        is_stable::<NameList>(&bytes);
        is_stable::<Short>(&bytes);
        is_stable::<Extended>(&bytes);
        prop_assert_eq!(IdentifyController::parse(&bytes).is_some(), bytes.len() >= 80);
        prop_assert_eq!(IdentifyNamespace::parse(&bytes).is_some(), bytes.len() >= 8);
        prop_assert_eq!(host_identifier(&bytes).is_some(), bytes.len() >= 8);
        let mut page = vec![0x35; 4096];
        page[..bytes.len()].copy_from_slice(&bytes);
        page[4096 - bytes.len()..].copy_from_slice(&bytes);
        is_stable::<IdentifyController>(&page);
        is_stable::<IdentifyNamespace>(&page);
        if let Some(namespace) = IdentifyNamespace::parse(&page) {
            prop_assert!(namespace.block_bytes().is_none_or(u32::is_power_of_two));
        }
    }

    #[test]
    fn any_fields_are_a_command_or_not(numbers: ([u32; 6], u32), flags: (bool, u8), data in hostile()) {
        let (is_io, opcode) = flags;
        let fields = NvmeFields { is_io, opcode, namespace: numbers.1, cdw2: [0; 2], cdw10: numbers.0 };
        let read = [
            Identify::parse(&fields).is_some(),
            GetLogPage::parse(&fields).is_some(),
            GetFeatures::parse(&fields, 0).is_some(),
            SetFeatures::parse(&fields, &data).is_some(),
            ReservationCommand::parse(&fields, &data).is_some(),
            ReservationReport::parse(&fields).is_some(),
        ];
        prop_assert!(read.into_iter().filter(|is_it| *is_it).count() <= 1, "a command is one command");
        prop_assert!(!opcode::name_of(&fields).is_empty());
        prop_assert!(!status::name(opcode, numbers.0[0] as u8).is_empty());
    }
}

#[test]
fn fields_lie_where_the_specification_puts_them() {
    let controller = IdentifyController {
        vendor: 0x1b36,
        serial: "S1".into(),
        model: "Disk".into(),
        controller: 0x0102,
        namespaces: 0x0403_0201,
        io_commands: 0x20,
        multi_path: 8,
        subsystem: "nqn.a".into(),
        is_whole: true,
        ..IdentifyController::default()
    };
    let bytes = controller.emit();
    assert_eq!((bytes.len(), &bytes[..8]), (4096, &[0x36, 0x1b, 0, 0, b'S', b'1', b' ', b' '][..]));
    assert_eq!((&bytes[24..29], bytes[76], &bytes[78..80]), (&b"Disk "[..], 8, &[2, 1][..]));
    assert_eq!((&bytes[516..522], &bytes[768..774]), (&[1, 2, 3, 4, 0x20, 0][..], &b"nqn.a\0"[..]));
    assert!(controller.has_access_states() && controller.has_reservations());

    let mut bytes = vec![0; 4096];
    (bytes[0], bytes[25], bytes[26], bytes[30], bytes[31], bytes[92]) = (9, 17, 0x21, 1, 0x7f, 4);
    bytes[104..120].copy_from_slice(&[0xab; 16]);
    bytes[128 + 4 * 17 + 2] = 12;
    let namespace = IdentifyNamespace::parse(&bytes).expect("a namespace");
    assert_eq!(
        (namespace.size_blocks, namespace.formats.len(), namespace.block_bytes()),
        (9, 18, Some(4096))
    );
    assert_eq!((namespace.sharing, namespace.access_group), (1, 4));
    assert_eq!(namespace.unique_name(), Some(format!("eui.{}", "ab".repeat(16))));

    // Reservation Acquire, preempt, exclusive access for registrants: RACQA 1, RTYPE 4.
    let change = ReservationChange::Acquire {
        action: AcquireAction::Preempt,
        kind: ReservationType::ExclusiveAccessRegistrantsOnly,
        preempt_key: 0x11,
    };
    let command = ReservationCommand { namespace: 1, ignore_key: false, key: 0x22, change }.command();
    let expected =
        NvmeFields { is_io: true, opcode: 0x11, namespace: 1, cdw2: [0; 2], cdw10: [0x401, 0, 0, 0, 0, 0] };
    assert_eq!(
        (fields(&command), out(&command)),
        (expected, &[0x22, 0, 0, 0, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0, 0, 0][..])
    );

    // Get Log Page, asymmetric access, 4096 bytes: NUMDL 3FFh, LID 0Ch, RAE.
    let get = GetLogPage::of_controller(0x0c, 4096);
    assert_eq!(fields(&get.command()).cdw10, [0x03ff_800c, 0, 0, 0, 0, 0]);
    let host = SetFeatures::host_identifier([7; 16]).command();
    assert_eq!(
        (fields(&host).cdw10[..2].to_vec(), out(&host).len()),
        (vec![u32::from(id::HOST_IDENTIFIER), 1], 16)
    );
}

#[test]
fn a_reservation_report_has_two_forms() {
    // Generation 5, type 3, one controller (7) whose host 01…08 holds with key 42h; persistent.
    let mut short = vec![0; 24];
    (short[0], short[4], short[5], short[9]) = (5, 3, 1, 1);
    short.extend([7, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0x42, 0, 0, 0, 0, 0, 0, 0]);
    let status = ReservationStatus::parse(&short, false).expect("a report");
    assert_eq!(
        (status.generation, status.kind, status.persistent),
        (5, ReservationType::WriteExclusiveRegistrantsOnly, true)
    );
    let host = [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let one = RegisteredController { controller: 7, is_holder: true, host, key: 0x42 };
    assert_eq!((status.controllers, status.is_whole), (vec![one], true));

    let mut extended = vec![0; 128];
    (extended[0], extended[4], extended[5], extended[9]) = (5, 3, 1, 1);
    (extended[64], extended[66], extended[72]) = (7, 1, 0x42);
    extended[80..88].copy_from_slice(&host[..8]);
    let status = ReservationStatus::parse(&extended, true).expect("a report");
    assert_eq!((status.controllers, status.is_whole), (vec![one], true));
}
