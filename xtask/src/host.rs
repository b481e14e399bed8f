//! What this machine offers: tools, packages, privileges, cache folder, locks.

use std::{
    fs::{self, File},
    io::{IsTerminal as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};

use crate::exec;

/// Where built tools are kept, outside every checkout: `SEALEDENV_CACHE`, or `sealedenv` in the user's cache folder.
///
/// # Errors
/// When neither that nor a home folder is known.
pub fn cache() -> anyhow::Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("SEALEDENV_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("sealedenv")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/sealedenv")))
        .context("no cache folder: none of SEALEDENV_CACHE, XDG_CACHE_HOME and HOME is set")
}

/// Whether we run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The program's path, looked up in `PATH` and in the folders that only root's `PATH` has.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

pub(crate) fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// An advisory lock on a file, held until it is dropped. The file itself stays.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock; says so on stderr when somebody else has it.
    ///
    /// # Errors
    /// When the file cannot be made or locked.
    pub fn wait(file: &Path, what: &str) -> anyhow::Result<Self> {
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        let opened = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(file)
            .with_context(|| format!("opening the lock {}", file.display()))?;
        if flock(&opened, FlockOperation::NonBlockingLockExclusive).is_err() {
            exec::say(format_args!("waiting for another process that is {what}"));
            flock(&opened, FlockOperation::LockExclusive)
                .with_context(|| format!("locking {}", file.display()))?;
        }
        Ok(Self { _file: opened })
    }
}

/// Makes a folder to build in, beside where the result will be moved to. What an interrupted build left under the same
/// prefix is deleted first, so the caller must hold the lock of these builds.
///
/// # Errors
/// When folders cannot be read, deleted or made.
pub(crate) fn scratch(beside: &Path, prefix: &str) -> anyhow::Result<PathBuf> {
    for entry in fs::read_dir(beside).with_context(|| format!("reading {}", beside.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            let path = entry.path();
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    let new = beside.join(format!("{prefix}{}", std::process::id()));
    fs::create_dir(&new).with_context(|| format!("making {}", new.display()))?;
    Ok(new)
}

/// Runs a long command with its output in `log`, and shows on stderr how long it has been running.
///
/// # Errors
/// When it cannot be started or does not exit 0; the end of its output is in the message.
pub fn run_with_progress(command: &mut Command, label: &str, log: &Path) -> anyhow::Result<()> {
    let output = File::create(log).with_context(|| format!("making {}", log.display()))?;
    let line = exec::line(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("starting `{line}`"))?;
    let mut ticker = Ticker::new(label);
    let status = loop {
        if let Some(status) = child.try_wait().with_context(|| format!("waiting for `{line}`"))? {
            break status;
        }
        ticker.tick();
        std::thread::sleep(Duration::from_millis(100));
    };
    ticker.finish();
    if !status.success() {
        bail!("`{line}` ended with {status}\n{}", tail(log, 20));
    }
    Ok(())
}

/// The last lines of a log, or nothing when it cannot be read.
pub(crate) fn tail(log: &Path, lines: usize) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Shows on stderr that something still goes on: a counter on a terminal, now and then a line elsewhere.
#[derive(Debug)]
pub(crate) struct Ticker {
    label: String,
    start: Instant,
    shown: u64,
    terminal: bool,
}

impl Ticker {
    /// Says at once what goes on.
    pub(crate) fn new(label: &str) -> Self {
        exec::say(label);
        Self::quiet(label)
    }

    /// Says nothing unless it takes long.
    pub(crate) fn quiet(label: &str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { label: label.to_owned(), start: Instant::now(), shown: 0, terminal }
    }

    pub(crate) fn tick(&mut self) {
        let seconds = self.start.elapsed().as_secs();
        let every = match (self.terminal, self.shown) {
            (true, 0) => 3,
            (true, _) => 1,
            (false, _) => 15,
        };
        if seconds < self.shown + every {
            return;
        }
        self.shown = seconds;
        if self.terminal {
            eprint!("\r    {}: {seconds} s", self.label);
            std::io::stderr().flush().ok(); // a progress line that is not seen does no harm
        } else {
            eprintln!("    {}: {seconds} s", self.label);
        }
    }

    pub(crate) fn finish(self) {
        if self.terminal && self.shown > 0 {
            eprintln!();
        }
    }
}

/// A program or file that must be there, and the Debian package that has it.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// Name of the Debian package.
    pub package: &'static str,
    /// Whether what we need from it is there.
    pub present: fn() -> bool,
}

/// Sees that every need is met; on Debian as root the missing packages are installed.
///
/// # Errors
/// When something is missing and cannot be installed: names the packages and the command to run.
pub fn ensure_packages(needs: &[Need]) -> anyhow::Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    let command = format!("apt-get install --no-install-recommends {}", missing.join(" "));
    if !is_root() {
        bail!("missing on this machine: {}\nhint: run as root: {command}", missing.join(", "));
    }
    if find_program("apt-get").is_none() {
        bail!(
            "missing on this machine: {}\nhint: these are Debian's package names; install what matches them here",
            missing.join(", ")
        );
    }
    let _quiet = NoServices::begin()?;
    let log = std::env::temp_dir().join(format!("sealedenv-apt-{}.log", std::process::id()));
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").env("NEEDRESTART_SUSPEND", "1");
        apt.args(["-q", "-o", "DPkg::Lock::Timeout=120"]);
        apt
    };
    // A list that cannot be read now may be known well enough from before; the installation will tell.
    if let Err(error) = run_with_progress(apt().arg("update"), "reading Debian's package lists", &log) {
        exec::say(format_args!("going on without new package lists: {error}"));
    }
    run_with_progress(
        apt().args(["-y", "--no-install-recommends", "install"]).args(&missing),
        &format!("installing {}", missing.join(", ")),
        &log,
    )?;
    fs::remove_file(&log).ok(); // only a log, in the temporary folder
    let still = self::missing(needs);
    if !still.is_empty() {
        bail!("installed {}, but it lacks what is needed", still.join(", "));
    }
    Ok(())
}

fn missing(needs: &[Need]) -> Vec<&'static str> {
    needs.iter().filter(|need| !(need.present)()).map(|need| need.package).collect()
}

/// Keeps Debian's packages from starting their services while it lives, by Debian's own means (`policy-rc.d`).
/// A policy that the machine already has is left alone.
struct NoServices {
    made: Option<PathBuf>,
}

impl NoServices {
    fn begin() -> anyhow::Result<Self> {
        let policy = PathBuf::from("/usr/sbin/policy-rc.d");
        if policy.exists() {
            return Ok(Self { made: None });
        }
        fs::write(&policy, "#!/bin/sh\nexit 101\n").context("writing policy-rc.d")?;
        let guard = Self { made: Some(policy.clone()) };
        fs::set_permissions(&policy, fs::Permissions::from_mode(0o755)).context("writing policy-rc.d")?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(file) = &self.made
            && let Err(error) = fs::remove_file(file)
        {
            eprintln!("warning: {} stays behind and keeps services from starting: {error}", file.display());
        }
    }
}

/// Names of the privileges in `wanted` that the text of `/proc/self/status` lacks. A wanted one is a name and a bit.
pub(crate) fn lacking_capabilities(status: &str, wanted: &[(&'static str, u32)]) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .unwrap_or(0);
    wanted.iter().filter(|(_, bit)| effective & (1 << bit) == 0).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let wanted = [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21), ("CAP_SYS_RESOURCE", 24)];
        let status = "CapPrm:\t000001ffffffffff\nCapEff:\t000001fffeffffff\n";
        assert_eq!(lacking_capabilities(status, &wanted), ["CAP_SYS_RESOURCE"]);
        assert_eq!(lacking_capabilities("Name: x\n", &wanted).len(), 3);
    }

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "a\nb\nc\n").unwrap();
        assert_eq!(tail(&log, 2), "b\nc");
        assert_eq!(tail(&log, 9), "a\nb\nc");
        assert_eq!(tail(&dir.path().join("none"), 9), "");
    }

    #[test]
    fn what_an_interrupted_build_left_is_deleted_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["building-1/bin", "result"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let new = scratch(dir.path(), "building-").unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        left.sort();
        assert_eq!(left, [new, dir.path().join("result")]);
    }

    #[test]
    fn a_failing_command_shows_the_end_of_its_output() {
        let dir = tempfile::tempdir().unwrap();
        let error = run_with_progress(
            Command::new("sh").args(["-c", "echo one; echo two >&2; exit 7"]),
            "failing",
            &dir.path().join("log"),
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains("exit status: 7\none\ntwo"), "{error}");
    }
}
