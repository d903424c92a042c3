//! Rings of real processes that are hurt while clients look values up: nodes killed all at once, paused and resumed, and
//! cut off from each other. Each test waits until `tasks doctor --only ring` is content, and judges every answer meanwhile.
//!
//! - [`clients`]: who looks up, and what an answer may be
//! - [`crashes`]: `kill -9` of a quarter of a ring
//! - [`pauses`]: SIGSTOP and SIGCONT
//! - [`partitions`]: two halves that cannot reach each other, and become one again; a node that is cut off
//! - [`namespaces`]: two networks of the test's own, and the wire between them
//!
//! There is one copy of each value. So what a node keeps that was hurt may be *not found* once its range was taken over;
//! nothing else may be missing, and no answer may ever be another or an older value. Replication will end the exception.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "../common/mod.rs"]
mod common;

mod clients;
mod crashes;
mod namespaces;
mod partitions;
mod pauses;
