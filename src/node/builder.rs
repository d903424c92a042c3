//! How a program says what its node shall be like.

use std::path::PathBuf;
use std::time::Duration;

use chordal_protocol::Ring;

use crate::auth::Security;

use super::{Advertise, Config, Data, Node, StartError, Upnp};

/// A node to be. What is not said stays as in [`Config::default`]: on 127.0.0.1, on any free port, in memory, with a ring of its
/// own. [`Node::start`] takes a whole [`Config`], which has more to say.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let node = chordal::Node::builder().port(4101).data_dir("data/a").bootstrap(["127.0.0.1:4100"]).start().await?;
/// node.put("greeting", "hello").await?;
/// node.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a node that is not started does nothing"]
pub struct NodeBuilder {
    config: Config,
}

impl NodeBuilder {
    /// The address or name to listen on, without a port.
    pub fn host(mut self, host: impl Into<String>) -> NodeBuilder {
        self.config.host = host.into();
        self
    }

    /// The port to listen on; 0 takes any that is free, or the one that the data directory remembers.
    pub fn port(mut self, port: u16) -> NodeBuilder {
        self.config.port = port;
        self
    }

    /// What others are told instead of the address that it listens on.
    pub fn advertise(mut self, advertise: Advertise) -> NodeBuilder {
        self.config.advertise = Some(advertise);
        self
    }

    /// What people call the node.
    pub fn name(mut self, name: impl Into<String>) -> NodeBuilder {
        self.config.name = Some(name.into());
        self
    }

    /// Members of the ring to join (`host:port`), or URLs of bootstrap services that name some. Without any the node begins a
    /// ring of its own, or goes on in the one that its data directory remembers.
    pub fn bootstrap<S: Into<String>>(mut self, contacts: impl IntoIterator<Item = S>) -> NodeBuilder {
        self.config.bootstrap.extend(contacts.into_iter().map(Into::into));
        self
    }

    /// Finds nodes of the ring of this name on the local network, and is found by them (feature `discover`). A node that has no
    /// ring yet and nobody else to join joins the one that it finds there, and begins none unless [`NodeBuilder::begin`] says so.
    /// [`Config::RING`] is the name where rings need none to be told apart.
    pub fn discover(mut self, ring: impl Into<String>) -> NodeBuilder {
        self.config.discover = Some(ring.into());
        self
    }

    /// Begins a ring: for the first node of one whose nodes [discover](NodeBuilder::discover) each other.
    pub fn begin(mut self) -> NodeBuilder {
        self.config.begin = true;
        self
    }

    /// Has the router forward a port to the node (feature `upnp`). Others are told its outer address, unless
    /// [`NodeBuilder::advertise`] names another one.
    pub fn upnp(mut self, upnp: Upnp) -> NodeBuilder {
        self.config.upnp = Some(upnp);
        self
    }

    /// How often it tries to join before it gives up; `None` for as often as it takes.
    pub fn join_attempts(mut self, attempts: Option<u32>) -> NodeBuilder {
        self.config.join_attempts = attempts;
        self
    }

    /// Keeps what it must not forget in this directory, which fixes its address and id. Without it everything is kept in memory,
    /// and is gone with the node.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> NodeBuilder {
        self.config.data = Data::Dir(dir.into());
        self
    }

    /// How many nodes keep each value on a ring that it begins: 1 to 16. Who joins learns it.
    pub fn replication_factor(mut self, copies: u8) -> NodeBuilder {
        self.config.replication_factor = Some(copies);
        self
    }

    /// On a ring that it begins, every node keeps every value. Such a ring takes 16 nodes at most.
    pub fn replicate_to_all(self) -> NodeBuilder {
        self.replication_factor(Ring::ALL)
    }

    /// The largest value in bytes on a ring that it begins, up to [`Config::LARGEST_VALUE_LIMIT`]. Who joins learns it.
    pub fn value_limit(mut self, bytes: usize) -> NodeBuilder {
        self.config.value_limit = Some(bytes);
        self
    }

    /// How it keeps strangers out: the keys of the ring, or certificates. Without any it listens on loopback only.
    pub fn security(mut self, security: Security) -> NodeBuilder {
        self.config.security = security;
        self
    }

    /// For how long an operation is tried that cannot be done at once: 10 s unless this is called.
    pub fn operation_deadline(mut self, deadline: Duration) -> NodeBuilder {
        self.config.operation_deadline = deadline;
        self
    }

    /// Starts it. It has joined or begun a ring when this returns, and answers; what is asked of it while it takes over its part
    /// waits for that. [`Node::ready`] waits until it has.
    pub async fn start(self) -> Result<Node, StartError> {
        Node::start(self.config).await
    }
}
