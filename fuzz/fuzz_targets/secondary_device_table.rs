//! Fuzz target `secondary_device_table`: see `tests/src/fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (system_tests::fuzzing::find("secondary_device_table").run)(input));
