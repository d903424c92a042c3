//! Where a node listens, and whether others can reach it there.

use std::net::{IpAddr, SocketAddr};

use chordal_protocol::Durable;
use tokio::net::TcpListener;

use super::address::host_of;
use super::{Advertise, Config, PortHolder, StartError};
use crate::api::join_host_port;

/// What the directory of a node is called that has no other name for it.
pub(super) fn dir_name(config: &Config, listener: &TcpListener) -> Result<String, StartError> {
    let local = listener.local_addr().map_err(|error| StartError::System(error.to_string()))?;
    let addr = match &config.advertise {
        Some(Advertise::At(addr)) => addr.clone(),
        Some(Advertise::Host(host)) => join_host_port(host, local.port()),
        // What is looked for is not known yet, and may be found in there.
        Some(Advertise::Auto) | None => join_host_port(&config.host, local.port()),
    };
    Ok(addr.replace([':', '[', ']'], "_"))
}

/// Listens where it was told to, or, with port 0, where the data directory remembers.
pub(super) async fn listen(config: &mut Config, remembered: Option<&Durable>) -> Result<TcpListener, StartError> {
    let has_port = matches!(config.advertise, Some(Advertise::At(_)));
    if config.port == 0
        && !has_port
        && let Some(durable) = remembered
    {
        config.port = durable.me.port();
    }
    let addr = join_host_port(&config.host, config.port);
    let failed = |reason: std::io::Error| {
        let holder = PortHolder::behind(&reason, config.port);
        StartError::Listen { addr: addr.clone(), reason, holder }
    };
    let resolved: Vec<SocketAddr> = tokio::net::lookup_host(&addr).await.map_err(failed)?.collect();
    if !config.security.is_closed() {
        let reached = resolved.iter().map(SocketAddr::ip).find(|ip| !is_loopback(*ip)).map(|ip| ip.to_string());
        let told = match &config.advertise {
            Some(Advertise::At(addr)) => Some(addr.clone()),
            Some(Advertise::Host(host)) => Some(join_host_port(host, 1)),
            // What is found is looked at when it is.
            Some(Advertise::Auto) | None => None,
        };
        let told = match told {
            Some(told) if reached.is_none() => is_elsewhere(&told).await.then(|| host_of(&told).to_owned()),
            _ => None,
        };
        if let Some(open) = reached.or(told) {
            return Err(StartError::open_to_strangers(&open));
        }
    }
    TcpListener::bind(&resolved[..]).await.map_err(failed)
}

/// The addresses under which others call it, as far as they can be told.
pub(super) async fn own_addresses(addr: &str, listener: &TcpListener) -> Vec<IpAddr> {
    match tokio::net::lookup_host(addr).await {
        Ok(resolved) => resolved.map(|addr| addr.ip()).collect(),
        Err(_) => listener.local_addr().map(|addr| addr.ip()).into_iter().collect(),
    }
}

/// Whether others are told an address that is not, or not surely, on this machine: traffic would be led here from elsewhere.
pub(super) async fn is_elsewhere(advertise: &str) -> bool {
    match tokio::net::lookup_host(advertise).await {
        Ok(mut resolved) => resolved.any(|addr| !is_loopback(addr.ip())),
        Err(_) => true,
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
    }
}
