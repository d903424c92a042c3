//! `chordal put`, `get`, `delete` and `info`: one operation on a ring of which no more is known than a node.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chordal_protocol::Condition;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::parse;
use super::security::HolderArgs;
use super::value::ValueArgs;
use crate::api::{NodeInfo, NodeRef, join_host_port};
use crate::client::{Client, Error, OperationError, Outcome};
use crate::pauses::Pauses;
use crate::words::{counted, sentence};

/// How often a node is asked before it is taken for absent.
const ATTEMPTS: u32 = 3;

/// The first and the longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(1));

/// What the exit status of these commands means, for their help.
pub const EXIT_STATUS: &str = "Exit status:\n  0  done\n  1  the ring refuses: the secret or the certificate is not one of its own, there is a value already (--if-absent), \
     or its disk is full, say\n  \
     2  bad input: an option, a file that cannot be read, a key or a value that is too large\n  3  nothing is stored there\n  \
     4  nobody answers, or too few of those who keep the key; nothing has changed\n  \
     5  the write may or may not have happened; look what is stored";

/// Whom to ask, and for how long.
#[derive(Debug, Clone, Args)]
pub struct AskArgs {
    /// Host of a node of the ring, any of them
    #[arg(long, default_value = "127.0.0.1", value_parser = parse::host, env = "CHORDAL_HOST")]
    pub host: String,
    /// Port of that node
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..), env = "CHORDAL_PORT")]
    pub port: u16,
    /// For how long to try in all: `2s`, `500ms` or plain seconds
    #[arg(long, default_value = "15s", value_name = "DURATION", value_parser = parse::duration, allow_hyphen_values = true)]
    pub timeout: Duration,
    #[command(flatten)]
    holder: HolderArgs,
}

/// What `chordal put` takes.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXIT_STATUS, override_usage = "chordal put [OPTIONS] --port <PORT> <KEY> <VALUE|--file <FILE>>")]
pub struct PutArgs {
    #[command(flatten)]
    ask: AskArgs,
    /// The key
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    key: String,
    #[command(flatten)]
    value: ValueArgs,
}

/// What `chordal get` and `chordal delete` take.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct KeyArgs {
    #[command(flatten)]
    ask: AskArgs,
    /// The key
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    key: String,
}

/// What `chordal info` takes.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXIT_STATUS)]
pub struct InfoArgs {
    #[command(flatten)]
    ask: AskArgs,
    /// Print all that the node tells, as JSON
    #[arg(long)]
    json: bool,
}

/// Why it was not done, each with an exit status of its own.
enum Failure {
    Refused(String),
    BadInput(String),
    Missing(String),
    Unavailable(String),
    Unknown(String),
}

impl From<OperationError> for Failure {
    fn from(error: OperationError) -> Failure {
        match error {
            OperationError::Refused { .. } if matches!(error.status(), Some(400 | 413 | 414)) => {
                Failure::BadInput(error.to_string())
            }
            OperationError::Refused { .. } => Failure::Refused(error.to_string()),
            OperationError::Unavailable { .. } => Failure::Unavailable(error.to_string()),
            OperationError::Unknown { .. } => Failure::Unknown(error.to_string()),
        }
    }
}

impl Failure {
    fn exit(self) -> ExitCode {
        let (reason, code) = match self {
            Failure::Refused(reason) => (reason, 1),
            Failure::BadInput(reason) => (reason, 2),
            Failure::Missing(reason) => (reason, 3),
            Failure::Unavailable(reason) => (reason, 4),
            Failure::Unknown(reason) => (reason, 5),
        };
        eprintln!("chordal: {reason}");
        ExitCode::from(code)
    }
}

/// Stores a value, and prints the tag of its version.
pub(super) fn put(args: &PutArgs) -> ExitCode {
    finish(args.value.read().map_err(Failure::BadInput).and_then(|value| {
        run(async {
            let (client, _) = reach(&args.ask).await?;
            let condition = if args.value.if_absent { Condition::Absent } else { Condition::Always };
            match client.put_if(&args.key, value, args.value.content_type.as_deref(), condition).await? {
                Outcome::Done(tag) => Ok(format!("{tag}\n").into_bytes()),
                Outcome::Refused(now) => {
                    let tag = now.map_or(String::new(), |tag| format!(", with the tag {tag}"));
                    Err(Failure::Refused(format!("`{}` has a value already{tag}; nothing was stored", args.key)))
                }
            }
        })
    }))
}

/// Prints a value as it is.
pub(super) fn get(args: &KeyArgs) -> ExitCode {
    finish(run(async {
        let (client, _) = reach(&args.ask).await?;
        match client.get(&args.key).await? {
            Some(value) => Ok(value.bytes),
            None => Err(missing(&args.key)),
        }
    }))
}

/// Deletes a value.
pub(super) fn delete(args: &KeyArgs) -> ExitCode {
    finish(run(async {
        let (client, _) = reach(&args.ask).await?;
        if client.delete(&args.key).await? { Ok(Vec::new()) } else { Err(missing(&args.key)) }
    }))
}

/// Prints who the node is, whom it knows, and how many keys it serves.
pub(super) fn info(args: &InfoArgs) -> ExitCode {
    finish(run(async {
        let (_, info) = reach(&args.ask).await?;
        // Our own shape has string keys only, which is all that serialising JSON to memory could fail on.
        let text = if args.json { serde_json::to_string(&info).unwrap_or_default() } else { told(&info) };
        Ok((text + "\n").into_bytes())
    }))
}

fn missing(key: &str) -> Failure {
    Failure::Missing(format!("nothing is stored under `{key}`; keys are compared byte for byte"))
}

fn told(info: &NodeInfo) -> String {
    let named = |node: &NodeRef| format!("{} ({}, {})", node.name, node.id.short(), node.addr());
    let successors: Vec<String> = info.successors.iter().map(named).collect();
    let kept: u64 = info.views.iter().map(|view| view.keys).sum();
    let lines = [
        ("node", format!("{} at {}", info.name, join_host_port(&info.host, info.port))),
        ("id", info.id.to_string()),
        ("ring", info.ring.clone().unwrap_or_else(|| "none yet".to_owned())),
        ("state", format!("{}, {}", info.membership, if info.ready { "ready" } else { "not ready" })),
        ("predecessor", info.pred.as_ref().map_or("none".to_owned(), named)),
        ("successors", if successors.is_empty() { "none".to_owned() } else { successors.join(", ") }),
        ("keys", format!("{} served, {kept} kept", info.keys)),
    ];
    lines.map(|(what, is)| format!("{what:<12}{is}")).join("\n")
}

fn run(work: impl Future<Output = Result<Vec<u8>, Failure>>) -> Result<Vec<u8>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Refused(format!("there is no runtime: {error}")))?;
    let outcome = runtime.block_on(work);
    // A name that is still being resolved is not waited for.
    runtime.shutdown_background();
    outcome
}

fn finish(outcome: Result<Vec<u8>, Failure>) -> ExitCode {
    let printed = match outcome {
        Ok(bytes) => io::stdout().lock().write_all(&bytes),
        Err(failure) => return failure.exit(),
    };
    match printed {
        // Who reads our output may stop when they have seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Failure::Refused(format!("cannot print: {error}")).exit()
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Asks the node who it is, so that it is known whether anybody is there who takes us. The client has the rest of the time.
async fn reach(args: &AskArgs) -> Result<(Client, NodeInfo), Failure> {
    let (addr, began) = (join_host_port(&args.host, args.port), Instant::now());
    let client = Client::new([&addr]).map_err(|error| Failure::BadInput(error.to_string()))?;
    let client = client.with_security(&args.holder.load().map_err(Failure::BadInput)?);
    let mut pauses = Pauses::new(PAUSES.0, PAUSES.1);
    let left = || args.timeout.saturating_sub(began.elapsed());
    let mut attempt = 0;
    loop {
        // What is left is shared by this attempt and those that may follow.
        let each = left() / (ATTEMPTS - attempt);
        attempt += 1;
        let error = match client.clone().with_deadline(each).info(&addr).await {
            Ok(info) => return Ok((client.with_deadline(left()), info)),
            Err(error) => error,
        };
        let pause = pauses.next();
        let reason = match &error {
            Error::Unreachable { reason, .. } if attempt < ATTEMPTS && pause < left() => reason,
            Error::Unreachable { reason, .. } => return Err(Failure::Unavailable(nobody(args, attempt, reason))),
            error if error.is_refusal() => return Err(Failure::Refused(error.to_string())),
            error => return Err(Failure::Unavailable(error.to_string())),
        };
        eprintln!("chordal: connection attempt {attempt}/{ATTEMPTS} to {addr} failed ({reason}), retrying…");
        tokio::time::sleep(pause).await;
    }
}

fn nobody(args: &AskArgs, attempts: u32, reason: &str) -> String {
    let is_here = args.host == "localhost" || args.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    let advice = if is_here {
        format!("`chordal start --port {}` starts a node there, if that is the right port", args.port)
    } else {
        "Check on that machine that a node runs, that it listens at this address and port, and that no firewall is in between"
            .to_owned()
    };
    format!(
        "{} does not answer after {}: {} {advice}",
        join_host_port(&args.host, args.port),
        counted(attempts, "attempt"),
        sentence(reason)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_for_the_machine_that_was_asked() {
        let told = |host: &str| {
            let holder = HolderArgs { secret_file: None, tls_cert: None, tls_key: None, tls_ca: None };
            let ask = AskArgs { host: host.to_owned(), port: 4000, timeout: Duration::from_secs(1), holder };
            nobody(&ask, 1, "Connection refused")
        };
        for here in ["127.0.0.1", "::1", "localhost"] {
            assert!(told(here).ends_with("`chordal start --port 4000` starts a node there, if that is the right port"));
        }
        assert_eq!(
            told("10.0.0.6"),
            "10.0.0.6:4000 does not answer after 1 attempt: Connection refused. Check on that machine that a node runs, that it \
             listens at this address and port, and that no firewall is in between"
        );
    }
}
