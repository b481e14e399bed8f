//! The plugin's command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use sealedenv_runtime::log::Format;

/// Gives the pods of this node the files of SealedEnvs with Memory delivery: the CSI driver csi.sealedenv.dev.
#[derive(Parser, Debug)]
#[command(name = "sealedenv-node", version, about)]
pub struct Args {
    /// Name of this node, as the kubelet knows it.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,

    /// The kubelet's root directory, at the same path as on the node.
    #[arg(long, env = "SEALEDENV_KUBELET_ROOT", default_value = "/var/lib/kubelet")]
    pub kubelet_root: PathBuf,

    /// A directory that nobody else uses and that is not shared with the node, to mount below.
    #[arg(long, env = "SEALEDENV_STAGE_DIR", default_value = "/run/sealedenv/stage")]
    pub stage_dir: PathBuf,

    /// The operator's delivery API, https://HOST:PORT.
    #[arg(long, env = "SEALEDENV_OPERATOR")]
    pub operator: String,

    /// The name in the operator's certificate, where it is not HOST.
    #[arg(long, env = "SEALEDENV_OPERATOR_SERVER_NAME")]
    pub operator_server_name: Option<String>,

    /// File with the authorities that the operator's certificate may come from, PEM. Read again when it changes.
    #[arg(long, env = "SEALEDENV_OPERATOR_CA", default_value = "/run/sealedenv/ca/ca.crt")]
    pub operator_ca: PathBuf,

    /// File with this plugin's own token, bound to its pod, for the audience sealedenv.dev. Read for each call.
    #[arg(long, env = "SEALEDENV_TOKEN_FILE", default_value = "/run/sealedenv/token/token")]
    pub token_file: PathBuf,

    /// Where /livez, /readyz and /metrics are served, without TLS.
    #[arg(long, env = "SEALEDENV_HTTP_LISTEN", default_value = "0.0.0.0:8080")]
    pub http_listen: SocketAddr,

    /// How logs are written: text or json. The default is text on a terminal and json elsewhere.
    #[arg(long, env = "SEALEDENV_LOG_FORMAT")]
    pub log_format: Option<Format>,

    /// Which logs are written: error, warn, info, debug, trace, or a filter such as info,sealedenv_node=debug.
    #[arg(long, env = "SEALEDENV_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
        let args = ["sealedenv-node", "--node-name=n", "--operator=https://operator:8444"];
        assert_eq!(Args::try_parse_from(args).unwrap().kubelet_root, PathBuf::from("/var/lib/kubelet"));
    }
}
