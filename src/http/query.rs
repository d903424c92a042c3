//! What stands in the request line: query parameters and ids in paths.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::Uri;
use axum::http::request::Parts;
use chordal_protocol::Id;

use super::{ApiError, Kind};

/// The parameters of a query, decoded; each at most once, and none that the route does not know.
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    /// Reads the query of `uri` as a form: `+` is a space and `%XX` a byte of UTF-8.
    pub(crate) fn of(uri: &Uri, known: &[&str]) -> Result<Params, ApiError> {
        let mut params: Vec<(String, String)> = Vec::new();
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name, Plus::IsSpace)?, decode(value, Plus::IsSpace)?);
            if !known.contains(&name.as_str()) {
                let detail = format!(
                    "the parameter {name:?} is not known here, only {}; an & within a value is written %26",
                    known.join(", ")
                );
                return Err(ApiError::new(Kind::Malformed, detail));
            }
            if params.iter().any(|(seen, _)| *seen == name) {
                return Err(ApiError::new(Kind::Malformed, format!("the parameter {name:?} stands there twice")));
            }
            params.push((name, value));
        }
        Ok(Params(params))
    }

    /// Takes the value of a parameter out.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Takes a parameter out and parses it; `what` says how it should look.
    pub(crate) fn parse<T: std::str::FromStr>(&mut self, name: &str, what: &str) -> Result<Option<T>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| ApiError::new(Kind::Malformed, format!("{name}={text} cannot be read: {name} is {what}"))),
        }
    }
}

/// What a plus sign stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Plus {
    /// A space, as in a query.
    IsSpace,
    /// Itself, as in a path.
    IsPlus,
}

/// Undoes percent-encoding. A percent sign without two hex digits, or bytes that are not UTF-8, are an error.
pub(super) fn decode(text: &str, plus: Plus) -> Result<String, ApiError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'+' if plus == Plus::IsSpace => bytes.push(b' '),
            b'%' => {
                let mut byte = [0];
                let digits = tail.get(..2).filter(|digits| hex::decode_to_slice(digits, &mut byte).is_ok());
                if digits.is_none() {
                    let detail = "a % in the address is not followed by two hex digits; a % itself is written %25";
                    return Err(ApiError::new(Kind::Malformed, detail));
                }
                bytes.push(byte[0]);
                rest = &tail[2..];
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| {
        let detail = "the address is not UTF-8 once its percent-encoding is undone; \
                      what was stored under other bytes is found by its id: GET /find/{id}, GET /get/{id}";
        ApiError::new(Kind::Malformed, detail)
    })
}

/// The id that is the only parameter of a path.
pub(super) struct PathId(pub(super) Id);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<PathId, ApiError> {
        let refusal = |why: String| ApiError::new(Kind::Malformed, format!("the path does not end with an id: {why}"));
        let params =
            RawPathParams::from_request_parts(parts, state).await.map_err(|error| refusal(error.to_string()))?;
        let text = params.iter().next().map_or("", |(_, text)| text);
        text.parse().map(PathId).map_err(|error: chordal_protocol::ParseIdError| {
            refusal(format!("{error}. GET /find?key=… tells the id of a key"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(query: &str) -> Result<Option<String>, ApiError> {
        let uri: Uri = format!("/x?{query}").parse().unwrap();
        Params::of(&uri, &["value", "limit"]).map(|mut params| params.take("value"))
    }

    #[test]
    fn values_survive_the_query() {
        for (query, expected) in [
            ("", None),
            ("limit=1", None),
            ("value", Some("")),
            ("value=", Some("")),
            ("value=a/b?c", Some("a/b?c")),
            ("limit=1&value=a+b%2Bc%25&", Some("a b+c%")),
            ("value=%26%3D=", Some("&==")),
            ("value=%C3%BC%E2%82%ac", Some("ü€")),
            ("value=%00", Some("\0")),
        ] {
            assert_eq!(value(query).unwrap().as_deref(), expected, "{query}");
        }
        let uri = Uri::from_maybe_shared("/x?value=ü".as_bytes()).unwrap();
        assert_eq!(Params::of(&uri, &["value"]).unwrap().take("value").as_deref(), Some("ü"));
    }

    #[test]
    fn a_bad_query_is_refused() {
        for query in ["value=%", "value=%4", "value=%zz", "value=%ff", "value=a&b", "valeu=a", "value=1&value=2", "%=1"]
        {
            assert_eq!(value(query).unwrap_err().kind(), Kind::Malformed, "{query}");
        }
    }

    #[test]
    fn numbers_are_parsed() {
        let limit = |query: &str| {
            let uri: Uri = format!("/x?{query}").parse().unwrap();
            Params::of(&uri, &["limit"])?.parse::<usize>("limit", "a number")
        };
        assert_eq!(limit("").unwrap(), None);
        assert_eq!(limit("limit=7").unwrap(), Some(7));
        assert!(limit("limit=-7").is_err() && limit("limit=").is_err());
    }

    #[test]
    fn a_plus_in_a_path_is_a_plus() {
        assert_eq!(decode("a+b%20c", Plus::IsPlus).unwrap(), "a+b c");
    }
}
