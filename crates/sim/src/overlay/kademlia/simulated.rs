//! A network as workloads drive it.

use super::network::Network;
use super::table::RoutingTable;
use super::{Search, run};
use crate::overlay::conditions::Conditions;
use crate::overlay::connection::Traffic;
use crate::overlay::hash::Hash;
use crate::overlay::members::{Members, NodeId};
use crate::overlay::simulated::{Outcome, Simulated, Task};

impl Simulated for Network {
    fn name(&self) -> &'static str {
        "kademlia"
    }

    fn members(&self) -> &Members {
        &self.members
    }

    fn conditions(&self) -> Conditions {
        self.settings.conditions
    }

    fn wanted(&self) -> usize {
        self.settings.kademlia.beta
    }

    fn truth(&self, key: &Hash) -> Vec<NodeId> {
        self.members.closest(key, self.wanted())
    }

    fn holders(&self, key: &Hash) -> Vec<NodeId> {
        self.members.before_deaths(|members| members.closest(key, self.settings.kademlia.k))
    }

    fn find(&self, task: &Task<'_>, traffic: &mut Traffic<'_>) -> Outcome {
        let holds = |node: NodeId| task.holders.is_some_and(|holders| holders.contains(&node));
        let search = Search { from: task.from, key: task.key, holds: Some(&holds), stop_at_value: true };
        let found = run(self.world(), &search, traffic);
        let answered = found.successes > 0 || self.members.living() == 1;
        Outcome {
            found: if task.holders.is_some() { found.value_from.is_some() } else { answered },
            closest: found.closest,
            hops: found.hops,
            contacted: found.attempts,
            failed: found.failures,
            delay_us: found.delay_us,
            dead: found.dead,
        }
    }

    fn kill(&mut self, percent: f64, seed: u64) -> usize {
        self.members.kill(percent, seed)
    }

    fn join(&mut self) -> NodeId {
        self.join_quietly()
    }

    fn leave(&mut self, node: NodeId) {
        self.members.remove(node);
        // Nobody will ask it any more, and those that have gone may be many more than those that live.
        self.tables[node as usize] = RoutingTable::new(node, self.settings.kademlia.k);
    }

    fn stabilizes(&self) -> bool {
        false
    }

    fn stabilize(&mut self, _node: NodeId) {}

    fn refresh(&mut self, node: NodeId) {
        self.bootstrap(node);
    }

    fn forget(&mut self, node: NodeId, dead: &[NodeId]) {
        for gone in dead {
            self.tables[node as usize].remove(*gone, self.members.hashes());
        }
    }
}
