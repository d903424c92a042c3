//! What is around a node beside its ring: a router that forwards a port to it, and the local network on which nodes find each other.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use chordal_protocol::{Contact, Durable};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[cfg(feature = "upnp")]
use super::Advertise;
#[cfg(feature = "discover")]
use super::neighbourhood::Neighbourhood;
#[cfg(feature = "upnp")]
use super::upnp::Mapping;
use super::{Config, StartError};

/// Those who are found on the local network, in a list of those through whom a node joins.
pub(super) const NEIGHBOURS: &str = "nodes on the local network";

/// What a node has of its surroundings, as long as it runs.
pub(super) struct Surroundings {
    is_closed: AtomicBool,
    #[cfg(feature = "upnp")]
    mapping: Option<Mapping>,
    #[cfg(feature = "discover")]
    neighbourhood: Option<Neighbourhood>,
}

impl Surroundings {
    /// What the configuration wants. Nothing has changed around if that fails.
    pub(super) async fn open(
        config: &Config,
        listener: &TcpListener,
        remembered: Option<&Durable>,
    ) -> Result<Surroundings, StartError> {
        let listens = listener.local_addr().map_err(|error| StartError::System(error.to_string()))?;
        #[cfg(not(all(feature = "discover", feature = "upnp")))]
        let _ = (config, listens, remembered);
        Ok(Surroundings {
            is_closed: AtomicBool::new(false),
            #[cfg(feature = "discover")]
            neighbourhood: match &config.discover {
                Some(ring) => Some(Neighbourhood::open(config, ring, listens)?),
                None => None,
            },
            // It is last: whatever fails before it has asked the router for nothing.
            #[cfg(feature = "upnp")]
            mapping: match &config.upnp {
                Some(upnp) => Some(Mapping::ask(listens, known_port(config, remembered), upnp.lease).await?),
                None => None,
            },
        })
    }

    /// What cannot be had, because the program was built without it.
    pub(super) fn missing(config: &Config) -> Option<&'static str> {
        if cfg!(not(feature = "upnp")) && config.upnp.is_some() {
            return Some("this program was built without the feature `upnp`, and asks no router for a port");
        }
        if cfg!(not(feature = "discover")) && config.discover.is_some() {
            return Some(
                "this program was built without the feature `discover`, and looks for no nodes on the local network",
            );
        }
        None
    }

    /// Where the router lets others in, if it was asked to.
    pub(super) fn external(&self) -> Option<SocketAddr> {
        #[cfg(feature = "upnp")]
        let external = self.mapping.as_ref().map(|mapping| mapping.external);
        #[cfg(not(feature = "upnp"))]
        let external = None;
        external
    }

    /// Other nodes of the ring on the local network, if they are looked for; else `None`.
    pub(super) async fn members(&self) -> Option<Vec<String>> {
        #[cfg(feature = "discover")]
        if let Some(neighbourhood) = &self.neighbourhood {
            return Some(neighbourhood.look().await);
        }
        None
    }

    /// Tells others on the local network of this node, if that is wanted.
    pub(super) fn announce(&self, me: &Contact) {
        #[cfg(feature = "discover")]
        if let Some(neighbourhood) = &self.neighbourhood {
            neighbourhood.announce(me);
        }
        #[cfg(not(feature = "discover"))]
        let _ = me;
    }

    /// Sees to it that it stays so, until the node ends.
    pub(super) async fn keep_up(&self, stop: &CancellationToken) {
        let mapping = async {
            #[cfg(feature = "upnp")]
            if let Some(mapping) = &self.mapping {
                mapping.renew_until(stop).await;
            }
        };
        let neighbourhood = async {
            #[cfg(feature = "discover")]
            if let Some(neighbourhood) = &self.neighbourhood {
                neighbourhood.keep_up(stop).await;
            }
        };
        tokio::join!(mapping, neighbourhood, stop.cancelled());
    }

    /// Leaves everything as it was found, once.
    pub(super) async fn close(&self) {
        if self.is_closed.swap(true, Ordering::Relaxed) {
            return;
        }
        let mapping = async {
            #[cfg(feature = "upnp")]
            if let Some(mapping) = &self.mapping {
                mapping.remove().await;
            }
        };
        let neighbourhood = async {
            #[cfg(feature = "discover")]
            if let Some(neighbourhood) = &self.neighbourhood {
                neighbourhood.close().await;
            }
        };
        tokio::join!(mapping, neighbourhood);
    }
}

/// The port at which others know the node already, or will by what was named.
#[cfg(feature = "upnp")]
fn known_port(config: &Config, remembered: Option<&Durable>) -> Option<u16> {
    match (&config.advertise, remembered) {
        (Some(Advertise::At(addr)), _) => addr.rsplit_once(':').and_then(|(_, port)| port.parse().ok()),
        (_, Some(durable)) => Some(durable.me.port()),
        (_, None) => None,
    }
}
