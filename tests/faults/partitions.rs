//! A wire that is cut: both sides become rings of their own, or a node is isolated, and all is one again without a hand.

use std::io::Write as _;
use std::time::Duration;

use serde_json::Value;

use crate::clients::{Clients, Stored, all_come_back, fill};
use crate::common::{Lab, eventually, get, get_json};
use crate::namespaces::{Namespaces, Side};

/// How long a half may take to be a ring of its own, and two to be one again. Each node tries one remembered contact every
/// eighth round, which is every four to five seconds, and the contact may be of its own side.
const PATIENCE: Duration = Duration::from_secs(60);

/// The namespaces, or a word on standard error that nobody can miss: the output of a test that succeeds is not shown.
fn namespaces(test: &str) -> Option<Namespaces> {
    match Namespaces::new() {
        Ok(namespaces) => Some(namespaces),
        Err(reason) => {
            let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: no networks of its own for the test: {reason}");
            None
        }
    }
}

/// A ring with so many nodes on each side, ideal, and as each side sees it.
struct Split {
    left: Lab,
    right: Lab,
    namespaces: Namespaces,
}

impl Split {
    /// Nodes that stand at these places, two or more of them on the left.
    fn ring(namespaces: Namespaces, on_the_left: &[&str], on_the_right: &[&str]) -> Split {
        let left = Lab::empty();
        let right = left.beside();
        let split = Split { left, right, namespaces };
        split.on(Side::Left, |lab| {
            let (first, more) = on_the_left.split_at(2);
            lab.ok(&["boot", "--lab", "--host", &Side::Left.host(1), "--id", &first.join(",")]);
            for id in more {
                lab.ok(&["add", "--lab", "--host", &Side::Left.host(2), "--id", id]);
            }
        });
        let contact = split.left.addrs()[0].clone();
        for (number, id) in on_the_right.iter().enumerate() {
            // Names are for people, but shall tell the nodes of both sides apart in logs.
            let (host, name) = (Side::Right.host(1 + (number % 2) as u8), format!("right-{number}"));
            let place = ["--lab", "--host", &host, "--name", &name, "--id", id];
            split.on(Side::Right, |lab| lab.ok(&[&["join", &contact][..], &place].concat()));
        }
        split.is_one_ring(on_the_left.len() + on_the_right.len());
        split
    }

    fn lab(&self, side: Side) -> &Lab {
        match side {
            Side::Left => &self.left,
            Side::Right => &self.right,
        }
    }

    /// Does this on one side, where only that side can be reached while the wire is cut.
    fn on<T: Send>(&self, side: Side, act: impl FnOnce(&Lab) -> T + Send) -> T {
        self.namespaces.inside(side, || act(self.lab(side)))
    }

    /// Waits until the doctor is content on this side with a ring of so many nodes.
    #[track_caller]
    fn is_ring_of(&self, side: Side, nodes: usize) {
        let mut last = String::new();
        let content = || {
            let doctor = self.on(side, |lab| lab.tasks(&["--json", "doctor", "--only", "ring", "--wait", "5s"]));
            let json: Value = serde_json::from_str(&doctor.stdout).unwrap_or_default();
            last = format!("{doctor:?}");
            (json["ok"] == true && json["nodes"] == nodes).then_some(())
        };
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(&format!("{side:?} sees an ideal ring of {nodes}"), PATIENCE, content);
        }));
        if let Err(panic) = found {
            println!("the doctor said last: {last}\n{}\n{}", self.left.logs(), self.right.logs());
            std::panic::resume_unwind(panic);
        }
    }

    #[track_caller]
    fn is_one_ring(&self, nodes: usize) {
        self.is_ring_of(Side::Left, nodes);
        self.is_ring_of(Side::Right, nodes);
    }

    fn addrs(&self, side: Side) -> Vec<String> {
        self.lab(side).addrs()
    }
}

/// What both halves have stored, before the cut and while it lasted.
struct Written {
    split: Split,
    /// Before the cut.
    before: Vec<Stored>,
    /// During the cut, by a half in which the node stands that keeps it in the whole ring.
    at_home: Vec<Stored>,
    /// During the cut, by a half that had taken over from a node on the other side.
    taken_over: Vec<Stored>,
}

/// Cuts a ring into halves, has each of them store what it can, and mends the wire. The nodes of both sides stand between
/// each other, so that each of them loses its successor and its predecessor.
fn cut_and_mended(namespaces: Namespaces) -> Written {
    let split = Split::ring(namespaces, &["00", "40", "80", "c0"], &["20", "60", "a0", "e0"]);
    let (left, right) = (split.addrs(Side::Left), split.addrs(Side::Right));
    let before = split.on(Side::Left, |lab| fill(&lab.addrs(), 80, "resting", "before"));
    let sides = [(Side::Left, "left"), (Side::Right, "right")];
    let homes = sides.map(|(side, called)| split.on(side, |lab| fill(&lab.addrs(), 20, called, "before")));

    // To each half the other's nodes are as good as dead: what only they keep may be not found there.
    let clients_of = |side, hurt: &[String]| split.on(side, |lab| Clients::start(&before, &lab.addrs(), hurt));
    let clients = [clients_of(Side::Left, &right), clients_of(Side::Right, &left)];
    split.namespaces.cut();
    split.is_ring_of(Side::Left, 4);
    split.is_ring_of(Side::Right, 4);
    for tally in clients.map(Clients::end) {
        assert!(tally.right > 0 && tally.absent + tally.unavailable > 0, "the wire was cut: {tally:?}");
    }
    let written = sides.map(|(side, called)| split.on(side, |lab| fill_when_it_can(&lab.addrs(), 20, called)));
    split.namespaces.mend();
    split.is_one_ring(8);

    let (homes, written) = (homes.into_iter().flatten(), written.into_iter().flatten());
    let (at_home, taken_over) = homes.zip(written).partition::<Vec<_>, _>(|(home, now)| home.owner == now.owner);
    let now = |pairs: Vec<(Stored, Stored)>| pairs.into_iter().map(|(_, now)| now).collect::<Vec<_>>();
    let (at_home, taken_over) = (now(at_home), now(taken_over));
    assert!(!at_home.is_empty() && !taken_over.is_empty(), "both kinds are tested");
    Written { split, before, at_home, taken_over }
}

/// The same as [`fill`], once every part of the half has somebody who serves it.
fn fill_when_it_can(through: &[String], values: usize, called: &str) -> Vec<Stored> {
    for addr in through {
        eventually(&format!("{addr} serves all that falls to it"), PATIENCE, || {
            (get(addr, "/health/ready").status == 200).then_some(())
        });
    }
    fill(through, values, called, "during the cut")
}

#[test]
fn two_halves_become_rings_of_their_own_and_one_ring_again_content_included() {
    let Some(namespaces) = namespaces("a partition that heals") else { return };
    let Written { split, before, at_home, .. } = cut_and_mended(namespaces);
    let all: Vec<Stored> = before.into_iter().chain(at_home).collect();
    split.on(Side::Left, |lab| all_come_back(&all, &lab.addrs()));
    split.on(Side::Right, |lab| all_come_back(&all, &lab.addrs()));
}

/// A range that was taken by force is far ahead of what its holder, who was only cut off, still serves; so that one yields, and
/// fetches what was written meanwhile.
#[test]
fn what_a_half_has_written_where_it_had_taken_over_is_kept() {
    let Some(namespaces) = namespaces("writes of both halves of a partition") else { return };
    let Written { split, taken_over, .. } = cut_and_mended(namespaces);
    split.on(Side::Left, |lab| all_come_back(&taken_over, &lab.addrs()));
}

#[test]
fn a_node_that_is_cut_off_says_so_and_comes_back_with_what_it_keeps() {
    let Some(namespaces) = namespaces("a node that is cut off") else { return };
    let split = Split::ring(namespaces, &["00", "33", "66", "99", "cc"], &["80"]);
    let alone = split.addrs(Side::Right);
    let stored = split.on(Side::Left, |lab| fill(&lab.addrs(), 80, "resting", "before"));
    assert!(stored.iter().any(|it| it.owner == alone[0]), "it keeps something");

    let clients = split.on(Side::Left, |lab| Clients::start(&stored, &lab.addrs(), &alone));
    split.namespaces.cut();
    split.is_ring_of(Side::Left, 5);
    clients.end();
    split.on(Side::Right, |_| {
        eventually("it knows that it is cut off", PATIENCE, || {
            (get_json(&alone[0], "/nodeinfo")["membership"] == "isolated").then_some(())
        });
    });
    split.namespaces.mend();
    split.is_one_ring(6);
    split.on(Side::Left, |lab| all_come_back(&stored, &lab.addrs()));
    split.on(Side::Right, |lab| all_come_back(&stored, &lab.addrs()));
}
