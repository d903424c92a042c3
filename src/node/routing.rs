//! Finding owners, and having them do things: iterative lookups over the transport, and what clients want done, tried until
//! it is done or the deadline has passed.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chordal_protocol::replica::{Answer, Operation, Refusal as NotNow};
use chordal_protocol::{
    Contact, Hop, Id, Interval, LookupError, Membership, Mode, NextHop, Record, Refusal, Reply, Request, Why, Write,
    Written,
};
use rand::RngExt;

use super::driver::{Driver, refusal};
use super::keeping::Told;
use super::transport::NoAnswer;
use super::{NodeError, Served};

/// The first and the longest pause between two tries of the same request.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// For how long it is believed that those are missing who were.
const MISSING_FOR: Duration = Duration::from_secs(4);

/// How many hints in a row are followed before the owner is looked up anew.
const HINTS: u32 = 8;

/// Asks others on behalf of clients.
#[derive(Clone)]
pub(crate) struct Router {
    pub(crate) driver: Arc<Driver>,
    pub(crate) mode: Mode,
    pub(crate) deadline: Duration,
}

/// The owner of an id, and the way to it.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) owner: Contact,
    pub(crate) trace: Vec<Asked>,
}

/// A node that was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) contact: Contact,
    pub(crate) why: Why,
    pub(crate) took: Duration,
    pub(crate) answered: bool,
}

/// The end of a request that was tried until its deadline.
struct Tries {
    began: Instant,
    deadline: Duration,
    pause: Duration,
    /// Who was missing, when too few of those who keep the id answered, and when that was heard.
    missing: Option<(String, Instant)>,
    /// Whether a write was sent to a node that gave no answer: it may have happened.
    unknown: bool,
}

impl Router {
    /// The same, which tries no longer than this.
    pub(crate) fn for_at_most(&self, wait: Option<Duration>) -> Router {
        Router { deadline: wait.map_or(self.deadline, |wait| wait.min(self.deadline)), ..self.clone() }
    }

    /// The owner of an id. Looks again, while the ring heals, until the deadline.
    pub(crate) async fn find(&self, id: Id, mode: Mode) -> Result<Way, NodeError> {
        let mut tries = Tries::new(self.deadline);
        loop {
            match self.find_once(id, mode, &tries).await {
                Ok(way) => return Ok(way),
                Err(error) => tries.again(error.to_string()).await?,
            }
        }
    }

    async fn find_once(&self, id: Id, mode: Mode, tries: &Tries) -> Result<Way, LookupError> {
        let driver = &self.driver;
        let (me, lookup) = {
            let core = driver.lock();
            (core.chord.me().clone(), core.chord.lookup(id, mode))
        };
        let mut trace: Vec<Asked> = Vec::new();
        let Some(mut lookup) = lookup else {
            return Ok(Way { owner: me, trace });
        };
        loop {
            let Hop { contact, why } = lookup.next_hop()?;
            // A node that gave no answer a moment ago is passed over, and so is this one, which knows no better.
            if contact.id == me.id || driver.peers.is_passed_over(&contact.addr) {
                continue;
            }
            if tries.began.elapsed() > tries.deadline {
                return Err(LookupError::NoRoute);
            }
            let request = Request::Route { key: id, mode, excluding: None };
            let asked = Instant::now();
            let answer = driver.ask(&contact, request).await;
            trace.push(Asked { contact: contact.clone(), why, took: asked.elapsed(), answered: answer.is_ok() });
            match answer {
                Ok(Reply::Route(NextHop::Owner { range, .. })) if range.contains(&id) => {
                    driver.lock().chord.learn_owner(range, &contact);
                    return Ok(Way { owner: contact, trace });
                }
                Ok(Reply::Route(NextHop::Via(hops))) => {
                    if why == Why::Cached {
                        driver.lock().chord.forget_owner(&id);
                    }
                    lookup.led_on(&contact, hops);
                }
                Ok(_) => driver.lock().chord.forget_owner(&id),
                Err(_) => driver.lock().chord.forget_node(&contact),
            }
        }
    }

    /// Writes at the primary of its view.
    pub(crate) async fn write(&self, write: Write) -> Result<(Written, Served), NodeError> {
        match self.at_primary(Operation::Write(write)).await? {
            (Answer::Written(written), served) => Ok((written, served)),
            (_, served) => Err(strange(&served)),
        }
    }

    /// Reads at the primary of its view.
    pub(crate) async fn read(&self, id: Id) -> Result<(Option<Record>, Served), NodeError> {
        match self.at_primary(Operation::Get(id)).await? {
            (Answer::Read(record), served) => Ok((record, served)),
            (_, served) => Err(strange(&served)),
        }
    }

    /// Does it as the primary, or says who is. What changes in a moment is waited for.
    pub(crate) async fn here(&self, operation: Operation) -> Result<Answer, NodeError> {
        let mut tries = Tries::new(self.deadline);
        self.try_here(operation, &mut tries).await.map_err(|error| tries.in_the_end(error))
    }

    async fn try_here(&self, operation: Operation, tries: &mut Tries) -> Result<Answer, NodeError> {
        let id = *operation.id();
        loop {
            match self.within(tries, self.driver.operate_here(operation.clone())).await {
                Some(told) => match told? {
                    Told::NotMine(hint) => return Err(NodeError::NotMine { hint: self.driver.hint(&id, hint) }),
                    Told::Answer(answer @ (Answer::Refused(_) | Answer::Unknown)) => {
                        self.not_here(answer, &operation, tries).await?;
                    }
                    Told::Answer(answer) => return Ok(answer),
                },
                None => self.not_here(Answer::Unknown, &operation, tries).await?,
            }
        }
    }

    /// This node could not do it as the primary.
    async fn not_here(&self, answer: Answer, operation: &Operation, tries: &mut Tries) -> Result<(), NodeError> {
        match self.driver.with_missing(operation.id(), Reply::Answered(answer)) {
            Reply::Refused(Refusal::NoMajority { missing, in_doubt }) => {
                tries.no_majority(&missing, in_doubt, operation).await
            }
            Reply::Answered(Answer::Refused(refusal)) => tries.refused("this node", refusal).await,
            _ => tries.in_doubt("this node", operation).await,
        }
    }

    /// Has the primary do something. A change of views or a hole in the ring is waited out until the deadline; the request id
    /// sees to it that what is asked twice is done once.
    async fn at_primary(&self, operation: Operation) -> Result<(Answer, Served), NodeError> {
        let mut tries = Tries::new(self.deadline);
        self.try_at_primary(operation, &mut tries).await.map_err(|error| tries.in_the_end(error))
    }

    async fn try_at_primary(&self, operation: Operation, tries: &mut Tries) -> Result<(Answer, Served), NodeError> {
        let driver = &self.driver;
        let id = *operation.id();
        let mut hops = 0;
        let mut hint: Option<Contact> = None;
        let mut hints = 0;
        loop {
            let target = match hint.take() {
                Some(contact) => contact,
                None => match self.likely_primary(id) {
                    Some(contact) => contact,
                    None => match self.find_unless_cut_off(id, tries).await? {
                        Ok(way) => {
                            // The owner is asked again, now for what it shall do: the same hop.
                            hops += way.trace.len().saturating_sub(1) as u32;
                            way.owner
                        }
                        Err(error) => {
                            tries.again(error.to_string()).await?;
                            continue;
                        }
                    },
                },
            };
            let is_here = target == *driver.lock().chord.me();
            hops += u32::from(!is_here);
            let reply = if is_here {
                self.ask_here(tries, &operation).await
            } else {
                self.ask_there(&target, &operation).await
            };
            match reply {
                Ok(Reply::Answered(Answer::Refused(refusal))) => tries.refused(&target.to_string(), refusal).await?,
                Ok(Reply::Answered(Answer::Unknown)) => tries.in_doubt(&target.to_string(), &operation).await?,
                Ok(Reply::Answered(answer)) => return Ok((answer, Served { owner: target, hops })),
                Ok(Reply::Refused(Refusal::NotMine(next))) => {
                    driver.lock().chord.forget_owner(&id);
                    hint = next.filter(|next| *next != target && hints < HINTS);
                    hints += 1;
                    if hint.is_none() {
                        hints = 0;
                        let lasting = "if that lasts, all who kept it may be gone: `tasks recover` tells";
                        let nobody = format!("{target} does not serve that id, and knows nobody who does; {lasting}");
                        tries.again(nobody).await?;
                    }
                }
                Ok(Reply::Refused(Refusal::Store(reason))) => {
                    return Err(NodeError::Peer { addr: target.addr, reason });
                }
                Ok(Reply::Refused(Refusal::Full(reason))) => {
                    return Err(NodeError::OwnerFull { owner: target.to_string(), reason });
                }
                Ok(Reply::Refused(Refusal::NoMajority { missing, in_doubt })) => {
                    driver.lock().chord.forget_owner(&id);
                    tries.no_majority(&missing, in_doubt, &operation).await?;
                }
                Ok(Reply::Refused(Refusal::Overloaded)) => return Err(NodeError::Overloaded),
                Ok(Reply::Refused(refusal)) => {
                    driver.lock().chord.forget_owner(&id);
                    tries.again(format!("{target}: {refusal}")).await?;
                }
                Ok(_) => return Err(strange(&Served { owner: target, hops })),
                Err(no_answer) => {
                    tries.unknown |= matches!(operation, Operation::Write(_));
                    driver.lock().chord.forget_node(&target);
                    tries.again(format!("{target} does not answer: {no_answer}")).await?;
                }
            }
        }
    }

    async fn ask_there(&self, target: &Contact, operation: &Operation) -> Result<Reply, NoAnswer> {
        self.driver.ask(target, Request::Operate(operation.clone())).await
    }

    async fn ask_here(&self, tries: &Tries, operation: &Operation) -> Result<Reply, NoAnswer> {
        let id = operation.id();
        let reply = match self.within(tries, self.driver.operate_here(operation.clone())).await {
            Some(Ok(Told::Answer(answer))) => Reply::Answered(answer),
            Some(Ok(Told::NotMine(hint))) => Reply::Refused(Refusal::NotMine(self.driver.hint(id, hint))),
            Some(Err(error)) => Reply::Refused(refusal(error)),
            None => Reply::Answered(Answer::Unknown),
        };
        Ok(self.driver.with_missing(id, reply))
    }

    /// What comes of it before the deadline.
    async fn within<T>(&self, tries: &Tries, work: impl Future<Output = T>) -> Option<T> {
        let left = tries.deadline.saturating_sub(tries.began.elapsed());
        tokio::time::timeout(left, work).await.ok()
    }

    /// Who serves the id as far as is known here: this node, or, where it routes by what it has seen, the owner seen last.
    fn likely_primary(&self, id: Id) -> Option<Contact> {
        let is_here = self.driver.keeping.seen().serves_id(&id);
        let core = self.driver.lock();
        if is_here {
            return Some(core.chord.me().clone());
        }
        let seen = core.chord.likely_owner(&id).filter(|_| self.mode == Mode::Cached)?;
        (!self.driver.peers.is_passed_over(&seen.addr)).then_some(seen)
    }

    /// The owner, where looking for it makes sense: a node without a ring need not be waited for.
    async fn find_unless_cut_off(&self, id: Id, tries: &Tries) -> Result<Result<Way, LookupError>, NodeError> {
        let membership = self.driver.lock().chord.membership();
        match membership {
            Membership::Isolated => Err(NodeError::Unavailable {
                reason: "this node has lost all its successors and cannot tell whether they died or it was cut off. It \
                         looks for them; start them again (tasks start --all). If they are gone for good, `tasks recover` has \
                         it go on alone"
                    .to_owned(),
            }),
            _ => Ok(self.find_once(id, self.mode, tries).await),
        }
    }
}

impl Tries {
    fn new(deadline: Duration) -> Tries {
        Tries { began: Instant::now(), deadline, pause: PAUSES.0, missing: None, unknown: false }
    }

    /// The primary could not do it now.
    async fn refused(&mut self, by: &str, refusal: NotNow) -> Result<(), NodeError> {
        match refusal {
            NotNow::Expired => Err(NodeError::Conflict {
                reason: format!(
                    "{by} has forgotten what became of requests of that age, so this one is not done again: look what is \
                     stored now, and ask with a new request id. If the request is new, the clock of the node that it came \
                     through is far behind"
                ),
            }),
            NotNow::Busy => Err(NodeError::Overloaded),
            NotNow::NotServed | NotNow::Changing | NotNow::Pending => {
                self.again(format!(
                    "{by} says that the nodes that keep it are changing, or that too few of them answer"
                ))
                .await
            }
        }
    }

    /// The primary could not say whether it was done.
    async fn in_doubt(&mut self, by: &str, operation: &Operation) -> Result<(), NodeError> {
        self.unknown |= matches!(operation, Operation::Write(_));
        self.again(format!("{by} hears too few of the nodes that keep it")).await
    }

    /// Too few of those who keep it answer.
    async fn no_majority(
        &mut self,
        missing: &[Contact],
        in_doubt: bool,
        operation: &Operation,
    ) -> Result<(), NodeError> {
        self.unknown |= in_doubt && matches!(operation, Operation::Write(_));
        let missing: Vec<&str> = missing.iter().map(|contact| contact.addr.as_str()).collect();
        let reason = format!(
            "too few of the nodes that keep it answer (missing: {}). Start those again (tasks start --all); if they are gone for \
             good, `tasks recover` tells what can be done",
            if missing.is_empty() { "some whose addresses are not known".to_owned() } else { missing.join(", ") }
        );
        self.missing = Some((reason.clone(), Instant::now()));
        self.again(reason).await
    }

    /// Pauses before the next try, or says that there is no time for one.
    async fn again(&mut self, reason: String) -> Result<(), NodeError> {
        let waited = self.began.elapsed();
        if waited + self.pause > self.deadline {
            // Whom else it was asked of last says less.
            let missing = self.missing.take().filter(|(_, heard)| heard.elapsed() < MISSING_FOR);
            let reason = missing.map_or(reason, |(missing, _)| missing);
            return Err(if self.unknown {
                self.doubt(reason)
            } else {
                NodeError::Unavailable {
                    reason: format!("not available within {:.1} s: {reason}", waited.as_secs_f32()),
                }
            });
        }
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(self.pause.mul_f64(jitter)).await;
        self.pause = (self.pause * 2).min(PAUSES.1);
        Ok(())
    }

    /// What the client is told. Whatever ended it, a write that an earlier try may have done was not refused.
    fn in_the_end(&self, error: NodeError) -> NodeError {
        match error {
            error @ NodeError::Deadline { .. } => error,
            error if self.unknown => self.doubt(error.to_string()),
            error => error,
        }
    }

    fn doubt(&self, reason: String) -> NodeError {
        let reason = format!("{reason}. The write may or may not have happened");
        NodeError::Deadline { waited: self.began.elapsed(), reason }
    }
}

fn strange(served: &Served) -> NodeError {
    NodeError::Peer { addr: served.owner.addr.clone(), reason: "it answered another question".to_owned() }
}

/// The parts of a range as stretches that do not pass zero, in id order.
pub(crate) fn in_id_order(ranges: impl IntoIterator<Item = Interval>) -> Vec<Interval> {
    let mut parts: Vec<Interval> = Vec::new();
    for range in ranges {
        if range.lo < range.hi || range.hi == Id::ZERO {
            parts.push(range);
        } else {
            parts.push(Interval::half_open(range.lo, Id::ZERO));
            parts.push(Interval::half_open(Id::ZERO, range.hi));
        }
    }
    parts.retain(|part| part.lo != part.hi || part.lo == Id::ZERO);
    parts.sort();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(lo: &str, hi: &str) -> Interval {
        Interval::half_open(Id::from_hex_prefix(lo).unwrap(), Id::from_hex_prefix(hi).unwrap())
    }

    #[test]
    fn a_write_that_may_have_been_done_is_never_said_to_be_refused() {
        let mut tries = Tries::new(Duration::from_secs(10));
        let ends: [fn() -> NodeError; 2] =
            [|| NodeError::Overloaded, || NodeError::Unavailable { reason: "cut off".to_owned() }];
        for end in ends {
            tries.unknown = false;
            assert_eq!(tries.in_the_end(end()).to_string(), end().to_string());
            tries.unknown = true;
            let told = tries.in_the_end(end());
            assert!(matches!(&told, NodeError::Deadline { .. }), "{told:?}");
            assert!(told.to_string().contains(&end().to_string()), "{told}");
        }
    }

    #[test]
    fn ranges_are_cut_at_zero() {
        assert_eq!(
            in_id_order([range("e", "2"), range("4", "6")]),
            [range("0", "2"), range("4", "6"), range("e", "0")]
        );
        assert_eq!(in_id_order([range("4", "0")]), [range("4", "0")]);
        assert_eq!(in_id_order([range("0", "4")]), [range("0", "4")]);
        assert_eq!(in_id_order([range("5", "5")]), [range("0", "5"), range("5", "0")], "the whole circle");
        assert_eq!(in_id_order([range("0", "0")]), [range("0", "0")]);
    }
}
