//! Processes of pods, seen from the machine: signals, and what is in their memory.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// A process of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(u32);

/// Something found in memory.
#[derive(Debug, PartialEq, Eq)]
pub struct Hit {
    /// What was found.
    pub needle: String,
    /// The mapping it was found in, as `/proc/PID/maps` has it.
    pub mapping: String,
    /// How often.
    pub times: usize,
}

impl Process {
    /// One that was started by this test.
    pub fn new(pid: u32) -> Self {
        Self(pid)
    }

    /// The process of that name in a pod.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn of_pod(uid: &str, name: &str) -> Result<Self> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let process = Self(pid);
            // Processes come and go: one that cannot be read is gone.
            let group = process.text("cgroup").unwrap_or_default();
            let group_of_pod = format!("pod{uid}");
            if group.contains(&group_of_pod) && process.text("comm").unwrap_or_default().trim() == comm(name)
            {
                found.push(process);
            }
        }
        match found[..] {
            [process] => Ok(process),
            _ => bail!("{} processes {name} in pod {uid}", found.len()),
        }
    }

    /// Its number.
    pub fn pid(self) -> u32 {
        self.0
    }

    /// A file of it below `/proc`.
    pub fn path(self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.0))
    }

    /// The text of such a file.
    ///
    /// # Errors
    /// When the process is gone, or may not be looked at.
    pub fn text(self, file: &str) -> Result<String> {
        fs::read_to_string(self.path(file)).with_context(|| format!("/proc/{}/{file}", self.0))
    }

    /// Whether it runs. One that ended and waits to be collected does not.
    pub fn is_alive(self) -> bool {
        self.text("stat").is_ok_and(|stat| {
            let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
            !matches!(state, None | Some("Z" | "X"))
        })
    }

    /// Sends a signal, such as `KILL`.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(self, name: &str) -> Result<()> {
        let status = Command::new("kill").args(["-s", name, &self.0.to_string()]).status()?;
        if !status.success() {
            bail!("kill -s {name} {}: {status}", self.0);
        }
        Ok(())
    }

    /// A number of `/proc/PID/status` that is given in KiB, such as `VmHWM`.
    ///
    /// # Errors
    /// When there is none.
    pub fn kib(self, field: &str) -> Result<u64> {
        let status = self.text("status")?;
        let line = status.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
        let number = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
        number.with_context(|| format!("no {field} in {status}"))
    }

    /// Whether it leaves no core dump and no other process of its user may look into it: the limit of core dumps is 0,
    /// and its files below `/proc` belong to root though it runs as somebody else.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cannot_be_dumped(self) -> Result<bool> {
        let limits = self.text("limits")?;
        let core = limits.lines().find_map(|l| l.strip_prefix("Max core file size")).unwrap_or_default();
        let no_core = core.split_whitespace().take(2).eq(["0", "0"]);
        let user = self.text("status")?;
        let user = user.lines().find_map(|l| l.strip_prefix("Uid:")).unwrap_or_default().to_owned();
        let somebody = user.split_whitespace().next() != Some("0");
        let owner = fs::metadata(self.path("environ"))?.uid();
        Ok(no_core && somebody && owner == 0)
    }

    /// Looks for texts in all of its memory that can be written to.
    ///
    /// # Errors
    /// When its memory cannot be read.
    pub fn find(self, needles: &[String]) -> Result<Vec<Hit>> {
        let memory = File::open(self.path("mem")).with_context(|| format!("memory of process {}", self.0))?;
        let mut hits = Vec::new();
        for mapping in self.text("maps")?.lines() {
            let Some((from, to)) = writable(mapping) else { continue };
            let mut bytes = vec![0; usize::try_from(to - from)?];
            // A mapping that went away meanwhile holds nothing any more.
            if memory.read_exact_at(&mut bytes, from).is_err() {
                continue;
            }
            hits.extend(find(&bytes, needles)?.into_iter().map(|(needle, times)| Hit {
                needle,
                mapping: mapping.to_owned(),
                times,
            }));
        }
        Ok(hits)
    }
}

/// The kernel keeps 15 characters of a name.
fn comm(name: &str) -> &str {
    name.get(..15).unwrap_or(name)
}

/// The range of a mapping that can be read and written.
fn writable(mapping: &str) -> Option<(u64, u64)> {
    let (range, rest) = mapping.split_once(' ')?;
    let (from, to) = range.split_once('-')?;
    rest.starts_with("rw").then_some(())?;
    Some((u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?))
}

/// Which of the texts stand in the bytes, and how often. By `grep`, which is fast and searches what it is given.
///
/// # Errors
/// When grep does not run.
pub fn find(bytes: &[u8], needles: &[String]) -> Result<Vec<(String, usize)>> {
    let mut grep = Command::new("grep");
    grep.args(["-a", "-o", "-F"]).env("LC_ALL", "C").stdin(Stdio::piped()).stdout(Stdio::piped());
    for needle in needles {
        grep.args(["-e", needle]);
    }
    let mut child = grep.spawn().context("running grep")?;
    let mut pipe = child.stdin.take().context("a pipe to grep")?;
    let mut stdout = child.stdout.take().context("a pipe from grep")?;
    let found = std::thread::scope(|scope| -> Result<String> {
        let feeder = scope.spawn(move || pipe.write_all(bytes));
        let mut found = String::new();
        stdout.read_to_string(&mut found)?;
        feeder.join().map_err(|_| anyhow::anyhow!("the thread that feeds grep panicked"))??;
        Ok(found)
    })?;
    if child.wait()?.code().is_none_or(|code| code > 1) {
        bail!("grep failed");
    }
    let times = |needle: &String| found.lines().filter(|line| line == needle).count();
    Ok(needles.iter().map(|n| (n.clone(), times(n))).filter(|(_, times)| *times > 0).collect())
}
