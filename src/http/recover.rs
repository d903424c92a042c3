//! What an operator may do about a range that has lost its majority for good.

use axum::Json;
use axum::extract::{Request, State};

use super::{ApiError, body};
use crate::api::{Recovered, Recovery};
use crate::node::Node;

/// The largest body: a range and the ids of all members that a view can have.
const BODY: usize = 16 << 10;

/// `POST /recover`: answers once the view that was made serves.
pub(super) async fn recover(State(node): State<Node>, request: Request) -> Result<Json<Recovered>, ApiError> {
    let example = r#"{"lo": "<64 hex digits>", "hi": "<64 hex digits>", "epoch": 7, "survivors": ["<64 hex digits>"], "accept_loss": true}"#;
    let wish: Recovery = body::json(request, BODY, example).await?;
    Ok(Json(node.recover(&wish).await?))
}
