//! A client that sends exactly what it is told to, and fake nodes that answer as badly as they are told to.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chordal_protocol::{Contact, Envelope, Membership, Reply, Ring, RingId, WIRE_VERSION};
use serde_json::{Value, json};

use crate::common::{Daemon, get_json};

/// No answer takes longer than this: the node's deadline for clients is 10 s, and a machine may be busy with much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: String,
    pub(crate) took: Duration,
}

impl Answer {
    /// Reads the answer that a connection ends with.
    fn parse(bytes: &[u8], took: Duration) -> Answer {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no whole answer: {text:?}"));
        let header = |name: &str| {
            let of = |line: &str| line.to_ascii_lowercase().strip_prefix(name).map(|value| value.trim().to_owned());
            head.lines().find_map(of).unwrap_or_default()
        };
        let status = head.get(9..12).and_then(|code| code.parse().ok());
        Answer {
            status: status.unwrap_or_else(|| panic!("no status: {head}")),
            content_type: header("content-type:"),
            body: body.to_owned(),
            took,
        }
    }

    /// The body, as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// It must be a problem document of this status, whose detail says enough to act on. Returns the detail.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.content_type, "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{self:?}");
        assert!(problem["type"].as_str().is_some_and(|kind| kind.starts_with("/problems/")), "{self:?}");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.len() > 20, "that helps nobody: {self:?}");
        detail.to_owned()
    }
}

/// Whether a simple question is answered with 200: not so while there is no room for one more connection.
pub(crate) fn is_served(addr: &str) -> bool {
    let mut socket = connect(addr);
    let request = b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut answer = Vec::new();
    socket.write_all(request).and_then(|()| socket.read_to_end(&mut answer)).is_ok()
        && answer.starts_with(b"HTTP/1.1 200")
}

/// Sends these bytes and reads all that comes back. `half_close` ends our side after sending.
pub(crate) fn raw(addr: &str, bytes: &[u8], half_close: bool) -> Answer {
    let (began, mut socket) = (Instant::now(), connect(addr));
    // Who refuses may stop reading before all is sent; its answer counts.
    let sent = socket.write_all(bytes);
    if half_close {
        let _ = socket.shutdown(Shutdown::Write);
    }
    let mut answer = Vec::new();
    let received = socket.read_to_end(&mut answer);
    assert!(!answer.is_empty(), "no answer from {addr}: sent {sent:?}, received {received:?}");
    Answer::parse(&answer, began.elapsed())
}

pub(crate) fn connect(addr: &str) -> TcpStream {
    let socket = TcpStream::connect(addr).unwrap_or_else(|error| panic!("{addr}: {error}"));
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

/// One request with one answer. An empty content type sends none.
pub(crate) fn ask(method: &str, addr: &str, path: &str, content_type: &str, body: &[u8]) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n");
    if !content_type.is_empty() {
        request += &format!("content-type: {content_type}\r\n");
    }
    if !body.is_empty() || matches!(method, "POST" | "PUT") {
        request += &format!("content-length: {}\r\n", body.len());
    }
    raw(addr, &[request.as_bytes(), b"\r\n", body].concat(), false)
}

pub(crate) fn get(addr: &str, path: &str) -> Answer {
    ask("GET", addr, path, "", b"")
}

pub(crate) fn post(addr: &str, path: &str, body: &Value) -> Answer {
    ask("POST", addr, path, "application/json", body.to_string().as_bytes())
}

pub(crate) fn put(addr: &str, path: &str, body: &str) -> Answer {
    ask("PUT", addr, path, "", body.as_bytes())
}

/// `{"host", "port"}` of an address.
pub(crate) fn named(addr: &str) -> Value {
    let (host, port) = addr.rsplit_once(':').expect("host:port");
    json!({ "host": host, "port": port.parse::<u16>().expect("a port") })
}

/// The node lives, and takes and finds values.
#[track_caller]
pub(crate) fn still_works(addr: &str) {
    let live = get(addr, "/health/live");
    assert_eq!(live.status, 200, "{live:?}");
    let key = format!("still {}", rand::random::<u64>());
    let stored = post(addr, "/dht/store", &json!({ "value": "works", "key": key }));
    assert_eq!(stored.status, 200, "{stored:?}");
    let found = get(addr, &format!("/dht/lookup?key={}", key.replace(' ', "+")));
    assert_eq!(found.status, 200, "{found:?}");
    assert_eq!(found.json()["value"], "works");
}

/// The ring that this node belongs to, in hex.
pub(crate) fn ring_of(addr: &str) -> String {
    get_json(addr, "/nodeinfo")["ring"].as_str().expect("it has a ring").to_owned()
}

/// A node with nothing on disk, alone.
pub(crate) fn lone(dir: &std::path::Path) -> Daemon {
    Daemon::start(dir, &["--memory"])
}

/// An address of this machine on which nobody listens.
pub(crate) fn dead_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

/// What a fake node does with a connection.
pub(crate) enum Manner {
    /// Sends this at once and closes.
    Says(&'static [u8]),
    /// Reads what comes and never answers.
    Hangs,
    /// Begins a good answer, whose body never ends.
    Babbles,
    /// Sends headers that never end.
    NeverBegins,
    /// Speaks the protocol as far as this does.
    Speaks(Box<Words>),
    /// Answers every message with this status and these bytes.
    Answers(&'static str, Vec<u8>),
}

/// What a fake node has to say.
pub(crate) type Words = dyn Fn(&Fake, &Envelope) -> Say + Send + Sync;

/// What a fake node says to a message.
pub(crate) enum Say {
    /// A reply.
    Reply(Reply),
    /// Nothing, for as long as it is listened to.
    Hang,
    /// A reply that never ends.
    Babble,
    /// Bytes that are no reply.
    Garbage,
}

/// A server that is no node, or a bad one. It ends when it is dropped.
pub(crate) struct Fake {
    pub(crate) addr: String,
    /// How many connections it has had.
    pub(crate) calls: AtomicUsize,
    manner: Manner,
    over: AtomicBool,
}

/// Keeps a [`Fake`] running.
pub(crate) struct Running(pub(crate) Arc<Fake>);

impl Fake {
    pub(crate) fn start(manner: Manner) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address").to_string();
        let fake = Arc::new(Fake { addr, calls: AtomicUsize::new(0), manner, over: AtomicBool::new(false) });
        let server = Arc::clone(&fake);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                if server.over.load(Ordering::Relaxed) {
                    return;
                }
                server.calls.fetch_add(1, Ordering::Relaxed);
                let server = Arc::clone(&server);
                std::thread::spawn(move || server.serve(socket));
            }
        });
        Running(fake)
    }

    /// As which node it introduces itself.
    pub(crate) fn contact(&self) -> Contact {
        Contact::at(self.addr.as_str(), "fake")
    }

    /// A member of the ring of this id (hex) says hello.
    pub(crate) fn hello(me: Contact, ring: &str, membership: Membership) -> Reply {
        let mut id = [0; 16];
        hex::decode_to_slice(ring, &mut id).expect("32 hex digits");
        Reply::Hello { me, ring: Some(Ring::new(RingId(id))), membership }
    }

    // The other side going away ends every manner, so errors are not looked at.
    fn serve(&self, mut socket: TcpStream) {
        match &self.manner {
            Manner::Says(bytes) => {
                let _ = socket.write_all(bytes);
            }
            Manner::Hangs => self.hang(&mut socket),
            Manner::Babbles => {
                let _ = read_message(&mut socket);
                self.babble(&mut socket);
            }
            Manner::NeverBegins => {
                let _ = read_message(&mut socket);
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n");
                let lines = b"x: yyyyyyyy\r\n".repeat(100);
                self.repeat(&mut socket, &lines);
            }
            Manner::Answers(status, bytes) => {
                while read_message(&mut socket).is_some() && answer(&mut socket, status, bytes) {}
            }
            Manner::Speaks(say) => {
                while let Some(message) = read_message(&mut socket) {
                    let envelope = postcard::from_bytes(message.get(2..).unwrap_or_default());
                    let goes_on = match envelope.map_or(Say::Hang, |envelope| say(self, &envelope)) {
                        Say::Reply(reply) => answer(&mut socket, "200 OK", &frame(&reply)),
                        Say::Garbage => answer(&mut socket, "200 OK", &[0, 1, 0xff, 0xff, 0xff, 0xff, 0xff]),
                        Say::Hang => return self.hang(&mut socket),
                        Say::Babble => return self.babble(&mut socket),
                    };
                    if !goes_on {
                        return;
                    }
                }
            }
        }
    }

    fn babble(&self, socket: &mut TcpStream) {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        let chunk = [b"10000\r\n".as_slice(), &[0; 0x10000], b"\r\n"].concat();
        self.repeat(socket, &chunk);
    }

    fn repeat(&self, socket: &mut TcpStream, bytes: &[u8]) {
        while !self.over.load(Ordering::Relaxed) {
            if socket.write_all(bytes).is_err() {
                return;
            }
        }
    }

    fn hang(&self, socket: &mut TcpStream) {
        let _ = socket.set_read_timeout(Some(Duration::from_millis(50)));
        let mut nothing = [0; 4096];
        while !self.over.load(Ordering::Relaxed) {
            match socket.read(&mut nothing) {
                Ok(0) => return,
                _ => continue,
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(&self.0.addr);
    }
}

/// A message as nodes write it: two bytes of version, then postcard.
pub(crate) fn frame(message: &impl serde::Serialize) -> Vec<u8> {
    postcard::to_extend(message, WIRE_VERSION.to_be_bytes().to_vec()).expect("messages can be written")
}

/// The body of the next request on a connection.
fn read_message(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    socket.read_exact(&mut body).ok()?;
    Some(body)
}

fn answer(socket: &mut TcpStream, status: &str, body: &[u8]) -> bool {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(&[head.as_bytes(), body].concat()).is_ok()
}

/// Resident memory of a process, in MiB.
pub(crate) fn resident_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a VmRSS");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib / 1024.0
}
