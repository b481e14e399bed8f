//! A process that takes in orphans, as a container's first process does. Alone in its binary: it waits for any child.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod until;

use std::fs;

use rustix::io::Errno;
use rustix::process::{Pid, getpid, set_child_subreaper, test_kill_process};
use sealedenv_agent::program::Program;
use sealedenv_runtime::shutdown::Shutdown;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use until::until;

#[tokio::test]
async fn what_a_program_leaves_behind_is_waited_for_also_when_it_left_the_group() {
    set_child_subreaper(Some(getpid())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let script = "sleep 1000 & echo $! > $SEALEDENV_DIR/killed
        setsid sh -c 'echo $$ > $SEALEDENV_DIR/left; while [ ! -e $SEALEDENV_DIR/go ]; do sleep 0.01; done' &
        while [ ! -s $SEALEDENV_DIR/left ]; do sleep 0.01; done; echo done > $SEALEDENV_DIR/done";
    let program = Program {
        path: "/bin/sh".into(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
        folder: folder.path().to_owned(),
        adopts: true,
    };
    let (changed, shutdown) = (Notify::new(), Shutdown::new());
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    // A process that has ended and is not waited for can still be sent a signal.
    let is_gone = |name: &str| {
        let pid = read(name).trim().parse().ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
    };
    let scenario = async {
        changed.notify_one();
        until("the run", || read("done") == "done\n").await;
        until("what it left in its group to be gone", || is_gone("killed")).await;
        assert!(!is_gone("left"), "it left the group, so it goes on");
        fs::write(folder.path().join("go"), "").unwrap();
        until("what ended by itself to be waited for", || is_gone("left")).await;
        shutdown.trigger();
    };
    let ends = signal(SignalKind::child()).unwrap();
    tokio::join!(program.serve(ends, &changed, &shutdown), scenario);
}
