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
