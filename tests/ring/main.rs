//! Rings on real processes, as people meet them. All of it is one program: each such program is built and linked for itself, and takes
//! its two places for itself, however little is left to do in it.
//!
//! - [`boot`]: a ring begins, begins anew, and ends; [`restart`]: it stops whole, and is started again
//! - [`order`]: the ring's order, and who owns what; [`watch`]: an eye on it
//! - [`membership`]: nodes that leave, die, come back and join; [`healing`]: pointers that were rewired by hand
//! - [`routes`]: every route of the labs; [`content`]: values and where they lie
//! - [`kv`], [`kv_bulk`]: values in HTTP's own words; [`kv_tasks`]: put, get, cas, export and import
//! - [`tasks`]: `tasks` anywhere, several at once, interrupted; [`cli`]: `chordal` without a state file

#[path = "../common/mod.rs"]
mod common;

mod boot;
mod cli;
mod content;
mod healing;
mod kv;
mod kv_bulk;
mod kv_tasks;
mod membership;
mod order;
mod restart;
mod routes;
mod tasks;
mod watch;
