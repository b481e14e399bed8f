//! The answering side.

mod sending;

use std::future::Future;

use tonic::{Request, Response, Status};

use crate::wire::delivery_server::{Delivery, DeliveryServer};
use crate::{
    Fetched, MAX_REQUEST, MAX_RESPONSE, NODE_TOKEN, POD_TOKEN, Token, TokenError, Wanted, WantedError,
    answer, wanted, wire,
};

pub use sending::{Carrying, Peer, Sending};

/// One call, checked against the bounds, of a caller that nobody has authenticated yet.
pub struct Call {
    /// The pod's token.
    pub pod: Token,
    /// The node plugin's own token. None: the caller says that it is the agent in the pod.
    pub node: Option<Token>,
    /// What it asks for: at least one, no name twice.
    pub wanted: Vec<Wanted>,
    /// Who is at the other end, where what accepted the connection says so.
    pub peer: Option<Peer>,
    /// Takes what must last until the answer is written.
    pub sending: Sending,
}

impl Call {
    /// A call that comes from nowhere, as a test makes one.
    pub fn new(pod: Token, node: Option<Token>, wanted: Vec<Wanted>) -> Self {
        Self { pod, node, wanted, peer: None, sending: Sending::default() }
    }
}

/// Why a whole call is refused. Callers learn no more than this: what was looked at, and what was found, is for the
/// operator's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A token is missing or no good.
    #[error("the tokens are not accepted")]
    Unauthenticated,
    /// Who it is was established, and it may not.
    #[error("this pod is not served to this caller; the operator's log and audit trail say why")]
    Denied,
    /// Nothing could be established. Trying again is right.
    #[error("the operator cannot answer at the moment")]
    Unavailable,
}

/// What answers.
pub trait Fetch: Send + Sync + 'static {
    /// Answers one call: one answer for each that is wanted, in the same order.
    fn fetch(&self, call: Call) -> impl Future<Output = Result<Fetched, Refusal>> + Send;
}

/// The gRPC service over what answers, with the contract's limits on messages.
pub fn service<F: Fetch>(fetch: F) -> Carrying<DeliveryServer<Adapter<F>>> {
    let server = DeliveryServer::new(Adapter(fetch))
        .max_decoding_message_size(MAX_REQUEST)
        .max_encoding_message_size(MAX_RESPONSE);
    Carrying::new(server)
}

/// Between the wire's types and this crate's.
pub struct Adapter<F>(F);

#[tonic::async_trait]
impl<F: Fetch> Delivery for Adapter<F> {
    async fn fetch(
        &self,
        request: Request<wire::FetchRequest>,
    ) -> Result<Response<wire::FetchResponse>, Status> {
        let pod = token(&request, POD_TOKEN).map_err(unreadable)?.ok_or(Refusal::Unauthenticated)?;
        let node = token(&request, NODE_TOKEN).map_err(unreadable)?;
        let peer = request.extensions().get::<Peer>().cloned();
        let wanted = wanted::from_wire(request.into_inner()).map_err(malformed)?;
        let sending = Sending::default();
        let fetched = self.0.fetch(Call { pod, node, wanted, peer, sending: sending.clone() }).await?;
        let mut response = Response::new(answer::to_wire(fetched));
        response.extensions_mut().insert(sending);
        Ok(response)
    }
}

/// The one token under a name. Two would leave it open which of them was looked at.
fn token(request: &Request<wire::FetchRequest>, name: &str) -> Result<Option<Token>, TokenError> {
    let mut values = request.metadata().get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => Token::from_metadata(value).map(Some),
        (Some(_), Some(_)) => Err(TokenError::NotBearer),
    }
}

fn unreadable(_: TokenError) -> Status {
    Refusal::Unauthenticated.into()
}

fn malformed(error: WantedError) -> Status {
    Status::invalid_argument(error.to_string())
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        match refusal {
            Refusal::Unauthenticated => Self::unauthenticated(message),
            Refusal::Denied => Self::permission_denied(message),
            Refusal::Unavailable => Self::unavailable(message),
        }
    }
}
