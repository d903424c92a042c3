//! Who asks, and whether they may: the layer in front of the routes of a ring that is closed to strangers.
//!
//! A request must be signed with a key of the ring whose role covers the route (401, 403). Its signature is looked at before
//! its body is read; the body must then be the one that was signed. The answer is signed with the same key.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Frame, SizeHint};
use sha2::{Digest as _, Sha256};

use super::peer::PEER;
use super::rates::Rates;
use super::{ApiError, Kind};
use crate::auth::{self, ClientLimits, Key, KeyRing, Refused, Replays, Role, Security, Signature, Signed, WINDOW};
use crate::node::frames;

/// The routes that only nodes may use, and those who run the ring. What changes something and is not of clients is theirs, too.
pub(super) const OF_NODES: [(&str, &str); 10] = [
    ("POST", "/recover"),
    ("POST", "/peer"),
    ("GET", "/peer"),
    ("POST", "/seen"),
    ("POST", "/challenge"),
    ("POST", "/dht/join"),
    ("POST", "/dht/leave"),
    ("GET", "/dht/leave"),
    ("PUT", "/pred"),
    ("PUT", "/succ"),
];

/// The routes by which clients change something.
const OF_CLIENTS: [(&str, &str); 7] = [
    ("PUT", "/kv/"),
    ("DELETE", "/kv/"),
    ("POST", "/kv"),
    ("POST", "/dht/store"),
    ("DELETE", "/dht/delete"),
    ("POST", "/insert"),
    ("DELETE", "/db/"),
];

/// The routes that everyone may use, signed or not: what watches processes has no keys.
pub(super) const OF_ALL: [&str; 2] = ["/health/live", "/health/ready"];

/// The ends of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    /// Ours.
    pub(super) local: SocketAddr,
    /// That of who asks.
    pub(super) remote: SocketAddr,
    /// What its certificate says that it may do.
    pub(super) role: Option<Role>,
}

/// What keeps strangers out.
pub(super) struct Gate {
    keys: Option<Arc<KeyRing>>,
    has_tls: bool,
    open_read: bool,
    limits: ClientLimits,
    rates: Option<Rates>,
    /// By what names this node is called, in lower case; `None` as long as it does not know that itself.
    names: Option<Vec<String>>,
    replays: Mutex<HashMap<String, Replays>>,
    /// When this node started.
    since: u64,
}

impl Gate {
    /// The gate of the node at `addr`; `None` if it is open to all.
    pub(super) fn new(security: &Security, addr: &str) -> Option<Arc<Gate>> {
        let names = std::iter::once(addr).chain(security.known_as.iter().map(String::as_str));
        Gate::with(security, Some(names.map(str::to_ascii_lowercase).collect()), auth::now())
    }

    /// The gate of a node that does not know its address yet. To be used only where a request that was meant for another node, or
    /// for an earlier run of this one, does nothing.
    pub(super) fn by_any_name(security: &Security) -> Option<Arc<Gate>> {
        Gate::with(security, None, 0)
    }

    fn with(security: &Security, names: Option<Vec<String>>, since: u64) -> Option<Arc<Gate>> {
        if !security.is_closed() && !security.limits.on_loopback {
            return None;
        }
        let replays = Mutex::default();
        let Security { keys, open_read, limits, .. } = security.clone();
        let rates = NonZeroU32::new(limits.requests).map(Rates::new);
        let has_tls = security.tls.is_some();
        Some(Arc::new(Gate { keys, has_tls, open_read, limits, rates, names, replays, since }))
    }

    /// Whether the request may pass, and how.
    fn admit(&self, request: &Request) -> Result<Pass, ApiError> {
        let Some(needed) = needed(request.method(), request.uri().path()) else { return Ok(Pass::Anybody) };
        if self.has_tls {
            let role = request.extensions().get::<Ends>().and_then(|ends| ends.role);
            if role.is_none_or(|role| role < needed) {
                let shown = role.map_or("nobody of this ring".to_owned(), |role| format!("a {role}"));
                let detail = format!("the certificate is that of {shown}, and this takes that of a {needed}");
                return Err(ApiError::new(Kind::Forbidden, detail));
            }
        }
        match &self.keys {
            Some(keys) => match self.signer(keys, needed, request)? {
                Some(signer) => Ok(Pass::Signed(signer)),
                None => Ok(Pass::Anybody),
            },
            // Who may ask what nodes ask is one.
            None if needed == Role::Node => Ok(Pass::Node),
            None => Ok(Pass::Anybody),
        }
    }

    /// Who has signed the request; `None` if nobody needs to.
    fn signer(&self, keys: &KeyRing, needed: Role, request: &Request) -> Result<Option<Admitted>, ApiError> {
        let Some(given) = request.headers().get(header::AUTHORIZATION) else {
            if needed == Role::Reader && self.open_read {
                return Ok(None);
            }
            let how = "sign the request with a key of its secret file, as --secret-file of `chordal` and `tasks` does; \
                       docs/security.md says how";
            return Err(stranger(format!("this ring is closed to strangers: {how}")));
        };
        let host = called(request, if self.has_tls { ":443" } else { ":80" });
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let signed = Signed { method: request.method().as_str(), host: &host, target, headers: request.headers() };
        self.check(keys, needed, given.as_bytes(), &signed, request.extensions().get()).map(Some)
    }

    /// Whether a call on a connection that was opened for them with this Host header is signed with the key of a node, and is what
    /// was signed. `None` if nobody needs to sign.
    pub(super) fn admit_call(
        &self,
        host: &str,
        ends: &Ends,
        authorization: &[u8],
        message: &[u8],
    ) -> Result<Option<Admitted>, ApiError> {
        let Some(keys) = &self.keys else { return Ok(None) };
        let signed = Signed { method: frames::METHOD, host, target: PEER, headers: &HeaderMap::new() };
        let admitted = self.check(keys, Role::Node, authorization, &signed, Some(ends))?;
        if Sha256::digest(message).as_slice() != admitted.digest {
            return Err(stranger(format!("{WrongBody}; nothing was done")));
        }
        Ok(Some(admitted))
    }

    /// Whether a key of the ring that is good for this has signed a request, at this node, and for the first time.
    fn check(
        &self,
        keys: &KeyRing,
        needed: Role,
        authorization: &[u8],
        signed: &Signed<'_>,
        ends: Option<&Ends>,
    ) -> Result<Admitted, ApiError> {
        let signature: Signature =
            std::str::from_utf8(authorization).ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
                stranger(format!(
                    "the Authorization header is not of the form `{} key=…, time=…, nonce=…, digest=…, mac=…`",
                    auth::SCHEME
                ))
            })?;
        let keys = keys.keys();
        let key = keys.find(&signature.key).ok_or_else(|| {
            stranger(format!(
                "this node has no key with the id {}: the request was signed with the key of another ring, or with one that was \
                 taken out of the secret file",
                signature.key.escape_default()
            ))
        })?;
        if !signature.is_of(key, signed) {
            return Err(stranger(format!(
                "the signature is not that of the key {}: the secret is another one, or the request was changed on its way",
                key.id
            )));
        }
        self.is_me(signed.host, ends)?;
        self.take(&keys, &signature)?;
        if key.role < needed {
            let detail = format!("the key {} is that of a {}, and this takes that of a {needed}", key.id, key.role);
            return Err(ApiError::new(Kind::Forbidden, detail));
        }
        Ok(Admitted { key: Arc::clone(key), nonce: signature.nonce, digest: signature.digest })
    }

    /// A request to another node must not be sent to this one by somebody who has seen it.
    fn is_me(&self, host: &str, ends: Option<&Ends>) -> Result<(), ApiError> {
        let Some(names) = &self.names else { return Ok(()) };
        // Who listens on :: is called over IPv4 as well, at an address that is written as one of IPv6 then.
        let local = ends.map(|ends| SocketAddr::new(ends.local.ip().to_canonical(), ends.local.port()));
        let is_local = |local: SocketAddr| {
            local.to_string() == host || local.ip().is_loopback() && host == format!("localhost:{}", local.port())
        };
        if names.iter().any(|name| name == host) || local.is_some_and(is_local) {
            return Ok(());
        }
        Err(stranger(format!(
            "the request was signed for {}, and this node is {}: call it so, or start it with --known-as",
            host.escape_default(),
            names.join(" or ")
        )))
    }

    /// Counts a request of a client; an error if it has sent too many.
    fn count(&self, request: &Request) -> Result<(), ApiError> {
        let (Some(rates), Some(ends)) = (&self.rates, request.extensions().get::<Ends>()) else { return Ok(()) };
        if !self.limits.hold_for(ends.remote.ip()) {
            return Ok(());
        }
        rates.take(ends.remote.ip()).map_err(|_| {
            let most = self.limits.requests;
            let detail = format!(
                "a client may send {most} requests a second to this node; send fewer, or through several nodes"
            );
            ApiError::new(Kind::TooMany, detail)
        })
    }

    fn take(&self, keys: &auth::Keys, signature: &Signature) -> Result<(), ApiError> {
        let now = auth::now();
        let mut replays = self.replays.lock().unwrap_or_else(PoisonError::into_inner);
        if !replays.contains_key(&signature.key) {
            // A key that was taken out and comes back must not bring its requests with it.
            replays.retain(|id, of_key| keys.find(id).is_some() || !of_key.is_over(now));
        }
        let of_key = replays.entry(signature.key.clone()).or_insert_with(|| Replays::new(self.since));
        of_key.take(now, signature.time, signature.nonce).map_err(|refused| {
            stranger(match refused {
                Refused::Stale(by) => format!(
                    "the request was signed {} s {} by the clock of this node, and only {} s may lie in between: set the clocks \
                     of both machines",
                    by.unsigned_abs().div_ceil(1000),
                    if by < 0 { "ago" } else { "in the future" },
                    WINDOW / 1000
                ),
                Refused::Forgotten => "the request was signed before this node started, or before the last one that it \
                                       remembers; sign it again, and if that does not help set the clocks of both machines"
                    .to_owned(),
                Refused::Replayed => "this request was taken before, and is taken once; sign it again".to_owned(),
            })
        })
    }
}

/// How a request passes.
enum Pass {
    /// Unsigned.
    Anybody,
    /// Unsigned, by a node.
    Node,
    /// Signed.
    Signed(Admitted),
}

impl Pass {
    fn is_of_node(&self) -> bool {
        matches!(self, Pass::Node) || matches!(self, Pass::Signed(signer) if signer.key.role == Role::Node)
    }
}

/// Who has signed a request, and what.
pub(super) struct Admitted {
    key: Arc<Key>,
    nonce: [u8; 16],
    digest: [u8; 32],
}

impl Admitted {
    /// The signature of the answer to a call.
    pub(super) fn call_mac(&self, answer: &[u8]) -> [u8; 32] {
        auth::call_mac(&self.key, &self.nonce, answer)
    }
}

/// The layer in front of the routes.
pub(super) async fn authenticate(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let admitted = gate.admit(&request);
    // Also those who are refused: guessing has a price.
    if !admitted.as_ref().is_ok_and(Pass::is_of_node)
        && let Err(too_many) = gate.count(&request)
    {
        return too_many.into_response();
    }
    if request.uri().path() == PEER {
        // What comes on a connection for calls is looked at here as well.
        request.extensions_mut().insert(Arc::clone(&gate));
    }
    match admitted {
        Ok(Pass::Anybody | Pass::Node) => next.run(request).await,
        Ok(Pass::Signed(admitted)) => {
            let (digest, is_head) = (admitted.digest, request.method() == Method::HEAD);
            let request = request.map(|body| Body::new(Digested::new(body, digest)));
            sign(next.run(request).await, &admitted, is_head).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// What is needed for a route; `None` if it is for everyone. One that changes something and is not named here is for nodes.
pub(super) fn needed(method: &Method, path: &str) -> Option<Role> {
    let is_read = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let as_get = if is_read { "GET" } else { method.as_str() };
    if OF_NODES.contains(&(as_get, path)) {
        return Some(Role::Node);
    }
    match is_read {
        true if OF_ALL.contains(&path) => None,
        // It stores, on rings for lessons.
        true if path.starts_with("/store/") => Some(Role::Client),
        true => Some(Role::Reader),
        false => Some(if is_of_clients(method, path) { Role::Client } else { Role::Node }),
    }
}

fn is_of_clients(method: &Method, path: &str) -> bool {
    OF_CLIENTS.iter().any(|(known, route)| {
        *known == method.as_str() && if route.ends_with('/') { path.starts_with(route) } else { path == *route }
    })
}

/// The `host:port` that the sender has called, in lower case.
pub(super) fn called(request: &Request, usual_port: &str) -> String {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let host = host.to_ascii_lowercase();
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    if has_port { host } else { host + usual_port }
}

fn stranger(detail: String) -> ApiError {
    ApiError::new(Kind::Stranger, detail)
}

/// Signs an answer. One that comes bit by bit leaves unsigned: its end is not known yet.
async fn sign(response: Response, to: &Admitted, is_head: bool) -> Response {
    if response.body().size_hint().exact().is_none() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // It lies in memory already.
    let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else {
        return ApiError::new(Kind::Internal, "the answer could not be read to be signed").into_response();
    };
    // The body of an answer to HEAD never leaves.
    let seen: &[u8] = if is_head { b"" } else { &bytes };
    let mac = auth::reply_mac(&to.key, &to.nonce, parts.status.as_u16(), &parts.headers, seen);
    set(&mut parts.headers, &mac);
    Response::from_parts(parts, Body::from(bytes))
}

fn set(headers: &mut HeaderMap, mac: &[u8]) {
    // Hex digits are always a header.
    if let Ok(value) = HeaderValue::try_from(hex::encode(mac)) {
        headers.insert(auth::REPLY, value);
    }
}

/// A body that must have this digest; where it ends with another it fails.
struct Digested {
    body: Body,
    hasher: Sha256,
    digest: [u8; 32],
    has_ended: bool,
}

/// The body is not the one that was signed.
#[derive(Debug, thiserror::Error)]
#[error("the body is not the one that was signed: it was changed on its way")]
pub(super) struct WrongBody;

impl Digested {
    fn new(body: Body, digest: [u8; 32]) -> Digested {
        Digested { body, hasher: Sha256::new(), digest, has_ended: false }
    }
}

impl HttpBody for Digested {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(bytes) = frame.data_ref() {
                    self.hasher.update(bytes);
                }
            }
            Poll::Ready(Some(Err(_))) => self.has_ended = true,
            Poll::Ready(None) => {
                self.has_ended = true;
                if self.hasher.finalize_reset().as_slice() != self.digest {
                    return Poll::Ready(Some(Err(axum::Error::new(WrongBody))));
                }
            }
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        // Whoever reads must come to the end, where the digest is looked at.
        self.has_ended
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_route_takes() {
        let role = |method: Method, path: &str| needed(&method, path);
        assert_eq!(role(Method::GET, "/health/live"), None);
        assert_eq!(role(Method::GET, "/kv/a"), Some(Role::Reader));
        assert_eq!(role(Method::HEAD, "/kv/a"), Some(Role::Reader));
        assert_eq!(role(Method::POST, "/kv"), Some(Role::Client));
        assert_eq!(role(Method::GET, "/store/a"), Some(Role::Client));
        assert_eq!(role(Method::GET, "/dht/leave"), Some(Role::Node));
        assert_eq!(role(Method::HEAD, "/dht/leave"), Some(Role::Node));
        assert_eq!(role(Method::POST, "/peer"), Some(Role::Node));
        assert_eq!(role(Method::GET, "/peer"), Some(Role::Node));
        assert_eq!(role(Method::HEAD, "/peer"), Some(Role::Node));
        assert_eq!(role(Method::PUT, "/kv/a/b"), Some(Role::Client));
        assert_eq!(role(Method::POST, "/recover"), Some(Role::Node));
        assert_eq!(role(Method::POST, "/kv/"), Some(Role::Node), "what is not known is not for clients");
        assert_eq!(role(Method::POST, "/health/live"), Some(Role::Node), "nothing is served there");
    }

    #[test]
    fn the_routes_of_nodes_are_served() {
        let served = crate::http::table().served;
        assert!(OF_NODES.iter().all(|route| served.contains(route)));
        assert!(OF_ALL.iter().all(|path| served.contains(&("GET", path))));
    }

    #[test]
    fn the_host_that_was_called() {
        for (host, is) in [("H:1", "h:1"), ("h", "h:80"), ("[::1]", "[::1]:80"), ("[::1]:9", "[::1]:9"), ("", ":80")] {
            let request = Request::builder().header(header::HOST, host).body(Body::empty()).unwrap();
            assert_eq!(called(&request, ":80"), is);
        }
    }

    #[tokio::test]
    async fn a_body_must_be_the_one_that_was_signed() {
        let read = |body: &'static str, digest: &[u8]| {
            let body = Digested::new(Body::from(body), Sha256::digest(digest).into());
            axum::body::to_bytes(Body::new(body), 100)
        };
        assert_eq!(read("abc", b"abc").await.unwrap(), "abc");
        assert_eq!(read("", b"").await.unwrap(), "");
        for (body, signed) in [("abc", "abd"), ("", "a"), ("a", "")] {
            assert!(read(body, signed.as_bytes()).await.is_err(), "{body} {signed}");
        }
    }
}
