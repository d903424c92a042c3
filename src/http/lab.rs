//! The GETs of the labs that change something, or that a browser's address line makes easy: on lab rings only.
//!
//! A browser, a crawler or a preview may send a GET without anyone wanting it, so elsewhere they are refused.

use axum::Json;
use axum::extract::State;
use axum::http::{Method, Uri};

use super::query::{Plus, decode};
use super::{ApiError, Kind, content, membership};
use crate::api::{Left, LookedUp, Stored};
use crate::node::{Node, mint, storing};

/// `GET /store/{value}`.
pub(super) async fn store(State(node): State<Node>, method: Method, uri: Uri) -> Result<Json<Stored>, ApiError> {
    if !node.is_lab() {
        return Err(missing(r#"GET /store/{value}; use POST /dht/store with {"value": "…"}"#));
    }
    if method == Method::HEAD {
        return Err(head());
    }
    let value = rest_of_path(&uri, "/store/")?;
    let wish = storing(value.into_bytes(), None, None, node.value_limit(), mint())?;
    content::store_at_owner(&node, wish).await
}

/// `GET /lookup/{key}`.
pub(super) async fn lookup(State(node): State<Node>, uri: Uri) -> Result<Json<LookedUp>, ApiError> {
    if !node.is_lab() {
        return Err(missing("GET /lookup/{key}; use GET /dht/lookup?key=…"));
    }
    content::look_up(&node, &rest_of_path(&uri, "/lookup/")?).await
}

/// `GET /dht/leave`.
pub(super) async fn leave(state: State<Node>, method: Method) -> Result<Json<Left>, ApiError> {
    if !state.is_lab() {
        let detail =
            "a GET that changes something is served only on a ring that was created with --lab; use POST /dht/leave";
        return Err(ApiError::new(Kind::Method, detail).allowing("POST"));
    }
    if method == Method::HEAD {
        return Err(head());
    }
    membership::leave(state).await
}

fn missing(instead: &str) -> ApiError {
    ApiError::new(Kind::NoRoute, format!("only a ring that was created with --lab serves {instead}"))
}

fn head() -> ApiError {
    let detail = "this GET changes something, which a HEAD must not";
    ApiError::new(Kind::Method, detail).allowing("GET")
}

/// The text after `prefix`, slashes and all.
fn rest_of_path(uri: &Uri, prefix: &str) -> Result<String, ApiError> {
    decode(uri.path().strip_prefix(prefix).unwrap_or_default(), Plus::IsPlus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_in_a_path_may_have_slashes() {
        let rest = |path: &str| rest_of_path(&path.parse().unwrap(), "/store/");
        assert_eq!(rest("/store/a/b%2Fc+%3F%25").unwrap(), "a/b/c+?%");
        assert_eq!(rest("/store//").unwrap(), "/");
        assert!(rest("/store/%ff").is_err());
    }
}
