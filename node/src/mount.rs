//! Mounting: what a volume's file system is made of, and who may see which mount of it.

mod info;
mod linux;
mod size;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

pub use self::info::{Mounted, parse};
pub use self::linux::Linux;
pub use self::size::Size;

/// What our mounts have as their source, by which they are known.
pub const SOURCE: &str = crate::DRIVER;

/// Why something could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct MountError {
    /// What was being done.
    pub doing: &'static str,
    /// The cause.
    pub source: io::Error,
}

impl MountError {
    pub(crate) fn while_<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self { doing, source: source.into() }
    }
}

/// A mount of a volume's file system on a directory of the plugin's own, where it can be written. Dropping it takes
/// this mount away; the file system stays where else it is mounted, or goes.
pub trait Stage: Send {
    /// The root directory. Must not outlive the stage.
    fn root(&self) -> BorrowedFd<'_>;
}

/// What the plugin does with mounts. One implementation is real; tests have others that fail or die on the way.
pub trait Mounts: Send + Sync + 'static {
    /// A writable mount of the plugin's own.
    type Stage: Stage;

    /// What is mounted at an absolute path without symbolic links, lowest first.
    ///
    /// # Errors
    /// When the kernel does not tell.
    fn at(&self, path: &Path) -> Result<Vec<Mounted>, MountError>;

    /// Makes an empty file system, on a directory of the plugin's own.
    ///
    /// # Errors
    /// When it cannot be made. Nothing is left.
    fn make(&self, size: Size) -> Result<Self::Stage, MountError>;

    /// Mounts the file system of a stage on a directory as well: read-only, for good.
    ///
    /// # Errors
    /// When it cannot be mounted. Nothing is left at the directory, and the stage is of no more use.
    fn attach(&self, stage: &Self::Stage, directory: BorrowedFd<'_>) -> Result<(), MountError>;

    /// Mounts the file system whose root is given on a directory of the plugin's own as well, where it can be written.
    ///
    /// # Errors
    /// When it cannot be mounted. Nothing is left.
    fn reopen(&self, root: BorrowedFd<'_>) -> Result<Self::Stage, MountError>;

    /// Changes how much a file system may hold.
    ///
    /// # Errors
    /// When the kernel refuses, as when it holds more already.
    fn resize(&self, stage: &Self::Stage, size: Size) -> Result<(), MountError>;

    /// Takes away the topmost mount at `name` in a directory. A link of that name is not followed.
    ///
    /// # Errors
    /// When it cannot be taken away.
    fn detach(&self, parent: BorrowedFd<'_>, name: &str) -> Result<(), MountError>;
}
