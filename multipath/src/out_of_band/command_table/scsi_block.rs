//! Rows of commands about blocks: SBC-4, and what else a disk takes.
//!
//! Keeps true: what changes blocks and gives the same twice is repeated only while no copy of it may land, for a router has
//! no fence. Not here: what every device takes (`scsi_primary`).

use super::row::{Class, Repeat, Row, Words};

const fn row(opcode: u8, name: &'static str, class: Class, repeat: Repeat) -> Row {
    Row::new(Words::Scsi, (opcode, opcode), name, class, repeat)
}

/// A command of 32 bytes by its service action (SBC-4 5).
const fn long(action: u32, row: Row) -> Row {
    row.with(8, 0xff, action >> 8).with(9, 0xff, action & 0xff)
}

const fn read(opcode: u8, name: &'static str) -> Row {
    row(opcode, name, Class::Portable, Repeat::Yes).because("changes nothing")
}

const fn write(opcode: u8, name: &'static str) -> Row {
    row(opcode, name, Class::Portable, Repeat::Yes)
        .behind_fence()
        .because("the same twice, but an old copy may land on newer data")
}

/// A command whose second run differs from the first.
const fn once(opcode: u8, name: &'static str) -> Row {
    row(opcode, name, Class::Portable, Repeat::Never).because("the second run differs from the first")
}

const fn exact(opcode: u8, name: &'static str, reason: &'static str) -> Row {
    row(opcode, name, Class::Exact, Repeat::Never).because(reason)
}

const fn service_in(action: u32, name: &'static str) -> Row {
    read(0x9e, name).action(action)
}

const fn destructive(opcode: u8, name: &'static str, reason: &'static str) -> Row {
    row(opcode, name, Class::Nexus, Repeat::Never).because(reason)
}

const fn flush(opcode: u8, name: &'static str, is_immediate: bool) -> Row {
    let row = row(opcode, name, Class::Portable, Repeat::Yes);
    if is_immediate {
        return row.with(1, 0x02, 2).because("the whole unit; GOOD says only that it has begun");
    }
    row.because("the whole unit, and the same twice")
}

/// The rows.
pub(super) static ROWS: &[Row] = &[
    row(0x01, "REZERO UNIT", Class::Portable, Repeat::Yes).because("obsolete, and the same twice"),
    destructive(0x04, "FORMAT UNIT", "destroys data"),
    row(0x07, "REASSIGN BLOCKS", Class::Portable, Repeat::Never)
        .because("the second run differs from the first"),
    read(0x08, "READ(6)"),
    read(0x28, "READ(10)"),
    read(0xa8, "READ(12)"),
    read(0x88, "READ(16)"),
    long(0x0009, read(0x7f, "READ(32)")),
    write(0x0a, "WRITE(6)"),
    write(0x2a, "WRITE(10)"),
    write(0xaa, "WRITE(12)"),
    write(0x8a, "WRITE(16)"),
    long(0x000b, write(0x7f, "WRITE(32)")),
    write(0x2e, "WRITE AND VERIFY(10)"),
    write(0xae, "WRITE AND VERIFY(12)"),
    write(0x8e, "WRITE AND VERIFY(16)"),
    long(0x000c, write(0x7f, "WRITE AND VERIFY(32)")),
    write(0x41, "WRITE SAME(10)"),
    write(0x93, "WRITE SAME(16)"),
    long(0x000d, write(0x7f, "WRITE SAME(32)")),
    write(0x42, "UNMAP"),
    write(0x9c, "WRITE ATOMIC(16)"),
    long(0x000f, write(0x7f, "WRITE ATOMIC(32)")),
    exact(0x9a, "WRITE STREAM(16)", "belongs to a stream"),
    long(0x0010, exact(0x7f, "WRITE STREAM(32)", "belongs to a stream")),
    write(0x9f, "WRITE SCATTERED(16)").action(0x12),
    long(0x0011, write(0x7f, "WRITE SCATTERED(32)")),
    read(0x2f, "VERIFY(10)"),
    read(0xaf, "VERIFY(12)"),
    read(0x8f, "VERIFY(16)"),
    long(0x000a, read(0x7f, "VERIFY(32)")),
    read(0x34, "PRE-FETCH(10)"),
    read(0x90, "PRE-FETCH(16)"),
    flush(0x35, "SYNCHRONIZE CACHE(10) at once", true),
    flush(0x35, "SYNCHRONIZE CACHE(10)", false),
    flush(0x91, "SYNCHRONIZE CACHE(16) at once", true),
    flush(0x91, "SYNCHRONIZE CACHE(16)", false),
    once(0x89, "COMPARE AND WRITE"),
    once(0x8b, "ORWRITE(16)"),
    long(0x000e, once(0x7f, "ORWRITE(32)")),
    once(0x50, "XDWRITE(10)"),
    once(0x51, "XPWRITE(10)"),
    once(0x52, "XDREAD(10)"),
    once(0x53, "XDWRITEREAD(10)"),
    long(0x0003, once(0x7f, "XDREAD(32)")),
    long(0x0004, once(0x7f, "XDWRITE(32)")),
    long(0x0006, once(0x7f, "XPWRITE(32)")),
    long(0x0007, once(0x7f, "XDWRITEREAD(32)")),
    row(0x1b, "START STOP UNIT at once", Class::Nexus, Repeat::Never)
        .with(1, 0x01, 1)
        .because("stops or starts the unit for every host; GOOD says only that it has begun"),
    row(0x1b, "START STOP UNIT", Class::Nexus, Repeat::Never)
        .because("stops or starts the unit for every host"),
    row(0x1e, "PREVENT ALLOW MEDIUM REMOVAL", Class::Nexus, Repeat::Yes).because("kept by nexus"),
    read(0x25, "READ CAPACITY(10)"),
    service_in(0x10, "READ CAPACITY(16)"),
    service_in(0x12, "GET LBA STATUS(16)"),
    long(0x0012, read(0x7f, "GET LBA STATUS(32)")),
    service_in(0x13, "REPORT REFERRALS"),
    service_in(0x16, "GET STREAM STATUS"),
    service_in(0x17, "GET PHYSICAL ELEMENT STATUS"),
    service_in(0x11, "READ LONG(16)"),
    read(0x3e, "READ LONG(10)"),
    read(0x37, "READ DEFECT DATA(10)"),
    read(0xb7, "READ DEFECT DATA(12)"),
    row(0xab, "READ MEDIA SERIAL NUMBER", Class::Portable, Repeat::Yes)
        .action(0x01)
        .because("changes nothing"),
    exact(0x9e, "STREAM CONTROL", "opens or closes a stream").action(0x14),
    destructive(0x9e, "BACKGROUND CONTROL", "begins or ends work of the unit").action(0x15),
    destructive(0x9e, "REMOVE ELEMENT AND TRUNCATE", "destroys data").action(0x18),
    exact(0x3f, "WRITE LONG(10)", "writes blocks with their protection, or makes them unreadable"),
    exact(0x9f, "WRITE LONG(16)", "writes blocks with their protection, or makes them unreadable")
        .action(0x11),
    destructive(0x48, "SANITIZE at once", "destroys data; GOOD says only that it has begun")
        .with(1, 0x80, 0x80),
    destructive(0x48, "SANITIZE", "destroys data"),
    exact(0xa1, "ATA PASS-THROUGH(12)", "what it carries is not read"),
    exact(0x85, "ATA PASS-THROUGH(16)", "what it carries is not read"),
    exact(0x7f, "ATA PASS-THROUGH(32)", "what it carries is not read")
        .with(8, 0xff, 0x1f)
        .with(9, 0xff, 0xf0),
    exact(0x94, "ZBC OUT", "moves write pointers of zones"),
    row(0x95, "ZBC IN", Class::Portable, Repeat::Yes).because("changes nothing"),
];
