#![no_main]

use sealedenv_fuzz::{admission, start};

libfuzzer_sys::fuzz_target!(init: start(admission::seeds), |data: &[u8]| admission::run(data));
