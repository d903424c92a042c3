//! How a node that was told to join finds those to join through, and tries until it has.

use std::time::Duration;

use chordal_protocol::{Contact, Membership, Procedure, Request};

use super::{Node, StartError};
use crate::client::{NodeClient, Source};
use crate::pauses::Pauses;

/// The first and the longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long a bootstrap service may take to answer. One whose pool is empty starts a node first.
const SERVICE: Duration = Duration::from_secs(10);

/// How many contacts are asked for their excuse when joining has failed.
const BLAMED: usize = 3;

impl Node {
    /// Those to join through, as far as bootstrap services could be asked, without this node itself; and why there are not
    /// more.
    async fn named(&self, client: &NodeClient) -> (Vec<Contact>, Option<String>) {
        let me = self.contact().addr;
        let mut named: Vec<Contact> = Vec::new();
        let mut missing = None;
        for source in &self.inner.config.bootstrap {
            let members = match source.parse::<Source>() {
                Ok(source) => source.members(client).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match members {
                Ok(members) => {
                    let before = named.len();
                    named.extend(members.iter().filter(|addr| **addr != me).map(|addr| Contact::at(addr.as_str(), "")));
                    if named.len() == before {
                        missing = Some(format!("{source} names nobody but this node"));
                    }
                }
                Err(error) => missing = Some(error),
            }
        }
        (named, missing)
    }

    /// Remembers those who were named to a node that goes on in its ring.
    pub(super) async fn remember_named(&self) {
        let client = NodeClient::with_timeout(SERVICE);
        let mut pauses = Pauses::new(PAUSES.0, PAUSES.1);
        for _ in 0..self.inner.config.join_attempts {
            let (named, missing) = self.named(&client).await;
            for contact in &named {
                self.inner.driver.lock().chord.remember(contact);
            }
            if missing.is_none() {
                return;
            }
            tokio::time::sleep(pauses.next()).await;
        }
    }

    /// Tries to join through each contact in turn, until it has worked or makes no sense any more. Bootstrap services are
    /// asked anew for each attempt, for whom they named last may be gone.
    pub(super) async fn join(&self) -> Result<(), StartError> {
        let config = &self.inner.config;
        let driver = &self.inner.driver;
        let client = NodeClient::with_timeout(SERVICE);
        let only_itself = config.bootstrap.iter().all(|addr| *addr == self.contact().addr);
        let mut contacts = Vec::new();
        let mut pauses = Pauses::new(PAUSES.0, PAUSES.1);
        let mut reason = String::new();
        for attempt in 1..=config.join_attempts {
            let (named, missing) = self.named(&client).await;
            contacts = named;
            if !contacts.is_empty() || only_itself {
                driver.run(Procedure::Join { contacts: contacts.clone() }).await;
            } else if let Some(missing) = missing {
                reason = missing;
            }
            if driver.lock().chord.membership() == Membership::Joined {
                return Ok(());
            }
            if let Some(failure) = driver.happenings.take_join_failure() {
                if !failure.may_pass {
                    return Err(StartError::Join(failure.reason));
                }
                reason = failure.reason;
            }
            if attempt < config.join_attempts {
                tracing::warn!(attempt, of = config.join_attempts, %reason, "could not join; trying again");
                tokio::time::sleep(pauses.next()).await;
            }
        }
        for contact in contacts.iter().take(BLAMED) {
            // Procedures know no more than that there was no answer; people want to know why.
            if let Err(no_answer) = driver.ask(contact, &Request::Hello).await {
                reason = format!("{contact} gives no answer that can be used: {no_answer}");
                break;
            }
        }
        let through = config.bootstrap.join(", ");
        let attempts = config.join_attempts;
        Err(StartError::Join(format!(
            "{attempts} attempts through {through} failed, the last because {reason}. Is a node of that ring running there?"
        )))
    }
}
