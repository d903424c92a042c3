//! What a node knows: itself, its predecessor, its successor. The two pointers can be rewired by hand.

use axum::Json;
use axum::extract::{Request, State};
use chordal_protocol::Contact;

use super::address::Address;
use super::{ApiError, Kind, body};
use crate::api::{NodeInfo, NodeRef};
use crate::node::Node;

/// The largest body that names a node.
pub(super) const ADDRESS_BODY: usize = 16 << 10;

/// `GET /nodeinfo`.
pub(super) async fn info(State(node): State<Node>) -> Result<Json<NodeInfo>, ApiError> {
    Ok(Json(node.info().await?))
}

/// `GET /pred`.
pub(super) async fn predecessor(State(node): State<Node>) -> Result<Json<NodeRef>, ApiError> {
    known(node.predecessor(), "this node knows no predecessor now: it is alone, or maintenance has yet to find one")
}

/// `GET /succ`.
pub(super) async fn successor(State(node): State<Node>) -> Result<Json<NodeRef>, ApiError> {
    known(
        node.successor(),
        "this node knows no successor now: it is alone, or it has lost its ring and rejoins by itself",
    )
}

/// `PUT /pred`: rewires the predecessor, which maintenance may heal again. Answers with the new one.
pub(super) async fn rewire_predecessor(State(node): State<Node>, request: Request) -> Result<Json<NodeRef>, ApiError> {
    let addr = named(request).await?;
    Ok(Json(NodeRef::from(&node.rewire_predecessor(&addr).await?)))
}

/// `PUT /succ`: rewires the successor, which maintenance may heal again. Answers with the new one.
pub(super) async fn rewire_successor(State(node): State<Node>, request: Request) -> Result<Json<NodeRef>, ApiError> {
    let addr = named(request).await?;
    Ok(Json(NodeRef::from(&node.rewire_successor(&addr).await?)))
}

async fn named(request: Request) -> Result<String, ApiError> {
    Address::from_body(&body::read(request, ADDRESS_BODY).await?)?.checked()
}

fn known(contact: Option<Contact>, why_not: &str) -> Result<Json<NodeRef>, ApiError> {
    match contact {
        Some(contact) => Ok(Json(NodeRef::from(&contact))),
        None => Err(ApiError::new(Kind::NoNeighbour, why_not)),
    }
}
