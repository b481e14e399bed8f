//! A program under measurement: started here, so that its memory and CPU time are its own.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{Memory, Process};

/// A running program. Killed when dropped.
pub struct Program {
    child: Child,
    name: String,
    log: PathBuf,
    started: Instant,
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
        self.process().cpu()
    }

    /// Its memory.
    ///
    /// # Errors
    /// When it is gone.
    pub fn memory(&self) -> Result<Memory> {
        self.process().memory()
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

    fn process(&self) -> Process {
        Process::new(self.child.id())
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
