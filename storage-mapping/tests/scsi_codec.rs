//! SCSI bytes (sense data, INQUIRY, persistent reservations; the rest in `scsi_pages.rs`): what is emitted is read back as it was, what was cut short says so, and nothing panics, whatever comes.
//!
//! The bytes themselves are compared with the standard's field layout in `scsi_golden.rs`, with `sg3_utils` in
//! `scsi_tools.rs`.

#[path = "support/reply.rs"]
mod reply;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use reply::{cdb, comes_back_and_knows_its_length as comes_back, hostile, is_stable, out, replies, text};
use storage_mapping::control_port::Transfer;
use storage_mapping::scsi::inquiry::{
    InquiryCommand, InquiryData, InquiryFlags, Peripheral, TargetPortGroupSupport,
};
use storage_mapping::scsi::reservations::{
    Capabilities, FullStatus, KeyList, ParameterList, RegisterFlags, Registrant, Reservation,
    ReservationReport, ReservationType, ReserveIn, ReserveInAction, ReserveOut, ReserveOutAction,
    ReserveOutError,
};
use storage_mapping::scsi::sense::{KeySpecific, Sense, SenseFlags, SenseFormat, key};
use storage_mapping::scsi::transport_id::TransportId;
use storage_mapping::scsi::vpd::{
    Association, BlockCharacteristics, BlockLimits, Designator, ExtendedFlags, ExtendedInquiry, Page,
    PagePolicy, PolicyDescriptor, Provisioning, Vpd,
};

replies!(Sense, InquiryData, Vpd, KeyList, ReservationReport, Capabilities, FullStatus);

fn peripheral() -> impl Strategy<Value = Peripheral> {
    (0_u8..8, 0_u8..32).prop_map(|(qualifier, device_type)| Peripheral { qualifier, device_type })
}

fn sense() -> impl Strategy<Value = Sense> {
    let codes = (0_u8..16, any::<u8>(), any::<u8>(), any::<bool>(), any::<u8>(), 0_u8..16);
    let fields = (option::of(any::<u32>()), option::of(1..=u32::MAX), option::of(any::<[u8; 3]>()));
    (codes, fields, any::<bool>(), vec(any::<u8>(), 0..40), any::<bool>()).prop_map(
        |(
            (key, asc, ascq, deferred, unit_code, flags),
            (information, specific, field),
            wide,
            rest,
            fixed,
        )| {
            let wider = |number: u32| u64::from(number) << if wide && !fixed { 31 } else { 0 };
            let rest = if fixed { rest } else { [&[0x80, rest.len() as u8][..], &rest].concat() };
            Sense {
                format: if fixed { SenseFormat::Fixed } else { SenseFormat::Descriptor },
                deferred,
                key,
                asc,
                ascq,
                flags: SenseFlags::from_bits_truncate(flags << 4),
                information: information.map(wider),
                command_specific: specific.map(wider),
                key_specific: field.map(|field| key_specific(key, field)),
                unit_code,
                rest,
                is_whole: true,
            }
        },
    )
}

fn key_specific(sense_key: u8, [first, second, third]: [u8; 3]) -> KeySpecific {
    let number = u16::from(second) << 8 | u16::from(third);
    match sense_key {
        key::ILLEGAL_REQUEST => KeySpecific::FieldPointer {
            in_cdb: first & 1 != 0,
            bit: (first & 2 != 0).then_some(first >> 5),
            byte: number,
        },
        key::NO_SENSE | key::NOT_READY => KeySpecific::Progress(number),
        key::RECOVERED_ERROR | key::MEDIUM_ERROR | key::HARDWARE_ERROR => KeySpecific::Attempts(number),
        key::UNIT_ATTENTION => KeySpecific::AttentionsLost(first & 1 != 0),
        _ => KeySpecific::Other([first | 0x80, second, third]),
    }
}

fn inquiry() -> impl Strategy<Value = InquiryData> {
    let texts = (text(8), text(16), text(4), any::<[u8; 20]>(), vec(1..=u16::MAX, 0..=8));
    (peripheral(), any::<u8>(), 0_u8..16, any::<u64>(), 0_usize..4, texts).prop_map(
        |(peripheral, version, response_format, flags, groups, texts)| {
            use TargetPortGroupSupport::{Explicit, Implicit, ImplicitAndExplicit, None};
            let (vendor, product, revision, vendor_specific, versions) = texts;
            InquiryData {
                peripheral,
                version,
                response_format,
                flags: InquiryFlags::from_bits_truncate(flags),
                port_groups: [None, Implicit, Explicit, ImplicitAndExplicit][groups],
                vendor,
                product,
                revision,
                vendor_specific,
                versions,
                is_whole: true,
            }
        },
    )
}

fn designator() -> impl Strategy<Value = Designator> {
    let associations =
        [Association::LogicalUnit, Association::TargetPort, Association::TargetDevice, Association::Reserved];
    (
        prop::sample::select(associations.to_vec()),
        option::of(0_u8..16),
        0_u8..16,
        0_u8..16,
        vec(any::<u8>(), 0..30),
    )
        .prop_map(|(association, protocol, code_set, kind, bytes)| Designator {
            association,
            protocol,
            code_set,
            kind,
            bytes,
        })
}

fn policy() -> impl Strategy<Value = PolicyDescriptor> {
    let policies =
        [PagePolicy::Shared, PagePolicy::PerTargetPort, PagePolicy::Reserved, PagePolicy::PerNexus];
    (0_u8..64, any::<u8>(), any::<bool>(), prop::sample::select(policies.to_vec())).prop_map(
        |(page, subpage, shared_by_units, policy)| PolicyDescriptor {
            page,
            subpage,
            shared_by_units,
            policy,
        },
    )
}

fn limits() -> impl Strategy<Value = BlockLimits> {
    (any::<[u32; 11]>(), any::<(bool, u8, u16, u64)>(), option::of(0_u32..1 << 31)).prop_map(
        |(
            words,
            (write_same_not_zero, compare_and_write_max, transfer_granularity, write_same_max),
            alignment,
        )| {
            BlockLimits {
                write_same_not_zero,
                compare_and_write_max,
                transfer_granularity,
                transfer_max: words[0],
                transfer_optimal: words[1],
                prefetch_max: words[2],
                unmap_max: words[3],
                unmap_descriptors_max: words[4],
                unmap_granularity: words[5],
                unmap_alignment: alignment,
                write_same_max,
                atomic: [words[6], words[7], words[8], words[9], words[10]],
            }
        },
    )
}

fn page() -> impl Strategy<Value = Page> {
    let extended =
        any::<(u8, u32, u16, u8)>().prop_map(|(protection, flags, minutes, most)| ExtendedInquiry {
            protection,
            flags: ExtendedFlags::from_bits_retain(flags),
            microcode_per_nexus: protection & 0xf,
            self_test_minutes: minutes,
            sense_max_bytes: most,
        });
    let characteristics = any::<(u16, u8, bool, bool)>().prop_map(|(rate, kind, fua, verify)| {
        let (form_factor, zoned) = (kind & 0xf, kind >> 6);
        BlockCharacteristics {
            rotation_rate: rate,
            product_type: kind,
            form_factor,
            zoned,
            fua_is_non_volatile: fua,
            verify_unmapped: verify,
        }
    });
    let provisioning =
        any::<(u8, [bool; 5], u8)>().prop_map(|(threshold_exponent, flags, bits)| Provisioning {
            threshold_exponent,
            unmap: flags[0],
            write_same_16: flags[1],
            write_same_10: flags[2],
            reads_zeros: bits & 7,
            anchored: flags[3],
            has_group: flags[4],
            kind: bits >> 5,
        });
    prop_oneof![
        vec(any::<u8>(), 0..20).prop_map(Page::Supported),
        text(30).prop_map(Page::SerialNumber),
        vec(designator(), 0..6).prop_map(Page::Identification),
        extended.prop_map(Page::ExtendedInquiry),
        vec(policy(), 0..6).prop_map(Page::ModePagePolicy),
        limits().prop_map(Page::BlockLimits),
        characteristics.prop_map(Page::BlockCharacteristics),
        provisioning.prop_map(Page::Provisioning),
        (0xc0..=u8::MAX, vec(any::<u8>(), 0..40)).prop_map(|(code, bytes)| Page::Other { code, bytes }),
    ]
}

fn transport_id() -> impl Strategy<Value = TransportId> {
    let session = option::of("[0-9a-f]{12}");
    prop_oneof![
        any::<[u8; 8]>().prop_map(TransportId::FibreChannel),
        any::<[u8; 8]>().prop_map(TransportId::Sas),
        any::<[u8; 16]>().prop_map(TransportId::Srp),
        ("iqn[.a-z0-9:é-]{0,60}", session).prop_map(|(name, session)| TransportId::Iscsi { name, session }),
        vec(any::<u8>(), 23).prop_map(|rest| TransportId::Other([&[0x0a][..], &rest].concat())),
    ]
}

fn reservation_type() -> impl Strategy<Value = ReservationType> {
    (0_u8..16).prop_map(ReservationType::of)
}

fn registrant() -> impl Strategy<Value = Registrant> {
    (any::<(u64, bool, bool, u16)>(), 0_u8..16, reservation_type(), option::of(transport_id())).prop_map(
        |((key, all_target_ports, is_holder, relative_port), scope, kind, initiator)| Registrant {
            key,
            all_target_ports,
            is_holder,
            scope,
            kind,
            relative_port,
            initiator,
        },
    )
}

fn parameter_list() -> impl Strategy<Value = (ReserveOutAction, ParameterList)> {
    let basic = (0_usize..7, any::<[u64; 2]>(), vec(transport_id(), 0..4), any::<u8>()).prop_map(
        |(action, [key, action_key], initiators, flags)| {
            let mut flags = RegisterFlags::from_bits_truncate(flags);
            flags.set(RegisterFlags::SPECIFY_INITIATORS, !initiators.is_empty() || flags.bits() & 8 != 0);
            (ReserveOutAction::ALL[action], ParameterList::Basic { key, action_key, flags, initiators })
        },
    );
    let moved = (any::<([u64; 2], bool, bool, u16)>(), transport_id()).prop_map(
        |(([key, action_key], unregister, persist, relative_port), initiator)| {
            let list = ParameterList::Move { key, action_key, unregister, persist, relative_port, initiator };
            (ReserveOutAction::RegisterAndMove, list)
        },
    );
    prop_oneof![basic, moved]
}

proptest! {
    #[test]
    fn sense_data_come_back(sense in sense()) {
        comes_back(&sense);
    }

    #[test]
    fn inquiry_data_and_pages_come_back(data in inquiry(), peripheral in peripheral(), page in page()) {
        comes_back(&data);
        comes_back(&Vpd { peripheral, page, is_whole: true });
    }

    #[test]
    fn reservations_come_back(
        generation in any::<u32>(),
        keys in vec(any::<u64>(), 0..9),
        reservation in option::of((any::<u64>(), 0_u8..16, reservation_type())),
        registrants in vec(registrant(), 0..5),
        flags in any::<[bool; 6]>(),
        allow_commands in 0_u8..8,
        types in option::of(any::<u16>()),
    ) {
        comes_back(&KeyList { generation, keys, is_whole: true });
        let reservation = reservation.map(|(key, scope, kind)| Reservation { key, scope, kind });
        comes_back(&ReservationReport { generation, reservation, is_whole: true });
        comes_back(&FullStatus { generation, registrants, is_whole: true });
        let [replace_lost, compatible_handling, specify_initiators, all_target_ports, capable, active] = flags;
        comes_back(&Capabilities {
            replace_lost,
            compatible_handling,
            specify_initiators,
            all_target_ports,
            persist_capable: capable,
            persist_active: active,
            allow_commands,
            types,
            is_whole: true,
        });
    }

    #[test]
    fn a_persistent_reserve_out_comes_back(
        (action, list) in parameter_list(),
        scope in 0_u8..16,
        kind in reservation_type(),
        cut in any::<prop::sample::Index>(),
    ) {
        let change = ReserveOut { action, scope, kind, list };
        let command = change.command();
        let data = out(&command);
        prop_assert_eq!(ReserveOut::parse(&cdb(&command), data), Ok(change));
        let short = &data[..cut.index(data.len())];
        prop_assert_eq!(ReserveOut::parse(&cdb(&command), short), Err(ReserveOutError::Length));
        prop_assert!(ParameterList::parse(action, short).is_err());
    }

    #[test]
    fn commands_for_data_come_back(page in option::of(any::<u8>()), allocation: u16, action in 0_usize..4) {
        let inquiry = InquiryCommand { page, allocation };
        prop_assert_eq!(InquiryCommand::parse(&cdb(&inquiry.command())), Some(inquiry));
        let read = ReserveIn { action: ReserveInAction::ALL[action], allocation };
        prop_assert_eq!(ReserveIn::parse(&cdb(&read.command())), Some(read));
        prop_assert_eq!(read.command().transfer, Transfer::In(allocation.into()));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in hostile()) {
        is_stable::<InquiryData>(&bytes);
        is_stable::<Vpd>(&bytes);
        is_stable::<KeyList>(&bytes);
        is_stable::<ReservationReport>(&bytes);
        is_stable::<Capabilities>(&bytes);
        is_stable::<FullStatus>(&bytes);
        for action in ReserveOutAction::ALL {
            if let Ok(list) = ParameterList::parse(action, &bytes) {
                prop_assert_eq!(ParameterList::parse(action, &list.emit()), Ok(list));
            }
        }
    }

    #[test]
    fn any_bytes_are_sense_data_or_not(code in 0x6f_u8..0x75, bytes in hostile()) {
        is_stable::<Sense>(&[&[code][..], &bytes].concat());
    }

    #[test]
    fn any_bytes_are_a_page_or_not(
        page in prop::sample::select(&[0_u8, 0x80, 0x83, 0x86, 0x87, 0xb0, 0xb1, 0xb2, 0xc0][..]),
        length in 0_u8..100,
        bytes in hostile(),
    ) {
        is_stable::<Vpd>(&[&[0, page, 0, length][..], &bytes].concat());
    }
}
