#![no_main]

use sealedenv_fuzz::{audit_trail, start};

libfuzzer_sys::fuzz_target!(init: start(audit_trail::seeds), |data: &[u8]| audit_trail::run(data));
