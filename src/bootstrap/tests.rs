//! Pools over spawners that do as they are told, and over nodes in this process. Waits are in real time, with a condition.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::*;
use crate::client::NodeClient;

const PATIENCE: Duration = Duration::from_secs(30);

fn settings(size: usize) -> Settings {
    Settings { size, check_interval: Duration::from_millis(100), ..Settings::default() }
}

/// Looks until it is so.
async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Nodes in this process whose starts are counted, fail while they are told to, and whose nodes can be had.
#[derive(Clone)]
struct Scripted {
    nodes: Arc<InProcess>,
    members: Vec<String>,
    failing: Arc<AtomicUsize>,
    began_rings: Arc<AtomicUsize>,
    aside: Arc<Mutex<Vec<(String, bool)>>>,
    started: Arc<Mutex<Vec<crate::node::Node>>>,
}

impl Scripted {
    fn new(members: &[&str], failing: usize) -> Scripted {
        Scripted {
            nodes: Arc::new(InProcess::in_memory()),
            members: members.iter().map(|name| (*name).to_owned()).collect(),
            failing: Arc::new(AtomicUsize::new(failing)),
            began_rings: Arc::default(),
            aside: Arc::default(),
            started: Arc::default(),
        }
    }

    fn started(&self) -> Vec<crate::node::Node> {
        self.started.lock().unwrap().clone()
    }
}

impl Spawner for Scripted {
    type Member = Here;

    async fn recall(&self) -> Result<Recalled, SpawnError> {
        Ok(Recalled { members: self.members.clone(), ..Recalled::default() })
    }

    async fn remember(&self, ring: RingNote) -> Result<(), SpawnError> {
        self.nodes.remember(ring).await
    }

    async fn start(&self, order: Order) -> Result<Here, SpawnError> {
        let fails = |left: usize| left.checked_sub(1);
        if order.name.is_some() || self.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails).is_ok() {
            return Err(SpawnError::Failed("as it was told".to_owned()));
        }
        if order.contacts.is_empty() {
            self.began_rings.fetch_add(1, Ordering::SeqCst);
        }
        let here = self.nodes.start(order).await?;
        self.started.lock().unwrap().push(here.node().clone());
        Ok(here)
    }

    async fn set_aside(&self, name: &str, even_if_it_holds: bool) -> Result<SetAside, SpawnError> {
        self.aside.lock().unwrap().push((name.to_owned(), even_if_it_holds));
        Ok(SetAside::holding(name.to_owned(), even_if_it_holds))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_begins_one_ring_however_many_nodes_start_at_once() {
    let spawner = Scripted::new(&[], 3);
    let pool = Pool::start(settings(5), spawner.clone()).await.unwrap();
    eventually("five are live", || pool.snapshot().live() == 5).await;
    assert_eq!(spawner.began_rings.load(Ordering::SeqCst), 1);
    let named: BTreeSet<String> = pool.addresses(9, Duration::ZERO).await.unwrap().into_iter().collect();
    let are: BTreeSet<String> = spawner.started().iter().map(|node| node.contact().addr).collect();
    assert_eq!(named, are);
    let client = NodeClient::new();
    for addr in &named {
        assert_eq!(client.node_info(addr).await.unwrap().ring, pool.snapshot().ring);
    }
    let stopped = pool.stop().await;
    assert_eq!((stopped.left.len(), stopped.kept.len()), (5, 0));
    assert!(pool.addresses(1, Duration::ZERO).await.is_err(), "{:?}", pool.snapshot());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_ends_is_not_named_any_more_and_another_takes_its_place() {
    let spawner = Scripted::new(&[], 0);
    let pool = Pool::start(settings(3), spawner.clone()).await.unwrap();
    eventually("three are live", || pool.snapshot().live() == 3).await;
    let lost = spawner.started()[0].clone();
    lost.stop().await;
    let addr = lost.contact().addr;
    eventually("it is not named", || !pool.snapshot().slots.iter().any(|slot| slot.addr == addr)).await;
    // What kept nothing cannot come back: its place is for a new one, once it has been waited for long enough.
    eventually("three are live again", || pool.snapshot().live() == 3).await;
    assert_eq!(spawner.started().len(), 4);
    // Asked for again while the others are not seen live, then granted once, and for the lost one only.
    let aside = spawner.aside.lock().unwrap().clone();
    let granted: Vec<_> = aside.iter().filter(|(_, even_if_it_holds)| *even_if_it_holds).collect();
    assert!(granted.len() == 1 && aside.iter().all(|(name, _)| *name == aside[0].0), "{aside:?}");
    assert_eq!(spawner.began_rings.load(Ordering::SeqCst), 1);
    pool.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_ring_is_begun_while_nodes_of_an_older_one_may_come_back() {
    let spawner = Scripted::new(&["node-1"], 0);
    let pool = Pool::start(settings(3), spawner.clone()).await.unwrap();
    let patience = Duration::from_secs(3);
    let refused = pool.addresses(1, patience).await.unwrap_err().to_string();
    assert!(refused.contains("as it was told") && refused.contains("try again"), "{refused}");
    assert!(spawner.started().is_empty());
    let aside = spawner.aside.lock().unwrap().clone();
    assert!(!aside.is_empty() && aside.iter().all(|(name, even)| name == "node-1" && !even), "{aside:?}");
    pool.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_dropped_ends_its_nodes() {
    let spawner = Scripted::new(&[], 0);
    let pool = Pool::start(settings(2), spawner.clone()).await.unwrap();
    eventually("two are live", || pool.snapshot().live() == 2).await;
    drop(pool);
    eventually("they have stopped", || spawner.started().iter().all(|node| node.shutdown_token().is_cancelled())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_in_a_directory_goes_on_with_its_ring() {
    let directory = tempfile::tempdir().unwrap();
    let pool = Pool::start(settings(3), InProcess::within(directory.path())).await.unwrap();
    eventually("three are live", || pool.snapshot().live() == 3).await;
    let ring = pool.snapshot().ring;
    let addr = pool.addresses(1, Duration::ZERO).await.unwrap().remove(0);
    NodeClient::new().store(&addr, b"value", Some(b"key")).await.unwrap();
    let stopped = pool.stop().await;
    assert_eq!((stopped.left.len(), stopped.kept.len()), (2, 1));
    // The store is closed a moment after its node has stopped.
    let pool = Pool::start(settings(2), InProcess::within(directory.path())).await.unwrap();
    eventually("two are live", || pool.snapshot().live() == 2).await;
    assert_eq!(pool.snapshot().ring, ring);
    let addr = pool.addresses(1, Duration::ZERO).await.unwrap().remove(0);
    assert!(NodeClient::new().lookup(&addr, b"key").await.unwrap().is_some());
    pool.stop().await;
}

#[tokio::test]
async fn nonsense_and_nobody_are_told_before_anything_starts() {
    let spawner = Scripted::new(&[], 0);
    let nonsense = Pool::start(settings(0), spawner.clone()).await.unwrap_err();
    assert!(matches!(nonsense, PoolError::Settings(SettingsError::Size(0))), "{nonsense}");
    let nobody = Settings { bootstrap: vec!["127.0.0.1:1".to_owned()], ..settings(1) };
    let unreachable = Pool::start(nobody, spawner.clone()).await.unwrap_err();
    assert!(matches!(unreachable, PoolError::Unreachable(_)), "{unreachable}");
    assert!(spawner.started().is_empty());
}
