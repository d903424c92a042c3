//! Networks as the command line asks for them.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use chordal_sim::overlay::chord::{Ring, RingSettings};
use chordal_sim::overlay::kademlia::{Network, NetworkSettings, Settings};
use chordal_sim::overlay::{Churn, Conditions, Sessions, Simulated, Workload, micros};

use super::machine;
use crate::cli::{ChurnSpec, OverlayNetwork, OverlayWork, Which};

/// What a row of a report takes in memory, roughly.
const ROW_BYTES: u64 = 200;

/// What stays of a node that has joined, when it has gone: its hash, an empty table, and what it still would have done.
const JOINED_BYTES: u64 = 300;

fn conditions(asked: &OverlayNetwork) -> Conditions {
    Conditions {
        fast_error: asked.fast_error,
        slow_error: asked.slow_error,
        connect_delay: asked.delay,
        fast_delay: asked.fast_delay,
        slow_delay: asked.slow_delay,
        timeout_us: micros(asked.timeout),
        gamma_us: micros(asked.gamma),
    }
}

/// A Kademlia network.
pub(super) fn kademlia(asked: &OverlayNetwork) -> NetworkSettings {
    let kademlia = Settings {
        k: asked.k,
        alpha: asked.alpha,
        beta: asked.beta.unwrap_or(asked.k),
        steps_to_stop: asked.steps_to_stop,
    };
    let (id, nodes, seed) = (asked.network, asked.nodes, asked.seed);
    NetworkSettings { id, nodes, kademlia, conditions: conditions(asked), seed }
}

/// A ring.
pub(super) fn chord(asked: &OverlayNetwork) -> RingSettings {
    RingSettings {
        id: asked.network,
        nodes: asked.nodes,
        virtual_nodes: asked.virtual_nodes,
        mode: asked.mode.into(),
        successors: asked.successors,
        cache: asked.cache,
        tries: asked.tries,
        budget: asked.budget,
        conditions: conditions(asked),
        seed: asked.seed,
    }
}

/// Refuses a network that makes no sense or does not fit into memory, with so many lookups in it and all that come and go.
pub(super) fn check(which: Which, asked: &OverlayNetwork, lookups: usize, churn: Option<&Churn>) -> Result<()> {
    match which {
        Which::Kademlia => kademlia(asked).check()?,
        Which::Chord => chord(asked).check()?,
    }
    let mut most = asked.clone();
    let mut bytes = lookups as u64 * ROW_BYTES;
    if let Some(churn) = churn {
        churn.check_in(asked.nodes)?;
        most.nodes = most.nodes.saturating_add(churn.growth() as usize);
        bytes = bytes.saturating_add(churn.joins(asked.nodes) as u64 * JOINED_BYTES);
    }
    machine::ensure_memory(bytes.saturating_add(match which {
        Which::Kademlia => kademlia(&most).memory_bytes(),
        Which::Chord => chord(&most).memory_bytes(),
    }))
}

/// Builds a network, on all threads of the pool that this is called in.
pub(super) fn build(which: Which, asked: &OverlayNetwork) -> Result<Box<dyn Simulated>> {
    Ok(match which {
        Which::Kademlia => Box::new(Network::new(kademlia(asked))?),
        Which::Chord => Box::new(Ring::new(chord(asked))?),
    })
}

/// The lookups that are asked for.
pub(super) fn workload(asked: &OverlayWork) -> Workload {
    Workload {
        lookups: asked.lookups,
        initiators: asked.initiators,
        values: asked.values,
        reset_every: asked.reset_every,
        seed: asked.network.seed,
    }
}

/// The churn that is asked for. A trace that is replayed also decides how many nodes there are.
pub(super) fn churn(asked: &mut OverlayWork) -> Result<Option<Churn>> {
    let sessions = match &asked.churn.churn {
        None => return Ok(None),
        Some(ChurnSpec::Drawn(sessions)) => sessions.clone(),
        Some(ChurnSpec::Trace(path)) => {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Sessions::from_csv(&text)?
        }
    };
    ensure!(!asked.values, "values don't move with nodes that come and go: leave out --values or --churn");
    ensure!(asked.initiators == 0, "nodes that come and go all begin lookups: leave out --initiators or --churn");
    if let Some(nodes) = sessions.nodes_at_start() {
        asked.network.nodes = nodes;
    }
    let churn = Churn {
        sessions,
        join_rate: asked.churn.join_rate,
        leave_rate: asked.churn.leave_rate.unwrap_or(0.0),
        duration_s: asked.churn.duration.as_secs_f64(),
        refresh_s: asked.churn.refresh.as_secs_f64(),
        stabilize_s: asked.churn.stabilize.as_secs_f64(),
    };
    churn.check()?;
    Ok(Some(churn))
}
