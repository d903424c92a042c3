//! The nodes of one ring on this machine, each a process of its own, and the file that remembers them.
//!
//! [`spawn`] starts a node as this very program again (`/proc/self/exe`, with the hidden verb `node`, which [`node_verb`]
//! is), [`process`] knows processes by pid *and* start time, [`network_state`] is the format of the state file,
//! [`state_file`] reads and changes it under a lock, and [`places`] has the directories beside it. `tasks` and the bootstrap
//! service share all of it, so that each can look after what the other has started.

pub mod network_state;
pub mod node_verb;
pub mod places;
pub mod process;
pub mod spawn;
pub mod state_file;
