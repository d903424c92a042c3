//! `tasks secret`: definitions.

use std::path::PathBuf;

use clap::Subcommand;

/// What can be done with a secret file.
#[derive(Debug, Subcommand)]
pub(crate) enum Secret {
    /// Write a new file with a key for nodes and one for clients.
    New {
        /// The file, which must not exist yet; nodes and those who run the ring need it.
        file: PathBuf,
        /// Write another file with nothing but the key for clients, for those who only store and look up.
        #[arg(long, value_name = "FILE")]
        client: Option<PathBuf>,
    },
    /// List the ids and roles of the keys, not the secrets.
    List {
        /// The file.
        file: PathBuf,
    },
    /// First step of replacing keys: add a new one to each role, which is accepted but does not sign yet.
    Add {
        /// The file.
        file: PathBuf,
        /// Write the file of clients anew, too: that with nothing but the keys for clients.
        #[arg(long, value_name = "FILE")]
        client: Option<PathBuf>,
    },
    /// Second step, when all have the file with the new keys: the newest of each role signs.
    Promote {
        /// The file.
        file: PathBuf,
        /// Write the file of clients anew, too: that with nothing but the keys for clients.
        #[arg(long, value_name = "FILE")]
        client: Option<PathBuf>,
    },
    /// Last step, when all have the file in which they sign: nothing but the keys that sign is accepted.
    Retire {
        /// The file.
        file: PathBuf,
        /// Write the file of clients anew, too: that with nothing but the keys for clients.
        #[arg(long, value_name = "FILE")]
        client: Option<PathBuf>,
    },
}
