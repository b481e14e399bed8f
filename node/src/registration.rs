//! The kubelet's plugin registration: how it comes to know the driver.

use std::path::PathBuf;

use sealedenv_runtime::readiness::Gate;
use tonic::{Request, Response, Status};

use crate::DRIVER;
use crate::wire::registration::registration_server::Registration;
use crate::wire::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};

/// Tells the kubelet where the driver is, and hears whether it was taken.
#[derive(Clone, Debug)]
pub struct Registrar {
    /// The driver's socket, as the kubelet finds it.
    pub endpoint: PathBuf,
    /// Open while the kubelet has the driver.
    pub registered: Gate,
}

/// File name of the socket that a kubelet registers by. The `@` is needed.
///
/// The kubelet puts the socket's path, percent-encoded, where HTTP/2 has the authority. h2 takes percent signs in an
/// authority only before an `@`, and would reset every call otherwise (kubernetes#109081). What is after it counts as
/// the host.
pub const SOCKET: &str = "csi.sealedenv.dev@reg.sock";

/// The versions of CSI that are spoken, as the kubelet wants them.
const VERSIONS: [&str; 1] = ["1.0.0"];

#[tonic::async_trait]
impl Registration for Registrar {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: DRIVER.to_owned(),
            endpoint: self.endpoint.to_string_lossy().into_owned(),
            supported_versions: VERSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        self.registered.set(status.plugin_registered);
        if status.plugin_registered {
            tracing::info!("registered with the kubelet");
        } else {
            // The kubelet tries again by itself.
            tracing::error!(error = status.error, "the kubelet did not register the driver");
        }
        Ok(Response::new(RegistrationStatusResponse::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kubelet's gRPC encodes an authority: all but what RFC 3986 lets stand in one.
    fn encoded(path: &str) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.~!$&'()*+,;=:[]@".contains(c);
        path.chars()
            .map(|c| if plain(c) { c.to_string() } else { format!("%{:02X}", u32::from(c)) })
            .collect()
    }

    #[test]
    fn what_a_kubelet_sends_as_the_authority_is_one() {
        let authority = |name: &str| encoded(&format!("/var/lib/kubelet/plugins_registry/{name}"));
        assert!(authority(SOCKET).parse::<http::uri::Authority>().is_ok());
        assert!(
            authority("csi.sealedenv.dev-reg.sock").parse::<http::uri::Authority>().is_err(),
            "not needed any more"
        );
    }
}
