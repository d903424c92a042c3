//! The server and the layer around the routes, over real sockets on loopback.

mod around;
mod calls;
mod server;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Limits, serve};

/// A server under test. Dropping it stops it.
pub(super) struct Running {
    pub(super) addr: SocketAddr,
    pub(super) stop: CancellationToken,
    pub(super) task: JoinHandle<io::Result<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(super) async fn start(router: Router, limits: Limits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let task =
        tokio::spawn(serve(listener, super::layered(super::answering_all(router, || false)), limits, stop.clone()));
    Running { addr, stop, task }
}

/// Waits, but not for ever.
pub(super) async fn soon<T>(wanted: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), wanted).await.expect("it should have happened by now")
}

/// An answer as it came.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

/// A client that sends what it is told to, byte by byte.
pub(super) struct Raw(TcpStream);

impl Raw {
    pub(super) async fn connect(addr: SocketAddr) -> Raw {
        Raw(soon(TcpStream::connect(addr)).await.unwrap())
    }

    pub(super) async fn send(&mut self, text: &str) -> io::Result<()> {
        soon(self.0.write_all(text.as_bytes())).await
    }

    /// Reads one answer that has a content length; an error if the connection ends before.
    pub(super) async fn answer(&mut self) -> io::Result<Answered> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(soon(self.0.read_u8()).await?);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        soon(self.0.read_exact(&mut body)).await?;
        Ok(Answered { status: head[9..12].parse().unwrap(), head, body: String::from_utf8(body).unwrap() })
    }

    pub(super) async fn ask(&mut self, request: &str) -> Answered {
        self.send(request).await.unwrap();
        self.answer().await.unwrap()
    }

    /// Waits until the other side closes.
    pub(super) async fn closed(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = soon(self.0.read_to_end(&mut rest)).await;
    }
}

/// A request without a body.
pub(super) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}
