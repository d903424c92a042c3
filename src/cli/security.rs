//! The options that close a node to strangers.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use clap::builder::BoolishValueParser;
use ipnet::IpNet;

use crate::auth::{ClientLimits, KeyRing, Security, Tls};

/// What a member or a client of a closed ring holds: a key, or a certificate.
#[derive(Debug, Clone, Args)]
pub struct HolderArgs {
    /// File with the keys of the ring: every request is then signed with one of them. `tasks secret new` writes one
    #[arg(long, value_name = "FILE", env = "CHORDAL_SECRET_FILE")]
    pub secret_file: Option<PathBuf>,
    /// Certificate of this node or client, in PEM: all connections are then mutual TLS. `tasks certs` makes it
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_ca"], env = "CHORDAL_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "CHORDAL_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Certificate of the authority that those of all nodes and clients come from
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "CHORDAL_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
}

impl HolderArgs {
    /// Reads the files that they name. An error says in one line what is wrong and what to do.
    pub fn load(&self) -> Result<Security, String> {
        let keys = self.secret_file.as_ref().map(|path| KeyRing::open(path).map(Arc::new)).transpose();
        let tls = match (&self.tls_cert, &self.tls_key, &self.tls_ca) {
            (Some(cert), Some(key), Some(authority)) => {
                Some(Tls::open(cert, key, authority).map_err(|error| error.to_string())?)
            }
            _ => None,
        };
        Ok(Security { keys: keys.map_err(|error| error.to_string())?, tls, ..Security::default() })
    }
}

/// How `chordal start` is told to keep strangers out.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Strangers")]
pub struct SecurityArgs {
    #[command(flatten)]
    holder: HolderArgs,
    /// Let requests that only read pass without a signature, as a browser sends them
    #[arg(long, value_parser = BoolishValueParser::new(), requires = "secret_file", env = "CHORDAL_OPEN_READ")]
    pub open_read: bool,
    /// Further addresses by which clients call this node, such as that of a forwarded port: a request is signed for one of them
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',', requires = "secret_file", env = "CHORDAL_KNOWN_AS")]
    pub known_as: Vec<String>,
    /// Nets in which other nodes may be called [default: addresses of the same kind as this node's own: loopback, private or
    /// public]
    #[arg(long, value_name = "CIDR,…", value_delimiter = ',', value_parser = net, env = "CHORDAL_ALLOW_NET")]
    pub allow_net: Vec<IpNet>,
    /// Requests a second that one client may send, and as many at once; 0 is any number. Nodes may send more
    #[arg(long, value_name = "NUMBER", default_value_t = ClientLimits::default().requests, env = "CHORDAL_CLIENT_REQUESTS")]
    pub client_requests: u32,
    /// Connections that one client may have at once, at least 1
    #[arg(long, value_name = "NUMBER", default_value_t = ClientLimits::default().connections,
          value_parser = connections, env = "CHORDAL_CLIENT_CONNECTIONS")]
    pub client_connections: usize,
    /// Let both hold for clients on this machine too
    #[arg(long, value_parser = BoolishValueParser::new(), env = "CHORDAL_LIMIT_LOOPBACK")]
    pub limit_loopback: bool,
}

fn net(text: &str) -> Result<IpNet, String> {
    text.parse()
        .map_err(|_| "a net is an address and the length of its prefix, such as 10.0.0.0/8 or 2001:db8::/32".to_owned())
}

fn connections(text: &str) -> Result<usize, String> {
    let connections = text.parse().ok().filter(|connections| *connections > 0);
    connections.ok_or_else(|| "a number from 1: with none no client could ask anything".to_owned())
}

impl SecurityArgs {
    /// Reads the files that they name. An error says in one line what is wrong and what to do.
    pub fn load(self) -> Result<Security, String> {
        Ok(Security {
            open_read: self.open_read,
            known_as: self.known_as,
            allowed: self.allow_net,
            limits: ClientLimits {
                requests: self.client_requests,
                connections: self.client_connections,
                on_loopback: self.limit_loopback,
            },
            ..self.holder.load()?
        })
    }
}
