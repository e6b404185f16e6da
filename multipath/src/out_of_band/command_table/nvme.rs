//! Rows of NVMe commands: NVM Express Base and NVM Command Set specifications.
//!
//! A controller takes the part of a target port. Keeps true: what describes or configures a controller stays on it; a Get
//! Log Page that takes an event away (*retain asynchronous event* clear) is never repeated. Not here: SCSI.

use super::row::{Access, Class, Repeat, Row, Verify, Words};

const fn admin(opcode: u8, name: &'static str, class: Class, repeat: Repeat) -> Row {
    Row::new(Words::NvmeAdmin, (opcode, opcode), name, class, repeat).access(Access::Unavailable)
}

const fn io(opcode: u8, name: &'static str, class: Class, repeat: Repeat) -> Row {
    Row::new(Words::NvmeIo, (opcode, opcode), name, class, repeat)
}

const fn identify(what: u32, name: &'static str, class: Class) -> Row {
    admin(0x06, name, class, Repeat::Yes).with(10, 0xff, what)
}

/// A log page whose event is kept.
const fn log(page: u32, name: &'static str, class: Class) -> Row {
    admin(0x02, name, class, Repeat::Yes).with(10, 0x80ff, 0x8000 | page)
}

/// A log page that has no event.
const fn plain_log(page: u32, name: &'static str, class: Class) -> Row {
    admin(0x02, name, class, Repeat::Yes).with(10, 0xff, page)
}

/// A command of one controller that is destructive, or a step of several.
const fn step(opcode: u8, name: &'static str, reason: &'static str) -> Row {
    admin(opcode, name, Class::TargetPort, Repeat::Never).because(reason)
}

/// A command of the driver's own, for its controller.
const fn own(opcode: u8, name: &'static str) -> Row {
    admin(opcode, name, Class::Exact, Repeat::Never).because("belongs to its controller, and to the driver")
}

const SUBSYSTEM: &str = "data of the subsystem";
const CONTROLLER: &str = "describes the controller that answers";
const SAME_HOST: &str = "a registrant is one on every controller where it has the same, non-zero Host ID";

/// The rows.
pub(super) static ROWS: &[Row] = &[
    identify(0x00, "Identify namespace", Class::Portable).because(SUBSYSTEM),
    identify(0x01, "Identify controller", Class::TargetPort).because(CONTROLLER),
    identify(0x02, "Identify active namespaces", Class::TargetPort).because(CONTROLLER),
    identify(0x03, "Identify namespace descriptors", Class::Portable).because(SUBSYSTEM),
    identify(0x05, "Identify namespace of a command set", Class::Portable).because(SUBSYSTEM),
    identify(0x06, "Identify controller of a command set", Class::TargetPort).because(CONTROLLER),
    identify(0x07, "Identify active namespaces of a command set", Class::TargetPort).because(CONTROLLER),
    identify(0x08, "Identify namespace, independent", Class::Portable).because(SUBSYSTEM),
    identify(0x10, "Identify allocated namespaces", Class::Portable).because(SUBSYSTEM),
    identify(0x11, "Identify allocated namespace", Class::Portable).because(SUBSYSTEM),
    identify(0x12, "Identify controllers of a namespace", Class::Portable).because(SUBSYSTEM),
    identify(0x13, "Identify controllers", Class::Portable).because(SUBSYSTEM),
    admin(0x06, "Identify another thing", Class::TargetPort, Repeat::Yes).because(CONTROLLER),
    plain_log(0x00, "Get Log supported pages", Class::TargetPort).because(CONTROLLER),
    plain_log(0x04, "Get Log changed namespaces", Class::TargetPort)
        .repeat(Repeat::Never)
        .because("reading it clears it"),
    plain_log(0x05, "Get Log commands supported", Class::TargetPort).because(CONTROLLER),
    plain_log(0x80, "Get Log reservation notification", Class::TargetPort)
        .repeat(Repeat::Never)
        .because("reading it takes the notification away"),
    log(0x01, "Get Log error information", Class::TargetPort).because(CONTROLLER),
    log(0x02, "Get Log health of the controller", Class::TargetPort)
        .with(1, 0xffff_ffff, 0xffff_ffff)
        .because(CONTROLLER),
    log(0x02, "Get Log health of the controller, without namespace", Class::TargetPort)
        .with(1, 0xffff_ffff, 0)
        .because(CONTROLLER),
    log(0x02, "Get Log health of a namespace", Class::Portable).because(SUBSYSTEM),
    log(0x03, "Get Log firmware slots", Class::Portable).because(SUBSYSTEM),
    log(0x0c, "Get Log asymmetric access", Class::TargetPort).because(CONTROLLER),
    admin(0x02, "Get Log another page, event kept", Class::TargetPort, Repeat::Yes)
        .with(10, 0x8000, 0x8000)
        .because(CONTROLLER),
    admin(0x02, "Get Log that clears its event", Class::TargetPort, Repeat::Never)
        .because("the event comes once, to whoever reads first"),
    admin(0x09, "Set Features to save", Class::TargetPort, Repeat::Verify)
        .with(10, 0x8000_0000, 0x8000_0000)
        .verify(Verify::GetFeatures)
        .because("configures that controller"),
    admin(0x09, "Set Features", Class::TargetPort, Repeat::Verify)
        .verify(Verify::GetFeatures)
        .because("configures that controller"),
    admin(0x0a, "Get Features", Class::TargetPort, Repeat::Yes).because(CONTROLLER),
    admin(0x08, "Abort", Class::Exact, Repeat::Never)
        .because("knows the commands of its own controller only"),
    own(0x00, "Delete Submission Queue"),
    own(0x01, "Create Submission Queue"),
    own(0x04, "Delete Completion Queue"),
    own(0x05, "Create Completion Queue"),
    own(0x0c, "Asynchronous Event Request"),
    own(0x18, "Keep Alive"),
    own(0x7c, "Doorbell Buffer Config"),
    own(0x7f, "Fabrics"),
    step(0x0d, "Namespace Management", "makes or destroys a namespace"),
    step(0x10, "Firmware Commit", "a step of several"),
    step(0x11, "Firmware Image Download", "a step of several"),
    step(0x14, "Device Self-test", "begins or ends a test of that controller"),
    step(0x15, "Namespace Attachment", "attaches namespaces to controllers"),
    step(0x19, "Directive Send", "kept by the controller"),
    admin(0x1a, "Directive Receive", Class::TargetPort, Repeat::Never).because("may hand out a resource"),
    step(0x1c, "Virtualization Management", "configures controllers"),
    step(0x1d, "NVMe-MI Send", "what it carries is not read"),
    step(0x1e, "NVMe-MI Receive", "what it carries is not read"),
    step(0x20, "Capacity Management", "makes or destroys sets"),
    step(0x24, "Lockdown", "forbids commands"),
    step(0x38, "Cross-Controller Reset", "resets another controller"),
    step(0x80, "Format NVM", "destroys data"),
    step(0x81, "Security Send", "a step of a protocol"),
    step(0x82, "Security Receive", "a step of a protocol"),
    step(0x84, "Sanitize", "destroys data"),
    admin(0x86, "Get LBA Status", Class::Portable, Repeat::Yes).because(SUBSYSTEM),
    Row::new(Words::NvmeAdmin, (0xc0, 0xff), "admin command of the vendor", Class::Nexus, Repeat::Never)
        .access(Access::Unavailable)
        .because("what it does is the vendor's secret"),
    io(0x00, "Flush", Class::Portable, Repeat::Yes).because("the whole namespace, and the same twice"),
    io(0x01, "Write", Class::Portable, Repeat::Yes)
        .behind_fence()
        .because("the same twice, but an old copy may land on newer data"),
    io(0x02, "Read", Class::Portable, Repeat::Yes).because("changes nothing"),
    io(0x04, "Write Uncorrectable", Class::Exact, Repeat::Never).because("makes blocks unreadable"),
    io(0x05, "Compare", Class::Portable, Repeat::Yes).because("changes nothing"),
    io(0x08, "Write Zeroes", Class::Portable, Repeat::Yes)
        .behind_fence()
        .because("the same twice, but an old copy may land on newer data"),
    io(0x09, "Dataset Management", Class::Portable, Repeat::Yes)
        .behind_fence()
        .because("the same twice, but an old copy may land on newer data"),
    io(0x0c, "Verify", Class::Portable, Repeat::Yes).because("changes nothing"),
    io(0x0d, "Reservation Register", Class::Portable, Repeat::Verify)
        .verify(Verify::ReservationReport)
        .because(SAME_HOST),
    io(0x0e, "Reservation Report", Class::Portable, Repeat::Yes).because("reads the state of the namespace"),
    io(0x11, "Reservation Acquire, pre-empt and abort", Class::Portable, Repeat::Never)
        .with(10, 0x07, 2)
        .verify(Verify::ReservationReport)
        .because("aborts commands of other hosts too"),
    io(0x11, "Reservation Acquire", Class::Portable, Repeat::Verify)
        .verify(Verify::ReservationReport)
        .because(SAME_HOST),
    io(0x15, "Reservation Release", Class::Portable, Repeat::Verify)
        .verify(Verify::ReservationReport)
        .because(SAME_HOST),
    io(0x19, "Copy", Class::Exact, Repeat::Never).because("a second run copies a second time"),
    io(0x79, "Zone Management Send", Class::Exact, Repeat::Never).because("moves write pointers of zones"),
    io(0x7a, "Zone Management Receive", Class::Portable, Repeat::Yes).because("changes nothing"),
    io(0x7d, "Zone Append", Class::Exact, Repeat::Never).because("a second run appends a second time"),
    Row::new(Words::NvmeIo, (0x80, 0xff), "I/O command of the vendor", Class::Nexus, Repeat::Never)
        .because("what it does is the vendor's secret"),
];
