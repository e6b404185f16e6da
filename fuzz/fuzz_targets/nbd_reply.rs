//! Fuzz target `nbd_reply`: see `tests/src/fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (system_tests::fuzzing::find("nbd_reply").run)(input));
