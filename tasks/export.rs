//! `tasks export`: all values of the ring in a file, a record a line, in the order of their ids.
//!
//! Nodes are asked which ids they hold, and the ring for what is stored there: so each line is the value of one moment, whoever
//! holds copies of it. In each round every node shows the next page of what it holds; up to the id where the first of those
//! pages ends all ids are known. A ring that has changed meanwhile is asked again, for content that moves could be missed.
//!
//! The last line that was written tells how far the export is, so an interrupted one needs no other note.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use chordal::api::{BulkAnswer, BulkRecord, DbPage, NodeInfo, Text};
use chordal::words::counted;
use chordal_protocol::Id;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::task::JoinSet;

use crate::batch::{self, LONGEST_LINE};
use crate::cli;
use crate::context::Context;
use crate::crawl::{Crawl, crawl};
use crate::output::{self, Report};
use crate::whole_file;

/// How many values a node shows at a time.
const PAGE: usize = 250;

/// How often in a row a page is asked for again because the ring has changed or a node did not answer.
const TRIES: u32 = 20;

/// How long a ring that changes is left to itself.
const PAUSE: Duration = Duration::from_millis(250);

/// The progress of an export is that of a finger along the circle, in so many steps.
const STEPS: u64 = 1 << 16;

/// Writes all values to a file.
pub(crate) async fn export(context: &Context, task: &cli::Export) -> Result<Report> {
    // Without a ring nothing is touched.
    context.state.awake()?;
    if task.file == Path::new("-") {
        ensure!(!task.resume, "what went to standard output cannot be read back; export to a file for --resume");
        ensure!(!context.json, "export - prints the records themselves, which leaves no room for --json");
        let mut export = Export::new(Box::new(io::stdout()), None);
        export.run(context).await?;
        output::warn(&export.told("standard output"));
        return Report::new(json!(null), "");
    }
    ensure!(task.file.file_name().is_some(), "{} is no file name", task.file.display());
    let part = task.file.with_added_extension("part");
    let (file, before) = open(&part, task.resume)?;
    let mut export = Export::new(Box::new(file.try_clone()?), before.last);
    export
        .run(context)
        .await
        .with_context(|| format!("the export is not complete; --resume goes on with {}", part.display()))?;
    file.sync_all()?;
    whole_file::rename(&part, &task.file).with_context(|| format!("cannot write {}", task.file.display()))?;
    let json =
        json!({ "exported": export.written, "before": before.lines, "file": task.file, "silent": export.silent });
    Report::new(json, export.told(&task.file.display().to_string()))
}

/// What an earlier export has left.
#[derive(Debug, Default)]
struct Before {
    lines: u64,
    last: Option<Id>,
}

/// The file to go on with: empty, or with whole lines.
fn open(part: &Path, resume: bool) -> Result<(File, Before)> {
    let cannot = || format!("cannot write {}", part.display());
    if !resume {
        return Ok((File::create(part).with_context(cannot)?, Before::default()));
    }
    let mut file = match File::options().read(true).write(true).open(part) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("there is no {}, so no export to that file was interrupted; leave out --resume", part.display())
        }
        Err(error) => return Err(error).with_context(cannot),
    };
    let (before, length) = whole_lines(&file).with_context(|| format!("cannot read {}", part.display()))?;
    file.set_len(length)?;
    file.seek(SeekFrom::Start(length))?;
    Ok((file, before))
}

/// What stands in whole lines, and how many bytes that is: the last line may have been cut off.
fn whole_lines(file: &File) -> Result<(Before, u64)> {
    let mut from = BufReader::new(file);
    let (mut before, mut length) = (Before::default(), 0);
    loop {
        let mut line = Vec::new();
        let read = (&mut from).take(2 * LONGEST_LINE as u64).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Ok((before, length));
        }
        length += read as u64;
        let id = id_of(&line).with_context(|| format!("line {} is not one of an export", before.lines + 1))?;
        before = Before { lines: before.lines + 1, last: Some(id) };
    }
}

/// The id under which the record of a line is stored.
fn id_of(line: &[u8]) -> Result<Id> {
    let record: BulkRecord = serde_json::from_slice(line)?;
    let value = BulkAnswer { value: record.value, base64: record.base64, ..BulkAnswer::of(200) }.bytes()?;
    let key = record.key.as_ref().map(Text::bytes).transpose()?.or(value);
    Ok(Id::of(key.context("it has neither key nor value")?))
}

/// An export under way.
struct Export {
    to: Box<dyn Write>,
    /// All values up to this id have been written.
    after: Option<Id>,
    written: u64,
    /// Addresses that gave no answer.
    silent: BTreeSet<String>,
}

impl Export {
    fn new(to: Box<dyn Write>, after: Option<Id>) -> Export {
        Export { to, after, written: 0, silent: BTreeSet::new() }
    }

    fn told(&self, to: &str) -> String {
        let silent = match self.silent.len() {
            0 => String::new(),
            some => format!(" {} did not answer: what only they hold is missing.", counted(some, "node")),
        };
        format!("{} exported to {to}.{silent}", counted(self.written, "value"))
    }

    async fn run(&mut self, context: &Context) -> Result<()> {
        let bar = output::progress(STEPS, "exporting");
        bar.set_position(step(self.after));
        let done = tokio::select! {
            done = self.rounds(context, &bar) => done,
            () = context.interrupt.cancelled() => Err(anyhow!("interrupted")),
        };
        bar.finish_and_clear();
        done
    }

    async fn rounds(&mut self, context: &Context, bar: &ProgressBar) -> Result<()> {
        loop {
            let (ids, horizon) = self.next_ids(context).await?;
            self.write(context, &ids).await?;
            let Some(horizon) = horizon else { return Ok(()) };
            self.after = Some(horizon);
            bar.set_position(step(self.after));
        }
    }

    /// The next ids that anyone holds, in order, and the id up to which they are all; none if they are the last.
    async fn next_ids(&mut self, context: &Context) -> Result<(Vec<(Id, usize)>, Option<Id>)> {
        let mut trouble = anyhow!("no node answers");
        for _ in 0..TRIES {
            let known: Vec<String> = context.state.awake()?.iter().map(|node| node.addr()).collect();
            let before = crawl(&context.client, known.clone(), &self.silent).await;
            match pages(context, before.nodes.values(), self.after).await {
                Ok(pages) => {
                    let after = crawl(&context.client, known, &self.silent).await;
                    self.silent.extend(after.silent.iter().map(|silent| silent.addr.clone()));
                    if !after.nodes.is_empty() && shape(&before) == shape(&after) {
                        return Ok(merge(&pages));
                    }
                    trouble = anyhow!("the ring keeps changing; `tasks doctor` tells more");
                }
                Err(error) => trouble = error,
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(trouble)
    }

    /// Fetches these and writes them, in order. What was deleted meanwhile is left out.
    async fn write(&mut self, context: &Context, ids: &[(Id, usize)]) -> Result<()> {
        let mut requests = ids;
        while !requests.is_empty() {
            let mut bytes = 0;
            let fitting = requests.iter().take(batch::RECORDS).take_while(|(_, size)| {
                bytes += size;
                bytes <= batch::BYTES
            });
            let (now, rest) = requests.split_at(fitting.count().max(1));
            requests = rest;
            let records = now.iter().map(|(id, _)| BulkRecord::get_id(*id)).collect();
            let answers = batch::send(&context.client, &context.state.awake()?, records).await?;
            let mut lines = Vec::new();
            for answer in answers {
                if answer.status == 404 {
                    continue;
                }
                ensure!(answer.is_done(), "a value cannot be fetched: {}", batch::told(&answer));
                serde_json::to_writer(&mut lines, &line(answer))?;
                lines.push(b'\n');
                self.written += 1;
            }
            self.to.write_all(&lines)?;
            self.to.flush()?;
        }
        Ok(())
    }
}

/// What of an answer stores the same again. A value that is its own key needs no other.
fn line(answer: BulkAnswer) -> BulkRecord {
    let value = match (&answer.value, &answer.base64) {
        (Some(text), _) => Some(Text::Plain(text.clone())),
        (None, base64) => base64.clone().map(|base64| Text::Base64 { base64 }),
    };
    let key = answer.key.filter(|key| Some(key) != value.as_ref());
    let BulkAnswer { value, base64, content_type, .. } = answer;
    BulkRecord { key, value, base64, content_type, ..BulkRecord::default() }
}

/// The next page of what each node holds.
async fn pages<'a>(
    context: &Context,
    nodes: impl Iterator<Item = &'a NodeInfo>,
    after: Option<Id>,
) -> Result<Vec<DbPage>> {
    let mut asking = JoinSet::new();
    for node in nodes {
        let (client, addr) = (context.client.clone(), chordal::api::join_host_port(&node.host, node.port));
        asking.spawn(async move { client.db(&addr, after, Some(PAGE)).await });
    }
    let mut pages = Vec::new();
    while let Some(page) = asking.join_next().await {
        pages.push(page.context("a task of tasks itself failed")??);
    }
    Ok(pages)
}

/// The ids on these pages, with the sizes of their values, up to where the first page ends that is not the last of its node.
fn merge(pages: &[DbPage]) -> (Vec<(Id, usize)>, Option<Id>) {
    let horizon = pages.iter().filter_map(|page| page.next).min();
    let size = |text: &Text| match text {
        Text::Plain(text) => text.len(),
        Text::Base64 { base64 } => base64.len(),
    };
    let items = pages.iter().flat_map(|page| &page.items);
    let known = items.filter(|item| horizon.is_none_or(|horizon| item.id <= horizon));
    // Several nodes may hold the same.
    let ids: BTreeMap<Id, usize> = known.map(|item| (item.id, size(&item.key) + size(&item.value))).collect();
    (ids.into_iter().collect(), horizon)
}

/// Who serves what: as long as that is the same, no content has moved.
fn shape(crawl: &Crawl) -> BTreeMap<Id, Vec<(Id, Id, u64)>> {
    let views = |node: &NodeInfo| node.views.iter().map(|view| (view.range.lo, view.range.hi, view.epoch)).collect();
    crawl.nodes.iter().map(|(id, node)| (*id, views(node))).collect()
}

/// Where an id stands along the circle.
fn step(id: Option<Id>) -> u64 {
    let first = |id: Id| u64::from_str_radix(&id.to_string()[..4], 16).unwrap_or_default();
    id.map_or(0, first)
}
