//! The operator's command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use sealedenv_runtime::log::Format;

use crate::keys::decide::Generate;

/// Opens the sealed values of SealedEnvs and reconciles them into Secrets.
#[derive(Parser, Debug)]
#[command(name = "sealedenv-operator", version, about)]
pub struct Args {
    /// Namespace the operator runs in: its key Secrets stand there.
    #[arg(long, env = "POD_NAMESPACE", default_value = "sealedenv-system")]
    pub namespace: String,

    /// Name of this instance, in Events and on the audit trail.
    #[arg(long, env = "POD_NAME", default_value = "sealedenv-operator")]
    pub instance: String,

    /// Whether the first sealing key is made when there is none. auto: unless sealed values or the SealingKey show that there was one; always: even then, so that every value must be sealed anew.
    #[arg(long, env = "SEALEDENV_GENERATE_KEY", value_enum, default_value = "auto")]
    pub generate_key: GenerateKey,

    /// Whether replicas elect one that works. Without it this must be the only process.
    #[arg(long, env = "SEALEDENV_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set, value_name = "true|false")]
    pub leader_elect: bool,

    /// How long a leader that is not heard of any more is waited for, in seconds. It renews three times as often.
    #[arg(long, env = "SEALEDENV_LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(3..=300))]
    pub lease_seconds: u16,

    /// How many SealedEnvs are worked on at the same time.
    #[arg(long, env = "SEALEDENV_WORKERS", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,

    /// Watch only these namespaces, comma-separated. All when absent.
    #[arg(long, env = "SEALEDENV_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,

    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "SEALEDENV_HTTP_LISTEN", default_value = "0.0.0.0:8080")]
    pub http_listen: SocketAddr,

    /// Where Memory delivery is served to node plugins and agents. Not at all when absent.
    #[arg(long, env = "SEALEDENV_DELIVERY_LISTEN", value_name = "ADDRESS:PORT")]
    pub delivery_listen: Option<SocketAddr>,

    /// Name of the Service by which node plugins and agents reach it: it stands in the certificate.
    #[arg(long, env = "SEALEDENV_DELIVERY_SERVICE", default_value = "sealedenv-delivery")]
    pub delivery_service: String,

    /// Name of the node plugin's ServiceAccount, in the operator's namespace. Nobody else is taken for a node plugin.
    #[arg(long, env = "SEALEDENV_NODE_SERVICE_ACCOUNT", default_value = "sealedenv-node")]
    pub node_service_account: String,

    /// How many SealedEnvs have series of their own in /metrics; those that are not ready come first. 0 for none.
    #[arg(long, env = "SEALEDENV_OBJECT_SERIES", default_value_t = 1000)]
    pub object_series: usize,

    /// Append the audit trail to this file.
    #[arg(long, env = "SEALEDENV_AUDIT_FILE")]
    pub audit_file: Option<PathBuf>,

    /// Write the audit trail to standard output as well. Logs go to standard error.
    #[arg(long, env = "SEALEDENV_AUDIT_STDOUT")]
    pub audit_stdout: bool,

    /// What happens when no audit sink takes a record. closed: nothing is released; open: it is released and the lost record counted.
    #[arg(long, env = "SEALEDENV_AUDIT_FAILURE_POLICY", value_enum, default_value = "closed")]
    pub audit_failure_policy: AuditFailurePolicy,

    /// How logs are written: text or json.
    #[arg(long, env = "SEALEDENV_LOG_FORMAT", default_value = "json")]
    pub log_format: Format,

    /// Which logs are written: error, warn, info, debug, trace, or a filter such as info,sealedenv_operator=debug.
    #[arg(long, env = "SEALEDENV_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

/// Values of `--generate-key`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum GenerateKey {
    /// See the flag.
    Auto,
    /// None is made at start.
    Never,
    /// See the flag.
    Always,
}

impl From<GenerateKey> for Generate {
    fn from(flag: GenerateKey) -> Self {
        match flag {
            GenerateKey::Auto => Self::Auto,
            GenerateKey::Never => Self::Never,
            GenerateKey::Always => Self::Always,
        }
    }
}

/// Values of `--audit-failure-policy`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum AuditFailurePolicy {
    /// No record, no release.
    Closed,
    /// Release, and count what was lost.
    Open,
}

impl From<AuditFailurePolicy> for sealedenv_audit::FailurePolicy {
    fn from(flag: AuditFailurePolicy) -> Self {
        match flag {
            AuditFailurePolicy::Closed => Self::Closed,
            AuditFailurePolicy::Open => Self::Open,
        }
    }
}
