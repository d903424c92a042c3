//! How a node begins: its store, its address, its place on a ring, and its server.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chordal_protocol::keeper::Keeper;
use chordal_protocol::{Chord, Contact, Durable, Id, Interval, Membership, Procedure, Ring, RingId, Side};
use rand::RngExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use super::keeping::{Job, Keeping};
use super::routing::Router;
use super::transport::{HttpTransport, Peers};
use super::{Config, Data, Inner, Node, PortHolder, maintenance};
use crate::api::join_host_port;
use crate::auth::{Nets, Role};
use crate::client::Source;
use crate::http;
use crate::store::{DiskStore, MemoryStore, Store, StoreError};

/// The first pause between two attempts to wire by hand; the longest is a second.
const WIRING_PAUSE: Duration = Duration::from_millis(50);

/// Why a node did not start. Nothing runs then, and nothing on disk has changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings contradict each other or the data directory.
    #[error("{0}")]
    Config(String),
    /// The address can't be listened on.
    #[error("cannot listen on {addr}: {source}{}", advice(.source, .holder.as_ref()))]
    Listen {
        /// The address.
        addr: String,
        /// What the system said.
        source: std::io::Error,
        /// Who has the port, if it is taken and that can be seen.
        holder: Option<PortHolder>,
    },
    /// The store can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node was told to join, and could not.
    #[error("could not join the ring: {0}")]
    Join(String),
    /// Something that should always work did not.
    #[error("{0}")]
    System(String),
}

fn advice(error: &std::io::Error, holder: Option<&PortHolder>) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            let holder = holder.map_or(String::new(), |holder| format!(" ({holder})"));
            format!(". Another program has that port{holder}: choose another one with --port, or 0 for any")
        }
        std::io::ErrorKind::AddrNotAvailable => {
            ". This machine does not have that address: choose another --host".to_owned()
        }
        std::io::ErrorKind::PermissionDenied => ". Ports below 1024 are reserved: choose a higher one".to_owned(),
        _ => String::new(),
    }
}

impl Node {
    /// Starts a node: it listens, and has joined or begun a ring when this returns. Whether it is ready is another matter
    /// ([`Node::ready`]).
    pub async fn start(mut config: Config) -> Result<Node, StartError> {
        check(&config)?;
        let (listener, store, remembered) = match config.data.clone() {
            Data::Dir(dir) => {
                let (store, remembered) = open_store(dir).await?;
                (listen(&mut config, remembered.as_ref()).await?, store, remembered)
            }
            Data::DirWithin(parent) => {
                let listener = listen(&mut config, None).await?;
                let (store, remembered) = open_store(parent.join(dir_name(&config, &listener)?)).await?;
                (listener, store, remembered)
            }
            Data::Memory => {
                let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
                (listen(&mut config, None).await?, store, None)
            }
        };
        let resumes = remembered.as_ref().is_some_and(goes_on);
        let me = identity(&config, &listener, remembered.as_ref())?;
        let mut remembered_contacts = Vec::new();
        let addr = me.addr.clone();
        let chord = match remembered {
            Some(mut durable) if resumes => {
                durable.me.name = me.name;
                Chord::restore(durable, config.protocol.clone())
            }
            Some(durable) => {
                // It has left its ring in order, and is wanted back there; those who are named now may be gone.
                remembered_contacts = durable.contacts.into_iter().filter(|contact| *contact != me).collect();
                Chord::new(me, config.protocol.clone())
            }
            _ => Chord::new(me, config.protocol.clone()),
        };
        let peers = Peers::new(config.patience.clone());
        let nets = Nets::new(&config.security.allowed, &own_addresses(&addr, &listener).await);
        let transport = HttpTransport::new(Arc::clone(&peers), &config.security, nets.clone())
            .map_err(|error| StartError::System(format!("there is no HTTP client: {error}")))?;
        let keeper = match Keeping::remembered(&*store)? {
            Some(durable) => Keeper::restored(chord.me().clone(), durable, config.content.clone()),
            None => Keeper::new(chord.me().clone(), rand::rng().random(), config.content.clone()),
        };
        let (driver, lane) = Driver::new(chord, keeper, store, Arc::new(transport), peers)?;
        let stop = CancellationToken::new();
        let router = Router { driver: Arc::clone(&driver), mode: config.routing, deadline: config.operation_deadline };
        let inner = Arc::new(Inner::new(driver, router, config, nets, stop.clone()));
        let node = Node { inner, _guard: Some(Arc::new(stop.clone().drop_guard())) };
        maintenance::start(Arc::clone(&node.inner.driver), lane, node.inner.config.stabilize_interval, stop)
            .await
            .map_err(|error| StartError::System(format!("the scheduler did not start: {error}")))?;
        node.serve(listener);
        let refused = node.for_itself().stop_when_refused();
        tokio::spawn(node.shutdown_token().run_until_cancelled_owned(refused));
        if let Err(error) = node.find_place(remembered_contacts).await {
            node.stop().await;
            return Err(error);
        }
        Ok(node)
    }

    fn serve(&self, listener: TcpListener) {
        let node = self.for_itself();
        let stop = self.shutdown_token();
        let limits = http::Limits { clients: self.security().limits, ..http::Limits::default() };
        tokio::spawn(async move {
            let router = http::router(node.clone());
            let served = match &node.security().tls {
                Some(tls) => http::serve_tls(listener, router, limits, tls, stop).await,
                None => http::serve(listener, router, limits, stop).await,
            };
            if let Err(error) = served {
                tracing::error!(%error, "the server has ended");
            }
            let driver = Arc::clone(&node.inner.driver);
            if let Err(error) = tokio::task::spawn_blocking(move || driver.close()).await {
                tracing::error!(%error, "the store was not closed in order");
            }
            node.inner.served.cancel();
        });
    }

    /// Joins, begins a ring, or goes on in the one that is remembered. `left` are those of a ring that it has left.
    async fn find_place(&self, left: Vec<Contact>) -> Result<(), StartError> {
        let config = &self.inner.config;
        let driver = &self.inner.driver;
        let (membership, ring) = {
            let core = driver.lock();
            (core.chord.membership(), core.chord.ring())
        };
        if membership != Membership::Joining {
            // What it remembers of the ring may be old: whoever was named may know better. Services are not waited for.
            let sources = config.bootstrap.iter().filter_map(|source| source.parse::<Source>().ok());
            let (members, services): (Vec<_>, Vec<_>) = sources.partition(|source| matches!(source, Source::Member(_)));
            for member in members {
                driver.lock().chord.remember(&Contact::at(member.to_string(), ""));
            }
            if !services.is_empty() {
                let node = self.for_itself();
                let remembering = async move { node.remember_named().await };
                tokio::spawn(self.shutdown_token().run_until_cancelled_owned(remembering));
            }
            driver.begin_soon(Procedure::Stabilize);
            driver.begin_soon(Procedure::CheckPredecessor { candidate: None });
            return Ok(());
        }
        if config.bootstrap.is_empty() && ring.is_some() {
            return Err(StartError::Config(
                "this node stopped before it had joined its ring; name a member of it with --bootstrap".to_owned(),
            ));
        }
        if !config.bootstrap.is_empty() || !left.is_empty() {
            return self.join(left).await;
        }
        let wired = config.pred.is_some() || config.succ.is_some();
        let id = if wired { RingId::WIRED_BY_HAND } else { RingId(rand::rng().random()) };
        driver.run(Procedure::Create { ring: config.ring(id) }).await;
        if driver.lock().chord.membership() != Membership::Joined {
            return Err(StartError::System("the new ring could not be written down".to_owned()));
        }
        if !wired {
            let range = Interval::whole(driver.lock().chord.me().id);
            driver.keeping.ask(|done| Job::Found { range, done }).await?;
        }
        for (side, addr) in [(Side::Predecessor, &config.pred), (Side::Successor, &config.succ)] {
            if let Some(addr) = addr {
                self.wire_when_it_answers(side, addr.clone());
            }
        }
        Ok(())
    }

    /// A node that is wired by hand may be started before the one that it is wired to.
    fn wire_when_it_answers(&self, side: Side, addr: String) {
        let node = self.for_itself();
        tokio::spawn(async move {
            let deadline = tokio::time::Instant::now() + node.inner.config.ready_deadline;
            let wired = async {
                let mut pause = WIRING_PAUSE;
                while let Err(error) = node.rewire(side, &addr).await {
                    tracing::info!(%error, ?side, "not wired yet; trying again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            };
            if tokio::time::timeout_at(deadline, wired).await.is_err() {
                tracing::error!(%addr, ?side, "was not wired: nobody answers there");
            }
        });
    }
}

/// A node that was stopped as a member of its ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoppedMember {
    /// Who it is.
    pub contact: Contact,
    /// The id of its ring, 32 hex digits.
    pub ring: Option<String>,
    /// How many values it holds.
    pub values: u64,
}

/// Who goes on as a member of its ring, without being told of it, when a node is started again in `dir`. Nobody if there was
/// none, or one that has left or had not joined yet. To be asked while no node uses `dir`.
pub fn member_in(dir: &Path) -> Result<Option<StoppedMember>, StoreError> {
    if !DiskStore::exists(dir) {
        return Ok(None);
    }
    let store = DiskStore::open(dir)?;
    let remembered = Driver::remembered(&store)?;
    let Some(durable) = remembered.filter(|it| goes_on(it) && it.membership != Membership::Joining) else {
        return Ok(None);
    };
    let held = Keeping::remembered(&store)?.map(|durable| durable.replica.held).unwrap_or_default();
    let values = held.keys().map(|name| store.count(&name.area())).sum::<Result<u64, StoreError>>()?;
    Ok(Some(StoppedMember { contact: durable.me, ring: durable.ring.map(|ring| ring.id.to_string()), values }))
}

/// What a node kept that has left, others have taken over.
fn goes_on(durable: &Durable) -> bool {
    durable.membership != Membership::Left
}

/// Settings that make no sense together.
fn check(config: &Config) -> Result<(), StartError> {
    let wrong = |text: &str| Err(StartError::Config(text.to_owned()));
    if (config.pred.is_some() || config.succ.is_some()) && !config.lab {
        return wrong("--pred and --succ wire a ring by hand: that is for lessons, and needs --lab");
    }
    if (config.pred.is_some() || config.succ.is_some()) && !config.bootstrap.is_empty() {
        return wrong("a node is either wired by hand (--pred, --succ) or joins (--bootstrap), not both");
    }
    if config.id.is_some() && !config.lab && config.bootstrap.is_empty() {
        return wrong("--id places a node for a lesson: that needs a ring that was created with --lab");
    }
    if !(1..=Config::LARGEST_VALUE_LIMIT).contains(&config.value_limit) {
        return wrong("the largest value has from 1 to 4194304 bytes: it travels between nodes in one message");
    }
    if !(1..=Ring::MOST_COPIES).contains(&config.replication_factor) && config.replication_factor != Ring::ALL {
        return wrong("a value is kept on from 1 to 16 nodes, or on all of a ring that takes no more than 16");
    }
    if config.join_attempts == Some(0) {
        return wrong("a node that shall join has at least one attempt");
    }
    if config.security.keys.as_ref().is_some_and(|keys| keys.role() < Role::Node) {
        return wrong("the secret file has no [[node]] key, and a node needs one: the file of clients is another one");
    }
    if config.security.tls.as_ref().is_some_and(|tls| tls.role() != Some(Role::Node)) {
        return wrong("the certificate of --tls-cert is not that of a node: `tasks certs` makes one, node.pem");
    }
    for source in &config.bootstrap {
        source.parse::<Source>().map_err(|error| StartError::Config(format!("--bootstrap {error}")))?;
    }
    for addr in config.advertise.iter().chain(&config.security.known_as).chain(&config.pred).chain(&config.succ) {
        check_host_port(addr)?;
    }
    Ok(())
}

fn check_host_port(addr: &str) -> Result<(), StartError> {
    let parsed = addr.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parsed {
        Some((host, port)) if !host.is_empty() && port != 0 && !host.contains(['/', ' ']) => Ok(()),
        _ => Err(StartError::Config(format!("`{addr}` is no address of a node; one looks like 127.0.0.1:9000"))),
    }
}

async fn open_store(dir: PathBuf) -> Result<(Arc<dyn Store>, Option<Durable>), StartError> {
    let shown = dir.display().to_string();
    let opened = tokio::task::spawn_blocking(move || {
        let store = DiskStore::open(dir)?;
        let remembered = Driver::remembered(&store)?;
        Ok::<_, StoreError>((store, remembered))
    });
    match opened.await.map_err(|error| StartError::System(error.to_string()))? {
        Ok((store, remembered)) => Ok((Arc::new(store), remembered)),
        Err(StoreError::Full(reason)) => Err(StartError::System(format!(
            "the disk of {shown} is full: {reason}. Free some space and start the node again, or choose another --data-dir"
        ))),
        Err(error) => Err(error.into()),
    }
}

/// What the directory of a node is called that has no other name for it.
fn dir_name(config: &Config, listener: &TcpListener) -> Result<String, StartError> {
    let local = listener.local_addr().map_err(|error| StartError::System(error.to_string()))?;
    let addr = config.advertise.clone().unwrap_or_else(|| join_host_port(&config.host, local.port()));
    Ok(addr.replace([':', '[', ']'], "_"))
}

/// Listens where it was told to, or, with port 0, where the data directory remembers.
async fn listen(config: &mut Config, remembered: Option<&Durable>) -> Result<TcpListener, StartError> {
    if config.port == 0
        && config.advertise.is_none()
        && let Some(durable) = remembered
    {
        config.port = durable.me.port();
    }
    let addr = join_host_port(&config.host, config.port);
    let failed = |source: std::io::Error| {
        let is_taken = source.kind() == std::io::ErrorKind::AddrInUse;
        let holder = if is_taken { PortHolder::of(config.port) } else { None };
        StartError::Listen { addr: addr.clone(), source, holder }
    };
    let resolved: Vec<SocketAddr> = tokio::net::lookup_host(&addr).await.map_err(failed)?.collect();
    if !config.security.is_closed() {
        let reached = resolved.iter().map(SocketAddr::ip).find(|ip| !is_loopback(*ip)).map(|ip| ip.to_string());
        let told = match &config.advertise {
            Some(advertise) if reached.is_none() => is_elsewhere(advertise).await.then(|| advertise.clone()),
            _ => None,
        };
        if let Some(open) = reached.or(told) {
            return Err(StartError::Config(format!(
                "{open} can be reached from other machines, and nothing would keep strangers out: give the node the secret of its \
                 ring with --secret-file (`tasks secret new ring.secret` writes one) or certificates with --tls-cert (`tasks certs`), or listen on a loopback address such as \
                 127.0.0.1"
            )));
        }
    }
    TcpListener::bind(&resolved[..]).await.map_err(failed)
}

/// The addresses under which others call it, as far as they can be told.
async fn own_addresses(addr: &str, listener: &TcpListener) -> Vec<IpAddr> {
    match tokio::net::lookup_host(addr).await {
        Ok(resolved) => resolved.map(|addr| addr.ip()).collect(),
        Err(_) => listener.local_addr().map(|addr| addr.ip()).into_iter().collect(),
    }
}

/// Whether others are told an address that is not, or not surely, on this machine: traffic would be led here from elsewhere.
async fn is_elsewhere(advertise: &str) -> bool {
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

/// Who the node is. A data directory fixes its id and address.
fn identity(config: &Config, listener: &TcpListener, remembered: Option<&Durable>) -> Result<Contact, StartError> {
    let local = listener.local_addr().map_err(|error| StartError::System(error.to_string()))?;
    let addr = config.advertise.clone().unwrap_or_else(|| join_host_port(&config.host, local.port()));
    if local.ip().is_unspecified() && config.advertise.is_none() {
        let reason = format!(
            "--host {} listens everywhere, and others must know where to call: say so with --advertise",
            config.host
        );
        return Err(StartError::Config(reason));
    }
    let name = config.name.clone().unwrap_or_else(|| {
        remembered.map_or_else(|| format!("node-{}", local.port()), |durable| durable.me.name.clone())
    });
    let id = config.id.unwrap_or_else(|| match remembered {
        Some(durable) if durable.me.addr == addr => durable.me.id,
        _ => Id::of(&addr),
    });
    let me = Contact { id, addr, name };
    match remembered {
        Some(durable) if durable.me != me => Err(StartError::Config(format!(
            "the data directory belongs to {} with id {}, and this node would be {} with id {}: start it there, or give it \
             a data directory of its own",
            durable.me.addr,
            durable.me.id.short(),
            me.addr,
            me.id.short()
        ))),
        _ => Ok(me),
    }
}
