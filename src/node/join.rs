//! How a node that was told to join finds those to join through, and tries until it has.

use std::time::Duration;

use chordal_protocol::{Contact, Id, Membership, Procedure, Reply, Request, Ring};

use super::surroundings::{NEIGHBOURS, Surroundings};
use super::{Config, Node, NodeError, StartError};
use crate::client::{Error, NodeClient, Source};
use crate::pauses::Pauses;
use crate::words::{counted, sentence};

/// The first and the longest pause between two attempts.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long a bootstrap service may take to answer. One whose pool is empty starts a node first.
pub(super) const SERVICE: Duration = Duration::from_secs(10);

/// The members that these sources stand for, as far as bootstrap services could be asked, without the node itself if it knows
/// its address; and why there are not more. On a ring whose nodes find each other those on the local network are among them.
pub(super) async fn members_of(
    config: &Config,
    around: &Surroundings,
    client: &NodeClient,
    me: Option<&str>,
) -> (Vec<String>, Option<String>) {
    let mut members: Vec<String> = Vec::new();
    let mut missing = None;
    if config.seeks()
        && let Some(found) = around.members().await
    {
        let ring = config.discover.as_deref().unwrap_or_default();
        missing = (found.is_empty() && config.bootstrap.is_empty()).then(|| {
            format!("nobody on the local network says that it is a node of the ring `{ring}`: its first node is started with --discover --begin")
        });
        members.extend(found);
    }
    for source in &config.bootstrap {
        let found = match source.parse::<Source>() {
            Ok(source) => source.members(client).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match found {
            Ok(found) => {
                let before = members.len();
                members.extend(found.into_iter().filter(|addr| Some(addr.as_str()) != me));
                if members.len() == before {
                    missing = Some(match me {
                        Some(_) => format!("{source} names nobody but this node"),
                        None => format!("{source} names nobody"),
                    });
                }
            }
            Err(error) => missing = Some(error),
        }
    }
    (members, missing)
}

impl Node {
    /// Takes this node, which stands alone, into the ring of these members (`host:port`), or of those whom these bootstrap services
    /// name, and returns when it has joined. Nothing happens if it is a member of that ring already. A node that holds values of
    /// its own stays where it is ([`NodeError::Conflict`]).
    pub async fn bootstrap<S: AsRef<str>>(&self, contacts: impl IntoIterator<Item = S>) -> Result<(), NodeError> {
        let client = NodeClient::with_timeout(SERVICE);
        let inside = client.clone().with_security(self.security());
        let me = self.contact().addr;
        let mut last = NodeError::Invalid { reason: "nobody was named to join through".to_owned() };
        for contact in contacts {
            let source: Source = match contact.as_ref().parse() {
                Ok(source) => source,
                Err(error) => return Err(NodeError::Invalid { reason: format!("{error}") }),
            };
            let members = source.members(&client).await.unwrap_or_else(|error| {
                last = NodeError::Unreachable { addr: source.to_string(), reason: error.to_string() };
                Vec::new()
            });
            for member in members {
                match inside.join(&member, &me).await {
                    Ok(_) => return Ok(()),
                    Err(Error::Problem { problem, .. }) if problem.status == 409 => {
                        return Err(NodeError::Conflict { reason: problem.detail });
                    }
                    Err(error) => last = NodeError::Peer { addr: member, reason: error.to_string() },
                }
            }
        }
        Err(last)
    }

    /// Those to join through, as far as bootstrap services could be asked, without this node itself; and why there are not
    /// more.
    async fn named(&self, client: &NodeClient) -> (Vec<Contact>, Option<String>) {
        let me = self.contact().addr;
        let (members, missing) = members_of(&self.inner.config, &self.inner.around, client, Some(&me)).await;
        (members.iter().map(|addr| Contact::at(addr.as_str(), "")).collect(), missing)
    }

    /// Remembers those who were named to a node that goes on in its ring.
    pub(super) async fn remember_named(&self) {
        let client = NodeClient::with_timeout(SERVICE);
        let mut pauses = Pauses::new(PAUSES.0, PAUSES.1);
        for attempt in 1.. {
            let (named, missing) = self.named(&client).await;
            for contact in &named {
                self.inner.driver.lock().chord.remember(contact);
            }
            if missing.is_none() || self.inner.config.join_attempts.is_some_and(|attempts| attempt >= attempts) {
                return;
            }
            tokio::time::sleep(pauses.next()).await;
        }
    }

    /// Remembers those who are found on the local network, if they are looked for, to a node that goes on in its ring.
    pub(super) async fn remember_found(&self) {
        for addr in self.inner.around.members().await.unwrap_or_default() {
            self.inner.driver.lock().chord.remember(&Contact::at(addr, ""));
        }
    }

    /// Tries to join through each contact in turn, until it has worked or makes no sense any more. Bootstrap services are
    /// asked anew for each attempt, for whom they named last may be gone. Those of the ring that it has `left` come last.
    pub(super) async fn join(&self, left: Vec<Contact>) -> Result<(), StartError> {
        let config = &self.inner.config;
        let driver = &self.inner.driver;
        let client = NodeClient::with_timeout(SERVICE);
        let only_itself = !config.seeks() && config.bootstrap.iter().all(|addr| *addr == self.contact().addr);
        let mut pauses = Pauses::new(PAUSES.0, PAUSES.1);
        let mut reason = String::new();
        for attempt in 1.. {
            let (mut contacts, missing) = self.named(&client).await;
            contacts.extend(left.iter().cloned());
            let mut silent = None;
            if !contacts.is_empty() || only_itself {
                silent = self.asked_for_room(&contacts).await.map_err(|error| StartError::Join(error.to_string()))?;
                driver.run(Procedure::Join { contacts }).await;
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
                // Procedures know no more than that there was no answer; people want to know why.
                reason = silent.unwrap_or(failure.reason);
            }
            let of = config.join_attempts.map_or("as many as it takes".to_owned(), |attempts| attempts.to_string());
            if config.join_attempts.is_some_and(|attempts| attempt >= attempts) {
                break;
            }
            tracing::warn!(attempt, %of, %reason, "could not join; trying again");
            tokio::time::sleep(pauses.next()).await;
        }
        let mut through = config.bootstrap.clone();
        through.extend(left.iter().map(|contact| contact.addr.clone()));
        through.extend(config.seeks().then(|| NEIGHBOURS.to_owned()));
        Err(StartError::Join(format!(
            "{} through {} failed, the last because {} Is a node of that ring running there, is the port right, and does a firewall \
             let it through? --join-attempts forever goes on trying",
            counted(config.join_attempts.unwrap_or_default(), "attempt"),
            through.join(", "),
            sentence(&reason),
        )))
    }

    /// Whether the ring of the first of these that answers takes one more node. If none of them is a member, what is wrong with the
    /// first that gave no answer of use.
    async fn asked_for_room(&self, contacts: &[Contact]) -> Result<Option<String>, NodeError> {
        let mut silent = None;
        for contact in contacts {
            match self.inner.driver.ask(contact, Request::Hello).await {
                Ok(Reply::Hello { me, ring: Some(ring), membership }) if membership.is_member() => {
                    if ring.is_full() {
                        self.check_room(&me, &self.contact().id).await?;
                    }
                    return Ok(None);
                }
                Ok(_) => {}
                Err(no_answer) => {
                    silent = silent.or(Some(format!("{contact} gives no answer that can be used: {no_answer}")));
                }
            }
        }
        Ok(silent)
    }

    /// Whether a ring in which every node keeps every value takes this newcomer, going round from one of its members. Two who ask
    /// at the same moment may both be taken; then nobody keeps all, and nobody says that it is ready.
    pub(super) async fn check_room(&self, member: &Contact, newcomer: &Id) -> Result<(), NodeError> {
        let most = usize::from(Ring::MOST_COPIES);
        let mut row = vec![member.clone()];
        let mut asked = 0;
        while asked < row.len() && row.len() <= most {
            let reply = self.inner.driver.ask(&row[asked], Request::Neighbours).await;
            if let Ok(Reply::Neighbours { successors, .. }) = reply {
                let new = successors.into_iter().filter(|contact| contact.id != *newcomer && !row.contains(contact));
                row.extend(new.collect::<Vec<_>>());
            }
            asked += 1;
        }
        if row.len() < most {
            return Ok(());
        }
        Err(NodeError::Conflict {
            reason: format!(
                "every node of that ring keeps every value (--replication-factor all), so it takes {most} nodes, and it has them; \
                 begin a ring with a number such as --replication-factor 3 for more"
            ),
        })
    }
}
