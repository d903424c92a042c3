//! The checker for long histories and the search agree on random short ones, sound and broken.
//!
//! Clients talk to one register. Each step lets one of them ask, lets its request take effect, or tells it the answer; requests
//! may be given up, take effect late or never, and be asked again under their id. Then the register is broken in one way.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::{BTreeMap, BTreeSet};

use chordal_protocol::{Id, RequestId, Version};
use chordal_sim::history::{Digest, Kind, Operation, Order, Outcome, check, search};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// What is wrong with the register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Broken {
    /// A get may be told of an earlier state.
    StaleRead,
    /// A write may be acknowledged and not done.
    LostWrite,
    /// A write that is asked again may be done again.
    DoubleApply,
    /// A write may be done again by itself, later.
    LateEcho,
    /// A condition may be taken to hold.
    Unconditional,
    /// A condition may be taken to have failed, and the answer tells what there is.
    FailsAnyway,
    /// The state before a delete may come back.
    Resurrection,
    /// A get may be told of nothing.
    FalseAbsence,
    /// A refused write may be done.
    RefusedIsDone,
    /// A write may be done at a version that is not greater than the last one.
    VersionReused,
    /// A get may be told a wrong version.
    WrongVersion,
    /// An answer may come before the effect.
    EarlyAnswer,
    /// A delete may be done where nothing is.
    DeletesNothing,
}

const ALL: [Broken; 13] = [
    Broken::StaleRead,
    Broken::LostWrite,
    Broken::DoubleApply,
    Broken::LateEcho,
    Broken::Unconditional,
    Broken::FailsAnyway,
    Broken::Resurrection,
    Broken::FalseAbsence,
    Broken::RefusedIsDone,
    Broken::VersionReused,
    Broken::WrongVersion,
    Broken::EarlyAnswer,
    Broken::DeletesNothing,
];

type State = Option<(Version, Digest)>;

#[derive(Debug, Clone, Copy)]
struct Asked {
    kind: Kind,
    request: RequestId,
    invoked: u64,
    effect: Option<Outcome>,
}

struct World {
    chance: Pcg64Mcg,
    now: u64,
    broken: Option<Broken>,
    harmed: bool,
    version: Version,
    state: State,
    past: Vec<State>,
    outcomes: BTreeMap<RequestId, Version>,
    /// Given up, and perhaps still under way.
    late: Vec<(Kind, RequestId)>,
    /// Versions that somebody was told of.
    told: Vec<Version>,
    requests: u128,
    history: Vec<Operation>,
}

impl World {
    fn play(seed: u64, broken: Option<Broken>, count: usize) -> World {
        let mut world = World {
            chance: Pcg64Mcg::seed_from_u64(seed),
            now: 10,
            broken,
            harmed: false,
            version: Version { epoch: 1, sequence: 0 },
            state: None,
            past: vec![None],
            outcomes: BTreeMap::new(),
            late: Vec::new(),
            told: vec![Version { epoch: 1, sequence: 1 }],
            requests: 0,
            history: Vec::new(),
        };
        let mut clients: Vec<Option<Asked>> = vec![None; world.chance.random_range(1..4)];
        let mut left = count;
        while left > 0 || clients.iter().any(Option::is_some) {
            world.now += world.chance.random_range(0..3);
            if world.chance.random_range(0..4) == 0 {
                world.something_late();
            }
            let at = world.chance.random_range(0..clients.len());
            clients[at] = match clients[at] {
                None if left == 0 => None,
                None => {
                    left -= 1;
                    Some(world.ask())
                }
                Some(asked) => world.go_on(at, asked),
            };
        }
        let mut shuffled: Vec<(u64, Operation)> =
            world.history.drain(..).map(|operation| (world.chance.random(), operation)).collect();
        shuffled.sort_by_key(|(place, _)| *place);
        world.history.extend(shuffled.into_iter().map(|(_, operation)| operation));
        world
    }

    fn harms(&mut self, broken: Broken) -> bool {
        let harms = self.broken == Some(broken) && self.chance.random_bool(0.5);
        self.harmed |= harms;
        harms
    }

    fn ask(&mut self) -> Asked {
        let invoked = self.now;
        if !self.late.is_empty() && self.chance.random_range(0..4) == 0 {
            let (kind, request) = self.late[self.chance.random_range(0..self.late.len())];
            return Asked { kind, request, invoked, effect: None };
        }
        self.requests += 1;
        let value = Digest(self.requests as u64);
        let told = self.told[self.chance.random_range(0..self.told.len())];
        let latest = *self.told.last().unwrap();
        let kind = match self.chance.random_range(0..10) {
            0..=3 => Kind::Get,
            4..=5 => Kind::Put(value),
            6..=7 => Kind::Delete,
            8 => Kind::Cas { expected: None, value },
            _ => Kind::Cas { expected: Some(if self.chance.random_bool(0.8) { latest } else { told }), value },
        };
        Asked { kind, request: RequestId(self.requests), invoked, effect: None }
    }

    fn go_on(&mut self, client: usize, asked: Asked) -> Option<Asked> {
        let chance = self.chance.random_range(0..100);
        let Some(outcome) = asked.effect else {
            if chance < 12 {
                // Nobody waits any more, and it is not done yet.
                self.late.push((asked.kind, asked.request));
                self.ends(client, asked, Outcome::Unknown);
                return None;
            }
            if chance < 17 {
                if asked.kind != Kind::Get && self.harms(Broken::RefusedIsDone) {
                    self.effect(asked.kind, asked.request);
                }
                self.ends(client, asked, Outcome::Refused);
                return None;
            }
            if matches!(asked.kind, Kind::Put(_)) && self.harms(Broken::EarlyAnswer) {
                let outcome = Outcome::Done(self.next_version());
                self.late.push((asked.kind, asked.request));
                self.ends(client, asked, outcome);
                return None;
            }
            let effect = Some(self.effect(asked.kind, asked.request));
            return Some(Asked { effect, ..asked });
        };
        // The answer may be lost.
        if chance < 15 {
            self.late.push((asked.kind, asked.request));
            self.ends(client, asked, Outcome::Unknown);
        } else {
            self.ends(client, asked, outcome);
        }
        None
    }

    fn ends(&mut self, client: usize, asked: Asked, outcome: Outcome) {
        match outcome {
            Outcome::Read(Some((version, _))) | Outcome::Done(version) | Outcome::ConditionFailed(Some(version)) => {
                self.told.push(version);
            }
            _ => {}
        }
        let gives_up = outcome != Outcome::Unknown || self.chance.random_bool(0.5);
        let key = Id::of("key");
        let Asked { kind, request, invoked, .. } = asked;
        let returned = gives_up.then_some(self.now);
        self.history.push(Operation { client: client as u64, key, kind, request, invoked, returned, outcome });
    }

    fn something_late(&mut self) {
        if !self.late.is_empty() {
            let (kind, request) = self.late[self.chance.random_range(0..self.late.len())];
            self.effect(kind, request);
        }
        let done: Vec<RequestId> = self.outcomes.keys().copied().collect();
        if !done.is_empty() && self.harms(Broken::LateEcho) {
            let request = done[self.chance.random_range(0..done.len())];
            let of = self.history.iter().find(|operation| operation.request == request).map(|operation| operation.kind);
            if let Some(kind) = of {
                self.outcomes.remove(&request);
                self.effect(kind, request);
            }
        }
        if self.state.is_none() && self.harms(Broken::Resurrection) {
            let of = self.chance.random_range(0..self.past.len());
            self.state = self.past[of];
        }
    }

    fn next_version(&mut self) -> Version {
        match self.chance.random_range(0..6) {
            0 => self.version = Version { epoch: self.version.epoch + 1, sequence: 1 },
            1 => self.version.sequence += 2,
            _ => self.version.sequence += 1,
        }
        self.version
    }

    fn effect(&mut self, kind: Kind, request: RequestId) -> Outcome {
        let version = self.state.map(|(version, _)| version);
        if kind == Kind::Get {
            return Outcome::Read(self.read());
        }
        if let Some(version) = self.outcomes.get(&request).copied()
            && !self.harms(Broken::DoubleApply)
        {
            return Outcome::Done(version);
        }
        let holds = match kind {
            Kind::Cas { expected, .. } => version == expected,
            Kind::Delete => version.is_some(),
            Kind::Put(_) | Kind::Get => true,
        };
        let ignores = match kind {
            Kind::Cas { .. } => !holds && self.harms(Broken::Unconditional),
            Kind::Delete => !holds && self.harms(Broken::DeletesNothing),
            _ => false,
        };
        if !holds && !ignores {
            return Outcome::ConditionFailed(version);
        }
        if matches!(kind, Kind::Cas { .. }) && self.harms(Broken::FailsAnyway) {
            return Outcome::ConditionFailed(version);
        }
        let reuses = self.harms(Broken::VersionReused);
        let version = if reuses { self.version } else { self.next_version() };
        self.outcomes.insert(request, version);
        if !self.harms(Broken::LostWrite) {
            self.state = kind.value().map(|value| (version, value));
            self.past.push(self.state);
        }
        Outcome::Done(version)
    }

    fn read(&mut self) -> State {
        if self.harms(Broken::StaleRead) {
            return self.past[self.chance.random_range(0..self.past.len())];
        }
        if self.harms(Broken::FalseAbsence) {
            return None;
        }
        if self.harms(Broken::WrongVersion) {
            return self.state.map(|(version, value)| (Version { sequence: version.sequence + 1, ..version }, value));
        }
        self.state
    }
}

/// What the three say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Verdicts {
    check: bool,
    lenient: bool,
    by_version: bool,
    any: bool,
}

fn judge(history: &[Operation]) -> Verdicts {
    let checked = check(history);
    Verdicts {
        check: checked.is_ok(),
        lenient: checked.is_ok_and(|checked| checked.lenient > 0),
        by_version: search(history, Order::ByVersion),
        any: search(history, Order::Any),
    }
}

/// What must be so whatever the history.
fn agree(history: &[Operation]) -> Result<Verdicts, String> {
    let verdicts = judge(history);
    let told: Vec<String> = history.iter().map(ToString::to_string).collect();
    let told = || format!("{verdicts:?} {:?}\n{}", check(history).err().map(|it| it.to_string()), told.join("\n"));
    if verdicts.by_version && !verdicts.check {
        return Err(format!("refused though sound: {}", told()));
    }
    if verdicts.check && !verdicts.lenient && !verdicts.by_version {
        return Err(format!("accepted though broken: {}", told()));
    }
    if verdicts.by_version && !verdicts.any {
        return Err(format!("the search has lost its way: {}", told()));
    }
    Ok(verdicts)
}

#[test]
fn what_a_register_has_done_is_accepted() {
    let (mut lenient, mut supposed, mut operations) = (0, 0, 0);
    for seed in 0..20_000 {
        let world = World::play(seed, None, 3 + seed as usize % 11);
        let verdicts = agree(&world.history).unwrap_or_else(|text| panic!("seed {seed}: {text}"));
        assert!(verdicts.check && verdicts.by_version && verdicts.any, "seed {seed}: {:?}", check(&world.history));
        lenient += u32::from(verdicts.lenient);
        operations += world.history.len();
        let known: Vec<Operation> = world.history.iter().filter(|it| it.outcome != Outcome::Unknown).copied().collect();
        supposed += u32::from(check(&known).is_err());
    }
    assert!(operations > 100_000, "{operations} operations");
    assert!(supposed > 4_000, "only {supposed} histories needed a write of unknown outcome");
    assert!((100..3_000).contains(&lenient), "{lenient} verdicts were lenient");
}

#[test]
fn what_a_broken_register_has_done_is_judged_as_by_search() {
    for broken in ALL {
        let (mut refused, mut accepted, mut by_values, mut harmless, mut lenient) = (0, 0, 0, 0, 0);
        let mut rules = BTreeSet::new();
        for seed in 0..6_000 {
            let world = World::play(seed, Some(broken), 3 + seed as usize % 10);
            if !world.harmed {
                harmless += 1;
                continue;
            }
            let verdicts = agree(&world.history).unwrap_or_else(|text| panic!("{broken:?}, seed {seed}: {text}"));
            refused += u32::from(!verdicts.check);
            accepted += u32::from(verdicts.check);
            by_values += u32::from(!verdicts.any);
            lenient += u32::from(verdicts.check && verdicts.lenient && !verdicts.by_version);
            rules.extend(check(&world.history).err().map(|violation| violation.rule));
        }
        println!(
            "{broken:?}: {refused} refused and {accepted} accepted, {lenient} of them in lenience; \
             {by_values} refused for their values; {harmless} unharmed: {rules:?}"
        );
        assert!(refused > 100, "{broken:?} was refused {refused} times");
        assert!(accepted > 100, "{broken:?} was accepted {accepted} times");
        // Wrong versions of right values are for the order of versions only.
        let versions = matches!(broken, Broken::WrongVersion | Broken::VersionReused);
        assert!(by_values > 100 || versions, "{broken:?} was refused {by_values} times by its values");
        assert!(lenient * 50 < refused, "{broken:?}: {lenient} were accepted in lenience, {refused} refused");
    }
}

/// A history in which any answer may stand, to reach what no register would do.
fn any_history() -> impl Strategy<Value = Vec<Operation>> {
    prop::collection::vec(((0..14u8, 0..6u8), 0..20u64, 0..8u64, 0..6u8, 0..8u8), 1..9).prop_map(|drawn| {
        let version = |n: u8| Version { epoch: 1 + u64::from(n / 4), sequence: 1 + u64::from(n % 4) };
        let mut history: Vec<Operation> = Vec::new();
        for (at, ((kind, seen), invoked, lasts, made, end)) in drawn.into_iter().enumerate() {
            let value = Digest(at as u64);
            let seen_value = Digest(u64::from(seen));
            let swap = |expected| Kind::Cas { expected, value };
            let (mut kind, mut outcome) = match kind {
                0..=2 => (Kind::Get, Outcome::Read(Some((version(made), seen_value)))),
                3 => (Kind::Get, Outcome::Read(None)),
                4..=6 => (Kind::Put(value), Outcome::Done(version(made))),
                7 => (Kind::Delete, Outcome::Done(version(made))),
                8 => (Kind::Delete, Outcome::ConditionFailed(None)),
                9 => (swap(None), Outcome::Done(version(made))),
                10 => (swap(Some(version(seen))), Outcome::Done(version(made))),
                11 => (swap(Some(version(seen))), Outcome::ConditionFailed(None)),
                12 => (swap(None), Outcome::ConditionFailed(Some(version(made)))),
                _ => (swap(Some(version(seen))), Outcome::ConditionFailed(Some(version(made)))),
            };
            let mut request = RequestId(at as u128);
            // Another attempt of what was asked before.
            if let Some(before) = history.last().filter(|before| end == 7 && before.kind != Kind::Get) {
                (kind, request, outcome) = (before.kind, before.request, Outcome::Done(version(made)));
            }
            let outcome = if end < 2 && kind != Kind::Get { Outcome::Unknown } else { outcome };
            let (key, returned) = (Id::of("key"), Some(invoked + lasts));
            history.push(Operation { client: at as u64, key, kind, request, invoked, returned, outcome });
        }
        history
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn check_and_search_agree_on_any_history(history in any_history()) {
        agree(&history).map_err(TestCaseError::fail)?;
    }
}
