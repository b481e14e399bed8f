#![no_main]

use sealedenv_fuzz::{dotenv, start};

libfuzzer_sys::fuzz_target!(init: start(dotenv::seeds), |data: &[u8]| dotenv::run(data));
