//! Connections for the calls of nodes, and who makes a nuisance of themselves on them.

use std::net::SocketAddr;
use std::time::Duration;

use chordal_protocol::{Contact, Envelope, Reply, Request, WIRE_VERSION};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::super::{Limits, router, serve};
use super::{Raw, Running, get, soon};
use crate::node::Node;
use crate::node::frames::{self, Answer, Call};

const SHORT: Duration = Duration::from_millis(100);

/// The routes of a node, behind a server with bounds of its own.
async fn start(limits: Limits) -> (Running, Node) {
    let node = Node::builder().start().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve(listener, router(node.clone()), limits, stop.clone()));
    (Running { addr, stop, task }, node)
}

const OPENING: &str = "GET /peer HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: chordal-peer\r\n\r\n";

fn hello() -> Vec<u8> {
    let envelope = Envelope { ring: None, from: Contact::at("127.0.0.1:1", "asker"), request: Request::Hello };
    postcard::to_extend(&envelope, WIRE_VERSION.to_be_bytes().to_vec()).unwrap()
}

fn call(number: u64, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frames::write_call(&mut out, &Call { number, authorization: b"", message });
    out
}

/// A connection that was upgraded.
struct Opened(TcpStream, Vec<u8>);

impl Opened {
    /// Sends this together with the request.
    async fn with(addr: SocketAddr, more: &[u8]) -> Opened {
        let mut socket = soon(TcpStream::connect(addr)).await.unwrap();
        soon(socket.write_all(&[OPENING.as_bytes(), more].concat())).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(socket.read_u8()).await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: chordal-peer"), "{head}");
        Opened(socket, Vec::new())
    }

    async fn to(addr: SocketAddr) -> Opened {
        Opened::with(addr, b"").await
    }

    async fn send(&mut self, bytes: &[u8]) {
        soon(self.0.write_all(bytes)).await.unwrap();
    }

    /// The next answer, given to `look` with its number; `None` if the connection ends instead.
    async fn answer<T>(&mut self, look: impl FnOnce(u64, Answer<'_>) -> T) -> Option<T> {
        loop {
            if let Some((frame, rest)) = frames::first(&self.1).unwrap() {
                let (number, answer) = frames::read_answer(frame).unwrap();
                let (seen, left) = (look(number, answer), rest.to_vec());
                self.1 = left;
                return Some(seen);
            }
            // A reset is an end as well.
            if soon(self.0.read_buf(&mut self.1)).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Whether this call is answered as it should.
    async fn greets(&mut self, number: u64) {
        self.send(&call(number, &hello())).await;
        let seen = self.answer(|number, answer| (number, is_greeting(answer))).await;
        assert_eq!(seen, Some((number, true)));
    }

    async fn closed(&mut self) {
        assert_eq!(self.answer(|number, _| number).await, None);
    }
}

fn is_greeting(answer: Answer<'_>) -> bool {
    let Answer::Plain(message) = answer else { return false };
    matches!(postcard::from_bytes(&message[2..]), Ok(Reply::Hello { .. }))
}

#[tokio::test]
async fn calls_are_answered_from_the_first_byte_on_and_however_they_are_cut() {
    let (server, _node) = start(Limits::default()).await;
    let mut opened = Opened::with(server.addr, &call(1, &hello())).await;
    assert_eq!(opened.answer(|number, answer| (number, is_greeting(answer))).await, Some((1, true)));
    for byte in call(2, &hello()) {
        opened.send(&[byte]).await;
    }
    assert_eq!(opened.answer(|number, answer| (number, is_greeting(answer))).await, Some((2, true)));
    opened.greets(3).await;
}

#[tokio::test]
async fn more_calls_at_once_than_may_be_under_way_are_all_answered() {
    let (server, _node) = start(Limits::default()).await;
    let mut opened = Opened::to(server.addr).await;
    let many = 4 * frames::UNDER_WAY as u64;
    let read = Envelope {
        ring: None,
        from: Contact::at("127.0.0.1:1", "asker"),
        request: Request::Operate(chordal_protocol::replica::Operation::Get(chordal_protocol::Id::ZERO)),
    };
    let read = postcard::to_extend(&read, WIRE_VERSION.to_be_bytes().to_vec()).unwrap();
    let calls: Vec<u8> = (0..many).flat_map(|number| call(number, &read)).collect();
    let (mut read_half, mut write_half) = opened.0.split();
    let answers = async {
        let (mut read, mut numbers) = (Vec::new(), std::collections::BTreeSet::new());
        while numbers.len() < many as usize {
            assert_ne!(read_half.read_buf(&mut read).await.unwrap(), 0, "{} answers", numbers.len());
            while let Some((frame, rest)) = frames::first(&read).unwrap() {
                numbers.insert(frames::read_answer(frame).unwrap().0);
                read = rest.to_vec();
            }
        }
    };
    let (sent, ()) = soon(async { tokio::join!(write_half.write_all(&calls), answers) }).await;
    sent.unwrap();
}

#[tokio::test]
async fn who_does_not_ask_for_calls_gets_none() {
    let (server, _node) = start(Limits::default()).await;
    for request in
        [get("/peer"), OPENING.replace("connection: upgrade\r\n", ""), OPENING.replace("chordal-peer", "websocket")]
    {
        let answer = Raw::connect(server.addr).await.ask(&request).await;
        assert_eq!(answer.status, 405, "{answer:?}");
        assert!(answer.body.contains("POST /peer"), "{answer:?}");
    }
}

#[tokio::test]
async fn who_sends_no_frame_is_cut_off_at_once() {
    let (server, _node) = start(Limits::default()).await;
    let giant = [&u32::MAX.to_be_bytes()[..], &[0; 100]].concat();
    let (short, wrong) = (3_u32.to_be_bytes(), [&20_u32.to_be_bytes()[..], &[0xff; 20]].concat());
    for garbage in [giant, b"GET / HTTP/1.1\r\n\r\n".to_vec(), [&short[..], b"abc"].concat(), wrong] {
        let mut opened = Opened::to(server.addr).await;
        opened.send(&garbage).await;
        opened.closed().await;
    }
}

#[tokio::test]
async fn what_is_no_message_is_refused_and_ends_the_connection() {
    let (server, _node) = start(Limits::default()).await;
    let mut opened = Opened::to(server.addr).await;
    opened.send(&[call(7, b"babble"), call(8, &hello())].concat()).await;
    let refused = opened.answer(|number, answer| match answer {
        Answer::Refused(status, why) => (number, status, why.contains("no message of a node")),
        _ => (number, 0, false),
    });
    assert_eq!(refused.await, Some((7, 400, true)));
    opened.closed().await;
}

#[tokio::test]
async fn half_a_frame_and_silence_are_bounded_in_time() {
    let (server, _node) = start(Limits { header: SHORT, ..Limits::default() }).await;
    let mut kept = Opened::to(server.addr).await;
    for half in [&[0][..], &call(1, &hello())[..20]] {
        let mut opened = Opened::to(server.addr).await;
        opened.greets(0).await;
        opened.send(half).await;
        opened.closed().await;
    }
    // A byte now and then does not help.
    let mut slow = Opened::to(server.addr).await;
    let began = std::time::Instant::now();
    soon(async {
        for byte in [0, 0, 0x80].into_iter().chain(std::iter::repeat(0)) {
            if slow.0.write_all(&[byte]).await.is_err() || slow.0.try_read(&mut [0]).is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(began.elapsed() >= SHORT);
    kept.greets(1).await;

    let (server, _node) = start(Limits { idle: 3 * SHORT, ..Limits::default() }).await;
    let (mut silent, mut used) = (Opened::to(server.addr).await, Opened::to(server.addr).await);
    used.greets(1).await;
    silent.closed().await;
    used.closed().await;
}

#[tokio::test]
async fn who_takes_no_answers_is_cut() {
    let (server, _node) = start(Limits { stall: SHORT, ..Limits::default() }).await;
    let mut deaf = Opened::to(server.addr).await;
    let calls: Vec<u8> = (0..1000).flat_map(|number| call(number, &hello())).collect();
    // Nothing is read, so in the end nothing more is taken, and then the server gives up.
    soon(async { while deaf.0.write_all(&calls).await.is_ok() {} }).await;
}

#[tokio::test]
async fn an_idle_one_makes_room_and_does_not_delay_shutdown() {
    let limits = Limits { connections: 2, evict: Duration::ZERO, ..Limits::default() };
    let (mut server, _node) = start(limits).await;
    let mut first = Opened::to(server.addr).await;
    let mut second = Opened::to(server.addr).await;
    second.greets(1).await;
    assert_eq!(Raw::connect(server.addr).await.ask(&get("/health/live")).await.status, 200);
    first.closed().await;
    let mut half = Opened::to(server.addr).await;
    half.send(&[0]).await;
    let began = std::time::Instant::now();
    server.stop.cancel();
    soon(&mut server.task).await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    half.closed().await;
}
