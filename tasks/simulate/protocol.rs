//! `tasks simulate protocol`.

use anyhow::{Result, bail};

use crate::cli::Protocol;
use crate::context::Context;
use crate::output::Report;

/// Runs the simulator.
pub(crate) async fn protocol(_context: &Context, _task: &Protocol) -> Result<Report> {
    bail!("not yet")
}
