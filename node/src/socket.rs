//! Unix sockets that are there for as long as the process serves, whoever removes them.

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use sealedenv_runtime::shutdown::Shutdown;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tonic::service::Routes;

/// How often a socket is looked after.
const LOOK: Duration = Duration::from_secs(2);

/// How long to wait after the system gave no connection, as when there are no more descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a socket cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("listening on {}", path.display())]
pub struct SocketError {
    /// Its path.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

/// Serves on a socket until shutdown, and removes it. If it goes, or somebody else takes its place, it is made anew.
///
/// # Errors
/// It cannot be made at first. Later it is tried again and again.
pub async fn serve(path: PathBuf, routes: Routes, shutdown: Shutdown) -> Result<(), SocketError> {
    let failed = |source| SocketError { path: path.clone(), source };
    let (mut listener, mut made) = listen(&path).map_err(failed)?;
    loop {
        let lost = async {
            while inode(&path) == Some(made) {
                if !shutdown.sleep(LOOK).await {
                    return;
                }
            }
        };
        serve_until(&listener, &routes, lost).await;
        if shutdown.is_triggered() {
            break;
        }
        tracing::warn!(path = %path.display(), "the socket was removed; it is made again");
        (listener, made) = loop {
            match listen(&path) {
                Ok(listening) => break listening,
                Err(error) => tracing::error!(%error, path = %path.display(), "listening"),
            }
            if !shutdown.sleep(LOOK).await {
                return Ok(());
            }
        };
    }
    if inode(&path) == Some(made) {
        std::fs::remove_file(&path).map_err(failed)?;
    }
    Ok(())
}

/// A socket that only root can connect to, in the place of whatever a process before this one left there.
fn listen(path: &Path) -> io::Result<(UnixListener, u64)> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Made under another name and renamed: nobody finds it before it has its permissions. With a dot, or the kubelet
    // would take it for a plugin of its own.
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    for old in [&new, &path.to_path_buf()] {
        match std::fs::symlink_metadata(old) {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(_) => std::fs::remove_file(old)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, path)?;
    let made = inode(path).ok_or(io::ErrorKind::NotFound)?;
    Ok((listener, made))
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().map(|found| found.ino())
}

/// Serves what connects until `lost`, and finishes what is in hand.
///
/// HTTP/2 and nothing else, straight on hyper: tonic's own server would bring HTTP/1 and a stack of layers that a
/// kubelet has no use for, and add 200 kB to the image.
async fn serve_until(listener: &UnixListener, routes: &Routes, lost: impl Future<Output = ()>) {
    let (mut lost, ending, mut serving) = (pin!(lost), Shutdown::new(), JoinSet::new());
    loop {
        tokio::select! {
            () = &mut lost => break,
            accepted = listener.accept() => match accepted {
                Ok((connection, _)) => {
                    serving.spawn(serve_one(connection, routes.clone(), ending.clone()));
                }
                // One that could not be had ends nothing.
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = serving.join_next() => {}
        }
    }
    ending.trigger();
    while serving.join_next().await.is_some() {}
}

async fn serve_one(connection: UnixStream, routes: Routes, ending: Shutdown) {
    let service = TowerToHyperService::new(routes);
    let mut serving =
        pin!(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(connection), service));
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = ending.triggered() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke");
    }
}
