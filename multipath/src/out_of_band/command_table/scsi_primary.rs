//! Rows of commands that are not about blocks: SPC-5, and a few that no standard has.
//!
//! Keeps true: access states as SPC-5 5.18.2.4 to 5.18.2.7 list them. Not here: blocks (`scsi_block`).

use super::row::{Access, Class, Named, Parameter, Repeat, Row, Verify, Words};

const fn row(opcode: u8, name: &'static str, class: Class, repeat: Repeat) -> Row {
    Row::new(Words::Scsi, (opcode, opcode), name, class, repeat)
}

const fn inquiry(name: &'static str, class: Class) -> Row {
    row(0x12, name, class, Repeat::Yes).access(Access::Unavailable).every_device()
}

/// A page of vital product data.
const fn page(code: u32, name: &'static str, class: Class) -> Row {
    inquiry(name, class).with(1, 0x01, 1).with(2, 0xff, code)
}

const fn reserve_in(action: u32, name: &'static str) -> Row {
    row(0x5e, name, Class::Portable, Repeat::Yes)
        .action(action)
        .access(Access::Standby)
        .because("reads the state of the unit")
}

const fn reserve_out(action: u32, name: &'static str, class: Class, repeat: Repeat) -> Row {
    row(0x5f, name, class, repeat).action(action).access(Access::Standby)
}

/// Both lengths of MODE SELECT for a page that targets keep by port.
const fn port_page(opcode: u8, code: u8, name: &'static str) -> Row {
    row(opcode, name, Class::AllNexuses, Repeat::Verify)
        .parameter(Parameter::ModePage(code))
        .verify(Verify::ModeSense)
        .access(Access::Standby)
        .because("the page is kept by target port: it is to be set through each")
}

const fn mode_select(opcode: u8, name: &'static str) -> Row {
    row(opcode, name, Class::Portable, Repeat::Verify)
        .verify(Verify::ModeSense)
        .access(Access::Standby)
        .because("a shared page; other nexuses see a unit attention")
}

const fn mode_sense(opcode: u8, name: &'static str) -> Row {
    row(opcode, name, Class::Portable, Repeat::Yes)
        .access(Access::Standby)
        .because("a page is shared unless the mode page policy says otherwise (SPC-5 7.7.14)")
}

/// MODE SENSE of a page that targets keep by port.
const fn port_sense(opcode: u8, code: u32, name: &'static str) -> Row {
    row(opcode, name, Class::TargetPort, Repeat::Yes)
        .with(2, 0x3f, code)
        .access(Access::Standby)
        .because("the page is kept by target port")
}

const fn maintenance_in(action: u32, name: &'static str) -> Row {
    row(0xa3, name, Class::Portable, Repeat::Yes).action(action).because("reads the state of the unit")
}

const fn maintenance_out(action: u32, name: &'static str, class: Class, repeat: Repeat) -> Row {
    row(0xa4, name, class, repeat).action(action)
}

const fn copy_out(action: u32, name: &'static str) -> Row {
    row(0x83, name, Class::Portable, Repeat::Never).action(action).because(
        "may begin on any path; a second run copies a second time, and its list belongs to the nexus",
    )
}

const fn copy_in(action: u32, name: &'static str) -> Row {
    row(0x84, name, Class::Nexus, Repeat::Yes)
        .action(action)
        .because("list identifiers belong to the nexus that began the copy")
}

/// Rows of the standard.
pub(super) static ROWS: &[Row] = &[
    row(0x00, "TEST UNIT READY of a path", Class::Nexus, Repeat::Yes)
        .named(Named::Yes)
        .every_device()
        .because("it tests that very path, and takes its unit attention"),
    row(0x00, "TEST UNIT READY of the unit", Class::Portable, Repeat::Yes)
        .named(Named::No)
        .every_device()
        .because("any path tells whether the unit is ready, as far as its access state lets it"),
    row(0x03, "REQUEST SENSE", Class::Nexus, Repeat::Never)
        .access(Access::Unavailable)
        .every_device()
        .because("gives the sense of that nexus, and clears it"),
    inquiry("INQUIRY standard", Class::Portable).with(1, 0x01, 0).because("data of the unit"),
    page(0x00, "INQUIRY supported pages", Class::Portable).because("data of the unit"),
    page(0x80, "INQUIRY unit serial number", Class::Portable).because("data of the unit"),
    page(0x83, "INQUIRY device identification, of a port", Class::TargetPort)
        .named(Named::Yes)
        .because("its port designators describe the port that answers"),
    page(0x83, "INQUIRY device identification, of the unit", Class::Portable)
        .named(Named::No)
        .because("its unit designators are the same on every path"),
    page(0x85, "INQUIRY management addresses", Class::Portable).because("data of the unit"),
    page(0x86, "INQUIRY extended data", Class::Portable).because("data of the unit"),
    page(0x87, "INQUIRY mode page policy", Class::Portable).because("data of the unit"),
    page(0x88, "INQUIRY SCSI ports", Class::Portable).because("lists all ports"),
    page(0x8f, "INQUIRY third-party copy", Class::Portable).because("data of the unit"),
    page(0x90, "INQUIRY protocol of the unit", Class::TargetPort).because("describes the transport"),
    page(0x91, "INQUIRY protocol of the port", Class::TargetPort).because("describes the transport"),
    page(0x92, "INQUIRY feature sets", Class::Portable).because("data of the unit"),
    page(0x93, "INQUIRY protocol of the port, 93h", Class::TargetPort).because("describes the transport"),
    page(0xb0, "INQUIRY block limits", Class::Portable).because("data of the unit"),
    page(0xb1, "INQUIRY block characteristics", Class::Portable).because("data of the unit"),
    page(0xb2, "INQUIRY provisioning", Class::Portable).because("data of the unit"),
    inquiry("INQUIRY another page", Class::TargetPort)
        .with(1, 0x01, 1)
        .because("a page of the vendor may describe the path it came over"),
    port_page(0x15, 0x02, "MODE SELECT(6) of disconnect-reconnect"),
    port_page(0x15, 0x18, "MODE SELECT(6) of the unit's protocol"),
    port_page(0x15, 0x19, "MODE SELECT(6) of the port's protocol"),
    mode_select(0x15, "MODE SELECT(6) to save").with(1, 0x01, 1),
    mode_select(0x15, "MODE SELECT(6)"),
    port_page(0x55, 0x02, "MODE SELECT(10) of disconnect-reconnect"),
    port_page(0x55, 0x18, "MODE SELECT(10) of the unit's protocol"),
    port_page(0x55, 0x19, "MODE SELECT(10) of the port's protocol"),
    mode_select(0x55, "MODE SELECT(10) to save").with(1, 0x01, 1),
    mode_select(0x55, "MODE SELECT(10)"),
    port_sense(0x1a, 0x02, "MODE SENSE(6) of disconnect-reconnect"),
    port_sense(0x1a, 0x18, "MODE SENSE(6) of the unit's protocol"),
    port_sense(0x1a, 0x19, "MODE SENSE(6) of the port's protocol"),
    mode_sense(0x1a, "MODE SENSE(6)"),
    port_sense(0x5a, 0x02, "MODE SENSE(10) of disconnect-reconnect"),
    port_sense(0x5a, 0x18, "MODE SENSE(10) of the unit's protocol"),
    port_sense(0x5a, 0x19, "MODE SENSE(10) of the port's protocol"),
    mode_sense(0x5a, "MODE SENSE(10)"),
    row(0x16, "RESERVE(6)", Class::Nexus, Repeat::Verify)
        .verify(Verify::TestUnitReady)
        .because("held by the nexus, and lost with it"),
    row(0x17, "RELEASE(6)", Class::Nexus, Repeat::Verify)
        .verify(Verify::TestUnitReady)
        .because("over another nexus GOOD and without effect"),
    row(0x56, "RESERVE(10)", Class::Nexus, Repeat::Verify)
        .verify(Verify::TestUnitReady)
        .because("held by the nexus, and lost with it"),
    row(0x57, "RELEASE(10)", Class::Nexus, Repeat::Verify)
        .verify(Verify::TestUnitReady)
        .because("over another nexus GOOD and without effect"),
    row(0x1c, "RECEIVE DIAGNOSTIC RESULTS of a page", Class::Portable, Repeat::Yes)
        .with(1, 0x01, 1)
        .access(Access::Standby)
        .because("a page of the unit"),
    row(0x1c, "RECEIVE DIAGNOSTIC RESULTS", Class::Nexus, Repeat::Yes)
        .access(Access::Standby)
        .because("the result of the SEND DIAGNOSTIC that went before on the nexus"),
    row(0x1d, "SEND DIAGNOSTIC", Class::Nexus, Repeat::Never)
        .access(Access::Standby)
        .because("may test, or stop the unit; its result belongs to the nexus"),
    row(0x3b, "WRITE BUFFER", Class::Nexus, Repeat::Never).because("firmware in several steps"),
    row(0x3c, "READ BUFFER of an echo", Class::Nexus, Repeat::Yes)
        .with(1, 0x1f, 0x0a)
        .access(Access::Unavailable)
        .because("the echo belongs to the nexus"),
    row(0x3c, "READ BUFFER(10)", Class::Portable, Repeat::Yes).because("a buffer of the unit"),
    row(0x9b, "READ BUFFER(16)", Class::Portable, Repeat::Yes).because("a buffer of the unit"),
    row(0x4c, "LOG SELECT to save", Class::Portable, Repeat::Verify)
        .with(1, 0x01, 1)
        .verify(Verify::LogSense)
        .access(Access::Standby)
        .because("resets counters for every host"),
    row(0x4c, "LOG SELECT", Class::Portable, Repeat::Verify)
        .verify(Verify::LogSense)
        .access(Access::Standby)
        .because("resets counters for every host"),
    row(0x4d, "LOG SENSE of the port's protocol", Class::TargetPort, Repeat::Yes)
        .with(2, 0x3f, 0x18)
        .access(Access::Standby)
        .because("counters of the port"),
    row(0x4d, "LOG SENSE", Class::Portable, Repeat::Yes)
        .access(Access::Standby)
        .because("counters of the unit"),
    reserve_in(0x00, "PERSISTENT RESERVE IN READ KEYS"),
    reserve_in(0x01, "PERSISTENT RESERVE IN READ RESERVATION"),
    reserve_in(0x02, "PERSISTENT RESERVE IN REPORT CAPABILITIES"),
    reserve_in(0x03, "PERSISTENT RESERVE IN READ FULL STATUS"),
    reserve_out(0x00, "PERSISTENT RESERVE OUT REGISTER of no key", Class::AllNexuses, Repeat::Verify)
        .parameter(Parameter::NoNewKey)
        .verify(Verify::ReadKeys)
        .checks_effect()
        .because("takes the registration of the nexus away; on the holder it releases"),
    reserve_out(0x00, "PERSISTENT RESERVE OUT REGISTER", Class::AllNexuses, Repeat::Verify)
        .verify(Verify::ReadKeys)
        .because("one registration for each nexus"),
    reserve_out(0x01, "PERSISTENT RESERVE OUT RESERVE", Class::AnyRegistered, Repeat::Verify)
        .verify(Verify::ReadReservation)
        .because("the nexus that sends it holds it"),
    reserve_out(0x02, "PERSISTENT RESERVE OUT RELEASE", Class::Nexus, Repeat::Verify)
        .verify(Verify::ReadReservation)
        .checks_effect()
        .because("the holder alone can; over another nexus it is GOOD and without effect"),
    reserve_out(0x03, "PERSISTENT RESERVE OUT CLEAR", Class::AnyRegistered, Repeat::Verify)
        .verify(Verify::ReadKeys)
        .because("takes every registration away; a repeat conflicts, for the key is gone"),
    reserve_out(0x04, "PERSISTENT RESERVE OUT PREEMPT", Class::AnyRegistered, Repeat::Verify)
        .verify(Verify::ReadKeys)
        .because("a repeat conflicts once the key is gone"),
    reserve_out(0x05, "PERSISTENT RESERVE OUT PREEMPT AND ABORT", Class::AnyRegistered, Repeat::Never)
        .verify(Verify::ReadKeys)
        .because("aborts tasks of other hosts too"),
    reserve_out(
        0x06,
        "PERSISTENT RESERVE OUT REGISTER AND IGNORE EXISTING KEY of no key",
        Class::AllNexuses,
        Repeat::Verify,
    )
    .parameter(Parameter::NoNewKey)
    .verify(Verify::ReadKeys)
    .checks_effect()
    .because("takes the registration of the nexus away; on the holder it releases"),
    reserve_out(
        0x06,
        "PERSISTENT RESERVE OUT REGISTER AND IGNORE EXISTING KEY",
        Class::AllNexuses,
        Repeat::Verify,
    )
    .verify(Verify::ReadKeys)
    .because("one registration for each nexus"),
    reserve_out(0x07, "PERSISTENT RESERVE OUT REGISTER AND MOVE", Class::Nexus, Repeat::Never)
        .verify(Verify::ReadReservation)
        .because("moves the reservation to another nexus"),
    reserve_out(0x08, "PERSISTENT RESERVE OUT REPLACE LOST RESERVATION", Class::Nexus, Repeat::Never)
        .verify(Verify::ReadReservation)
        .because("makes a reservation in place of one that was lost"),
    copy_out(0x00, "EXTENDED COPY(LID1)"),
    copy_out(0x01, "EXTENDED COPY(LID4)"),
    copy_out(0x10, "POPULATE TOKEN"),
    copy_out(0x11, "WRITE USING TOKEN"),
    row(0x83, "COPY OPERATION ABORT", Class::Nexus, Repeat::Yes)
        .action(0x1c)
        .because("the copy is identified within the nexus"),
    copy_in(0x00, "RECEIVE COPY STATUS(LID1)"),
    copy_in(0x01, "RECEIVE COPY DATA(LID1)"),
    row(0x84, "RECEIVE COPY OPERATING PARAMETERS", Class::Portable, Repeat::Yes)
        .action(0x03)
        .because("data of the unit"),
    copy_in(0x04, "RECEIVE COPY FAILURE DETAILS(LID1)"),
    copy_in(0x05, "RECEIVE COPY STATUS(LID4)"),
    copy_in(0x06, "RECEIVE COPY DATA(LID4)"),
    copy_in(0x07, "RECEIVE ROD TOKEN INFORMATION"),
    copy_in(0x08, "REPORT ALL ROD TOKENS"),
    row(0x8c, "READ ATTRIBUTE", Class::Portable, Repeat::Yes).because("attributes of the unit"),
    row(0x8d, "WRITE ATTRIBUTE", Class::Nexus, Repeat::Never).because("changes attributes of the medium"),
    row(0xa0, "REPORT LUNS", Class::TargetPort, Repeat::Yes)
        .access(Access::Unavailable)
        .every_device()
        .because("the list may differ by initiator and port"),
    row(0xa2, "SECURITY PROTOCOL IN", Class::Nexus, Repeat::Never)
        .because("a step of a protocol of that nexus"),
    row(0xb5, "SECURITY PROTOCOL OUT", Class::Nexus, Repeat::Never)
        .because("a step of a protocol of that nexus"),
    maintenance_in(0x05, "REPORT IDENTIFYING INFORMATION"),
    maintenance_in(0x0a, "REPORT TARGET PORT GROUPS")
        .access(Access::Unavailable)
        .because("any port reports all groups"),
    maintenance_in(0x0b, "REPORT ALIASES"),
    maintenance_in(0x0c, "REPORT SUPPORTED OPERATION CODES"),
    maintenance_in(0x0d, "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS"),
    row(0xa3, "REPORT PRIORITY", Class::Nexus, Repeat::Yes).action(0x0e).because("kept by nexus"),
    maintenance_in(0x0f, "REPORT TIMESTAMP"),
    row(0xa3, "MANAGEMENT PROTOCOL IN", Class::Nexus, Repeat::Never)
        .action(0x10)
        .because("a step of a protocol of that nexus"),
    maintenance_out(0x06, "SET IDENTIFYING INFORMATION", Class::Nexus, Repeat::Never)
        .because("changes the unit for every host"),
    maintenance_out(0x0a, "SET TARGET PORT GROUPS", Class::Portable, Repeat::Verify)
        .verify(Verify::ReportTargetPortGroups)
        .access(Access::Unavailable)
        .because("changes access states for every host"),
    maintenance_out(0x0b, "CHANGE ALIASES", Class::Nexus, Repeat::Never).because("kept by nexus"),
    maintenance_out(0x0c, "REMOVE I_T NEXUS", Class::Exact, Repeat::Never).because("ends a nexus"),
    maintenance_out(0x0e, "SET PRIORITY", Class::Nexus, Repeat::Never).because("kept by nexus"),
    maintenance_out(0x0f, "SET TIMESTAMP", Class::Portable, Repeat::Never)
        .because("a repeat sets a time that is no longer true"),
    maintenance_out(0x10, "MANAGEMENT PROTOCOL OUT", Class::Nexus, Repeat::Never)
        .because("a step of a protocol of that nexus"),
];

/// Rows of commands that the vendor defines. A row of the user goes before them without more ado.
pub(super) static VENDOR_ROWS: &[Row] = &[
    Row::new(Words::Scsi, (0xa3, 0xa4), "MAINTENANCE of the vendor", Class::Nexus, Repeat::Never)
        .action(0x1f)
        .because("what it does is the vendor's secret"),
    Row::new(Words::Scsi, (0xc0, 0xff), "command of the vendor", Class::Nexus, Repeat::Never)
        .because("what it does is the vendor's secret"),
];

const fn task(function: u8, name: &'static str, class: Class, repeat: Repeat) -> Row {
    Row::new(Words::Task, (function, function), name, class, repeat).access(Access::Unavailable)
}

/// Task management functions (SAM-5 7).
pub(super) static TASK_ROWS: &[Row] = &[
    task(0x01, "ABORT TASK", Class::Exact, Repeat::Yes).because("a task is identified within its nexus"),
    task(0x02, "ABORT TASK SET", Class::Nexus, Repeat::Yes).because("its scope is the nexus"),
    task(0x03, "CLEAR ACA", Class::Nexus, Repeat::Yes).because("its scope is the nexus"),
    task(0x04, "CLEAR TASK SET", Class::Portable, Repeat::Never).because("hits the tasks of every host"),
    task(0x05, "LOGICAL UNIT RESET", Class::Portable, Repeat::Never).because("hits the tasks of every host"),
    task(0x06, "TARGET WARM RESET", Class::Portable, Repeat::Never).because("hits the tasks of every host"),
    task(0x07, "TARGET COLD RESET", Class::Portable, Repeat::Never).because("hits the tasks of every host"),
    task(0x0b, "I_T NEXUS RESET", Class::Nexus, Repeat::Yes).because("its scope is the nexus"),
];
