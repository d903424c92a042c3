//! Joining and leaving.

use axum::Json;
use axum::extract::{Request, State};

use super::address::Address;
use super::neighbours::ADDRESS_BODY;
use super::{ApiError, body};
use crate::api::{Left, NodeRef, Welcomed};
use crate::node::Node;

/// `POST /dht/join`: takes the node at the named address into the ring; answers once it has joined.
pub(super) async fn join(State(node): State<Node>, request: Request) -> Result<Json<Welcomed>, ApiError> {
    let example = r#"{"host": "127.0.0.1", "port": 9000}"#;
    let joiner: Address = body::json(request, ADDRESS_BODY, example).await?;
    let (joined, welcomed_by) = node.welcome(&joiner.checked()?).await?;
    Ok(Json(Welcomed { joined: NodeRef::from(&joined), welcomed_by: NodeRef::from(&welcomed_by) }))
}

/// `POST /dht/leave`: answers once others keep what it kept; the node then stops.
pub(super) async fn leave(State(node): State<Node>) -> Result<Json<Left>, ApiError> {
    node.leave().await?;
    Ok(Json(Left { left: NodeRef::from(&node.contact()) }))
}
