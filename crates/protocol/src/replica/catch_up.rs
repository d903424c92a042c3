//! What members lack is sent again, to each as quickly as it keeps it.
//!
//! A member may lack thousands of writes: it is dead, or was and is back, or is sent the content of the view. With each beat it is
//! sent the oldest of them that have not been answered for a while, a window full. Each answer brings one more; so a dead member
//! costs a window with each beat, and one that is back catches up at its own pace.

use super::lead::{Lead, Place, Unstable};
use super::tick::AGAIN;
use super::{Event, Member, Name, Snapshot, Store, Turn};

/// How many writes a member is sent again at once, and how many bytes, but one write in any case.
const WINDOW: (usize, usize) = (256, 1 << 20);

impl<S: Store> Turn<'_, S> {
    /// Sends again what members have not answered, and asks whether the view stands: the beat by which members hear the primary.
    pub(super) fn lead_again(&mut self, name: &Name) {
        self.tell_of_lag(name);
        self.collect(name);
        let (now, pause) = (self.now, self.replica.settings.suspicion / AGAIN);
        let Some(members) = self.held(name).map(|held| held.view.members.clone()) else { return };
        let Some(lead) = self.replica.leads.get_mut(name) else { return };
        let mut due: Vec<(Member, u64)> = Vec::new();
        for (place, member) in members.iter().enumerate() {
            let window = lead.window(Place(place));
            let late = |sequence: &u64| lead.tail.get(sequence).is_some_and(|write| now.since(write.asked) >= pause);
            let late: Vec<u64> = window.iter().copied().filter(late).collect();
            if let Some(last) = window.last().filter(|_| !late.is_empty()) {
                lead.sent_again.insert(*member, *last);
            }
            due.extend(late.into_iter().map(|sequence| (*member, sequence)));
        }
        for (_, sequence) in &due {
            if let Some(write) = lead.tail.get_mut(sequence) {
                write.asked = now;
            }
        }
        for (member, sequence) in due {
            self.send_to(name, member, sequence);
        }
        self.ask_to_confirm_again(*name);
    }

    /// Names those because of whom soon no more writes can be taken. Who is being sent the content, and keeps what it is sent
    /// besides, is waited for: to begin anew would be to send it all again.
    fn tell_of_lag(&mut self, name: &Name) {
        let settings = &self.replica.settings;
        let Some(lead) = self.replica.leads.get(name).filter(|lead| lead.is_half_full(settings)) else { return };
        let Some((_, oldest)) = lead.tail.first_key_value() else { return };
        let Some(held) = self.held(name) else { return };
        let has = oldest.at.and(oldest.kept);
        let members = held.view.members.iter().enumerate();
        let missing: Vec<Member> =
            members.filter(|(place, _)| !has.has(Place(*place))).map(|(_, member)| *member).collect();
        let comes_along = |member: &Member| {
            let kept = lead.fetching.get(member);
            kept.is_some_and(|kept| self.now.since(*kept) < 2 * settings.suspicion)
        };
        if !missing.iter().all(comes_along) {
            self.step.events.push(Event::Lagging(*name, missing));
        }
    }
}

impl<S: Snapshot> Turn<'_, S> {
    /// Who has kept one of what it was sent again is sent the next one, unless that was sent a moment ago anyway.
    pub(super) fn send_next(&mut self, name: &Name, member: Member, place: Place, kept: u64) {
        let (now, pause) = (self.now, self.replica.settings.suspicion / AGAIN);
        let Some(lead) = self.replica.leads.get_mut(name) else { return };
        let Some(last) = lead.sent_again.get(&member).copied().filter(|last| kept <= *last) else { return };
        let mut later = lead.tail.range_mut(last + 1..).filter(|(_, write)| write.is_lacking(place));
        let Some((sequence, write)) = later.next() else {
            lead.sent_again.remove(&member);
            return;
        };
        let (sequence, is_late) = (*sequence, now.since(write.asked) >= pause);
        if is_late {
            write.asked = now;
        }
        lead.sent_again.insert(member, sequence);
        if is_late {
            self.send_to(name, member, sequence);
        }
    }
}

impl Lead {
    /// The oldest writes that a member lacks.
    fn window(&self, place: Place) -> Vec<u64> {
        let (mut window, mut room) = (Vec::new(), WINDOW.1);
        let lacking = |(_, write): &(&u64, &Unstable)| write.is_lacking(place);
        for (sequence, write) in self.tail.iter().filter(lacking).take(WINDOW.0) {
            let weight = write.record.weight();
            if !window.is_empty() && weight > room {
                break;
            }
            room = room.saturating_sub(weight);
            window.push(*sequence);
        }
        window
    }
}
