//! Tasks on values: put, get, cas, export, import.

use std::path::PathBuf;

use chordal::cli::value::ValueArgs;
use clap::Args;

use super::Via;

#[derive(Debug, Args)]
#[command(override_usage = "tasks put [OPTIONS] <KEY> <VALUE|--file <FILE>>")]
pub(crate) struct Put {
    /// The key.
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) value: ValueArgs,
    #[command(flatten)]
    pub(crate) via: Via,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The key.
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) via: Via,
}

#[derive(Debug, Args)]
pub(crate) struct Cas {
    /// The key.
    pub(crate) key: String,
    /// The value that must be there.
    pub(crate) old: String,
    /// The value that takes its place.
    pub(crate) new: String,
    #[command(flatten)]
    pub(crate) via: Via,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Where to: a record in JSON a line; `-` is standard output. Until it is whole, FILE.part.
    pub(crate) file: PathBuf,
    /// Go on with what an interrupted export has left in FILE.part.
    #[arg(long)]
    pub(crate) resume: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Where from: a record in JSON a line, as export writes them; `-` is standard input. How far it is stands in FILE.import.
    pub(crate) file: PathBuf,
    /// Go on where an interrupted import has ended.
    #[arg(long)]
    pub(crate) resume: bool,
}
