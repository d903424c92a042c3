//! Rings of real processes that are hurt while clients read and write: nodes killed all at once, paused and resumed, and
//! cut off from each other. Each test waits until `tasks doctor --only ring` is content, and judges every answer meanwhile.
//!
//! - [`clients`]: who reads and writes, and what an answer may be
//! - [`crashes`]: `kill -9` of a quarter of a ring
//! - [`pauses`]: SIGSTOP and SIGCONT
//! - [`partitions`]: two halves that cannot reach each other, and become one again; a node that is cut off
//! - [`recovery`]: ranges that lose their majority for good, and what an operator does about them
//! - [`restored`]: a data directory that comes back from a copy
//!
//! Each value is kept by three nodes, its owner and the two before it. What two of them can serve must be served, to readers
//! and writers; what they cannot is unavailable (503, or 504 for a write that may have been done). Nothing that was
//! acknowledged may ever be missing, or be another or an older value: not while a ring is hurt, and not when it heals.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "../common/mod.rs"]
mod common;

mod clients;
mod crashes;
mod partitions;
mod pauses;
mod recovery;
mod restored;
