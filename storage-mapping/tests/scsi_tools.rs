//! SCSI bytes against others: the field layout of the standard, worked out by hand, and what `sg3_utils` reads from what we
//! emit. Without `sg3_utils` those tests skip.

#[path = "support/programs.rs"]
mod programs;
#[path = "support/reply.rs"]
mod reply;

use std::process::Command;

use reply::{cdb, out};
use storage_mapping::control_port::{Cdb, ControlReply};
use storage_mapping::scsi::inquiry::{InquiryData, InquiryFlags, TargetPortGroupSupport};
use storage_mapping::scsi::log::{LogPage, LogParameter, code};
use storage_mapping::scsi::luns::{Lun, LunList};
use storage_mapping::scsi::mode::{BlockDescriptor, ControlPage, ModeData, ModeForm, ModeSelect};
use storage_mapping::scsi::opcode::{self, name_of};
use storage_mapping::scsi::port_groups::{PortGroup, PortGroups, SupportedStates};
use storage_mapping::scsi::reservations::{
    FullStatus, ParameterList, RegisterFlags, Registrant, ReservationType, ReserveOut, ReserveOutAction,
};
use storage_mapping::scsi::sense::{KeySpecific, Sense, key};
use storage_mapping::scsi::transport_id::TransportId;
use storage_mapping::scsi::vpd::identification::unit_identity;
use storage_mapping::scsi::vpd::{
    Association, BlockLimits, Designator, Page, PagePolicy, PolicyDescriptor, PortIdentity, Provisioning, Vpd,
};
use storage_mapping::{ErrorSource, IoError};

/// An NAA name of kind 6.
const NAME: [u8; 16] =
    [0x60, 0x01, 0x40, 0x51, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc];

fn designators() -> Vec<Designator> {
    vec![
        Designator::t10("DISKWIRE", "serial 7"),
        Designator::name(Association::TargetDevice, "iqn.2026-01.example:disk"),
        Designator::relative_port(2),
        Designator::port_group(5),
        Designator::naa(Association::LogicalUnit, &NAME),
        Designator::naa(Association::TargetPort, &[0x50, 1, 2, 3, 4, 5, 6, 7]),
    ]
}

fn inquiry() -> InquiryData {
    InquiryData {
        version: 7,
        response_format: 2,
        flags: InquiryFlags::HIERARCHICAL | InquiryFlags::COMMAND_QUEUE | InquiryFlags::THIRD_PARTY_COPY,
        port_groups: TargetPortGroupSupport::ImplicitAndExplicit,
        vendor: "DISKWIRE".into(),
        product: "simulated disk".into(),
        revision: "0001".into(),
        versions: vec![0x05c0],
        is_whole: true,
        ..InquiryData::default()
    }
}

#[test]
fn bytes_lie_where_the_standard_puts_them() {
    let mut sense = Sense::new(key::ILLEGAL_REQUEST, 0x24, 0);
    sense.key_specific = Some(KeySpecific::FieldPointer { in_cdb: true, bit: Some(1), byte: 2 });
    sense.information = Some(0x1234);
    let fixed = [0xf0, 0, 5, 0, 0, 0x12, 0x34, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xc9, 0, 2];
    assert_eq!(sense.emit(), fixed);
    let descriptors = [0x72, 5, 0x24, 0, 0, 0, 0, 20, 0, 10, 0x80, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34];
    assert_eq!(
        sense.clone().as_descriptors().emit(),
        [&descriptors[..], &[2, 6, 0, 0, 0xc9, 0, 2, 0]].concat()
    );

    let bytes = inquiry().emit();
    assert_eq!(bytes[..8], [0, 0, 7, 0x12, 91, 0x38, 0, 2]);
    assert_eq!(bytes[8..36], *b"DISKWIREsimulated disk  0001");
    assert_eq!(bytes[58..60], [0x05, 0xc0]);

    let group = |group, state_number, ports| PortGroup {
        group,
        is_preferred: group == 1,
        state_number,
        supported: SupportedStates::ACTIVE_OPTIMIZED | SupportedStates::STANDBY,
        status: 2,
        vendor_specific: 0,
        ports,
    };
    let groups = PortGroups {
        transition_seconds: Some(60),
        groups: vec![group(1, 0, vec![1, 2]), group(2, 2, vec![])],
        is_whole: true,
    };
    let expected = [
        &[0, 0, 0, 28, 0x10, 60, 0, 0][..],
        &[0x80, 5, 0, 1, 0, 2, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2],
        &[2, 5, 0, 2, 0, 2, 0, 0],
    ];
    assert_eq!(groups.emit(), expected.concat());
    assert_eq!(groups.of_port(2).map(|group| group.group), Some(1));

    let luns =
        LunList { luns: vec![Lun::of_number(1).unwrap(), Lun::of_number(300).unwrap()], is_whole: true };
    assert_eq!(
        luns.emit(),
        [[0, 0, 0, 16, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0], [0x41, 0x2c, 0, 0, 0, 0, 0, 0]].concat()
    );

    let control = ControlPage { descriptor_sense: true, task_aborted_status: true, ..ControlPage::default() };
    let mut data = ModeData::of_pages(vec![control.page()]);
    data.blocks.push(BlockDescriptor { blocks: 0x10000, block_bytes: 512 });
    let select = ModeSelect { form: ModeForm::Six, save: true, data }.command();
    assert_eq!(cdb(&select).bytes(), [0x15, 0x11, 0, 0, 24, 0]);
    let head = [0, 0, 0, 8, 0, 1, 0, 0, 0, 0, 2, 0];
    assert_eq!(out(&select), [&head[..], &[0x0a, 0x0a, 4, 0, 0, 0x40, 0, 0, 0, 0, 0, 0]].concat());
}

#[test]
fn reservations_lie_where_the_standard_puts_them() {
    let registrants = ReservationType::WriteExclusiveRegistrantsOnly;
    let preempt = ReserveOut::new(ReserveOutAction::PreemptAndAbort, registrants, 0x11, 0x22).command();
    assert_eq!(cdb(&preempt).bytes(), [0x5f, 5, 5, 0, 0, 0, 0, 0, 24, 0]);
    assert_eq!(out(&preempt), [0, 0, 0, 0, 0, 0, 0, 0x11, 0, 0, 0, 0, 0, 0, 0, 0x22, 0, 0, 0, 0, 0, 0, 0, 0]);

    let initiator = TransportId::Iscsi { name: "iqn.a".into(), session: Some("0123456789ab".into()) };
    // 5 + 5 + 12 characters and a zero are 23: 24 with padding.
    let id = [&[0x45, 0, 0, 24][..], b"iqn.a,i,0x0123456789ab\0\0"].concat();
    assert_eq!(initiator.emit(), id);
    assert_eq!(initiator.to_string(), "iqn.a,i,0x0123456789ab");
    let list = ParameterList::Basic {
        key: 1,
        action_key: 2,
        flags: RegisterFlags::PERSIST,
        initiators: vec![initiator.clone()],
    };
    let bytes = list.emit();
    assert_eq!((bytes[20], &bytes[24..28], &bytes[28..]), (0x09, &[0, 0, 0, 28][..], &id[..]));
    let moved = ParameterList::Move {
        key: 1,
        action_key: 2,
        unregister: true,
        persist: false,
        relative_port: 3,
        initiator: initiator.clone(),
    };
    assert_eq!(moved.emit()[16..24], [0, 2, 0, 3, 0, 0, 0, 28]);

    let registrant = Registrant {
        key: 0x42,
        all_target_ports: false,
        is_holder: true,
        scope: 0,
        kind: registrants,
        relative_port: 2,
        initiator: Some(initiator),
    };
    let status = FullStatus { generation: 9, registrants: vec![registrant], is_whole: true }.emit();
    let head =
        [0, 0, 0, 9, 0, 0, 0, 52, 0, 0, 0, 0, 0, 0, 0, 0x42, 0, 0, 0, 0, 1, 5, 0, 0, 0, 0, 0, 2, 0, 0, 0, 28];
    assert_eq!(status, [&head[..], &id].concat());
}

#[test]
fn a_page_of_names_says_which_unit_and_which_port() {
    let names = designators();
    assert_eq!(
        unit_identity(&names).as_deref(),
        Some("naa.600140511122334455667788 99aabbcc".replace(' ', "").as_str())
    );
    assert_eq!(unit_identity(&names[..1]).as_deref(), Some("t10.DISKWIRE.serial 7"));
    // Names of the port and of the device are no names of the unit.
    assert_eq!(unit_identity(&names[1..4]), None);
    assert_eq!(PortIdentity::of(&names), PortIdentity { relative_port: Some(2), group: Some(5) });
    assert_eq!(PortIdentity::of(&names[4..]), PortIdentity::default());
}

#[test]
fn a_reply_is_a_success_or_an_error() {
    let reply = |status, sense| ControlReply::Scsi { status, sense, data: Vec::new() };
    assert_eq!(reply(0, Vec::new()).outcome(), Ok(()));
    let attention = Sense::new(key::UNIT_ATTENTION, 0x29, 0x03).as_descriptors().emit();
    let source = ErrorSource::Scsi { status: 2, host_status: 0, key: 6, asc: 0x29, ascq: 3, deferred: false };
    assert_eq!(reply(2, attention).outcome(), Err(IoError::from(source)));
}

/// What a program of `sg3_utils` prints, with all blanks as one; `None` where it is missing.
fn tool(test: &str, program: &str, arguments: &[&str], bytes: &[u8]) -> Option<String> {
    let path = match programs::find(program) {
        Ok(path) => path,
        Err(reason) => {
            programs::skip(test, &reason);
            return None;
        }
    };
    let file = tempfile::NamedTempFile::new().expect("a scratch file");
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(file.path(), hex.join(" ")).expect("a scratch file");
    let name = file.path().to_str().expect("a name of the test");
    let arguments = arguments.iter().map(|argument| argument.replace('@', name));
    let output = Command::new(path).args(arguments).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(output.status.success() && !text.is_empty(), "{program}: {output:?}");
    Some(text)
}

fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
}

#[test]
fn sg_decode_sense_reads_our_sense_data() {
    let mut sense = Sense::new(key::ILLEGAL_REQUEST, 0x24, 0);
    sense.key_specific = Some(KeySpecific::FieldPointer { in_cdb: true, bit: Some(1), byte: 2 });
    sense.information = Some(0x1234);
    let earlier = Sense { deferred: true, ..Sense::new(key::HARDWARE_ERROR, 0x44, 0) };
    let cases = [
        (sense.clone(), "Fixed format, current; Sense key: Illegal Request"),
        (sense.as_descriptors(), "Descriptor format, current; Sense key: Illegal Request"),
    ];
    for (sense, words) in cases {
        let Some(text) = tool("sense", "sg_decode_sense", &["--file=@"], &sense.emit()) else { return };
        says(&text, &[words, "Invalid field in cdb", "1234", "Error in Command: byte 2 bit 1"]);
    }
    for sense in [earlier.clone(), earlier.as_descriptors()] {
        let Some(text) = tool("sense", "sg_decode_sense", &["--file=@"], &sense.emit()) else { return };
        says(&text, &["deferred", "Hardware Error", "Internal target failure"]);
    }
}

#[test]
fn sg_inq_and_sg_vpd_read_our_pages() {
    let Some(text) = tool("inquiry", "sg_inq", &["--inhex=@"], &inquiry().emit()) else { return };
    says(
        &text,
        &[
            "version=0x07",
            "HiSUP=1",
            "TPGS=3",
            "3PC=1",
            "CmdQue=1",
            "Vendor identification: DISKWIRE",
            "Product identification: simulated disk",
            "Product revision level: 0001",
        ],
    );
    let page = |page| Vpd::new(page).emit();
    let vpd = |bytes: &[u8]| tool("vpd", "sg_vpd", &["--inhex=@"], bytes);
    let Some(text) = vpd(&page(Page::Identification(designators()))) else { return };
    says(
        &text,
        &[
            "0x600140511122334455667788 99aabbcc".replace(' ', "").as_str(),
            "vendor id: DISKWIRE",
            "vendor specific: serial 7",
            "Relative target port: 0x2",
            "Target port group: 0x5",
            "iqn.2026-01.example:disk",
            "0x5001020304050607",
        ],
    );
    let Some(text) = vpd(&page(Page::Supported(vec![0, 0x80, 0x83, 0xb0]))) else { return };
    says(&text, &["Unit serial number", "Device identification", "Block limits"]);
    let Some(text) = vpd(&page(Page::SerialNumber("S-0001".into()))) else { return };
    says(&text, &["Unit serial number: S-0001"]);
    let limits = BlockLimits {
        write_same_not_zero: true,
        compare_and_write_max: 1,
        transfer_max: 2048,
        unmap_max: 4096,
        unmap_granularity: 8,
        unmap_alignment: Some(2),
        write_same_max: 65536,
        ..BlockLimits::default()
    };
    let Some(text) = vpd(&page(Page::BlockLimits(limits))) else { return };
    says(
        &text,
        &[
            "non-zero (WSNZ): 1",
            "Maximum compare and write length: 1 blocks",
            "Maximum transfer length: 2048 blocks",
            "Maximum unmap LBA count: 4096",
            "Optimal unmap granularity: 8 blocks",
            "Unmap granularity alignment: 2",
            "Maximum write same length: 0x10000 blocks",
        ],
    );
    let thin =
        Provisioning { unmap: true, write_same_16: true, reads_zeros: 1, kind: 2, ..Provisioning::default() };
    let Some(text) = vpd(&page(Page::Provisioning(thin))) else { return };
    says(
        &text,
        &["Unmap command supported (LBPU): 1", "(LBPWS): 1", "(LBPWS10): 0", "(LBPRZ): 1", "type: 2"],
    );
    let policy = |page, policy| PolicyDescriptor { page, subpage: 0, shared_by_units: false, policy };
    let list = vec![policy(0x08, PagePolicy::Shared), policy(0x0a, PagePolicy::PerNexus)];
    let Some(text) = vpd(&page(Page::ModePagePolicy(list.clone()))) else { return };
    says(&text, &["page code: 0x8 MLUS=0, Policy: shared", "page code: 0xa MLUS=0, Policy: per I_T nexus"]);
    assert_eq!(PolicyDescriptor::find(&list, 0x0a, 0), Some(PagePolicy::PerNexus));
}

#[test]
fn sg_logs_reads_our_log_pages() {
    let parameter = |code, value: &[u8]| LogParameter { code, control: 3, value: value.to_vec() };
    let heat =
        LogPage::of_parameters(code::TEMPERATURE, vec![parameter(0, &[0, 38]), parameter(1, &[0, 65])]);
    let Some(text) = tool("log", "sg_logs", &["--in=@"], &heat.emit()) else { return };
    says(&text, &["Current temperature = 38 C", "Reference temperature = 65 C"]);
    let errors =
        LogPage::of_parameters(code::WRITE_ERRORS, vec![parameter(0, &[0, 1, 0, 0]), parameter(6, &[9])]);
    let Some(text) = tool("log", "sg_logs", &["--in=@"], &errors.emit()) else { return };
    says(&text, &["Write error counter page", "without substantial delay = 65536", "uncorrected errors = 9"]);
}

/// Commands that `sg3_utils` writes otherwise (it looks at further fields, or leaves the list id out) or does not know.
const OTHER_WORDS: &[&str] = &[
    "WRITE BUFFER",
    "READ BUFFER(10)",
    "READ BUFFER(16)",
    "READ ATTRIBUTE",
    "EXTENDED COPY(LID4)",
    "RECEIVE COPY STATUS(LID4)",
    "RECEIVE COPY DATA(LID4)",
    "extended command",
];

#[test]
fn sg_decode_sense_knows_our_commands_by_the_same_names() {
    let plain = opcode::OPCODES.iter().filter(|(code, _)| !opcode::has_service_actions(*code));
    let plain = plain.map(|(code, name)| (*code, 0, *name));
    let all = plain.chain(opcode::SERVICE_ACTIONS.iter().copied());
    let mut different = Vec::new();
    for (code, action, name) in all {
        let length = opcode::cdb_bytes(code).unwrap_or(32);
        let mut bytes = vec![0; length];
        bytes[0] = code;
        if length == 32 {
            (bytes[7], bytes[9]) = (0x18, action as u8);
        } else {
            bytes[1] = action as u8;
        }
        assert_eq!(name_of(&Cdb::new(&bytes).unwrap()), name);
        let Some(text) = tool("names", "sg_decode_sense", &["--cdb", "--file=@"], &bytes) else { return };
        let simple = |text: &str| text.to_lowercase().replace([' ', ',', '-'], "");
        if simple(&text) != simple(name) && !OTHER_WORDS.contains(&name) {
            different.push(format!("{name} / {text}"));
        }
    }
    assert!(different.is_empty(), "{different:#?}");
}
