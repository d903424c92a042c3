//! Values by their keys, for programs that run a node: what /kv is for others.

use chordal_protocol::{Condition, Content, Id, RequestId, Write, Written};

use super::{Node, NodeError, mint};
use crate::api::{ETag, fitting_type};
use crate::client::{Outcome, Value};

/// The longest key, in bytes. Values without a key are their own keys and may be longer.
pub(crate) const KEY_LIMIT: usize = 64 << 10;

/// Keys are 1 to 65,536 bytes, values at most [`Node::value_limit`]; what is longer is [`NodeError::TooLarge`]. What cannot be done
/// at once, while the nodes of a range change or too few of them answer, is tried for 10 s
/// ([`Config::operation_deadline`](super::Config)); then it is [`NodeError::Unavailable`], and nothing has changed, or for a write
/// [`NodeError::Deadline`], and it may have happened.
impl Node {
    /// The value of a key, from wherever it is; `None` if nothing is stored there. It is the latest: no write that was acknowledged
    /// before is missed.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value>, NodeError> {
        let (record, _) = self.read(id_of_key(key.as_ref())?).await?;
        Ok(record.and_then(|record| match record.content {
            Content::Value { bytes, content_type } => Some(Value { bytes, content_type, etag: ETag(record.version) }),
            Content::Tombstone => None,
        }))
    }

    /// Stores a value under a key, whatever is there, and gives the tag of its version. When this returns, the value is durable at a
    /// majority of the nodes that keep the key.
    pub async fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Vec<u8>>) -> Result<ETag, NodeError> {
        let write = storing(value.into(), Some(key.as_ref().to_vec()), None, self.value_limit(), mint())?;
        match self.write(write).await? {
            (Written::Done(version), _) => Ok(ETag(version)),
            (Written::Refused(_), served) => {
                let reason = "it sees a condition in a write that has none".to_owned();
                Err(NodeError::Peer { addr: served.owner.addr, reason })
            }
        }
    }

    /// Stores a value if the condition holds, which the owner looks at in the same moment. Without a content type it gets the one
    /// of text or of bytes, whichever it is.
    pub async fn put_if(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Vec<u8>>,
        content_type: Option<&str>,
        condition: Condition,
    ) -> Result<Outcome, NodeError> {
        let (key, content_type) = (key.as_ref().to_vec(), content_type.map(str::to_owned));
        let write = storing(value.into(), Some(key), content_type, self.value_limit(), mint())?;
        Ok(match self.write(Write { condition, ..write }).await?.0 {
            Written::Done(version) => Outcome::Done(ETag(version)),
            Written::Refused(now) => Outcome::Refused(now.map(ETag)),
        })
    }

    /// Stores a value if the one there has this tag, or if there is none (`None`): nobody has written since it was read.
    pub async fn compare_and_set(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<ETag>,
        value: impl Into<Vec<u8>>,
    ) -> Result<Outcome, NodeError> {
        let condition = expected.map_or(Condition::Absent, |etag| Condition::Is(etag.0));
        self.put_if(key, value, None, condition).await
    }

    /// Deletes the value of a key, and says whether there was one.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, NodeError> {
        let (written, _) = self.write(deletion(id_of_key(key.as_ref())?, mint())).await?;
        Ok(matches!(written, Written::Done(_)))
    }
}

/// What to do about a value that is too large.
pub(crate) const VALUE_ADVICE: &str =
    "that is what this ring takes, for it was begun with that --value-limit: store it in parts";

/// The write that stores a value, under its key if it has one, whatever is there. Without a content type it gets the fitting one.
pub(crate) fn storing(
    value: Vec<u8>,
    key: Option<Vec<u8>>,
    content_type: Option<String>,
    limit: usize,
    request: RequestId,
) -> Result<Write, NodeError> {
    if value.len() > limit {
        return Err(NodeError::TooLarge { what: "value", bytes: value.len(), limit, advice: VALUE_ADVICE });
    }
    let key = key.filter(|key| *key != value);
    let id = match &key {
        Some(key) => id_of_key(key)?,
        None if value.is_empty() => return Err(no_key()),
        // It may be longer than other keys: it is kept once.
        None => Id::of(&value),
    };
    let content_type = content_type.unwrap_or_else(|| fitting_type(&value).to_owned());
    let content = Content::Value { bytes: value, content_type };
    Ok(Write { id, key, content, condition: Condition::Always, request })
}

/// The write that deletes a value, if there is one.
pub(crate) fn deletion(id: Id, request: RequestId) -> Write {
    Write { id, key: None, content: Content::Tombstone, condition: Condition::Exists, request }
}

/// The id of a key, if it is one.
pub(crate) fn id_of_key(key: &[u8]) -> Result<Id, NodeError> {
    if key.is_empty() {
        return Err(no_key());
    }
    if key.len() > KEY_LIMIT {
        let advice = "use a hash of it";
        return Err(NodeError::TooLarge { what: "key", bytes: key.len(), limit: KEY_LIMIT, advice });
    }
    Ok(Id::of(key))
}

fn no_key() -> NodeError {
    let reason = "an empty text is no key: give the value a key, or a key with something in it".to_owned();
    NodeError::Invalid { reason }
}
