//! How a node that was told to join finds those to join through, and tries until it has.

use std::time::Duration;

use chordal_protocol::{Contact, Id, Membership, Procedure, Reply, Request, Ring};

use super::reached::{CALLS, CalledBack};
use super::surroundings::{NEIGHBOURS, Surroundings};
use super::{Config, NoAnswer, Node, NodeError, StartError};
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
) -> (Vec<String>, Vec<String>) {
    let (mut members, mut missing) = (Vec::new(), Vec::new());
    if config.seeks()
        && let Some(found) = around.members().await
    {
        let ring = config.discover.as_deref().unwrap_or_default();
        if found.is_empty() && config.bootstrap.is_empty() {
            missing.push(format!("nobody on the local network says that it is a node of the ring `{ring}`: its first node is started with --discover --begin"));
        }
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
                    missing.push(format!("{source} names nobody but this node"));
                }
            }
            Err(error) => missing.push(error),
        }
    }
    (members, missing)
}

/// Why one of those who were named is of no help, and what a person could look at.
#[derive(Debug, PartialEq, Eq)]
struct Obstacle {
    reason: String,
    cure: Cure,
}

/// What a person could look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cure {
    /// What the reason says.
    Itself,
    /// The same, and it will not pass.
    Settings,
    /// The way there: nobody answers.
    Way,
    /// The name, which leads nowhere.
    Name,
}

impl Obstacle {
    fn new(reason: impl Into<String>, cure: Cure) -> Obstacle {
        Obstacle { reason: reason.into(), cure }
    }
}

/// Each one's own reason.
fn reasons(obstacles: &[Obstacle]) -> String {
    obstacles.iter().map(|obstacle| obstacle.reason.as_str()).collect::<Vec<_>>().join("; ")
}

/// What a person could look at, as questions.
fn advice(obstacles: &[Obstacle]) -> String {
    let has = |cure| obstacles.iter().any(|obstacle| obstacle.cure == cure);
    let way = "Is a node of that ring running there, is the port right, and does a firewall let it through? ";
    let questions = [(Cure::Name, "Is the name right? "), (Cure::Way, way)];
    questions.into_iter().filter(|(cure, _)| has(*cure)).map(|(_, question)| question).collect()
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
    async fn named(&self, client: &NodeClient) -> (Vec<Contact>, Vec<String>) {
        let me = self.addr();
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
            if missing.is_empty() || self.inner.config.join_attempts.is_some_and(|attempts| attempt >= attempts) {
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
        if !config.seeks() && config.bootstrap.iter().all(|addr| *addr == self.addr()) && left.is_empty() {
            return Err(StartError::Join(format!(
                "--bootstrap names {}, which is what this node tells others itself, and a node cannot join a ring through itself; \
                 name another member",
                self.addr()
            )));
        }
        let client = NodeClient::with_timeout(SERVICE);
        let mut pauses = Pauses::new(PAUSES.0, PAUSES.1);
        let mut unreached = 0;
        let of = config.join_attempts.map_or("as many as it takes".to_owned(), |attempts| attempts.to_string());
        let mut attempt = 1;
        let obstacles = loop {
            let (mut contacts, missing) = self.named(&client).await;
            contacts.extend(left.iter().cloned());
            let mut obstacles: Vec<_> = missing.into_iter().map(|it| Obstacle::new(it, Cure::Itself)).collect();
            if self.joined_through(contacts, &mut obstacles, &mut unreached).await? {
                return Ok(());
            }
            if !obstacles.is_empty() && obstacles.iter().all(|obstacle| obstacle.cure == Cure::Settings) {
                return Err(StartError::Join(reasons(&obstacles)));
            }
            if config.join_attempts.is_some_and(|attempts| attempt >= attempts) {
                break obstacles;
            }
            let (pause, reasons) = (pauses.next(), reasons(&obstacles));
            let seconds = pause.as_secs_f32();
            tracing::warn!("could not join, attempt {attempt} of {of}: {reasons}; trying again in {seconds:.1} s");
            tokio::time::sleep(pause).await;
            attempt += 1;
        };
        let mut through = config.bootstrap.clone();
        through.extend(left.iter().map(|contact| contact.addr.clone()));
        through.extend(config.seeks().then(|| NEIGHBOURS.to_owned()));
        Err(StartError::Join(format!(
            "{} through {} failed, the last because {} {}--join-attempts forever goes on trying",
            counted(attempt, "attempt"),
            through.join(", "),
            sentence(&reasons(&obstacles)),
            advice(&obstacles),
        )))
    }

    /// One attempt. Counts how often nobody could call this node back; an error is what trying again would not change.
    async fn joined_through(
        &self,
        contacts: Vec<Contact>,
        obstacles: &mut Vec<Obstacle>,
        unreached: &mut u32,
    ) -> Result<bool, StartError> {
        let driver = &self.inner.driver;
        let member = self.member_among(&contacts, obstacles).await;
        let Some(first) = member.map_err(|error| StartError::Join(error.to_string()))? else { return Ok(false) };
        let contacts = &contacts[first..];
        // Those before have given no answer of use.
        let members: Vec<String> = contacts.iter().map(|contact| contact.addr.clone()).collect();
        match self.called_back_by(&members, &self.asking_client()).await {
            CalledBack::Yes => {}
            CalledBack::No(reason) => {
                *unreached += 1;
                if *unreached >= self.inner.config.join_attempts.map_or(CALLS, |attempts| attempts.min(CALLS)) {
                    return Err(reason.into());
                }
                obstacles.push(Obstacle::new(reason.in_short(), Cure::Itself));
                return Ok(false);
            }
            CalledBack::Unknown(reason) => {
                obstacles.push(Obstacle::new(reason, Cure::Itself));
                return Ok(false);
            }
        }
        driver.happenings.awaits_join(true);
        driver.run(Procedure::Join { contacts: contacts.to_vec() }).await;
        driver.happenings.awaits_join(false);
        if driver.lock().chord.membership() == Membership::Joined {
            return Ok(true);
        }
        if let Some(failure) = driver.happenings.take_join_failure() {
            if !failure.may_pass {
                return Err(StartError::Join(failure.reason));
            }
            obstacles.push(Obstacle::new(failure.reason, Cure::Itself));
        }
        Ok(false)
    }

    /// Which of these is the first that answers as a member of a ring, if that takes one more node; and what is wrong with those
    /// before it.
    async fn member_among(
        &self,
        contacts: &[Contact],
        obstacles: &mut Vec<Obstacle>,
    ) -> Result<Option<usize>, NodeError> {
        for (number, contact) in contacts.iter().enumerate() {
            let addr = &contact.addr;
            obstacles.push(match tokio::net::lookup_host(addr).await {
                Err(error) => Obstacle::new(format!("{addr}: {error}"), Cure::Name),
                Ok(_) => match self.inner.nets.refused(addr).await {
                    Some(refusal) => Obstacle::new(refusal, Cure::Settings),
                    None => match self.inner.driver.ask(contact, Request::Hello).await {
                        Ok(Reply::Hello { me, ring: Some(ring), membership }) if membership.is_member() => {
                            if ring.is_full() {
                                self.check_room(&me, &self.contact().id).await?;
                            }
                            return Ok(Some(number));
                        }
                        Ok(Reply::Hello { me, membership, .. }) => {
                            Obstacle::new(format!("{me} is not a member of a ring now ({membership})"), Cure::Itself)
                        }
                        Ok(Reply::Refused(refusal)) => Obstacle::new(format!("{addr}: {refusal}"), Cure::Itself),
                        Ok(_) => Obstacle::new(format!("{addr} answered another question"), Cure::Itself),
                        Err(NoAnswer { reason, answers: true }) => {
                            Obstacle::new(format!("{addr} gives no answer that can be used: {reason}"), Cure::Itself)
                        }
                        Err(NoAnswer { reason, .. }) => {
                            Obstacle::new(format!("{addr} does not answer: {reason}"), Cure::Way)
                        }
                    },
                },
            });
        }
        Ok(None)
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
