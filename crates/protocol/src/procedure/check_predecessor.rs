//! *Check predecessor* (Chord's journal version of 2003) and the rest of Zave's *rectify*: a predecessor is given up only after
//! it was asked and gave no answer; then the candidate is asked, and adopted if it answers.

use super::Replied;
use crate::{Call, Chord, Contact, Event, Reply, Request, Step};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Then {
    /// The predecessor tells its neighbours.
    Predecessor { candidate: Option<Contact> },
    /// The candidate tells its neighbours.
    Candidate,
}

impl From<Then> for super::Then {
    fn from(then: Then) -> super::Then {
        super::Then::CheckPredecessor(then)
    }
}

impl Chord {
    pub(super) fn begin_check_predecessor(&mut self, candidate: Option<Contact>) -> Step {
        match (&self.predecessor, candidate) {
            (Some(predecessor), candidate) => {
                let then = Then::Predecessor { candidate };
                Step::ask(Call::new(predecessor, Request::Neighbours, then), Vec::new())
            }
            (None, Some(candidate)) => self.ask_candidate(&candidate, Vec::new()),
            (None, None) => Step::default(),
        }
    }

    fn ask_candidate(&mut self, candidate: &Contact, events: Vec<Event>) -> Step {
        Step::ask(Call::new(candidate, Request::Neighbours, Then::Candidate), events)
    }

    pub(super) fn resume_check_predecessor(&mut self, then: Then, by: &Contact, outcome: Replied) -> Step {
        let mut events = Vec::new();
        match (then, outcome) {
            (Then::Predecessor { .. }, Ok(Reply::Neighbours { .. })) => {}
            (Then::Predecessor { .. }, Ok(Reply::Refused(refusal))) if refusal.is_passing() => {}
            (Then::Predecessor { candidate }, _) if self.predecessor.as_ref() == Some(by) => {
                self.forget_node(by);
                self.set_predecessor(None, &mut events);
                if let Some(candidate) = candidate {
                    return self.ask_candidate(&candidate, events);
                }
            }
            (Then::Candidate, Ok(Reply::Neighbours { .. })) => {
                if self.predecessor.is_none() && by.id != self.me.id {
                    self.set_predecessor(Some(by.clone()), &mut events);
                }
            }
            (Then::Predecessor { .. } | Then::Candidate, _) => {}
        }
        Step::done(events)
    }
}
