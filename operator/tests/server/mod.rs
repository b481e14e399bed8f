//! A small API server in memory: lists in pages, watches from a version on, writes with preconditions, and faults.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use kube::client::{Body, ClientBuilder};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};
use tower::BoxError;
use tower::util::BoxService;

type Answer = UnsyncBoxBody<Bytes, BoxError>;
type Connection = BoxService<Request<Body>, Response<Answer>, BoxError>;

/// Objects on one page of a list.
const PAGE: usize = 3;

/// The server. Clones share it.
#[derive(Clone)]
pub(crate) struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    version: u64,
    /// By resource and name.
    objects: BTreeMap<(&'static str, String), Value>,
    /// Everything that happened, by version.
    history: Vec<(u64, &'static str, &'static str, Value)>,
    /// Versions up to this one are not remembered.
    compacted: u64,
    silent: Option<&'static str>,
    watches: Vec<(&'static str, UnboundedSender<Result<Value, BoxError>>)>,
    calls: Vec<(String, Instant)>,
    faults: Vec<Fault>,
    secret_versions: BTreeMap<String, usize>,
    /// A SealedEnv that is put there right after a call.
    meanwhile: Option<(&'static str, Value)>,
}

/// What goes wrong, with which calls and how often.
pub(crate) struct Fault {
    call: &'static str,
    code: Option<StatusCode>,
    retry_after: Option<u32>,
    times: usize,
}

impl Fault {
    /// Calls that begin like this are answered with a code.
    pub(crate) fn new(call: &'static str, code: StatusCode) -> Self {
        Self { call, code: Some(code), retry_after: None, times: usize::MAX }
    }

    /// Calls that begin like this are carried out, and their connection breaks before the answer.
    pub(crate) fn lost(call: &'static str) -> Self {
        Self { call, code: None, retry_after: None, times: usize::MAX }
    }

    pub(crate) fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    pub(crate) fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }
}

impl Server {
    pub(crate) fn new() -> Self {
        // No object ever has version 1.
        Self(Arc::new(Mutex::new(State { version: 1, ..State::default() })))
    }

    /// A connection to it.
    pub(crate) fn connection(&self) -> ClientBuilder<Connection> {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { server.answer(request).await }.boxed()
        });
        ClientBuilder::new(BoxService::new(service), "default")
    }

    /// Puts a SealedEnv there.
    pub(crate) fn apply(&self, name: &str, sealed: &str) {
        self.apply_spec(name, 1, &json!({"data": {"A": sealed}}));
    }

    /// Puts a SealedEnv there, with a spec of any form.
    pub(crate) fn apply_spec(&self, name: &str, generation: u64, spec: &Value) {
        self.lock().put("sealedenvs", name, env(name, generation, spec));
    }

    /// The same, right after the next call that begins like this.
    pub(crate) fn apply_after(&self, call: &'static str, name: &str, generation: u64, spec: &Value) {
        self.lock().meanwhile = Some((call, env(name, generation, spec)));
    }

    /// Deletes a SealedEnv.
    pub(crate) fn delete(&self, name: &str) {
        self.lock().remove("sealedenvs", name);
    }

    /// Changes a Secret as somebody else would.
    pub(crate) fn edit_secret(&self, name: &str) {
        let mut state = self.lock();
        let mut secret = state.objects[&("secrets", name.to_owned())].clone();
        secret["data"]["A"] = "eA==".into();
        state.put("secrets", name, secret);
    }

    /// What another replica does with a newer spec.
    pub(crate) fn handled_elsewhere(&self, name: &str, sealed: &str) {
        let mut state = self.lock();
        let mut env = state.objects[&("sealedenvs", name.to_owned())].clone();
        env["metadata"]["generation"] = 2.into();
        env["spec"]["data"]["A"] = sealed.into();
        let env = state.put("sealedenvs", name, env);
        let mut secret = state.objects[&("secrets", name.to_owned())].clone();
        secret["data"]["A"] = "bmV3ZXI=".into();
        let secret = state.put("secrets", name, secret);
        let spec = serde_json::from_value(env["spec"].clone()).unwrap();
        let mut env = env;
        env["status"]["observedGeneration"] = 2.into();
        env["status"]["input"] = sealedenv_operator::digest::input(&spec, None).into();
        env["status"]["secret"]["resourceVersion"] = secret["metadata"]["resourceVersion"].clone();
        state.put("sealedenvs", name, env);
    }

    /// Watches of a resource show nothing any more.
    pub(crate) fn silence(&self, resource: &'static str) {
        self.lock().silent = Some(resource);
    }

    /// Forgets what happened so far, and tells every watch that it is behind.
    pub(crate) fn compact(&self) {
        let mut state = self.lock();
        state.silent = None;
        state.compacted = state.version;
        let gone = json!({"type": "ERROR", "object": status(StatusCode::GONE)});
        for (resource, watch) in std::mem::take(&mut state.watches) {
            if resource == "sealedenvs" {
                let _ = watch.unbounded_send(Ok(gone.clone()));
            } else {
                state.watches.push((resource, watch));
            }
        }
    }

    /// Breaks the connection of every watch.
    pub(crate) fn reset(&self) {
        for (_, watch) in self.lock().watches.drain(..) {
            let _ = watch.unbounded_send(Err("connection reset".into()));
        }
    }

    /// Something goes wrong from now on.
    pub(crate) fn fault(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// Whether a SealedEnv says that it is delivered, and its Secret is there.
    pub(crate) fn is_ready(&self, name: &str) -> bool {
        let state = self.lock();
        let env = state.objects.get(&("sealedenvs", name.to_owned()));
        let ready = env.is_some_and(|env| {
            let conditions = env["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
        });
        ready && state.objects.contains_key(&("secrets", name.to_owned()))
    }

    /// The reason of the condition Ready of a SealedEnv.
    pub(crate) fn reason(&self, name: &str) -> Option<String> {
        let state = self.lock();
        let conditions =
            state.objects.get(&("sealedenvs", name.to_owned()))?["status"]["conditions"].as_array()?;
        let ready = conditions.iter().find(|c| c["type"] == "Ready")?;
        ready["reason"].as_str().map(ToOwned::to_owned)
    }

    /// Whether the condition Ready of a SealedEnv ever had this reason.
    pub(crate) fn ever_said(&self, name: &str, reason: &str) -> bool {
        self.lock().history.iter().any(|(_, resource, _, object)| {
            let conditions = object["status"]["conditions"].as_array();
            *resource == "sealedenvs"
                && object["metadata"]["name"] == name
                && conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["reason"] == reason)
        })
    }

    /// Every call so far.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.lock().calls.iter().map(|(call, _)| call.clone()).collect()
    }

    /// How many calls began like this.
    pub(crate) fn count(&self, call: &str) -> usize {
        self.times(call).len()
    }

    /// When the calls that began like this came.
    pub(crate) fn times(&self, call: &str) -> Vec<Duration> {
        let state = self.lock();
        let Some((_, first)) = state.calls.first() else { return Vec::new() };
        let like = state.calls.iter().filter(|(c, _)| c == call || c.starts_with(&format!("{call} ")));
        like.map(|(_, at)| *at - *first).collect()
    }

    /// How many calls would change something.
    pub(crate) fn writes(&self) -> usize {
        let writes = |call: &&String| ["PATCH", "POST", "PUT", "DELETE"].iter().any(|m| call.starts_with(m));
        self.calls().iter().filter(writes).count()
    }

    /// How often a Secret became another one.
    pub(crate) fn version_changes(&self, name: &str) -> usize {
        self.lock().secret_versions.get(name).copied().unwrap_or_default()
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Answer>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let mut path = parts.uri.path().split('/').skip_while(|part| !RESOURCES.contains(part));
        let resource = path.next().and_then(|r| RESOURCES.iter().find(|known| **known == r)).unwrap();
        let (name, sub) = (path.next(), path.next());
        let query = |key: &str| {
            let pairs = parts.uri.query().unwrap_or_default().split('&').filter_map(|p| p.split_once('='));
            pairs.filter(|(k, _)| *k == key).map(|(_, v)| v.to_owned()).next()
        };
        let verb = match (&parts.method, name) {
            (&Method::GET, None) if query("watch").is_some() => "WATCH",
            (&Method::GET, None) if query("continue").is_some() => "PAGE",
            (&Method::GET, None) => "LIST",
            (method, _) => method.as_str(),
        };
        let call =
            [Some(verb), Some(resource), name, sub].into_iter().flatten().collect::<Vec<_>>().join(" ");

        let mut state = self.lock();
        // A page of a list is a part of it.
        let counted = call.replace("PAGE", "LIST");
        state.calls.push((counted, Instant::now()));
        let fault = state.faults.iter_mut().find(|f| f.times > 0 && call.starts_with(f.call)).map(|fault| {
            fault.times -= 1;
            (fault.code, fault.retry_after)
        });
        if let Some((Some(code), retry_after)) = fault {
            return Ok(refuse(code, retry_after));
        }
        let answer = match (verb, name) {
            ("LIST" | "PAGE", _) => state.list(resource, query("continue")),
            ("WATCH", _) => state.watch(resource, query("resourceVersion")),
            ("GET", Some(name)) => match state.objects.get(&(*resource, name.to_owned())) {
                Some(object) => accept(object),
                None => refuse(StatusCode::NOT_FOUND, None),
            },
            ("PATCH", Some(name)) => state.patch(resource, name, sub.is_some(), body),
            _ => refuse(StatusCode::METHOD_NOT_ALLOWED, None),
        };
        if let Some((_, env)) = state.meanwhile.take_if(|(after, _)| call.starts_with(*after)) {
            let name = env["metadata"]["name"].as_str().unwrap().to_owned();
            state.put("sealedenvs", &name, env);
        }
        if fault.is_some() { Err("connection reset".into()) } else { Ok(answer) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

const RESOURCES: [&str; 2] = ["sealedenvs", "secrets"];

impl State {
    fn put(&mut self, resource: &'static str, name: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let before = self.objects.insert((resource, name.to_owned()), object.clone());
        let change = if before.is_some() { "MODIFIED" } else { "ADDED" };
        self.happened(resource, change, &object);
        object
    }

    fn remove(&mut self, resource: &'static str, name: &str) {
        let Some(mut object) = self.objects.remove(&(resource, name.to_owned())) else { return };
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.happened(resource, "DELETED", &object);
    }

    fn happened(&mut self, resource: &'static str, change: &'static str, object: &Value) {
        self.history.push((self.version, resource, change, object.clone()));
        if self.silent == Some(resource) {
            return;
        }
        let event = json!({"type": change, "object": object});
        self.watches.retain(|(of, watch)| *of != resource || watch.unbounded_send(Ok(event.clone())).is_ok());
    }

    fn list(&self, resource: &'static str, from: Option<String>) -> Response<Answer> {
        let from: usize = from.map_or(0, |from| from.parse().unwrap());
        let all: Vec<&Value> =
            self.objects.iter().filter(|((of, _), _)| *of == resource).map(|(_, object)| object).collect();
        let page: Vec<&&Value> = all.iter().skip(from).take(PAGE).collect();
        let more = if from + PAGE < all.len() { (from + PAGE).to_string() } else { String::new() };
        accept(&json!({
            "kind": "List", "apiVersion": "v1", "items": page,
            "metadata": {"resourceVersion": self.version.to_string(), "continue": more},
        }))
    }

    fn watch(&mut self, resource: &'static str, from: Option<String>) -> Response<Answer> {
        let from: u64 = from.and_then(|from| from.parse().ok()).unwrap();
        if from < self.compacted {
            return refuse(StatusCode::GONE, None);
        }
        let missed: Vec<Result<Value, BoxError>> = self
            .history
            .iter()
            .filter(|(version, of, ..)| *version > from && *of == resource)
            .map(|(_, _, change, object)| Ok(json!({"type": change, "object": object})))
            .collect();
        let (send, receive) = unbounded();
        self.watches.push((resource, send));
        let events = stream::iter(missed).chain(receive);
        let frames = events.map_ok(|event| Frame::data(Bytes::from(format!("{event}\n"))));
        Response::new(StreamBody::new(frames).boxed_unsync())
    }

    /// Server-side apply of a Secret, or a merge patch of a status.
    fn patch(&mut self, resource: &'static str, name: &str, status: bool, body: Value) -> Response<Answer> {
        let found = self.objects.get(&(resource, name.to_owned())).cloned();
        let wants = |field: &str| body["metadata"].get(field).and_then(Value::as_str).map(str::to_owned);
        let object = match found {
            None if resource == "secrets" && wants("resourceVersion").as_deref() == Some("1") => {
                let mut secret = body;
                secret["metadata"]["uid"] = format!("secret-{name}").into();
                secret
            }
            None => return refuse(StatusCode::NOT_FOUND, None),
            Some(found) => {
                let holds =
                    |field: &str| wants(field).is_none_or(|wanted| found["metadata"][field] == *wanted);
                if !holds("uid") || !holds("resourceVersion") {
                    return refuse(StatusCode::CONFLICT, None);
                }
                let mut object = found.clone();
                if status {
                    merge(&mut object["status"], &body["status"]);
                } else {
                    object = body;
                    object["metadata"]["uid"] = found["metadata"]["uid"].clone();
                }
                object
            }
        };
        if resource == "secrets" {
            *self.secret_versions.entry(name.to_owned()).or_default() += 1;
        }
        accept(&self.put(resource, name, object))
    }
}

fn env(name: &str, generation: u64, spec: &Value) -> Value {
    json!({
        "apiVersion": "sealedenv.dev/v1alpha1", "kind": "SealedEnv",
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "generation": generation},
        "spec": spec,
    })
}

fn merge(into: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let fields = into.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            fields.remove(key);
        } else {
            merge(fields.entry(key).or_insert(Value::Null), value);
        }
    }
}

fn status(code: StatusCode) -> Value {
    let reason = match code {
        StatusCode::GONE => "Expired",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::NOT_FOUND => "NotFound",
        _ => "",
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no",
        "reason": reason, "code": code.as_u16()})
}

fn accept(object: &Value) -> Response<Answer> {
    Response::new(text(object.to_string()))
}

fn refuse(code: StatusCode, retry_after: Option<u32>) -> Response<Answer> {
    let mut response = Response::builder().status(code);
    if let Some(seconds) = retry_after {
        response = response.header("Retry-After", seconds);
    }
    // As the API server's own filter for busy times answers: in plain text.
    let body = if code == StatusCode::TOO_MANY_REQUESTS {
        "Too many requests, please try again later.\n".to_owned()
    } else {
        status(code).to_string()
    };
    response.body(text(body)).unwrap()
}

fn text(text: String) -> Answer {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
}
