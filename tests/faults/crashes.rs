//! `kill -9` of a quarter of a ring at once.

use nix::sys::signal::Signal;
use rand::seq::SliceRandom as _;

use crate::clients::{Clients, Stored, all_are_found, all_are_in_groups, fill, none_is_served, overwrite, parted};
use crate::common::{Lab, addr_of, signal};

/// Some nodes of a ring, and what that means for values.
pub(crate) struct Picked {
    /// Names, addresses and processes.
    pub(crate) victims: Vec<(String, String, u64)>,
    /// The addresses of the victims and of all others.
    pub(crate) hurt: Vec<String>,
    pub(crate) others: Vec<String>,
    /// What has a majority without them, and what has none.
    pub(crate) open: Vec<Stored>,
    pub(crate) closed: Vec<Stored>,
}

impl Picked {
    /// So many nodes, at random, but such that some values lose their majority and others do not.
    pub(crate) fn at_random(lab: &Lab, count: usize, stored: &[Stored]) -> Picked {
        let model = lab.model();
        let node = |it: &serde_json::Value| {
            (it["name"].as_str().unwrap().to_owned(), addr_of(it), it["pid"].as_u64().unwrap())
        };
        let mut nodes: Vec<_> = lab.nodes().iter().map(node).collect();
        for _ in 0..1000 {
            nodes.shuffle(&mut rand::rng());
            let victims = nodes[..count].to_vec();
            let hurt: Vec<String> = victims.iter().map(|(_, addr, _)| addr.clone()).collect();
            let (open, closed) = parted(&model, stored, &hurt);
            let loses_a_primary = open.iter().any(|it| hurt.contains(&it.primary));
            if !closed.is_empty() && loses_a_primary {
                println!("picked: {victims:?}; {} values have a majority, {} have none", open.len(), closed.len());
                let others = lab.addrs().into_iter().filter(|addr| !hurt.contains(addr)).collect();
                return Picked { victims, hurt, others, open, closed };
            }
        }
        panic!("no {count} nodes of {model:?} keep something together");
    }
}

#[test]
fn what_has_a_majority_is_served_while_a_quarter_is_dead_and_the_rest_comes_back_with_them() {
    let lab = Lab::with_nodes(16);
    all_are_in_groups(&lab.model());
    let stored = fill(&lab.addrs(), 120, "key", "before");
    let Picked { victims, hurt, others, open, closed } = Picked::at_random(&lab, 4, &stored);
    let clients = Clients::start(&open, &closed, &others);
    for (_, _, pid) in &victims {
        signal(*pid, Signal::SIGKILL);
    }
    let doctor = lab.json(&["doctor", "--only", "ring", "--wait", "60s"]);
    assert_eq!((&doctor["ok"], &doctor["nodes"]), (&true.into(), &12.into()), "{doctor}");
    // All the time it is read, and at some time it is written.
    all_are_found(&open, &others);
    let tally = clients.end();
    assert!(tally.right > 0 && tally.unavailable > 0, "{tally:?}");
    let open = overwrite(&open, &others, "while four were dead");
    assert!(open.iter().all(|it| !hurt.contains(&it.primary)), "{open:?}");
    let closed = none_is_served(&closed, &others, "while four were dead");

    let all: Vec<Stored> = open.iter().chain(&closed).cloned().collect();
    let clients = Clients::start(&open, &closed, &others);
    lab.ok(&["start", "--all"]);
    let doctor = lab.json(&["doctor", "--only", "ring", "--wait", "60s"]);
    assert_eq!((&doctor["ok"], &doctor["nodes"]), (&true.into(), &16.into()), "{doctor}");
    let found = all_are_found(&all, &lab.addrs());
    clients.end();
    all_are_in_groups(&lab.model());
    all_are_found(&found, &lab.addrs());
}
