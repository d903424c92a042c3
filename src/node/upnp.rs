//! A port of the router, forwarded to this node: asked for over UPnP (the Internet Gateway Device of the UPnP Forum), renewed while
//! the node runs, and given back when it ends in order.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use igd_next::aio::Gateway;
use igd_next::aio::tokio::{Tokio, search_gateway};
use igd_next::{AddAnyPortError, AddPortError, PortMappingProtocol, SearchError, SearchOptions};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::address::source_towards;
use crate::auth::{Reach, reach};

/// How often a router is looked for, and how long one may take to answer each time.
const SEARCHES: u32 = 2;
const SEARCH: Duration = Duration::from_secs(2);

/// How long a router may take to do what it is asked.
const ASKING: Duration = Duration::from_secs(5);

/// What the router shows to people beside the mapping.
const DESCRIPTION: &str = "chordal";

/// A lease without an end, for routers that know no other.
const FOR_EVER: u32 = 0;

/// The shortest pause between two attempts to renew.
const SHORTEST: Duration = Duration::from_secs(1);

/// Why the router forwards no port. Nothing has changed there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpnpError {
    /// It could not.
    #[error(
        "--upnp has a router forward a port to an IPv4 address of this machine, and this node listens on {listens}: choose \
         --host 0.0.0.0, or the address of the machine in the router's network"
    )]
    NotThere {
        /// Where the node listens.
        listens: IpAddr,
    },
    /// There is none that answers.
    #[error(
        "no router answers to --upnp within {} s: turn UPnP on there, or forward a TCP port to port {port} of this machine by hand and \
         start the node with --advertise HOST:PORT of that port", (SEARCH * SEARCHES).as_secs()
    )]
    NoRouter {
        /// The port of the node.
        port: u16,
    },
    /// None can be looked for.
    #[error(
        "--upnp cannot ask the network for a router: {reason}. Connect this machine to the router's network, or start the node with \
         --host and the address that it has there"
    )]
    NoNetwork {
        /// What the system said.
        reason: String,
    },
    /// There is one, and it does not do it.
    #[error(
        "the router at {router} does not forward a port: {reason}. Allow it to programs of this network (UPnP), or forward a TCP port \
         to port {port} of this machine by hand and start the node with --advertise HOST:PORT of that port"
    )]
    Refused {
        /// The router.
        router: SocketAddr,
        /// What it said.
        reason: String,
        /// The port of the node.
        port: u16,
    },
}

/// A forwarded port.
#[derive(Debug)]
pub(super) struct Mapping {
    gateway: Gateway<Tokio>,
    /// Where the router lets others in.
    pub(super) external: SocketAddr,
    internal: SocketAddr,
    /// For how long the router has promised it, in seconds.
    lease: u32,
}

impl Mapping {
    /// Has the router forward a port to `listens`: this one, if it must be, else the port of the same number or, if that is taken, any.
    pub(super) async fn ask(listens: SocketAddr, must_be: Option<u16>, lease: Duration) -> Result<Mapping, UpnpError> {
        let port = listens.port();
        let (gateway, internal) = router_of(listens).await?;
        let refused = |reason: String| UpnpError::Refused { router: gateway.addr, reason, port };
        let mut lease = u32::try_from(lease.as_secs()).unwrap_or(u32::MAX).max(1);
        let wanted = must_be.unwrap_or(port);
        let mut mapped = add(&gateway, wanted, internal, lease).await;
        if let Err(NotMapped::ForEverOnly) = mapped {
            tracing::warn!(router = %gateway.addr, "--upnp: the router forwards ports without an end only; one that is killed leaves it behind");
            lease = FOR_EVER;
            mapped = add(&gateway, wanted, internal, lease).await;
        }
        let external = match mapped {
            Ok(()) => wanted,
            Err(NotMapped::Taken) if must_be.is_none() => {
                add_any(&gateway, internal, lease).await.map_err(|error| refused(error.to_string()))?
            }
            Err(error) => return Err(refused(error.to_string())),
        };
        let ip = match timeout(ASKING, gateway.get_external_ip()).await {
            Ok(Ok(ip)) if reach(ip) > Reach::Loopback => Ok(ip),
            Ok(Ok(ip)) => Err(format!("it gives its outer address as {ip}, so it is not connected")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        };
        let mut mapping =
            Mapping { gateway, external: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), external), internal, lease };
        match ip {
            Ok(ip) => mapping.external.set_ip(ip),
            Err(reason) => {
                mapping.remove().await;
                return Err(UpnpError::Refused { router: mapping.gateway.addr, reason, port });
            }
        }
        tracing::info!(router = %mapping.gateway.addr, external = %mapping.external, internal = %mapping.internal, lease_s = lease, "--upnp: the router forwards a port");
        if reach(mapping.external.ip()) != Reach::Global {
            tracing::warn!(external = %mapping.external, "--upnp: the router itself has no public address: another one may stand in front of it");
        }
        Ok(mapping)
    }

    /// Renews the lease each time that half of it is over, until the node ends.
    pub(super) async fn renew_until(&self, stop: &CancellationToken) {
        if self.lease == FOR_EVER {
            return stop.cancelled().await;
        }
        let half = Duration::from_secs(self.lease.into()) / 2;
        let mut pause = half;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
            }
            pause = match self.renew().await {
                Ok(()) => half,
                Err(reason) => {
                    tracing::warn!(external = %self.external, %reason, "--upnp: the forwarded port was not renewed; trying again");
                    (half / 8).max(SHORTEST)
                }
            };
        }
    }

    async fn renew(&self) -> Result<(), String> {
        let known = add(&self.gateway, self.external.port(), self.internal, self.lease).await;
        let gateway = match known {
            Ok(()) => self.gateway.clone(),
            // A router that was started anew may be asked elsewhere.
            Err(_) => {
                let (gateway, _) = router_of(self.internal).await.map_err(|error| error.to_string())?;
                let added = add(&gateway, self.external.port(), self.internal, self.lease).await;
                added.map_err(|error| error.to_string())?;
                gateway
            }
        };
        match timeout(ASKING, gateway.get_external_ip()).await {
            Ok(Ok(ip)) if ip != self.external.ip() => Err(format!(
                "the router has the address {ip} now, and others know this node at {}: they reach it no more, and a node at another \
                 address is another node",
                self.external
            )),
            _ => {
                tracing::debug!(external = %self.external, "--upnp: the forwarded port is renewed");
                Ok(())
            }
        }
    }

    /// Gives the port back.
    pub(super) async fn remove(&self) {
        let removed = timeout(ASKING, self.gateway.remove_port(PortMappingProtocol::TCP, self.external.port())).await;
        let reason = match removed {
            Ok(Ok(())) => return tracing::info!(external = %self.external, "--upnp: the forwarded port is given back"),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::warn!(external = %self.external, %reason, lease_s = self.lease, "--upnp: the forwarded port stays until its lease is over");
    }
}

/// Why a router has not mapped a port.
#[derive(Debug, thiserror::Error)]
enum NotMapped {
    #[error("the port is taken by another machine")]
    Taken,
    #[error("it forwards ports without an end only")]
    ForEverOnly,
    #[error("{0}")]
    Otherwise(String),
}

async fn add(gateway: &Gateway<Tokio>, external: u16, internal: SocketAddr, lease: u32) -> Result<(), NotMapped> {
    let adding = gateway.add_port(PortMappingProtocol::TCP, external, internal, lease, DESCRIPTION);
    match timeout(ASKING, adding).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(AddPortError::PortInUse)) => Err(NotMapped::Taken),
        Ok(Err(AddPortError::OnlyPermanentLeasesSupported)) => Err(NotMapped::ForEverOnly),
        Ok(Err(error)) => Err(NotMapped::Otherwise(error.to_string())),
        Err(_) => Err(NotMapped::Otherwise("no answer in time".to_owned())),
    }
}

async fn add_any(gateway: &Gateway<Tokio>, internal: SocketAddr, lease: u32) -> Result<u16, NotMapped> {
    let adding = gateway.add_any_port(PortMappingProtocol::TCP, internal, lease, DESCRIPTION);
    match timeout(ASKING, adding).await {
        Ok(Ok(port)) => Ok(port),
        Ok(Err(AddAnyPortError::NoPortsAvailable | AddAnyPortError::ExternalPortInUse)) => Err(NotMapped::Taken),
        Ok(Err(error)) => Err(NotMapped::Otherwise(error.to_string())),
        Err(_) => Err(NotMapped::Otherwise("no answer in time".to_owned())),
    }
}

/// The router of the network in which the node listens, and the address to which it is to forward.
async fn router_of(listens: SocketAddr) -> Result<(Gateway<Tokio>, SocketAddr), UpnpError> {
    let ip = listens.ip().to_canonical();
    let everywhere = ip.is_unspecified();
    if !everywhere && (ip.is_ipv6() || ip.is_loopback()) {
        return Err(UpnpError::NotThere { listens: ip });
    }
    let from = if everywhere { Ipv4Addr::UNSPECIFIED.into() } else { ip };
    let mut last = UpnpError::NoRouter { port: listens.port() };
    for _ in 0..SEARCHES {
        let mut options = SearchOptions::default();
        options.bind_addr = SocketAddr::new(from, 0);
        options.timeout = Some(SEARCH);
        options.single_search_timeout = Some(SEARCH);
        let gateway = match search_gateway(options).await {
            Ok(gateway) => gateway,
            Err(error) => {
                tracing::debug!(%error, "--upnp: no router");
                if let SearchError::IoError(error) = error {
                    last = UpnpError::NoNetwork { reason: error.to_string() };
                }
                continue;
            }
        };
        let router = gateway.addr;
        // Whoever answers first says where the router is: one that is not of this network is none.
        if !matches!(reach(router.ip()), Reach::Private | Reach::LinkLocal) {
            let reason = format!("{} is no address of a router of this network", router.ip());
            last = UpnpError::Refused { router, reason, port: listens.port() };
            continue;
        }
        let internal = if everywhere { source_towards(router.ip()).ok() } else { Some(ip) };
        return match internal {
            Some(internal) => Ok((gateway, SocketAddr::new(internal, listens.port()))),
            None => Err(UpnpError::NotThere { listens: ip }),
        };
    }
    Err(last)
}
