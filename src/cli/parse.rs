//! What stands on the command line, read: durations, addresses, names, counts.

use std::time::Duration;

use crate::client::check_member;

/// The longest duration that makes sense here: a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads `2s`, `500ms`, or plain seconds such as `2` and `0.5`; more than nothing and at most a day.
pub fn duration(text: &str) -> Result<Duration, String> {
    duration_up_to(text, LONGEST, "a day")
}

/// The same for simulated time, which nobody has to wait for: at most ten years.
pub fn simulated_duration(text: &str) -> Result<Duration, String> {
    duration_up_to(text, LONGEST * 3652, "ten years")
}

fn duration_up_to(text: &str, longest: Duration, called: &str) -> Result<Duration, String> {
    let wrong = || format!("a duration is `2s`, `500ms` or plain seconds, not `{text}`");
    let (number, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1e-3),
        (None, Some(number)) => (number, 1.0),
        (None, None) => (text, 1.0),
    };
    if number.is_empty() || !number.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err(wrong());
    }
    let seconds = number.parse::<f64>().map_err(|_| wrong())? * unit;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    if duration < Duration::from_millis(1) {
        Err(format!("`{text}` is too short; the shortest duration is 1ms"))
    } else if duration > longest {
        Err(format!("`{text}` is too long; the longest duration is {called}"))
    } else {
        Ok(duration)
    }
}

/// Reads `HOST:PORT`, with brackets round an IPv6 host.
pub fn addr(text: &str) -> Result<String, String> {
    check_member(text)
        .map_err(|what| format!("{what}; an address is HOST:PORT, such as 127.0.0.1:4000 or [::1]:4000"))?;
    Ok(text.to_owned())
}

/// Reads a host to listen on: a name or an address without a port; brackets round an IPv6 address are taken off.
pub fn host(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let is_v6 = bare.parse::<std::net::Ipv6Addr>().is_ok();
    if bare.is_empty() || (!is_v6 && bare.contains(|c: char| c.is_whitespace() || ":/@?#,".contains(c))) {
        return Err("a host is a name or an address without a port, such as 127.0.0.1 or ::1".to_owned());
    }
    Ok(bare.to_owned())
}

/// Reads a name for a node, which also names its log and its data directory.
pub fn name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins_well && text.len() <= 64 && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("a name is 1 to 64 letters, digits, `-`, `_` and `.`, beginning with a letter or digit".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds_or_say_what_they_are() {
        for (text, ms) in [("2s", 2000), ("500ms", 500), ("3", 3000), ("0.5", 500), ("1.5s", 1500), ("1ms", 1)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        let nonsense =
            ["", "s", "ms", "0", "0s", "0ms", "-1", "-1s", "+1", "1m", "1h", "2 s", "1e3", "inf", "nan", "1.2.3", "٣"];
        for text in nonsense.into_iter().chain(["99999999999999999999999", "86401"]) {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for text in ["127.0.0.1:4000", "localhost:1", "[::1]:65535", "a-b.example:80"] {
            assert_eq!(addr(text), Ok(text.to_owned()));
        }
        for text in
            ["", "4000", "localhost", ":4000", "a:0", "a:65536", "a:-1", "::1:4000", "http://a:1", "a b:1", "a:1,b:2"]
        {
            assert!(addr(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_have_no_port() {
        assert_eq!(host("127.0.0.1"), Ok("127.0.0.1".to_owned()));
        assert_eq!(host("[::1]"), Ok("::1".to_owned()));
        assert_eq!(host("::1"), Ok("::1".to_owned()));
        for text in ["", "a:1", "127.0.0.1:4000", "a b", "http://a"] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_file_names() {
        for text in ["node-1", "A", "a.b_c"] {
            assert_eq!(name(text), Ok(text.to_owned()));
        }
        for text in ["", ".", "..", "-x", "a/b", "a b", &"x".repeat(65), "ü"] {
            assert!(name(text).is_err(), "{text}");
        }
    }
}
