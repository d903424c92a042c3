//! Chord itself, without I/O: what a node knows, what it answers, and how it keeps its place on the ring.
//!
//! A room for each notion: [`Id`]s and [`Interval`]s of the circle, [`Contact`]s, the [`SuccessorList`] and the
//! [`FingerTable`], routing ([`next_hop`], [`Lookup`], [`OwnerCache`]), content ([`Record`], [`Version`]), the messages
//! ([`Request`], [`Reply`]), the machine that keeps a node on its ring ([`Chord`]) with a file for each of its [`Procedure`]s, and
//! the [`invariant`]s that must hold. Who keeps content is decided by the members of views ([`replica`]); what the ring wants of
//! them, and where they are, is the [`keeper`]'s.
//!
//! # Call and resume
//!
//! Chord is request and response, so the continuation travels inside the call, and the core never waits. A driver, be it a
//! daemon or a simulator, does this and no more:
//!
//! ```text
//! step = chord.begin(now, procedure)
//! while step has calls:
//!     make durable what the step says
//!     for each call: outcome = send it; step = chord.resume(now, call, outcome)
//! ```
//!
//! Nothing may leave a node, reply or call, before what it rests on is durable: [`Chord::revision`] tells what that is.

pub mod invariant;
pub mod keeper;
pub mod replica;

mod chord;
mod contact;
mod finger;
mod flaw;
mod id;
mod interval;
mod message;
mod owner_cache;
mod procedure;
mod record;
mod routing;
mod serve;
mod step;
mod successor_list;
mod time;

pub use chord::Chord;
pub use contact::{Contact, LONGEST_NAME};
pub use finger::{Finger, FingerTable};
pub use flaw::Flaw;
pub use id::{BITS, Id, ParseIdError};
pub use interval::{Interval, between};
pub use message::{Envelope, Membership, Refusal, Reply, Request, Ring, RingId, WIRE_VERSION};
pub use owner_cache::OwnerCache;
pub use procedure::{Procedure, Side};
pub use record::{
    Condition, Content, ParseRequestIdError, ParseVersionError, Record, RequestId, Version, Write, Written,
};
pub use routing::{Hop, Lookup, LookupError, Mode, NextHop, ParseModeError, Table, Why, next_hop};
pub use step::{Answer, Call, Durable, Event, Outcome, Settings, Step, Unreachable};
pub use successor_list::SuccessorList;
pub use time::Time;
