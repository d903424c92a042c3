//! What is done to a ring: kinds of faults, how often each happens, and how often it did.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// How often faults happen. None, by default.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Faults {
    /// The probability that a message is lost.
    pub loss: f64,
    /// The probability that a message arrives twice.
    pub duplicate: f64,
    /// How long a message is under way, in simulated milliseconds; messages overtake each other. 1 to 5 without
    /// this fault.
    pub delay: Option<Delay>,
    /// Crashes per node and simulated second.
    pub crash: f64,
    /// Restarts, on its disk, per crashed node and simulated second.
    pub restart: f64,
    /// Pauses (as by SIGSTOP, for a few seconds) per node and simulated second.
    pub pause: f64,
    /// Partitions per ring and simulated second: some nodes cannot reach the others for a few seconds, one way or both.
    pub partition: f64,
    /// By what share the timers of a node may be too quick or too slow.
    pub drift: f64,
    /// How often disks are full for some seconds, per node and simulated second, where nodes keep content.
    pub full: f64,
}

/// From how long to how long a message is under way, in simulated milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Delay {
    /// The shortest.
    pub from: u64,
    /// The longest.
    pub to: u64,
}

impl Faults {
    /// Every kind, each often enough to meet the others.
    pub const ALL: Faults = Faults {
        loss: 0.02,
        duplicate: 0.02,
        delay: Some(Delay { from: 1, to: 50 }),
        crash: 0.01,
        restart: 0.2,
        pause: 0.01,
        partition: 0.02,
        drift: 0.1,
        full: 0.005,
    };

    /// Only what happens on a good network: messages are under way for 1 to 5 ms.
    pub const NONE: Faults = Faults {
        loss: 0.0,
        duplicate: 0.0,
        delay: None,
        crash: 0.0,
        restart: 0.0,
        pause: 0.0,
        partition: 0.0,
        drift: 0.0,
        full: 0.0,
    };

    /// The kinds that were asked for, and of which therefore each must happen.
    pub fn requested(&self) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| self.asks_for(*kind)).collect()
    }

    fn asks_for(&self, kind: Kind) -> bool {
        match kind {
            Kind::Loss => self.loss > 0.0,
            Kind::Duplicate => self.duplicate > 0.0,
            Kind::Delay => self.delay.is_some(),
            Kind::Crash => self.crash > 0.0,
            Kind::Restart => self.restart > 0.0,
            Kind::Pause => self.pause > 0.0,
            Kind::Partition => self.partition > 0.0,
            Kind::Drift => self.drift > 0.0,
            Kind::Full => self.full > 0.0,
            Kind::Unsynced => false,
        }
    }

    fn set(&mut self, kind: Kind, value: &str) -> Result<(), ParseFaultsError> {
        let wrong = |wanted| ParseFaultsError::Value { kind, value: value.to_owned(), wanted };
        let share = || {
            let parsed = value.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
            parsed.ok_or_else(|| wrong("a probability from 0 to 1, such as 0.05"))
        };
        let rate = || {
            let parsed = value.parse::<f64>().ok().filter(|rate| (0.0..=100.0).contains(rate));
            parsed.ok_or_else(|| wrong("a rate per simulated second from 0 to 100, such as 0.01"))
        };
        match kind {
            Kind::Loss => self.loss = share()?,
            Kind::Duplicate => self.duplicate = share()?,
            Kind::Delay => {
                self.delay =
                    Some(parse_delay(value).ok_or_else(|| wrong("a range such as 1..50ms, of at most 60000 ms"))?);
            }
            Kind::Crash => self.crash = rate()?,
            Kind::Restart => self.restart = rate()?,
            Kind::Pause => self.pause = rate()?,
            Kind::Partition => self.partition = rate()?,
            Kind::Full => self.full = rate()?,
            Kind::Unsynced => return Err(wrong("left out: it comes with crash")),
            Kind::Drift => {
                let drift = value.parse::<f64>().ok().filter(|drift| (0.0..=0.5).contains(drift));
                self.drift = drift.ok_or_else(|| wrong("a share from 0 to 0.5, such as 0.1"))?;
            }
        }
        Ok(())
    }
}

fn parse_delay(text: &str) -> Option<Delay> {
    let (from, to) = text.strip_suffix("ms").unwrap_or(text).split_once("..")?;
    let number = |text: &str| text.trim().trim_end_matches("ms").parse::<u64>().ok();
    let (from, to) = (number(from)?, number(to)?);
    (from <= to && to <= 60_000).then_some(Delay { from, to })
}

/// Why a text names no faults.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ParseFaultsError {
    /// It has an entry that is not `kind=value`.
    #[error("`{0}` is not of the form kind=value, such as loss=0.05")]
    Form(String),
    /// There is no such kind.
    #[error(
        "there is no fault called `{0}`; the kinds are loss, duplicate, delay, crash, restart, pause, partition, drift, full"
    )]
    Unknown(String),
    /// A kind is named twice.
    #[error("{0} is named twice")]
    Twice(Kind),
    /// The value does not fit the kind.
    #[error("{kind}={value}: that must be {wanted}")]
    Value {
        /// The kind.
        kind: Kind,
        /// What stands there.
        value: String,
        /// What should.
        wanted: &'static str,
    },
    /// Nobody would ever be restarted.
    #[error("restart needs crash: only a node that has crashed is restarted")]
    NothingToRestart,
}

impl FromStr for Faults {
    type Err = ParseFaultsError;

    /// `loss=0.05,delay=1..50ms,crash=0.01`, `all` for a mixture of every kind, `none`.
    fn from_str(text: &str) -> Result<Faults, ParseFaultsError> {
        match text.trim() {
            "all" => return Ok(Faults::ALL),
            "none" | "" => return Ok(Faults::NONE),
            _ => {}
        }
        let mut faults = Faults::NONE;
        let mut named = Vec::new();
        for entry in text.split(',').map(str::trim) {
            let (kind, value) = entry.split_once('=').ok_or_else(|| ParseFaultsError::Form(entry.to_owned()))?;
            let kind = Kind::ALL.into_iter().find(|known| known.name() == kind.trim());
            let kind =
                kind.ok_or_else(|| ParseFaultsError::Unknown(entry.split('=').next().unwrap_or("").to_owned()))?;
            if named.contains(&kind) {
                return Err(ParseFaultsError::Twice(kind));
            }
            named.push(kind);
            faults.set(kind, value.trim())?;
        }
        if faults.restart > 0.0 && faults.crash == 0.0 {
            return Err(ParseFaultsError::NothingToRestart);
        }
        Ok(faults)
    }
}

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A message that never arrives.
    Loss,
    /// A message that arrives twice.
    Duplicate,
    /// A message that was under way for as long as this fault says.
    Delay,
    /// A node that ends without a word.
    Crash,
    /// A crashed node that is started again on its disk.
    Restart,
    /// A node that stands still for some time.
    Pause,
    /// A cut of the network.
    Partition,
    /// A node whose timers are too quick or too slow.
    Drift,
    /// A disk without room.
    Full,
    /// A crash in which something was lost that was not on disk yet. Nobody can ask for it: it comes with crashes.
    Unsynced,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 10] = [
        Kind::Loss,
        Kind::Duplicate,
        Kind::Delay,
        Kind::Crash,
        Kind::Restart,
        Kind::Pause,
        Kind::Partition,
        Kind::Drift,
        Kind::Full,
        Kind::Unsynced,
    ];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Loss => "loss",
            Kind::Duplicate => "duplicate",
            Kind::Delay => "delay",
            Kind::Crash => "crash",
            Kind::Restart => "restart",
            Kind::Pause => "pause",
            Kind::Partition => "partition",
            Kind::Drift => "drift",
            Kind::Full => "full",
            Kind::Unsynced => "unsynced",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each kind of fault has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultCounts([u64; Kind::ALL.len()]);

impl FaultCounts {
    /// One more.
    pub fn note(&mut self, kind: Kind) {
        self.0[kind as usize] += 1;
    }

    /// How often this kind has happened.
    pub fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    /// Adds those of another run.
    pub fn add(&mut self, other: &FaultCounts) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Each kind with its number.
    pub fn each(&self) -> impl Iterator<Item = (Kind, u64)> {
        Kind::ALL.into_iter().map(|kind| (kind, self.of(kind)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_they_are_written() {
        let faults: Faults = "loss=0.05, delay=1..50ms,crash=0.01,restart=0.5".parse().unwrap();
        assert_eq!((faults.loss, faults.crash, faults.restart), (0.05, 0.01, 0.5));
        assert_eq!(faults.delay, Some(Delay { from: 1, to: 50 }));
        assert_eq!(faults.requested(), [Kind::Loss, Kind::Delay, Kind::Crash, Kind::Restart]);
        assert_eq!("none".parse(), Ok(Faults::NONE));
        assert_eq!("all".parse::<Faults>().unwrap().requested(), Kind::ALL[..9]);
    }

    #[test]
    fn nonsense_is_told_what_would_make_sense() {
        let error = |text: &str| text.parse::<Faults>().unwrap_err().to_string();
        assert_eq!(error("loss"), "`loss` is not of the form kind=value, such as loss=0.05");
        assert!(error("fire=1").contains("the kinds are loss, duplicate"));
        assert_eq!(error("loss=1.5"), "loss=1.5: that must be a probability from 0 to 1, such as 0.05");
        assert!(error("loss=nan").contains("from 0 to 1"));
        assert!(error("delay=50..1ms").contains("a range such as"));
        assert!(error("drift=0.9").contains("from 0 to 0.5"));
        assert_eq!(error("crash=0.1,crash=0.2"), "crash is named twice");
        assert!(error("restart=1").contains("needs crash"));
    }
}
