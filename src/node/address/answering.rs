//! A node that looks for its address answers on its port already: whoever calls it back there sees that it is this node.

use std::io;
use std::net::TcpListener as StdListener;
use std::os::fd::AsFd as _;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::auth::Security;
use crate::http;
use crate::node::call_back::Proof;

/// The answers on the port, as long as the address is looked for.
pub(super) struct Answering {
    /// What is told to those who are to call back.
    pub(super) challenge: String,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Answering {
    /// Answers to whoever comes to `listener`, which can be used as ever when that has ended.
    pub(super) fn start(listener: &TcpListener, security: &Security) -> io::Result<Answering> {
        let socket = StdListener::from(listener.as_fd().try_clone_to_owned()?);
        let listener = TcpListener::from_std(socket)?;
        let proof = Proof::new();
        let challenge = proof.challenge();
        let (router, stop) = (http::before_start(security, proof), CancellationToken::new());
        let limits = http::Limits { clients: security.limits, ..http::Limits::default() };
        let (token, tls) = (stop.clone(), security.tls.clone());
        let served = tokio::spawn(async move {
            let served = match tls {
                Some(tls) => http::serve_tls(listener, router, limits, &tls, token).await,
                None => http::serve(listener, router, limits, token).await,
            };
            if let Err(error) = served {
                tracing::warn!(%error, "nobody could be answered while the address was looked for");
            }
        });
        Ok(Answering { challenge, stop, served })
    }

    /// Ends it; what comes from then on waits for the node.
    pub(super) async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.served.await {
            tracing::warn!(%error, "the answers on the port have not ended in order");
        }
    }
}
