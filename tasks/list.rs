//! `tasks list` and `tasks logs`: what this machine knows of its nodes without asking them.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chordal::words::counted;
use serde_json::json;

use crate::cli;
use crate::context::Context;
use crate::network_state::Status;
use crate::output::{self, Report};

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(200);

/// How much of a log is read at a time.
const CHUNK: u64 = 64 << 10;

/// The nodes of the state.
pub(crate) fn list(context: &Context) -> Result<Report> {
    let nodes = context.state.ring()?.nodes;
    let running = nodes.iter().filter(|node| node.status == Status::Running).count();
    let run = if running == 1 { "runs" } else { "run" };
    let all = counted(nodes.len(), "node");
    let text = format!("{}\n\n{running} of {all} {run}.", output::node_table(&nodes));
    Report::new(json!({ "nodes": nodes }), text)
}

/// The end of a node's log, and with `--follow` what is added to it.
pub(crate) async fn logs(context: &Context, task: &cli::Logs) -> Result<Report> {
    let node = context.node(&task.name)?;
    let cannot = || format!("cannot read the log of {}, {}", node.name, node.log.display());
    let mut file = File::open(&node.log).with_context(cannot)?;
    let lines = last_lines(&mut file, task.lines).with_context(cannot)?;
    if !task.follow {
        let json = json!({ "name": node.name, "log": node.log, "lines": lines });
        return Report::new(json, lines.join("\n"));
    }
    let mut out = std::io::stdout();
    for line in &lines {
        writeln!(out, "{line}")?;
    }
    loop {
        print_rest(&mut file, &node.log, &mut out)?;
        tokio::select! {
            () = context.interrupt.cancelled() => return Report::new(json!(null), ""),
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// Copies what has been added; begins anew if the file has become shorter.
fn print_rest(file: &mut File, path: &Path, out: &mut impl std::io::Write) -> Result<()> {
    let length = file.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
    if length < file.stream_position()? {
        file.rewind()?;
    }
    std::io::copy(file, out)?;
    out.flush()?;
    Ok(())
}

/// The last lines of a file; it stands at its end then. Only as much is read as is needed.
fn last_lines(file: &mut File, count: usize) -> std::io::Result<Vec<String>> {
    let length = file.metadata()?.len();
    let mut start = length;
    loop {
        start = start.saturating_sub(CHUNK.max(length - start));
        file.seek(SeekFrom::Start(start))?;
        let mut lines = Vec::new();
        let mut reader = BufReader::new(file.take(length - start));
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            lines.push(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']).to_owned());
            line.clear();
        }
        // Where it does not begin at the beginning the first line may be a part of one.
        if start == 0 || lines.len() > count {
            return Ok(lines.split_off(lines.len().saturating_sub(count)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_whole() {
        let mut file = tempfile::tempfile().unwrap();
        assert!(last_lines(&mut file, 3).unwrap().is_empty());
        for number in 0..5000 {
            writeln!(file, "line {number} {}", "x".repeat(40)).unwrap();
        }
        write!(file, "unfinished").unwrap();
        let lines = last_lines(&mut file, 4000).unwrap();
        assert_eq!(lines.len(), 4000);
        assert!(lines[0].starts_with("line 1001 "), "{}", lines[0]);
        assert_eq!(lines[3999], "unfinished");
        assert_eq!(last_lines(&mut file, 1).unwrap(), ["unfinished"]);
        assert_eq!(last_lines(&mut file, 100_000).unwrap().len(), 5001);
        assert!(last_lines(&mut file, 0).unwrap().is_empty());
    }

    #[test]
    fn what_is_added_is_printed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "one\n").unwrap();
        let mut file = File::open(&path).unwrap();
        last_lines(&mut file, 10).unwrap();
        let mut out = Vec::new();
        std::fs::write(&path, "one\ntwo\n").unwrap();
        print_rest(&mut file, &path, &mut out).unwrap();
        std::fs::write(&path, "x\n").unwrap();
        print_rest(&mut file, &path, &mut out).unwrap();
        assert_eq!(out, b"two\nx\n");
    }
}
