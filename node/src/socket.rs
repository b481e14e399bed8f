//! Unix sockets that are there for as long as the process serves, whoever removes them.

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::stream::{self, Stream};
use sealedenv_runtime::shutdown::Shutdown;
use tokio::net::{UnixListener, UnixStream};
use tonic::service::Routes;
use tonic::transport::Server;

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
        let served = Server::builder()
            .add_routes(routes.clone())
            .serve_with_incoming_shutdown(Box::pin(connections(listener)), lost)
            .await;
        if let Err(error) = served {
            tracing::warn!(%error, path = %path.display(), "serving a socket");
        }
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
    // Made under another name and renamed: nobody finds it before it has its permissions.
    let new = path.with_extension("new");
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

/// Connections without end: one that could not be had ends nothing.
fn connections(listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((connection, _)) => return Some((Ok(connection), listener)),
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}
