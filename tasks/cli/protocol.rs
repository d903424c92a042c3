//! What `tasks simulate protocol` understands.

use clap::Args;

/// Options of `tasks simulate protocol`.
#[derive(Debug, Args)]
pub(crate) struct Protocol {}
