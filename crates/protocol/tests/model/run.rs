//! A scenario being explored, with what its nodes do remembered: there are far fewer states of a node than of the world, so
//! most steps have been taken before.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::Hash;
use std::rc::Rc;

use chordal_protocol::Time;
use chordal_protocol::replica::{Reply, Request, Step};

use crate::scenario::Scenario;
use crate::table::Hash128;
use crate::world::{Leaving, Message, Node, number};

/// A value that knows its hash. States share what they have in common.
pub(crate) struct Hashed<T> {
    pub(crate) hash: u128,
    value: Rc<T>,
}

impl<T: Hash> Hashed<T> {
    pub(crate) fn new(value: T) -> Hashed<T> {
        Hashed { hash: Hash128::of(&value), value: Rc::new(value) }
    }
}

impl<T> Clone for Hashed<T> {
    fn clone(&self) -> Hashed<T> {
        Hashed { hash: self.hash, value: Rc::clone(&self.value) }
    }
}

impl<T> std::ops::Deref for Hashed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// What came of something that a node did.
pub(crate) struct Done {
    pub(crate) node: Hashed<Node>,
    pub(crate) leaving: Vec<Leaving>,
}

#[derive(Default)]
pub(crate) struct Memo {
    /// By node and what it did; nothing if it could not.
    steps: BTreeMap<u128, Option<Rc<Done>>>,
    nodes: BTreeMap<u128, Hashed<Node>>,
    messages: BTreeMap<u128, Hashed<Message>>,
}

impl Memo {
    pub(crate) fn message(&mut self, message: &Message) -> Hashed<Message> {
        let hash = Hash128::of(message);
        self.messages.entry(hash).or_insert_with(|| Hashed::new(message.clone())).clone()
    }
}

pub(crate) struct Run {
    scenario: Scenario,
    pub(crate) memo: RefCell<Memo>,
}

impl std::ops::Deref for Run {
    type Target = Scenario;

    fn deref(&self) -> &Scenario {
        &self.scenario
    }
}

impl Run {
    pub(crate) fn new(scenario: &Scenario) -> Run {
        Run { scenario: scenario.clone(), memo: RefCell::default() }
    }

    /// What comes of it when this node does this.
    pub(crate) fn done(
        &self,
        node: &Hashed<Node>,
        what: &impl Hash,
        does: impl FnOnce(&mut Node) -> Option<Step>,
    ) -> Option<Rc<Done>> {
        self.remembered(node, what, |node| Some((Vec::new(), does(node)?)))
    }

    /// What comes of it when a message arrives.
    pub(crate) fn delivered(&self, node: &Hashed<Node>, message: &Hashed<Message>) -> Rc<Done> {
        let done = self.remembered(node, &message.hash, |node| {
            Some(match (**message).clone() {
                Message::Request(letter) => {
                    let (reply, step) = node.replica.serve(&mut node.store, Time::ZERO, letter);
                    (vec![Leaving::Message(Message::Reply(reply))], step)
                }
                Message::Reply(letter) => (Vec::new(), node.replica.hear(&mut node.store, Time::ZERO, letter)),
            })
        });
        done.unwrap_or_else(|| Rc::new(Done { node: node.clone(), leaving: Vec::new() }))
    }

    fn remembered(
        &self,
        node: &Hashed<Node>,
        what: &impl Hash,
        does: impl FnOnce(&mut Node) -> Option<(Vec<Leaving>, Step)>,
    ) -> Option<Rc<Done>> {
        let key = Hash128::of(&(node.hash, Hash128::of(what)));
        if let Some(done) = self.memo.borrow().steps.get(&key) {
            return done.clone();
        }
        let mut changed = (**node).clone();
        let done = does(&mut changed).map(|(mut leaving, step)| {
            leaving.extend(step.calls.into_iter().map(|call| Leaving::Message(Message::Request(call))));
            leaving.extend(step.answers.into_iter().map(|(token, answer)| Leaving::Answer(token, answer)));
            if let Some((durable, _)) = changed.disk.as_ref().filter(|_| !self.hasty) {
                // Writes go to members while this node's disk is still at them, if nothing else waits for it.
                let is_settled = durable == changed.replica.durable();
                let waits = |leaves: &mut Leaving| !(is_settled && may_go_ahead(leaves));
                let waiting: Vec<Leaving> = leaving.extract_if(.., waits).collect();
                changed.waits.extend(waiting);
            }
            let node = Hashed::new(changed);
            let node = self.memo.borrow_mut().nodes.entry(node.hash).or_insert(node).clone();
            Rc::new(Done { node, leaving })
        });
        self.memo.borrow_mut().steps.insert(key, done.clone());
        done
    }

    /// Whether a message may change anything. What a reply is matched by, a ballot, a round, the number of a write or a view
    /// to be installed, never comes again once it has gone, so a reply that changes nothing now never will. A request may meet
    /// a view that is not installed, not known or frozen, and be of use later; any other that changes nothing and gets a reply
    /// that changes nothing has come too late for good.
    pub(crate) fn is_of_use(&self, nodes: &[Hashed<Node>], message: &Hashed<Message>) -> bool {
        // Once a decision is forgotten, what was said of it may look new.
        if self.forgets && matches!(&**message, Message::Request(letter) if may_revive(&letter.body)) {
            return true;
        }
        let node = &nodes[number(&message.ends().1)];
        let done = self.delivered(node, message);
        if done.node.hash != node.hash {
            return true;
        }
        done.leaving.iter().any(|leaves| match leaves {
            Leaving::Message(Message::Reply(letter)) => {
                let is_early = matches!(
                    letter.body,
                    Reply::NotInstalled { .. } | Reply::Elsewhere { .. } | Reply::Declined { .. }
                ) || (self.twice > 0 && matches!(letter.body, Reply::Stored { .. }));
                let reply = Message::Reply(letter.clone());
                is_early
                    || (!is_silent(&letter.body) && {
                        let reply = self.memo.borrow_mut().message(&reply);
                        self.is_of_use(nodes, &reply)
                    })
            }
            _ => true,
        })
    }
}

fn may_go_ahead(leaves: &Leaving) -> bool {
    matches!(leaves, Leaving::Message(Message::Request(letter)) if letter.body.may_go_ahead())
}

fn may_revive(request: &Request) -> bool {
    matches!(request, Request::Stage { .. } | Request::Decide { .. } | Request::Fetch { .. })
}

/// Replies that nothing depends on here: nobody ticks in the model.
pub(crate) fn is_silent(reply: &Reply) -> bool {
    matches!(
        reply,
        Reply::Told { .. }
            | Reply::Forgotten { .. }
            | Reply::Sealed { .. }
            | Reply::NotInstalled { .. }
            | Reply::Declined { .. }
            | Reply::Unacceptable
            | Reply::Overtaken { .. }
    )
}
