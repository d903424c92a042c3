//! The header `Request-Id`: the name of a wish, so that sending it again does not do it again.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use chordal_protocol::RequestId;

use super::{ApiError, Kind};
use crate::node::{check_minting, mint};

/// The header's name.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// The name that the sender gave, or a new one.
pub(super) fn of_or_new(headers: &HeaderMap) -> Result<RequestId, ApiError> {
    Ok(of(headers)?.unwrap_or_else(mint))
}

/// The name that the sender gave, if any.
pub(super) fn of(headers: &HeaderMap) -> Result<Option<RequestId>, ApiError> {
    let mut given = headers.get_all(REQUEST_ID).iter();
    match (given.next(), given.next()) {
        (None, _) => Ok(None),
        (Some(only), None) => parse(only.to_str().unwrap_or_default()).map(Some),
        (Some(_), Some(_)) => Err(ApiError::new(Kind::Malformed, "Request-Id stands there twice; a wish has one name")),
    }
}

/// Reads such a name.
pub(super) fn parse(text: &str) -> Result<RequestId, ApiError> {
    let how = "it is 32 hex digits: 16 for the time in milliseconds since 1970, at most a day ago, and 16 that nobody else \
               will choose, as in printf %016x $(date +%s%3N)";
    let id: RequestId = text.parse().map_err(|error| ApiError::new(Kind::Malformed, format!("{error}; {how}")))?;
    check_minting(id).map_err(|error| ApiError::new(Kind::Invalid, format!("{error}; {how}")))?;
    Ok(id)
}

/// The header for this name.
pub(super) fn header(id: RequestId) -> HeaderValue {
    // Hex digits are always a header.
    HeaderValue::try_from(id.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_or_none() {
        let headers = |values: &[&str]| -> HeaderMap {
            values.iter().map(|value| (REQUEST_ID, HeaderValue::from_str(value).unwrap())).collect()
        };
        let minted = mint();
        assert_eq!(of(&headers(&[])).unwrap(), None);
        assert_eq!(of(&headers(&[&minted.to_string()])).unwrap(), Some(minted));
        assert_eq!(header(minted), minted.to_string());
        let twice = [minted.to_string(), minted.to_string()];
        for (values, kind) in [
            (&[twice[0].as_str(), &twice[1]][..], Kind::Malformed),
            (&["12"], Kind::Malformed),
            (&[""], Kind::Malformed),
            (&["00112233445566778899aabbccddeeff"], Kind::Invalid),
            (&["00000000000000010000000000000001"], Kind::Invalid),
        ] {
            assert_eq!(of(&headers(values)).unwrap_err().kind(), kind, "{values:?}");
        }
        assert!(of_or_new(&headers(&[])).is_ok() && of_or_new(&headers(&["x"])).is_err());
    }
}
