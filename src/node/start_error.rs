//! Why a node does not start.

#[cfg(feature = "discover")]
use super::DiscoverError;
#[cfg(feature = "upnp")]
use super::UpnpError;
use super::{AddressError, PortHolder, Unreached};
use crate::store::StoreError;

/// Why a node did not start. Nothing runs then, and nothing on disk has changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings contradict each other or the data directory.
    #[error("{0}")]
    Config(String),
    /// The address can't be listened on.
    #[error("cannot listen on {addr}: {reason}{}", advice(.reason, .holder.as_ref(), "--host", "--port"))]
    Listen {
        /// The address.
        addr: String,
        /// What the system said.
        reason: std::io::Error,
        /// Who has the port, if it is taken and that can be seen.
        holder: Option<PortHolder>,
    },
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no address to tell others.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The router forwards no port.
    #[cfg(feature = "upnp")]
    #[error(transparent)]
    Upnp(#[from] UpnpError),
    /// The local network cannot be asked.
    #[cfg(feature = "discover")]
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// The node was told to join, and could not.
    #[error("could not join the ring: {0}")]
    Join(String),
    /// Others cannot call it, so it could be no member.
    #[error(transparent)]
    Unreached(#[from] Unreached),
    /// Something that should always work did not.
    #[error("{0}")]
    System(String),
}

impl StartError {
    /// Others could reach it at this address, and nothing would keep them out.
    pub(super) fn open_to_strangers(addr: &str) -> StartError {
        StartError::Config(format!(
            "{addr} can be reached from other machines, and nothing would keep strangers out: give the node the secret of its \
             ring with --secret-file (`tasks secret new ring.secret` writes one) or certificates with --tls-cert (`tasks certs`), or listen on a loopback address such as \
             127.0.0.1"
        ))
    }
}

/// What to do about an address that cannot be listened on, which was named by these options.
pub(crate) fn advice(error: &std::io::Error, holder: Option<&PortHolder>, host: &str, port: &str) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            let holder = holder.map_or(String::new(), |holder| format!(" ({holder})"));
            format!(". Another program has that port{holder}: choose another one with {port}, or 0 for any")
        }
        std::io::ErrorKind::AddrNotAvailable => {
            format!(". This machine does not have that address: choose another {host}")
        }
        std::io::ErrorKind::PermissionDenied => format!(". Ports below 1024 are reserved: choose a higher {port}"),
        _ => format!(". Choose another {host}, such as 127.0.0.1"),
    }
}
