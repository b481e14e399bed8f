//! The agent's command line. The webhook writes it; nobody else needs to.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use rustix::process::Signal;
use sealedenv_runtime::log::Format;

/// Gives its own pod the files of SealedEnvs with Memory delivery. The webhook adds it to pods.
#[derive(Parser, Debug)]
#[command(name = "sealedenv-agent", version, about)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the agent does.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Fetches until every SealedEnv has its files, and ends.
    Init {
        /// Put the program that makes environment variables into this folder first.
        #[arg(long)]
        install_exec: Option<PathBuf>,

        /// What to fetch, and from where.
        #[command(flatten)]
        shared: Shared,
    },
    /// Keeps files that are there up to date, until it is told to end.
    Refresh {
        /// Send this signal to the first process of each other container when files changed.
        #[arg(long, value_parser = crate::signal::parse)]
        on_change_signal: Option<Signal>,

        /// Run this program of the image when files changed. It is given SEALEDENV_DIR and no other variable, and 30 s.
        #[arg(long)]
        on_change_exec: Option<PathBuf>,

        /// An argument for it; once for each.
        #[arg(long = "on-change-argument", requires = "on_change_exec", allow_hyphen_values = true)]
        on_change_arguments: Vec<String>,

        /// What to fetch, and from where.
        #[command(flatten)]
        shared: Shared,
    },
}

/// What to fetch, and from where.
#[derive(clap::Args, Debug, Clone)]
pub struct Shared {
    /// A SealedEnv of the pod's namespace; once for each.
    #[arg(long = "sealedenv", required = true)]
    pub sealedenvs: Vec<String>,

    /// A SealedEnv whose folder is to have a place for the pod's ServiceAccount token; once for each.
    #[arg(long = "token-place")]
    pub token_places: Vec<String>,

    /// The operator's delivery API, https://HOST:PORT.
    #[arg(long, env = "SEALEDENV_OPERATOR")]
    pub operator: String,

    /// The name in the operator's certificate, where it is not HOST.
    #[arg(long, env = "SEALEDENV_OPERATOR_SERVER_NAME")]
    pub operator_server_name: Option<String>,

    /// The authorities that the operator's certificate may come from, PEM, until the operator says others.
    #[arg(long, env = "SEALEDENV_OPERATOR_CA", hide_env_values = true)]
    pub operator_ca: String,

    /// Holds a folder for each SealedEnv, by its name.
    #[arg(long, default_value = "/run/sealedenv/files")]
    pub files_dir: PathBuf,

    /// Holds a token for each SealedEnv, NAME/token. Read for each call.
    #[arg(long, default_value = "/var/run/secrets/kubernetes.io/serviceaccount")]
    pub token_dir: PathBuf,

    /// Where to keep what the operator says of its authorities.
    #[arg(long, default_value = "/run/sealedenv/state")]
    pub state_dir: PathBuf,

    /// Where the kubelet reads why a container ended.
    #[arg(long, default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,

    /// How logs are written: text or json. The default is text on a terminal and json elsewhere.
    #[arg(long, env = "SEALEDENV_LOG_FORMAT")]
    pub log_format: Option<Format>,

    /// Which logs are written: error, warn, info, debug, trace, or a filter such as info,sealedenv_agent=debug.
    #[arg(long, env = "SEALEDENV_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

impl Command {
    /// What every command is told.
    pub fn shared(&self) -> &Shared {
        match self {
            Self::Init { shared, .. } | Self::Refresh { shared, .. } => shared,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
        let operator = ["--operator=https://operator:8443", "--operator-ca=PEM"];
        let args = ["sealedenv-agent", "refresh", "--sealedenv=a", "--sealedenv=b"];
        let args = Args::try_parse_from(args.iter().chain(&operator)).unwrap();
        assert_eq!(args.command.shared().sealedenvs, ["a", "b"]);
        let exec = [
            "--on-change-exec=/reload",
            "--on-change-argument=-q",
            "--on-change-argument=--on-change-exec=/x",
        ];
        let read = |args: &[&str]| {
            Args::try_parse_from([&["sealedenv-agent", "refresh", "--sealedenv=a"], args, &operator].concat())
        };
        let Command::Refresh { on_change_exec, on_change_arguments, .. } = read(&exec).unwrap().command
        else {
            panic!("another command")
        };
        assert_eq!(on_change_exec.unwrap(), PathBuf::from("/reload"));
        assert_eq!(on_change_arguments, ["-q", "--on-change-exec=/x"]);
        assert!(read(&exec[1..2]).is_err(), "arguments of no program");
        let nothing = ["sealedenv-agent", "init"];
        assert!(Args::try_parse_from(nothing.iter().chain(&operator)).is_err(), "it needs a SealedEnv");
    }
}
