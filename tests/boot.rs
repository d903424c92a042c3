//! `tasks boot`: two nodes, wired as each other's neighbours.

mod common;

use common::{Lab, get_json};

#[test]
fn boot_wires_two_nodes_as_each_others_neighbours() {
    let lab = Lab::with_nodes(2);
    let addrs = lab.addrs();
    assert_eq!(addrs.len(), 2);
    for (me, other) in [(0, 1), (1, 0)] {
        for route in ["/pred", "/succ"] {
            let neighbour = get_json(&addrs[me], route);
            assert_eq!(format!("{}:{}", neighbour["host"].as_str().unwrap(), neighbour["port"]), addrs[other]);
        }
    }
}
