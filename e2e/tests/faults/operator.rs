//! An operator that the test starts on this machine, in place of the one in the cluster: its disk and its standard
//! output are the test's to break.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use sealedenv_e2e::cluster::{run, wait};
use sealedenv_e2e::process::Process;
use sealedenv_e2e::release::NoOperator;
use sealedenv_e2e::setting;

/// A running operator. Dropping it ends it and brings the cluster's own one back.
pub(crate) struct Operator {
    child: Child,
    log: PathBuf,
    _cluster: NoOperator,
}

impl Operator {
    /// Starts one with flags of the test's choice. `folder` gets its log.
    pub(crate) fn start(folder: &Path, flags: &[&str], stdout: Stdio) -> Result<Self> {
        Self::start_with(folder, &["env"], flags, stdout)
    }

    /// The same, with words before the command, of a program that becomes the operator.
    pub(crate) fn start_with(folder: &Path, words: &[&str], flags: &[&str], stdout: Stdio) -> Result<Self> {
        let cluster = NoOperator::now()?;
        let log = folder.join("operator.log");
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(setting::binary("sealedenv-operator")?);
        command.args(["--namespace", &setting::system_namespace()?, "--instance", "faults-operator"]);
        command.args(["--http-listen", "127.0.0.1:0", "--log-format", "text"]).args(flags);
        command.env("KUBECONFIG", setting::kubeconfig()?);
        command.stdin(Stdio::null()).stdout(stdout).stderr(File::create(&log)?);
        let child = command.spawn().context("starting the operator")?;
        Ok(Self { child, log, _cluster: cluster })
    }

    /// Its process.
    pub(crate) fn process(&self) -> Process {
        Process::new(self.child.id())
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// Fails, with its log, when it has ended by itself.
    pub(crate) fn runs(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the operator ended with {status}: {}", self.log()?),
        }
    }

    /// Ends it as Kubernetes does, and waits for it.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.runs()?;
        self.process().signal("TERM")?;
        let status = wait("the operator to end", || Ok(self.child.try_wait()?))?;
        ensure!(status.success(), "the operator ended with {status}: {}", fs::read_to_string(&self.log)?);
        Ok(())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the operator's log\n{}", self.log().unwrap_or_default());
        }
        // It is gone already, or goes now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file system of one MiB in memory. It really gets full.
pub(crate) struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    pub(crate) fn mount(at: PathBuf) -> Result<Self> {
        fs::create_dir(&at)?;
        let disk = Self { at };
        disk.call(&["-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"])?;
        Ok(disk)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    /// Makes it read-only or not. The kernel refuses while a file is open for writing.
    pub(crate) fn read_only(&self, on: bool) -> Result<()> {
        self.call(&["-o", if on { "remount,ro" } else { "remount,rw" }])
    }

    /// Takes all the space that is left.
    pub(crate) fn fill(&self) -> Result<()> {
        let zeros = vec![0; 2 << 20];
        match fs::write(self.path("filler"), zeros) {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(()),
            other => bail!("the disk did not get full: {other:?}"),
        }
    }

    /// Gives the space back.
    pub(crate) fn empty(&self) -> Result<()> {
        Ok(fs::remove_file(self.path("filler"))?)
    }

    fn call(&self, args: &[&str]) -> Result<()> {
        let mut mount = Command::new("mount");
        mount.args(args).arg(&self.at);
        let output = run(mount, b"")?;
        ensure!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        umount.arg("--lazy").arg(&self.at);
        if let Err(error) = run(umount, b"") {
            eprintln!("{error:#}");
        }
    }
}
