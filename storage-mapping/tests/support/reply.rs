//! What every reply promises: it comes back as it was emitted, a part of it is no whole one, and any bytes are read so that
//! they can be emitted and read again.

#![allow(dead_code, unused_imports, unused_macros, reason = "each test file uses its part")]

use std::fmt::Debug;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use storage_mapping::control_port::{Cdb, CommandBytes, ControlCommand, NvmeFields, Transfer};

/// A reply that can be read and made.
pub(crate) trait Reply: Sized + Clone + PartialEq + Debug {
    fn read(bytes: &[u8]) -> Option<Self>;
    fn make(&self) -> Vec<u8>;
    fn whole(&mut self) -> &mut bool;
}

/// Makes types with `parse`, `emit` and `is_whole` replies.
macro_rules! replies {
    ($($name:ty),+ $(,)?) => {$(
        impl crate::reply::Reply for $name {
            fn read(bytes: &[u8]) -> Option<Self> {
                <$name>::parse(bytes)
            }
            fn make(&self) -> Vec<u8> {
                self.emit()
            }
            fn whole(&mut self) -> &mut bool {
                &mut self.is_whole
            }
        }
    )+};
}
pub(crate) use replies;

/// What is emitted is read back, also with something behind it.
pub(crate) fn comes_back<T: Reply>(reply: &T) {
    let bytes = reply.make();
    assert_eq!(T::read(&bytes).as_ref(), Some(reply), "{bytes:02x?}");
    // What stands behind it is not looked at.
    assert_eq!(T::read(&[&bytes[..], &[0xff; 9]].concat()).as_ref(), Some(reply));
}

/// As `comes_back`, and every part of it that is shorter is no whole reply.
pub(crate) fn comes_back_and_knows_its_length<T: Reply>(reply: &T) {
    comes_back(reply);
    let bytes = reply.make();
    for cut in 0..bytes.len() {
        let part = T::read(&bytes[..cut]);
        assert!(
            part.is_none_or(|mut part| !*part.whole()),
            "{cut} of {} bytes are called whole: {bytes:02x?}",
            bytes.len()
        );
    }
}

/// Of any bytes, what was read is emitted so that it is read again.
pub(crate) fn is_stable<T: Reply>(bytes: &[u8]) {
    let Some(mut first) = T::read(bytes) else { return };
    let second = T::read(&first.make());
    *first.whole() = true;
    assert_eq!(second, Some(first), "{:02x?}", &bytes[..bytes.len().min(300)]);
}

/// Bytes that come from nobody who means well: many small ones, so that lengths often fit.
pub(crate) fn hostile() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![2 => 0_u8..12, 1 => any::<u8>()], 0..120)
}

/// Printable text without spaces around it, of at most `max` characters (at least 2).
pub(crate) fn text(max: usize) -> impl Strategy<Value = String> {
    let expression = format!("([!-~]([ -~]{{0,{}}}[!-~])?)?", max - 2);
    proptest::string::string_regex(&expression).expect("a regular expression")
}

/// The command descriptor block of a SCSI command.
pub(crate) fn cdb(command: &ControlCommand) -> Cdb {
    let CommandBytes::Scsi(cdb) = command.bytes else { panic!("a SCSI command") };
    cdb
}

/// The fields of an NVMe command.
pub(crate) fn fields(command: &ControlCommand) -> NvmeFields {
    let CommandBytes::Nvme(fields) = command.bytes else { panic!("an NVMe command") };
    fields
}

/// The data that go out with a command.
pub(crate) fn out(command: &ControlCommand) -> &[u8] {
    match &command.transfer {
        Transfer::Out(data) => data,
        Transfer::None => &[],
        Transfer::In(_) => panic!("data come in"),
    }
}
