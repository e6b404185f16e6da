//! Fuzz target `nvme_replies`: see `tests/src/fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (system_tests::fuzzing::find("nvme_replies").run)(input));
