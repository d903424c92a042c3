//! Whether others reach this node at the address that it tells them. A member that nobody can call keeps what nobody gets, and its
//! neighbours take it up and give it up again and again; so a node has itself called back before it joins, when it comes back, and
//! now and then.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chordal_protocol::Contact;
use rand::RngExt;
use rand::seq::SliceRandom;

use super::{Node, Proof};
use crate::api::{CallBack, Seen, SeenBody};
use crate::client::NodeClient;

/// How long it may take to call back. That has bounds of its own there, which come first.
pub(super) const CALLING_BACK: Duration = Duration::from_secs(8);

/// How many of those who could call back are asked for it.
pub(super) const CALLERS: usize = 3;

/// How often it is tried to be called back before it counts that nobody can.
pub(super) const CALLS: u32 = 3;

/// How long a member waits until it looks again, if it was reached, and if not.
const LOOKS: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(1));

/// How often the log says that nobody reaches it.
const SAID_AGAIN: Duration = Duration::from_secs(600);

/// Nobody of those who were asked can call this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "nobody can call this node at {addr}, which it tells others: {reason}. Others must reach it there, or it can be no member: see \
     that --advertise, a forwarded port and the firewall lead there to port {port} of this machine"
)]
pub struct Unreached {
    addr: String,
    port: u16,
    reason: String,
}

impl Unreached {
    /// The same without advice, for a log that has more to say.
    pub(super) fn in_short(&self) -> String {
        format!("nobody can call this node at {}: {}", self.addr, self.reason)
    }
}

/// What others say.
pub(super) enum CalledBack {
    /// One has called this node, and it was there.
    Yes,
    /// At least one has tried to, and it was not there.
    No(Unreached),
    /// Nobody says anything.
    Unknown(String),
}

impl Node {
    /// Has these members call this node back at the address that it tells others, until one has.
    pub(super) async fn called_back_by(&self, members: &[String], client: &NodeClient) -> CalledBack {
        let Contact { addr, .. } = self.contact();
        let proof = Proof::new();
        let call_back = CallBack { addr: Some(addr.clone()), port: 0, challenge: proof.challenge() };
        let body = SeenBody { call_back: Some(call_back) };
        self.expect_call(Some(proof));
        let (mut unreached, mut silent) = (Vec::new(), Vec::new());
        // One after the other: whoever still called when another has reached it would find nobody that expects him.
        for member in members.iter().take(CALLERS) {
            match client.seen(member, &body).await {
                Ok(Seen { called_back: Some(true), .. }) => {
                    self.expect_call(None);
                    return CalledBack::Yes;
                }
                Ok(Seen { reason, .. }) => unreached.push(format!("{member} says: {}", reason.unwrap_or_default())),
                Err(error) => {
                    silent.push(format!("{member} does not say whether it reaches this node: {}", error.reason()));
                }
            }
        }
        self.expect_call(None);
        if unreached.is_empty() {
            return CalledBack::Unknown(silent.join("; "));
        }
        CalledBack::No(Unreached { addr, port: self.inner.port, reason: unreached.join("; ") })
    }

    /// With what it asks them.
    pub(super) fn asking_client(&self) -> NodeClient {
        let client = NodeClient::with_timeout(CALLING_BACK).with_security(self.security());
        client.on_the_way(self.inner.nets.clone(), None)
    }

    fn expect_call(&self, proof: Option<Proof>) {
        *self.inner.proof.lock().unwrap_or_else(PoisonError::into_inner) = proof;
    }

    /// Has the log say when others do not reach this node any more. One that `comes_back` to its ring, and that nobody has reached
    /// since, ends. While that is doubted it is not ready.
    pub(super) async fn watch_reach(self, mut comes_back: bool) {
        let client = self.asking_client();
        let mut failures = 0;
        let mut said: Option<Instant> = None;
        loop {
            let mut members = self.others();
            members.shuffle(&mut rand::rng());
            match self.called_back_by(&members, &client).await {
                CalledBack::Unknown(_) => self.inner.is_doubted.store(false, Ordering::Relaxed),
                CalledBack::Yes => {
                    self.inner.is_doubted.store(false, Ordering::Relaxed);
                    (failures, comes_back) = (0, false);
                    if said.take().is_some() {
                        tracing::info!("others reach this node again");
                    }
                }
                CalledBack::No(unreached) => {
                    failures += 1;
                    if failures >= CALLS && comes_back {
                        return self.fail(unreached.to_string());
                    }
                    if failures >= CALLS && said.is_none_or(|said| said.elapsed() >= SAID_AGAIN) {
                        said = Some(Instant::now());
                        tracing::warn!("{unreached}");
                    }
                }
            }
            // Whoever was not reached may have been still for a moment.
            let pause = if (1..CALLS).contains(&failures) { LOOKS.1 } else { LOOKS.0 };
            let jitter = rand::rng().random_range(0.8..1.2);
            tokio::time::sleep(pause.mul_f64(jitter)).await;
        }
    }

    /// The nodes around this one, and others that it remembers.
    fn others(&self) -> Vec<String> {
        let core = self.inner.driver.lock();
        let around = core.chord.successors().iter().chain(core.chord.predecessor());
        let mut others: Vec<String> = around.chain(core.chord.contacts()).map(|it| it.addr.clone()).collect();
        others.sort_unstable();
        others.dedup();
        others
    }
}
