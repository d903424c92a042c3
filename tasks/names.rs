//! What nodes are called in a sentence or a table: by their names, which on several machines may be the same.

use std::collections::{BTreeMap, BTreeSet};

use chordal::api::{NodeInfo, NodeRef};
use chordal_protocol::Id;

/// Which names are enough to tell a node from all others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    /// Those that several nodes have.
    shared: BTreeSet<String>,
}

impl Names {
    /// The names of these nodes, and of those that they name as neighbours or as members of views.
    pub(crate) fn of<'a>(nodes: impl IntoIterator<Item = &'a NodeInfo>) -> Names {
        let mut owners: BTreeMap<String, BTreeSet<Id>> = BTreeMap::new();
        for info in nodes {
            let members = info.views.iter().flat_map(|view| &view.members);
            let others = info.pred.iter().chain(&info.succ).chain(&info.successors).chain(members);
            for node in others.chain([&info.itself()]) {
                owners.entry(node.name.clone()).or_default().insert(node.id);
            }
        }
        Names { shared: owners.into_iter().filter(|(_, ids)| ids.len() > 1).map(|(name, _)| name).collect() }
    }

    /// Its name, with its address if others have the same.
    pub(crate) fn call(&self, node: &NodeRef) -> String {
        if self.shared.contains(&node.name) && node.port != 0 {
            format!("{} ({})", node.name, node.addr())
        } else {
            node.name.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, port: u16) -> NodeRef {
        NodeRef { name: name.to_owned(), id: Id::of(format!("{name}:{port}")), host: "10.0.0.6".to_owned(), port }
    }

    fn info(of: NodeRef, succ: &NodeRef) -> NodeInfo {
        let json = json!({
            "name": of.name, "id": of.id, "host": of.host, "port": of.port, "pred": null, "succ": succ,
            "successors": [succ], "fingers": [], "range": { "lo": Id::ZERO, "hi": Id::MAX, "share": 1.0 }, "views": [],
            "keys": 0, "routing": "cached", "membership": "joined", "ready": true, "ring": null, "lab": false,
            "replication_factor": 3, "uptime_s": 1.0, "version": "0", "wire": 1, "pid": 1, "handovers": [],
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_name_that_two_have_goes_with_the_address() {
        // One of them does not answer: it is known from its neighbour.
        let (one, other, third) = (node("node-4000", 4000), node("node-4000", 4001), node("c", 4002));
        let names = Names::of(&[info(one.clone(), &other), info(third.clone(), &one)]);
        assert_eq!(names.call(&one), "node-4000 (10.0.0.6:4000)");
        assert_eq!(names.call(&other), "node-4000 (10.0.0.6:4001)");
        assert_eq!(names.call(&third), "c");
    }
}
