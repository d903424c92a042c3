//! `tasks secret`: the secret file of a ring.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use chordal::auth::{KeyFile, NewKey, Role};
use serde_json::json;

use crate::cli;
use crate::output::Report;

/// Writes and changes secret files.
pub(crate) fn secret(task: &cli::Secret) -> Result<Report> {
    match task {
        cli::Secret::New { file, client } => new(file, client.as_deref()),
        cli::Secret::List { file } => report(file, &KeyFile::read(file)?, ""),
        cli::Secret::Add { file, client } => {
            change((file, client.as_deref()), add, "Give the file to all who have it, then `tasks secret promote`.")
        }
        cli::Secret::Promote { file, client } => change(
            (file, client.as_deref()),
            |keys, _| keys.rotate_right(1),
            "Give the file to all who have it, then `tasks secret retire`.",
        ),
        cli::Secret::Retire { file, client } => {
            change((file, client.as_deref()), |keys, _| keys.truncate(1), "Give the file to all who have it.")
        }
    }
}

fn new(file: &Path, client: Option<&Path>) -> Result<Report> {
    let mut keys = KeyFile::default();
    add(&mut keys.node, Role::Node);
    add(&mut keys.client, Role::Client);
    write_new(file, &keys)?;
    if let Some(client) = client
        && let Err(error) = write_new(client, &of_clients(&keys))
    {
        let _ = std::fs::remove_file(file);
        return Err(error);
    }
    report(file, &keys, &format!("Begin a ring with it: `tasks boot --secret-file {}`.", file.display()))
}

/// What those have who only store and look up.
fn of_clients(keys: &KeyFile) -> KeyFile {
    KeyFile { client: keys.client.clone(), ..KeyFile::default() }
}

/// Does this to the keys of each role that has some, and writes those of clients to a file of their own if there is to be one.
fn change((file, client): (&Path, Option<&Path>), act: impl Fn(&mut Vec<NewKey>, Role), next: &str) -> Result<Report> {
    let mut keys = KeyFile::read(file)?;
    for (role, of_role) in
        [(Role::Node, &mut keys.node), (Role::Client, &mut keys.client), (Role::Reader, &mut keys.reader)]
    {
        if !of_role.is_empty() {
            act(of_role, role);
        }
    }
    if let Some(client) = client {
        // First, for it can be written once more: the step itself must not be made twice.
        replace(client, &of_clients(&keys))?;
    }
    replace(file, &keys)?;
    report(file, &keys, next)
}

/// Puts keys in the place of a file, if nodes can use them.
fn replace(file: &Path, keys: &KeyFile) -> Result<()> {
    let beside = file.with_added_extension("new");
    // What a change that was cut short has left.
    let _ = std::fs::remove_file(&beside);
    write_new(&beside, keys)?;
    // What nodes could not use they shall not get to see.
    let replaced = KeyFile::read(&beside).map_err(anyhow::Error::from);
    let replaced = replaced
        .and_then(|_| std::fs::rename(&beside, file).with_context(|| format!("cannot replace {}", file.display())));
    if replaced.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    replaced
}

fn add(keys: &mut Vec<NewKey>, role: Role) {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Not only the time: two may be made within a second.
    keys.push(NewKey::random(format!("{role}-{seconds}-{:04x}", rand::random::<u16>())));
}

/// Writes a file that nobody but its owner can read, and that was not there.
fn write_new(file: &Path, keys: &KeyFile) -> Result<()> {
    let cannot = || format!("cannot write {}", file.display());
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    if opened.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::AlreadyExists) {
        bail!("{} is there already: choose another name, or replace its keys with `tasks secret add`", file.display());
    }
    let mut opened = opened.with_context(cannot)?;
    let text = toml::to_string(keys).context("the keys cannot be written as TOML")?;
    let written = opened.write_all(text.as_bytes()).and_then(|()| opened.sync_all());
    if written.is_err() {
        let _ = std::fs::remove_file(file);
    }
    written.with_context(cannot)
}

fn report(file: &Path, keys: &KeyFile, next: &str) -> Result<Report> {
    let mut signs = Vec::new();
    let mut lines = Vec::new();
    let mut listed = Vec::new();
    for (role, key) in keys.keys() {
        let is_first = !signs.contains(&role);
        signs.push(role);
        lines.push(format!("{role:<8} {}{}", key.id, if is_first { "  signs" } else { "" }));
        listed.push(json!({ "role": role, "id": key.id, "signs": is_first }));
    }
    let text = [lines.join("\n"), next.to_owned()].join("\n\n");
    Report::new(json!({ "file": file.display().to_string(), "keys": listed }), text.trim_end())
}
