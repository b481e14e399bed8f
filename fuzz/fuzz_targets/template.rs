#![no_main]

use sealedenv_fuzz::{start, template};

libfuzzer_sys::fuzz_target!(init: start(template::seeds), |data: &[u8]| template::run(data));
