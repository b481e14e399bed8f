//! The HTTP side: reads bounded bodies, asks for a decision, records it, answers.
//!
//! Whoever reaches the port can send anything: API servers show no client certificate unless they are configured to.
//! So nothing here holds a key or can read a Secret, and memory is bounded however many send however much.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request as HttpRequest, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::authorities::Authorities;
use crate::decision::{self, Decision, Kind, Waiting};
use crate::inject::{Environments, Settings};
use crate::metrics::{Metrics, Webhook};
use crate::review::{self, Request};
use crate::trail::Trail;

/// The path that pods are sent to.
pub const MUTATE_PODS: &str = "/mutate-pods";
/// The path that SealedEnvs are sent to.
pub const VALIDATE_SEALED_ENVS: &str = "/validate-sealedenvs";

/// The longest body. An UPDATE holds the object twice, etcd takes 1.5 MiB of each, and the rest is the envelope.
pub const MAX_BODY: usize = (3 << 20) + (256 << 10);

/// All bodies that are read or held at one time, in KiB.
const BODIES: usize = 8 << 10;

/// How long a body may take to arrive, and how long one may wait for room. Together less than the 5 s after which
/// the API server gives up.
const ARRIVAL: Duration = Duration::from_secs(2);

/// What decisions and answers need. Clones share everything.
#[derive(Clone)]
pub struct Admission {
    /// What is known of SealedEnvs.
    pub environments: Arc<dyn Environments + Send + Sync>,
    /// What the webhook was told.
    pub settings: Arc<Settings>,
    /// By whom agents recognise the operator.
    pub authorities: Authorities,
    /// Where decisions are recorded.
    pub trail: Trail,
    /// Where they are counted.
    pub metrics: Metrics,
    /// Who makes Events about pods that will wait.
    pub waiting: mpsc::Sender<Waiting>,
}

#[derive(Clone)]
struct Handler {
    admission: Admission,
    room: Arc<Semaphore>,
}

/// The two paths, for the server and for tests.
pub fn router(admission: Admission) -> Router {
    let handler = Handler { admission, room: Arc::new(Semaphore::new(BODIES)) };
    Router::new()
        .route(
            MUTATE_PODS,
            post(|State(handler): State<Handler>, request| handler.answer(Webhook::Inject, request)),
        )
        .route(
            VALIDATE_SEALED_ENVS,
            post(|State(handler): State<Handler>, request| handler.answer(Webhook::Validate, request)),
        )
        .with_state(handler)
}

impl Handler {
    async fn answer(self, webhook: Webhook, request: HttpRequest) -> Response {
        let start = Instant::now();
        let (body, _room) = match self.body(request).await {
            Ok(body) => body,
            Err(status) => {
                self.admission.metrics.observe(webhook, Kind::Malformed, false, start.elapsed());
                return (status, "the body cannot be taken\n").into_response();
            }
        };
        let (uid, dry_run, decision) = match review::read(&body) {
            Ok(request) => {
                let decision = self.admission.decide(webhook, &request).await;
                (Some(request.uid), request.dry_run == Some(true), decision)
            }
            Err(error) => (error.uid.clone(), false, Decision::malformed(error)),
        };
        self.admission.metrics.observe(webhook, decision.kind, dry_run, start.elapsed());
        match uid {
            Some(uid) => {
                ([(header::CONTENT_TYPE, "application/json")], decision.answer.write(&uid)).into_response()
            }
            None => {
                (StatusCode::BAD_REQUEST, "not an AdmissionReview of admission.k8s.io/v1\n").into_response()
            }
        }
    }

    /// The whole body, with the room that it takes up until it is dropped.
    async fn body(&self, request: HttpRequest) -> Result<(Bytes, OwnedSemaphorePermit), StatusCode> {
        let length = request.headers().get(header::CONTENT_LENGTH).ok_or(StatusCode::LENGTH_REQUIRED)?;
        let length: usize =
            length.to_str().ok().and_then(|length| length.parse().ok()).ok_or(StatusCode::BAD_REQUEST)?;
        if length > MAX_BODY {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let kib = u32::try_from(length / 1024 + 1).map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
        let room = tokio::time::timeout(ARRIVAL, self.room.clone().acquire_many_owned(kib)).await;
        let room = room.ok().and_then(Result::ok).ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
        let body = tokio::time::timeout(ARRIVAL, to_bytes(request.into_body(), length)).await;
        let body = body.map_err(|_| StatusCode::REQUEST_TIMEOUT)?.map_err(|_| StatusCode::BAD_REQUEST)?;
        Ok((body, room))
    }
}

impl Admission {
    /// Decides and records. What must be recorded and cannot be does not happen.
    async fn decide(&self, webhook: Webhook, request: &Request<'_>) -> Decision {
        let mut decision = match webhook {
            Webhook::Inject => {
                let authorities = self.authorities.get();
                decision::on_pod(request, &self.settings, authorities.as_deref(), &*self.environments)
            }
            Webhook::Validate => decision::on_sealed_env(request),
        };
        if let Some(record) = decision.record.take()
            && self.trail.record(record).await.is_err()
            // A refusal needs no record to be safe: it stands.
            && decision.kind == Kind::Injected
        {
            return Decision::unrecorded();
        }
        if let Some(waiting) = decision.waiting.take() {
            // Only an aid for people: when many wait at once, some go without.
            let _queue_may_be_full = self.waiting.try_send(waiting);
        }
        tracing::debug!(
            uid = request.uid,
            namespace = request.namespace,
            name = request.name,
            outcome = ?decision.kind,
            "answered"
        );
        decision
    }
}
