//! What will be done to the ring: decided by the seed alone, whatever comes of it.

use std::time::Duration;

use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;

use crate::common::namespaces::Side;

/// How many members there are at first, and how few and how many there may be when a round begins.
pub(crate) const AT_FIRST: usize = 6;
const FEWEST: usize = 5;
const MOST: usize = 8;

/// What is done between two moments in which all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Round {
    /// `kill -9` of one to three at once, or of all but one; some come back while others are still dead.
    Crash,
    /// `kill -9` of all.
    CrashAll,
    /// SIGSTOP and SIGCONT.
    Pause,
    /// A wire that is cut, or loses what goes one way, or what goes to one address.
    Cut,
    /// Nodes join and leave at the same time.
    Churn,
    /// A node dies with its disk, and another one comes.
    LoseDisk,
    /// All of these in any order, each before the others are over.
    Mixture,
}

const ROUNDS: [Round; 7] =
    [Round::Crash, Round::CrashAll, Round::Pause, Round::Cut, Round::Churn, Round::LoseDisk, Round::Mixture];

/// What the network loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// All that goes from one side to the other.
    Whole,
    /// All that this side sends to the other: its questions do not arrive, nor its answers.
    From(Side),
    /// What this side sends to one address of the other.
    FromTo(Side, u8),
}

/// One thing that is done. Nodes have numbers, and none has that of another one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Kill(Vec<usize>),
    Start(usize),
    Pause(usize),
    Resume(usize),
    Cut(Cut),
    Mend,
    Join(usize),
    /// It is asked to leave, and goes when it has: that may be much later.
    Leave(usize),
    /// Its process ends and its disk is gone, at a moment in which all others keep what it keeps.
    LoseDisk(usize),
    Rest(Duration),
    /// Everything runs and is reached again, and all must be served; who was asked to leave has left.
    Heal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Dead,
    Paused,
    Leaving,
}

/// Decides step by step. It knows what it has done, and nothing of what the ring makes of it.
#[derive(Debug)]
pub(crate) struct Plan {
    chance: Pcg64Mcg,
    members: Vec<(usize, State)>,
    named: usize,
    is_cut: bool,
    /// Kinds of rounds that are still to come before any comes again.
    deck: Vec<Round>,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Plan {
        let members = (0..AT_FIRST).map(|number| (number, State::Running)).collect();
        let chance = Pcg64Mcg::seed_from_u64(seed);
        Plan { chance, members, named: AT_FIRST, is_cut: false, deck: Vec::new() }
    }

    /// Whether every kind of round has come equally often.
    pub(crate) fn is_even(&self) -> bool {
        self.deck.is_empty()
    }

    /// The next round. Its last step is that everything heals.
    pub(crate) fn round(&mut self) -> (Round, Vec<Step>) {
        if self.deck.is_empty() {
            self.deck = ROUNDS.to_vec();
            self.deck.shuffle(&mut self.chance);
        }
        let round = self.deck.pop().expect("it was filled");
        let mut steps = match round {
            Round::Crash => self.crash(),
            Round::CrashAll => vec![self.rest(100..1500), self.kill(MOST), self.rest(50..800)],
            Round::Pause => self.pause(),
            Round::Cut => vec![self.cut(), self.rest(2000..7000)],
            Round::Churn => self.churn(),
            Round::LoseDisk => {
                let gone = self.pick(State::Running).expect("all run");
                self.members.retain(|(number, _)| *number != gone);
                vec![Step::LoseDisk(gone), self.rest(500..3000), self.join()]
            }
            Round::Mixture => self.mixture(),
        };
        // There may have been nobody left to kill.
        steps.retain(|step| *step != Step::Kill(Vec::new()));
        steps.push(Step::Heal);
        self.is_cut = false;
        self.members.retain(|(_, state)| *state != State::Leaving);
        self.members.iter_mut().for_each(|(_, state)| *state = State::Running);
        (round, steps)
    }

    fn crash(&mut self) -> Vec<Step> {
        let all_but_one = self.members.len() - 1;
        let count = *[1, 1, 2, 3, all_but_one].choose(&mut self.chance).expect("there are some");
        let mut steps = vec![self.kill(count), self.rest(300..4000)];
        if let Some(dead) = self.pick(State::Dead) {
            self.set(dead, State::Running);
            steps.extend([Step::Start(dead), self.rest(50..1500)]);
        }
        steps
    }

    fn pause(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        for _ in 0..self.chance.random_range(1..=2) {
            let paused = self.pick(State::Running).expect("few are paused");
            self.set(paused, State::Paused);
            steps.extend([Step::Pause(paused), self.rest(200..4000)]);
        }
        steps
    }

    fn churn(&mut self) -> Vec<Step> {
        let (joins, leaves) = if self.members.len() > AT_FIRST { (1, 2) } else { (2, 1) };
        let mut steps: Vec<Step> = (0..leaves).map(|_| self.leave()).collect();
        steps.extend((0..joins).map(|_| self.join()));
        steps.shuffle(&mut self.chance);
        let rests: Vec<Step> = steps.iter().map(|_| self.rest(0..1500)).collect();
        steps.into_iter().zip(rests).flat_map(|(step, rest)| [step, rest]).collect()
    }

    fn mixture(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        for _ in 0..self.chance.random_range(8..=14) {
            if let Some(step) = self.anything() {
                steps.extend([step, self.rest(50..1200)]);
            }
        }
        steps
    }

    /// Any step that is possible now.
    fn anything(&mut self) -> Option<Step> {
        match self.chance.random_range(0..16) {
            0 => Some(self.kill(MOST)),
            1..4 => Some(self.kill(1)),
            4..7 => self.pick(State::Dead).map(|dead| self.becomes(dead, State::Running, Step::Start)),
            7..9 => self.pick(State::Running).map(|it| self.becomes(it, State::Paused, Step::Pause)),
            9..11 => self.pick(State::Paused).map(|it| self.becomes(it, State::Running, Step::Resume)),
            11 | 12 if self.is_cut => {
                self.is_cut = false;
                Some(Step::Mend)
            }
            11 | 12 => Some(self.cut()),
            13 if self.members.len() < MOST => Some(self.join()),
            14 if self.remaining() > FEWEST && self.pick(State::Running).is_some() => Some(self.leave()),
            _ => None,
        }
    }

    fn becomes(&mut self, number: usize, state: State, step: impl Fn(usize) -> Step) -> Step {
        self.set(number, state);
        step(number)
    }

    fn remaining(&self) -> usize {
        self.members.iter().filter(|(_, state)| *state != State::Leaving).count()
    }

    /// So many of those that run or stand still. Who leaves is left alone, except that all die.
    fn kill(&mut self, count: usize) -> Step {
        let is_all = count >= self.members.len();
        let may_die = |state: State| matches!(state, State::Running | State::Paused) || is_all && state != State::Dead;
        let mut victims: Vec<usize> =
            self.members.iter().filter(|(_, state)| may_die(*state)).map(|(number, _)| *number).collect();
        victims.shuffle(&mut self.chance);
        victims.truncate(count);
        let dies = |it: &&mut (usize, State)| victims.contains(&it.0) && it.1 != State::Leaving;
        self.members.iter_mut().filter(dies).for_each(|it| it.1 = State::Dead);
        Step::Kill(victims)
    }

    fn cut(&mut self) -> Step {
        self.is_cut = true;
        let side = if self.chance.random() { Side::Left } else { Side::Right };
        Step::Cut(match self.chance.random_range(0..4) {
            0 | 1 => Cut::Whole,
            2 => Cut::From(side),
            _ => Cut::FromTo(side, self.chance.random_range(1..=2)),
        })
    }

    fn join(&mut self) -> Step {
        let number = self.named;
        self.named += 1;
        self.members.push((number, State::Running));
        Step::Join(number)
    }

    fn leave(&mut self) -> Step {
        let number = self.pick(State::Running).expect("some run");
        self.becomes(number, State::Leaving, Step::Leave)
    }

    fn pick(&mut self, state: State) -> Option<usize> {
        let fitting: Vec<usize> = self.members.iter().filter(|it| it.1 == state).map(|it| it.0).collect();
        fitting.choose(&mut self.chance).copied()
    }

    fn set(&mut self, number: usize, state: State) {
        self.members.iter_mut().filter(|it| it.0 == number).for_each(|it| it.1 = state);
    }

    fn rest(&mut self, millis: std::ops::Range<u64>) -> Step {
        Step::Rest(Duration::from_millis(self.chance.random_range(millis)))
    }
}

#[test]
fn a_seed_decides_everything_and_all_that_can_be_done_is_done() {
    let of = |seed: u64| {
        let mut plan = Plan::new(seed);
        (0..200).map(|_| plan.round()).collect::<Vec<_>>()
    };
    assert_eq!(of(7), of(7));
    assert_ne!(of(7), of(8));
    let mut kinds: Vec<Round> = of(7)[..ROUNDS.len()].iter().map(|(round, _)| *round).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ROUNDS, "each kind once before any comes again");
    let steps: Vec<Step> = of(7).into_iter().flat_map(|(_, steps)| steps).collect();
    let has = |is_it: fn(&Step) -> bool| steps.iter().any(is_it);
    assert!(has(|it| matches!(it, Step::Start(_))) && has(|it| matches!(it, Step::Resume(_))));
    assert!(has(|it| *it == Step::Mend) && has(|it| *it == Step::Cut(Cut::FromTo(Side::Right, 2))));
    assert!(has(|it| *it == Step::Cut(Cut::From(Side::Left))) && has(|it| *it == Step::Cut(Cut::Whole)));
    assert!(has(|it| matches!(it, Step::Kill(victims) if victims.len() >= AT_FIRST)));
    // A ring that shrinks or grows without end tests less and less.
    let mut members = AT_FIRST;
    for step in steps {
        match step {
            Step::Join(_) => members += 1,
            Step::Leave(_) | Step::LoseDisk(_) => members -= 1,
            Step::Heal => assert!((FEWEST..=MOST).contains(&members), "{members}"),
            _ => {}
        }
    }
}
