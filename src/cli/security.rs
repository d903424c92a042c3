//! The options that close a node to strangers.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use clap::builder::BoolishValueParser;

use crate::auth::{KeyFileError, KeyRing, Security};

/// How `chordal start` is told to keep strangers out.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Strangers")]
pub struct SecurityArgs {
    /// File with the keys of the ring: every request must then be signed with one of them. `tasks secret new` writes one
    #[arg(long, value_name = "FILE", env = "CHORDAL_SECRET_FILE")]
    pub secret_file: Option<PathBuf>,
    /// Let requests that only read pass without a signature, as a browser sends them
    #[arg(long, value_parser = BoolishValueParser::new(), requires = "secret_file", env = "CHORDAL_OPEN_READ")]
    pub open_read: bool,
    /// Further addresses by which clients call this node, such as that of a forwarded port: a request is signed for one of them
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', requires = "secret_file", env = "CHORDAL_KNOWN_AS")]
    pub known_as: Vec<String>,
}

impl SecurityArgs {
    /// Reads the files that they name.
    pub fn load(self) -> Result<Security, KeyFileError> {
        let keys = self.secret_file.map(|path| KeyRing::open(&path).map(Arc::new)).transpose()?;
        Ok(Security { keys, open_read: self.open_read, known_as: self.known_as })
    }
}
