//! Clients of the API server.
//!
//! Everything that the operator writes goes through one of them, so here is where leadership is asked for: a request
//! that changes something is sent only while it is certain, and given up when it is not any more. That makes it
//! impossible to forget at a new write. Only the Lease itself is written without, and what statuses tell of pods that hold
//! the values: each replica answers pods.

use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use sealedenv_runtime::api::ApiMetrics;
use tower::buffer::BufferLayer;
use tower::retry::RetryLayer;
use tower::{BoxError, Layer, Service};

use crate::leader::{Leadership, NotLeading, Write};

/// No answer but that to a watch may take longer to begin.
const ANSWER: Duration = Duration::from_secs(30);

/// How often, at most, a request is repeated that the API server was too busy for (429, 503, 504). It says how long
/// to wait; where it does not, the wait grows from the first to the second.
const BUSY_AGAIN: u32 = 5;
const BUSY_WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));

/// Where tokens are reviewed. See [`is_question`].
const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// Requests that may wait for a connection.
const QUEUE: usize = 1024;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nothing says where the API server is.
    #[error("finding the API server")]
    Config(#[source] kube::config::InferConfigError),
    /// The configuration cannot be used.
    #[error("setting up the connection to the API server")]
    Setup(#[source] Box<kube::Error>),
    /// The waits between repeated requests are not valid.
    #[error("setting up how busy API servers are treated")]
    Waits(#[source] kube::client::retry::InvalidBackoff),
}

/// No answer came.
#[derive(Debug, thiserror::Error)]
#[error("the API server did not answer within {} s", ANSWER.as_secs())]
struct NoAnswer;

/// The clients of this process.
pub struct Clients {
    /// Reads, and reviews tokens, at any time; writes only while this replica leads.
    pub work: Client,
    /// For the Lease: no fence, no repetition, a connection of its own that no other work delays.
    pub election: Client,
    /// For Memory delivery, which every replica serves: reads for pods that ask, what statuses tell of them, and the Events
    /// about it. No fence; each write names the version it is made on.
    pub delivery: Client,
}

/// Finds the API server: by kubeconfig, or as a pod does. Every request, repeated or not, is counted in `metrics`.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(leadership: &Leadership, metrics: &ApiMetrics) -> Result<Clients, ConnectError> {
    let mut config = Config::infer().await.map_err(ConnectError::Config)?;
    // Ours stands outside the fence, so that each repetition passes it.
    config.default_retry = false;
    let build =
        |config: Config| ClientBuilder::try_from(config).map_err(|e| ConnectError::Setup(Box::new(e)));
    let election = build(config.clone())?.with_layer(metrics).build();
    let delivery = build(config.clone())?.with_layer(metrics).build();
    let work = fenced(build(config)?.with_layer(metrics), leadership)?;
    Ok(Clients { work, election, delivery })
}

/// A client that writes only while this replica leads, and is patient with a busy API server.
///
/// # Errors
/// [`ConnectError::Waits`].
pub fn fenced<S, B>(connection: ClientBuilder<S>, leadership: &Leadership) -> Result<Client, ConnectError>
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let again = RetryPolicy::new(BUSY_WAIT.0, BUSY_WAIT.1, BUSY_AGAIN, true).map_err(ConnectError::Waits)?;
    let client = connection
        .with_layer(&FenceLayer::new(leadership.clone()))
        .with_layer(&BufferLayer::new(QUEUE))
        .with_layer(&RetryLayer::new(again))
        .build();
    Ok(client)
}

/// Puts a [`Fence`] in front of a connection.
#[derive(Clone)]
pub struct FenceLayer(Leadership);

impl FenceLayer {
    /// For that leadership.
    pub fn new(leadership: Leadership) -> Self {
        Self(leadership)
    }
}

impl<S> Layer<S> for FenceLayer {
    type Service = Fence<S>;

    fn layer(&self, inner: S) -> Fence<S> {
        Fence { inner, leadership: self.0.clone() }
    }
}

/// Lets requests that change something pass only while this replica leads.
pub struct Fence<S> {
    inner: S,
    leadership: Leadership,
}

impl<S> Service<Request<Body>> for Fence<S>
where
    S: Service<Request<Body>>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if matches!(*request.method(), Method::GET | Method::HEAD) || is_question(&request) {
            let bounded = !is_watch(&request);
            let answer = self.inner.call(request).map(|a| a.map_err(Into::into));
            return if bounded { in_time(answer).boxed() } else { answer.boxed() };
        }
        match self.leadership.begin_write() {
            Ok(write) => {
                let answer = self.inner.call(request).map(|a| a.map_err(Into::into));
                in_time(while_leading(write, answer)).boxed()
            }
            Err(error) => futures::future::ready(Err(error.into())).boxed(),
        }
    }
}

/// A question in the form of a POST: it changes nothing, and standbys ask it too.
fn is_question(request: &Request<Body>) -> bool {
    *request.method() == Method::POST && request.uri().path() == TOKEN_REVIEWS
}

fn is_watch(request: &Request<Body>) -> bool {
    request.uri().query().is_some_and(|q| q.split('&').any(|pair| pair == "watch=true" || pair == "watch=1"))
}

async fn in_time<T>(answer: impl Future<Output = Result<T, BoxError>>) -> Result<T, BoxError> {
    tokio::time::timeout(ANSWER, answer).await.map_err(|_| NoAnswer)?
}

/// Goes on with a write only while nobody else can lead. It may have waited for a connection, with the process stopped
/// in between.
async fn while_leading<T>(
    write: Write,
    answer: impl Future<Output = Result<T, BoxError>>,
) -> Result<T, BoxError> {
    let mut answer = pin!(answer);
    std::future::poll_fn(|cx| {
        if write.is_overdue() { Poll::Ready(Err(NotLeading.into())) } else { answer.as_mut().poll(cx) }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::leader::clock::{Steady, Tick};
    use tower_test::mock::pair;

    fn request(method: Method) -> Request<Body> {
        Request::builder().method(method).uri("/api/v1/x").body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn a_standby_reads_and_does_not_write() {
        let now = Arc::new(Mutex::new(1));
        let clock = Arc::clone(&now);
        let steady = Steady::from_fn(move || Tick::after(Duration::from_secs(*clock.lock().unwrap())));
        let leadership = Leadership::elected(steady);
        let (service, mut handle) = pair::<Request<Body>, Response<Body>>();
        let mut fence = FenceLayer::new(leadership.clone()).layer(service);
        handle.allow(10);
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            std::future::poll_fn(|cx| fence.poll_ready(cx)).await.unwrap();
            let refused = fence.call(request(method)).await.unwrap_err();
            assert!(NotLeading::is_in(&*refused), "{refused}");
        }
        std::future::poll_fn(|cx| fence.poll_ready(cx)).await.unwrap();
        let read = tokio::spawn(fence.call(request(Method::GET)));
        let (sent, answer) = handle.next_request().await.unwrap();
        assert_eq!(*sent.method(), Method::GET, "the first that came through");
        answer.send_response(Response::new(Body::empty()));
        read.await.unwrap().unwrap();
        // A review of a token changes nothing, though it is a POST.
        let mut review = request(Method::POST);
        *review.uri_mut() = http::Uri::from_static(TOKEN_REVIEWS);
        std::future::poll_fn(|cx| fence.poll_ready(cx)).await.unwrap();
        let review = tokio::spawn(fence.call(review));
        let (_, answer) = handle.next_request().await.unwrap();
        answer.send_response(Response::new(Body::empty()));
        review.await.unwrap().unwrap();

        // A leader's write whose answer comes when its time is over: nobody can rely on it.
        leadership.lead_until(Tick::after(Duration::from_secs(10)));
        std::future::poll_fn(|cx| fence.poll_ready(cx)).await.unwrap();
        let write = tokio::spawn(fence.call(request(Method::PATCH)));
        let (_, answer) = handle.next_request().await.unwrap();
        *now.lock().unwrap() = 10;
        answer.send_response(Response::new(Body::empty()));
        let given_up = write.await.unwrap().unwrap_err();
        assert!(NotLeading::is_in(&*given_up), "{given_up}");
    }

    #[test]
    fn watches_are_told_apart() {
        let is = |uri: &str| is_watch(&Request::builder().uri(uri).body(Body::empty()).unwrap());
        assert!(is("/api/v1/secrets?&watch=true&timeoutSeconds=290") && is("/api/v1/secrets?watch=1"));
        assert!(!is("/api/v1/secrets?limit=500") && !is("/api/v1/secrets") && !is("/a?labelSelector=watch"));
    }
}
