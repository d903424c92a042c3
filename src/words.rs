//! How messages for people are put together.

use std::fmt::Display;

/// A number of things: `1 attempt`, `2 attempts`.
pub fn counted(count: impl Display, thing: &str) -> String {
    let count = count.to_string();
    let ending = match thing {
        _ if count == "1" => "",
        thing if thing.ends_with('s') => "es",
        _ => "s",
    };
    format!("{count} {thing}{ending}")
}

/// A reason as a sentence of its own, with one full stop, question mark or exclamation mark at its end.
pub fn sentence(reason: &str) -> String {
    let reason = reason.trim_end();
    if reason.ends_with(['.', '?', '!']) { reason.to_owned() } else { format!("{reason}.") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        for (count, told) in [(0, "0 keys"), (1, "1 key"), (2, "2 keys"), (11, "11 keys")] {
            assert_eq!(counted(count, "key"), told);
        }
        assert_eq!([1, 3].map(|count| counted(count, "address")), ["1 address", "3 addresses"]);
    }

    #[test]
    fn a_sentence_ends_once() {
        for (reason, told) in [("no", "no."), ("no.", "no."), ("is it right?", "is it right?"), ("no. ", "no.")] {
            assert_eq!(sentence(reason), told);
        }
    }
}
