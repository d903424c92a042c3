//! Five hosts, each in a subnet of its own, and a router between them.

use crate::world::{World, keys};

#[test]
fn a_ring_over_five_subnets_outlives_one_that_is_killed_and_one_that_is_cut_off() {
    let make =
        |world: &World| [1, 2, 3, 4, 5].map(|number| world.subnet(number)).into_iter().collect::<Result<Vec<_>, _>>();
    let Some((world, hosts)) = World::or_skip("a ring over five subnets", make) else { return };
    let addrs: Vec<String> = hosts.iter().map(|host| host.addr()).collect();
    let join = ["--allow-net", "10.0.0.0/8", "--bootstrap", &addrs[0]];
    let mut nodes = vec![world.node(&hosts[0], &join[..2])];
    nodes.extend(hosts[1..].iter().map(|host| world.node(host, &join)));
    addrs.iter().for_each(|addr| world.is_ready(&hosts[0], addr));

    let early = keys("early", 6);
    world.put_all(&hosts[0], &addrs[0], &early, "put on the first");
    hosts.iter().zip(&addrs).for_each(|(host, addr)| world.finds_all(host, addr, &early, "put on the first"));
    // A client of one subnet may ask a node of another.
    world.finds_all(&hosts[1], &addrs[3], &early[..1], "put on the first");

    // A node of one subnet dies, and comes back to its data.
    drop(nodes.remove(1));
    world.finds_all(&hosts[4], &addrs[4], &early, "put on the first");
    world.put_all(&hosts[2], &addrs[2], &early, "put without the second");
    let second = world.node(&hosts[1], &join);
    world.is_ready(&hosts[0], &addrs[1]);
    world.finds_all(&hosts[1], &addrs[1], &early, "put without the second");

    // Four of five have a majority of whatever three of them keep; one alone has none of anything.
    world.cut(3);
    let late = keys("late", 6);
    world.put_all(&hosts[0], &addrs[0], &late, "put without the third");
    world.finds_all(&hosts[4], &addrs[4], &early, "put without the second");
    let got = world.chordal(&hosts[2], &addrs[2], "get", &[&late[0], "--timeout", "3s"]);
    assert_eq!(got.code, Some(4), "a node that is cut off knows nothing: {got:#?}");
    let put = world.chordal(&hosts[2], &addrs[2], "put", &[&early[0], "put on the wrong side", "--timeout", "3s"]);
    assert!(matches!(put.code, Some(4 | 5)), "it acknowledges nothing: {put:#?}");
    let other = world.chordal(&hosts[0], &addrs[2], "info", &["--timeout", "2s"]);
    assert_eq!(other.code, Some(4), "it cannot be reached: {other:#?}");

    world.mend(3);
    world.is_ready(&hosts[0], &addrs[2]);
    world.finds_all(&hosts[2], &addrs[2], &late, "put without the third");
    world.finds_all(&hosts[2], &addrs[2], &early[1..], "put without the second");
    drop((nodes, second));
}
