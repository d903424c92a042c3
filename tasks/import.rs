//! `tasks import`: the records of a file for the ring, many a request.
//!
//! The file is read in windows of a few requests each, which are under way together; a key stands in a window once, so that
//! of two lines with one key the later wins. When all of a window has ended, how far the import is goes into a side file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use chordal::api::{BulkOp, BulkRecord};
use chordal::words::counted;
use chordal_protocol::Id;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinSet;

use crate::batch::{self, LONGEST_LINE};
use crate::cli;
use crate::context::Context;
use crate::off_thread::off_thread;
use crate::output::{self, Report};
use crate::whole_file;

/// Of how many records that were refused the reasons are told.
const TOLD: usize = 5;

/// How far an import is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    /// How many bytes of the file are done.
    offset: u64,
    /// How many lines.
    lines: u64,
    /// The first byte of the last line that is done.
    last_start: u64,
    /// SHA-256 of that line: what tells the file from another.
    last: Option<Id>,
}

/// Stores all records of a file.
pub(crate) async fn import(context: &Context, task: &cli::Import) -> Result<Report> {
    // Without a ring nothing is touched.
    context.state.awake()?;
    if task.file == Path::new("-") {
        ensure!(!task.resume, "standard input cannot be read again from where it was; import a file for --resume");
        let source = Source::new(Box::new(BufReader::new(io::stdin())), Cursor::default());
        return run(context, source, None, output::progress(0, "importing")).await;
    }
    let side = side_file(&task.file)?;
    let mut file = File::open(&task.file).with_context(|| format!("cannot open {}", task.file.display()))?;
    let cursor = if task.resume { remembered(&side, &mut file, &task.file)? } else { Cursor::default() };
    file.seek(SeekFrom::Start(cursor.offset))?;
    let length = file.metadata()?.len();
    let bar = output::progress(length, "importing");
    bar.set_position(cursor.offset);
    run(context, Source::new(Box::new(BufReader::new(file)), cursor), Some(side), bar).await
}

async fn run(context: &Context, source: Source, side: Option<PathBuf>, bar: ProgressBar) -> Result<Report> {
    let skipped = source.ahead.lines;
    let mut refused = Refused::default();
    let done = tokio::select! {
        done = windows(context, source, side.as_deref(), &bar, &mut refused) => done,
        () = context.interrupt.cancelled() => Err(anyhow!("interrupted")),
    };
    bar.finish_and_clear();
    let sent = match (done, side) {
        (Err(error), Some(side)) if side.exists() => {
            return Err(error.context("not all is imported, and --resume goes on from there"));
        }
        (Err(error), _) => return Err(error),
        (Ok(sent), side) => {
            side.as_deref().map(whole_file::remove).transpose()?;
            sent
        }
    };
    let stored = sent - refused.count;
    let before = if skipped > 0 { format!(", after {} before", counted(skipped, "line")) } else { String::new() };
    let text = format!("{} imported{before}.", counted(stored, "record"));
    let json = json!({ "imported": stored, "refused": refused.count, "skipped": skipped, "reasons": refused.reasons });
    Ok(Report::new(json, text)?.failing(refused.failure()))
}

/// Records that nodes will never take.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
    reasons: Vec<String>,
}

impl Refused {
    fn add(&mut self, line: u64, reason: &str) {
        self.count += 1;
        if self.reasons.len() < TOLD {
            self.reasons.push(format!("line {line}: {reason}"));
        }
    }

    fn failure(&self) -> Option<String> {
        let first = self.reasons.first()?;
        Some(format!("not stored, because refused: {}; {first}", counted(self.count, "record")))
    }
}

/// Imports window after window to the end, and counts the records.
async fn windows(
    context: &Context,
    mut source: Source,
    side: Option<&Path>,
    bar: &ProgressBar,
    refused: &mut Refused,
) -> Result<u64> {
    let mut sent = 0;
    loop {
        let (back, window) = off_thread(move || {
            let window = source.window();
            (source, window)
        })
        .await?;
        source = back;
        let window = window?;
        if window.is_empty() {
            return Ok(sent);
        }
        sent += window.iter().map(Vec::len).sum::<usize>() as u64;
        send(context, window, refused).await?;
        // All that was read has been dealt with.
        bar.set_position(source.ahead.offset);
        if let Some(side) = side {
            whole_file::write(side, &serde_json::to_vec(&source.ahead)?)?;
        }
    }
}

/// Sends the requests of a window, and counts what was refused. An error if some of it may still be stored later.
async fn send(context: &Context, window: Vec<Vec<Line>>, refused: &mut Refused) -> Result<()> {
    let nodes = context.state.awake()?;
    let mut requests = JoinSet::new();
    for lines in window {
        let (client, nodes) = (context.client.clone(), nodes.clone());
        requests.spawn(async move {
            let (numbers, records): (Vec<u64>, Vec<BulkRecord>) =
                lines.into_iter().map(|line| (line.number, line.record)).unzip();
            batch::send(&client, &nodes, records).await.map(|answers| (numbers, answers))
        });
    }
    let mut failed = Vec::new();
    while let Some(ended) = requests.join_next().await {
        let (numbers, answers) = ended.context("a task of tasks itself failed")??;
        for (number, answer) in numbers.into_iter().zip(answers).filter(|(_, answer)| !answer.is_done()) {
            ensure!(!batch::may_pass(answer.status), "line {number}: {}", batch::told(&answer));
            failed.push((number, batch::told(&answer)));
        }
    }
    failed.sort_unstable();
    failed.iter().for_each(|(number, reason)| refused.add(*number, reason));
    Ok(())
}

/// A line, read.
#[derive(Debug)]
struct Line {
    number: u64,
    record: BulkRecord,
}

/// Where lines come from, and how far they have been taken.
struct Source {
    from: Box<dyn BufRead + Send>,
    ahead: Cursor,
    /// A line that was read and did not fit into the window before.
    held_back: Option<(Vec<u8>, Cursor)>,
}

impl Source {
    fn new(from: Box<dyn BufRead + Send>, cursor: Cursor) -> Source {
        Source { from, ahead: cursor, held_back: None }
    }

    /// The lines of the next few requests; none at the end.
    fn window(&mut self) -> Result<Vec<Vec<Line>>> {
        let mut window: Vec<Vec<Line>> = Vec::new();
        let mut keys: BTreeSet<Id> = BTreeSet::new();
        let mut bytes = 0;
        while let Some((text, after)) = self.held_back.take().map_or_else(|| self.read(), |held| Ok(Some(held)))? {
            if text.trim_ascii().is_empty() {
                self.ahead = after;
                continue;
            }
            let record = record(&text).with_context(|| format!("line {} cannot be imported", after.lines))?;
            let is_full = window.last().is_none_or(|lines| {
                lines.len() == batch::RECORDS || (!lines.is_empty() && bytes + text.len() > batch::BYTES)
            });
            let fits = !is_full || window.len() < batch::AT_ONCE;
            if !fits || !keys.insert(record.1) {
                self.held_back = Some((text, after));
                break;
            }
            if is_full {
                window.push(Vec::new());
                bytes = 0;
            }
            bytes += text.len();
            if let Some(lines) = window.last_mut() {
                lines.push(Line { number: after.lines, record: record.0 });
            }
            self.ahead = after;
        }
        Ok(window)
    }

    /// The next line, and how far one is behind it.
    fn read(&mut self) -> Result<Option<(Vec<u8>, Cursor)>> {
        let mut text = Vec::new();
        let read = (&mut self.from).take(LONGEST_LINE as u64 + 1).read_until(b'\n', &mut text)?;
        let number = self.ahead.lines + 1;
        ensure!(read <= LONGEST_LINE, "line {number} has more than {LONGEST_LINE} bytes, which fit into no request");
        let offset = self.ahead.offset + read as u64;
        let after = Cursor { offset, lines: number, last_start: self.ahead.offset, last: Some(Id::of(&text)) };
        Ok((read > 0).then_some((text, after)))
    }
}

/// The record of a line, and the id of its key.
fn record(text: &[u8]) -> Result<(BulkRecord, Id)> {
    let record: BulkRecord = serde_json::from_slice(text)?;
    ensure!(record.op == BulkOp::Put, "only records that are stored are imported");
    let own = || match (&record.value, &record.base64) {
        (Some(text), _) => Ok(text.clone().into_bytes()),
        (None, Some(base64)) => chordal::api::Text::Base64 { base64: base64.clone() }.bytes(),
        (None, None) => Ok(Vec::new()),
    };
    let key = record.key.as_ref().map_or_else(own, chordal::api::Text::bytes);
    let id = Id::of(key.context("its base64 cannot be read")?);
    Ok((record, id))
}

/// Where it stands how far the import of a file is.
fn side_file(file: &Path) -> Result<PathBuf> {
    ensure!(file.file_name().is_some(), "{} is no file name", file.display());
    Ok(file.with_added_extension("import"))
}

/// How far an earlier import of this file was.
fn remembered(side: &Path, file: &mut File, path: &Path) -> Result<Cursor> {
    let text = match std::fs::read(side) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("there is no {}, so no import of that file was interrupted; leave out --resume", side.display())
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", side.display())),
    };
    let cursor: Cursor = serde_json::from_slice(&text)
        .with_context(|| format!("{} says nothing of an import; leave out --resume", side.display()))?;
    let length = cursor.offset.saturating_sub(cursor.last_start).min(LONGEST_LINE as u64);
    let mut last = Vec::new();
    file.seek(SeekFrom::Start(cursor.last_start))?;
    file.take(length).read_to_end(&mut last)?;
    ensure!(
        cursor.last == Some(Id::of(&last)),
        "{} is not the file whose import was interrupted; leave out --resume to begin anew",
        path.display()
    );
    Ok(cursor)
}
