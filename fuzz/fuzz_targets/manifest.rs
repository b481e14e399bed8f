#![no_main]

use sealedenv_fuzz::{manifest, start};

libfuzzer_sys::fuzz_target!(init: start(manifest::seeds), |data: &[u8]| manifest::run(data));
