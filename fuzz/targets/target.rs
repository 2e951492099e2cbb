#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postern::fuzz::target(bytes));
