//! The sockets that a kubelet finds the driver by.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use sealedenv_node::identity::About;
use sealedenv_node::registration::{Registrar, SOCKET};
use sealedenv_node::socket;
use sealedenv_node::wire::csi::identity_client::IdentityClient;
use sealedenv_node::wire::csi::identity_server::IdentityServer;
use sealedenv_node::wire::csi::{GetPluginInfoRequest, ProbeRequest};
use sealedenv_node::wire::registration::registration_client::RegistrationClient;
use sealedenv_node::wire::registration::registration_server::RegistrationServer;
use sealedenv_node::wire::registration::{InfoRequest, RegistrationStatus};
use sealedenv_runtime::readiness::Readiness;
use sealedenv_runtime::shutdown::Shutdown;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint};

/// Connects as soon as there is somebody to connect to.
async fn connect(path: &Path) -> Channel {
    let endpoint = Endpoint::from_shared(format!("unix://{}", path.display())).unwrap();
    let connected = async {
        loop {
            if let Ok(channel) = endpoint.connect().await {
                return channel;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), connected).await.expect("nobody listens")
}

#[tokio::test]
async fn the_kubelet_learns_of_the_driver_and_says_whether_it_took_it() {
    let folder = tempfile::tempdir().unwrap();
    let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
    let registrar = Registrar { endpoint: "/k/csi.sock".into(), registered: readiness.gate("registration") };
    let path = folder.path().join("made/for/it").join(SOCKET);
    let routes = Routes::new(RegistrationServer::new(registrar));
    let serving = tokio::spawn(socket::serve(path.clone(), routes, shutdown.clone()));
    let mut kubelet = RegistrationClient::new(connect(&path).await);
    let info = kubelet.get_info(InfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", "csi.sealedenv.dev"));
    assert_eq!((info.endpoint.as_str(), info.supported_versions), ("/k/csi.sock", vec!["1.0.0".to_owned()]));
    assert!(!readiness.is_ready());
    assert_eq!(
        fs::read_dir(path.parent().unwrap()).unwrap().count(),
        1,
        "the kubelet dials whatever it finds"
    );
    for (taken, error) in [(true, ""), (false, "no"), (true, "")] {
        let status = RegistrationStatus { plugin_registered: taken, error: error.to_owned() };
        kubelet.notify_registration_status(status).await.unwrap();
        assert_eq!(readiness.is_ready(), taken);
    }
    shutdown.trigger();
    serving.await.unwrap().unwrap();
    assert!(!path.exists(), "a kubelet would go on dialling it");
}

#[tokio::test]
async fn a_socket_that_is_left_over_or_removed_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("csi.sock");
    // Of a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let shutdown = Shutdown::new();
    let routes = Routes::new(IdentityServer::new(About));
    let serving = tokio::spawn(socket::serve(path.clone(), routes, shutdown.clone()));
    let channel = connect(&path).await;
    let info = IdentityClient::new(channel.clone()).get_plugin_info(GetPluginInfoRequest {}).await;
    assert_eq!(info.unwrap().into_inner().name, "csi.sealedenv.dev");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "for root alone");
    fs::remove_file(&path).unwrap();
    let again = connect(&path).await;
    let probe = IdentityClient::new(again).probe(ProbeRequest {}).await.unwrap().into_inner();
    assert_eq!(probe.ready, Some(true));
    shutdown.trigger();
    serving.await.unwrap().unwrap();
    assert!(!path.exists());
}
