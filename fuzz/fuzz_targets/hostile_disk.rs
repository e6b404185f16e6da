//! Fuzz target `hostile_disk`: see `tests/src/fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (system_tests::fuzzing::find("hostile_disk").run)(input));
