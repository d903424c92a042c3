//! The server: connections in, requests to the routes, all of it bounded.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::Limits;
use super::authenticate::Ends;
use super::calls::{Onward, Taking};
use super::connection::{Answer, Watch, Watched};
use super::places::{Admission, Hold, Place, Places, Refusal, Share, refuse};
use crate::auth::{Tls, role_of};

/// The largest request line and headers together, and what hyper buffers at most of an answer.
const BUFFER: usize = 128 << 10;
/// How long the first failure to accept pauses accepting, and the longest pause.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// How long a new connection waits for the place of one that was told to go.
const PATIENCE: Duration = Duration::from_secs(1);

/// Serves `router` to whoever connects to `listener`, over HTTP/1, until `shutdown`.
///
/// Connections send at once (TCP_NODELAY), stay open between requests, and are bounded in number and in time by
/// `limits`: when there are too many, the one that was idle for longest makes room; when none is idle, the new one gets a
/// 503. A failure to accept, such as running out of descriptors, pauses accepting and never ends it.
///
/// On `shutdown` nothing more is accepted, idle connections close, and requests that are under way get
/// [`Limits::shutdown`] to finish; then all connections are cut. Returns when that is done.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    serve_from(listener, router, limits, None, shutdown).await;
    Ok(())
}

/// The same over mutual TLS: who shows no certificate of the ring's authority is cut off before it can ask.
pub async fn serve_tls(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    tls: &Tls,
    shutdown: CancellationToken,
) -> io::Result<()> {
    // Connections that stay open must hear of new certificates as well.
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(tls.clone().keep_looking()));
    serve_from(listener, router, limits, Some(tls.clone()), shutdown).await;
    Ok(())
}

/// What a connection is read from and written to, with or without TLS.
trait Socket: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Socket for S {}

/// Where connections come from.
trait Source {
    fn next(&mut self) -> impl Future<Output = io::Result<TcpStream>> + Send;
}

impl Source for TcpListener {
    async fn next(&mut self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

async fn serve_from(
    mut source: impl Source,
    router: Router,
    limits: Limits,
    tls: Option<Tls>,
    shutdown: CancellationToken,
) {
    let server = Arc::new(Server::new(router, limits, tls, shutdown.clone()));
    let mut pause = PAUSE.0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = source.next() => accepted,
        };
        match accepted {
            Ok(stream) => {
                pause = PAUSE.0;
                server.admit(stream);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, pause_ms = pause.as_millis(), "cannot accept connections");
                server.places.evict_idlest();
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = sleep(pause) => pause = (pause * 2).min(PAUSE.1),
                }
            }
        }
    }
    drop(source);
    server.finish().await;
}

/// Whether the failure is that of a client that went away while it waited.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as E;
    matches!(error.kind(), E::ConnectionAborted | E::ConnectionReset | E::ConnectionRefused | E::Interrupted)
}

struct Server {
    router: Router,
    limits: Limits,
    tls: Option<Tls>,
    http: http1::Builder,
    places: Arc<Places>,
    /// Ends keep-alive.
    shutdown: CancellationToken,
    /// Ends everything.
    cut: CancellationToken,
}

impl Server {
    fn new(router: Router, limits: Limits, tls: Option<Tls>, shutdown: CancellationToken) -> Server {
        let mut http = http1::Builder::new();
        // The watch keeps the time; hyper's timer is there for its Date header and for what it may need one later.
        http.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(BUFFER).half_close(true);
        Server { router, limits, tls, http, places: Places::new(limits), shutdown, cut: CancellationToken::new() }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream) {
        // Without it small answers wait for the client's delayed acknowledgement. A socket that refuses is dead.
        let _ = stream.set_nodelay(true);
        let Ok(remote) = stream.peer_addr() else { return };
        let Some(share) = self.places.share(remote.ip()) else {
            if let Some(permit) = self.places.refusal() {
                let server = self.clone();
                self.places.spawn(async move {
                    server.refuse(stream, Refusal::Greedy).await;
                    drop(permit);
                });
            }
            return;
        };
        match self.places.admit() {
            Admission::Now(place) => {
                self.places.spawn(self.clone().converse(stream, share, place));
            }
            Admission::Soon(ticket) => {
                let server = self.clone();
                self.places.spawn(async move {
                    match timeout(PATIENCE, ticket.place()).await {
                        Ok(Some(place)) => server.converse(stream, share, place).await,
                        _ => server.refuse(stream, Refusal::Full).await,
                    }
                });
            }
            Admission::Never(Some(permit)) => {
                let server = self.clone();
                self.places.spawn(async move {
                    server.refuse(stream, Refusal::Full).await;
                    drop((permit, share));
                });
            }
            Admission::Never(None) => drop(stream),
        }
    }

    /// Tells a client that there is no room. One that waits for TLS would not understand it.
    async fn refuse(&self, stream: TcpStream, why: Refusal) {
        if self.tls.is_none() {
            refuse(stream, why).await;
        }
    }

    /// Serves one connection to its end.
    async fn converse(self: Arc<Self>, stream: TcpStream, _share: Share, place: Place) {
        // A socket that does not know its ends is dead.
        let (Ok(local), Ok(remote)) = (stream.local_addr(), stream.peer_addr()) else { return };
        let ends = Ends { local, remote, role: None };
        let Some(tls) = &self.tls else { return self.talk(stream, ends, place, &CancellationToken::new()).await };
        let tls = tls.now();
        let greeted = tokio::select! {
            () = self.shutdown.cancelled() => return,
            greeted = timeout(self.limits.header, TlsAcceptor::from(Arc::clone(&tls.server)).accept(stream)) => greeted,
        };
        match greeted {
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let role = shown.and_then(role_of);
                self.talk(stream, Ends { role, ..ends }, place, &tls.over).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, %remote, "no TLS came about"),
            Err(_) => tracing::debug!(%remote, "no TLS came about in time"),
        }
    }

    /// `over` is cancelled when the certificate that the connection was begun with has been replaced.
    async fn talk<S: Socket>(&self, stream: S, ends: Ends, place: Place, over: &CancellationToken) {
        let onward = Arc::new(OnceLock::new());
        let ended = self.talk_http(stream, ends, &place, over, &onward).await;
        if let (true, Some(onward)) = (ended, onward.get()) {
            self.take_calls::<S>(onward.clone(), place, over).await;
        }
    }

    /// Answers requests; whether the connection ended by itself, which it does also when it is upgraded.
    async fn talk_http<S: Socket>(
        &self,
        stream: S,
        ends: Ends,
        place: &Place,
        over: &CancellationToken,
        onward: &Arc<OnceLock<Onward>>,
    ) -> bool {
        let watch = place.watch();
        let service = service_fn(|request| self.answer(request, ends, &watch, place.hold(), Arc::clone(onward)));
        let socket = TokioIo::new(Watched::new(stream, watch.clone()));
        let mut talk = pin!(self.http.serve_connection(socket, service).with_upgrades());
        let talking = |closing, cx: &mut Context<'_>| {
            if closing {
                talk.as_mut().graceful_shutdown();
            }
            talk.as_mut().poll(cx).map(|_| ())
        };
        self.until_over(&watch, over, talking).await
    }

    /// Goes on with calls on a connection that was upgraded for them.
    async fn take_calls<S: Socket>(&self, onward: Onward, place: Place, over: &CancellationToken) {
        let Ok(upgraded) = onward.upgrade.await else { return };
        let Ok(parts) = upgraded.downcast::<TokioIo<Watched<S>>>() else { return };
        let (socket, watch) = (parts.io.into_inner().into_inner(), place.watch());
        let mut taking = Taking::new(onward.calls, socket, &parts.read_buf, watch.clone(), place.hold());
        watch.answered();
        self.until_over(&watch, over, |closing, cx| taking.poll(closing, cx)).await;
    }

    /// Polls a connection until it has ended or must end; whether it ended by itself. It is told to close, and to finish what is under
    /// way, when the server stops, its place is needed, or its certificate is over.
    async fn until_over(
        &self,
        watch: &Watch,
        over: &CancellationToken,
        mut connection: impl FnMut(bool, &mut Context<'_>) -> Poll<()>,
    ) -> bool {
        let mut alarm = pin!(sleep_until(Instant::now() + self.limits.idle));
        let mut closing = false;
        loop {
            tokio::select! {
                biased;
                () = self.cut.cancelled() => return false,
                () = self.shutdown.cancelled(), if !closing => closing = true,
                () = over.cancelled(), if !closing => closing = true,
                () = watch.eviction(), if !closing => {
                    if !watch.is_busy() {
                        return false;
                    }
                    closing = true;
                }
                ended = poll_fn(|cx| match connection(closing, cx) {
                    Poll::Ready(()) => Poll::Ready(true),
                    Poll::Pending => watch.poll_overdue(alarm.as_mut(), cx).map(|()| false),
                }) => return ended,
            }
        }
    }

    fn answer(
        &self,
        request: Request<Incoming>,
        ends: Ends,
        watch: &Arc<Watch>,
        hold: Hold,
        onward: Arc<OnceLock<Onward>>,
    ) -> impl Future<Output = Result<Response<Answer>, std::convert::Infallible>> + use<> {
        watch.asked();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.limits);
        request.extensions_mut().insert(hold);
        request.extensions_mut().insert(ends);
        let (answer, watch) = (self.router.clone().oneshot(request), watch.clone());
        async move {
            let mut response = answer.await?;
            if let Some(calls) = response.extensions_mut().remove::<Onward>() {
                // There is nothing to be asked after it in HTTP, so it comes once.
                let _ = onward.set(calls);
            }
            Ok(response.map(|body| Answer::new(body, watch)))
        }
    }

    /// Waits for what is under way, and cuts what takes too long.
    async fn finish(&self) {
        if timeout(self.limits.shutdown, self.places.all_empty()).await.is_err() {
            tracing::warn!("some requests did not finish in time and were cut off");
            self.cut.cancel();
            // They are gone as soon as they were polled once more; work that outlives its connection is not waited for.
            let _ = timeout(Duration::from_millis(100), self.places.all_empty()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tests::{Raw, get, soon};

    /// Fails as often as it is told to before it accepts.
    struct Failing(TcpListener, Vec<io::Error>);

    impl Source for Failing {
        async fn next(&mut self) -> io::Result<TcpStream> {
            match self.1.pop() {
                Some(error) => Err(error),
                None => self.0.next().await,
            }
        }
    }

    #[tokio::test]
    async fn failures_to_accept_pause_the_server_and_do_not_end_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        const TOO_MANY_OPEN_FILES: i32 = 24;
        let mut errors: Vec<_> = (0..3).map(|_| io::Error::from_raw_os_error(TOO_MANY_OPEN_FILES)).collect();
        errors.extend((0..100).map(|_| io::ErrorKind::ConnectionAborted.into()));
        let router = Router::new().route("/", axum::routing::get(|| async { "here" }));
        let (stop, start) = (CancellationToken::new(), Instant::now());
        let server = tokio::spawn(serve_from(Failing(listener, errors), router, Limits::default(), None, stop.clone()));
        assert_eq!(Raw::connect(addr).await.ask(&get("/")).await.body, "here");
        // 20, 40 and 80 ms for want of descriptors, and none for clients that went away.
        assert!((Duration::from_millis(140)..Duration::from_secs(3)).contains(&start.elapsed()));
        stop.cancel();
        soon(server).await.unwrap();
    }
}
