//! *Acquire*: fetch a range from the node that serves it: seal, transfer, decide, install. The receiver drives, the holder
//! decides; whatever is lost on the way can be asked again.
//!
//! The holder seals the range (no more writes, reads go on), and every write before that is on its disk when it says so. The
//! receiver fetches the records page by page, each durable before the next is asked for, and asks the holder to decide. The
//! decision is on the holder's disk before it is told; from then on only the receiver speaks for the range. When it has
//! installed the view, durably, it says so, and the holder forgets the content.
//!
//! A receiver that leaves waits for a decision that it has asked for ([`leave`](super::leave)), and asks for none once it
//! says goodbye. What it has not installed it never acknowledges: the holder then keeps the content, and takes the range back.

use super::Replied;
use crate::{Call, Chord, Contact, Event, Interval, Membership, Procedure, Refusal, Reply, Request, Step, View};

/// How often a holder that is busy is asked again, and how long to wait between, in milliseconds.
const BUSY_RETRIES: u32 = 40;
const BUSY_DELAY: u64 = 50;
/// How often a step is repeated whose answer was lost.
const LOST_RETRIES: u32 = 3;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Then {
    /// The holder seals.
    Sealed { wanted: Interval, retries: u32 },
    /// The holder sends a page.
    Page { open: Open },
    /// The holder decides.
    Decided { open: Open },
    /// The holder has heard that the view is installed.
    Acknowledged { view: View, records: u64, retries: u32 },
}

/// A hand-over under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Open {
    range: Interval,
    epoch: u64,
    after: Option<crate::Id>,
    records: u64,
    retries: u32,
}

impl From<Then> for super::Then {
    fn from(then: Then) -> super::Then {
        super::Then::Acquire(then)
    }
}

impl Chord {
    pub(super) fn begin_acquire(&mut self, range: Interval, from: &Contact) -> Step {
        if !self.membership.is_member() || self.departing || from.id == self.me.id {
            return Step::default();
        }
        match self.views.first_gap(&range) {
            Some(wanted) => self.ask_seal(from, wanted, BUSY_RETRIES),
            None => Step::default(),
        }
    }

    pub(super) fn ask_seal(&mut self, holder: &Contact, wanted: Interval, retries: u32) -> Step {
        let delay = if retries == BUSY_RETRIES { 0 } else { BUSY_DELAY };
        let call = Call::new(holder, Request::Seal(wanted), Then::Sealed { wanted, retries });
        Step::ask(call.after(delay), Vec::new())
    }

    pub(super) fn resume_acquire(&mut self, then: Then, by: &Contact, outcome: Replied) -> Step {
        match (then, outcome) {
            (Then::Sealed { .. }, Ok(Reply::Sealed { range, epoch })) => {
                self.views.comes_back(&range);
                let open = Open { range, epoch, after: None, records: 0, retries: LOST_RETRIES };
                Step::ask(page(by, open), Vec::new())
            }
            (Then::Sealed { .. }, Ok(Reply::Decided(view))) => self.install(by, view, 0),
            (Then::Sealed { wanted, retries }, Ok(Reply::Refused(Refusal::Busy | Refusal::Changing)))
                if retries > 0 =>
            {
                if !self.membership.is_member() || self.departing {
                    return Step::default();
                }
                self.ask_seal(by, wanted, retries - 1)
            }
            (Then::Sealed { wanted, .. }, Ok(Reply::Refused(Refusal::NotHeld(views)))) => {
                let mut events = Vec::new();
                self.reconcile(by, &views, &mut events);
                let holder = self.views.holder_elsewhere(&wanted.lo).map(|view| &view.primary);
                if holder == Some(by) {
                    self.views.disowned(by, &wanted);
                    self.touch();
                }
                Step::done(events)
            }
            (Then::Page { open }, Ok(Reply::Page { records, last })) => {
                let after = records.last().map(|record| record.id).or(open.after);
                let open = Open { after, records: open.records + records.len() as u64, retries: LOST_RETRIES, ..open };
                if last && self.departing {
                    return Step::default();
                }
                self.deciding += u32::from(last);
                let call = if last { decide(by, open) } else { page(by, open) };
                Step { merge: records, ..Step::ask(call, Vec::new()) }
            }
            (Then::Decided { open }, Ok(Reply::Decided(view))) => {
                self.deciding = self.deciding.saturating_sub(1);
                self.install(by, view, open.records)
            }
            (Then::Page { open }, Err(_)) if open.retries > 0 => {
                Step::ask(page(by, Open { retries: open.retries - 1, ..open }).after(BUSY_DELAY), Vec::new())
            }
            (Then::Decided { open }, Err(_)) if open.retries > 0 => {
                Step::ask(decide(by, Open { retries: open.retries - 1, ..open }).after(BUSY_DELAY), Vec::new())
            }
            (Then::Acknowledged { view, records, retries }, Err(_)) if retries > 0 => {
                Step::ask(acknowledge(by, view, records, retries - 1).after(BUSY_DELAY), Vec::new())
            }
            // The holder asks by itself whether a view that it gave away has arrived.
            (Then::Acknowledged { .. }, _) => Step::default(),
            // Nothing has been decided, as far as is known here; `settle` begins again, and hears it if something was.
            (Then::Decided { .. }, _) => {
                self.deciding = self.deciding.saturating_sub(1);
                Step::default()
            }
            (Then::Sealed { .. } | Then::Page { .. }, _) => Step::default(),
        }
    }

    fn install(&mut self, from: &Contact, view: View, records: u64) -> Step {
        if view.primary != self.me || self.departing || self.membership == Membership::Left {
            return Step::default();
        }
        let range = view.range;
        let mut events = Vec::new();
        // The answer may come twice; what is held already is in a later epoch than the decision.
        if self.views.first_gap(&range) == Some(range) {
            self.views.install(view.clone());
            self.touch();
            events.push(Event::Received { range, from: from.clone(), records });
            events.push(Event::Begin(Procedure::Settle));
        }
        Step::ask(acknowledge(from, view, records, LOST_RETRIES), events)
    }
}

fn page(holder: &Contact, open: Open) -> Call {
    let request = Request::Page { range: open.range, epoch: open.epoch, after: open.after };
    Call::new(holder, request, Then::Page { open })
}

fn decide(holder: &Contact, open: Open) -> Call {
    let request = Request::Decide { range: open.range, epoch: open.epoch };
    Call::new(holder, request, Then::Decided { open })
}

fn acknowledge(holder: &Contact, view: View, records: u64, retries: u32) -> Call {
    Call::new(holder, Request::Installed { view: view.clone(), records }, Then::Acknowledged { view, records, retries })
}
