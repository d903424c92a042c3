//! Breadth first through all states, so that the first violation found is one of the shortest.

use crate::check;
use crate::run::Run;
use crate::scenario::Scenario;
use crate::table::Seen;
use crate::world::{Action, World};

/// What an exploration has found.
pub(crate) struct Found {
    pub(crate) states: usize,
    /// The steps of the longest of the shortest ways to a state.
    pub(crate) depth: usize,
    /// Whether every state has been seen.
    pub(crate) exhausted: bool,
    /// What is wrong, and how it comes about, a line for each step.
    pub(crate) violation: Option<(String, Vec<String>)>,
    pub(crate) reached: Reached,
}

/// What happened in some state: a run in which nothing happens shows nothing.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Reached {
    /// The latest epoch that somebody serves, and how many views were served at once.
    pub(crate) epoch: u64,
    pub(crate) views: usize,
    /// How many operations have ended, at most.
    pub(crate) ended: usize,
    /// How many of them while a later epoch was served.
    pub(crate) ended_later: usize,
}

impl Reached {
    fn note(&mut self, world: &World) {
        let served: Vec<u64> =
            world.nodes.iter().flat_map(|node| node.replica.leads().map(|view| view.epoch)).collect();
        let latest = served.iter().copied().max().unwrap_or(0);
        let ended = world.rest.ops.iter().filter(|op| op.ended.is_some()).count();
        self.epoch = self.epoch.max(latest);
        self.views = self.views.max(served.len());
        self.ended = self.ended.max(ended);
        if latest > 1 {
            self.ended_later = self.ended_later.max(ended);
        }
    }
}

/// How each state was first reached: the number of the state before, and which of its actions it was.
type Ways = Vec<(u32, u16)>;

pub(crate) fn explore(scenario: &Scenario, most: usize) -> Found {
    let run = &Run::new(scenario);
    let (start, first) = World::start(run);
    let mut seen = Seen::new();
    seen.insert(start.hash());
    let mut ways: Ways = vec![(u32::MAX, 0)];
    let mut frontier = vec![(0u32, start)];
    let mut depth = 0;
    let mut reached = Reached::default();
    while !frontier.is_empty() {
        let mut next = Vec::new();
        for (number, world) in std::mem::take(&mut frontier) {
            for (i, action) in world.actions(run).into_iter().enumerate() {
                let Some(after) = world.after(run, action) else { continue };
                if !seen.insert(after.hash()) {
                    continue;
                }
                ways.push((number, i as u16));
                reached.note(&after);
                let heard = after.rest.ops.iter().zip(&world.rest.ops).any(|(a, b)| a.ended != b.ended);
                let wrong = check::violation(&after).or_else(|| heard.then(|| check::incredible(&after)).flatten());
                if let Some(wrong) = wrong {
                    let mut trace = first;
                    trace.extend(retrace(run, &ways));
                    return Found {
                        states: seen.len(),
                        depth: depth + 1,
                        exhausted: false,
                        violation: Some((wrong, trace)),
                        reached,
                    };
                }
                if seen.len() >= most {
                    return Found { states: seen.len(), depth, exhausted: false, violation: None, reached };
                }
                next.push((ways.len() as u32 - 1, after));
            }
        }
        depth += usize::from(!next.is_empty());
        frontier = next;
    }
    Found { states: seen.len(), depth, exhausted: true, violation: None, reached }
}

/// The way to the state that was found last, from the beginning.
fn retrace(run: &Run, ways: &Ways) -> Vec<String> {
    let mut back = Vec::new();
    let mut at = ways.len() - 1;
    while at != 0 {
        let (before, action) = ways[at];
        back.push(action);
        at = before as usize;
    }
    let (mut world, _) = World::start(run);
    let mut lines = Vec::new();
    for choice in back.into_iter().rev() {
        let action: Action = world.actions(run)[usize::from(choice)];
        lines.push(world.describe(run, action));
        match world.after(run, action) {
            Some(after) => world = after,
            None => lines.push("(cannot happen again: the model is not deterministic)".to_owned()),
        }
    }
    lines
}
