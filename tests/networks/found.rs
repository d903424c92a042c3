//! Nodes that are not told their address and find it: on subnets, and behind an address translation.

use crate::common::{Daemon, eventually};
use crate::world::{PATIENCE, World, keys};

/// What a node is told that finds its address.
const AUTO: [&str; 6] = ["--host", "0.0.0.0", "--port", "4000", "--advertise", "auto"];

fn log_says(node: &Daemon, text: &str) {
    let says = || std::fs::read_to_string(&node.log).unwrap_or_default().contains(text).then_some(());
    eventually(&format!("the log of {} says `{text}`", node.addr), PATIENCE, says);
}

#[test]
fn nodes_find_the_addresses_at_which_others_reach_them() {
    // The fourth leads to a port where another node is than the one that asks.
    let ports = [(4000, 4000), (4001, 4001), (4010, 4000)];
    let make = |world: &World| Ok((world.subnet(1)?, world.subnet(2)?, world.translated(3, &ports)?, world.subnet(4)?));
    let Some((world, (one, two, (_gate, home), four))) = World::or_skip("nodes that find their addresses", make) else {
        return;
    };
    // The first has nobody to ask, and takes the address of its interface.
    let first = world.node(&one, &AUTO);
    assert_eq!(first.addr, one.addr());
    log_says(&first, "this machine's own interface");
    let begun = one.addr();
    let join = ["--bootstrap", &begun];
    let second = world.node(&two, &[&AUTO[..], &join, &["--data-dir", "second"]].concat());
    assert_eq!(second.addr, two.addr());

    // Behind the translation: at the outer address, where the port is forwarded.
    let inside = |port: &'static str| ["--host", "192.168.7.2", "--port", port, "--advertise", "auto"];
    let at_home = world.node(&home, &[&inside("4000")[..], &join, &["--data-dir", "home"]].concat());
    assert_eq!(at_home.addr, format!("{}:4000", home.address));
    log_says(&at_home, "was called back");
    let nowhere =
        world.try_node(&home, &[&inside("4009")[..], &join].concat()).err().expect("no port is forwarded to it");
    let told = [&*format!("{}:4009", home.address), "nobody could call it back", "--advertise HOST:PORT", "--upnp"];
    assert!(nowhere.code == Some(1) && told.iter().all(|text| nowhere.stderr.contains(text)), "{nowhere:#?}");
    let another = world.try_node(&home, &[&inside("4010")[..], &join].concat()).err().expect("another node is there");
    assert!(another.stderr.contains("nobody could call it back"), "{another:#?}");

    // Two see it at two addresses: one from inside, which is asked at its own, and one from outside.
    let both = ["--bootstrap", "192.168.7.2:4000", "--bootstrap", &begun];
    let fourth = world.node(&home, &[&inside("4001")[..], &both].concat());
    assert_eq!(fourth.addr, format!("{}:4001", home.address));
    log_says(&fourth, "at different addresses");

    let addrs = [one.addr(), two.addr(), at_home.addr.clone(), fourth.addr.clone()];
    addrs.iter().for_each(|addr| world.is_ready(&one, addr));
    let (out, back) = (keys("out", 4), keys("back", 4));
    world.put_all(&home, "192.168.7.2:4000", &out, "put at home");
    world.finds_all(&two, &two.addr(), &out, "put at home");
    world.put_all(&two, &two.addr(), &back, "put outside");
    world.finds_all(&home, &addrs[2], &back, "put outside");

    // Started again it is where it was, whoever still answers; elsewhere its directory is no good.
    drop(at_home);
    let at_home = world.node(&home, &[&inside("4000")[..], &join, &["--data-dir", "home"]].concat());
    assert_eq!(at_home.addr, addrs[2]);
    world.finds_all(&home, &addrs[2], &back, "put outside");
    drop(second);
    let moved =
        world.try_node(&four, &[&AUTO[..], &join, &["--data-dir", "second"]].concat()).err().expect("it has moved");
    let told = ["the data directory belongs to", &two.addr(), &four.addr()].map(str::to_owned);
    assert!(told.iter().all(|text| moved.stderr.contains(text)), "{moved:#?}");
    drop((first, at_home, fourth));
}
