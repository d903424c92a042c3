//! Nodes that find each other on one wire, and those that do not.

use std::path::Path;

use nix::sys::signal::Signal;

use crate::common::namespace::Namespace;
use crate::common::{Daemon, Ran, signal};
use crate::world::{World, keys};

/// It ends with status 1 and says this.
#[track_caller]
fn refused(ran: Option<Ran>, says: &str) {
    let ran = ran.expect("it does not start");
    assert!(ran.code == Some(1) && ran.stderr.contains(says), "{ran:#?}");
}

#[test]
fn nodes_on_one_wire_find_each_other_and_never_make_two_rings() {
    let Some((world, hosts)) = World::or_skip("nodes that find each other", |world| world.lan(3)) else { return };
    let [one, two, three] = &hosts[..] else { panic!("three hosts") };
    let nobody = "nobody on the local network says that it is a node of the ring";
    // Two start at the same moment, and none is told to begin: there is no ring then.
    let once = ["--discover", "--join-attempts", "1"];
    std::thread::scope(|scope| {
        let other = scope.spawn(|| world.try_node(two, &once).err());
        refused(world.try_node(one, &once).err(), nobody);
        refused(other.join().expect("it is started"), nobody);
    });

    // One that waits for it joins the ring that is begun later; so does one that finds its own address by who it has found.
    let auto =
        ["--host", "0.0.0.0", "--port", "4000", "--advertise", "auto", "--discover", "--join-attempts", "forever"];
    let (first, second, third) = std::thread::scope(|scope| {
        let second = scope.spawn(|| world.node(two, &["--discover", "--join-attempts", "forever"]));
        let third = scope.spawn(|| world.node(three, &auto));
        let first = world.node(one, &["--discover", "--begin", "--data-dir", "first"]);
        (first, second.join().expect("it joins"), third.join().expect("it joins"))
    });
    assert_eq!([&first.addr, &second.addr, &third.addr].map(String::clone), [one.addr(), two.addr(), three.addr()]);
    hosts.iter().for_each(|host| world.is_ready(one, &host.addr()));
    let early = keys("early", 4);
    world.put_all(one, &one.addr(), &early, "put on the first");
    hosts.iter().for_each(|host| world.finds_all(host, &host.addr(), &early, "put on the first"));

    // Other rings are not joined: of another name, or another secret. A second one is not begun.
    world.other_secret("other.secret");
    let beside = |port: &'static str, more: &[&'static str]| {
        let place = ["--host", "10.100.0.3", "--port", port, "--join-attempts", "1"];
        world.try_node(three, &[&place[..], more].concat()).err()
    };
    std::thread::scope(|scope| {
        let named = scope.spawn(|| beside("4001", &["--discover=other"]));
        refused(beside("4002", &["--discover", "--secret-file", "other.secret"]), nobody);
        refused(named.join().expect("it is started"), nobody);
    });
    refused(beside("4001", &["--discover", "--begin"]), "announces itself on the local network");

    // Killed, it goes on in its ring, whatever it hears. One that leaves is announced no more, and one that is new finds the others.
    drop(first);
    let first = world.node(one, &["--discover", "--data-dir", "first"]);
    world.is_ready(two, &first.addr);
    let mut second = second;
    signal(second.child.id().into(), Signal::SIGTERM);
    assert!(second.child.wait().expect("it ends").success());
    let second = world.node(two, &["--discover"]);
    world.is_ready(one, &second.addr);
    world.finds_all(two, &second.addr, &early, "put on the first");
    drop((first, second, third));
}

#[test]
fn on_loopback_an_open_ring_is_found_and_nothing_leaves_the_machine() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let made = Namespace::new("alone").and_then(|alone| alone.ip(&["link", "set", "lo", "up"]).map(|()| alone));
    let Ok(alone) = made.inspect_err(|reason| {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "SKIPPED: nodes on loopback: no network of its own for the test: {reason}");
    }) else {
        return;
    };
    let start = |dir: &Path, more: &[&str]| {
        let args = [&["--memory"], more].concat();
        alone.inside(|| Daemon::try_start(dir, &args))
    };
    let six = ["--host", "::1", "--discover=six"];
    let begun = std::thread::scope(|scope| {
        let other = scope.spawn(|| start(dir.path(), &[&six[..], &["--begin"]].concat()));
        let one = start(dir.path(), &["--discover", "--begin"]).expect("it begins");
        [one, other.join().expect("it is started").expect("it begins")]
    });
    let joined = start(dir.path(), &["--discover"]).expect("it joins");
    assert!(joined.addr.starts_with("127.0.0.1:"), "{}", joined.addr);
    let six = start(dir.path(), &six).expect("it joins");
    alone.inside(|| {
        for (one, other) in [(&begun[0], &joined), (&begun[1], &six)] {
            assert_eq!(crate::common::addr_of(&crate::common::get_json(&one.addr, "/succ")), other.addr);
        }
    });
}
