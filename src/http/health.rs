//! Whether the process lives, and whether the node does its part.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::{ApiError, Kind};
use crate::node::Node;

/// `GET /health/live`: answers as long as the process does, whatever the state of the ring.
pub(super) async fn live() -> Json<Value> {
    Json(json!({ "status": "live" }))
}

/// `GET /health/ready`: 503 with the reason while the node is not ready.
pub(super) async fn ready(State(node): State<Node>) -> Result<Json<Value>, ApiError> {
    match node.not_ready() {
        None => Ok(Json(json!({ "status": "ready" }))),
        Some(reason) => Err(ApiError::new(Kind::NotReady, reason)),
    }
}
