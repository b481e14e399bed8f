//! A program under measurement: started here, so that its memory and CPU time are its own.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A running program. Killed when dropped.
pub struct Program {
    child: Child,
    name: String,
    log: PathBuf,
    started: Instant,
}

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

impl Program {
    /// Starts it; what it says goes to a log in `work`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command, name: &str, work: &Path) -> Result<Self> {
        let log = work.join(format!("{name}.log"));
        let doing = || format!("starting {name}");
        let file = File::options().create(true).append(true).open(&log).with_context(doing)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let started = Instant::now();
        let child = command.spawn().with_context(doing)?;
        Ok(Self { child, name: name.to_owned(), log, started })
    }

    /// Waits until a URL answers 200, and says how long that was from its start.
    ///
    /// # Errors
    /// When it ends before, or after a minute.
    pub async fn wait_ready(&mut self, address: SocketAddr, path: &str) -> Result<Duration> {
        loop {
            if answers(address, path) {
                return Ok(self.started.elapsed());
            }
            if let Some(status) = self.child.try_wait()? {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let last: Vec<_> = log.lines().rev().take(5).collect();
                bail!(
                    "{} ended with {status}\n{}",
                    self.name,
                    last.into_iter().rev().collect::<Vec<_>>().join("\n")
                );
            }
            if self.started.elapsed() > Duration::from_mins(3) {
                bail!("{} is not ready; its log is {}", self.name, self.log.display());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// CPU time that it took so far.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = self.read("stat")?;
        cpu_ticks(&stat).map(|ticks| Duration::from_millis(ticks * 10)).context("reading its CPU time")
    }

    /// Its memory.
    ///
    /// # Errors
    /// When it is gone.
    pub fn memory(&self) -> Result<Memory> {
        let status = self.read("status")?;
        let field = |name| mebibytes(&status, name).with_context(|| format!("reading {name}"));
        Ok(Memory { now: field("VmRSS:")?, peak: field("VmHWM:")?, anonymous: field("RssAnon:")? })
    }

    /// Waits until it has next to nothing to do: under 2 % of a core for two seconds.
    ///
    /// # Errors
    /// When it is gone, or busy for two minutes.
    pub async fn wait_idle(&self) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_mins(2) {
            let before = self.cpu()?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            if self.cpu()?.saturating_sub(before) <= Duration::from_millis(40) {
                return Ok(());
            }
        }
        bail!("{} does not come to rest", self.name)
    }

    /// Asks it to end and waits for that.
    ///
    /// # Errors
    /// When it does not end in half a minute.
    pub async fn stop(mut self) -> Result<()> {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM).with_context(|| format!("stopping {}", self.name))?;
        }
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(30) {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("{} does not end", self.name)
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        std::fs::read_to_string(&path).with_context(|| format!("reading {path}: {} is gone", self.name))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
///
/// # Errors
/// When there is none.
pub fn free_address() -> Result<SocketAddr> {
    let socket = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(socket.local_addr()?)
}

/// Whether a GET of this path is answered with 200.
fn answers(address: SocketAddr, path: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let patience = Duration::from_millis(500);
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut line = [0; 12];
        stream.read_exact(&mut line)?;
        Ok(&line == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
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
}
