//! What a node asks others that looks for the address to tell, or wants to know whether it is reached there, and what it is asked
//! itself meanwhile.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::{Json, Router};

use super::authenticate::{Ends, Gate};
use super::{ApiError, Kind, answering_before_start, body, health, layered};
use crate::api::{Challenge, Response, Seen, SeenBody};
use crate::auth::Security;
use crate::node::{Node, NotCalledBack, Proof};

/// The largest body of either.
const BODY: usize = 1 << 10;

/// `POST /seen`: from where this node sees the one that asks, which it calls back if that is wanted.
pub(super) async fn seen(State(node): State<Node>, request: Request) -> Result<Json<Seen>, ApiError> {
    let ends = request.extensions().get::<Ends>().copied();
    let asked: SeenBody =
        body::json(request, BODY, r#"{}, or {"call_back": {"port": 4000, "challenge": "…"}}"#).await?;
    let Some(ends) = ends else {
        let detail =
            "this node is served by something that does not tell it from where a request comes; ask another one";
        return Err(ApiError::new(Kind::Unavailable, detail));
    };
    node.seen_from(ends.remote.ip(), asked.call_back.as_ref()).await.map(Json).map_err(|refusal| {
        let kind = if refusal == NotCalledBack::Busy { Kind::TooMany } else { Kind::Invalid };
        ApiError::new(kind, refusal.to_string())
    })
}

/// `POST /challenge`: proves that this is the node that has made the challenge.
pub(super) async fn challenge(State(node): State<Node>, request: Request) -> Result<Json<Response>, ApiError> {
    proven(request, |asked| node.proves(asked)).await
}

/// What a node answers that looks for its address: the challenge that it has made, and nothing else yet.
pub(crate) fn before_start(security: &Security, proof: Proof) -> Router {
    let challenge =
        async |State(proof): State<Arc<Proof>>, request: Request| proven(request, |asked| proof.response(asked)).await;
    let router = Router::new()
        .route("/challenge", axum::routing::post(challenge))
        .route("/health/live", axum::routing::get(health::live))
        .with_state(Arc::new(proof));
    let router = answering_before_start(router);
    // Whatever address it was called at, only somebody who was told the challenge gets the response.
    layered(match Gate::by_any_name(security) {
        Some(gate) => router.layer(axum::middleware::from_fn_with_state(gate, super::authenticate::authenticate)),
        None => router,
    })
}

async fn proven(
    request: Request,
    prove: impl FnOnce(&Challenge) -> Option<Response>,
) -> Result<Json<Response>, ApiError> {
    let asked: Challenge = body::json(request, BODY, r#"{"challenge": "…"}"#).await?;
    prove(&asked).map(Json).ok_or_else(|| ApiError::new(Kind::Conflict, "this node has not made that challenge"))
}
