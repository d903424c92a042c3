//! What a bootstrap service counts, in a registry of its own: two services in one process do not mix.

use std::fmt::Write as _;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::board::{Snapshot, Status};

type Labelled<const N: usize> = Family<[(&'static str, String); N], Counter>;

/// The counters of one service.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    size: Gauge,
    members: Family<[(&'static str, &'static str); 1], Gauge>,
    checks: Labelled<1>,
    replacements: Labelled<1>,
    failed_starts: Counter,
    rings_begun: Counter,
    requests: Labelled<2>,
    addresses: Counter,
}

impl Metrics {
    pub(super) fn new() -> Metrics {
        let mut registry = Registry::with_prefix("chordal_bootstrap");
        let metrics = Metrics {
            registry: Registry::default(),
            size: Gauge::default(),
            members: Family::default(),
            checks: Family::default(),
            replacements: Family::default(),
            failed_starts: Counter::default(),
            rings_begun: Counter::default(),
            requests: Family::default(),
            addresses: Counter::default(),
        };
        registry.register("pool_size", "Nodes that the pool is to have", metrics.size.clone());
        registry.register("members", "Nodes of the pool by status", metrics.members.clone());
        registry.register("checks", "Lookups through nodes by outcome", metrics.checks.clone());
        registry.register(
            "replacements",
            "Nodes that were brought up in place of lost ones, by why those were lost",
            metrics.replacements.clone(),
        );
        registry.register("failed_starts", "Nodes that did not come up", metrics.failed_starts.clone());
        registry.register("rings_begun", "Rings that the pool has begun", metrics.rings_begun.clone());
        registry.register("requests", "Requests by route and status", metrics.requests.clone());
        registry.register("addresses", "Addresses that were handed out", metrics.addresses.clone());
        Metrics { registry, ..metrics }
    }

    /// A check passed, or did not.
    pub(super) fn checked(&self, passed: bool) {
        let outcome = if passed { "passed" } else { "failed" };
        self.checks.get_or_create(&[("outcome", outcome.to_owned())]).inc();
    }

    /// A node is live in place of one that was lost.
    pub(super) fn replaced(&self, why: &str) {
        self.replacements.get_or_create(&[("lost", why.to_owned())]).inc();
    }

    pub(super) fn start_failed(&self) {
        self.failed_starts.inc();
    }

    pub(super) fn ring_begun(&self) {
        self.rings_begun.inc();
    }

    pub(super) fn answered(&self, route: &str, status: u16) {
        self.requests.get_or_create(&[("route", route.to_owned()), ("status", status.to_string())]).inc();
    }

    pub(super) fn handed_out(&self, addresses: usize) {
        self.addresses.inc_by(addresses as u64);
    }

    /// How many checks there were, how many nodes were replaced, how many addresses handed out.
    pub(super) fn totals(&self) -> (u64, u64, u64) {
        let of = |family: &Labelled<1>, name, values: &[&str]| -> u64 {
            values.iter().map(|value| family.get_or_create(&[(name, (*value).to_owned())]).get()).sum()
        };
        let replaced = of(&self.replacements, "lost", &["ended", "failed"]);
        (of(&self.checks, "outcome", &["passed", "failed"]), replaced, self.addresses.get())
    }

    /// In the text format of Prometheus.
    pub(super) fn text(&self, snapshot: &Snapshot) -> String {
        self.size.set(snapshot.size as i64);
        for status in Status::ALL {
            let count = snapshot.slots.iter().filter(|slot| slot.status == status).count();
            self.members.get_or_create(&[("status", status.word())]).set(count as i64);
        }
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            // Writing to memory does not fail; should the encoder, what is there says so.
            let _ = writeln!(text, "# the metrics could not be written");
        }
        text
    }
}
