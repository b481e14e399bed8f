#![no_main]

use sealedenv_fuzz::{sealed_open, start};

libfuzzer_sys::fuzz_target!(init: start(sealed_open::seeds), |data: &[u8]| sealed_open::run(data));
