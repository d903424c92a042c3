//! Histories of registers, and whether a register could have had them: the judge of simulated rings and of real processes.
//!
//! A history is what clients asked and heard, an [`Operation`] each, with the times on one clock. It is *linearizable* if the
//! operations of each key can be put in an order, each at a point between its invocation and its return, in which one plain
//! register would have given the same answers (Herlihy & Wing, 1990; by their locality theorem each key is judged by itself).
//!
//! - [`check()`] decides that in `O(n log n)`, because answers name versions, and versions order the writes: for histories of
//!   millions of operations. In general the question is NP-complete; it is easy when it is known which write each read has
//!   seen and in which order the writes were done (Gibbons & Korach, "Testing shared memories", SIAM J. Comput. 1997).
//! - [`search()`] tries the orders, for histories of some twenty operations: Wing & Gong ("Testing and verifying concurrent
//!   objects", 1993), with the memory of Lowe ("Testing for linearizability", 2017). It is there to check the checker.
//! - [`survives()`] asks what has become of the acknowledged writes in the end, and [`Summary`] counts for reports.
//!
//! # What `check` decides
//!
//! It says yes if and only if there is a linearization in which *versions grow* from write to write, which is what a ring
//! promises of versions. So it refuses more than [`search()`]: a history whose values fit in some order, but not in that of its
//! versions, is refused. Equal times count as concurrent. That needs, of each key, different values in different writes.
//!
//! Writes that were not acknowledged may have happened once, at any time since they were invoked, or never. If somebody has
//! read the value, the read says which version it has. What has no version must be supposed: an absent read between two
//! values needs a delete there, and a delete of unknown outcome may be that one, if it was invoked early enough and a version
//! is free. Which of them explains which read is a matching of points with deadlines, and greedy solves it (`absence`).
//!
//! It is sound always: what it refuses is not linearizable in version order. In two corners it is not complete, and says yes
//! without having looked for all that a search would: a version known only from a failed or fulfilled condition, whose value nobody
//! has read, is some write of unknown outcome, but whether that one is also needed elsewhere is not asked; nor is
//! it where between two writes both a delete and a put must be supposed. [`Checked::lenient`] counts the keys whose verdict rests on that.

mod absence;
mod check;
mod operation;
mod order;
mod register;
mod search;
mod summary;
mod violation;

pub use check::{Checked, check};
pub use operation::{Digest, Kind, Operation, Outcome};
pub use search::{Order, search};
pub use summary::{Summary, Survival, summarize, survives};
pub use violation::{Rule, Violation};
