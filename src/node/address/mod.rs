//! Which address a node tells others, before it has any: the id is its SHA-256, so it must be known, and right, from the
//! beginning.
//!
//! What was named is taken as it is. With `auto` those through whom the node joins say from where they see it, and one of them
//! calls it back there; only then is it used. docs/decisions/0010-an-address-that-is-found.md has the reasons.

mod answering;
mod error;
mod interface;
mod sightings;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use chordal_protocol::{Durable, Membership};
use tokio::net::TcpListener;

use super::join::{PAUSES, SERVICE, members_of};
use super::reached::{CALLERS, CALLING_BACK, CALLS};
use super::start::goes_on;
use super::surroundings::{NEIGHBOURS, Surroundings};
use super::{Advertise, Config};
use crate::api::{CallBack, Seen, SeenBody, join_host_port};
use crate::auth::{Nets, Reach, reach};
use crate::client::NodeClient;
use crate::pauses::Pauses;
use answering::Answering;
pub use error::AddressError;
#[cfg(feature = "upnp")]
pub(super) use interface::source_towards;
use sightings::{Sighting, Sightings};

/// How long a member may take to say from where it sees this node.
const SEEING: Duration = Duration::from_secs(3);

/// How many members are asked at once.
const ASKED: usize = 8;

/// The `host:port` that this node tells others.
pub(super) async fn find(
    config: &Config,
    listener: &TcpListener,
    remembered: Option<&Durable>,
    around: &Surroundings,
) -> Result<String, AddressError> {
    let local = listener.local_addr().map_err(|error| AddressError::System(error.to_string()))?;
    let external = around.external();
    match &config.advertise {
        Some(Advertise::At(addr)) => Ok(addr.clone()),
        Some(Advertise::Host(host)) => Ok(join_host_port(host, external.unwrap_or(local).port())),
        Some(Advertise::Auto) => Search::new(config, listener, local, around, remembered).run().await,
        None if external.is_some() => Search::new(config, listener, local, around, remembered).run().await,
        None if local.ip().is_unspecified() => Err(AddressError::Everywhere { host: config.host.clone() }),
        None => Ok(join_host_port(&config.host, local.port())),
    }
}

/// What is known while an address is looked for.
struct Search<'a> {
    config: &'a Config,
    listener: &'a TcpListener,
    /// Where it listens.
    local: SocketAddr,
    around: &'a Surroundings,
    remembered: Option<&'a Durable>,
    /// Other nodes that the data directory remembers.
    known: Vec<String>,
    nets: Nets,
}

/// What came of a round of asking.
enum Round {
    /// The node is here.
    Found(String),
    /// Nobody says where, or whether it can be called there.
    Unseen(String),
    /// Somebody does, and nobody finds it there.
    NotCalledBack { addr: String, reason: String },
    /// Somebody does, and not where the router says.
    BehindAnother { seen: Option<IpAddr> },
}

impl<'a> Search<'a> {
    fn new(
        config: &'a Config,
        listener: &'a TcpListener,
        local: SocketAddr,
        around: &'a Surroundings,
        remembered: Option<&'a Durable>,
    ) -> Search<'a> {
        let contacts = remembered.into_iter().flat_map(|durable| durable.contacts.iter().map(|it| (it, &durable.me)));
        let known = contacts.filter(|(contact, me)| contact != me).map(|(contact, _)| contact.addr.clone()).collect();
        let nets = Nets::before_it_knows(&config.security.allowed, local.ip());
        Search { config, listener, local, around, remembered, known, nets }
    }

    async fn run(&self) -> Result<String, AddressError> {
        if self.config.bootstrap.is_empty() && self.known.is_empty() && !self.seeks() {
            return self.of_this_machine();
        }
        let answering = Answering::start(self.listener, &self.config.security)
            .map_err(|error| AddressError::System(error.to_string()))?;
        let member = self.remembered.filter(|it| goes_on(it) && it.membership != Membership::Joining);
        let found = match member {
            Some(durable) => self.still(&durable.me.addr, &answering).await,
            None => self.anew(&answering).await,
        };
        answering.end().await;
        found
    }

    /// Whether members are looked for on the local network.
    fn seeks(&self) -> bool {
        let has_ring = self.remembered.is_some_and(|it| goes_on(it) && it.membership != Membership::Joining);
        self.config.seeks() && !has_ring
    }

    /// There is nobody to ask: that of the interface.
    fn of_this_machine(&self) -> Result<String, AddressError> {
        if let Some(external) = self.external() {
            tracing::info!(addr = %external, "--upnp: there is nobody to ask, so others are told what the router says");
            return Ok(external.to_string());
        }
        let addr = if self.local.ip().is_unspecified() {
            self.at(interface::own_address(self.local.ip())?)
        } else {
            join_host_port(&self.config.host, self.port())
        };
        tracing::info!(%addr, "--advertise auto: there is nobody to ask, so others are told the address of this machine's own interface");
        Ok(addr)
    }

    /// The address of one that joins.
    async fn anew(&self, answering: &Answering) -> Result<String, AddressError> {
        let mut pauses = Pauses::new(PAUSES.0, PAUSES.1);
        let (mut attempts, mut calls) = (0, 0);
        loop {
            attempts += 1;
            let round = self.round(answering, None).await;
            let is_last = self.config.join_attempts.is_some_and(|most| attempts >= most);
            match round {
                Round::Found(addr) => return Ok(addr),
                Round::NotCalledBack { addr, reason } => {
                    calls += 1;
                    if is_last || calls >= CALLS {
                        return Err(self.not_called_back(addr, reason));
                    }
                    tracing::warn!(%addr, %reason, "--advertise auto: not called back; trying again");
                }
                Round::BehindAnother { seen } => return Err(self.behind_another(seen)),
                Round::Unseen(reason) if is_last => {
                    let mut through = [&self.config.bootstrap[..], &self.known].concat();
                    through.extend(self.seeks().then(|| NEIGHBOURS.to_owned()));
                    return Err(AddressError::Unseen { attempts, through: through.join(", "), reason });
                }
                Round::Unseen(reason) => {
                    tracing::warn!(%reason, "--advertise auto: nobody says where this node can be called; trying again");
                }
            }
            tokio::time::sleep(pauses.next()).await;
        }
    }

    /// The address of one that goes on in its ring: the old one, unless others see it elsewhere now. A whole ring may start again
    /// at once, and then there is nobody yet who could be asked.
    async fn still(&self, old: &str, answering: &Answering) -> Result<String, AddressError> {
        let mut pauses = Pauses::new(PAUSES.0, PAUSES.1);
        let mut calls = 1;
        let round = loop {
            match self.round(answering, Some(old)).await {
                Round::NotCalledBack { addr, reason } if calls < CALLS => {
                    calls += 1;
                    tracing::warn!(%addr, %reason, "--advertise auto: not called back; trying again");
                    tokio::time::sleep(pauses.next()).await;
                }
                round => break round,
            }
        };
        match round {
            Round::Found(addr) => Ok(addr),
            Round::NotCalledBack { addr, reason } => Err(self.not_called_back(addr, reason)),
            Round::BehindAnother { seen } => Err(self.behind_another(seen)),
            Round::Unseen(reason) => {
                // Another port is another address, whoever says so; and the router knows its own.
                let addr = match self.external() {
                    Some(external) => external.to_string(),
                    None => format!("{}:{}", host_of(old), self.port()),
                };
                tracing::info!(%addr, %reason, "--advertise auto: nobody says where this node can be called, which keeps its address");
                Ok(addr)
            }
        }
    }

    /// Asks all once, and has some call back.
    async fn round(&self, answering: &Answering, old: Option<&str>) -> Round {
        let client = NodeClient::with_timeout(SERVICE);
        let (mut members, missing) = members_of(self.config, self.around, &client, None).await;
        members.extend(self.known.iter().filter(|known| !members.contains(known)).cloned().collect::<Vec<_>>());
        let (sightings, unseen) = self.sightings(&members).await;
        if sightings.is_empty() {
            let reasons = [unseen, missing].concat();
            let nobody = || "nobody was named".to_owned();
            return Round::Unseen(if reasons.is_empty() { nobody() } else { reasons.join("; ") });
        }
        let sightings = Sightings::new(sightings);
        if let Some(external) = self.external() {
            return match sightings.all().find(|(ip, _)| *ip == external.ip()) {
                Some((ip, by)) => self.called_back(answering, ip, by).await,
                None => Round::BehindAnother { seen: sightings.candidates().map(|(ip, _)| ip).next() },
            };
        }
        if let Some(differing) = sightings.differing() {
            tracing::warn!("--advertise auto: others see this node at different addresses: {differing}");
        }
        if let Some(old) = old {
            let seen = sightings.all().find(|(ip, _)| self.at(*ip) == old);
            return match seen {
                Some((ip, by)) => self.called_back(answering, ip, by).await,
                // Who is nearer sees less: a neighbour at home does not see the address that the world sees.
                None if sightings.reach() < old_reach(old) => {
                    tracing::info!(
                        addr = old,
                        "--advertise auto: asked were only nodes that are nearer than the address leads; it is kept"
                    );
                    Round::Found(old.to_owned())
                }
                None => Round::Found(sightings.candidates().next().map_or(old.to_owned(), |(ip, _)| self.at(ip))),
            };
        }
        let mut last = Round::Unseen("nobody was named".to_owned());
        for (ip, by) in sightings.candidates() {
            last = self.called_back(answering, ip, by).await;
            // The next one is taken only if this one leads nowhere, and not if nobody has tried it: most see it here.
            if !matches!(last, Round::NotCalledBack { .. }) {
                break;
            }
        }
        last
    }

    /// Has those who see the node at this address call it back there, one after the other.
    async fn called_back(&self, answering: &Answering, ip: IpAddr, by: &[String]) -> Round {
        let addr = self.at(ip);
        let body = SeenBody {
            call_back: Some(CallBack { addr: None, port: self.port(), challenge: answering.challenge.clone() }),
        };
        let client = self.client(CALLING_BACK);
        let (mut refused, mut silent) = (Vec::new(), Vec::new());
        for member in by.iter().take(CALLERS) {
            match client.seen(member, &body).await {
                Ok(Seen { ip: seen, called_back: Some(true), .. }) if seen == ip => {
                    tracing::info!(%addr, by = %member, "--advertise auto: others are told the address at which this node is seen, and was called back");
                    return Round::Found(addr);
                }
                Ok(Seen { ip: seen, .. }) if seen != ip => silent.push(format!("{member} sees it at {seen} now")),
                Ok(Seen { reason, .. }) => refused.push(format!("{member} says: {}", reason.unwrap_or_default())),
                Err(error) => silent.push(format!("{member} does not say: {}", error.reason())),
            }
        }
        if refused.is_empty() {
            return Round::Unseen(format!(
                "nobody says whether this node can be called at {addr}: {}",
                silent.join("; ")
            ));
        }
        Round::NotCalledBack { addr, reason: refused.join("; ") }
    }

    /// From where these members see this node, and why others say nothing.
    async fn sightings(&self, members: &[String]) -> (Vec<Sighting>, Vec<String>) {
        let client = self.client(SEEING);
        let mut asking = tokio::task::JoinSet::new();
        for by in members.iter().take(ASKED).cloned() {
            let client = client.clone();
            asking.spawn(async move {
                match client.seen(&by, &SeenBody::default()).await {
                    Ok(seen) => Ok(Sighting { by, ip: seen.ip }),
                    Err(error) => Err(format!("{by} does not say: {}", error.reason())),
                }
            });
        }
        let (mut sightings, mut reasons) = (Vec::new(), Vec::new());
        while let Some(asked) = asking.join_next().await {
            match asked {
                Ok(Ok(sighting)) if reach(sighting.ip) > Reach::Nowhere => sightings.push(sighting),
                Ok(Ok(Sighting { by, ip })) => {
                    reasons.push(format!("{by} sees it at {ip}, which is no address of one node"))
                }
                Ok(Err(silent)) => reasons.push(silent),
                Err(error) => reasons.push(error.to_string()),
            }
        }
        (sightings, reasons)
    }

    /// Its questions come from where it listens, so that they are seen from there.
    fn client(&self, timeout: Duration) -> NodeClient {
        let local = Some(self.local.ip()).filter(|ip| !ip.is_unspecified());
        NodeClient::with_timeout(timeout).with_security(&self.config.security).on_the_way(self.nets.clone(), local)
    }

    fn at(&self, ip: IpAddr) -> String {
        join_host_port(&ip.to_canonical().to_string(), self.port())
    }

    /// Where the router lets others in, if it was asked to.
    fn external(&self) -> Option<SocketAddr> {
        self.around.external()
    }

    /// The port that goes with the address.
    fn port(&self) -> u16 {
        self.external().unwrap_or(self.local).port()
    }

    fn not_called_back(&self, addr: String, reason: String) -> AddressError {
        let upnp = if self.external().is_some() { "" } else { ", or have the router do it with --upnp" };
        AddressError::NotCalledBack { addr, reason, port: self.local.port(), upnp }
    }

    fn behind_another(&self, seen: Option<IpAddr>) -> AddressError {
        let seen = seen.map_or("nowhere".to_owned(), |ip| ip.to_string());
        let external = self.external().map_or("nowhere".to_owned(), |external| external.ip().to_string());
        AddressError::BehindAnother { external, seen, port: self.local.port() }
    }
}

/// What stands before the port.
pub(super) fn host_of(addr: &str) -> &str {
    addr.rsplit_once(':').map_or(addr, |(host, _)| host)
}

/// How far the address leads that a node had; a name may lead everywhere.
fn old_reach(old: &str) -> Reach {
    let host = host_of(old).trim_matches(['[', ']']);
    host.parse().map_or(Reach::Global, reach)
}
