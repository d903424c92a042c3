//! A network of the test's own: a namespace with devices, addresses and rules that nothing outside of it sees.

use std::fs::File;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

/// A network namespace, gone when this is dropped.
pub(crate) struct Namespace {
    name: String,
}

static MADE: AtomicU32 = AtomicU32::new(0);

impl Namespace {
    /// An empty one. What it is called is for people; tests at the same time get names of their own.
    pub(crate) fn new(called: &str) -> Result<Namespace, String> {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("chordal-{}-{number}-{called}", std::process::id());
        run("ip", &["netns", "add", &name], "")?;
        Ok(Namespace { name })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Does this inside: what it starts and whom it asks is there.
    pub(crate) fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("the namespace is there");
        std::thread::scope(|scope| {
            // A thread of its own: it never comes back from there.
            let thread = scope.spawn(|| {
                setns(file, CloneFlags::CLONE_NEWNET).expect("the namespace can be entered");
                act()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `ip` on it.
    pub(crate) fn ip(&self, args: &[&str]) -> Result<(), String> {
        run("ip", &[&["-n", &self.name], args].concat(), "")
    }

    /// Runs a program inside, with this as its standard input.
    pub(crate) fn run(&self, program: &str, args: &[&str], input: &str) -> Result<(), String> {
        self.inside(|| run(program, args, input))
    }

    /// Sets `/proc/sys/net/ipv4/NAME`.
    pub(crate) fn set(&self, name: &str, value: &str) -> Result<(), String> {
        self.inside(|| std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value))
            .map_err(|error| format!("net.ipv4.{name} of a namespace cannot be set: {error}"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(reason) = run("ip", &["netns", "delete", &self.name], "") {
            println!("{} stays behind: {reason}", self.name);
        }
    }
}

fn run(program: &str, args: &[&str], input: &str) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("`{program}` cannot be run: {error}"))?;
    let mut stdin = child.stdin.take().expect("its input is piped");
    // Should it not read, it says why it ended.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let ran = child.wait_with_output().map_err(|error| format!("`{program}` cannot be waited for: {error}"))?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
    Err(format!("`{program} {}` failed: {said}", args.join(" ")))
}
