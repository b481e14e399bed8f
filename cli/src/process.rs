//! What keeps key material inside the process.

use rustix::process::{Resource, Rlimit, setrlimit};

/// From the start of every command: no core file, no core dump through a helper program, and no look from another
/// process of the same user. Where even this is forbidden, a command is still better than none.
pub(crate) fn keep_to_itself() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}
