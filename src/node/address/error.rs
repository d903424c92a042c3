//! Why a node has no address to tell others.

use crate::words::{counted, sentence};

/// Why a node has no address to tell others. Nothing runs then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It listens on all addresses of its machine.
    #[error(
        "--host {host} listens everywhere, and others must know where to call: say so with --advertise HOST:PORT, or have it found \
         with --advertise auto"
    )]
    Everywhere {
        /// What it was told to listen on.
        host: String,
    },
    /// No address of this machine leads anywhere.
    #[error(
        "this machine has no address that others could be told ({reason}): connect it to a network, or name the address with \
         --advertise HOST:PORT"
    )]
    NoInterface {
        /// What the system said.
        reason: String,
    },
    /// There are several addresses, and no route that prefers one.
    #[error(
        "this machine has several addresses, {addrs}, and no route that says which of them others should be told: name one with \
         --advertise, or listen on one with --host"
    )]
    Several {
        /// They.
        addrs: String,
    },
    /// Nobody says from where it sees this node.
    #[error(
        "--advertise auto needs a member of the ring that says from where it sees this node, and {} to ask {through} failed, the \
         last because {} Is a node of that ring running there, is the port right, and does a firewall let it through? --advertise \
         HOST:PORT names the address, --join-attempts forever goes on trying", counted(.attempts, "attempt"), sentence(.reason)
    )]
    Unseen {
        /// How often it was tried.
        attempts: u32,
        /// Who was to be asked.
        through: String,
        /// What stood in the way last.
        reason: String,
    },
    /// Nobody could call back.
    #[error(
        "others see this node at {addr}, and nobody could call it back there: {} If a router or a firewall stands in between, forward a \
         TCP port there to port {port} of this machine and start the node with --advertise HOST:PORT of that port{upnp}",
        sentence(.reason)
    )]
    NotCalledBack {
        /// Where it is seen.
        addr: String,
        /// What the last one that called said.
        reason: String,
        /// Where it listens.
        port: u16,
        /// What else could be done.
        upnp: &'static str,
    },
    /// The router of `--upnp` is not the one that others see.
    #[error(
        "the router of --upnp says that its outer address is {external}, and others see this node at {seen}: another router translates \
         addresses in between. Forward a TCP port there to port {port} of this machine by hand and start the node with --advertise \
         HOST:PORT of that port"
    )]
    BehindAnother {
        /// What the router says.
        external: String,
        /// What others say.
        seen: String,
        /// Where it listens.
        port: u16,
    },
    /// The system gives no socket.
    #[error("the address to tell others cannot be looked for: {0}")]
    System(String),
}
