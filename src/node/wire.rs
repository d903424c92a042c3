//! How messages between nodes are written: two bytes of version, then postcard.

use chordal_protocol::{Envelope, Reply, WIRE_VERSION};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// The other side speaks another version.
    #[error(
        "it speaks wire version {theirs}, this node speaks {WIRE_VERSION}: run the same release of chordal on both"
    )]
    Version {
        /// The other side's version.
        theirs: u16,
    },
    /// The bytes make no sense.
    #[error("the message is damaged or from something else: {0}")]
    Damaged(String),
}

pub(crate) fn encode_envelope(envelope: &Envelope) -> Vec<u8> {
    encode(envelope)
}

pub(crate) fn decode_envelope(bytes: &[u8]) -> Result<Envelope, WireError> {
    decode(bytes)
}

pub(crate) fn encode_reply(reply: &Reply) -> Vec<u8> {
    encode(reply)
}

pub(crate) fn decode_reply(bytes: &[u8]) -> Result<Reply, WireError> {
    decode(bytes)
}

fn encode(message: &impl Serialize) -> Vec<u8> {
    let start = WIRE_VERSION.to_be_bytes().to_vec();
    postcard::to_extend(message, start).unwrap_or_else(|error| {
        // Messages hold nothing that postcard cannot write (no maps of unknown length, no floats of odd widths).
        tracing::error!(%error, "a message could not be written");
        WIRE_VERSION.to_be_bytes().to_vec()
    })
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let damaged = |text: &str| WireError::Damaged(text.to_owned());
    let (version, message) = bytes.split_first_chunk::<2>().ok_or_else(|| damaged("it is too short"))?;
    let theirs = u16::from_be_bytes(*version);
    if theirs != WIRE_VERSION {
        return Err(WireError::Version { theirs });
    }
    postcard::from_bytes(message).map_err(|error| damaged(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use chordal_protocol::{Contact, Request};

    use super::*;

    fn envelope() -> Envelope {
        Envelope { ring: None, from: Contact::at("127.0.0.1:1", "a"), request: Request::Hello }
    }

    #[test]
    fn messages_read_back() {
        let bytes = encode_envelope(&envelope());
        assert_eq!(decode_envelope(&bytes), Ok(envelope()));
        assert_eq!(decode_reply(&encode_reply(&Reply::Accepted)), Ok(Reply::Accepted));
    }

    #[test]
    fn another_version_is_named_and_garbage_refused() {
        let mut bytes = encode_envelope(&envelope());
        bytes[1] += 1;
        assert_eq!(decode_envelope(&bytes), Err(WireError::Version { theirs: WIRE_VERSION + 1 }));
        let of_ours = |rest: &[u8]| [&WIRE_VERSION.to_be_bytes(), rest].concat();
        for garbage in [vec![], vec![0], of_ours(b""), of_ours(&[0xff; 11])] {
            assert!(matches!(decode_envelope(&garbage), Err(WireError::Damaged(_))), "{garbage:?}");
        }
    }
}
