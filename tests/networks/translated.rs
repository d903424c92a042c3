//! Two nodes behind an address translation with forwarded ports, and two outside.

use crate::world::{World, keys};

#[test]
fn nodes_behind_forwarded_ports_are_members_like_any_other() {
    // The third leads to the first node too, which is told of it; the fourth to the second, which is not.
    let ports = [(4000, 4000), (4001, 4001), (8080, 4000), (8081, 4001)];
    let make = |world: &World| Ok((world.subnet(1)?, world.subnet(2)?, world.translated(3, &ports)?));
    let Some((world, (one, two, (_gate, home)))) = World::or_skip("nodes behind forwarded ports", make) else { return };
    let (outside, first, second) = (one.addr(), format!("{}:4000", home.address), format!("{}:4001", home.address));
    let inside = |port, advertised| {
        ["--host", "192.168.7.2", "--port", port, "--advertise", advertised, "--bootstrap", &outside]
    };

    let nodes = (world.node(&one, &[]), world.node(&two, &["--bootstrap", &outside]));
    let astray = world.try_node(
        &home,
        &[&inside("4000", &first)[..], &["--allow-net", "192.168.7.0/24", "--join-attempts", "1"]].concat(),
    );
    let astray = astray.err().expect("it may not call the others");
    assert!(astray.stderr.contains("not in the nets that this node calls, 192.168.7.0/24"), "{astray:#?}");

    let known_as = format!("{}:8080", home.address);
    let at_home = (
        world.node(
            &home,
            &[&inside("4000", &first)[..], &["--known-as", &known_as, "--allow-net", "10.0.0.0/8"]].concat(),
        ),
        world.node(&home, &inside("4001", &second)),
    );
    // From inside as well: what they send to each other goes out to the gate and back.
    for from in [&one, &home] {
        [&outside, &two.addr(), &first, &second].into_iter().for_each(|addr| world.is_ready(from, addr));
    }

    let (out, back) = (keys("out", 5), keys("back", 5));
    world.put_all(&home, "192.168.7.2:4000", &out, "put at home");
    world.finds_all(&two, &two.addr(), &out, "put at home");
    world.put_all(&one, &outside, &back, "put outside");
    for at in ["192.168.7.2:4000", "192.168.7.2:4001", &first, &second] {
        world.finds_all(&home, at, &back, "put outside");
    }
    // A forwarded port is only good for the addresses that its node goes by.
    world.finds_all(&one, &known_as, &back, "put outside");
    let stranger = world.chordal(&one, &format!("{}:8081", home.address), "get", &[&back[0], "--timeout", "3s"]);
    assert!(!stranger.ok && stranger.stderr.contains("--known-as"), "{stranger:#?}");

    // One outside dies; each side still reads and writes what the other has put.
    drop(nodes.1);
    world.put_all(&home, "192.168.7.2:4001", &back, "put again at home");
    world.finds_all(&one, &outside, &back, "put again at home");
    world.finds_all(&one, &second, &out, "put at home");
    drop((nodes.0, at_home));
}
