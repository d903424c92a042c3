//! Connections for the calls of nodes on a closed ring, spoken by hand: each call is looked at for itself.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use chordal_protocol::{Contact, Envelope, Reply, Request as Asked, WIRE_VERSION};

use crate::common::{Daemon, Lab, get, sha256};
use crate::support::{CLIENT, Key, NODE, Request, closed, hmac, stranger};

/// An upgraded connection.
struct Opened(TcpStream);

/// What was answered to a call.
#[derive(Debug, PartialEq, Eq)]
enum Answered {
    Signed { mac: String, message: Vec<u8> },
    Refused(u16, String),
    Other,
}

/// Asks for an upgrade, signed so, and returns the connection with the head of the answer.
fn open(node: &Daemon, signed: &Request) -> (TcpStream, String) {
    let authorization = signed.headers.iter().find(|(name, _)| *name == "authorization");
    let authorization = authorization.map_or(String::new(), |(_, value)| format!("authorization: {value}\r\n"));
    let mut socket = TcpStream::connect(&node.addr).expect("it listens");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    let request = format!(
        "GET /peer HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: chordal-peer\r\n{authorization}\r\n",
        node.addr
    );
    socket.write_all(request.as_bytes()).expect("it is sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    (socket, String::from_utf8(head).expect("a text"))
}

impl Opened {
    fn by_a_node(node: &Daemon) -> Opened {
        let signed = Request::new("GET", &node.addr, "/peer").signed(&NODE);
        let (socket, head) = open(node, &signed);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let said = format!("chordal-1 reply\n{}\n101\n{}\n", nonce(&authorization(&signed)), sha256(""));
        let mac = hex::encode(hmac(&NODE.secret, &said));
        assert!(head.to_ascii_lowercase().contains(&format!("chordal-reply: {mac}")), "{head}");
        Opened(socket)
    }

    fn call(&mut self, authorization: &str, message: &[u8]) -> Option<Answered> {
        let length = 8 + 2 + authorization.len() + message.len();
        let parts = [
            &u32::try_from(length).expect("short").to_be_bytes()[..],
            &77_u64.to_be_bytes(),
            &u16::try_from(authorization.len()).expect("short").to_be_bytes(),
            authorization.as_bytes(),
            message,
        ];
        self.0.write_all(&parts.concat()).ok()?;
        let mut length = [0; 4];
        self.0.read_exact(&mut length).ok()?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut frame).ok()?;
        assert_eq!(frame[..8], 77_u64.to_be_bytes());
        Some(match frame[8] {
            1 => Answered::Signed { mac: hex::encode(&frame[9..41]), message: frame[41..].to_vec() },
            2 => Answered::Refused(
                u16::from_be_bytes([frame[9], frame[10]]),
                String::from_utf8(frame[11..].to_vec()).expect("words"),
            ),
            _ => Answered::Other,
        })
    }

    /// The call must be refused with this, and the connection end with it.
    #[track_caller]
    fn refused(mut self, authorization: &str, message: &[u8], status: u16, says: &str) {
        match self.call(authorization, message) {
            Some(Answered::Refused(code, why)) => {
                assert_eq!(code, status, "{why}");
                assert!(why.contains(says), "{why}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(self.0.read(&mut [0]).expect("it is closed in order"), 0);
    }
}

fn authorization(signed: &Request) -> String {
    signed.headers.iter().find(|(name, _)| *name == "authorization").expect("it is signed").1.clone()
}

fn nonce(authorization: &str) -> &str {
    authorization.split("nonce=").nth(1).and_then(|rest| rest.split(',').next()).expect("a nonce")
}

fn hello() -> Vec<u8> {
    let envelope = Envelope { ring: None, from: Contact::at("127.0.0.1:1", "asker"), request: Asked::Hello };
    postcard::to_extend(&envelope, WIRE_VERSION.to_be_bytes().to_vec()).expect("it can be written")
}

/// The authorization of a call with this message.
fn signed(node: &Daemon, key: &Key, message: &[u8]) -> String {
    authorization(&unsigned(node, message).signed(key))
}

fn unsigned(node: &Daemon, message: &[u8]) -> Request {
    Request { body: message.to_vec(), ..Request::new("CALL", &node.addr, "/peer") }
}

#[test]
fn only_nodes_open_one() {
    let lab = Lab::empty();
    let node = closed(lab.path(), &[NODE, CLIENT], &["--open-read"]);
    let plain = Request::new("GET", &node.addr, "/peer");
    for (request, status) in [
        (plain.clone(), 401),
        (plain.clone().signed(&CLIENT), 403),
        (plain.clone().signed(&Key { secret: [9; 32], ..NODE }), 401),
        (Request::new("GET", &node.addr, "/nodeinfo").signed(&NODE), 401),
        (Request::new("POST", &node.addr, "/peer").signed(&NODE), 401),
    ] {
        let (_, head) = open(&node, &request);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
    // One that was seen is no way in either.
    let once = plain.signed(&NODE);
    let (_kept, head) = open(&node, &once);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(open(&node, &once).1.starts_with("HTTP/1.1 401 "));
    stranger(&get(&node.addr, "/peer"), "closed to strangers");
}

#[test]
fn each_call_and_each_answer_is_signed() {
    let lab = Lab::empty();
    let node = closed(lab.path(), &[NODE, CLIENT], &[]);
    let mut opened = Opened::by_a_node(&node);
    for _ in 0..3 {
        let authorization = signed(&node, &NODE, &hello());
        let Some(Answered::Signed { mac, message }) = opened.call(&authorization, &hello()) else {
            panic!("a signed answer was due")
        };
        let said = format!("chordal-1 reply\n{}\n200\n{}\n", nonce(&authorization), sha256(&message));
        assert_eq!(mac, hex::encode(hmac(&NODE.secret, &said)));
        assert!(matches!(postcard::from_bytes(&message[2..]), Ok(Reply::Hello { .. })));
    }
}

#[test]
fn a_call_that_no_node_has_signed_for_this_node_now_is_refused() {
    let lab = Lab::empty();
    let node = closed(lab.path(), &[NODE, CLIENT], &[]);
    let other = lab.beside();
    let other = closed(other.path(), &[NODE, CLIENT], &[]);
    let opened = || Opened::by_a_node(&node);
    let message = hello();
    opened().refused("", &message, 401, "Authorization header");
    opened().refused(&signed(&node, &CLIENT, &message), &message, 403, "that of a client");
    opened().refused(&signed(&node, &Key { secret: [9; 32], ..NODE }, &message), &message, 401, "another one");
    opened().refused(&signed(&node, &Key { id: "zz", ..NODE }, &message), &message, 401, "no key with the id zz");
    opened().refused(&signed(&other, &NODE, &message), &message, 401, "changed on its way");
    opened().refused(&signed(&node, &NODE, b"another"), &message, 401, "not the one that was signed");
    let old = authorization(&unsigned(&node, &message).signed_at(&NODE, 0));
    opened().refused(&old, &message, 401, "set the clocks");
    let posted = Request { body: message.clone(), ..Request::new("POST", &node.addr, "/peer") };
    opened().refused(&authorization(&posted.signed(&NODE)), &message, 401, "changed on its way");
    let once = signed(&node, &NODE, &message);
    let mut first = opened();
    assert!(matches!(first.call(&once, &message), Some(Answered::Signed { .. })));
    opened().refused(&once, &message, 401, "taken once");
    first.refused(&once, &message, 401, "taken once");
}
