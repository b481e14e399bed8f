//! Runs a program of the image when files changed.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process_group, wait as wait_for_any, waitid,
};
use sealedenv_runtime::report::chain;
use sealedenv_runtime::shutdown::Shutdown;
use tokio::signal::unix::Signal as Signals;
use tokio::sync::Notify;

/// How long a run may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// The only variable that the program is given: where the folders of SealedEnvs are, by their names.
const FOLDER_VARIABLE: &str = "SEALEDENV_DIR";

/// A program, and what it is started with.
#[derive(Clone, Debug)]
pub struct Program {
    /// An absolute path.
    pub path: PathBuf,
    /// Its arguments, without its name.
    pub arguments: Vec<String>,
    /// Where the folders of SealedEnvs are.
    pub folder: PathBuf,
    /// Whether what a program leaves behind becomes a child of this process, as in a container whose first process it is.
    pub adopts: bool,
}

/// Why a run does not count.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is not there, or cannot be executed.
    #[error("starting {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The kernel does not tell of its end.
    #[error("waiting for {}", program.display())]
    Wait {
        /// The program.
        program: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It, or what it started, cannot be killed.
    #[error("killing {}", program.display())]
    Kill {
        /// The program.
        program: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It says that it did not do it.
    #[error("{} ended with {status}", program.display())]
    Failed {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
    },
    /// It took too long.
    #[error("{} did not end within {} s and was killed", program.display(), DEADLINE.as_secs())]
    Late {
        /// The program.
        program: PathBuf,
    },
    /// The pod ends.
    #[error("{} was killed, because the pod ends", program.display())]
    Stopped {
        /// The program.
        program: PathBuf,
    },
}

/// Why a program that runs is not waited for any longer.
enum Stop {
    Late,
    PodEnds,
}

impl Program {
    /// Runs it once for each time that files `changed`, one run after the other, until the pod ends. Changes that come while
    /// it runs are one more run. `ends` tells of children that ended.
    pub async fn serve(&self, mut ends: Signals, changed: &Notify, shutdown: &Shutdown) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.triggered() => return,
                _told = ends.recv(), if self.adopts => {}
                () = changed.notified() => match self.run(&mut ends, shutdown).await {
                    Ok(()) => tracing::info!(program = %self.path.display(), "told of the change"),
                    Err(error) => {
                        tracing::warn!(error = chain(&error), "the program that was to be told of the change");
                    }
                },
            }
            self.bury();
        }
    }

    /// One run. It ends with the program, the deadline or the pod, and nothing that it started in its process group is left
    /// then.
    async fn run(&self, ends: &mut Signals, shutdown: &Shutdown) -> Result<(), ProgramError> {
        let stop = async { if shutdown.sleep(DEADLINE).await { Stop::Late } else { Stop::PodEnds } };
        self.run_until(ends, stop).await
    }

    async fn run_until(
        &self,
        ends: &mut Signals,
        stop: impl Future<Output = Stop>,
    ) -> Result<(), ProgramError> {
        let program = || self.path.clone();
        let wait_error = |source| ProgramError::Wait { program: program(), source };
        let mut child = self.start().map_err(|source| ProgramError::Start { program: program(), source })?;
        let stopped = tokio::select! {
            biased;
            ended = ended(&child, ends) => ended.map(|()| None),
            stop = stop => Ok(Some(stop)),
        };
        // While it is not waited for, its number is nobody else's.
        kill(&mut child).map_err(|source| ProgramError::Kill { program: program(), source })?;
        let stopped = stopped.map_err(wait_error)?;
        ended(&child, ends).await.map_err(wait_error)?;
        let status = child.wait().map_err(wait_error)?;
        match stopped {
            None if status.success() => Ok(()),
            None => Err(ProgramError::Failed { program: program(), status }),
            Some(Stop::Late) => Err(ProgramError::Late { program: program() }),
            Some(Stop::PodEnds) => Err(ProgramError::Stopped { program: program() }),
        }
    }

    fn start(&self) -> io::Result<Child> {
        Command::new(&self.path)
            .args(&self.arguments)
            .env_clear()
            .env(FOLDER_VARIABLE, &self.folder)
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
    }

    /// Waits for what programs left behind. Only while none runs: it would take that one's end for itself.
    fn bury(&self) {
        while self.adopts && matches!(wait_for_any(WaitOptions::NOHANG), Ok(Some(_))) {}
    }
}

/// Returns when it has ended, and leaves it to be waited for.
async fn ended(child: &Child, ends: &mut Signals) -> io::Result<()> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    // `ends` was there before the child was: an end between the look and the wait is told.
    while waitid(WaitId::Pid(pid(child)?), options)?.is_none() {
        ends.recv().await;
    }
    Ok(())
}

/// Kills it and its process group. It may have left the group, and then nobody may be in it.
fn kill(child: &mut Child) -> io::Result<()> {
    child.kill()?;
    match kill_process_group(pid(child)?, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn pid(child: &Child) -> io::Result<Pid> {
    let number = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    number.ok_or_else(|| io::Error::other("the process has no number"))
}

#[cfg(test)]
#[path = "../tests/until/mod.rs"]
mod until;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rustix::process::test_kill_process;
    use tokio::signal::unix::{SignalKind, signal};

    use super::until::until;
    use super::*;

    fn ends() -> Signals {
        signal(SignalKind::child()).unwrap()
    }

    /// A shell that reads `text`: a file that was just written cannot be executed while another test's child still has it open.
    fn script(folder: &Path, text: &str) -> Program {
        let script = folder.join("script");
        fs::write(&script, text).unwrap();
        Program {
            path: "/bin/sh".into(),
            arguments: vec![script.to_str().unwrap().to_owned(), "a b".to_owned(), "$HOME".to_owned()],
            folder: folder.to_owned(),
            adopts: false,
        }
    }

    async fn run(program: &Program) -> Result<(), ProgramError> {
        program.run(&mut ends(), &Shutdown::new()).await
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    /// Not running. Whether it is waited for is up to the machine's first process, whose child it is.
    fn has_ended(pid: &str) -> bool {
        let stat = read(Path::new(&format!("/proc/{}/stat", pid.trim())));
        stat.is_empty() || stat.contains(") Z ")
    }

    /// Neither running nor waiting to be waited for.
    fn is_gone(pid: &str) -> bool {
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        test_kill_process(pid) == Err(Errno::SRCH)
    }

    #[tokio::test]
    async fn it_gets_its_arguments_the_folder_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let program = script(
            folder.path(),
            "{ printf '%s\\n' \"$@\"; tr '\\0' '\\n' < /proc/$$/environ; wc -c; } > $SEALEDENV_DIR/seen",
        );
        run(&program).await.unwrap();
        let expected = format!("a b\n$HOME\nSEALEDENV_DIR={}\n0\n", folder.path().display());
        assert_eq!(read(&folder.path().join("seen")), expected);
    }

    #[tokio::test]
    async fn what_does_not_do_it_is_told_with_its_path_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let failed = script(folder.path(), "exit 3");
        assert_eq!(run(&failed).await.unwrap_err().to_string(), "/bin/sh ended with exit status: 3");
        let killed = script(folder.path(), "kill -9 $$");
        let message = run(&killed).await.unwrap_err().to_string();
        assert_eq!(message, "/bin/sh ended with signal: 9 (SIGKILL)");
        let path = folder.path().join("script");
        for (path, why) in [
            (path.as_path(), "Permission denied"),
            (folder.path(), "Permission denied"),
            (Path::new("/no/such/program"), "No such file"),
        ] {
            let program = Program { path: path.to_owned(), ..failed.clone() };
            let message = chain(&run(&program).await.unwrap_err());
            assert!(message.starts_with(&format!("starting {}: {why}", path.display())), "{message}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_killed_at_the_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let program = script(folder.path(), "while :; do sleep 1000; done");
        let begun = tokio::time::Instant::now();
        let error = run(&program).await.unwrap_err();
        assert_eq!(error.to_string(), "/bin/sh did not end within 30 s and was killed");
        assert_eq!(begun.elapsed().as_secs(), DEADLINE.as_secs());
    }

    #[tokio::test]
    async fn nothing_of_one_that_was_killed_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let (own, below) = (folder.path().join("own"), folder.path().join("below"));
        let program = script(
            folder.path(),
            "trap '' TERM; sleep 1000 & echo $! > $SEALEDENV_DIR/below; echo $$ > $SEALEDENV_DIR/own; while :; do wait; done",
        );
        for late in [true, false] {
            fs::write(&own, "").unwrap();
            let stop = async {
                until("the program", || read(&own).ends_with('\n')).await;
                if late { Stop::Late } else { Stop::PodEnds }
            };
            let error = program.run_until(&mut ends(), stop).await.unwrap_err();
            assert_eq!(matches!(error, ProgramError::Late { .. }), late, "{error}");
            assert!(is_gone(&read(&own)), "it was not waited for");
            until("what it started to end", || has_ended(&read(&below))).await;
        }
    }

    #[tokio::test]
    async fn what_a_program_leaves_running_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let program = script(folder.path(), "sleep 1000 & echo $! > $SEALEDENV_DIR/below");
        run(&program).await.unwrap();
        let below = read(&folder.path().join("below"));
        until("what it started to end", || has_ended(&below)).await;
    }

    #[tokio::test]
    async fn changes_while_it_runs_are_one_more_run_and_a_failure_is_no_reason_to_stop() {
        let folder = tempfile::tempdir().unwrap();
        let program = script(
            folder.path(),
            "echo run >> $SEALEDENV_DIR/runs; while [ ! -e $SEALEDENV_DIR/go ]; do sleep 0.01; done; exit 1",
        );
        let (changed, shutdown) = (Notify::new(), Shutdown::new());
        let runs = || read(&folder.path().join("runs")).lines().count();
        let scenario = async {
            changed.notify_one();
            until("the first run", || runs() == 1).await;
            for _ in 0..3 {
                changed.notify_one();
            }
            assert_eq!(runs(), 1, "one run at a time");
            fs::write(folder.path().join("go"), "").unwrap();
            until("one more run", || runs() == 2).await;
            changed.notify_one();
            until("a run for a change that comes later", || runs() == 3).await;
            shutdown.trigger();
        };
        tokio::join!(program.serve(ends(), &changed, &shutdown), scenario);
        assert_eq!(runs(), 3);
    }

    #[tokio::test]
    async fn nothing_is_run_without_a_change_and_none_is_left_when_the_pod_ends() {
        let folder = tempfile::tempdir().unwrap();
        let program = script(folder.path(), "echo $$ > $SEALEDENV_DIR/own; exec sleep 1000");
        let own = folder.path().join("own");
        let (changed, shutdown) = (Notify::new(), Shutdown::new());
        let ended = Shutdown::new();
        ended.trigger();
        program.serve(ends(), &changed, &ended).await;
        assert!(!own.exists(), "nothing changed");
        let scenario = async {
            changed.notify_one();
            until("the program", || read(&own).ends_with('\n')).await;
            shutdown.trigger();
        };
        tokio::join!(program.serve(ends(), &changed, &shutdown), scenario);
        assert!(is_gone(&read(&own)));
    }
}
