//! Fuzz target `configuration`: see `app-cli/tests/configuration/target.rs`.

#![no_main]

#[path = "../../app-cli/tests/configuration/target.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|input: &[u8]| target::configuration(input));
