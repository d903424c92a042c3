//! A range whose view has lost its majority for good, brought back by a person through one of those who are left.

use std::collections::BTreeSet;
use std::time::Duration;

use chordal_protocol::replica::{Member, Name, NotForced, NotProposed};
use chordal_protocol::{Id, Interval};
use tokio::time::Instant;

use super::info::range_info;
use super::keeping::{Job, NotRecovered, Recovery, Seen};
use super::{Node, NodeError};
use crate::api;

/// How long all members have to answer before it is believed that the others are gone.
const HEARING: Duration = Duration::from_secs(3);

/// How long the named survivors may take to answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long the view that was made may take to serve.
const SERVING: Duration = Duration::from_secs(5);

/// How often it is tried again.
const PAUSE: Duration = Duration::from_millis(100);

impl Node {
    /// POST /recover: makes a view by force, of those who are left, or an empty one where nobody is. Refuses while a majority
    /// answers. What only the lost members had is lost, and that promise of the ring is void.
    pub async fn recover(&self, wish: &api::Recovery) -> Result<api::Recovered, NodeError> {
        if !wish.accept_loss {
            let reason =
                "what only the lost members of that range had is lost for good when it is recovered without them. \
                          Start them again if they can be; if they are gone, send \"accept_loss\": true"
                    .to_owned();
            return Err(NodeError::Invalid { reason });
        }
        let range = Interval::half_open(wish.lo, wish.hi);
        match wish.epoch {
            Some(epoch) => self.recover_view(Name { range, epoch }, &wish.survivors).await,
            None if wish.survivors.is_empty() => self.found_again(range).await,
            None => {
                let reason = "survivors keep a view that has an epoch: name it, or leave them out".to_owned();
                Err(NodeError::Invalid { reason })
            }
        }
    }

    async fn recover_view(&self, name: Name, survivors: &[Id]) -> Result<api::Recovered, NodeError> {
        let survivors = self.survivors(&name, survivors)?;
        let began = Instant::now();
        self.carry_out(Recovery::Begin { name, survivors }).await?.map_err(not_recovered)?;
        tokio::time::sleep(HEARING).await;
        loop {
            match self.carry_out(Recovery::Force(name)).await? {
                Ok(()) => break,
                Err(NotRecovered::NotForced(NotForced::Silent)) if began.elapsed() < PATIENCE => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    self.carry_out(Recovery::GiveUp(name)).await?.ok();
                    return Err(not_recovered(error));
                }
            }
        }
        self.follows(&name.range, name.epoch).await
    }

    async fn found_again(&self, range: Interval) -> Result<api::Recovered, NodeError> {
        let (is_owner, hint) = {
            let core = self.inner.driver.lock();
            (core.chord.not_ready().is_none() && core.chord.due().contains(&range.lo), core.chord.hint(&range.lo))
        };
        if !is_owner {
            return Err(NodeError::NotMine { hint });
        }
        self.carry_out(Recovery::Found(range)).await?.map_err(not_recovered)?;
        self.follows(&range, 0).await
    }

    async fn carry_out(&self, recovery: Recovery) -> Result<Result<(), NotRecovered>, NodeError> {
        Ok(self.inner.driver.keeping.ask(|done| Job::Recover { recovery, done }).await?)
    }

    /// Those who are named, as the members that they are.
    fn survivors(&self, name: &Name, ids: &[Id]) -> Result<BTreeSet<Member>, NodeError> {
        let seen = self.inner.driver.keeping.seen();
        let view = seen.views.iter().map(|seen| &seen.view).find(|view| view.name() == *name);
        let view = view.ok_or_else(|| not_recovered(NotProposed::NotAMember.into()))?;
        let member = |id: &Id| {
            let found = view.members.iter().find(|member| member.id == *id).copied();
            let reason = || format!("{} is no member of that view; leave it out of the survivors", id.short());
            found.ok_or_else(|| NodeError::Invalid { reason: reason() })
        };
        ids.iter().map(member).collect()
    }

    /// Waits for the view that follows to serve.
    async fn follows(&self, range: &Interval, epoch: u64) -> Result<api::Recovered, NodeError> {
        let mut views = self.inner.driver.keeping.watch();
        let serving = |seen: &Seen| {
            let is_next = |view: &&super::keeping::SeenView| {
                view.leads && view.view.epoch > epoch && view.view.range.overlaps(range)
            };
            seen.views.iter().find(is_next).map(|seen| seen.view.clone())
        };
        let found = tokio::time::timeout(SERVING, views.wait_for(|seen| serving(seen).is_some()));
        let view = match found.await {
            Ok(Ok(seen)) => serving(&seen),
            _ => None,
        };
        let reason = || {
            "a survivor had voted for a change, which has been carried out, and others serve the range or are to; look again \
             which ranges have no majority (`tasks recover`)"
                .to_owned()
        };
        let view = view.ok_or_else(|| NodeError::Unavailable { reason: reason() })?;
        Ok(api::Recovered { range: range_info(&view.range), epoch: view.epoch, forced: view.forced })
    }
}

fn not_recovered(error: NotRecovered) -> NodeError {
    let advice = match error {
        NotRecovered::NotBegun(NotProposed::NotAMember) => {
            "it has none of that range at that epoch, or not yet; look again which ranges have no majority (`tasks recover`)"
        }
        NotRecovered::NotBegun(NotProposed::PrimaryHeard) => {
            "the primary lives: begin there, and name it as a survivor"
        }
        NotRecovered::NotBegun(NotProposed::Frozen) => "recover the range before it first, which decides about it",
        NotRecovered::NotBegun(NotProposed::Senseless) => "name the survivors, the node that is asked among them",
        NotRecovered::NotForced(NotForced::NotBegun) => {
            "the members have decided something meanwhile, for a majority answers; nothing was forced, look again"
        }
        NotRecovered::NotForced(NotForced::Silent) => "nothing has changed; name those that answer",
        NotRecovered::NotForced(NotForced::Majority) => "nothing needs to be forced, and nothing was",
        NotRecovered::Kept => "recover the view that it keeps",
    };
    NodeError::Conflict { reason: format!("{error}: {advice}") }
}
