//! `tasks recover`: ranges whose views have lost their majority, and how they are brought back without it.
//!
//! Without a majority nobody can tell what was acknowledged, so nothing happens by itself. A person says that the missing members
//! are gone for good; then those who are left go on with what they have, or, where nobody is, the range begins again, empty.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use chordal::api::{NodeInfo, NodeRef, RangeInfo, Recovered, Recovery, join_host_port};
use chordal::client::NodeClient;
use chordal::words::counted;
use chordal_protocol::Id;
use serde_json::json;

use crate::cli;
use crate::context::Context;
use crate::crawl::Crawl;
use crate::output::{self, Report};
use crate::views::{self, Kept, Views, interval, named, shown};

/// How long a recovery may take: all members are given time to answer.
const TIMEOUT: Duration = Duration::from_secs(40);

/// How long the last node of a ring may take to be a ring of one, and how often it is asked.
const ALONE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// A range that cannot be served.
enum Lost<'a> {
    /// Too few members of its view answer.
    View(&'a Kept),
    /// Nobody who answers keeps any of it.
    Gap(&'a RangeInfo),
}

impl Lost<'_> {
    fn range(&self) -> &RangeInfo {
        match self {
            Lost::View(view) => &view.range,
            Lost::Gap(gap) => gap,
        }
    }
}

/// Lists the ranges without a majority, or brings one back.
pub(crate) async fn recover(context: &Context, task: &cli::Recover) -> Result<Report> {
    if task.node.is_none() {
        context.state.ring()?;
    }
    let client = context.client.within(crate::crawl::ANSWER);
    let (views, crawl) = views::settled(context, &client, task.node.as_deref()).await?;
    match (&task.node, crawl.silent.first()) {
        (Some(_), Some(silent)) if crawl.nodes.is_empty() => bail!("{}", silent.reason),
        _ => crawl.check_answers()?,
    }
    let at = task.node.as_ref().map_or(String::new(), |node| format!(" --node {node}"));
    let Some(wanted) = Wanted::of(task)? else { return list(&views, &at) };
    let lost = wanted.find(&views)?;
    if !task.accept_loss {
        return warn(&lost, &wanted, &at);
    }
    let client = context.client.within(TIMEOUT);
    if let Some(last) = last_one(&crawl) {
        goes_on_alone(&client, last).await?;
    }
    match lost {
        Lost::View(view) if !view.present.is_empty() => with_survivors(&client, view).await,
        Lost::View(view) => from_nothing(&client, &view.range, &crawl, &named(view.missing())).await,
        Lost::Gap(gap) => from_nothing(&client, gap, &crawl, "all who kept it").await,
    }
}

/// The only node that answers, if it has lost its ring.
fn last_one(crawl: &Crawl) -> Option<&NodeInfo> {
    let (_, first) = crawl.nodes.first_key_value()?;
    (crawl.nodes.len() == 1 && first.membership == "isolated").then_some(first)
}

/// It cannot know by itself that it was not cut off from the others. It becomes a ring of one, which keeps the ring's id: should others
/// come back, they find each other.
async fn goes_on_alone(client: &NodeClient, last: &NodeInfo) -> Result<()> {
    let addr = join_host_port(&last.host, last.port);
    client.put_succ(&addr, &addr).await.with_context(|| last.name.clone())?;
    let deadline = Instant::now() + ALONE;
    while client.node_info(&addr).await?.membership == "isolated" {
        ensure!(Instant::now() < deadline, "{} is still isolated; its log says more", last.name);
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// What somebody wants to be recovered.
enum Wanted {
    /// A range as it is printed: the beginnings of its two ids in hex.
    Range(String, String),
    /// Wherever this key belongs.
    Key(String),
}

impl Wanted {
    fn of(task: &cli::Recover) -> Result<Option<Wanted>> {
        if let Some(key) = &task.key {
            return Ok(Some(Wanted::Key(key.clone())));
        }
        let Some(range) = &task.range else {
            ensure!(
                !task.accept_loss,
                "--accept-loss is said of one range: name it as `tasks recover` prints it, or with --key"
            );
            return Ok(None);
        };
        let hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match range.split_once("..") {
            Some((lo, hi)) if hex(lo) && hex(hi) => {
                Ok(Some(Wanted::Range(lo.to_ascii_lowercase(), hi.to_ascii_lowercase())))
            }
            _ => bail!(
                "{} is no range; one looks like 0a1b2c3d..4e5f6071, as `tasks recover` prints it",
                output::quote(range)
            ),
        }
    }

    fn is(&self, range: &RangeInfo) -> bool {
        match self {
            Wanted::Range(lo, hi) => {
                range.lo.to_string().starts_with(lo.as_str()) && range.hi.to_string().starts_with(hi.as_str())
            }
            Wanted::Key(key) => interval(range).contains(&Id::of(key)),
        }
    }

    fn find<'a>(&self, views: &'a Views) -> Result<Lost<'a>> {
        let mut found = views.lost().filter(|view| self.is(&view.range)).map(Lost::View);
        let mut gaps = views.gaps.iter().filter(|gap| self.is(gap)).map(Lost::Gap);
        if let Some(lost) = found.next().or_else(|| gaps.next()) {
            ensure!(
                found.next().or_else(|| gaps.next()).is_none(),
                "more than one range is like that; give more digits"
            );
            return Ok(lost);
        }
        if let Some(well) = views.views.iter().find(|view| view.has_majority() && self.is(&view.range)) {
            bail!("a majority of those who keep {} answers: it needs no recovery", shown(&well.range));
        }
        Err(anyhow!("there is no such range; `tasks recover` lists those without a majority"))
    }

    /// How it is said on the command line.
    fn said(&self) -> String {
        match self {
            Wanted::Range(lo, hi) => format!("{lo}..{hi}"),
            Wanted::Key(key) => format!("--key {}", output::quote(key)),
        }
    }
}

fn list(views: &Views, at: &str) -> Result<Report> {
    let lost: Vec<&Kept> = views.lost().collect();
    let json = json!({ "lost": lost, "gaps": views.gaps });
    if views.are_whole() {
        return Report::new(json, format!("Every range has a majority: {}.", counted(views.views.len(), "view")));
    }
    let mut table = output::table(&["RANGE", "EPOCH", "MEMBERS", "ANSWER", "MISSING"]);
    for view in lost {
        let [members, answer, missing] = [named(&view.members), named(view.survivors()), named(view.missing())];
        table.add_row(vec![shown(&view.range), view.epoch.to_string(), members, answer, missing]);
    }
    for gap in &views.gaps {
        let dash = || "-".to_owned();
        table.add_row(vec![shown(gap), dash(), "unknown".to_owned(), "nobody".to_owned(), "all".to_owned()]);
    }
    let advice = format!(
        "Start the missing nodes again (`tasks start --all`): then nothing is lost. `tasks recover RANGE{at}` says what is lost \
         without them."
    );
    Report::new(json, format!("{}\n\n{advice}", output::lines(&table)))
}

/// What would be lost, and how to go on.
fn warn(lost: &Lost<'_>, wanted: &Wanted, at: &str) -> Result<Report> {
    let (range, text, json) = match lost {
        Lost::View(view) if !view.present.is_empty() => {
            let text = format!(
                "{} has no majority: of its members {} only these answer: {}. To go on without {} loses what only they had: values that were \
                 acknowledged may be gone, and older ones or deleted ones be back.",
                shown(&view.range),
                named(&view.members),
                named(view.survivors()),
                named(view.missing()),
            );
            (shown(&view.range), text, json!(view))
        }
        Lost::View(_) | Lost::Gap(_) => {
            let range = lost.range();
            let text = format!(
                "Nobody who answers has any content of {}. To go on without those who kept it loses all that was stored there.",
                shown(range)
            );
            (shown(range), text, json!({ "range": range }))
        }
    };
    let how = format!(
        "start the missing nodes if you can (`tasks start --all`); if they are gone for good, `tasks recover {}{at} --accept-loss`",
        wanted.said()
    );
    let failure = format!("{range} was not recovered, for that loses content: {how}");
    Ok(Report::new(json!({ "lost": json }), text)?.failing(Some(failure)))
}

async fn with_survivors(client: &NodeClient, view: &Kept) -> Result<Report> {
    // Others heed the primary if it lives, and leave it to it to propose.
    let survivors: Vec<&NodeRef> = view.survivors().collect();
    let at_primary = survivors.iter().find(|node| node.id == view.primary.id);
    let Some(begin) = at_primary.or(survivors.first()) else { bail!("nobody is left") };
    let wish = Recovery {
        lo: view.range.lo,
        hi: view.range.hi,
        epoch: Some(view.epoch),
        survivors: survivors.iter().map(|node| node.id).collect(),
        accept_loss: true,
    };
    let recovered = client.recover(&begin.addr(), &wish).await.with_context(|| begin.name.clone())?;
    let by = named(survivors.iter().copied());
    let text = match recovered.forced {
        true => format!(
            "{} is served again, by force, by {by}, with what they had (epoch {}). What only {} had is lost, and that acknowledged \
             writes are kept does not hold for this range up to now. Should they come back, their content goes to a file \
             (fenced-….ndjson) in their data directories.",
            shown(&recovered.range),
            recovered.epoch,
            named(view.missing()),
        ),
        false => format!(
            "{} is served again (epoch {}): {by} had voted for a change, and it was carried out. Nothing was forced.",
            shown(&recovered.range),
            recovered.epoch
        ),
    };
    let survivors: Vec<NodeRef> = survivors.into_iter().cloned().collect();
    let missing: Vec<NodeRef> = view.missing().cloned().collect();
    report(&recovered, text, &survivors, &missing)
}

async fn from_nothing(client: &NodeClient, range: &RangeInfo, crawl: &Crawl, lost: &str) -> Result<Report> {
    let owner = owner(crawl, &range.lo).context("no node that answers is a member of the ring")?;
    let wish = Recovery { lo: range.lo, hi: range.hi, epoch: None, survivors: Vec::new(), accept_loss: true };
    let recovered = client.recover(&owner.addr(), &wish).await.with_context(|| owner.name.clone())?;
    let text = format!(
        "{} is served again, by force, by {}, and empty (epoch {}). What {lost} had is lost. Should they come back, their \
         content goes to a file (fenced-….ndjson) in their data directories.",
        shown(&recovered.range),
        named([&owner]),
        recovered.epoch
    );
    report(&recovered, text, &[], &[])
}

fn report(recovered: &Recovered, text: String, survivors: &[NodeRef], missing: &[NodeRef]) -> Result<Report> {
    let json = json!({ "recovered": recovered, "survivors": survivors, "missing": missing });
    Report::new(json, text)
}

/// The last member of the ring at or before an id.
fn owner(crawl: &Crawl, id: &Id) -> Option<NodeRef> {
    let joined = |info: &&NodeInfo| info.membership == "joined";
    let before = crawl.nodes.range(..=id).map(|(_, info)| info).rfind(joined);
    let info = before.or_else(|| crawl.nodes.values().rfind(joined))?;
    Some(info.itself())
}
