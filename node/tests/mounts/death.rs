//! The plugin is killed between any two steps.

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Signal, getpid, kill_process};
use sealedenv_node::mount::{Linux, MountError, Mounted, Mounts, Size};

use crate::bench::Bench;

const FOLDER: &str = "SEALEDENV_TEST_FOLDER";
const STEP: &str = "SEALEDENV_TEST_STEP";

/// Kills the process before or after a call, counted from the first.
struct Deadly {
    linux: Linux,
    left: AtomicUsize,
}

impl Deadly {
    fn step<T>(&self, call: impl FnOnce() -> T) -> T {
        self.tick();
        let done = call();
        self.tick();
        done
    }

    fn tick(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
    }
}

impl Mounts for Deadly {
    type Stage = <Linux as Mounts>::Stage;

    fn at(&self, path: &Path) -> Result<Vec<Mounted>, MountError> {
        self.linux.at(path)
    }

    fn make(&self, size: Size) -> Result<Self::Stage, MountError> {
        self.step(|| self.linux.make(size))
    }

    fn attach(&self, stage: &Self::Stage, directory: BorrowedFd<'_>) -> Result<(), MountError> {
        self.step(|| self.linux.attach(stage, directory))
    }

    fn reopen(&self, root: BorrowedFd<'_>) -> Result<Self::Stage, MountError> {
        self.step(|| self.linux.reopen(root))
    }

    fn resize(&self, stage: &Self::Stage, size: Size) -> Result<(), MountError> {
        self.step(|| self.linux.resize(stage, size))
    }

    fn detach(&self, parent: BorrowedFd<'_>, name: &str) -> Result<(), MountError> {
        self.step(|| self.linux.detach(parent, name))
    }
}

/// A life: publish, refresh, unpublish.
async fn live(bench: &Bench<Deadly>) {
    bench.operator.gives("d1", &[("KEY", "1"), ("OTHER", "1")]);
    bench.publish().await.unwrap();
    bench.operator.gives("d2", &[("KEY", "2"), ("OTHER", "2")]);
    bench.publish().await.unwrap();
    bench.publish().await.unwrap();
    bench.unpublish().await.unwrap();
}

/// Runs this test again in a process of its own, which dies at a step. Gives whether it died.
fn dies(folder: &Path, step: usize) -> bool {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "death::killed_between_any_two_steps_it_leaves_nothing_half"])
        .env(FOLDER, folder)
        .env(STEP, step.to_string())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(
        status.success() || std::os::unix::process::ExitStatusExt::signal(&status) == Some(9),
        "{status}"
    );
    !status.success()
}

#[tokio::test]
async fn killed_between_any_two_steps_it_leaves_nothing_half() {
    if let (Ok(folder), Ok(step)) = (std::env::var(FOLDER), std::env::var(STEP)) {
        let left = AtomicUsize::new(step.parse().unwrap());
        return live(&Bench::at(Path::new(&folder), |linux| Deadly { linux, left })).await;
    }
    let mut steps = 0;
    loop {
        let bench = Bench::new();
        let died = dies(&bench.folder, steps);
        // What a pod would see, before anybody tidies up: nothing, or one whole version.
        if !bench.mounts().is_empty() {
            let (key, other) = (bench.read("KEY"), bench.read("OTHER"));
            assert!(key.is_some() && key == other, "step {steps}: {key:?} {other:?}");
        } else if let Ok(entries) = fs::read_dir(bench.target()) {
            assert_eq!(entries.count(), 0, "step {steps}: a file outside a tmpfs");
        }
        // Started again, with the kubelet repeating its call.
        let again = Bench::at(&bench.folder, |linux| linux);
        again.operator.gives("d3", &[("KEY", "3"), ("OTHER", "3")]);
        again.publish().await.unwrap();
        assert_eq!(again.read("KEY").as_deref(), Some("3"), "step {steps}");
        assert_eq!((again.mounts().len(), again.count_mounts()), (1, 1), "step {steps}");
        again.publish().await.unwrap();
        again.unpublish().await.unwrap();
        again.assert_nothing_left();
        if !died {
            break;
        }
        steps += 1;
    }
    assert!(steps >= 12, "only {steps} steps were seen");
}
