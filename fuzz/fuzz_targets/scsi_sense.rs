//! Fuzz target `scsi_sense`: see `tests/src/fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (system_tests::fuzzing::find("scsi_sense").run)(input));
