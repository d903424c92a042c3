//! Errors are readable, whatever was sent.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::{get as on_get, post};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::super::{ApiError, Limits, body};
use super::{Answered, Raw, get, soon, start};

const LIMIT: usize = 1 << 10;

fn routes() -> Router {
    async fn raw(request: Request) -> Result<String, ApiError> {
        Ok(body::read(request, LIMIT).await?.len().to_string())
    }
    async fn json(request: Request) -> Result<String, ApiError> {
        Ok(body::json::<Value>(request, LIMIT, "EXAMPLE").await?.to_string())
    }
    async fn panic() {
        panic!("on purpose")
    }
    Router::new()
        .route("/raw", post(raw))
        .route("/json", post(json))
        .route("/get", on_get(|| async { "got" }))
        .route("/axum", post(|_: axum::Json<Vec<u8>>| async {}))
        .route("/panic", post(panic))
}

fn problem(answer: &Answered, status: u16, name: &str) {
    assert!(answer.head.contains("content-type: application/problem+json"), "{answer:?}");
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, &problem["status"]), (status, &json!(status)), "{answer:?}");
    assert_eq!(problem["type"], json!(format!("/problems/{name}")));
    assert_ne!(problem["detail"], json!(""));
}

fn with_body(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn every_refusal_is_a_problem_document_and_the_connection_goes_on() {
    let server = start(routes(), Limits::default()).await;
    let mut client = Raw::connect(server.addr).await;
    let large = "x".repeat(LIMIT + 1);
    for (request, status, name) in [
        (get("/nowhere"), 404, "no-such-route"),
        (with_body("/nowhere", "", &large), 404, "no-such-route"),
        (get("/raw"), 405, "method"),
        (with_body("/get", "", &large), 405, "method"),
        (with_body("/raw", "", &large), 413, "too-large"),
        (
            with_body("/raw", "transfer-encoding: chunked\r\n", "").replace("content-length: 0\r\n", "")
                + "401\r\n"
                + &large
                + "\r\n0\r\n\r\n",
            413,
            "too-large",
        ),
        (with_body("/json", "content-type: text/plain\r\n", &large), 415, "media-type"),
        (with_body("/json", "", "{"), 400, "malformed"),
        (with_body("/axum", "", "junk"), 415, "media-type"),
        (with_body("/axum", "content-type: application/json\r\n", "junk"), 400, "malformed"),
        (with_body("/panic", "", "junk"), 500, "internal"),
    ] {
        problem(&client.ask(&request).await, status, name);
    }
    assert_eq!(client.ask(&with_body("/raw", "", "1234")).await.body, "4");
    assert_eq!(client.ask(&with_body("/json", "content-type: application/json\r\n", "[1]")).await.body, "[1]");
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let server = start(routes(), Limits::default()).await;
    let mut raw = Raw::connect(server.addr).await;
    for (origin, refused) in [
        ("http://evil.example", true),
        ("null", true),
        ("http://x:80", true),
        ("http://x", false),
        ("https://x", false),
    ] {
        let answer = raw.ask(&with_body("/raw", &format!("origin: {origin}\r\n"), "x")).await;
        assert_eq!(answer.status == 403, refused, "{origin}: {answer:?}");
    }
    let reading = raw.ask("GET /raw HTTP/1.1\r\nhost: x\r\norigin: http://evil.example\r\n\r\n").await;
    assert_ne!(reading.status, 403);
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let server = start(routes(), Limits::default()).await;
    let mut client = Raw::connect(server.addr).await;
    assert!(client.ask(&get("/raw")).await.head.contains("allow: post\r\n"));
    assert!(client.ask(&with_body("/get", "", "")).await.head.contains("allow: get,head\r\n"));
}

#[tokio::test]
async fn the_sender_of_a_large_body_sees_the_refusal() {
    let server = start(routes(), Limits::default()).await;
    let large = "x".repeat(9 << 20);
    for _ in 0..3 {
        let mut client = Raw::connect(server.addr).await;
        problem(&client.ask(&with_body("/raw", "", &large)).await, 413, "too-large");
        assert_eq!(client.ask(&get("/get")).await.body, "got");
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let response = soon(
        reqwest::Client::builder()
            .no_proxy()
            .build()
            .unwrap()
            .post(format!("http://{}/raw", server.addr))
            .body(large)
            .send(),
    );
    assert_eq!(response.await.unwrap().status(), 413);
}

#[tokio::test]
async fn reading_away_is_bounded_in_bytes_and_in_time() {
    let limits = Limits { drain_bytes: 1 << 10, drain: Duration::from_millis(50), ..Limits::default() };
    let server = start(routes(), limits).await;
    for sent in ["", "x", &"x".repeat(4 << 10)] {
        let mut client = Raw::connect(server.addr).await;
        let head = "POST /raw HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999\r\n\r\n";
        problem(&client.ask(&format!("{head}{sent}")).await, 413, "too-large");
        client.closed().await;
    }
}

#[tokio::test]
async fn who_asks_before_sending_is_told_at_once() {
    let server = start(routes(), Limits::default()).await;
    let mut client = Raw::connect(server.addr).await;
    let head = "POST /raw HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: ";
    problem(&client.ask(&format!("{head}9999\r\n\r\n")).await, 413, "too-large");
    client.closed().await;
    let mut client = Raw::connect(server.addr).await;
    assert_eq!(client.ask(&format!("{head}2\r\n\r\n")).await.status, 100);
    assert_eq!(client.ask("ab").await.body, "2");
}

#[tokio::test]
async fn a_body_that_breaks_off_harms_nobody() {
    let server = start(routes(), Limits { body_gap: Duration::from_millis(50), ..Limits::default() }).await;
    let part = "POST /raw HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc";
    drop({
        let mut gone = Raw::connect(server.addr).await;
        gone.send(part).await.unwrap();
        gone
    });
    let mut slow = Raw::connect(server.addr).await;
    problem(&slow.ask(part).await, 408, "slow-body");
    assert_eq!(Raw::connect(server.addr).await.ask(&get("/get")).await.body, "got");
}

#[tokio::test]
async fn what_changes_something_runs_on_when_its_client_hangs_up() {
    let (reached, go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (at, on, end) = (reached.clone(), go.clone(), done.clone());
    let router = Router::new().route(
        "/change",
        post(|| async move {
            at.notify_one();
            on.notified().await;
            end.notify_one();
        }),
    );
    let server = start(router, Limits { connections: 1, evict: Duration::ZERO, ..Limits::default() }).await;
    let mut client = Raw::connect(server.addr).await;
    client.send(&with_body("/change", "", "")).await.unwrap();
    soon(reached.notified()).await;
    drop(client);
    // Its place stays taken for as long as it runs, so hanging up does not get around the bound.
    assert_eq!(Raw::connect(server.addr).await.ask(&get("/")).await.status, 503);
    go.notify_one();
    soon(done.notified()).await;
}
