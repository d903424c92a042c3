//! `tasks completions`: a script for a shell.

use anyhow::Result;
use clap::CommandFactory as _;
use serde_json::json;

use crate::cli::{self, Cli};
use crate::output::Report;

/// The script, to be put where the shell looks for such.
pub(crate) fn completions(task: &cli::Completions) -> Result<Report> {
    let mut script = Vec::new();
    clap_complete::generate(task.shell, &mut Cli::command(), "tasks", &mut script);
    let script = String::from_utf8(script)?;
    let text = script.trim_end().to_owned();
    Report::new(json!({ "shell": task.shell.to_string(), "script": script }), text)
}
