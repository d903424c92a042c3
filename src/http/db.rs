//! What a node holds, page by page.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use chordal_protocol::{Id, Record};

use super::query::Params;
use super::{ApiError, Kind, content};
use crate::api::{DbItem, DbPage};
use crate::node::Node;

/// How many values a page has if the client does not say.
const USUAL: usize = 100;
/// How many it has at most.
const MOST: usize = 1000;
/// A page that has so many bytes of keys and values is full, whatever its number of values.
const FULL: usize = 4 << 20;
/// How many records are fetched first; then twice as many, and so on, so that large ones are noticed early.
const FIRST_FETCH: usize = 16;

/// `GET /db?after=<id>&limit=<n>`: values in id order. A page may be shorter than `limit`; the last has no `next`.
pub(super) async fn page(State(node): State<Node>, uri: Uri) -> Result<Json<DbPage>, ApiError> {
    let mut params = Params::of(&uri, &["after", "limit"])?;
    let mut after: Option<Id> = params.parse("after", "an id of 64 hex digits, the `next` of the page before")?;
    let limit = limit(&mut params)?;
    let (mut items, mut bytes, mut fetch) = (Vec::new(), 0, FIRST_FETCH);
    loop {
        let records = node.page(after, fetch).await?;
        if records.is_empty() {
            return Ok(Json(DbPage { items, next: None }));
        }
        for record in records {
            if items.len() == limit || bytes >= FULL {
                return Ok(Json(DbPage { items, next: after }));
            }
            after = Some(record.id);
            bytes += size(&record);
            items.extend(item(&record));
        }
        fetch = (fetch * 2).min(limit.saturating_sub(items.len()) + 1);
    }
}

fn limit(params: &mut Params) -> Result<usize, ApiError> {
    match params.parse("limit", "a number from 1 to 1000")? {
        Some(0) => {
            Err(ApiError::new(Kind::Invalid, "a page of 0 values leads nowhere; limit is a number from 1 to 1000"))
        }
        Some(limit) => Ok(MOST.min(limit)),
        None => Ok(USUAL),
    }
}

fn item(record: &Record) -> Option<DbItem> {
    content::shown(record).map(|(id, key, value, version)| DbItem { id, key, value, version })
}

fn size(record: &Record) -> usize {
    let value = record.content.len();
    value + record.key.as_ref().map_or(value, Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_bounded() {
        let limit = |query: &str| {
            let uri: Uri = format!("/db{query}").parse().unwrap();
            limit(&mut Params::of(&uri, &["limit"])?)
        };
        for (query, expected) in [("", 100), ("?limit=1", 1), ("?limit=1000", 1000), ("?limit=5000", 1000)] {
            assert_eq!(limit(query).unwrap(), expected);
        }
        for query in ["?limit=0", "?limit=-1", "?limit=x", "?limit="] {
            assert!(limit(query).is_err(), "{query}");
        }
    }
}
