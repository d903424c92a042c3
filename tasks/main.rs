//! `tasks` boots, grows, feeds, watches, hurts and ends rings of Chordal nodes on this machine.
//!
//! [`cli`] says what it understands; each task has a file of its own and returns a [`output::Report`], which is printed
//! here; [`network_state`] is what it remembers from one call to the next.

mod add;
mod batch;
mod boot;
mod certs;
mod cli;
mod closed_by;
mod completions;
mod context;
mod crawl;
mod demo;
mod doctor;
mod export;
mod fleet;
mod import;
mod killall;
mod leave;
mod lipsum;
mod list;
mod lookup;
mod manage;
mod monitor;
mod names;
mod off_thread;
mod output;
mod recover;
mod screen;
mod secret;
mod simulate;
mod start;
mod store;
mod storemany;
mod value;
mod views;
mod whole_file;

use std::io;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use chordal::cli::parse;
use chordal::client::NodeClient;
use chordal::machine::{network_state, node_verb, places, process, spawn, state_file};
use clap::{CommandFactory as _, Parser as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use cli::{Cli, Task};
use closed_by::ClosedBy;
use context::Context;
use output::Report;
use state_file::StateFile;

/// Nodes run within this program. A sixth of their time went to the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    process::raise_open_files();
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|verb| verb == "node") {
        return node_verb::run(arguments);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return chordal::cli::misused(&Cli::command(), &error),
    };
    match work(&cli) {
        Ok(report) => finish(&report, cli.json),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}")),
    }
}

/// Does one task.
pub(crate) async fn run(context: &Context, task: &Task) -> Result<Report> {
    match task {
        Task::Boot(task) => boot::boot(context, task).await,
        Task::Killall(task) => killall::killall(context, task),
        Task::Reboot(task) => boot::reboot(context, task).await,
        Task::Add(task) => add::add(context, task).await,
        Task::Addmany(task) => add::addmany(context, task).await,
        Task::Join(task) => add::join(context, task).await,
        Task::Leave(task) => leave::leave(context, task).await,
        Task::Kill(task) => killall::kill(context, task),
        Task::Start(task) => start::start(context, task).await,
        Task::List => list::list(context),
        Task::Logs(task) => list::logs(context, task).await,
        Task::Store(task) => store::store(context, task).await,
        Task::Storemany(task) => storemany::storemany(context, task).await,
        Task::Lookup(task) => lookup::lookup(context, task).await,
        Task::Delete(task) => store::delete(context, task).await,
        Task::Put(task) => value::put(context, task).await,
        Task::Get(task) => value::get(context, task).await,
        Task::Cas(task) => value::cas(context, task).await,
        Task::Export(task) => export::export(context, task).await,
        Task::Import(task) => import::import(context, task).await,
        Task::Monitor(task) => monitor::monitor(context, task).await,
        Task::Doctor(task) => doctor::doctor(context, task).await,
        Task::Recover(task) => recover::recover(context, task).await,
        Task::Demo(task) => demo::demo(context, task).await,
        Task::Manage(task) => manage::manage(context, task).await,
        Task::Simulate(task) => simulate::simulate(context, task).await,
        Task::Secret(task) => secret::secret(task),
        Task::Certs(task) => certs::certs(task),
        Task::Completions(task) => completions::completions(task),
    }
}

fn work(cli: &Cli) -> Result<Report> {
    // One thread is enough for one who mostly waits; nodes have runtimes of their own, in their own processes.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let state = StateFile::at(&cli.state)?;
        let closed_by = ClosedBy::of(cli, &state)?;
        let context = Context {
            client: NodeClient::new().with_security(&closed_by.security(&cli.task)?),
            state,
            closed_by,
            json: cli.json,
            interrupt: interrupt()?,
        };
        if ends_itself(&cli.task) {
            return run(&context, &cli.task).await;
        }
        tokio::select! {
            report = run(&context, &cli.task) => report,
            () = context.interrupt.cancelled() => bail!("interrupted"),
        }
    })
}

/// Whether the task deals with an interruption itself: it has something to clean up, or ends like that as a rule.
fn ends_itself(task: &Task) -> bool {
    match task {
        Task::Boot(_) | Task::Reboot(_) | Task::Add(_) | Task::Addmany(_) | Task::Join(_) | Task::Start(_) => true,
        Task::Demo(_) | Task::Manage(_) | Task::Monitor(_) | Task::Logs(_) | Task::Export(_) | Task::Import(_) => true,
        Task::Doctor(task) => task.watch,
        Task::Killall(_) | Task::Leave(_) | Task::Kill(_) | Task::List | Task::Completions(_) => false,
        Task::Store(_) | Task::Storemany(_) | Task::Lookup(_) | Task::Delete(_) => false,
        Task::Put(_) | Task::Get(_) | Task::Cas(_) => false,
        Task::Simulate(_) | Task::Recover(_) | Task::Secret(_) | Task::Certs(_) => false,
    }
}

/// A token that Ctrl-C and SIGTERM cancel.
fn interrupt() -> Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut ctrl_c = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let cancels = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = ctrl_c.recv() => {}
            _ = terminate.recv() => {}
        }
        cancels.cancel();
    });
    Ok(token)
}

fn finish(report: &Report, json: bool) -> ExitCode {
    match report.print(json) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return fail(&format!("cannot print: {error}")),
        _ => {}
    }
    match &report.failure {
        Some(failure) => fail(failure),
        None => ExitCode::SUCCESS,
    }
}

fn fail(message: &str) -> ExitCode {
    output::warn(&format!("tasks: {}", output::one_line(message)));
    ExitCode::FAILURE
}

/// Who reads our output may stop when they have seen enough.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(broken)
}
