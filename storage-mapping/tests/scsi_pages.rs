//! SCSI bytes (port groups, logical units, capacity, mode and log pages, plain commands): what is emitted is read back as it
//! was, what was cut short says so, and nothing panics, whatever comes.

#[path = "support/reply.rs"]
mod reply;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use reply::{cdb, comes_back_and_knows_its_length as comes_back, hostile, is_stable, out, replies};
use storage_mapping::control_port::{Cdb, Transfer};
use storage_mapping::scsi::basic::{BasicCommand, BlockForm, BlockTransfer, StartStop};
use storage_mapping::scsi::capacity::{Capacity, ReadCapacity, ShortCapacity};
use storage_mapping::scsi::inquiry::InquiryCommand;
use storage_mapping::scsi::log::{
    ALL_SUBPAGES, LogBody, LogPage, LogParameter, LogSelect, LogSense, LogValues, code,
};
use storage_mapping::scsi::luns::{Lun, LunList, ReportLuns};
use storage_mapping::scsi::mode::{
    BlockDescriptor, CachingPage, ControlPage, ModeData, ModeForm, ModePage, ModeSelect, ModeSense,
    PageControl,
};
use storage_mapping::scsi::opcode;
use storage_mapping::scsi::port_groups::{
    PortGroup, PortGroups, ReportPortGroups, SetPortGroups, SupportedStates, state_number, state_of,
};
use storage_mapping::scsi::reservations::{ReserveIn, ReserveOut};

replies!(PortGroups, LunList, Capacity, LogPage);

/// Mode data in the form of six bytes.
#[derive(Clone, Debug, PartialEq)]
struct Six(ModeData);

/// Mode data in the form of ten bytes.
#[derive(Clone, Debug, PartialEq)]
struct Ten(ModeData);

macro_rules! mode_replies {
    ($($name:ident),+) => {$(
        impl reply::Reply for $name {
            fn read(bytes: &[u8]) -> Option<Self> {
                ModeData::parse(bytes, ModeForm::$name).map(Self)
            }
            fn make(&self) -> Vec<u8> {
                self.0.emit(ModeForm::$name)
            }
            fn whole(&mut self) -> &mut bool {
                &mut self.0.is_whole
            }
        }
    )+};
}
mode_replies!(Six, Ten);

fn group() -> impl Strategy<Value = PortGroup> {
    (any::<(u16, bool, u8, u8, u8, u8)>(), vec(any::<u16>(), 0..5)).prop_map(
        |((group, is_preferred, state, supported, status, vendor_specific), ports)| PortGroup {
            group,
            is_preferred,
            state_number: state & 0xf,
            supported: SupportedStates::from_bits_truncate(supported),
            status,
            vendor_specific,
            ports,
        },
    )
}

fn mode_page() -> impl Strategy<Value = ModePage> {
    (any::<bool>(), 0_u8..64, option::of(any::<u8>()), vec(any::<u8>(), 0..24))
        .prop_map(|(savable, code, subpage, body)| ModePage { savable, code, subpage, body })
}

/// Mode data with short block descriptors, and the same with long ones.
fn mode_data() -> impl Strategy<Value = (ModeData, ModeData)> {
    let blocks = vec((any::<u32>(), 0_u32..1 << 24), 0..3);
    (any::<(u8, u8)>(), blocks, vec(mode_page(), 0..5)).prop_map(
        |((medium_type, device_specific), blocks, pages)| {
            let blocks = |shift: u32| {
                let of = |(blocks, block_bytes): &(u32, u32)| BlockDescriptor {
                    blocks: u64::from(*blocks) << shift,
                    block_bytes: *block_bytes,
                };
                blocks.iter().map(of).collect()
            };
            let long = ModeData {
                medium_type,
                device_specific,
                long_blocks: true,
                blocks: blocks(17),
                pages,
                is_whole: true,
            };
            (ModeData { long_blocks: false, blocks: blocks(0), ..long.clone() }, long)
        },
    )
}

fn log_page() -> impl Strategy<Value = LogPage> {
    let parameter = (any::<(u16, u8)>(), vec(any::<u8>(), 0..12))
        .prop_map(|((code, control), value)| LogParameter { code, control, value });
    let page = |unsaved, code, subpage, body| LogPage { unsaved, code, subpage, body, is_whole: true };
    prop_oneof![
        vec(0_u8..64, 0..9).prop_map(move |pages| page(false, 0, None, LogBody::Pages(pages))),
        vec(any::<(u8, u8)>(), 0..9).prop_map(move |pairs| page(
            false,
            0,
            Some(ALL_SUBPAGES),
            LogBody::PagesAndSubpages(pairs)
        )),
        (any::<bool>(), 1_u8..64, option::of(any::<u8>()), vec(parameter, 0..6)).prop_map(
            move |(unsaved, code, subpage, parameters)| page(
                unsaved,
                code,
                subpage,
                LogBody::Parameters(parameters)
            )
        ),
    ]
}

fn basic() -> impl Strategy<Value = BasicCommand> {
    use BasicCommand as B;
    let start_stop = any::<(bool, u8, bool, bool, bool)>().prop_map(
        |(immediate, power_condition, no_flush, load_eject, start)| StartStop {
            immediate,
            power_condition: power_condition & 0xf,
            no_flush,
            load_eject,
            start,
        },
    );
    prop_oneof![
        Just(B::TestUnitReady),
        Just(B::Reserve6),
        Just(B::Release6),
        Just(B::Reserve10),
        Just(B::Release10),
        any::<bool>().prop_map(B::PreventRemoval),
        any::<(bool, u8)>().prop_map(|(descriptors, allocation)| B::RequestSense { descriptors, allocation }),
        start_stop.prop_map(B::StartStopUnit),
        any::<(bool, u32, u16)>().prop_map(|(immediate, lba, blocks)| B::SynchronizeCache10 {
            immediate,
            lba,
            blocks
        }),
        any::<(bool, u64, u32)>().prop_map(|(immediate, lba, blocks)| B::SynchronizeCache16 {
            immediate,
            lba,
            blocks
        }),
    ]
}

fn page_control() -> impl Strategy<Value = PageControl> {
    let all = [PageControl::Current, PageControl::Changeable, PageControl::Default, PageControl::Saved];
    prop::sample::select(all.to_vec())
}

fn log_values() -> impl Strategy<Value = LogValues> {
    use LogValues::{Cumulative, DefaultCumulative, DefaultThresholds, Thresholds};
    prop::sample::select(vec![Thresholds, Cumulative, DefaultThresholds, DefaultCumulative])
}

proptest! {
    #[test]
    fn port_groups_come_back(seconds in option::of(any::<u8>()), groups in vec(group(), 0..6)) {
        comes_back(&PortGroups { transition_seconds: seconds, groups, is_whole: true });
    }

    #[test]
    fn states_are_set(groups in vec((any::<u16>(), 0_u8..16), 0..9), extended: bool, allocation: u32) {
        let set = SetPortGroups { groups };
        let command = set.command();
        prop_assert_eq!(SetPortGroups::parse(&cdb(&command), out(&command)), Some(set));
        prop_assert_eq!(SetPortGroups::parse(&cdb(&command), &out(&command)[1..]), None);
        let report = ReportPortGroups { extended, allocation };
        prop_assert_eq!(ReportPortGroups::parse(&cdb(&report.command())), Some(report));
    }

    #[test]
    fn luns_and_capacity_come_back(
        luns in vec(any::<[u8; 8]>(), 0..9),
        last_block: u64,
        block_bytes: u32,
        flags: (u8, u8, u16),
        short in option::of(0..u32::MAX),
        number: u16,
    ) {
        comes_back(&LunList { luns: luns.into_iter().map(Lun).collect(), is_whole: true });
        prop_assert_eq!(Lun::of_number(number).and_then(Lun::number), Some(number).filter(|n| *n < 0x4000));
        comes_back(&Capacity {
            last_block,
            block_bytes,
            protection_type: (flags.0 & 8 != 0).then_some(flags.0 & 7),
            protection_exponent: flags.1 >> 4,
            physical_exponent: flags.1 & 0xf,
            provisioned: flags.0 & 0x10 != 0,
            reads_zeros: flags.0 & 0x20 != 0,
            lowest_aligned: flags.2 & 0x3fff,
            is_whole: true,
        });
        let short = ShortCapacity { last_block: short, block_bytes };
        prop_assert_eq!(ShortCapacity::parse(&short.emit()), Some(short));
        prop_assert_eq!(ShortCapacity::parse(&short.emit()[..7]), None);
    }

    #[test]
    fn mode_data_come_back((short, long) in mode_data(), save: bool) {
        comes_back(&Six(short.clone()));
        comes_back(&Ten(short.clone()));
        comes_back(&Ten(long.clone()));
        for (form, data) in [(ModeForm::Six, short.clone()), (ModeForm::Ten, short), (ModeForm::Ten, long)] {
            let mut select = ModeSelect { form, save, data };
            let command = select.command();
            // Reserved in MODE SELECT.
            select.data.pages.iter_mut().for_each(|page| page.savable = false);
            prop_assert_eq!(ModeSelect::parse(&cdb(&command), out(&command)), Some(select));
            let data = out(&command);
            prop_assert_eq!(ModeSelect::parse(&cdb(&command), &data[..data.len() - 1]), None);
        }
    }

    #[test]
    fn fields_of_a_mode_page_change_nothing_else(
        body in vec(any::<u8>(), 0..30),
        bits: [u8; 5],
        numbers: (u16, u16),
        flags: [bool; 7],
    ) {
        let control = ControlPage {
            task_sets: bits[0] & 7,
            descriptor_sense: flags[0],
            queue_algorithm: bits[1] & 0xf,
            queue_error: bits[2] & 3,
            attention_interlock: bits[3] & 3,
            write_protect: flags[1],
            task_aborted_status: flags[2],
            busy_timeout: numbers.0,
            self_test_seconds: numbers.1,
        };
        let caching = CachingPage {
            write_cache: flags[3],
            read_cache_disabled: flags[4],
            read_ahead_disabled: flags[5],
            non_volatile_disabled: flags[6],
        };
        let before = ModePage { savable: true, code: 0, subpage: None, body };
        // (byte from the head, bits) that belong to the fields.
        let own_control = [(2, 0xe4), (3, 0xf6), (4, 0x38), (5, 0x40), (8, 0xff), (9, 0xff), (10, 0xff), (11, 0xff)];
        let own_caching = [(2, 0x05), (12, 0x21)];
        let mut page = before.clone();
        control.put(&mut page);
        prop_assert_eq!(ControlPage::of(&page), Some(control));
        prop_assert_eq!(CachingPage::of(&page), None);
        only_changed(&before, &page, &own_control)?;
        let mut page = before.clone();
        caching.put(&mut page);
        prop_assert_eq!(CachingPage::of(&page), Some(caching));
        only_changed(&before, &page, &own_caching)?;
        prop_assert_eq!(ControlPage::of(&control.page()), Some(control));
        prop_assert_eq!(CachingPage::of(&caching.page()), Some(caching));
    }

    #[test]
    fn log_pages_come_back(page in log_page()) {
        comes_back(&page);
    }

    #[test]
    fn commands_come_back(
        basic in basic(),
        block in any::<(bool, bool, u64, u32)>(),
        allocation: u32,
        mode in (any::<[bool; 3]>(), page_control(), 0_u8..64, any::<u8>()),
        log in (any::<[bool; 2]>(), log_values(), any::<u16>(), vec(any::<u8>(), 0..20)),
    ) {
        prop_assert_eq!(BasicCommand::parse(&cdb(&basic.command())), Some(basic));
        let (is_write, fua, lba, blocks) = block;
        for (lba, blocks) in [(lba, blocks), (lba & 0xffff, blocks & 0xffff)] {
            let transfer = BlockTransfer { fua, ..BlockTransfer::new(is_write, lba, blocks) };
            let command = transfer.command(Transfer::None);
            prop_assert_eq!(transfer.form == BlockForm::Ten, cdb(&command).bytes().len() == 10);
            prop_assert_eq!(BlockTransfer::parse(&cdb(&command)), Some(transfer));
        }
        let luns = ReportLuns { select: mode.3, allocation };
        prop_assert_eq!(ReportLuns::parse(&cdb(&luns.command())), Some(luns));
        for capacity in [ReadCapacity::Short, ReadCapacity::LONG, ReadCapacity::Long { allocation }] {
            prop_assert_eq!(ReadCapacity::parse(&cdb(&capacity.command())), Some(capacity));
        }
        let (flags, control, page, subpage) = mode;
        for form in [ModeForm::Six, ModeForm::Ten] {
            let sense = ModeSense {
                form,
                without_blocks: flags[0],
                long_blocks: flags[1] && form == ModeForm::Ten,
                control,
                page,
                subpage,
                allocation: (allocation & 0xff) as u16,
            };
            prop_assert_eq!(ModeSense::parse(&cdb(&sense.command())), Some(sense));
        }
        let ([save, reset], values, from_parameter, list) = log;
        let sense = LogSense { save, values, page, subpage, from_parameter, allocation: (allocation >> 16) as u16 };
        prop_assert_eq!(LogSense::parse(&cdb(&sense.command())), Some(sense));
        let select = LogSelect { reset, save, values, page, subpage, list };
        let command = select.command();
        prop_assert_eq!(LogSelect::parse(&cdb(&command), out(&command)), Some(select));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in hostile(), length in 0_u8..100) {
        is_stable::<PortGroups>(&bytes);
        is_stable::<PortGroups>(&[&[0, 0, 0, length][..], &bytes].concat());
        is_stable::<LunList>(&bytes);
        is_stable::<Capacity>(&bytes);
        is_stable::<LogPage>(&bytes);
        is_stable::<Ten>(&bytes);
        // The form of six bytes knows no long block descriptors, so it is always emitted as it was read.
        is_stable::<Six>(&bytes);
        is_stable::<Six>(&[&[length, 0, 0][..], &bytes].concat());
        prop_assert_eq!(ShortCapacity::parse(&bytes).is_some(), bytes.len() >= 8);
    }

    #[test]
    fn any_bytes_are_a_command_or_not(opcode: u8, rest: [u8; 31], data in hostile()) {
        for length in [6, 10, 12, 16, 32] {
            let cdb = Cdb::new(&[&[opcode][..], &rest[..length - 1]].concat()).expect("a length of commands");
            prop_assert!(!opcode::name_of(&cdb).is_empty());
            let read = [
                BasicCommand::parse(&cdb).is_some(),
                BlockTransfer::parse(&cdb).is_some(),
                InquiryCommand::parse(&cdb).is_some(),
                ReadCapacity::parse(&cdb).is_some(),
                ReportLuns::parse(&cdb).is_some(),
                ReportPortGroups::parse(&cdb).is_some(),
                SetPortGroups::parse(&cdb, &data).is_some(),
                ModeSense::parse(&cdb).is_some(),
                ModeSelect::parse(&cdb, &data).is_some(),
                LogSense::parse(&cdb).is_some(),
                LogSelect::parse(&cdb, &data).is_some(),
                ReserveIn::parse(&cdb).is_some(),
                ReserveOut::parse(&cdb, &data).is_ok(),
            ];
            prop_assert!(read.into_iter().filter(|is_it| *is_it).count() <= 1, "a command is one command");
        }
    }
}

/// Beside the given bits and what it grew by, a page is as it was.
fn only_changed(before: &ModePage, after: &ModePage, own: &[(usize, u8)]) -> Result<(), TestCaseError> {
    for (place, byte) in after.body.iter().enumerate() {
        let bits = own.iter().find(|(at, _)| at - 2 == place).map_or(0, |(_, bits)| *bits);
        let old = before.body.get(place).copied().unwrap_or_default();
        prop_assert_eq!(byte & !bits, old & !bits, "byte {}", place + 2);
    }
    prop_assert!(after.body.len() >= before.body.len() && after.savable == before.savable);
    Ok(())
}

#[test]
fn access_states_have_numbers() {
    for number in 0..=0xff {
        if let Some(state) = state_of(number) {
            assert_eq!(state_number(state), number & 0xf);
        }
    }
    assert_eq!((state_of(0xf).is_some(), state_of(4), state_of(0xe)), (true, None, None));
}

#[test]
fn counters_are_found_in_their_pages() {
    let parameter = |code, value: &[u8]| LogParameter { code, control: 3, value: value.to_vec() };
    let errors = LogPage::of_parameters(
        code::READ_ERRORS,
        vec![parameter(0, &[1, 0]), parameter(6, &[0, 0, 0, 7]), parameter(5, &[1; 9]), parameter(3, &[])],
    );
    let counters = errors.error_counters().expect("a page of counters");
    assert_eq!((counters.corrected_at_once, counters.uncorrected), (Some(0x100), Some(7)));
    // Longer than a number, and without a value.
    assert_eq!((counters.bytes, counters.corrected, counters.repeated), (None, None, None));
    assert_eq!((errors.temperature(), errors.non_medium_errors()), (None, None));
    let heat =
        LogPage::of_parameters(code::TEMPERATURE, vec![parameter(0, &[0, 38]), parameter(1, &[0, 0xff])]);
    let heat = heat.temperature().expect("a page of temperatures");
    assert_eq!((heat.now, heat.reference), (Some(38), None));
    let other = LogPage::of_parameters(code::NON_MEDIUM_ERRORS, vec![parameter(0, &[5])]);
    assert_eq!((other.non_medium_errors(), other.error_counters()), (Some(5), None));
}
