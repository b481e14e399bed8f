//! The plain HTTP surface for probes and scrapers: `/livez`, `/readyz`, `/metrics`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::readiness::Readiness;
use crate::serve::{self, Limits};
use crate::shutdown::Shutdown;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes, for [`serve()`] and for tests.
///
/// * `/livez` answers 200 as long as requests are answered at all. It looks at nothing else: a restart repairs no
///   key, no network and no API server.
/// * `/readyz` answers 200, or 503 with the names of the gates that are closed, one a line.
/// * `/metrics` is OpenMetrics text.
pub fn router(readiness: Readiness, registry: Arc<Registry>) -> Router {
    let ready = get(move || std::future::ready(answer_ready(&readiness)));
    Router::new()
        .route("/livez", get(|| std::future::ready("ok\n")))
        .route("/readyz", ready)
        .route("/metrics", get(metrics).with_state(registry))
}

/// Serves [`router`] on `address` until `shutdown`, over plain HTTP.
///
/// # Errors
/// `address` cannot be listened on. Once listening it does not fail.
pub async fn serve(
    address: SocketAddr,
    readiness: Readiness,
    registry: Arc<Registry>,
    shutdown: Shutdown,
) -> io::Result<()> {
    serve_on(serve::listen(address).await?, readiness, registry, shutdown).await;
    Ok(())
}

/// Serves [`router`] on a listener until `shutdown`, over plain HTTP.
pub async fn serve_on(
    listener: TcpListener,
    readiness: Readiness,
    registry: Arc<Registry>,
    shutdown: Shutdown,
) {
    let limits = Limits { connections: 64, ..Limits::default() };
    serve::serve(listener, None, router(readiness, registry), limits, serve::Counters::default(), shutdown)
        .await;
}

fn answer_ready(readiness: &Readiness) -> Response {
    let missing = readiness.missing();
    if missing.is_empty() {
        return "ok\n".into_response();
    }
    let body = format!("not ready: {}\n", missing.join("\nnot ready: "));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{self, Build, Requests};
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    async fn get(router: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn build() -> Build {
        Build { version: "1.2.3".to_owned(), component: "test".to_owned() }
    }

    #[tokio::test]
    async fn readyz_names_the_closed_gates_and_livez_does_not_care() {
        let readiness = Readiness::new();
        let router = router(readiness.clone(), Arc::new(metrics::registry("x", &build())));
        let (cache, certificate) = (readiness.gate("cache"), readiness.gate("certificate"));
        assert_eq!(
            get(&router, "/readyz").await,
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: cache\nnot ready: certificate\n".to_owned())
        );
        cache.set(true);
        certificate.set(true);
        assert_eq!(get(&router, "/readyz").await, (StatusCode::OK, "ok\n".to_owned()));
        readiness.end();
        assert_eq!(get(&router, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(get(&router, "/livez").await, (StatusCode::OK, "ok\n".to_owned()));
        assert_eq!(get(&router, "/secret").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn metrics_have_build_info_and_requests_of_known_routes_only() {
        let mut registry = metrics::registry("x", &build());
        let requests = Requests::register(&mut registry);
        let router = router(Readiness::new(), Arc::new(registry))
            .layer(axum::middleware::from_fn_with_state(requests, Requests::layer));
        get(&router, "/livez").await;
        get(&router, "/made/up/by/a/caller").await;
        let (status, text) = get(&router, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        for line in [
            r#"x_build_info{version="1.2.3",component="test"} 1"#,
            r#"x_http_requests_total{path="/livez",status="200"} 1"#,
            r#"x_http_requests_total{path="other",status="404"} 1"#,
            r#"x_http_request_duration_seconds_count{path="/livez"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing from:\n{text}");
        }
        assert!(!text.contains("made"), "{text}");
    }
}
