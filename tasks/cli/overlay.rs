//! What `tasks simulate overlay` understands.

use clap::Args;

/// Options of `tasks simulate overlay`.
#[derive(Debug, Args)]
pub(crate) struct Overlay {}
