//! The cluster's processes: started apart from us, found again, and never mistaken for somebody else's.

use std::{
    fs::{self, File},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid};
use serde::{Deserialize, Serialize};

use super::layout::{Layout, MARK};

/// One process for good: its number alone may be given to another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// Start time in clock ticks since boot, from `/proc/<pid>/stat`.
    start: u64,
    /// The boot that the ticks count from.
    boot: String,
}

/// The kernel's name for this boot.
pub(crate) fn boot_id() -> anyhow::Result<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").context("reading the boot id")?;
    Ok(text.trim().to_owned())
}

impl Identity {
    /// Of a process that runs now.
    pub(crate) fn of(pid: i32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("looking for process {pid}"))?;
        let (_, start) = parse_stat(&stat).with_context(|| format!("reading /proc/{pid}/stat"))?;
        Ok(Self { pid, start, boot: boot_id()? })
    }

    /// Whether this very process still runs. One that ended and waits to be collected does not.
    pub(crate) fn is_alive(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        self.matches(&stat, &boot_id().unwrap_or_default())
    }

    fn matches(&self, stat: &str, boot: &str) -> bool {
        self.boot == boot
            && parse_stat(stat)
                .is_some_and(|(state, start)| start == self.start && !matches!(state, 'Z' | 'X'))
    }

    /// Whether it still has an entry in the process table, ended or not.
    fn is_listed(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        parse_stat(&stat).is_some_and(|(_, start)| start == self.start)
    }

    /// Sends a signal to this very process; one that is gone is no error.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        // The descriptor is taken first and pins the process, so a number cannot change hands after the check.
        let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
        if !self.is_alive() {
            return Ok(());
        }
        match pidfd_send_signal(&descriptor, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("stopping process {}", self.pid)),
        }
    }
}

/// State letter and start time from the text of `/proc/<pid>/stat`, whose second field may hold blanks and parentheses.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Starts a component in a session of its own with its output in its log, and notes who it is.
/// `enter` are words to put before it, such as `nsenter` with its options.
pub(crate) fn start(
    layout: &Layout,
    name: &str,
    enter: &[String],
    program: &Path,
    args: &[String],
) -> anyhow::Result<Identity> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(layout.log(name))
        .with_context(|| format!("opening the log of {name}"))?;
    let mut command = Command::new("setsid");
    command.args(enter).arg(program).args(args);
    command
        .current_dir("/")
        .env(MARK, layout.root())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    without_proxies(&mut command);
    let child = command.spawn().with_context(|| format!("starting {name}"))?;
    let pid = i32::try_from(child.id()).context("a process number out of range")?;
    let identity = Identity::of(pid)?;
    fs::write(layout.pid_file(name), serde_json::to_vec(&identity)?)
        .with_context(|| format!("noting the process of {name}"))?;
    Ok(identity)
}

/// A cluster on this machine is never reached through a proxy.
pub(crate) fn without_proxies(command: &mut Command) {
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(name);
    }
}

/// The process that was noted for a component, whether or not it still runs.
pub(crate) fn noted(layout: &Layout, name: &str) -> Option<Identity> {
    serde_json::from_slice(&fs::read(layout.pid_file(name)).ok()?).ok()
}

/// All running processes that carry the cluster's mark: components, container shims, helpers.
pub(crate) fn marked(root: &Path) -> Vec<Identity> {
    let mark = [MARK.as_bytes(), b"=", root.as_os_str().as_bytes()].concat();
    let own = std::process::id();
    let Ok(entries) = fs::read_dir("/proc") else { return vec![] };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| u32::try_from(*pid) != Ok(own))
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| has_variable(&environ, &mark))
        })
        .filter_map(|pid| Identity::of(pid).ok())
        .filter(Identity::is_alive)
        .collect()
}

fn has_variable(environ: &[u8], variable: &[u8]) -> bool {
    environ.split(|byte| *byte == 0).any(|entry| entry == variable)
}

/// Waits until all of them are gone, at most so long. Returns those that remain.
pub(crate) fn wait_gone(mut processes: Vec<Identity>, patience: Duration) -> Vec<Identity> {
    let start = Instant::now();
    loop {
        processes.retain(Identity::is_alive);
        if processes.is_empty() || start.elapsed() >= patience {
            return processes;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits a moment until ended processes are off the process table. Our own children we take off ourselves; the others
/// are up to the machine's first process, which may be slow, and are then no more ours to worry about.
pub(crate) fn wait_collected(processes: &[Identity]) {
    let start = Instant::now();
    while processes.iter().any(|process| process.is_listed() && !collect(process)) {
        if start.elapsed() > Duration::from_secs(5) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Takes an ended child of ours off the process table.
fn collect(process: &Identity) -> bool {
    let pid = Pid::from_raw(process.pid);
    pid.is_some_and(|pid| matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(Some(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 1 2 3 4 20 0 1 0 98765 1000 2 184";

    #[test]
    fn the_name_of_a_process_cannot_shift_the_fields() {
        assert_eq!(parse_stat(STAT), Some(('S', 98765)));
        assert_eq!(parse_stat(""), None);
        assert_eq!(parse_stat("42 (x) S 1"), None);
    }

    #[test]
    fn a_reused_number_an_other_boot_or_a_zombie_is_not_the_process() {
        let known = Identity { pid: 42, start: 98765, boot: "today".into() };
        assert!(known.matches(STAT, "today"));
        assert!(!known.matches(STAT, "yesterday"));
        assert!(!known.matches(&STAT.replace("98765", "98766"), "today"));
        assert!(!known.matches(&STAT.replace(" S ", " Z "), "today"));
        assert!(!known.matches("", "today"));
    }

    #[test]
    fn only_the_whole_variable_marks_a_process() {
        let mark = b"M=/var/lib/c";
        assert!(has_variable(b"A=1\0M=/var/lib/c\0B=2\0", mark));
        assert!(!has_variable(b"A=1\0M=/var/lib/c2\0", mark));
        assert!(!has_variable(b"XM=/var/lib/c\0", mark));
        assert!(!has_variable(b"", mark));
    }

    #[test]
    fn a_process_is_signalled_only_while_it_is_the_same() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let real = Identity::of(i32::try_from(child.id()).unwrap()).unwrap();
        let impostor = Identity { start: real.start + 1, ..real.clone() };
        impostor.signal(Signal::KILL).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "the wrong process was stopped");
        assert!(real.is_alive());
        real.signal(Signal::KILL).unwrap();
        assert_eq!(wait_gone(vec![real.clone()], Duration::from_secs(20)), []);
        assert!(real.is_listed(), "nobody has collected it yet");
        wait_collected(std::slice::from_ref(&real));
        assert!(!real.is_listed());
    }
}
