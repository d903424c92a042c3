//! `tasks simulate`: the simulators from the shell.

mod overlay;
mod protocol;

use anyhow::Result;

use crate::cli::Simulate;
use crate::context::Context;
use crate::output::Report;

/// Runs one of the simulators.
pub(crate) async fn simulate(context: &Context, task: &Simulate) -> Result<Report> {
    match task {
        Simulate::Protocol(task) => protocol::protocol(context, task).await,
        Simulate::Overlay(task) => overlay::overlay(context, task).await,
    }
}
