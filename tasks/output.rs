//! What people and programs get to see: reports, tables, bars, colours.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use chordal::api::Text;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use crate::network_state::{NodeEntry, Status};

/// What a task has to say when it is done.
#[derive(Debug)]
pub(crate) struct Report {
    /// For programs (`--json`).
    pub(crate) json: Value,
    /// For people; lines, without the last line feed.
    pub(crate) text: String,
    /// What people get in place of the text: these bytes, as they are.
    pub(crate) bytes: Option<Vec<u8>>,
    /// In one line, why the task failed although there is something to report.
    pub(crate) failure: Option<String>,
}

impl Report {
    /// A success.
    pub(crate) fn new(json: impl Serialize, text: impl Into<String>) -> anyhow::Result<Report> {
        Ok(Report { json: serde_json::to_value(json)?, text: text.into(), bytes: None, failure: None })
    }

    /// A success whose result is bytes.
    pub(crate) fn of_bytes(json: Value, bytes: Vec<u8>) -> Report {
        Report { json, text: String::new(), bytes: Some(bytes), failure: None }
    }

    /// The same, but the task failed if there is a reason.
    pub(crate) fn failing(self, failure: Option<String>) -> Report {
        Report { failure, ..self }
    }

    /// Prints it to standard output in one of its forms.
    pub(crate) fn print(&self, json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if json {
            writeln!(out, "{}", self.json)?;
        } else if let Some(bytes) = &self.bytes {
            out.write_all(bytes)?;
        } else if !self.text.is_empty() {
            writeln!(out, "{}", self.text)?;
        }
        out.flush()
    }
}

/// A line on standard output, now. Nobody may want to read any more.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// A line on standard error. Nobody may be listening there, which is no reason to fail.
pub(crate) fn warn(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// A message in one line, whatever it was made of.
pub(crate) fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether standard output is a terminal whose user wants colours (<https://no-color.org>).
pub(crate) fn colours() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Text in one of the terminal's colours, where there are any.
pub(crate) fn paint(text: &str, colour: Color) -> String {
    let code = match colour {
        Color::Red => 31,
        Color::Green => 32,
        Color::Yellow => 33,
        Color::Cyan => 36,
        _ => 2,
    };
    if colours() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// A table without lines, headed by these words.
pub(crate) fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.iter().map(|word| Cell::new(word).add_attribute(Attribute::Bold)));
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    if colours() {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table
}

/// A table as text, without the blanks at the ends of its lines.
pub(crate) fn lines(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A cell with the state of a node, coloured.
pub(crate) fn status_cell(word: &str) -> Cell {
    let colour = match word {
        "running" => Color::Green,
        "starting" | "elsewhere" => Color::Cyan,
        "stopped" => Color::DarkGrey,
        _ => Color::Red,
    };
    Cell::new(word).fg(colour)
}

/// Nodes as a table: name, short id, address, status, pid.
pub(crate) fn node_table(nodes: &[NodeEntry]) -> String {
    let mut table = table(&["NAME", "ID", "ADDRESS", "STATUS", "PID", "CONTENT"]);
    for node in nodes {
        let pid = if node.status == Status::Stopped { "-".to_owned() } else { node.pid.to_string() };
        let addr = if node.port == 0 { "-".to_owned() } else { node.addr() };
        table.add_row(vec![
            Cell::new(&node.name),
            Cell::new(node.short_id()),
            Cell::new(addr),
            status_cell(node.status.word()),
            Cell::new(pid),
            Cell::new(if node.data_dir.is_some() { "disk" } else { "memory" }),
        ]);
    }
    lines(&table)
}

/// A value for people: text as it is, other bytes as base64 that says so.
pub(crate) fn show(text: &Text) -> String {
    match text {
        Text::Plain(text) => text.clone(),
        Text::Base64 { base64 } => format!("base64:{base64}"),
    }
}

/// A value quoted in a sentence: short, on one line, without control characters.
pub(crate) fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut quoted: String = text.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        quoted.push('…');
    }
    format!("\"{quoted}\"")
}

/// A share of the ring as a bar of ten characters and a percentage.
pub(crate) fn share_bar(share: f64) -> String {
    let eighths = (share.clamp(0.0, 1.0) * 80.0).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(['▏', '▎', '▍', '▌', '▋', '▊', '▉'][eighths % 8 - 1]);
    }
    format!("{bar:<10} {:>5.1}%", share * 100.0)
}

/// A progress bar on standard error; nothing is drawn if that is no terminal.
pub(crate) fn progress(length: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(length).with_message(what);
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:40} {pos}/{len} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_drawn_to_scale() {
        assert_eq!(share_bar(1.0), "██████████ 100.0%");
        assert_eq!(share_bar(0.5), "█████       50.0%");
        assert_eq!(share_bar(0.0), "             0.0%");
        assert_eq!(share_bar(0.0125), "▏            1.2%");
    }

    #[test]
    fn quotes_and_messages_stay_on_one_line() {
        assert_eq!(quote("a\nb"), "\"a b\"");
        assert_eq!(quote(&"ü".repeat(61)).chars().count(), 63);
        assert_eq!(one_line("a\n  b\tc "), "a b c");
    }

    #[test]
    fn tables_have_no_trailing_blanks() {
        let mut small = table(&["A", "B"]);
        small.add_row(vec!["long", "x"]);
        small.add_row(vec!["y", ""]);
        assert!(
            lines(&small).lines().all(|line| line == line.trim_end() && !line.contains('\x1b')),
            "{}",
            lines(&small)
        );
    }
}
