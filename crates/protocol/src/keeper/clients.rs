//! Operations that wait for a write of the same register.
//!
//! While the outcome of a write is open, nobody may be told what its register holds (rule 12 of the replicas). Whoever asks
//! meanwhile waits here, in the order of arrival, and not in a loop of refusals.

use std::collections::{BTreeMap, VecDeque};

use super::{Keeper, Step};
use crate::replica::{self, Answer, Operation, Refusal, Store, Token};
use crate::{Id, Time};

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Clients {
    /// Writes under way.
    writes: BTreeMap<Token, Id>,
    /// What waits for them.
    parked: BTreeMap<Id, VecDeque<(Token, Operation)>>,
    count: usize,
}

impl Keeper {
    /// Does an operation, or lets it wait; whether it is still open.
    pub(super) fn try_operation<S: Store>(
        &mut self,
        store: &mut S,
        now: Time,
        token: Token,
        operation: Operation,
        step: &mut Step,
    ) -> bool {
        let more = self.replica.operate(store, now, token, operation.clone());
        self.began(token, operation, more, step)
    }

    /// What has come of an operation that was begun: one that has to wait for a write is put in line. Whether it is still open.
    pub(super) fn began(&mut self, token: Token, operation: Operation, more: replica::Step, step: &mut Step) -> bool {
        let id = *operation.id();
        let is_pending = more.answers.contains(&(token, Answer::Refused(Refusal::Pending)));
        if !is_pending {
            let is_open = more.answers.iter().all(|(answered, _)| *answered != token);
            if is_open && matches!(operation, Operation::Write(_)) {
                self.clients.writes.insert(token, id);
            }
            self.take(more, step);
            return is_open;
        }
        if self.clients.count >= self.settings.most_parked {
            step.answers.push((token, Answer::Refused(Refusal::Busy)));
            return false;
        }
        self.clients.count += 1;
        self.clients.parked.entry(id).or_default().push_back((token, operation));
        true
    }

    /// Whether nothing waits for a write.
    pub(super) fn none_is_parked(&self) -> bool {
        self.clients.count == 0
    }

    /// These operations have ended, and nothing waited for them.
    pub(super) fn ended(&mut self, step: &Step) {
        for (token, _) in &step.answers {
            self.clients.writes.remove(token);
        }
    }

    /// Writes have ended in this step: what waited for them goes on, until the next write of the register is under way.
    pub(super) fn go_on<S: Store>(&mut self, store: &mut S, now: Time, step: &mut Step) {
        let mut seen = 0;
        while let Some((token, _)) = step.answers.get(seen) {
            seen += 1;
            let Some(id) = self.clients.writes.remove(token) else { continue };
            let mut waiting = self.clients.parked.remove(&id).unwrap_or_default();
            self.clients.count -= waiting.len();
            while let Some((token, operation)) = waiting.pop_front() {
                let is_write = matches!(operation, Operation::Write(_));
                let is_open = self.try_operation(store, now, token, operation, step);
                if is_write && is_open {
                    break;
                }
            }
            if !waiting.is_empty() {
                self.clients.count += waiting.len();
                self.clients.parked.entry(id).or_default().extend(waiting);
            }
        }
    }
}
