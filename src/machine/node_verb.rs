//! The hidden verb `node`: the process becomes a node. The arguments are those of `chordal start`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::cli;

/// Leaves the terminal and all that the caller had open behind, then runs the node to its end.
///
/// To be called before anything else in the process has opened a file.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    close_inherited();
    // Fails only for the leader of a process group, which has no terminal to lose that matters here.
    let _ = nix::unistd::setsid();
    // Run as /proc/self/exe the process would be listed as `exe`.
    let _ = nix::sys::prctl::set_name(c"chordal");
    start(arguments)
}

fn start(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let program = std::iter::once(OsString::from("tasks node"));
    match StartCommand::try_parse_from(program.chain(arguments)) {
        Ok(command) => cli::start(command.args),
        Err(error) => cli::misused(&StartCommand::command(), &error),
    }
}

/// The arguments of `chordal start`, without the verb.
#[derive(Debug, clap::Parser)]
#[command(name = "chordal start")]
struct StartCommand {
    #[command(flatten)]
    args: cli::StartArgs,
}

/// Closes every descriptor but the standard ones: a caller's pipe must not stay open as long as a node lives.
fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<i32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // That of the listing itself is gone already, which is no harm.
        let _ = nix::unistd::close(number);
    }
}
