//! A wire that is cut: both sides become rings of their own, or a node is isolated, and all is one again without a hand. No
//! value can be had on both sides: one of them has the majority of those who keep it.

use std::time::Duration;

use serde_json::Value;

use crate::clients::{Clients, Stored, all_are_found, all_are_in_groups, fill, is_open, overwrite, parted, try_write};
use crate::common::namespaces::{Namespaces, Side};
use crate::common::{Lab, Model, eventually, get, get_json};

/// How long a half may take to be a ring of its own, and two to be one again. Each node tries one remembered contact every
/// eighth round, which is every four to five seconds, and the contact may be of its own side.
const PATIENCE: Duration = Duration::from_secs(60);

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
        let model = split.model();
        split.on(Side::Left, |_| all_are_in_groups(&model));
        split
    }

    /// The ring as it should be, while both sides can be reached. Its nodes stand where they were told to.
    fn model(&self) -> Model {
        let addrs = [self.addrs(Side::Left), self.addrs(Side::Right)].concat();
        let place = |addr: String| (get_json(&addr, "/nodeinfo")["id"].as_str().unwrap().to_owned(), addr);
        let mut nodes: Vec<_> = self.on(Side::Left, |_| addrs.into_iter().map(place).collect());
        nodes.sort();
        Model { nodes }
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

/// How often a write is tried where there is a majority. Each try may take 10 s.
const TRIES: usize = 6;

/// Writes these keys on one side, all at once, and tells for each whether that was acknowledged or may have been done all the
/// same. Where there is no majority one try is enough.
fn write_all(
    lab: &Lab,
    stored: &[Stored],
    called: &str,
    can: impl Fn(&str) -> bool + Sync,
) -> Vec<Result<String, bool>> {
    let (through, can) = (lab.addrs(), &can);
    std::thread::scope(|scope| {
        let write = |(number, it): (usize, &Stored)| {
            let (key, value) = (it.key.clone(), of_side(&it.key, called));
            let through = through.clone();
            scope.spawn(move || {
                let mut in_doubt = false;
                for attempt in 0..if can(&key) { TRIES } else { 1 } {
                    match try_write(&key, &value, &through[(number + attempt) % through.len()]) {
                        Ok(primary) => return Ok(primary),
                        Err(doubt) => in_doubt |= doubt,
                    }
                }
                Err(in_doubt)
            })
        };
        let writes: Vec<_> = stored.iter().enumerate().map(write).collect();
        writes.into_iter().map(|write| write.join().expect("a write ends")).collect()
    })
}

/// What one side writes.
fn of_side(key: &str, called: &str) -> String {
    format!("{key}, written on the {called} during the cut")
}

/// The nodes of both sides stand between each other, so that each of them loses its successor and its predecessor, and two of
/// the three that keep a value are on the side of its owner.
#[test]
fn each_value_is_served_in_one_half_at_most_and_what_both_halves_have_written_is_in_one_ring_again() {
    let Some(namespaces) = Namespaces::or_skip("a partition that heals") else { return };
    let split = Split::ring(namespaces, &["00", "40", "80", "c0"], &["20", "60", "a0", "e0"]);
    let (left, right) = (split.addrs(Side::Left), split.addrs(Side::Right));
    let model = split.model();
    let resting = split.on(Side::Left, |lab| fill(&lab.addrs(), 60, "resting", "before"));
    let contested = split.on(Side::Right, |lab| fill(&lab.addrs(), 24, "contested", "before"));

    // To each half the other's nodes are as good as dead.
    let clients_of = |side, hurt: &[String]| {
        let (open, closed) = parted(&model, &resting, hurt);
        split.on(side, |lab| Clients::start(&open, &closed, &lab.addrs()))
    };
    let clients = [clients_of(Side::Left, &right), clients_of(Side::Right, &left)];
    split.namespaces.cut();
    split.is_ring_of(Side::Left, 4);
    split.is_ring_of(Side::Right, 4);
    // Neither side becomes ready: each owns ranges now whose majority is on the other.
    let write = |side, called: &'static str, hurt: &[String]| {
        split.on(side, |lab| write_all(lab, &contested, called, |key| is_open(&model, key, hurt)))
    };
    let (on_the_left, on_the_right) = std::thread::scope(|scope| {
        let on_the_left = scope.spawn(|| write(Side::Left, "left", &right));
        let on_the_right = write(Side::Right, "right", &left);
        (on_the_left.join().expect("the left side has written"), on_the_right)
    });
    for tally in clients.map(Clients::end) {
        assert!(tally.right > 0 && tally.unavailable > 0, "the wire was cut: {tally:?}");
    }

    let mut written = Vec::new();
    let mut served = [0, 0];
    for ((it, by_left), by_right) in contested.iter().zip(on_the_left).zip(on_the_right) {
        let open_on_the_left = is_open(&model, &it.key, &right);
        assert_ne!(open_on_the_left, is_open(&model, &it.key, &left), "one side has the majority of {it:?}");
        assert!(by_left.is_err() || by_right.is_err(), "{it:?} was written on both sides: {by_left:?}, {by_right:?}");
        let (home, other) = if open_on_the_left { (by_left, by_right) } else { (by_right, by_left) };
        let (at_home, elsewhere) = if open_on_the_left { ("left", "right") } else { ("right", "left") };
        let primary =
            home.unwrap_or_else(|doubt| panic!("{it:?} has its majority on the {at_home} (in doubt: {doubt})"));
        let in_doubt = other.expect_err("it has no majority there");
        let perhaps = in_doubt.then(|| of_side(&it.key, elsewhere)).into_iter().collect();
        served[usize::from(open_on_the_left)] += 1;
        written.push(Stored { key: it.key.clone(), value: of_side(&it.key, at_home), perhaps, primary });
    }
    assert!(served.iter().all(|count| *count > 0), "both kinds are tested: {served:?}");

    let all: Vec<Stored> = resting.into_iter().chain(written).collect();
    split.namespaces.mend();
    split.is_one_ring(8);
    let found = split.on(Side::Left, |lab| all_are_found(&all, &lab.addrs()));
    let found = split.on(Side::Right, |lab| all_are_found(&found, &lab.addrs()));
    split.on(Side::Left, |_| all_are_in_groups(&model));
    split.on(Side::Left, |lab| all_are_found(&found, &lab.addrs()));
}

#[test]
fn a_node_that_is_cut_off_says_so_and_comes_back_with_what_it_keeps() {
    let Some(namespaces) = Namespaces::or_skip("a node that is cut off") else { return };
    let split = Split::ring(namespaces, &["00", "33", "66", "99", "cc"], &["80"]);
    let alone = split.addrs(Side::Right);
    let stored = split.on(Side::Left, |lab| fill(&lab.addrs(), 80, "resting", "before"));
    assert!(stored.iter().any(|it| it.primary == alone[0]), "it serves something");

    let clients = split.on(Side::Left, |lab| Clients::start(&stored, &[], &lab.addrs()));
    split.namespaces.cut();
    split.is_ring_of(Side::Left, 5);
    // The others have a majority of all that it keeps.
    split.on(Side::Left, |lab| all_are_found(&stored, &lab.addrs()));
    clients.end();
    let stored = split.on(Side::Left, |lab| overwrite(&stored, &lab.addrs(), "while a node was cut off"));
    split.on(Side::Right, |_| {
        eventually("it knows that it is cut off", PATIENCE, || {
            (get_json(&alone[0], "/nodeinfo")["membership"] == "isolated").then_some(())
        });
        let read = get(&alone[0], "/dht/lookup?key=resting+0");
        assert!(matches!(read.status, 503 | 504), "{read:?}");
    });
    split.namespaces.mend();
    split.is_one_ring(6);
    split.on(Side::Left, |lab| all_are_found(&stored, &lab.addrs()));
    split.on(Side::Right, |lab| all_are_found(&stored, &lab.addrs()));
}
