//! The asking side.

use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use crate::answer::{self, Malformed};
use crate::wire::delivery_client::DeliveryClient;
use crate::{
    Fetched, MAX_REQUEST, MAX_RESPONSE, NODE_TOKEN, POD_TOKEN, Token, TokenError, Wanted, WantedError, wanted,
};

/// How often an idle connection is looked after, so that one that died is noticed before it is needed.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Where the operator is, and how it is recognised.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `https://HOST:PORT`. HOST is a name that the operator's certificate has, unless `server_name` says another.
    pub endpoint: String,
    /// The name in the operator's certificate, where the endpoint's is another or an address.
    pub server_name: Option<String>,
    /// The authorities that the operator's certificate may come from, PEM. No others are trusted.
    pub authorities: Vec<u8>,
    /// Longest time for a connection to be made.
    pub connect_timeout: Duration,
    /// Longest time for a call, a connection included.
    pub timeout: Duration,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The endpoint is not an https address.
    #[error("the operator's address must begin with https://")]
    NotHttps,
    /// The endpoint cannot be read, or the authorities cannot.
    #[error("setting up the connection to the operator")]
    Endpoint(#[source] tonic::transport::Error),
    /// No authority is given: nobody could be recognised.
    #[error("there is no certificate authority to recognise the operator by")]
    NoAuthority,
}

/// Why nothing was fetched. What the caller holds stays good.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The request is against the contract; it was not sent.
    #[error("asking the operator")]
    Wanted(#[from] WantedError),
    /// A token cannot travel; nothing was sent.
    #[error("asking the operator")]
    Token(#[from] TokenError),
    /// The operator does not know the tokens: they expired, are for another audience, or of something that is gone.
    #[error("the operator does not accept the tokens")]
    Unauthenticated(#[source] Box<Status>),
    /// The operator does not serve this pod to this caller. Its log and trail say why.
    #[error("the operator does not serve this pod to this caller")]
    Denied(#[source] Box<Status>),
    /// The operator is away, busy, or cannot look things up. Trying again is right.
    #[error("the operator is not available")]
    Unavailable(#[source] Box<Status>),
    /// The answer breaks the contract. Nothing of it is used.
    #[error("reading the operator's answer")]
    Malformed(#[from] Malformed),
}

/// A client of one operator. Clones share the connection, which is made when it is first needed and made again after
/// it was lost.
#[derive(Clone)]
pub struct Client {
    inner: DeliveryClient<Channel>,
    timeout: Duration,
}

impl Client {
    /// Sets it up. Contacts nobody, but must be called in a tokio runtime.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        if !settings.endpoint.starts_with("https://") {
            return Err(SettingsError::NotHttps);
        }
        // Without this an empty bundle would surface at each call as a certificate of an unknown issuer.
        if !settings.authorities.windows(MARK.len()).any(|part| part == MARK) {
            return Err(SettingsError::NoAuthority);
        }
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&settings.authorities));
        if let Some(name) = settings.server_name {
            tls = tls.domain_name(name);
        }
        let channel = Endpoint::from_shared(settings.endpoint)
            .and_then(|endpoint| endpoint.tls_config(tls))
            .map_err(SettingsError::Endpoint)?
            .connect_timeout(settings.connect_timeout)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(settings.connect_timeout)
            .connect_lazy();
        let inner = DeliveryClient::new(channel)
            .max_decoding_message_size(MAX_RESPONSE)
            .max_encoding_message_size(MAX_REQUEST);
        Ok(Self { inner, timeout: settings.timeout })
    }

    /// Asks for SealedEnvs on a pod's behalf: with the pod's token, and, if this is the node plugin, with its own.
    /// One answer for each that is wanted, in the same order.
    ///
    /// # Errors
    /// See [`FetchError`]. Nothing is retried.
    pub async fn fetch(
        &self,
        pod: &Token,
        node: Option<&Token>,
        asked: &[Wanted],
    ) -> Result<Fetched, FetchError> {
        wanted::check(asked)?;
        let mut request = Request::new(wanted::to_wire(asked));
        request.set_timeout(self.timeout);
        request.metadata_mut().insert(POD_TOKEN, pod.to_metadata()?);
        if let Some(node) = node {
            request.metadata_mut().insert(NODE_TOKEN, node.to_metadata()?);
        }
        let response = self.inner.clone().fetch(request).await.map_err(failed)?;
        Ok(answer::from_wire(asked, response.into_inner())?)
    }
}

const MARK: &[u8] = b"-----BEGIN CERTIFICATE-----";

fn failed(status: Status) -> FetchError {
    let status = Box::new(status);
    match status.code() {
        Code::Unauthenticated => FetchError::Unauthenticated(status),
        Code::PermissionDenied => FetchError::Denied(status),
        // The codes by which tonic tells that an answer cannot be decoded, or is larger than agreed.
        Code::Internal | Code::OutOfRange | Code::DataLoss => {
            FetchError::Malformed(Malformed("it is no answer, or larger than agreed"))
        }
        _ => FetchError::Unavailable(status),
    }
}
