//! The status page: one look at the pool, which reloads itself.

use std::fmt::Write as _;
use std::time::Duration;

use super::board::{Slot, Snapshot, Status};
use super::service::ROUTES;
use crate::words::counted;

/// After how many seconds the page is loaded anew.
const RELOAD: u32 = 2;

const HEAD: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
<meta name=\"viewport\" content=\"width=device-width\">\n<title>Chordal bootstrap service</title>\n<style>\n\
body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:60em;padding:0 1em;color:#222;background:#fff}\n\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.2em .8em .2em 0;border-bottom:1px solid #ddd}\n\
code{font-size:.95em}.live{color:#176b2c}.suspect{color:#a34700}.starting,.waiting,.ending{color:#555}\n\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}th,td{border-color:#444}.live{color:#6fce87}\
.suspect{color:#f0a05a}.starting,.waiting,.ending{color:#aaa}}\n</style>\n";

/// The page for a pool with so many checks, replaced nodes and handed out addresses.
pub(super) fn html(pool: &Snapshot, (checks, replaced, addresses): (u64, u64, u64)) -> String {
    let mut page = String::from(HEAD);
    let _ = writeln!(page, "<meta http-equiv=\"refresh\" content=\"{RELOAD}\"></head><body>");
    let ring = pool.ring.as_deref().map_or("not known yet", |ring| ring);
    let _ = writeln!(
        page,
        "<h1>{} of {} nodes are live</h1>\n<p>Ring <code>{}</code>. {}, {} replaced, {} handed \
         out. This page reloads every {RELOAD} s.</p>",
        pool.live(),
        pool.size,
        escaped(ring),
        counted(checks, "check"),
        counted(replaced, "node"),
        counted(addresses, "address")
    );
    page.push_str("<table><thead><tr><th>Node</th><th>Address</th><th>Status</th><th>For</th><th>Last check</th><th>Last trouble</th></tr></thead><tbody>\n");
    pool.slots.iter().for_each(|slot| row(&mut page, slot));
    page.push_str("</tbody></table>\n");
    if !pool.outsiders.is_empty() {
        let outsiders: Vec<String> = pool.outsiders.iter().map(|addr| escaped(addr)).collect();
        let _ = writeln!(
            page,
            "<p>Members of the ring that are not of the pool, seen last: <code>{}</code></p>",
            outsiders.join(", ")
        );
    }
    page.push_str("<table><tbody>\n");
    for (path, what) in ROUTES {
        let _ = writeln!(
            page,
            "<tr><td><a href=\"{path}\"><code>GET {path}</code></a></td><td>{}</td></tr>",
            escaped(what)
        );
    }
    page.push_str("</tbody></table></body></html>\n");
    page
}

fn row(page: &mut String, slot: &Slot) {
    let checked = slot.checked.map_or(String::new(), |(when, took)| {
        format!("{} ago, {:.1} ms", ago(when.elapsed()), took.as_secs_f64() * 1e3)
    });
    let status = slot.status.word();
    let address = match slot.status {
        Status::Live => format!("<a href=\"http://{0}/nodeinfo\"><code>{0}</code></a>", escaped(&slot.addr)),
        _ => format!("<code>{}</code>", escaped(&slot.addr)),
    };
    let _ = writeln!(
        page,
        "<tr><td>{}</td><td>{address}</td><td class=\"{status}\">{status}</td><td>{}</td><td>{checked}</td><td>{}</td></tr>",
        escaped(&slot.name),
        ago(slot.since.elapsed()),
        escaped(slot.trouble.as_deref().unwrap_or_default()),
    );
}

fn ago(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_nodes_say_is_no_markup() {
        let slot = Slot {
            name: "<b>".to_owned(),
            addr: "\"'&".to_owned(),
            status: Status::Suspect,
            since: Instant::now(),
            checked: None,
            trouble: Some("<script>".to_owned()),
            is_remembered: false,
        };
        let pool = Snapshot { size: 1, slots: vec![slot], ring: None, outsiders: vec!["<i>".to_owned()] };
        let page = html(&pool, (1, 2, 3));
        assert!(page.contains("0 of 1 nodes are live") && page.contains("http-equiv=\"refresh\""), "{page}");
        assert!(
            page.contains("&lt;b&gt;") && page.contains("&lt;script&gt;") && page.contains("&quot;&#39;&amp;"),
            "{page}"
        );
        assert!(!page.contains("<b>") && !page.contains("<script>") && !page.contains("<i>"), "{page}");
    }
}
