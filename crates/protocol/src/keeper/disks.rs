//! What others have told of their disks, so that an older copy of one is told from the disk itself (rule 16).
//!
//! The boot count alone tells that only where a boot has been counted since the copy was made. A copy from the very life before,
//! or from between two lives, counts the boot that its peers expect. So a node tells with its letters how many transactions its
//! disk has, how many it had when this life began, and a number by chance for the life. Its peers remember the most that they were
//! told. A disk that begins a life with less has lost what it had said it had; two lives with one count are of two disks.
//!
//! docs/decisions/0011 says what that notices and what it cannot.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::replica::Member;

/// How many members are remembered beside those of views that are kept here.
const STRANGERS: usize = 256;

/// How far a disk has come, as its node tells with its letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Age {
    /// Drawn by chance when the node starts.
    pub life: u32,
    /// How many transactions were durable, ever, when the node started.
    pub began: u64,
    /// How many are durable now, those on which the letters rest among them.
    pub durable: u64,
}

/// What is remembered of the disk of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Known {
    boot: u64,
    life: u32,
    durable: u64,
}

impl Known {
    fn is_life(&self, boot: u64, age: Age) -> bool {
        (self.boot, self.life) == (boot, age.life)
    }
}

/// The disks of others, as far as they were told of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Disks {
    known: BTreeMap<Member, Known>,
    /// Those of which it was said already that they are older copies.
    told: BTreeSet<Member>,
}

/// What comes of a letter's age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is the disk that is known, and nothing of it must be written down.
    Same,
    /// It is, in a new life: that is to be remembered.
    Newer,
    /// It is an older copy of it. Whether that is news.
    Older { is_news: bool },
}

impl Disks {
    pub(super) fn of(known: BTreeMap<Member, Known>) -> Disks {
        Disks { known, told: BTreeSet::new() }
    }

    pub(super) fn known(&self) -> &BTreeMap<Member, Known> {
        &self.known
    }

    /// A member tells how far its disk has come, in this of its lives. What it was told last needs no disk of its own here: it goes
    /// with what is written next, and a crash that takes it back only makes this node notice less.
    pub(super) fn hear(&mut self, member: Member, boot: u64, age: Age) -> Heard {
        let now = Known { boot, life: age.life, durable: age.durable };
        let Some(known) = self.known.get_mut(&member) else {
            self.known.insert(member, now);
            return Heard::Newer;
        };
        if known.is_life(boot, age) {
            // Letters overtake each other.
            known.durable = known.durable.max(age.durable);
            return Heard::Same;
        }
        if boot < known.boot {
            // A letter may also have been long on its way, from a life that is over.
            return Heard::Older { is_news: false };
        }
        if boot == known.boot || age.began < known.durable {
            return Heard::Older { is_news: self.told.insert(member) };
        }
        *known = now;
        self.told.remove(&member);
        Heard::Newer
    }

    /// Whether a letter is from the disk that is known, in the life that is known: [`Heard::Same`] is what comes of it.
    pub(super) fn is_same(&self, member: &Member, boot: u64, age: Age) -> bool {
        self.known.get(member).is_some_and(|known| known.is_life(boot, age))
    }

    /// Forgets those who are members of nothing here, if they are too many.
    pub(super) fn prune(&mut self, members: &BTreeSet<Member>) {
        if self.known.len() > STRANGERS + members.len() {
            self.known.retain(|member, _| members.contains(member));
        }
        self.told.retain(|member| self.known.contains_key(member));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Id;

    fn member(incarnation: u64) -> Member {
        Member { id: Id::of("node"), incarnation }
    }

    fn age(life: u32, began: u64, durable: u64) -> Age {
        Age { life, began, durable }
    }

    /// What is known of a disk that has told 40 transactions in its second life.
    fn disks() -> Disks {
        let mut disks = Disks::default();
        assert_eq!(disks.hear(member(1), 1, age(11, 0, 10)), Heard::Newer);
        assert_eq!(disks.hear(member(1), 2, age(12, 30, 40)), Heard::Newer);
        disks
    }

    const NEWS: Heard = Heard::Older { is_news: true };

    #[test]
    fn a_disk_that_goes_on_is_heeded_whatever_order_its_letters_come_in() {
        let mut disks = disks();
        for durable in [43, 41, 42, 40, 30] {
            assert_eq!(disks.hear(member(1), 2, age(12, 30, durable)), Heard::Same);
        }
        assert_eq!(disks.hear(member(1), 3, age(13, 42, 44)), NEWS, "43 were told");
        assert_eq!(disks.hear(member(1), 3, age(13, 43, 44)), Heard::Newer);
        assert_eq!(disks.hear(member(1), 7, age(17, 44, 45)), Heard::Newer, "lives of which nobody has heard");
    }

    #[test]
    fn a_copy_from_the_life_before_is_older_however_much_it_has_written_since() {
        for copied in [0, 10, 35, 39] {
            assert_eq!(disks().hear(member(1), 3, age(99, copied, copied + 1)), NEWS, "{copied}");
            assert_eq!(disks().hear(member(1), 3, age(99, copied, copied + 1000)), NEWS, "{copied}");
            assert_eq!(disks().hear(member(1), 9, age(99, copied, copied + 1000)), NEWS, "{copied}");
        }
    }

    #[test]
    fn a_copy_from_between_two_lives_counts_the_boot_that_is_known_and_is_another_life() {
        assert_eq!(disks().hear(member(1), 2, age(99, 30, 31)), NEWS);
        assert_eq!(disks().hear(member(1), 2, age(99, 30, 1000)), NEWS);
    }

    #[test]
    fn an_earlier_boot_is_refused_and_may_be_a_letter_that_was_long_on_its_way() {
        assert_eq!(disks().hear(member(1), 1, age(11, 0, 10)), Heard::Older { is_news: false });
    }

    #[test]
    fn it_is_told_once_and_the_disk_itself_may_come_back() {
        let mut disks = disks();
        assert_eq!(disks.hear(member(1), 3, age(99, 20, 21)), NEWS);
        assert_eq!(disks.hear(member(1), 3, age(99, 20, 22)), Heard::Older { is_news: false });
        assert_eq!(disks.hear(member(1), 3, age(13, 40, 41)), Heard::Newer);
        assert_eq!(disks.hear(member(1), 3, age(99, 20, 23)), NEWS);
    }

    #[test]
    fn another_incarnation_is_another_disk() {
        assert_eq!(disks().hear(member(2), 1, age(99, 0, 1)), Heard::Newer);
    }

    #[test]
    fn strangers_are_forgotten_where_they_are_too_many() {
        let mut disks = disks();
        for incarnation in 2..2 + STRANGERS as u64 {
            disks.hear(member(incarnation), 1, age(1, 0, 1));
        }
        let members = BTreeSet::from([member(1)]);
        disks.prune(&members);
        assert_eq!(disks.known.len(), STRANGERS + 1);
        disks.hear(member(0), 1, age(1, 0, 1));
        disks.prune(&members);
        assert_eq!(disks.known.keys().copied().collect::<BTreeSet<_>>(), members);
    }
}
