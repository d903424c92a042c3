//! What must be so in every state.

use chordal_protocol::Id;
use chordal_protocol::replica::{Area, Label, Member, Name, Snapshot, Value, View};

use crate::history::{Ended, Want, is_linearizable};
use crate::world::World;

/// What is wrong with this state, if anything is.
pub(crate) fn violation(world: &World) -> Option<String> {
    if let Some((op, first, second)) = world.rest.done_twice {
        return Some(format!("operation {op} was done twice, as {first} and as {second}"));
    }
    two_decisions(world).or_else(|| scarce(world)).or_else(|| {
        let active = active(world);
        overlap(&active).or_else(|| lost(world, &active))
    })
}

/// As far as anybody knows, a view decides once.
fn two_decisions(world: &World) -> Option<String> {
    let mut known: Vec<(Name, &Value)> = Vec::new();
    for (name, value) in world.nodes.iter().flat_map(|node| &node.replica.durable().decided) {
        match known.iter().find(|(other, _)| other == name) {
            None => known.push((*name, value)),
            Some((_, other)) if other.successors != value.successors => {
                return Some(format!("two decisions of {name:?}: {:?} and {:?}", other.successors, value.successors));
            }
            Some(_) => {}
        }
    }
    None
}

/// What follows a decision has its content at a majority of its members, staged or installed, unless it is over itself: the
/// loss of a minority never costs a range.
fn scarce(world: &World) -> Option<String> {
    if world.nodes.iter().any(|node| node.replica.me().incarnation > 1) {
        return None;
    }
    let decided = world.nodes.iter().flat_map(|node| &node.replica.durable().decided);
    // An absorbed view has the decision, and not the staged content.
    for (parent, value) in decided.filter(|(parent, value)| value.by == **parent) {
        for view in &value.successors {
            let name = view.name();
            let label = Label { name: *parent, origin: value.origin, range: view.range };
            let has = |member: &&Member| {
                world.nodes.iter().map(|node| node.replica.durable()).any(|durable| {
                    durable.me == **member
                        && (durable.staged.get(&label).is_some_and(|staged| staged.is_complete)
                            || durable.held.get(&name).is_some_and(|held| held.installed)
                            || durable.over.iter().any(|over| name.is_over_with(over))
                            || durable.held.keys().any(|later| name.is_before(later)))
                })
            };
            if view.members.iter().filter(has).count() < view.majority() {
                return Some(format!("{name:?} was decided, and is neither staged nor installed at a majority"));
            }
        }
    }
    None
}

/// The views that could acknowledge something now: their primary serves, and a majority has installed and not sealed them.
fn active(world: &World) -> Vec<(usize, View)> {
    let mut active = Vec::new();
    for (n, node) in world.nodes.iter().enumerate() {
        for view in node.replica.leads() {
            let name = view.name();
            let held = |member: &&Member| {
                world.nodes.iter().any(|node| {
                    let durable = node.replica.durable();
                    durable.me == **member
                        && durable.held.get(&name).is_some_and(|held| held.installed && held.promised.is_none())
                })
            };
            if view.members.iter().filter(held).count() >= view.majority() {
                active.push((n, view.clone()));
            }
        }
    }
    active
}

/// For no id there are two views that could acknowledge something.
fn overlap(active: &[(usize, View)]) -> Option<String> {
    for (i, (_, one)) in active.iter().enumerate() {
        if let Some((_, two)) = active[..i].iter().find(|(_, two)| one.range.overlaps(&two.range)) {
            return Some(format!("two views serve the same ids: {one:?} and {two:?}"));
        }
    }
    None
}

/// Whoever serves an id has the last acknowledged write of it, or a later one.
fn lost(world: &World, active: &[(usize, View)]) -> Option<String> {
    for (n, view) in active {
        let store = &world.nodes[*n].store;
        for (i, op) in world.rest.ops.iter().enumerate().filter(|(_, op)| view.range.contains(&op.id)) {
            let Some((_, Ended::Done(version))) = op.ended else { continue };
            let deleted =
                |id: &Id| world.rest.ops.iter().any(|op| op.id == *id && op.want == Want::Delete && op.begun.is_some());
            match store.record(&Area::View(view.name()), &op.id) {
                Some(record) if record.version < version => {
                    return Some(format!(
                        "operation {i} was acknowledged as {version}, and {n} serves {}",
                        record.version
                    ));
                }
                None if !deleted(&op.id) => {
                    return Some(format!("operation {i} was acknowledged as {version}, and {n} serves nothing"));
                }
                _ => {}
            }
        }
    }
    None
}

/// Whether what clients have heard fits a register; looked at when somebody has heard something.
pub(crate) fn incredible(world: &World) -> Option<String> {
    let ops = &world.rest.ops;
    let broken = ops.iter().map(|op| op.id).find(|id| !is_linearizable(ops, id))?;
    let told: Vec<String> =
        ops.iter().enumerate().map(|(i, op)| format!("{i}: {:?} {:?}..{:?}", op.want, op.begun, op.ended)).collect();
    Some(format!("what was told about {broken:?} fits no register: {}", told.join("; ")))
}
