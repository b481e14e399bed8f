//! Mounts of the running kernel.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};

use super::{MountError, Mounted, Mounts, SOURCE, Size, Stage, info};

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// On every mount of ours, the plugin's own included.
const ALWAYS: MountFlags = MountFlags::NOEXEC.union(MountFlags::NOSUID).union(MountFlags::NODEV);

/// The running kernel. Clones share the directory for stages.
#[derive(Clone, Debug)]
pub struct Linux {
    folder: Arc<PathBuf>,
    next: Arc<AtomicU64>,
    /// Whether tmpfs has `noswap`; known once it was tried.
    noswap: Arc<OnceLock<bool>>,
}

/// A stage on a directory of its own.
#[derive(Debug)]
pub struct LinuxStage {
    path: PathBuf,
    root: Option<OwnedFd>,
}

impl Linux {
    /// Stages are mounted below `folder`, which nobody else uses; it is made if it is missing. What a process before
    /// this one left there is taken away.
    ///
    /// # Errors
    /// The folder cannot be made or cleared.
    pub fn new(folder: &Path) -> Result<Self, MountError> {
        let clearing = "clearing the folder for stages";
        std::fs::create_dir_all(folder).map_err(MountError::while_("making the folder for stages"))?;
        let folder = folder.canonicalize().map_err(MountError::while_(clearing))?;
        let text = std::fs::read(MOUNTINFO).map_err(MountError::while_("reading the list of mounts"))?;
        for (at, mounted) in info::mounts(&text) {
            if info::is_below(&at, &folder) && mounted.is_ours() {
                unmount(&at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                    .map_err(MountError::while_(clearing))?;
            }
        }
        for entry in std::fs::read_dir(&folder).map_err(MountError::while_(clearing))? {
            let path = entry.map_err(MountError::while_(clearing))?.path();
            std::fs::remove_dir(path).map_err(MountError::while_(clearing))?;
        }
        Ok(Self { folder: Arc::new(folder), next: Arc::default(), noswap: Arc::default() })
    }

    /// Whether file systems made so far stay out of swap. None until one was made.
    pub fn noswap(&self) -> Option<bool> {
        self.noswap.get().copied()
    }

    #[cfg(test)]
    pub(crate) fn pretend_noswap(&self) {
        self.noswap.get_or_init(|| true);
    }

    /// A directory for a stage.
    fn place(&self) -> Result<PathBuf, MountError> {
        let path = self.folder.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir(&path).map_err(MountError::while_("making a directory for a stage"))?;
        Ok(path)
    }

    /// Calls the kernel with `noswap`, and again without where it does not know it.
    fn with_noswap(
        &self,
        options: &str,
        call: impl Fn(&CString) -> rustix::io::Result<()>,
    ) -> rustix::io::Result<()> {
        let text = |text: String| CString::new(text).map_err(|_| Errno::INVAL);
        if self.noswap() != Some(false) {
            match call(&text(format!("{options},noswap"))?) {
                Ok(()) => {
                    self.noswap.get_or_init(|| true);
                    return Ok(());
                }
                Err(Errno::INVAL) if self.noswap().is_none() => {}
                Err(error) => return Err(error),
            }
        }
        call(&text(options.to_owned())?)?;
        if self.noswap.set(false).is_ok() {
            tracing::warn!(
                "this kernel's tmpfs has no noswap: where the node has swap, values can come to be written to it"
            );
        }
        Ok(())
    }
}

fn options(size: Size) -> String {
    format!("size={},nr_inodes={}", size.bytes, size.inodes)
}

/// A name by which the kernel finds exactly what is open.
fn name_of(open: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", open.as_raw_fd())
}

impl LinuxStage {
    /// Opens the root of what was just mounted. Its failure takes the mount away again.
    fn open(path: PathBuf) -> Result<Self, MountError> {
        let mut stage = Self { path, root: None };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(&stage.path, flags, Mode::empty());
        stage.root = Some(root.map_err(MountError::while_("opening the stage"))?);
        Ok(stage)
    }
}

impl Stage for LinuxStage {
    fn root(&self) -> BorrowedFd<'_> {
        // Set for as long as the stage lives; only `drop` takes it.
        self.root.as_ref().map_or(rustix::fs::CWD, |root| root.as_fd())
    }
}

impl Drop for LinuxStage {
    fn drop(&mut self) {
        drop(self.root.take());
        // Whatever goes wrong here is cleared at the next start, and no other mount namespace sees it.
        if let Err(error) = unmount(&self.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            && error != Errno::INVAL
        {
            tracing::warn!(%error, "a stage could not be unmounted");
        }
        let _cleared_at_the_next_start = std::fs::remove_dir(&self.path);
    }
}

impl Mounts for Linux {
    type Stage = LinuxStage;

    fn at(&self, path: &Path) -> Result<Vec<Mounted>, MountError> {
        let text = std::fs::read(MOUNTINFO).map_err(MountError::while_("reading the list of mounts"))?;
        Ok(info::parse(&text, path))
    }

    fn make(&self, size: Size) -> Result<LinuxStage, MountError> {
        let path = self.place()?;
        let options = format!("{},mode=0755", options(size));
        let made = self.with_noswap(&options, |data| mount(SOURCE, &path, "tmpfs", ALWAYS, data.as_c_str()));
        if let Err(error) = made {
            let _cleared_at_the_next_start = std::fs::remove_dir(&path);
            return Err(MountError { doing: "mounting a tmpfs", source: error.into() });
        }
        LinuxStage::open(path)
    }

    fn attach(&self, stage: &LinuxStage, directory: BorrowedFd<'_>) -> Result<(), MountError> {
        // First, so that no mount of it that others see was ever writable: a bind mount has the flags of what it is of.
        mount_remount(&stage.path, ALWAYS | MountFlags::BIND | MountFlags::RDONLY, "")
            .map_err(MountError::while_("making the tmpfs read-only"))?;
        mount_bind(&stage.path, name_of(directory)).map_err(MountError::while_("mounting at the target"))
    }

    fn reopen(&self, root: BorrowedFd<'_>) -> Result<LinuxStage, MountError> {
        let path = self.place()?;
        if let Err(error) = mount_bind(name_of(root), &path) {
            let _cleared_at_the_next_start = std::fs::remove_dir(&path);
            return Err(MountError { doing: "mounting the volume for a refresh", source: error.into() });
        }
        let stage = LinuxStage::open(path)?;
        mount_remount(&stage.path, ALWAYS | MountFlags::BIND, "")
            .map_err(MountError::while_("making the plugin's own mount writable"))?;
        Ok(stage)
    }

    fn resize(&self, stage: &LinuxStage, size: Size) -> Result<(), MountError> {
        self.with_noswap(&options(size), |data| mount_remount(&stage.path, ALWAYS, data.as_c_str()))
            .map_err(MountError::while_("changing the size of the tmpfs"))
    }

    fn detach(&self, parent: BorrowedFd<'_>, name: &str) -> Result<(), MountError> {
        let path = format!("{}/{name}", name_of(parent));
        match unmount(path.as_str(), UnmountFlags::NOFOLLOW) {
            // Somebody on the node has a file of it open. It is out of sight at once, and goes when they are done.
            Err(Errno::BUSY) => unmount(path.as_str(), UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
            done => done,
        }
        .map_err(|source| MountError { doing: "unmounting the volume", source: io::Error::from(source) })
    }
}
