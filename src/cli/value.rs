//! A value on the command line: as it stands there, from a file, or from standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};

use crate::node::Config;

/// What is stored, for `chordal put` and `tasks put`.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("what").required(true))]
pub struct ValueArgs {
    /// The value; `-` takes it from standard input
    #[arg(group = "what")]
    pub value: Option<String>,
    /// Take the value from this file; `-` is standard input
    #[arg(long, value_name = "FILE", group = "what")]
    pub file: Option<PathBuf>,
    /// Its media type; by default text/plain or application/octet-stream, whichever it is
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// Only if nothing is stored there
    #[arg(long)]
    pub if_absent: bool,
}

impl ValueArgs {
    /// The bytes, from wherever they come. It may wait for standard input as long as somebody likes. An error says in one line
    /// what is wrong.
    pub fn read(&self) -> Result<Vec<u8>, String> {
        match (&self.value, &self.file) {
            (Some(value), _) if value == "-" => all_of(io::stdin().lock(), "standard input"),
            (Some(value), _) => Ok(value.clone().into_bytes()),
            (None, Some(file)) if file == Path::new("-") => all_of(io::stdin().lock(), "standard input"),
            (None, Some(file)) => {
                let opened = File::open(file).map_err(|error| format!("cannot open {}: {error}", file.display()))?;
                all_of(opened, &file.display().to_string())
            }
            (None, None) => Err("no value was named".to_owned()),
        }
    }
}

/// Reads all of it, but no more than the largest value that any node takes.
fn all_of(from: impl Read, named: &str) -> Result<Vec<u8>, String> {
    let mut value = Vec::new();
    let most = Config::LARGEST_VALUE_LIMIT;
    from.take(most as u64 + 1).read_to_end(&mut value).map_err(|error| format!("cannot read {named}: {error}"))?;
    if value.len() > most {
        return Err(format!("{named} has more than {most} bytes, which no node takes; store it in parts"));
    }
    Ok(value)
}
