//! The Chord protocol without I/O.

mod contact;
mod id;
mod interval;
mod record;

pub use contact::Contact;
pub use id::{BITS, Id, ParseIdError};
pub use interval::{Interval, between};
pub use record::{Condition, Content, ParseVersionError, Record, RequestId, Version, Write, Written};
