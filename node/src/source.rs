//! Where files come from.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use sealedenv_delivery::client::{Client, FetchError as ClientError, Settings, SettingsError};
use sealedenv_delivery::{Answer, Token, TokenError, Wanted};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

/// Gives the files of a SealedEnv to a pod.
pub trait Source: Send + Sync + 'static {
    /// Asks on behalf of the pod whose token it is. Nothing is retried: the kubelet does that.
    fn fetch(&self, pod: &Token, wanted: Wanted) -> impl Future<Output = Result<Answer, FetchError>> + Send;
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A file of the plugin's own cannot be read.
    #[error("reading {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The plugin's own token is no token.
    #[error("reading the plugin's own token")]
    Token(#[source] TokenError),
    /// There can be no connection with these settings.
    #[error("setting up the connection to the operator")]
    Settings(#[source] SettingsError),
    /// The operator gave nothing.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The operator did not answer what was asked.
    #[error("the operator gave no answer")]
    Nothing,
}

/// The operator's delivery API.
pub struct Operator {
    settings: OperatorSettings,
    connection: Mutex<Option<Connection>>,
}

/// Where the operator is, and what to show it.
#[derive(Clone, Debug)]
pub struct OperatorSettings {
    /// `https://HOST:PORT`.
    pub endpoint: String,
    /// The name in the operator's certificate, where it is not HOST.
    pub server_name: Option<String>,
    /// File with the authorities of the operator's certificate. It may change at any time.
    pub authorities: PathBuf,
    /// File with the plugin's own token. The kubelet renews it.
    pub token: PathBuf,
}

struct Connection {
    authorities: Vec<u8>,
    client: Client,
}

/// Longest time for a connection. The kubelet gives a publish two minutes.
const CONNECT: Duration = Duration::from_secs(5);
/// Longest time for a call.
const CALL: Duration = Duration::from_secs(30);

impl Operator {
    /// Contacts nobody until something is fetched.
    pub fn new(settings: OperatorSettings) -> Self {
        Self { settings, connection: Mutex::new(None) }
    }

    /// A client that trusts what stands in the file now.
    async fn client(&self) -> Result<Client, FetchError> {
        let authorities = read(&self.settings.authorities).await?;
        let mut connection = self.connection.lock().await;
        if let Some(connection) = connection.as_ref().filter(|known| known.authorities == *authorities) {
            return Ok(connection.client.clone());
        }
        let client = Client::new(Settings {
            endpoint: self.settings.endpoint.clone(),
            server_name: self.settings.server_name.clone(),
            authorities: authorities.to_vec(),
            connect_timeout: CONNECT,
            timeout: CALL,
        })
        .map_err(FetchError::Settings)?;
        *connection = Some(Connection { authorities: authorities.to_vec(), client: client.clone() });
        Ok(client)
    }
}

impl Source for Operator {
    async fn fetch(&self, pod: &Token, wanted: Wanted) -> Result<Answer, FetchError> {
        let client = self.client().await?;
        // Read anew each time: a token that was kept since the start is refused after an hour.
        let own = read(&self.settings.token).await?;
        let own = Token::new(String::from_utf8_lossy(&own).into_owned()).map_err(FetchError::Token)?;
        client.fetch(pod, Some(&own), &[wanted]).await?.answers.pop().ok_or(FetchError::Nothing)
    }
}

async fn read(path: &PathBuf) -> Result<Zeroizing<Vec<u8>>, FetchError> {
    let bytes = tokio::fs::read(path).await;
    bytes.map(Zeroizing::new).map_err(|source| FetchError::File { path: path.clone(), source })
}
