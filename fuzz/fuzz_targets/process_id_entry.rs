//! Fuzz target `process_id_entry`: see `tests/src/fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (system_tests::fuzzing::find("process_id_entry").run)(input));
