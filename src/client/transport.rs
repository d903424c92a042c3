//! Requests and answers over one pool of connections.

use std::error::Error as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName};
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;
use crate::api::Problem;
use crate::auth::{self, Awaited, KeyRing, Nets, NotSigned, Renewed, Security};
use crate::node::Resolver;

/// The largest answer that is read, in bytes. A page of `/db` stays far below it.
const LARGEST_ANSWER: usize = 64 << 20;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an unused connection is kept; servers keep them longer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Unused connections kept for each node.
const IDLE_PER_HOST: usize = 4;

/// A request that has not been sent.
pub(super) struct Ask {
    method: Method,
    addr: String,
    path: String,
    headers: Vec<(HeaderName, String)>,
    body: Option<Bytes>,
    again: bool,
    largest_answer: usize,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Ask {
    pub(super) fn new(method: Method, addr: &str, path: impl Into<String>) -> Ask {
        Ask {
            method,
            addr: addr.to_owned(),
            path: path.into(),
            headers: Vec::new(),
            body: None,
            again: false,
            largest_answer: LARGEST_ANSWER,
        }
    }

    /// A GET, which may be repeated.
    pub(super) fn get(addr: &str, path: impl Into<String>) -> Ask {
        Ask::new(Method::GET, addr, path).again()
    }

    /// Doing this twice is as good as doing it once, so it is sent again when a kept connection turns out to be closed.
    pub(super) fn again(mut self) -> Ask {
        self.again = true;
        self
    }

    /// Gives it a header.
    pub(super) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Ask {
        self.headers.push((name, value.into()));
        self
    }

    /// Takes no answer of more bytes than this.
    pub(super) fn at_most(mut self, bytes: usize) -> Ask {
        self.largest_answer = bytes;
        self
    }

    /// Gives it a body in JSON.
    pub(super) fn body(self, body: &impl Serialize) -> Ask {
        // Our own shapes have string keys only, which is all that serialising JSON to memory could fail on.
        self.bytes("application/json", serde_json::to_vec(body).unwrap_or_default())
    }

    /// Gives it a body of this type.
    pub(super) fn bytes(mut self, content_type: &str, body: impl Into<Bytes>) -> Ask {
        self.body = Some(body.into());
        self.header(CONTENT_TYPE, content_type)
    }
}

/// One `reqwest::Client` with the bounds that it does not have by itself.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    http: Arc<Renewed<reqwest::Client>>,
    timeout: Duration,
    keys: Option<Arc<KeyRing>>,
    scheme: &'static str,
    /// What it was made with.
    pub(super) security: Security,
    nets: Option<Nets>,
}

/// Where connections go, and from where.
#[derive(Debug, Clone, Default)]
pub(super) struct Way {
    /// Nothing outside of these is connected to.
    pub(super) nets: Option<Nets>,
    /// The address of this machine that connections come from.
    pub(super) local: Option<IpAddr>,
}

impl Transport {
    pub(super) fn new(timeout: Duration, security: Security) -> Transport {
        Transport::on_the_way(timeout, security, Way::default())
    }

    pub(super) fn on_the_way(timeout: Duration, security: Security, way: Way) -> Transport {
        let (nets, local) = (way.nets.clone(), way.local);
        let http = Renewed::new(security.tls.as_ref(), move |certificates| {
            let mut builder = auth::prepare(reqwest::Client::builder(), certificates).local_address(local);
            if let Some(nets) = &nets {
                builder = builder.dns_resolver(Arc::new(Resolver(nets.clone())));
            }
            builder
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .pool_max_idle_per_host(IDLE_PER_HOST)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .connect_timeout(CONNECT_TIMEOUT.min(timeout))
                .timeout(timeout)
                .tcp_nodelay(true)
                .build()
        });
        let http = Arc::new(http.expect(
            "an HTTP client that is told its certificates, and has no proxies, needs nothing that could be missing",
        ));
        let scheme = auth::scheme(security.tls.as_ref());
        Transport { http, timeout, keys: security.keys.clone(), scheme, security, nets: way.nets }
    }

    /// How long a request may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends it and reads the answer as JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, ask: Ask) -> Result<T, Error> {
        let body = self.answer(&ask, &[]).await?.body;
        serde_json::from_slice(&body).map_err(|error| Error::Garbled { addr: ask.addr, reason: error.to_string() })
    }

    /// Sends it and is content with success.
    pub(super) async fn done(&self, ask: Ask) -> Result<(), Error> {
        self.answer(&ask, &[]).await.map(drop)
    }

    /// Sends it. Success is an answer, and so are these other statuses; any other is an error.
    pub(super) async fn answer(&self, ask: &Ask, also: &[u16]) -> Result<Answer, Error> {
        // An address that is no name is not resolved, and looked at here.
        if let (Some(nets), Ok(literal)) = (&self.nets, ask.addr.parse::<SocketAddr>())
            && !nets.allow(literal.ip())
        {
            let reason = nets.refusal(literal.ip());
            return Err(Error::Unreachable { addr: ask.addr.clone(), reason, connected: false });
        }
        let (mut response, awaited) = match self.send(ask).await {
            Err(error) if ask.again && lost_its_connection(&error) => self.send(ask).await,
            answer => answer,
        }
        .map_err(|error| self.unreachable(ask, &error))?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(ask, &error))? {
            if body.len() + chunk.len() > ask.largest_answer {
                return Err(garbled(ask, format!("its answer is longer than {} KiB", ask.largest_answer >> 10)));
            }
            body.extend_from_slice(&chunk);
        }
        if let Some(awaited) = awaited
            && !may_come_unsigned(status)
        {
            let checked = awaited.check(status.as_u16(), &headers, &body);
            checked.map_err(|NotSigned| Error::Unsigned { addr: ask.addr.clone() })?;
        }
        if status.is_success() || also.contains(&status.as_u16()) {
            Ok(Answer { status: status.as_u16(), headers, body })
        } else {
            Err(refusal(ask, status, &body))
        }
    }

    /// Sends it, signed if there is a key. Each time anew: a request is taken once.
    async fn send(&self, ask: &Ask) -> Result<(reqwest::Response, Option<Awaited>), reqwest::Error> {
        let http = self.http.now();
        let mut request = http.request(ask.method.clone(), format!("{}://{}{}", self.scheme, ask.addr, ask.path));
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if let Some(body) = &ask.body {
            request = request.body(body.clone());
        }
        let mut request = request.build()?;
        let awaited = self.keys.as_ref().map(|keys| sign(keys, &mut request, ask.body.as_deref().unwrap_or_default()));
        Ok((http.execute(request).await?, awaited))
    }

    fn unreachable(&self, ask: &Ask, error: &reqwest::Error) -> Error {
        if let Some(reason) = auth::explain_request(error) {
            return Error::Handshake { addr: ask.addr.clone(), reason };
        }
        let reason = if error.is_builder() {
            "that is not an address of the form HOST:PORT, or a header cannot be sent".to_owned()
        } else if error.is_timeout() && error.is_connect() {
            "no connection came about in time".to_owned()
        } else if error.is_timeout() {
            format!("no answer within {} s", self.timeout.as_secs_f32())
        } else {
            root_cause(error)
        };
        let connected = !error.is_builder() && !error.is_connect();
        Error::Unreachable { addr: ask.addr.clone(), reason, connected }
    }
}

fn sign(keys: &KeyRing, request: &mut reqwest::Request, body: &[u8]) -> Awaited {
    let url = request.url();
    let host = format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
    let target = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    let sent = keys.sign(request.method().as_str(), &host, &target, request.headers(), body);
    request.headers_mut().insert(AUTHORIZATION, sent.authorization);
    sent.awaited
}

/// Whether an answer with this status tells nothing that somebody could gain by forging: the request has failed, and the
/// node may not have known who asks, or not have had room for an answer of its own.
fn may_come_unsigned(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403 | 408 | 413 | 414 | 429 | 431 | 500..)
}

/// The connection broke between question and answer, as a kept one does when its server has closed it meanwhile.
fn lost_its_connection(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_timeout() && !error.is_connect()
}

/// What a node said when it refused; an error that is no problem document is told by its status.
fn refusal(ask: &Ask, status: StatusCode, body: &[u8]) -> Error {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => {
            let problem = Box::new(Problem { status: status.as_u16(), ..problem });
            Error::Problem { addr: ask.addr.clone(), problem }
        }
        Err(_) => {
            garbled(ask, format!("{} {} was answered with {status} and no problem document", ask.method, ask.path))
        }
    }
}

pub(super) fn garbled(ask: &Ask, reason: String) -> Error {
    Error::Garbled { addr: ask.addr.clone(), reason }
}

/// The innermost error, which says most: "Connection refused" rather than "error sending request".
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if error.source().is_none() { "the connection broke".to_owned() } else { cause.to_string() }
}
