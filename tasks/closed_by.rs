//! By what the ring that `tasks` works with is closed to strangers, as far as it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use chordal::auth::{KeyRing, Security, Tls};

use crate::cli::{Cli, Task};
use crate::network_state::NetworkState;
use crate::state_file::StateFile;

/// The secret file and the certificates of a ring, in full.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClosedBy {
    secret_file: Option<PathBuf>,
    certs: Option<PathBuf>,
}

impl ClosedBy {
    /// What was named, else what the ring was booted with.
    pub(crate) fn of(cli: &Cli, state: &StateFile) -> Result<ClosedBy> {
        let full = |named: &Option<PathBuf>, option| {
            named.as_ref().map(|path| std::path::absolute(path).context(option)).transpose()
        };
        let named =
            ClosedBy { secret_file: full(&cli.secret_file, "--secret-file")?, certs: full(&cli.certs, "--certs")? };
        // A new ring is open unless it is told otherwise.
        if matches!(cli.task, Task::Boot(_) | Task::Demo(_)) {
            return Ok(named);
        }
        // A state that cannot be read is told about by the task that needs it.
        let known = state.load().ok().flatten().unwrap_or_default();
        Ok(ClosedBy { secret_file: named.secret_file.or(known.secret_file), certs: named.certs.or(known.certs) })
    }

    /// What `tasks` shows to nodes. Tasks that ask none go without, should files be missing.
    pub(crate) fn security(&self, task: &Task) -> Result<Security> {
        let read = || -> Result<Security> {
            let keys = self.secret_file.as_deref().map(KeyRing::open).transpose()?.map(Arc::new);
            let tls = self.certs.as_deref().map(tls).transpose()?;
            Ok(Security { keys, tls, ..Security::default() })
        };
        match task {
            Task::Killall(_) | Task::Kill(_) | Task::List | Task::Logs(_) => Ok(read().unwrap_or_default()),
            Task::Secret(_) | Task::Certs(_) | Task::Simulate(_) | Task::Completions(_) => Ok(Security::default()),
            _ => read(),
        }
    }

    /// The arguments of `chordal start` for nodes of the ring.
    pub(crate) fn options(&self) -> Vec<String> {
        let mut options = Vec::new();
        if let Some(file) = &self.secret_file {
            options.extend(["--secret-file".to_owned(), file.display().to_string()]);
        }
        if let Some(dir) = &self.certs {
            for (option, file) in [("--tls-cert", "node.pem"), ("--tls-key", "node.key"), ("--tls-ca", "ca.pem")] {
                options.extend([option.to_owned(), dir.join(file).display().to_string()]);
            }
        }
        options
    }

    /// Writes down what further tasks need.
    pub(crate) fn remember(&self, state: &mut NetworkState) {
        if state.secret_file.is_none() {
            state.secret_file.clone_from(&self.secret_file);
        }
        if state.certs.is_none() {
            state.certs.clone_from(&self.certs);
        }
    }
}

/// The highest certificate that a directory has: who was only given that of a client is one.
fn tls(dir: &Path) -> Result<Tls> {
    let names = ["node", "client", "reader"];
    let found = names.iter().find(|name| dir.join(format!("{name}.key")).exists());
    let name = found.ok_or_else(|| {
        anyhow!("there are no certificates in {}: `tasks certs --dir {}` makes them", dir.display(), dir.display())
    })?;
    Ok(Tls::open(&dir.join(format!("{name}.pem")), &dir.join(format!("{name}.key")), &dir.join("ca.pem"))?)
}
