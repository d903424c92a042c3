//! Clients that ask for addresses all the while, and nodes that join by them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::common::{Daemon, Lab, get_json, try_exchange};
use crate::support::Service;

/// What asking brought.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// A list with an address.
    pub(crate) named: usize,
    /// Anything else that was answered.
    pub(crate) refused: Vec<String>,
    /// No answer: the service does not run.
    pub(crate) silent: usize,
}

/// Threads that ask, one request after the other, until they are ended.
pub(crate) struct Asking {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tally>>,
}

impl Asking {
    pub(crate) fn start(service: &Service, threads: usize) -> Asking {
        let over = Arc::new(AtomicBool::new(false));
        let ask = |addr: String, over: Arc<AtomicBool>| {
            let mut tally = Tally::default();
            while !over.load(Ordering::Relaxed) {
                match try_exchange("GET", &addr, "/return_dht_address", None) {
                    Ok(answer) if answer.status == 200 => {
                        let peers = answer.json()["initial_peers"].as_array().map_or(0, Vec::len);
                        assert_eq!(peers, 1, "{answer:?}");
                        tally.named += 1;
                    }
                    Ok(answer) => tally.refused.push(answer.body),
                    Err(_) => tally.silent += 1,
                }
                // A client's breath, so that the machine does something else as well.
                thread::sleep(Duration::from_millis(5));
            }
            tally
        };
        let spawn = |_| {
            let (addr, over) = (service.addr.clone(), Arc::clone(&over));
            thread::spawn(move || ask(addr, over))
        };
        Asking { threads: (0..threads).map(spawn).collect(), over }
    }

    pub(crate) fn end(self) -> Tally {
        self.over.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for thread in self.threads {
            let tally = thread.join().expect("no client failed");
            all.named += tally.named;
            all.refused.extend(tally.refused);
            all.silent += tally.silent;
        }
        all
    }
}

/// A node that joins by the service's URL, once it is ready.
pub(crate) fn join(lab: &Lab, service: &Service) -> Daemon {
    Daemon::start(lab.path(), &["--memory", "--bootstrap", &service.url()])
}

/// Whether this node is a member of this ring.
pub(crate) fn is_member(node: &Daemon, ring: &str) -> bool {
    let info = get_json(&node.addr, "/nodeinfo");
    info["ring"] == ring && info["membership"] == "joined"
}
