//! Targets that are not what they should be.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::mount::{MountFlags, mount};
use sealedenv_node::mount::{Linux, MountError, Mounted, Mounts, Size};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tonic::Code;

use crate::bench::{Bench, mounts_below};

/// Neither call touches what is there.
async fn assert_refused(bench: &Bench, what: &str) {
    let before = mounts_below(&bench.folder);
    for status in [bench.publish().await.unwrap_err(), bench.unpublish().await.unwrap_err()] {
        assert_eq!(status.code(), Code::FailedPrecondition, "{what}: {status:?}");
        assert!(status.message().contains("in the way"), "{what}: {status:?}");
    }
    assert_eq!(mounts_below(&bench.folder), before, "{what}");
}

#[tokio::test]
async fn what_is_not_ours_is_neither_used_nor_removed() {
    let bench = Bench::new();
    bench.operator.gives("d1", &[("KEY", "1")]);
    let outside = bench.folder.join("outside");
    fs::create_dir(&outside).unwrap();

    symlink(&outside, bench.target()).unwrap();
    assert_refused(&bench, "a link").await;
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert!(fs::symlink_metadata(bench.target()).unwrap().is_symlink());
    fs::remove_file(bench.target()).unwrap();

    symlink("/nowhere", bench.target()).unwrap();
    assert_refused(&bench, "a link to nowhere").await;
    fs::remove_file(bench.target()).unwrap();

    fs::write(bench.target(), "a file").unwrap();
    assert_refused(&bench, "a file").await;
    assert_eq!(fs::read(bench.target()).unwrap(), b"a file");
    fs::remove_file(bench.target()).unwrap();

    fs::create_dir_all(bench.target().join("data")).unwrap();
    assert_refused(&bench, "a directory with something in it").await;
    fs::remove_dir(bench.target().join("data")).unwrap();

    mount("somebody", bench.target(), "tmpfs", MountFlags::empty(), None).unwrap();
    assert_refused(&bench, "another mount").await;
    fs::write(bench.target().join("KEY"), "theirs").unwrap();
    assert_refused(&bench, "another mount with something in it").await;
}

#[tokio::test]
async fn a_link_on_the_way_is_not_followed() {
    for part in ["pods/uid-1", "pods/uid-1/volumes", "pods/uid-1/volumes/kubernetes.io~csi/checkout"] {
        let bench = Bench::new();
        bench.operator.gives("d1", &[("KEY", "1")]);
        let request = bench.request();
        let (real, moved) = (bench.folder.join("kubelet").join(part), bench.folder.join("moved"));
        fs::rename(&real, &moved).unwrap();
        symlink(&moved, &real).unwrap();
        assert_eq!(bench.publish_as(request).await.unwrap_err().code(), Code::Internal, "{part}");
        assert_eq!(bench.unpublish().await.unwrap_err().code(), Code::Internal, "{part}");
        assert_eq!(bench.count_mounts(), 0, "{part}");
    }
}

/// A kernel with little room.
struct Tight {
    linux: Linux,
    first: Option<Size>,
}

impl Mounts for Tight {
    type Stage = <Linux as Mounts>::Stage;

    fn at(&self, path: &Path) -> Result<Vec<Mounted>, MountError> {
        self.linux.at(path)
    }

    fn make(&self, size: Size) -> Result<Self::Stage, MountError> {
        self.linux.make(self.first.unwrap_or(size))
    }

    fn attach(&self, stage: &Self::Stage, directory: BorrowedFd<'_>) -> Result<(), MountError> {
        self.linux.attach(stage, directory)
    }

    fn reopen(&self, root: BorrowedFd<'_>) -> Result<Self::Stage, MountError> {
        self.linux.reopen(root)
    }

    fn resize(&self, _: &Self::Stage, _: Size) -> Result<(), MountError> {
        Ok(())
    }

    fn detach(&self, parent: BorrowedFd<'_>, name: &str) -> Result<(), MountError> {
        self.linux.detach(parent, name)
    }
}

#[tokio::test]
async fn a_tmpfs_that_is_full_leaves_nothing_of_a_first_publish() {
    for first in [Size { bytes: 8 << 10, inodes: 100 }, Size { bytes: 1 << 20, inodes: 4 }] {
        let bench = Bench::with(|linux| Tight { linux, first: Some(first) });
        bench.operator.gives("d1", &[("A", &"x".repeat(9000)), ("B", "2"), ("C", "3"), ("D", "4")]);
        let status = bench.publish().await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        bench.assert_nothing_left();
    }
}

#[tokio::test]
async fn a_tmpfs_that_is_full_keeps_the_last_good_files() {
    let bench = Bench::with(|linux| Tight { linux, first: None });
    bench.operator.gives("d1", &[("KEY", "good")]);
    bench.publish().await.unwrap();
    bench.operator.gives("d2", &[("KEY", "new"), ("LARGE", &"x".repeat(1 << 20))]);
    for _ in 0..3 {
        bench.publish().await.unwrap();
        let condition = bench.stats().await.unwrap().volume_condition.unwrap();
        assert!(condition.abnormal && condition.message.contains("full"), "{}", condition.message);
        assert_eq!((bench.read("KEY").as_deref(), bench.read("LARGE")), (Some("good"), None));
        let names = fs::read_dir(bench.target()).unwrap().count();
        assert_eq!(names, 3, "nothing of the failed write is left: ..data, its version, KEY");
    }
    bench.operator.gives("d3", &[("KEY", "better")]);
    bench.publish().await.unwrap();
    assert_eq!(bench.read("KEY").as_deref(), Some("better"));
}

/// A kernel that at times does not tell what is mounted.
struct Silent {
    linux: Linux,
    silent: Arc<AtomicBool>,
}

impl Mounts for Silent {
    type Stage = <Linux as Mounts>::Stage;

    fn at(&self, path: &Path) -> Result<Vec<Mounted>, MountError> {
        if self.silent.load(Ordering::Relaxed) {
            let source = std::io::Error::from(rustix::io::Errno::MFILE);
            return Err(MountError { doing: "reading the mounts", source });
        }
        self.linux.at(path)
    }

    fn make(&self, size: Size) -> Result<Self::Stage, MountError> {
        self.linux.make(size)
    }

    fn attach(&self, stage: &Self::Stage, directory: BorrowedFd<'_>) -> Result<(), MountError> {
        self.linux.attach(stage, directory)
    }

    fn reopen(&self, root: BorrowedFd<'_>) -> Result<Self::Stage, MountError> {
        self.linux.reopen(root)
    }

    fn resize(&self, stage: &Self::Stage, size: Size) -> Result<(), MountError> {
        self.linux.resize(stage, size)
    }

    fn detach(&self, parent: BorrowedFd<'_>, name: &str) -> Result<(), MountError> {
        self.linux.detach(parent, name)
    }
}

#[tokio::test]
async fn a_kernel_that_does_not_tell_its_mounts_is_no_reason_to_take_files_away() {
    let silent = Arc::new(AtomicBool::new(false));
    let with = |linux| Silent { linux, silent: Arc::clone(&silent) };
    let bench = Bench::with(with);
    bench.operator.gives("d1", &[("KEY", "good")]);
    bench.publish().await.unwrap();
    bench.operator.gives("d2", &[("KEY", "new")]);

    silent.store(true, Ordering::Relaxed);
    bench.publish().await.unwrap();
    silent.store(false, Ordering::Relaxed);
    let condition = bench.stats().await.unwrap().volume_condition.unwrap();
    assert!(condition.abnormal, "it is told");
    assert!(condition.message.contains("looking at the target"), "{}", condition.message);
    assert_eq!(bench.read("KEY").as_deref(), Some("good"));

    // A plugin that was started anew remembers no volume, and sees the files.
    let again = Bench::at(&bench.folder, with);
    again.operator.gives("d2", &[("KEY", "new")]);
    silent.store(true, Ordering::Relaxed);
    again.publish().await.unwrap();
    silent.store(false, Ordering::Relaxed);
    assert_eq!(again.read("KEY").as_deref(), Some("good"));
    again.publish().await.unwrap();
    assert_eq!(again.read("KEY").as_deref(), Some("new"));
    assert!(!again.stats().await.unwrap().volume_condition.unwrap().abnormal);

    // Where no files are, and where they are somebody else's, it is an error as before.
    again.unpublish().await.unwrap();
    fs::create_dir(again.target()).unwrap();
    silent.store(true, Ordering::Relaxed);
    assert_eq!(again.publish().await.unwrap_err().code(), Code::Internal);
    mount("somebody", again.target(), "tmpfs", MountFlags::empty(), None).unwrap();
    assert_eq!(again.publish().await.unwrap_err().code(), Code::Internal);
}
