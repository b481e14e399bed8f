//! A way to the API server that a test can cut. It passes bytes on and knows nothing of them.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};

use crate::cluster::kubectl;
use crate::setting;

/// A proxy for one operator, with the kubeconfig that leads through it.
pub struct Proxy {
    state: Arc<State>,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

struct State {
    cut: AtomicBool,
    ended: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Starts one in front of the API server of the tests.
    ///
    /// # Errors
    /// When the kubeconfig is not as the embedded cluster writes it, or no port is free.
    pub fn start() -> Result<Self> {
        let server =
            kubectl(&["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"])?;
        let target = server.trim().strip_prefix("https://").context("an https:// server")?.to_owned();
        let (host, _) = target.rsplit_once(':').context("a port")?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let text = std::fs::read_to_string(setting::kubeconfig()?)?;
        let indent = text
            .lines()
            .find(|line| line.trim_start().starts_with("server:"))
            .map(|line| &line[..line.len() - line.trim_start().len()])
            .context("a line with the server")?;
        let own = text.replace(
            &format!("{indent}server: {server}"),
            &format!("{indent}tls-server-name: {host}\n{indent}server: https://{address}"),
        );
        anyhow::ensure!(own.contains(&address.to_string()), "the server was not found in the kubeconfig");
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("kubeconfig"), own)?;
        let state = Arc::new(State {
            cut: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            open: Mutex::new(Vec::new()),
        });
        let serving = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.ended.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(stream) = stream {
                    // A connection that cannot be made is closed: that is all a client would see of it.
                    let _ = serving.pass(stream, &target);
                }
            }
        });
        Ok(Self { state, address, folder })
    }

    /// The kubeconfig.
    pub fn kubeconfig(&self) -> String {
        let path: PathBuf = self.folder.path().join("kubeconfig");
        path.display().to_string()
    }

    /// Ends every connection and takes no new one.
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
        self.reset();
    }

    /// Ends every connection, and takes new ones.
    pub fn reset(&self) {
        for stream in self.state.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Takes connections again.
    pub fn mend(&self) {
        self.state.cut.store(false, Ordering::SeqCst);
    }
}

impl State {
    fn pass(self: &Arc<Self>, client: TcpStream, target: &str) -> io::Result<()> {
        if self.cut.load(Ordering::SeqCst) {
            return client.shutdown(Shutdown::Both);
        }
        let server = TcpStream::connect(target)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            self.open.lock().unwrap_or_else(PoisonError::into_inner).push(stream.try_clone()?);
        }
        if self.cut.load(Ordering::SeqCst) {
            // Cut in this very moment.
            client.shutdown(Shutdown::Both)?;
        }
        let pairs = [(client.try_clone()?, server.try_clone()?), (server, client)];
        for (mut from, mut to) in pairs {
            std::thread::spawn(move || {
                // Either end may go at any time; then the other one goes too.
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
                let _ = from.shutdown(Shutdown::Both);
            });
        }
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}
