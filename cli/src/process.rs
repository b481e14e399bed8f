//! What keeps key material inside the process.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// No core file, from the start. Where even this is forbidden, a command is still better than none.
pub(crate) fn forbid_core_files() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// Neither a core dump through a helper program nor a look from another process of the same user.
///
/// Called right before secrets are read, after every file is open: a process that cannot be dumped cannot open
/// `/dev/fd/N` either, which is what `-i <(…)` of a shell gives.
pub(crate) fn hold_secrets() {
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{dumpable_behavior, getrlimit};

    #[test]
    fn a_process_with_secrets_leaves_no_core() {
        forbid_core_files();
        hold_secrets();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        assert_eq!(dumpable_behavior().expect("prctl"), DumpableBehavior::NotDumpable);
    }
}
