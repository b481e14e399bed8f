#![no_main]

use sealedenv_fuzz::{sealed_text, start};

libfuzzer_sys::fuzz_target!(init: start(sealed_text::seeds), |data: &[u8]| sealed_text::run(data));
