//! A node at the end of a wire that is 100 ms long and loses one in twenty.

use crate::world::{World, keys};

#[test]
fn a_node_far_away_on_a_wire_that_loses_is_a_member_like_any_other() {
    let make = |world: &World| Ok((world.subnet(1)?, world.subnet(2)?, world.subnet(3)?, world.far_subnet(4)?));
    let Some((world, (one, two, three, far))) = World::or_skip("a ring with a node far away", make) else { return };
    let begun = world.node(&one, &[]);
    let joined = [&two, &three, &far].map(|host| world.node(host, &["--bootstrap", &one.addr()]));
    [&one, &two, &three, &far].into_iter().for_each(|host| world.is_ready(&one, &host.addr()));

    let (there, here) = (keys("there", 6), keys("here", 6));
    world.put_all(&far, &far.addr(), &there, "put far away");
    world.put_all(&one, &one.addr(), &here, "put near");
    for (key, value) in [(&there, "put far away"), (&here, "put near")] {
        world.finds_all(&far, &far.addr(), key, value);
        world.finds_all(&two, &two.addr(), key, value);
        // A client that is far away, of a node that is not.
        world.finds_all(&far, &three.addr(), key, value);
    }
    let lost = far.lost();
    assert!(lost > 0, "a wire that loses nothing proves nothing");

    // Two of three that keep a value are enough, whichever of them is slow.
    let [second, third, fourth] = joined;
    drop(third);
    world.finds_all(&far, &far.addr(), &here, "put near");
    world.put_all(&two, &two.addr(), &there, "put again");
    world.finds_all(&far, &far.addr(), &there, "put again");
    drop((begun, second, fourth));
}
