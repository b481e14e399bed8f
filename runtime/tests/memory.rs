//! What the kernel says of a process after it asked to be kept to itself. Limits belong to a process, so these tests
//! have one of their own, and a child each where they want other limits.

// Helpers outside of test functions fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use rustix::process::{DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit, setrlimit};
use sealedenv_runtime::memory::{self, Swap, Wiping, keep_to_itself, stay_out_of_swap};

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

/// As the servers have it.
#[global_allocator]
static MEMORY: Wiping = memory::WIPING;

/// Memory is read in pieces of this size.
const LEN: usize = 16 << 10;

/// How often something stands in the memory of this process, but for the buffer that it is read into.
fn count(needle: &[u8], buffer: &mut [u8; LEN]) -> usize {
    let memory = File::open("/proc/self/mem").unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let own = buffer.as_ptr().addr() as u64;
    let own = own..own + buffer.len() as u64;
    let mut found = 0;
    for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
        for (mut from, to) in [(from, to.min(own.start)), (from.max(own.end), to)] {
            while from < to {
                let piece = &mut buffer[..LEN.min(usize::try_from(to - from).unwrap())];
                let end = from + piece.len() as u64;
                if memory.read_exact_at(piece, from).is_ok() {
                    found += piece.windows(needle.len()).filter(|window| *window == needle).count();
                }
                // One that lies across the border of two pieces is found in the second.
                from = if end < to { end - needle.len() as u64 + 1 } else { to };
            }
        }
    }
    buffer.fill(0);
    found
}

#[test]
fn freed_memory_is_wiped() {
    if !alone("freed_memory_is_wiped") {
        return;
    }
    // Two halves, so that the whole stands nowhere but where it is put.
    let (half, other) = ([0xa7; 16], [0x1d; 16]);
    let mut needle = Vec::with_capacity(32);
    needle.extend_from_slice(&half);
    needle.extend_from_slice(&other);
    let mut buffer = Box::new([0; LEN]);
    let once = count(&needle, &mut buffer);
    // Behind the first bytes of a block, which the allocator needs when the block is free. One grows, so it moves.
    let block = |size: usize| {
        let mut block = Vec::with_capacity(size);
        block.resize(64, 0);
        block.extend_from_slice(&needle);
        block
    };
    let held: Vec<Vec<u8>> = [128, 4 << 10, 60 << 10].map(block).into();
    let mut grown = block(128);
    grown.resize(8 << 10, 0);
    assert_eq!(count(&needle, &mut buffer), once + 4, "what is held is found, and no copy besides");
    drop((held, grown));
    assert_eq!(count(&needle, &mut buffer), once, "copies are left in freed memory");
}
