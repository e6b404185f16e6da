//! Fuzz target `nbd_handshake`: see `tests/src/fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (system_tests::fuzzing::find("nbd_handshake").run)(input));
