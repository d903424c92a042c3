//! Storing, looking up and deleting through any node, which finds the owner: the labs' routes, and what they share with /kv.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri};
use chordal_protocol::{Contact, Content, Id, Record, Version, Write, Written};

use super::query::Params;
use super::{ApiError, Kind, body, request_id};
use crate::api::{LookedUp, NodeRef, StoreBody, Stored, Text};
use crate::node::{KEY_LIMIT, Node, deletion, storing};

/// JSON may need six bytes for one: `\u0000`.
const JSON_GROWTH: usize = 6;
/// Room for the names of the fields.
const JSON_FRAME: usize = 4 << 10;

/// `POST /dht/store`.
pub(super) async fn store(State(node): State<Node>, request: Request) -> Result<Json<Stored>, ApiError> {
    let wish = wish(&node, request).await?;
    store_at_owner(&node, wish).await
}

/// Stores what is wished for at its owner.
pub(super) async fn store_at_owner(node: &Node, wish: Write) -> Result<Json<Stored>, ApiError> {
    let id = wish.id;
    let (written, served) = node.write(wish).await?;
    stored(id, written, &served.owner, served.hops)
}

/// `GET /dht/lookup?value=…` or `?key=…`.
pub(super) async fn lookup(State(node): State<Node>, uri: Uri) -> Result<Json<LookedUp>, ApiError> {
    look_up(&node, &key_in_query(&uri)?).await
}

/// Fetches the value of a key from its owner.
pub(super) async fn look_up(node: &Node, key: &str) -> Result<Json<LookedUp>, ApiError> {
    let id = Id::of(key);
    let (record, served) = node.read(id).await?;
    looked_up(id, record, &served.owner, served.hops)
}

/// `DELETE /dht/delete?value=…` or `?key=…`.
pub(super) async fn delete(State(node): State<Node>, uri: Uri, headers: HeaderMap) -> Result<Json<Stored>, ApiError> {
    let id = Id::of(key_in_query(&uri)?);
    let (written, served) = node.write(deletion(id, request_id::of_or_new(&headers)?)).await?;
    stored(id, written, &served.owner, served.hops)
}

/// The write that the body of a request asks for: JSON `{"value", "key"?}`.
pub(super) async fn wish(node: &Node, request: Request) -> Result<Write, ApiError> {
    let limit = node.value_limit();
    let room = limit.saturating_add(KEY_LIMIT).saturating_mul(JSON_GROWTH).saturating_add(JSON_FRAME);
    let name = request_id::of_or_new(request.headers())?;
    let body: StoreBody =
        body::json(request, room, r#"{"value": "text", "key": "text"}; the key may be left out"#).await?;
    let value = bytes_of("value", &body.value)?;
    let key = body.key.as_ref().map(|key| bytes_of("key", key)).transpose()?;
    Ok(storing(value, key, None, limit, name)?)
}

/// The answer to a write.
pub(super) fn stored(id: Id, written: Written, owner: &Contact, hops: u32) -> Result<Json<Stored>, ApiError> {
    match written {
        Written::Done(version) => Ok(Json(Stored { id, owner: NodeRef::from(owner), version, hops })),
        Written::Refused(_) => Err(no_value(id)),
    }
}

/// The answer to a read.
pub(super) fn looked_up(
    id: Id,
    record: Option<Record>,
    owner: &Contact,
    hops: u32,
) -> Result<Json<LookedUp>, ApiError> {
    let (id, key, value, version) = record.as_ref().and_then(shown).ok_or_else(|| no_value(id))?;
    Ok(Json(LookedUp { id, key, value, owner: NodeRef::from(owner), version, hops }))
}

/// What is shown of a record, unless it is a tombstone: id, key, value, version.
pub(super) fn shown(record: &Record) -> Option<(Id, Text, Text, Version)> {
    let Content::Value { bytes, .. } = &record.content else { return None };
    let key = record.key.as_deref().unwrap_or(bytes);
    Some((record.id, Text::of(key), Text::of(bytes), record.version))
}

/// Nothing is stored there.
pub(super) fn no_value(id: Id) -> ApiError {
    ApiError::new(
        Kind::NoValue,
        format!("nothing is stored under the id {id}; is the key exactly the one it was stored with?"),
    )
}

/// The bytes of a field in JSON.
pub(super) fn bytes_of(name: &str, text: &Text) -> Result<Vec<u8>, ApiError> {
    text.bytes().map_err(|error| {
        let detail =
            format!("the base64 of the {name} cannot be read: {error}; use the standard alphabet, with padding");
        ApiError::new(Kind::Malformed, detail)
    })
}

fn key_in_query(uri: &Uri) -> Result<String, ApiError> {
    let mut params = Params::of(uri, &["value", "key"])?;
    match (params.take("value"), params.take("key")) {
        (Some(key), None) | (None, Some(key)) if !key.is_empty() => Ok(key),
        (Some(_), Some(_)) => Err(ApiError::new(Kind::Invalid, "give ?value= or ?key=, not both")),
        _ => Err(ApiError::new(
            Kind::Invalid,
            "say what: ?key=<its key>, or ?value=<the value> if it was stored without a key",
        )),
    }
}

#[cfg(test)]
mod tests {
    use chordal_protocol::Condition;

    use super::*;
    use crate::node::mint;

    fn write(value: Vec<u8>, key: Option<Vec<u8>>, limit: usize) -> Result<Write, ApiError> {
        Ok(storing(value, key, None, limit, mint())?)
    }

    fn kind(value: &str, key: Option<&str>) -> Kind {
        write(value.into(), key.map(Into::into), 5).unwrap_err().kind()
    }

    #[test]
    fn a_value_without_a_key_is_its_own_key() {
        for key in [None, Some(b"abc".to_vec())] {
            let write = write(b"abc".to_vec(), key, 5).unwrap();
            assert_eq!((write.id, write.key, write.condition), (Id::of("abc"), None, Condition::Always));
        }
        let write = write(b"abc".to_vec(), Some(b"k".to_vec()), 5).unwrap();
        assert_eq!((write.id, write.key), (Id::of("k"), Some(b"k".to_vec())));
    }

    #[test]
    fn the_content_type_follows_the_bytes() {
        for (bytes, expected) in [(&b"abc"[..], "text/plain; charset=utf-8"), (b"\xff", "application/octet-stream")] {
            let Content::Value { content_type, .. } = write(bytes.to_vec(), None, 5).unwrap().content else { panic!() };
            assert_eq!(content_type, expected);
        }
    }

    #[test]
    fn sizes_are_checked_to_the_byte() {
        assert!(write(b"12345".to_vec(), None, 5).is_ok());
        assert_eq!(kind("123456", None), Kind::TooLarge);
        assert!(write(Vec::new(), Some(b"k".to_vec()), 5).is_ok());
        assert_eq!(kind("", None), Kind::Invalid);
        assert_eq!(kind("v", Some("")), Kind::Invalid);
        assert!(write(b"v".to_vec(), Some(vec![b'k'; KEY_LIMIT]), 5).is_ok());
        assert_eq!(kind("v", Some(&"k".repeat(KEY_LIMIT + 1))), Kind::TooLarge);
    }

    #[test]
    fn a_lookup_names_one_thing() {
        let key = |query: &str| key_in_query(&format!("/dht/lookup{query}").parse().unwrap());
        assert_eq!(key("?value=a%2Fb").unwrap(), "a/b");
        assert_eq!(key("?key=a+b").unwrap(), "a b");
        for query in ["", "?", "?key=", "?value", "?key=a&value=b"] {
            assert_eq!(key(query).unwrap_err().kind(), Kind::Invalid, "{query}");
        }
    }

    #[test]
    fn a_record_is_shown_unless_it_is_gone() {
        let Write { id, key, content, request, .. } = write(b"v\xff".to_vec(), Some(b"k".to_vec()), 5).unwrap();
        let record = Record { id, key, content, version: Version::default(), request };
        let (_, key, value, _) = shown(&record).unwrap();
        assert_eq!((key, value), (Text::Plain("k".into()), Text::Base64 { base64: "dv8=".into() }));
        let gone = Record { content: Content::Tombstone, ..record };
        let owner = Contact::at("127.0.0.1:1", "");
        assert_eq!(looked_up(id, Some(gone), &owner, 0).unwrap_err().kind(), Kind::NoValue);
        assert_eq!(stored(id, Written::Refused(None), &owner, 0).unwrap_err().kind(), Kind::NoValue);
    }
}
