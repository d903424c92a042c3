//! Connections are bounded in number and in time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::{get as on_get, post};
use tokio::sync::Notify;

use super::super::Limits;
use super::{Raw, get, soon, start};

const SHORT: Duration = Duration::from_millis(60);
/// Short, but enough for a loaded machine to get a request through.
const IDLE: Duration = Duration::from_millis(300);

/// `/hello` answers at once; `/wait` says that it was reached, and answers when it is let go.
fn routes() -> (Router, Arc<Notify>, Arc<Notify>) {
    let (reached, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (at, on) = (reached.clone(), go.clone());
    let wait = move || async move {
        at.notify_one();
        on.notified().await;
        "done"
    };
    let router = Router::new()
        .route("/hello", on_get(|| async { "hello" }))
        .route("/wait", on_get(wait.clone()).post(wait))
        .route("/large", on_get(|| async { vec![b'x'; 32 << 20] }))
        .route("/body", post(|body: String| async move { body }));
    (router, reached, go)
}

#[tokio::test]
async fn slow_headers_are_cut_and_idle_connections_are_not() {
    let limits = Limits { header: SHORT, ..Limits::default() };
    let server = start(routes().0, limits).await;
    let mut kept = Raw::connect(server.addr).await;
    assert_eq!(kept.ask(&get("/hello")).await.body, "hello");
    let mut fresh = Raw::connect(server.addr).await;
    for beginning in ["G", "GET /hello HTTP/1.1\r\nhost: x\r\nx-slow: "] {
        let mut slow = Raw::connect(server.addr).await;
        slow.send(beginning).await.unwrap();
        slow.closed().await;
    }
    assert_eq!(kept.ask(&get("/hello")).await.body, "hello");
    assert_eq!(fresh.ask(&get("/hello")).await.body, "hello");
}

#[tokio::test]
async fn idle_connections_end_after_a_while() {
    let server = start(routes().0, Limits { idle: IDLE, ..Limits::default() }).await;
    let mut unused = Raw::connect(server.addr).await;
    let mut used = Raw::connect(server.addr).await;
    assert_eq!(used.ask(&get("/hello")).await.status, 200);
    unused.closed().await;
    used.closed().await;
}

#[tokio::test]
async fn a_request_may_take_longer_than_an_idle_connection_may_live() {
    let (router, reached, go) = routes();
    let server = start(router, Limits { idle: IDLE, ..Limits::default() }).await;
    let mut client = Raw::connect(server.addr).await;
    client.send(&get("/wait")).await.unwrap();
    soon(reached.notified()).await;
    let mut unused = Raw::connect(server.addr).await;
    unused.closed().await;
    go.notify_one();
    assert_eq!(client.answer().await.unwrap().body, "done");
}

#[tokio::test]
async fn who_does_not_take_the_answer_is_cut() {
    let server = start(routes().0, Limits { stall: SHORT, ..Limits::default() }).await;
    let mut client = Raw::connect(server.addr).await;
    client.send(&get("/large")).await.unwrap();
    let mut other = Raw::connect(server.addr).await;
    assert_eq!(other.ask(&get("/hello")).await.status, 200);
    // Writing fails once the server has given up; nothing is read before that.
    soon(async {
        while client.send("x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(client.answer().await.is_err(), "32 MiB do not fit into the buffers of a socket");
}

#[tokio::test]
async fn idle_connections_make_room_for_new_ones() {
    let limits = Limits { connections: 100, evict: Duration::ZERO, ..Limits::default() };
    let server = start(routes().0, limits).await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(Raw::connect(server.addr).await);
    }
    let mut half = Raw::connect(server.addr).await;
    half.send("GET /hel").await.unwrap();
    for _ in 0..3 {
        assert_eq!(Raw::connect(server.addr).await.ask(&get("/hello")).await.body, "hello");
    }
    idle[0].closed().await;
}

#[tokio::test]
async fn a_thousand_idle_connections_fit_by_default() {
    let server = start(routes().0, Limits::default()).await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        match tokio::net::TcpStream::connect(server.addr).await {
            Ok(socket) => idle.push(socket),
            // Both ends are in this process, which may have few descriptors.
            Err(error) => {
                eprintln!("stopped at {} connections: {error}", idle.len());
                idle.truncate(idle.len().saturating_sub(20));
                break;
            }
        }
    }
    assert_eq!(Raw::connect(server.addr).await.ask(&get("/hello")).await.body, "hello");
}

#[tokio::test]
async fn when_all_are_busy_new_ones_are_told_so() {
    let (router, reached, go) = routes();
    let limits = Limits { connections: 1, evict: Duration::ZERO, ..Limits::default() };
    let server = start(router, limits).await;
    let mut busy = Raw::connect(server.addr).await;
    busy.send(&get("/wait")).await.unwrap();
    soon(reached.notified()).await;
    let refused = Raw::connect(server.addr).await.ask(&get("/hello")).await;
    assert_eq!(refused.status, 503);
    assert!(refused.head.contains("application/problem+json"), "{}", refused.head);
    assert!(refused.head.contains("retry-after: 1") && refused.head.contains("connection: close"), "{}", refused.head);
    assert!(refused.body.contains("/problems/unavailable"), "{}", refused.body);
    go.notify_one();
    assert_eq!(busy.answer().await.unwrap().body, "done");
}

#[tokio::test]
async fn a_request_under_way_is_finished_at_shutdown() {
    let (router, reached, go) = routes();
    let mut server = start(router, Limits::default()).await;
    let mut idle = Raw::connect(server.addr).await;
    assert_eq!(idle.ask(&get("/hello")).await.status, 200);
    let mut busy = Raw::connect(server.addr).await;
    busy.send(&get("/wait")).await.unwrap();
    soon(reached.notified()).await;
    server.stop.cancel();
    idle.closed().await;
    go.notify_one();
    let answer = busy.answer().await.unwrap();
    assert_eq!(answer.body, "done");
    assert!(answer.head.contains("connection: close"), "{}", answer.head);
    soon(&mut server.task).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(server.addr).await.is_err());
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_at_shutdown() {
    let (router, reached, _go) = routes();
    let mut server = start(router, Limits { shutdown: SHORT, ..Limits::default() }).await;
    let mut half = Raw::connect(server.addr).await;
    half.send("GET /hel").await.unwrap();
    for method in ["GET", "POST"] {
        let mut busy = Raw::connect(server.addr).await;
        busy.send(&format!("{method} /wait HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")).await.unwrap();
        soon(reached.notified()).await;
        std::mem::forget(busy);
    }
    let start = Instant::now();
    server.stop.cancel();
    soon(&mut server.task).await.unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_secs(2));
    half.closed().await;
}

#[tokio::test]
async fn what_is_no_request_is_answered_with_a_problem_document() {
    let (router, ..) = routes();
    let running = start(router, Limits::default()).await;
    let long = "a".repeat(70_000);
    let lines: String = (0..200).map(|i| format!("h{i}: x\r\n")).collect();
    for (request, status) in [
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\ncontent-length: many\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".to_owned(), 400),
        (format!("GET /{long} HTTP/1.1\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\n{lines}\r\n"), 431),
    ] {
        let answer = Raw::connect(running.addr).await.ask(&request).await;
        assert_eq!(answer.status, status, "{answer:?}");
        let problem: crate::api::Problem = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(problem.status, status);
    }
}
