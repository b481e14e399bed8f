//! What keeps the memory of a process that holds keys and values to itself.

use std::alloc::System;
use std::io;

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use zeroizing_alloc::ZeroAlloc;

/// The system's allocator, wiping each block when it is freed.
///
/// A value passes through buffers that are not ours: JSON, HTTP, TLS. Wiping what our own types hold is not enough.
///
/// ```
/// use sealedenv_runtime::memory::{self, Wiping};
///
/// #[global_allocator]
/// static MEMORY: Wiping = memory::WIPING;
/// ```
pub type Wiping = ZeroAlloc<System>;

/// The value for a [`Wiping`] allocator.
pub const WIPING: Wiping = ZeroAlloc(System);

/// From the first line of a process on: no core file, no core dump through a helper program, and no look from another
/// process of the same user (ptrace, `/proc/<pid>/mem`).
///
/// # Errors
/// When the kernel refuses. A process that runs without is better than none, so callers say so and go on.
pub fn keep_to_itself() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Whether the process may be swapped out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// Every page stays in memory, those to come included.
    Never,
    /// The limit on locked memory, in bytes, does not allow it. Locking within a limit would make allocations fail
    /// as soon as it is reached.
    Limited(u64),
}

/// Keeps all pages in memory, from when they are first used, where the limit on locked memory is off.
///
/// Kubernetes gives pods no swap unless a kubelet is told to (`memorySwap.swapBehavior`), so this is the second lock
/// on a door that is closed. With it, memory that was used once is not given back to the system.
///
/// # Errors
/// When the kernel refuses although the limit is off.
pub fn stay_out_of_swap() -> io::Result<Swap> {
    if let Some(limit) = getrlimit(Resource::Memlock).current {
        return Ok(Swap::Limited(limit));
    }
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?;
    Ok(Swap::Never)
}
