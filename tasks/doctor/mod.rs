//! `tasks doctor`: walks the ring and checks what must hold of its pointers or (`content`) its views, once or (`watch`, with what `history` keeps) again and again.

mod content;
mod history;
mod watch;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use chordal::api::{NodeInfo, NodeRef};
use chordal::client::NodeClient;
use chordal::words::counted;
use chordal_protocol::invariant::{Check, Member, check_all};
use comfy_table::{Cell, Color};
use serde_json::{Value, json};

use crate::cli;
use crate::context::Context;
use crate::crawl::{self, Crawl, Silent};
use crate::network_state::{NetworkState, Status};
use crate::output::{self, Report};
use crate::views::Views;

/// The length of the successor lists that nodes keep (the daemon's default).
const LIST_LENGTH: usize = 8;

/// How long to wait before a ring that is not well yet is looked at again.
const POLL: Duration = Duration::from_millis(200);

/// Checks the invariants; fails if one is violated.
pub(crate) async fn doctor(context: &Context, task: &cli::Doctor) -> Result<Report> {
    let patience = task.wait.unwrap_or_default();
    match task.only {
        Some(cli::Part::Content) if task.watch => {
            bail!(
                "--watch watches the pointers; views are watched with `tasks monitor`, and judged with `--wait` at the most"
            )
        }
        Some(cli::Part::Content) => look_until(context, Doctor::of_content(context), patience).await,
        Some(cli::Part::Ring) | None if task.watch => watch::watch(context, task.interval).await,
        Some(cli::Part::Ring) | None => examine(context, patience).await,
    }
}

/// Looks until all invariants hold, at most this long, and reports what was seen last.
pub(crate) async fn examine(context: &Context, patience: Duration) -> Result<Report> {
    look_until(context, Doctor::new(context), patience).await
}

async fn look_until(context: &Context, mut doctor: Doctor, patience: Duration) -> Result<Report> {
    let deadline = Instant::now() + patience;
    loop {
        let state = context.state.ring()?;
        let findings = doctor.look(&state).await?;
        let well = findings.checks.iter().all(|check| check.verdict.is_ok());
        if well || Instant::now() >= deadline {
            return findings.report();
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Looks at a ring, and remembers who was silent, so as not to wait for those as long the next time.
struct Doctor {
    client: NodeClient,
    silent: BTreeSet<String>,
    /// Whether it judges the views, and not the pointers.
    of_content: bool,
}

/// What one look at the ring brought.
#[derive(Debug)]
struct Findings {
    crawl: Crawl,
    checks: Vec<Check>,
    views: Views,
    /// Nodes of the state that are not part of the ring, and why.
    absent: Vec<(String, String)>,
}

impl Doctor {
    fn new(context: &Context) -> Doctor {
        Doctor { client: context.client.within(crawl::ANSWER), silent: BTreeSet::new(), of_content: false }
    }

    fn of_content(context: &Context) -> Doctor {
        Doctor { of_content: true, ..Doctor::new(context) }
    }

    async fn look(&mut self, state: &NetworkState) -> Result<Findings> {
        let alive = state.nodes.iter().filter(|node| node.status == Status::Running);
        let crawl = crawl::crawl(&self.client, alive.map(|node| node.addr()), &self.silent).await;
        self.silent = crawl.silent.iter().map(|silent| silent.addr.clone()).collect();
        crawl.check_answers()?;
        let views = Views::of(crawl.nodes.values());
        let checks = if self.of_content {
            content::check_content(&views, crawl.nodes.values())
        } else {
            let members: Vec<Member> = crawl.nodes.values().map(member).collect();
            check_all(&members, LIST_LENGTH)
        };
        let reason =
            |addr: &str| crawl.silent.iter().find(|silent| silent.addr == addr).map(|silent| silent.reason.clone());
        let absent = state.nodes.iter().filter_map(|node| match node.status {
            Status::Running => reason(&node.addr()).map(|reason| (node.name.clone(), reason)),
            other => Some((node.name.clone(), other.word().to_owned())),
        });
        let absent = absent.collect();
        Ok(Findings { crawl, checks, views, absent })
    }
}

fn member(info: &NodeInfo) -> Member {
    Member {
        contact: info.itself().contact(),
        predecessor: info.pred.as_ref().map(NodeRef::contact),
        successors: info.successors.iter().map(NodeRef::contact).collect(),
        joined: matches!(info.membership.as_str(), "joined" | "leaving"),
    }
}

impl Findings {
    fn report(&self) -> Result<Report> {
        let violated = self.checks.iter().filter(|check| check.verdict.is_err()).count();
        let failure = (violated > 0).then(|| {
            format!("{violated} of {} invariants are violated; a ring that has just changed may need a moment (`tasks doctor --wait 10s`)", self.checks.len())
        });
        Ok(Report::new(self.json(violated == 0), self.text())?.failing(failure))
    }

    fn json(&self, ok: bool) -> Value {
        let check = |check: &Check| {
            let evidence = check.verdict.as_ref().err();
            json!({ "name": check.name, "source": check.source, "ok": evidence.is_none(), "evidence": evidence })
        };
        let absent = |(name, reason): &(String, String)| json!({ "name": name, "reason": reason });
        json!({
            "ok": ok,
            "nodes": self.crawl.nodes.len(),
            "checks": self.checks.iter().map(check).collect::<Vec<_>>(),
            "absent": self.absent.iter().map(absent).collect::<Vec<_>>(),
            "silent": self.crawl.silent,
            "views": self.views,
        })
    }

    fn text(&self) -> String {
        let mut checks = output::table(&["VERDICT", "INVARIANT", "SOURCE", "EVIDENCE"]);
        for check in &self.checks {
            let (word, colour, evidence) = match &check.verdict {
                Ok(()) => ("ok", Color::Green, ""),
                Err(evidence) => ("violated", Color::Red, evidence.as_str()),
            };
            let evidence = output::one_line(evidence);
            checks.add_row(vec![
                Cell::new(word).fg(colour),
                Cell::new(check.name),
                Cell::new(check.source),
                Cell::new(evidence),
            ]);
        }
        let mut text = format!("Answering: {}.\n\n{}", counted(self.crawl.nodes.len(), "node"), output::lines(&checks));
        text.push_str(&format!("\n\n{}\n", self.views.table(&self.crawl.names())));
        for (name, reason) in &self.absent {
            text.push_str(&format!("\nabsent: {name}: {reason}"));
        }
        for silent in &self.crawl.silent {
            text.push_str(&format!("\n{}", silent.line()));
        }
        text
    }
}

impl Silent {
    fn line(&self) -> String {
        let names: Vec<&str> = self.named_by.iter().map(String::as_str).collect();
        let by = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
        format!("silent: {} (pointed to by {by})", self.addr)
    }
}
