//! What the kernel tells of a process, started here or in a pod.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// A process of this machine.
#[derive(Debug, Clone, Copy)]
pub struct Process(u32);

/// Memory of a process, in MiB.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// What is resident now.
    pub now: f64,
    /// The most that ever was.
    pub peak: f64,
    /// The part of `now` that is not a mapped file.
    pub anonymous: f64,
}

impl Process {
    /// By its number.
    pub fn new(pid: u32) -> Self {
        Self(pid)
    }

    /// The one of that name in a pod of this machine.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn of_pod(uid: &str, name: &str) -> Result<Self> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("reading /proc")? {
            let name_of_entry = entry.context("reading /proc")?.file_name();
            let Some(pid) = name_of_entry.to_str().and_then(|name| name.parse().ok()) else { continue };
            let process = Self(pid);
            // Processes come and go: one that cannot be read is gone.
            let group = process.read("cgroup").unwrap_or_default();
            let command = process.read("comm").unwrap_or_default();
            if group.contains(&format!("pod{uid}")) && command.trim() == cut(name) {
                found.push(process);
            }
        }
        match found[..] {
            [process] => Ok(process),
            _ => bail!("{} processes {name} in pod {uid}", found.len()),
        }
    }

    /// A path as this process sees it, seen from here.
    pub fn root(self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.0))
    }

    /// CPU time that it took so far.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cpu(self) -> Result<Duration> {
        let stat = self.read("stat")?;
        cpu_ticks(&stat).map(|ticks| Duration::from_millis(ticks * 10)).context("reading its CPU time")
    }

    /// Its memory.
    ///
    /// # Errors
    /// When it is gone.
    pub fn memory(self) -> Result<Memory> {
        let status = self.read("status")?;
        let field = |name| mebibytes(&status, name).with_context(|| format!("reading {name}"));
        Ok(Memory { now: field("VmRSS:")?, peak: field("VmHWM:")?, anonymous: field("RssAnon:")? })
    }

    fn read(self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.0);
        fs::read_to_string(&path).with_context(|| format!("reading {path}: is the process gone?"))
    }
}

/// The kernel keeps 15 letters of a name.
fn cut(name: &str) -> &str {
    name.get(..15).unwrap_or(name)
}

/// User and system time in ticks of 10 ms (what Linux tells processes is always in these) from `/proc/<pid>/stat`.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn mebibytes(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_user_and_system_whatever_the_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 150 25 3 4 20 0 1 0 98765 1000 2 184";
        assert_eq!(cpu_ticks(stat), Some(175));
        assert_eq!(cpu_ticks("42 (x) S 1"), None);
    }

    #[test]
    fn memory_is_read_from_the_right_line() {
        let status = "VmPeak:\t  999999 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nRssAnon:\t 512 kB\n";
        assert_eq!(mebibytes(status, "VmRSS:"), Some(1.0));
        assert_eq!(mebibytes(status, "VmHWM:"), Some(2.0));
        assert_eq!(mebibytes(status, "VmSwap:"), None);
    }

    #[test]
    fn a_long_name_is_looked_for_as_the_kernel_has_it() {
        assert_eq!(cut("sealedenv-operator"), "sealedenv-opera");
        assert_eq!(cut("sealedenv-node"), "sealedenv-node");
    }
}
