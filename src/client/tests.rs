use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use super::*;

/// A server that gives these answers, one connection each, and returns what it was asked.
fn server(answers: Vec<String>) -> (String, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let serving = thread::spawn(move || {
        let serve = |answer: String| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 65536];
            let n = stream.read(&mut asked).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&asked[..n]).lines().next().unwrap_or_default().to_owned()
        };
        answers.into_iter().map(serve).collect()
    });
    (addr, serving)
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn problem(status: u16) -> String {
    format!(r#"{{"type":"/problems/x","title":"A title","status":{status},"detail":"a detail"}}"#)
}

#[tokio::test]
async fn absence_is_an_answer() {
    let (addr, serving) = server(vec![http("404 Not Found", &problem(404)), http("404 Not Found", &problem(404))]);
    let client = NodeClient::new();
    assert!(client.lookup(&addr, b"a/b c").await.unwrap().is_none());
    assert!(client.delete(&addr, "ü".as_bytes()).await.unwrap().is_none());
    let asked = serving.join().unwrap();
    assert_eq!(asked, ["GET /dht/lookup?key=a%2Fb%20c HTTP/1.1", "DELETE /dht/delete?key=%C3%BC HTTP/1.1"]);
}

#[tokio::test]
async fn refusals_and_garbage_are_told_apart() {
    let (addr, _serving) = server(vec![
        http("503 Service Unavailable", &problem(503)),
        http("200 OK", "<html>"),
        http("404 Not Found", "no such page"),
    ]);
    let client = NodeClient::new();
    let refused = client.node_info(&addr).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("{addr}: a detail"));
    assert!(refused.is_worth_asking_another());
    assert!(matches!(client.node_info(&addr).await, Err(Error::Garbled { .. })));
    assert!(matches!(client.pred(&addr).await, Err(Error::Garbled { .. })));
}

#[tokio::test]
async fn a_connection_that_breaks_is_tried_once_more() {
    let ready = http("200 OK", "{}");
    let (addr, serving) = server(vec![String::new(), ready]);
    assert!(NodeClient::new().ready(&addr).await.unwrap());
    assert_eq!(serving.join().unwrap().len(), 2);
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = NodeClient::new().node_info(&closed).await.unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { addr, reason, connected: false } if *addr == closed && reason.contains("refused")),
        "{error}"
    );
    let error = NodeClient::new().node_info("not an address").await.unwrap_err();
    assert!(error.to_string().contains("HOST:PORT"), "{error}");
}

#[test]
fn named_nodes_keep_host_and_port_apart() {
    let six = serde_json::to_string(&Named::at("[::1]:9000")).unwrap();
    assert_eq!(six, r#"{"host":"::1","port":9000}"#);
}

#[test]
fn keys_that_no_query_can_carry_are_looked_up_by_id() {
    assert_eq!(in_query("ü+1".as_bytes()).as_deref(), Some("%C3%BC%2B1"));
    assert_eq!(in_query(b"\xff"), None);
    assert_eq!(in_query("/".repeat(1366).as_bytes()), None);
}
