//! How a node begins: its store, its address, its place on a ring, and its server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chordal_protocol::keeper::Keeper;
use chordal_protocol::{
    Chord, Contact, Durable, Id, Interval, LONGEST_NAME, Membership, Procedure, Ring, RingId, Side,
};
use rand::RngExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::driver::Driver;
use super::keeping::{Job, Keeping};
use super::listening::{dir_name, is_elsewhere, listen, own_addresses};
use super::routing::Router;
use super::surroundings::Surroundings;
use super::transport::{HttpTransport, Peers};
use super::{Advertise, Config, Data, Inner, Node, StartError, address, maintenance};
use crate::api::join_host_port;
use crate::auth::{Nets, Role};
use crate::client::{Source, check_member};
use crate::http;
use crate::store::{DiskStore, MemoryStore, Store, StoreError};

/// The first pause between two attempts to wire by hand; the longest is a second.
const WIRING_PAUSE: Duration = Duration::from_millis(50);

/// What a node begins with.
struct Ground {
    listener: TcpListener,
    store: Arc<dyn Store>,
    remembered: Option<Durable>,
}

impl Ground {
    /// What others are told. If nobody is kept out, that leads nowhere but here.
    async fn address(&self, config: &Config, around: &Surroundings) -> Result<String, StartError> {
        let remembered = self.remembered.as_ref();
        let addr = address::find(config, &self.listener, remembered, around).await?;
        if !config.security.is_closed() && is_elsewhere(&addr).await {
            return Err(StartError::open_to_strangers(&addr));
        }
        // Whoever is somebody else than the directory remembers is told so before anything is begun.
        identity(config, &addr, &self.listener, remembered)?;
        Ok(addr)
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
        let ground = Ground { listener, store, remembered };
        let around = Surroundings::open(&config, &ground.listener, ground.remembered.as_ref()).await?;
        let around = Arc::new(around);
        let started = match ground.address(&config, &around).await {
            Ok(addr) => Node::stand_on(config, ground, Arc::clone(&around), addr).await,
            Err(error) => Err(error),
        };
        if started.is_err() {
            around.close().await;
        }
        started
    }

    /// The node at this address.
    async fn stand_on(
        config: Config,
        ground: Ground,
        around: Arc<Surroundings>,
        addr: String,
    ) -> Result<Node, StartError> {
        let Ground { listener, store, remembered } = ground;
        let resumes = remembered.as_ref().is_some_and(goes_on);
        let comes_back = remembered.as_ref().is_some_and(|it| goes_on(it) && it.membership != Membership::Joining);
        let me = identity(&config, &addr, &listener, remembered.as_ref())?;
        let mut remembered_contacts = Vec::new();
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
        let port = listener.local_addr().map_err(|error| StartError::System(error.to_string()))?.port();
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
        let inner = Arc::new(Inner::new(driver, router, config, port, nets, around, stop.clone()));
        let node = Node { inner, _guard: Some(Arc::new(stop.clone().drop_guard())) };
        node.inner.is_doubted.store(comes_back, Ordering::Relaxed);
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
        let ring = node.inner.driver.lock().chord.ring();
        for unheeded in ring.iter().flat_map(|ring| node.inner.config.unheeded(ring)) {
            tracing::warn!("{unheeded}");
        }
        node.inner.around.announce(&node.contact());
        let watch = node.for_itself().watch_reach(comes_back);
        tokio::spawn(node.shutdown_token().run_until_cancelled_owned(watch));
        Ok(node)
    }

    fn serve(&self, listener: TcpListener) {
        let (around, stop) = (self.for_itself(), self.shutdown_token());
        tokio::spawn(async move { around.inner.around.keep_up(&stop).await });
        let node = self.for_itself();
        let stop = self.shutdown_token();
        let limits = http::Limits { clients: self.security().limits, ..http::Limits::default() };
        // Made now, and not when the task comes to it: it refuses what was signed before, and the node may be ready by then.
        let router = http::router(node.clone());
        tokio::spawn(async move {
            let served = match &node.security().tls {
                Some(tls) => http::serve_tls(listener, router, limits, tls, stop).await,
                None => http::serve(listener, router, limits, stop).await,
            };
            if let Err(error) = served {
                tracing::error!(%error, "the server has ended");
            }
            node.inner.around.close().await;
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
            let node = self.for_itself();
            let looking = async move { node.remember_found().await };
            tokio::spawn(self.shutdown_token().run_until_cancelled_owned(looking));
            driver.begin_soon(Procedure::Stabilize);
            driver.begin_soon(Procedure::CheckPredecessor { candidate: None });
            return Ok(());
        }
        if config.bootstrap.is_empty() && ring.is_some() && !config.seeks() {
            return Err(StartError::Config(
                "this node stopped before it had joined its ring; name a member of it with --bootstrap".to_owned(),
            ));
        }
        if !config.bootstrap.is_empty() || !left.is_empty() || config.seeks() {
            return self.join(left).await;
        }
        if let Some(other) = self.inner.around.members().await.into_iter().flatten().next() {
            return Err(StartError::Config(format!(
                "a node of the ring that this one is to begin announces itself on the local network, {other}: start it without \
                 --begin to join that ring, or give the new one another name with --discover=NAME"
            )));
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
pub(super) fn goes_on(durable: &Durable) -> bool {
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
    if config.value_limit.is_some_and(|limit| !(1..=Config::LARGEST_VALUE_LIMIT).contains(&limit)) {
        return wrong("the largest value has from 1 to 4194304 bytes: it travels between nodes in one message");
    }
    let takes = |copies: u8| (1..=Ring::MOST_COPIES).contains(&copies) || copies == Ring::ALL;
    if config.replication_factor.is_some_and(|copies| !takes(copies)) {
        return wrong("a value is kept on from 1 to 16 nodes, or on all of a ring that takes no more than 16");
    }
    if config.begin && !config.bootstrap.is_empty() {
        return wrong("a node either begins a ring (--begin) or joins one (--bootstrap), not both");
    }
    if let Some(missing) = Surroundings::missing(config) {
        return wrong(missing);
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
    if config.security.limits.connections == 0 {
        return wrong("--client-connections 0 would let no client in: give a number from 1");
    }
    for source in &config.bootstrap {
        source.parse::<Source>().map_err(|error| StartError::Config(format!("--bootstrap {error}")))?;
    }
    for name in config.name.iter().chain(&config.discover) {
        check_name(name).map_err(|reason| StartError::Config(format!("`{name}` is no name: {reason}")))?;
    }
    let at = config.advertise.iter().filter_map(|it| if let Advertise::At(addr) = it { Some(addr) } else { None });
    for addr in at.chain(&config.security.known_as).chain(&config.pred).chain(&config.succ) {
        check_host_port(addr)?;
    }
    if let Some(Advertise::Host(host)) = &config.advertise {
        check_host_port(&join_host_port(host, 1))?;
    }
    Ok(())
}

/// Whether a node, or a ring whose nodes find each other, can be called so.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if (1..=LONGEST_NAME).contains(&name.len()) && !name.contains(char::is_control) {
        return Ok(());
    }
    Err(format!("a name has 1 to {LONGEST_NAME} bytes, and no line breaks or other control characters"))
}

fn check_host_port(addr: &str) -> Result<(), StartError> {
    check_member(addr).map_err(|reason| {
        StartError::Config(format!(
            "`{addr}` is no address of a node; one looks like 127.0.0.1:9000 or [::1]:9000, and here {reason}"
        ))
    })
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

/// Who the node is. A data directory fixes its id and address.
fn identity(
    config: &Config,
    addr: &str,
    listener: &TcpListener,
    remembered: Option<&Durable>,
) -> Result<Contact, StartError> {
    let local = listener.local_addr().map_err(|error| StartError::System(error.to_string()))?;
    let name = config.name.clone().unwrap_or_else(|| {
        remembered.map_or_else(|| format!("node-{}", local.port()), |durable| durable.me.name.clone())
    });
    let id = config.id.unwrap_or_else(|| match remembered {
        Some(durable) if durable.me.addr == addr => durable.me.id,
        _ => Id::of(addr),
    });
    let me = Contact { id, addr: addr.to_owned(), name };
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
