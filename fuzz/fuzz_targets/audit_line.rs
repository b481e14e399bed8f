#![no_main]

use sealedenv_fuzz::{audit_line, start};

libfuzzer_sys::fuzz_target!(init: start(audit_line::seeds), |data: &[u8]| audit_line::run(data));
