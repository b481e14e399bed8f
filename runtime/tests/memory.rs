//! What the kernel says of a process after it asked to be kept to itself. Limits belong to a process, so these tests
//! have one of their own, and a child each where they want other limits.

// Helpers outside of test functions fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::process::Command;

use rustix::process::{DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit, setrlimit};
use sealedenv_runtime::memory::{Swap, keep_to_itself, stay_out_of_swap};

const CHILD: &str = "SEALEDENV_TEST_CHILD";

/// Runs a test of this binary again, in a process of its own.
fn alone(test: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let status = child.args(["--exact", test, "--nocapture"]).env(CHILD, "1").status().unwrap();
    assert!(status.success(), "{test} failed in its own process");
    false
}

/// A line of `/proc/self/status` in KiB.
fn kibibytes(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn no_core_is_left_and_nobody_looks_in() {
    if !alone("no_core_is_left_and_nobody_looks_in") {
        return;
    }
    keep_to_itself().unwrap();
    assert_eq!(getrlimit(Resource::Core), Rlimit { current: Some(0), maximum: Some(0) });
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
}

#[test]
fn a_limit_on_locked_memory_is_left_alone() {
    if !alone("a_limit_on_locked_memory_is_left_alone") {
        return;
    }
    setrlimit(Resource::Memlock, Rlimit { current: Some(64 << 10), maximum: Some(64 << 10) }).unwrap();
    assert_eq!(stay_out_of_swap().unwrap(), Swap::Limited(64 << 10));
    assert_eq!(kibibytes("VmLck"), 0);
}

#[test]
fn without_a_limit_every_page_is_locked() {
    if !alone("without_a_limit_every_page_is_locked") {
        return;
    }
    let free = Rlimit { current: None, maximum: None };
    if setrlimit(Resource::Memlock, free).is_err() {
        // Only root may lift the limit: then the other branch is what must be taken.
        assert!(matches!(stay_out_of_swap().unwrap(), Swap::Limited(_)));
        return;
    }
    assert_eq!(stay_out_of_swap().unwrap(), Swap::Never);
    // 16 MiB used after the call, and locked as they are used.
    let used = vec![1_u8; 16 << 20];
    assert!(kibibytes("VmLck") >= 16 << 10, "locked: {} KiB", kibibytes("VmLck"));
    assert_eq!(used.iter().map(|byte| u64::from(*byte)).sum::<u64>(), 16 << 20);
}
