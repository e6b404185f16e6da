//! Fuzz target `scsi_replies`: see `tests/src/fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (system_tests::fuzzing::find("scsi_replies").run)(input));
