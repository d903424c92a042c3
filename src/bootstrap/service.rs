//! The HTTP interface of a pool.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::page;
use super::pool::Pool;
use crate::api::InitialPeers;
use crate::client::RETURN_DHT_ADDRESS;
use crate::http::{ApiError, Kind, Params, layered};

/// The routes: path, what it answers.
pub(super) const ROUTES: [(&str, &str); 4] = [
    (RETURN_DHT_ADDRESS, "{\"initial_peers\": [\"host:port\", …]}: random live nodes to join through; ?count=<1..200>"),
    ("/health", "whether there is a live node"),
    ("/metrics", "counters, in the text format of Prometheus"),
    ("/", "this page"),
];

/// The most addresses that are named at once: those of the largest pool.
const MOST: usize = super::Settings::LARGEST_SIZE;

/// How long a request for an address may wait for a node that is being started.
const PATIENCE: Duration = Duration::from_secs(8);

/// How many requests may wait so; further ones are told to come again.
const WAITING: usize = 512;

/// The media type that the encoder's text has.
const METRICS_TEXT: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

#[derive(Clone)]
struct Service {
    pool: Pool,
    waiting: Arc<Semaphore>,
}

/// The routes of a bootstrap service, as docs/bootstrap.md lists them; errors are problem documents.
pub fn router(pool: Pool) -> Router {
    let service = Service { pool, waiting: Arc::new(Semaphore::new(WAITING)) };
    let router = Router::new()
        .route("/", get(status_page))
        .route(RETURN_DHT_ADDRESS, get(return_dht_address))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::middleware::from_fn_with_state(service.clone(), count))
        .with_state(service);
    layered(router)
}

/// `GET /return_dht_address`.
async fn return_dht_address(State(service): State<Service>, uri: Uri) -> Result<Json<InitialPeers>, ApiError> {
    let what = format!("a number of addresses from 1 to {MOST}");
    let count = Params::of(&uri, &["count"])?.parse::<usize>("count", &what)?.unwrap_or(1);
    if !(1..=MOST).contains(&count) {
        return Err(ApiError::new(Kind::Invalid, format!("count={count} makes no sense: count is {what}")));
    }
    let pool = &service.pool;
    if pool.is_stopping() {
        return Err(ApiError::new(Kind::Stopping, "this bootstrap service is stopping, and its nodes with it"));
    }
    let initial_peers = match pool.addresses(count, Duration::ZERO).await {
        Ok(addresses) => addresses,
        Err(_) => {
            let Ok(_place) = service.waiting.try_acquire() else {
                let detail = "too many requests wait for the first node of this pool already; try again shortly";
                return Err(ApiError::new(Kind::Overloaded, detail));
            };
            let waited = pool.addresses(count, PATIENCE).await;
            waited.map_err(|error| ApiError::new(Kind::Unavailable, error.to_string()))?
        }
    };
    Ok(Json(InitialPeers { initial_peers }))
}

/// `GET /health`: 503 while there is nobody to join through.
async fn health(State(service): State<Service>) -> Result<Json<Value>, ApiError> {
    let snapshot = service.pool.snapshot();
    match snapshot.live() {
        _ if service.pool.is_stopping() => Err(ApiError::new(Kind::Stopping, "this bootstrap service is stopping")),
        0 => {
            Err(ApiError::new(Kind::NotReady, "no node of the pool has passed its last check; they are being started"))
        }
        live => Ok(Json(json!({ "status": "ok", "live": live, "size": snapshot.size, "ring": snapshot.ring }))),
    }
}

/// `GET /metrics`.
async fn metrics(State(service): State<Service>) -> Response {
    let text = service.pool.metrics().text(&service.pool.snapshot());
    ([(header::CONTENT_TYPE, METRICS_TEXT)], text).into_response()
}

/// `GET /`.
async fn status_page(State(service): State<Service>) -> Response {
    let page = page::html(&service.pool.snapshot(), service.pool.metrics().totals());
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
    let no_store = HeaderValue::from_static("no-store");
    ([(header::CONTENT_SECURITY_POLICY, policy), (header::CACHE_CONTROL, no_store)], Html(page)).into_response()
}

async fn no_route(method: Method, uri: Uri) -> ApiError {
    let routes: Vec<&str> = ROUTES.iter().map(|(path, _)| *path).collect();
    let asked: String = uri.path().chars().take(100).collect();
    let detail =
        format!("{method} {asked} is not served; the routes of a bootstrap service are: GET {}", routes.join(", GET "));
    ApiError::new(Kind::NoRoute, detail)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let asked: String = uri.path().chars().take(100).collect();
    ApiError::new(Kind::Method, format!("{asked} is not served with {method}; a bootstrap service is asked with GET"))
}

/// Counts each request when it is answered.
async fn count(State(service): State<Service>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = path.as_ref().map_or("other", MatchedPath::as_str);
    service.pool.metrics().answered(route, response.status().as_u16());
    response
}
