//! The webhook's command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use sealedenv_audit::FailurePolicy;
use sealedenv_runtime::log::Format;

use crate::inject::{Delivery, Image, Operator, Settings};

/// Gives annotated pods their files, and checks SealedEnvs before they are stored.
#[derive(Parser, Debug)]
#[command(name = "sealedenv-webhook", version, about)]
pub struct Args {
    /// Namespace the webhook runs in, with its Service.
    #[arg(long, env = "POD_NAMESPACE", default_value = "sealedenv-system")]
    pub namespace: String,

    /// Name of this instance, in Events and on the audit trail.
    #[arg(long, env = "POD_NAME", default_value = "sealedenv-webhook")]
    pub instance: String,

    /// Where admission requests are served, over TLS.
    #[arg(long, env = "SEALEDENV_HTTPS_LISTEN", default_value = "0.0.0.0:8443")]
    pub https_listen: SocketAddr,

    /// Where /livez, /readyz and /metrics are served, without TLS.
    #[arg(long, env = "SEALEDENV_HTTP_LISTEN", default_value = "0.0.0.0:8080")]
    pub http_listen: SocketAddr,

    /// Name of the Service that API servers call.
    #[arg(long, env = "SEALEDENV_SERVICE_NAME", default_value = "sealedenv-webhook")]
    pub service_name: String,

    /// Name of the MutatingWebhookConfiguration and of the ValidatingWebhookConfiguration whose caBundle is kept.
    #[arg(long, env = "SEALEDENV_WEBHOOK_CONFIGURATION", default_value = "sealedenv")]
    pub webhook_configuration: String,

    /// Serve the certificate in tls.crt and tls.key of this folder, which somebody else (cert-manager) keeps and whose authority somebody else puts into the caBundle. None is made then, and no configuration is touched.
    #[arg(long, env = "SEALEDENV_CERTIFICATE_DIR")]
    pub certificate_dir: Option<PathBuf>,

    /// How values are delivered where neither the pod nor the SealedEnv says.
    #[arg(long, env = "SEALEDENV_DEFAULT_DELIVERY", value_enum, default_value = "secret")]
    pub default_delivery: DefaultDelivery,

    /// How values of SealedEnvs with delivery Memory get into pods that do not say.
    #[arg(long, env = "SEALEDENV_MEMORY_DELIVERY", value_enum, default_value = "csi")]
    pub memory_delivery: MemoryDelivery,

    /// The image of containers that are added to pods: the agent, and the one that puts the program for environment variables there. Its own, or one built on top of it.
    #[arg(long, env = "SEALEDENV_IMAGE")]
    pub image: Option<String>,

    /// When that image is pulled: Always, IfNotPresent or Never.
    #[arg(long, env = "SEALEDENV_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pub image_pull_policy: String,

    /// The operator's delivery API as agents in pods reach it, https://HOST:PORT. Without it no pod is given an agent.
    #[arg(long, env = "SEALEDENV_AGENT_OPERATOR", requires = "image", value_parser = https)]
    pub agent_operator: Option<String>,

    /// The name in the operator's certificate, where it is not HOST.
    #[arg(long, env = "SEALEDENV_AGENT_OPERATOR_SERVER_NAME", requires = "agent_operator")]
    pub agent_operator_server_name: Option<String>,

    /// How long certificates live, such as 7d or 12h. New ones are made after two thirds of it.
    #[arg(long, env = "SEALEDENV_CERTIFICATE_LIFETIME", default_value = "7d", value_parser = lifetime)]
    pub certificate_lifetime: Duration,

    /// Append the audit trail to this file.
    #[arg(long, env = "SEALEDENV_AUDIT_FILE")]
    pub audit_file: Option<PathBuf>,

    /// Write the audit trail to standard output as well. Logs go to standard error.
    #[arg(long, env = "SEALEDENV_AUDIT_STDOUT")]
    pub audit_stdout: bool,

    /// What happens when no audit sink takes a record. closed: no pod is given anything; open: it is, and the lost record is counted.
    #[arg(long, env = "SEALEDENV_AUDIT_FAILURE_POLICY", value_enum, default_value = "closed")]
    pub audit_failure_policy: AuditFailurePolicy,

    /// How logs are written: text or json. The default is text on a terminal and json elsewhere.
    #[arg(long, env = "SEALEDENV_LOG_FORMAT")]
    pub log_format: Option<Format>,

    /// Which logs are written: error, warn, info, debug, trace, or a filter such as info,sealedenv_webhook=debug.
    #[arg(long, env = "SEALEDENV_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

/// Values of `--default-delivery`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DefaultDelivery {
    /// A volume of the Secret that the operator writes.
    Secret,
    /// A volume of the node plugin.
    Csi,
    /// Files that the agent fetches.
    Agent,
}

impl From<DefaultDelivery> for Delivery {
    fn from(flag: DefaultDelivery) -> Self {
        match flag {
            DefaultDelivery::Secret => Self::Secret,
            DefaultDelivery::Csi => Self::Csi,
            DefaultDelivery::Agent => Self::Agent,
        }
    }
}

/// Values of `--memory-delivery`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum MemoryDelivery {
    /// A volume of the node plugin.
    Csi,
    /// Files that the agent fetches.
    Agent,
}

impl From<MemoryDelivery> for Delivery {
    fn from(flag: MemoryDelivery) -> Self {
        match flag {
            MemoryDelivery::Csi => Self::Csi,
            MemoryDelivery::Agent => Self::Agent,
        }
    }
}

impl Args {
    /// What injection is told.
    pub fn settings(&self) -> Settings {
        Settings {
            default_delivery: self.default_delivery.into(),
            memory_delivery: self.memory_delivery.into(),
            image: self
                .image
                .clone()
                .map(|reference| Image { reference, pull_policy: self.image_pull_policy.clone() }),
            operator: self
                .agent_operator
                .clone()
                .map(|endpoint| Operator { endpoint, server_name: self.agent_operator_server_name.clone() }),
        }
    }
}

fn https(text: &str) -> Result<String, String> {
    if text.starts_with("https://") { Ok(text.to_owned()) } else { Err("give https://HOST:PORT".to_owned()) }
}

/// Values of `--audit-failure-policy`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum AuditFailurePolicy {
    /// No record, nothing given.
    Closed,
    /// Given all the same, and counted as lost.
    Open,
}

impl From<AuditFailurePolicy> for FailurePolicy {
    fn from(flag: AuditFailurePolicy) -> Self {
        match flag {
            AuditFailurePolicy::Closed => Self::Closed,
            AuditFailurePolicy::Open => Self::Open,
        }
    }
}

/// A number with one of the units s, m, h, d; from a minute to a year.
fn lifetime(text: &str) -> Result<Duration, String> {
    const YEAR: u64 = 365 * 24 * 3600;
    let wrong = || "give a number and one of s, m, h, d, from 60s to 365d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|n| n.checked_mul(seconds));
    seconds.filter(|seconds| (60..=YEAR).contains(seconds)).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_has_defaults() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
        let args = Args::try_parse_from(["sealedenv-webhook"]).unwrap();
        assert_eq!(args.certificate_lifetime, Duration::from_hours(7 * 24));
        assert_eq!(args.https_listen.port(), 8443);
        assert!(args.settings().operator.is_none(), "no agent unless it is asked for");
    }

    #[test]
    fn an_agent_needs_an_image_and_an_address() {
        let operator = "--agent-operator=https://operator:8443";
        let read = |args: &[&str]| Args::try_parse_from([&["sealedenv-webhook"], args].concat());
        assert!(read(&[operator]).is_err());
        assert!(read(&["--image=x:1", "--agent-operator=operator:8443"]).is_err());
        assert!(read(&["--image=x:1", "--agent-operator-server-name=x"]).is_err());
        let settings = read(&["--image=x:1", operator, "--memory-delivery=agent"]).unwrap().settings();
        assert_eq!(settings.memory_delivery, Delivery::Agent);
        assert_eq!(settings.operator.unwrap().endpoint, "https://operator:8443");
    }

    #[test]
    fn lifetimes_have_a_unit_and_bounds() {
        for (text, seconds) in [("60s", 60), ("5m", 300), ("12h", 43200), ("365d", 31_536_000)] {
            assert_eq!(lifetime(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "7", "d", "59s", "366d", "-1d", "1w", "1.5h", "99999999999999999999d", "7ä"] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }
}
