//! `tasks simulate overlay`.

use anyhow::{Result, bail};

use crate::cli::Overlay;
use crate::context::Context;
use crate::output::Report;

/// Runs the simulator.
pub(crate) async fn overlay(_context: &Context, _task: &Overlay) -> Result<Report> {
    bail!("not yet")
}
