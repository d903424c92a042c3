//! What is wrong with what was asked for. Nothing has been done yet when such an error is given.

use super::members::MOST_NODES;

/// Parameters that make no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// A number that has to be at least 1.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// More questions at once than there are nodes to choose from.
    #[error("alpha ({alpha}) must not exceed k ({k})")]
    Alpha {
        /// The questions at once.
        alpha: usize,
        /// The size of a bucket.
        k: usize,
    },
    /// No percentage.
    #[error("the {name} error rate is a percentage from 0 to 100, not {rate}")]
    ErrorRate {
        /// Which rate.
        name: &'static str,
        /// What was asked for.
        rate: f64,
    },
    /// No percentage either.
    #[error("{name} is a percentage from 0 to 100, not {percent}")]
    Percentage {
        /// Of what.
        name: &'static str,
        /// What was asked for.
        percent: f64,
    },
    /// No range of delays.
    #[error("a delay range goes from a shorter to a longer delay of at most an hour, in ms; {lo}..{hi} does not")]
    Delay {
        /// The shortest, in ms.
        lo: f64,
        /// The longest, in ms.
        hi: f64,
    },
    /// Too many for what is counted with.
    #[error("{name} must be at most {most}, not {asked}")]
    TooMany {
        /// What.
        name: &'static str,
        /// What was asked for.
        asked: usize,
        /// The bound.
        most: usize,
    },
    /// A time or rate that has to be positive and finite.
    #[error("{name} must be a positive number, not {number}")]
    NotPositive {
        /// What.
        name: &'static str,
        /// What was asked for.
        number: f64,
    },
    /// A trace that cannot be used.
    #[error("the trace of sessions: {0}")]
    Trace(String),
}

/// Refuses zero and more than `most`.
pub(crate) fn within(name: &'static str, asked: usize, most: usize) -> Result<(), SettingsError> {
    match asked {
        0 => Err(SettingsError::Zero(name)),
        _ if asked > most => Err(SettingsError::TooMany { name, asked, most }),
        _ => Ok(()),
    }
}

/// Refuses a number of nodes that ids of 32 bits cannot name.
pub(crate) fn nodes(count: usize) -> Result<(), SettingsError> {
    within("the number of nodes", count, MOST_NODES)
}

/// Refuses what is no percentage.
pub(crate) fn percentage(name: &'static str, percent: f64) -> Result<(), SettingsError> {
    if (0.0..=100.0).contains(&percent) { Ok(()) } else { Err(SettingsError::Percentage { name, percent }) }
}

/// Refuses what is not positive or not finite.
pub(crate) fn positive(name: &'static str, number: f64) -> Result<(), SettingsError> {
    if number > 0.0 && number.is_finite() { Ok(()) } else { Err(SettingsError::NotPositive { name, number }) }
}
