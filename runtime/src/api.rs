//! What a server asks of the API server: how often, with what answer, how long it took, and whether its watches live.
//!
//! [`ApiMetrics`] is a layer over an HTTP client. It sees requests as they are made, so nothing that is asked escapes it,
//! and it sees each piece of a watch as it arrives, bookmarks too. So it can tell a watch of a quiet cluster from one
//! whose connection died without a word.

use std::collections::BTreeMap;
use std::fmt::Error;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http::{Method, Request, Response, Uri, header};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use http_body_util::combinators::MapFrame;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tower::{Layer, Service};

/// Counts and times requests to the API server, and follows its watches. Clones share the numbers.
#[derive(Clone, Debug)]
pub struct ApiMetrics {
    total: Family<Answered, Counter>,
    seconds: Family<Asked, Histogram, fn() -> Histogram>,
    watches: Watches,
}

/// What was asked. Verbs are those of Kubernetes' own rights; the resource has its subresource behind a `/`.
///
/// No name of an object and no namespace is ever part of it, so there are as few series as kinds of request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    verb: &'static str,
    resource: String,
}

/// What was asked, and the status code of the answer, or `none`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    verb: &'static str,
    resource: String,
    code: String,
}

impl ApiMetrics {
    /// Adds `api_requests_total{verb,resource,code}`, `api_request_duration_seconds{verb,resource}` and
    /// `watch_age_seconds{resource}` to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let buckets = || Histogram::new(exponential_buckets(0.001, 2.0, 14));
        let metrics = Self {
            total: Family::default(),
            seconds: Family::new_with_constructor(buckets),
            watches: Watches::default(),
        };
        registry.register(
            "api_requests",
            "Requests to the API server, by verb, resource and status code; code none: no answer came",
            metrics.total.clone(),
        );
        registry.register_with_unit(
            "api_request_duration",
            "Time from a request to the API server to the header of its answer",
            Unit::Seconds,
            metrics.seconds.clone(),
        );
        registry.register_collector(Box::new(metrics.watches.clone()));
        metrics
    }
}

impl<S> Layer<S> for ApiMetrics {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner, metrics: self.clone() }
    }
}

/// A client whose requests are counted.
#[derive(Clone, Debug)]
pub struct Observed<S> {
    inner: S,
    metrics: ApiMetrics,
}

/// Sees a piece of a body and passes it on.
type Notice<D> = Box<dyn FnMut(Frame<D>) -> Frame<D> + Send>;

/// A body that tells when a piece of it has arrived.
pub type ObservedBody<B> = MapFrame<B, Notice<<B as Body>::Data>>;

type Answering<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl<S, In, Out> Service<Request<In>> for Observed<S>
where
    S: Service<Request<In>, Response = Response<Out>>,
    S::Future: Send + 'static,
    Out: Body,
{
    type Response = Response<ObservedBody<Out>>;
    type Error = S::Error;
    type Future = Answering<Self::Response, Self::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        let is_apply = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch"));
        let asked = asked(request.method(), request.uri(), is_apply);
        let watch = (asked.verb == "watch").then(|| (asked.resource.clone(), request.uri().clone()));
        let metrics = self.metrics.clone();
        let begun = Instant::now();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            metrics.seconds.get_or_create(&asked).observe(begun.elapsed().as_secs_f64());
            let code =
                answer.as_ref().map_or_else(|_| "none".to_owned(), |a| a.status().as_u16().to_string());
            let Asked { verb, resource } = asked;
            metrics.total.get_or_create(&Answered { verb, resource, code }).inc();
            let answer = answer?;
            let mut life = watch
                .filter(|_| answer.status().is_success())
                .map(|(resource, uri)| metrics.watches.alive(resource, &uri));
            Ok(answer.map(|body| {
                let notice: Notice<Out::Data> = Box::new(move |frame| {
                    if let Some(life) = &mut life {
                        life.beat(Instant::now());
                    }
                    frame
                });
                body.map_frame(notice)
            }))
        })
    }
}

/// Reads verb and resource from a request's path: `/api/v1/…` or `/apis/GROUP/VERSION/…`, with or without
/// `namespaces/NAME/`, then `RESOURCE[/NAME[/SUBRESOURCE]]`.
fn asked(method: &Method, uri: &Uri, is_apply: bool) -> Asked {
    let mut words = uri.path().split('/').filter(|word| !word.is_empty());
    let skip = match words.next() {
        Some("api") => 1,
        Some("apis") => 2,
        _ => return Asked { verb: verb(method, uri, true, is_apply), resource: "other".to_owned() },
    };
    let mut words: Vec<&str> = words.skip(skip).collect();
    if words.len() > 2 && words[0] == "namespaces" {
        words.drain(..2);
    }
    let resource = match words.as_slice() {
        [] => "other".to_owned(),
        [resource] | [resource, _] => (*resource).to_owned(),
        [resource, _, subresource, ..] => format!("{resource}/{subresource}"),
    };
    Asked { verb: verb(method, uri, words.len() > 1, is_apply), resource }
}

fn verb(method: &Method, uri: &Uri, named: bool, is_apply: bool) -> &'static str {
    let is_watch =
        || uri.query().into_iter().flat_map(|q| q.split('&')).any(|p| p == "watch=true" || p == "watch=1");
    match *method {
        Method::GET if is_watch() => "watch",
        Method::GET if named => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH if is_apply => "apply",
        Method::PATCH => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE => "deletecollection",
        _ => "other",
    }
}

/// When each watch last showed life, by what is watched. One that has ended stays and ages, until it is begun anew.
#[derive(Clone, Debug)]
struct Watches {
    started: Instant,
    seen: Arc<Mutex<BTreeMap<Watched, Arc<AtomicU64>>>>,
}

/// A resource, and what of it: path and label selector.
type Watched = (String, String);

/// One watch.
struct Life {
    started: Instant,
    last: Arc<AtomicU64>,
}

impl Default for Watches {
    fn default() -> Self {
        Self { started: Instant::now(), seen: Arc::default() }
    }
}

impl Watches {
    /// Notes that a watch was begun, and gives what notes its further life.
    fn alive(&self, resource: String, uri: &Uri) -> Life {
        let query = uri.query().unwrap_or_default();
        let selector = query.split('&').find(|part| part.starts_with("labelSelector=")).unwrap_or_default();
        let watched = (resource, format!("{}?{selector}", uri.path()));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let last = Arc::clone(seen.entry(watched).or_default());
        let mut life = Life { started: self.started, last };
        life.beat(Instant::now());
        life
    }

    /// The age of the stalest watch of each resource.
    fn ages(&self, now: Instant) -> BTreeMap<String, Duration> {
        let since_start = now.saturating_duration_since(self.started);
        let mut ages = BTreeMap::<String, Duration>::new();
        for ((resource, _), last) in &*self.seen.lock().unwrap_or_else(PoisonError::into_inner) {
            let age = since_start.saturating_sub(Duration::from_millis(last.load(Ordering::Relaxed)));
            let stalest = ages.entry(resource.clone()).or_default();
            *stalest = age.max(*stalest);
        }
        ages
    }
}

impl Life {
    fn beat(&mut self, now: Instant) {
        let since_start = now.saturating_duration_since(self.started).as_millis();
        self.last.store(u64::try_from(since_start).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Collector for Watches {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let ages = self.ages(Instant::now());
        if ages.is_empty() {
            return Ok(());
        }
        let mut metric = encoder.encode_descriptor(
            "watch_age",
            "Time since the stalest watch of a resource last brought anything, bookmarks included.",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for (resource, age) in ages {
            let labels = [("resource", resource)];
            ConstGauge::new(age.as_secs_f64()).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Bytes;
    use http_body_util::{Empty, StreamBody};
    use tower::ServiceExt as _;

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn verbs_and_resources_are_told_by_the_path_and_names_never_show() {
        let pod = "/api/v1/namespaces/shop/pods/canary";
        for (method, uri, apply, verb, resource) in [
            (Method::GET, "/api/v1/secrets?watch=true&labelSelector=a", false, "watch", "secrets"),
            (Method::GET, "/api/v1/namespaces/shop/secrets?limit=100", false, "list", "secrets"),
            (Method::GET, pod, false, "get", "pods"),
            (Method::GET, "/api/v1/namespaces/canary", false, "get", "namespaces"),
            (Method::GET, "/api/v1/namespaces", false, "list", "namespaces"),
            (Method::POST, "/apis/events.k8s.io/v1/namespaces/shop/events", false, "create", "events"),
            (Method::PATCH, "/api/v1/namespaces/shop/secrets/canary?force=true", true, "apply", "secrets"),
            (
                Method::PATCH,
                "/apis/sealedenv.dev/v1alpha1/namespaces/shop/sealedenvs/canary/status?",
                false,
                "patch",
                "sealedenvs/status",
            ),
            (Method::GET, "/apis/sealedenv.dev/v1alpha1/sealingkeys/canary", false, "get", "sealingkeys"),
            (Method::DELETE, pod, false, "delete", "pods"),
            (Method::DELETE, "/api/v1/namespaces/shop/pods", false, "deletecollection", "pods"),
            (Method::PUT, pod, false, "update", "pods"),
            (Method::GET, "/version", false, "get", "other"),
            (Method::GET, "/", false, "get", "other"),
            (Method::OPTIONS, "/api", false, "other", "other"),
            (Method::GET, "/canary/canary/canary/canary", false, "get", "other"),
        ] {
            let asked = asked(&method, &uri.parse().unwrap(), apply);
            assert_eq!((asked.verb, asked.resource.as_str()), (verb, resource), "{method} {uri}");
        }
    }

    #[tokio::test]
    async fn answers_and_their_absence_are_counted() {
        let mut registry = Registry::with_prefix("x");
        let metrics = ApiMetrics::register(&mut registry);
        let service = metrics.layer(tower::service_fn(|request: Request<()>| async move {
            match request.uri().path() {
                "/api/v1/pods" => Err("reset"),
                _ => Ok(Response::builder().status(409).body(Empty::<Bytes>::new()).unwrap()),
            }
        }));
        let ask = |path: &str| {
            let request = Request::get(path.to_owned()).body(()).unwrap();
            service.clone().oneshot(request)
        };
        assert_eq!(ask("/api/v1/namespaces/a/secrets/b").await.unwrap().status(), 409);
        assert!(ask("/api/v1/pods").await.is_err());
        let text = text(&registry);
        for line in [
            r#"x_api_requests_total{verb="get",resource="secrets",code="409"} 1"#,
            r#"x_api_requests_total{verb="list",resource="pods",code="none"} 1"#,
            r#"x_api_request_duration_seconds_count{verb="list",resource="pods"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing from:\n{text}");
        }
        assert!(!text.contains("watch_age"), "nothing is watched: {text}");
    }

    #[tokio::test]
    async fn a_watch_ages_until_something_arrives_and_goes_on_ageing_when_it_has_ended() {
        let mut registry = Registry::with_prefix("x");
        let metrics = ApiMetrics::register(&mut registry);
        let (mut send, receive) = futures::channel::mpsc::unbounded::<Result<Frame<Bytes>, &'static str>>();
        let receive = Mutex::new(Some(receive));
        let service = metrics.layer(tower::service_fn(|_: Request<()>| {
            let body = receive.lock().unwrap().take().map(StreamBody::new);
            std::future::ready(body.map(Response::new).ok_or("refused"))
        }));
        let ask = |path: &str| service.clone().oneshot(Request::get(path).body(()).unwrap());
        let mut body = ask("/api/v1/secrets?watch=true").await.unwrap().into_body();
        assert!(
            text(&registry).contains("x_watch_age_seconds{resource=\"secrets\"} 0"),
            "{}",
            text(&registry)
        );

        let age = |later: u64| metrics.watches.ages(Instant::now() + Duration::from_secs(later))["secrets"];
        assert!(age(300) >= Duration::from_mins(5), "nothing has arrived");
        let before = metrics.watches.seen.lock().unwrap().values().next().unwrap().load(Ordering::Relaxed);
        // The beat has the resolution of a millisecond.
        while Instant::now() < metrics.watches.started + Duration::from_millis(before + 1) {
            std::thread::yield_now();
        }
        send.start_send(Ok(Frame::data(Bytes::from_static(b"{\"type\":\"BOOKMARK\"}")))).unwrap();
        body.frame().await.unwrap().unwrap();
        let after = metrics.watches.seen.lock().unwrap().values().next().unwrap().load(Ordering::Relaxed);
        assert!(after > before, "a bookmark is a sign of life");

        drop((body, send));
        assert!(ask("/api/v1/secrets?watch=true").await.is_err());
        assert!(age(600) >= Duration::from_mins(10), "a watch that cannot be begun anew is stale");
    }

    #[test]
    fn the_stalest_watch_of_a_resource_counts() {
        let watches = Watches::default();
        let live =
            watches.alive("secrets".to_owned(), &"/api/v1/namespaces/a/secrets?watch=1".parse().unwrap());
        let mut dead =
            watches.alive("secrets".to_owned(), &"/api/v1/secrets?watch=1&labelSelector=b".parse().unwrap());
        let now = watches.started + Duration::from_secs(100);
        let mut live = live;
        live.beat(now);
        dead.beat(watches.started);
        assert_eq!(watches.ages(now), BTreeMap::from([("secrets".to_owned(), Duration::from_secs(100))]));
    }
}
