//! Wiring: from flags to files that are there, and to an exit code.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};

use clap::Parser as _;
use jiff::Timestamp;
use sealedenv_runtime::log::Format;
use sealedenv_runtime::shutdown::{self, Shutdown};
use sealedenv_runtime::{crypto, log, memory, report};
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::Notify;

use crate::args::{Args, Command, Shared};
use crate::folder::Folder;
use crate::pace;
use crate::program::Program;
use crate::round::{Look, Operator, look};
use crate::signal;
use crate::trust::{NobodyToTrust, Trust};

/// In the image: what makes environment variables of files. It knows how to copy itself.
const EXEC: &str = "/sealedenv-exec";

/// The first process of a container, where containers do not share theirs. It takes in the others' orphans.
const FIRST: u32 = 1;

/// What the kubelet shows of a container's end, at most.
const MAX_MESSAGE: usize = 4096;

/// Why the agent ended without what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Logging could not be set up.
    #[error("setting up logging")]
    Log(#[from] log::InitError),
    /// Signals could not be caught.
    #[error("catching signals")]
    Signals(#[source] io::Error),
    /// A folder for files is missing.
    #[error("opening the folder of SealedEnv {name}")]
    Folder {
        /// The SealedEnv.
        name: String,
        /// The cause.
        source: io::Error,
    },
    /// The program that makes environment variables cannot be put where it belongs.
    #[error("putting {EXEC} into {}", folder.display())]
    Install {
        /// Where it was to be.
        folder: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The operator cannot be told from anybody else.
    #[error("making ready to ask the operator")]
    Trust(#[from] NobodyToTrust),
    /// The pod ends before its files were there.
    #[error("the pod ends, and its files were not there: {0}")]
    Stopped(String),
}

/// Runs until done, or until a signal.
pub async fn main() -> ExitCode {
    let args = Args::parse();
    // Values and tokens are in memory.
    if let Err(error) = memory::keep_to_itself() {
        eprintln!("warning: core dumps could not be forbidden: {error}");
    }
    let termination_log = args.command.shared().termination_log.clone();
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::to_stderr(&error, None);
            tell(&termination_log, &report::chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), RunError> {
    let shared = args.command.shared();
    let format = if io::stderr().is_terminal() { Format::Text } else { Format::Json };
    log::init(shared.log_format.unwrap_or(format), &shared.log_level)?;
    crypto::install();
    let shutdown = shutdown::signal().map_err(RunError::Signals)?;
    let agent = Agent::new(shared)?;
    match args.command {
        Command::Init { install_exec, .. } => {
            if let Some(folder) = install_exec {
                install(Path::new(EXEC), &folder).map_err(|source| RunError::Install { folder, source })?;
            }
            agent.init(&shutdown).await
        }
        Command::Refresh { on_change_signal, on_change_exec, on_change_arguments, shared } => {
            let changed = Notify::new();
            let on_change = || {
                if let Some(signal) = on_change_signal {
                    signal::send(signal);
                }
                changed.notify_one();
            };
            let refresh = agent.refresh(&shutdown, on_change);
            let Some(path) = on_change_exec else {
                refresh.await;
                return Ok(());
            };
            let program = Program {
                path,
                arguments: on_change_arguments,
                folder: shared.files_dir,
                adopts: process::id() == FIRST,
            };
            let ends = unix::signal(SignalKind::child()).map_err(RunError::Signals)?;
            tokio::join!(refresh, program.serve(ends, &changed, &shutdown));
            Ok(())
        }
    }
}

fn install(program: &Path, folder: &Path) -> io::Result<()> {
    let ended = process::Command::new(program).arg("--install").arg(folder).status()?;
    if ended.success() { Ok(()) } else { Err(io::Error::other(ended.to_string())) }
}

/// What every look needs.
pub struct Agent {
    operator: Operator,
    trust: Trust,
    folders: Vec<Folder>,
    termination_log: PathBuf,
}

impl Agent {
    /// Opens the folders. Contacts nobody.
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn new(shared: &Shared) -> Result<Self, RunError> {
        let open = |name: &String| {
            let token_place = shared.token_places.contains(name);
            Folder::open(&shared.files_dir, name, token_place)
                .map_err(|source| RunError::Folder { name: name.clone(), source })
        };
        Ok(Self {
            operator: Operator {
                endpoint: shared.operator.clone(),
                server_name: shared.operator_server_name.clone(),
                tokens: shared.token_dir.clone(),
            },
            trust: Trust::load(&shared.state_dir, &shared.operator_ca)?,
            folders: shared.sealedenvs.iter().map(open).collect::<Result<_, _>>()?,
            termination_log: shared.termination_log.clone(),
        })
    }

    /// Asks until every SealedEnv has files. Where they are there already, as after a restart of the pod's sandbox, one look
    /// is enough, however it goes: the last good files are better than a pod that waits.
    ///
    /// # Errors
    /// [`RunError::Stopped`].
    pub async fn init(mut self, shutdown: &Shutdown) -> Result<(), RunError> {
        let mut failures = 0;
        let mut problem = "nobody was asked yet".to_owned();
        loop {
            let Some(look) = self.look(shutdown).await else { return Err(RunError::Stopped(problem)) };
            problem = look.problems.join("; ");
            if self.is_complete() {
                if look.problems.is_empty() {
                    tracing::info!(changed = look.changed.join(", "), "the files are there");
                } else {
                    tracing::warn!(problem, "the files of before stay: there are no others");
                }
                tell(&self.termination_log, "");
                return Ok(());
            }
            failures += 1;
            let pause = pace::after_failure(failures, pace::WAITING, pace::chance());
            tracing::warn!(problem, again_in_seconds = pause.as_secs(), "the files are not there yet");
            tell(&self.termination_log, &problem);
            if !shutdown.sleep(pause).await {
                return Err(RunError::Stopped(problem));
            }
        }
    }

    /// Asks again and again, until the pod ends. What fails leaves the files as they are; `on_change` is called when they
    /// are others.
    pub async fn refresh(mut self, shutdown: &Shutdown, on_change: impl Fn()) {
        let (mut failures, mut told) = (0, String::new());
        let mut pause = pace::at_first(pace::chance());
        while shutdown.sleep(pause).await {
            let Some(look) = self.look(shutdown).await else { return };
            if !look.changed.is_empty() {
                tracing::info!(changed = look.changed.join(", "), "other files are there");
                on_change();
            }
            let problem = look.problems.join("; ");
            if problem.is_empty() {
                if failures > 0 {
                    tracing::info!("the files are up to date again");
                }
                failures = 0;
                pause = pace::after_success(look.hint, pace::chance());
            } else {
                failures += 1;
                // The same again would only fill the log.
                if problem == told {
                    tracing::debug!(problem, failures, "the last good files stay");
                } else {
                    tracing::warn!(problem, "the last good files stay");
                }
                pause = pace::after_failure(failures, pace::USUAL, pace::chance());
            }
            told = problem;
        }
    }

    /// None: the pod ends.
    async fn look(&mut self, shutdown: &Shutdown) -> Option<Look> {
        tokio::select! {
            biased;
            () = shutdown.triggered() => None,
            look = look(&self.operator, &mut self.trust, &self.folders, Timestamp::now) => Some(look),
        }
    }

    fn is_complete(&self) -> bool {
        self.folders.iter().all(|folder| matches!(folder.held(), Ok(Some(_))))
    }
}

/// For whoever describes the pod. Where that cannot be written, the log has it.
fn tell(termination_log: &Path, message: &str) {
    let mut end = message.len().min(MAX_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    if let Err(error) = fs::write(termination_log, message.get(..end).unwrap_or_default()) {
        tracing::debug!(error = report::chain(&error), "the termination message cannot be written");
    }
}
