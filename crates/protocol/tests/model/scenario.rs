//! What a run may contain.

use chordal_protocol::replica::Settings;

use crate::history::Op;

/// Which group a scenario means, by the numbers of the nodes.
pub(crate) type Nodes = &'static [u8];

/// A change that somebody may want, once.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    Same,
    Members(Nodes),
    Split(u8, Nodes, Nodes),
    /// The same members, but this one with the disk that it has now.
    Renew(u8),
    /// The view that begins at this point is deferred to the one before it.
    Defer(u8),
    /// The view that begins at this point absorbs the frozen one behind it.
    Absorb(u8),
}

/// What may happen in a run, and how often.
#[derive(Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) nodes: u8,
    /// The views to begin with: from, to, members.
    pub(crate) views: Vec<(u8, u8, Nodes)>,
    pub(crate) ops: Vec<Op>,
    /// Where clients may send operations.
    pub(crate) clients_at: Nodes,
    /// Who may propose what for the view of which point; each may happen once.
    pub(crate) wishes: Vec<(u8, u8, Wish)>,
    /// Who may restart, each once.
    pub(crate) restarts: Nodes,
    /// Who may lose its disk, each once; with its incarnation, or, planted, without.
    pub(crate) losses: Nodes,
    pub(crate) keeps_incarnation: bool,
    /// Memory and disk are told apart; what has not been synced is lost in a restart.
    pub(crate) disks: bool,
    /// Planted: answers and messages do not wait for the disk.
    pub(crate) hasty: bool,
    /// Outcomes up to the request of this operation are purged once.
    pub(crate) purge: Option<usize>,
    /// Decisions are forgotten when all have heard of them.
    pub(crate) forgets: bool,
    /// What happens first, by what its description contains: the run explores all that can follow.
    pub(crate) first: &'static [&'static str],
    /// Between whom all messages are lost, to make a run smaller.
    pub(crate) cut: &'static [(u8, u8)],
    /// How many messages may be delivered twice.
    pub(crate) twice: u8,
    pub(crate) settings: Settings,
}
