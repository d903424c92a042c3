//! `tasks doctor --watch`: looks again and again until Ctrl-C, and keeps count of what was broken.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use anyhow::Result;
use chordal::words::counted;
use comfy_table::{Cell, Color};
use serde_json::{Value, json};

use super::history::{Change, History, Track, times};
use super::{Doctor, Findings};
use crate::context::Context;
use crate::output::{self, Report};
use crate::screen::Screen;

/// How many of the last changes are shown.
const SHOWN: usize = 12;

/// What a look brought.
#[derive(Debug)]
pub(super) enum Look {
    /// Nodes and verdicts.
    Seen(Findings),
    /// Nothing, because of this.
    Blind(String),
    /// The state names no ring any more.
    NoRing,
}

/// Looks at this interval until it is interrupted. Fails if what must hold at all times was violated at any look, or if the
/// ring was not ideal at the last one.
pub(super) async fn watch(context: &Context, interval: Duration) -> Result<Report> {
    context.state.ring()?;
    let mut doctor = Doctor::new(context);
    let mut history = History::default();
    let mut recent: VecDeque<(Duration, Change)> = VecDeque::new();
    let mut screen = Screen::new(interval);
    let began = Instant::now();
    loop {
        let look = tokio::select! {
            () = context.interrupt.cancelled() => break,
            look = look(context, &mut doctor) => look,
        };
        let at = began.elapsed();
        let changes = history.note(at, &look);
        if context.json {
            print_line(&json_of(&look, &history, &changes))?;
        } else {
            recent.extend(changes.into_iter().map(|change| (at, change)));
            recent.drain(..recent.len().saturating_sub(SHOWN));
            screen.draw(&picture(&look, &history, &recent))?;
        }
        tokio::select! {
            () = context.interrupt.cancelled() => break,
            () = tokio::time::sleep(interval) => {}
        }
    }
    Ok(Report::new(history.summary_json(), history.summary())?.failing(history.failure()))
}

/// The state is read anew each time, so nodes may come and go.
async fn look(context: &Context, doctor: &mut Doctor) -> Look {
    let state = match context.state.load() {
        Ok(Some(state)) if !state.nodes.is_empty() => state,
        Ok(_) => return Look::NoRing,
        Err(error) => return Look::Blind(output::one_line(&format!("{error:#}"))),
    };
    match doctor.look(&state).await {
        Ok(findings) => Look::Seen(findings),
        Err(error) => Look::Blind(output::one_line(&format!("{error:#}"))),
    }
}

fn print_line(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

/// How many of those who answer are members of the ring, and how many have lost it.
fn counts(findings: &Findings) -> (usize, usize) {
    let of =
        |words: &[&str]| findings.crawl.nodes.values().filter(|it| words.contains(&it.membership.as_str())).count();
    (of(&["joined", "leaving"]), of(&["isolated"]))
}

fn json_of(look: &Look, history: &History, changes: &[Change]) -> Value {
    let (looks, at) = history.looks();
    let mut json = json!({ "look": looks, "at_s": at.as_secs_f64(), "changes": changes });
    let more = match look {
        Look::Seen(findings) => {
            let (members, isolated) = counts(findings);
            let tracks: Vec<Value> = history.tracks().iter().map(|track| track.json(at)).collect();
            let ok = history.tracks().iter().all(|track| track.evidence.is_none());
            json!({ "ok": ok, "members": members, "isolated": isolated, "silent": findings.crawl.silent, "checks": tracks })
        }
        Look::Blind(reason) => json!({ "ok": false, "reason": reason }),
        Look::NoRing => json!({ "ok": true, "reason": "there is no ring" }),
    };
    if let (Value::Object(json), Value::Object(more)) = (&mut json, more) {
        json.extend(more);
    }
    json
}

fn picture(look: &Look, history: &History, recent: &VecDeque<(Duration, Change)>) -> String {
    let (looks, at) = history.looks();
    let seen = match look {
        Look::Seen(findings) => {
            let (members, isolated) = counts(findings);
            let members = counted(members, "member");
            format!("{members}, {isolated} isolated, {} silent", findings.crawl.silent.len())
        }
        Look::Blind(reason) => reason.clone(),
        Look::NoRing => "the ring is gone; waiting for another one (`tasks boot`)".to_owned(),
    };
    let mut text = format!("Look {looks}, after {:.1} s: {seen}.\n\n{}", at.as_secs_f32(), table(history, at));
    if !recent.is_empty() {
        text.push_str("\n\nWhat changed last:");
    }
    for (at, change) in recent {
        text.push_str(&format!("\n{:>7.1} s  {}", at.as_secs_f32(), change.told()));
    }
    text
}

fn table(history: &History, at: Duration) -> String {
    let mut table = output::table(&["NOW", "INVARIANT", "FOR", "BROKEN", "EVIDENCE"]);
    for track in history.tracks() {
        let Track { name, evidence, since, broken_times, .. } = track;
        let (word, colour) = if evidence.is_some() { ("violated", Color::Red) } else { ("holds", Color::Green) };
        table.add_row(vec![
            Cell::new(word).fg(colour),
            Cell::new(name),
            Cell::new(format!("{:.1} s", at.saturating_sub(*since).as_secs_f32())),
            Cell::new(times(*broken_times)),
            Cell::new(evidence.as_deref().unwrap_or_default()),
        ]);
    }
    output::lines(&table)
}
