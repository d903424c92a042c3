//! The nodes of the same ring on the local network: found by multicast DNS (RFC 6762, RFC 6763), and told of this one.
//!
//! What is heard there anybody may have said. It names addresses to join through, as `--bootstrap` does, and no more: who answers
//! at one must prove itself as ever, and it must be one that this node may call.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chordal_protocol::{Contact, WIRE_VERSION};
use mdns_sd::{IfKind, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Config;
use crate::auth::{Nets, Security};
use crate::client::check_member;

/// The service as the network knows it.
const SERVICE: &str = "_chordal._tcp.local.";

/// How long nodes are looked for each time. A question that was lost is repeated after a second.
const LOOK: Duration = Duration::from_millis(2500);

/// How long others may take once one was heard.
const OTHERS: Duration = Duration::from_millis(300);

/// How many are taken from one look.
const MOST: usize = 32;

/// How often it is looked whether the keys of the ring have changed, by which others recognise this node.
const KEYS: Duration = Duration::from_secs(30);

/// How long the goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why the local network cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--discover cannot ask the local network: {0}. Name a member of the ring with --bootstrap instead")]
pub struct DiscoverError(String);

/// The local network.
pub(super) struct Neighbourhood {
    daemon: ServiceDaemon,
    /// What the ring is called.
    ring: String,
    security: Security,
    listens: SocketAddr,
    nets: Nets,
    announced: Mutex<Option<Announced>>,
}

/// What this node has said.
struct Announced {
    me: Contact,
    tag: String,
    full_name: String,
}

impl Neighbourhood {
    /// Asks and answers where the node listens: on loopback nobody else hears of it.
    pub(super) fn open(config: &Config, ring: &str, listens: SocketAddr) -> Result<Neighbourhood, DiscoverError> {
        let cannot = |error: mdns_sd::Error| DiscoverError(error.to_string());
        let daemon = ServiceDaemon::new().map_err(cannot)?;
        let ip = listens.ip();
        let loopback = vec![IfKind::LoopbackV4, IfKind::LoopbackV6];
        if ip.is_unspecified() {
            daemon.disable_interface(loopback).map_err(cannot)?;
        } else {
            daemon.disable_interface(IfKind::All).map_err(cannot)?;
            let ours = if ip.is_loopback() { loopback } else { vec![IfKind::Addr(ip)] };
            daemon.enable_interface(ours).map_err(cannot)?;
        }
        let nets = Nets::before_it_knows(&config.security.allowed, ip);
        let (ring, security, announced) = (ring.to_owned(), config.security.clone(), Mutex::default());
        Ok(Neighbourhood { daemon, ring, security, listens, nets, announced })
    }

    /// The addresses of other nodes of the ring that answer now.
    pub(super) async fn look(&self) -> Vec<String> {
        let events = match self.daemon.browse(SERVICE) {
            Ok(events) => events,
            Err(error) => {
                tracing::warn!(%error, "--discover: the local network cannot be asked now");
                return Vec::new();
            }
        };
        let tags = self.security.ring_tags(&self.ring);
        let mut found = BTreeSet::new();
        let mut until = Instant::now() + LOOK;
        while found.len() < MOST
            && let Ok(Ok(event)) = timeout_at(until, events.recv_async()).await
        {
            if let ServiceEvent::ServiceResolved(service) = event
                && let Some(addr) = self.member(&service, &tags)
            {
                found.insert(addr);
                until = until.min(Instant::now() + OTHERS);
            }
        }
        if let Err(error) = self.daemon.stop_browse(SERVICE) {
            tracing::debug!(%error, "--discover: the questions go on");
        }
        let found: Vec<String> = found.into_iter().collect();
        tracing::info!(ring = self.ring, found = found.join(" "), "--discover: looked for nodes on the local network");
        found
    }

    /// The address of another node of this ring that may be called; `None` if it is not that.
    fn member(&self, service: &ResolvedService, tags: &[String]) -> Option<String> {
        let says = |key: &str| service.get_property_val_str(key);
        let (ring, wire, addr) = (says("ring")?, says("wire")?, says("addr")?);
        if !tags.iter().any(|tag| tag == ring) || check_member(addr).is_err() {
            return None;
        }
        if wire != WIRE_VERSION.to_string() {
            tracing::warn!(
                addr,
                wire,
                "--discover: a node of this ring is of another release, and cannot be joined through"
            );
            return None;
        }
        if let Ok(literal) = addr.parse::<SocketAddr>()
            && !self.nets.allow(literal.ip())
        {
            tracing::warn!(addr, reason = self.nets.refusal(literal.ip()), "--discover: not called");
            return None;
        }
        let announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        let is_me = announced.as_ref().is_some_and(|announced| announced.me.addr == addr);
        (!is_me).then(|| addr.to_owned())
    }

    /// Tells others of this node.
    pub(super) fn announce(&self, me: &Contact) {
        let tags = self.security.ring_tags(&self.ring);
        let Some(tag) = tags.first() else { return };
        match self.register(me, tag) {
            Ok(full_name) => {
                tracing::info!(
                    addr = me.addr,
                    ring = self.ring,
                    "--discover: this node is announced on the local network"
                );
                let announced = Announced { me: me.clone(), tag: tag.clone(), full_name };
                *self.announced.lock().unwrap_or_else(PoisonError::into_inner) = Some(announced);
            }
            Err(error) => tracing::warn!(%error, "--discover: this node cannot be announced on the local network"),
        }
    }

    fn register(&self, me: &Contact, tag: &str) -> Result<String, mdns_sd::Error> {
        // The SHA-256 of its address: nobody else has it, and it need not be asked for.
        let name = me.id.to_string()[..16].to_owned();
        let properties = [("ring", tag), ("wire", &WIRE_VERSION.to_string()), ("addr", &me.addr)];
        let host = format!("chordal-{name}.local.");
        let ip = self.listens.ip();
        // The record must have an address of the interface; others go by what it says in its text. Multicast over loopback is one
        // of IPv4 on Linux, wherever the node listens.
        let addresses: Vec<IpAddr> = match (ip.is_unspecified(), ip.is_loopback()) {
            (true, _) => Vec::new(),
            (false, true) => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            (false, false) => vec![ip],
        };
        let service = ServiceInfo::new(SERVICE, &name, &host, &addresses[..], self.listens.port(), &properties[..])?;
        let mut service = if addresses.is_empty() { service.enable_addr_auto() } else { service };
        service.set_requires_probe(false);
        let full_name = service.get_fullname().to_owned();
        self.daemon.register(service)?;
        Ok(full_name)
    }

    /// Says so again when the key has changed that the tag is made with, until the node ends.
    pub(super) async fn keep_up(&self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(KEYS) => {}
            }
            let announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
            let changed = announced.as_ref().filter(|it| self.security.ring_tags(&self.ring).first() != Some(&it.tag));
            let changed = changed.map(|it| it.me.clone());
            drop(announced);
            if let Some(me) = changed {
                self.announce(&me);
            }
        }
    }

    /// Tells others that this node is gone, and asks no more.
    pub(super) async fn close(&self) {
        let announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(announced) = announced
            && let Ok(status) = self.daemon.unregister(&announced.full_name)
        {
            let _ = timeout(GOODBYE, status.recv_async()).await;
        }
        if let Ok(status) = self.daemon.shutdown() {
            let _ = timeout(GOODBYE, status.recv_async()).await;
        }
    }
}
