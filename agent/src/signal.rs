//! Tells the pod's programs that files changed, where its containers share their processes.

use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

/// The process that holds the shared namespace. It is nobody's program.
const PAUSE: u32 = 1;

/// A signal by its name.
///
/// # Errors
/// It is none that can be asked for.
pub fn parse(name: &str) -> Result<Signal, String> {
    match name {
        "SIGHUP" => Ok(Signal::HUP),
        "SIGUSR1" => Ok(Signal::USR1),
        "SIGUSR2" => Ok(Signal::USR2),
        "SIGWINCH" => Ok(Signal::WINCH),
        "SIGINT" => Ok(Signal::INT),
        "SIGQUIT" => Ok(Signal::QUIT),
        "SIGTERM" => Ok(Signal::TERM),
        _ => Err("it is none of SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH, SIGINT, SIGQUIT, SIGTERM".to_owned()),
    }
}

/// Sends it to the first process of each other container, and says in the log to whom it could not.
pub fn send(signal: Signal) {
    let others = match others(Path::new("/proc"), std::process::id()) {
        Ok(others) => others,
        Err(error) => {
            tracing::warn!(%error, "looking for the pod's processes");
            return;
        }
    };
    for process in others {
        let Some(pid) = i32::try_from(process).ok().and_then(Pid::from_raw) else { continue };
        match kill_process(pid, signal) {
            Ok(()) => tracing::info!(process, "told of the change"),
            // It ended meanwhile.
            Err(Errno::SRCH) => {}
            Err(Errno::PERM) => tracing::warn!(
                process,
                "not permitted to tell a process of the change: it runs as another user than this container"
            ),
            Err(error) => tracing::warn!(process, %error, "telling a process of the change"),
        }
    }
}

/// Processes whose parent is outside of the pod: what its containers were started with. Without `own`, and without the one
/// that only holds the namespace.
fn others(proc: &Path, own: u32) -> io::Result<Vec<u32>> {
    let mut others = Vec::new();
    for entry in fs::read_dir(proc)? {
        let entry = entry?;
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that ended meanwhile cannot be read.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if process != PAUSE && process != own && parent(&stat) == Some(0) {
            others.push(process);
        }
    }
    others.sort_unstable();
    Ok(others)
}

/// The parent in `/proc/PID/stat`: behind the name, which may hold anything, and the state.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(processes: &[(&str, &str)]) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        for (process, stat) in processes {
            fs::create_dir(proc.path().join(process)).unwrap();
            fs::write(proc.path().join(process).join("stat"), stat).unwrap();
        }
        proc
    }

    #[test]
    fn the_first_process_of_each_other_container_is_told_and_nobody_else() {
        let proc = world(&[
            ("1", "1 (pause) S 0 1 1 0"),
            ("7", "7 (sealedenv-agent) S 0 7 7 0"),
            ("20", "20 (nginx) S 0 20 20 0"),
            ("21", "21 (nginx) S 20 20 20 0"),
            ("30", "30 (odd) S 20 (name) S 0 30 30 0"),
            ("40", "no stat at all"),
            ("self", "20 (nginx) S 0 20 20 0"),
        ]);
        fs::create_dir(proc.path().join("50")).unwrap();
        assert_eq!(others(proc.path(), 7).unwrap(), [20, 30]);
        assert!(others(Path::new("/no/such/folder"), 7).is_err());
    }

    #[test]
    fn only_signals_that_can_be_asked_for_have_a_name() {
        assert_eq!(parse("SIGHUP"), Ok(Signal::HUP));
        for name in ["", "HUP", "SIGKILL", "SIGSTOP", "9"] {
            assert!(parse(name).is_err(), "{name}");
        }
    }
}
