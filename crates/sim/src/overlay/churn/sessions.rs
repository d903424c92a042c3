//! How long nodes stay.

use rand::RngExt as _;

use crate::overlay::SettingsError;
use crate::overlay::conditions::Micros;
use crate::overlay::rng::Rng;
use crate::overlay::settings_error::positive;

/// The longest session that is told apart from staying for ever: a thousand years.
const FOR_EVER_S: f64 = 3.2e10;

/// How long nodes stay, in seconds.
#[derive(Debug, Clone, PartialEq)]
pub enum Sessions {
    /// Memoryless, with this mean.
    Exponential {
        /// The mean.
        mean_s: f64,
    },
    /// Heavy-tailed: longer than `t` with probability `(shortest / t)^shape`. With a shape of at most 1 there is no mean.
    Pareto {
        /// How quickly long sessions become rare.
        shape: f64,
        /// The shortest session.
        shortest_s: f64,
    },
    /// One of those that were measured, all equally likely.
    Measured(Vec<f64>),
    /// The very sessions of a trace: when each begins and ends. Those that begin at 0 or before are there from the start.
    Replayed(Vec<(f64, f64)>),
}

impl Sessions {
    /// Exponential sessions.
    pub fn exponential(mean_s: f64) -> Result<Sessions, SettingsError> {
        positive("the mean session", mean_s)?;
        Ok(Sessions::Exponential { mean_s })
    }

    /// Pareto sessions.
    pub fn pareto(shape: f64, shortest_s: f64) -> Result<Sessions, SettingsError> {
        positive("the shape of a Pareto distribution", shape)?;
        positive("the shortest session", shortest_s)?;
        Ok(Sessions::Pareto { shape, shortest_s })
    }

    /// Reads a trace as CSV, with a head. The column `session_s` gives lengths to draw from; the columns `start_s` and
    /// `end_s` give sessions to replay, where no end is an end that the trace does not reach. Other columns are passed over.
    pub fn from_csv(text: &str) -> Result<Sessions, SettingsError> {
        let wrong = |what: String| SettingsError::Trace(what);
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let (_, head) = lines.next().ok_or_else(|| wrong("the file is empty".to_owned()))?;
        let column = |name: &str| head.split(',').position(|word| word.trim() == name);
        let mut rows = Vec::new();
        for (at, line) in lines {
            let cells: Vec<&str> = line.split(',').map(str::trim).collect();
            let number = |column: usize, otherwise: Option<f64>| match cells.get(column).copied().unwrap_or_default() {
                "" => otherwise.ok_or_else(|| wrong(format!("line {} has an empty cell", at + 1))),
                cell => cell
                    .parse::<f64>()
                    .ok()
                    .filter(|it| it.is_finite())
                    .ok_or_else(|| wrong(format!("line {}: `{cell}` is no number of seconds", at + 1))),
            };
            rows.push(match (column("session_s"), column("start_s"), column("end_s")) {
                (Some(session), _, _) => (0.0, number(session, None)?),
                (None, Some(start), Some(end)) => (number(start, None)?, number(end, Some(FOR_EVER_S))?),
                _ => return Err(wrong("its head needs `session_s`, or `start_s` and `end_s`".to_owned())),
            });
            if rows.last().is_some_and(|(start, end)| end <= start) {
                return Err(wrong(format!("line {}: the session ends before it begins", at + 1)));
            }
        }
        if rows.is_empty() {
            return Err(wrong("there is no session in it".to_owned()));
        }
        if column("session_s").is_some() {
            return Ok(Sessions::Measured(rows.into_iter().map(|(_, length)| length).collect()));
        }
        match rows.iter().any(|(start, _)| *start <= 0.0) {
            true => Ok(Sessions::Replayed(rows)),
            false => Err(wrong("no session begins at 0 or before: there would be nobody to join".to_owned())),
        }
    }

    /// How many nodes a network needs at the start, if the sessions say so.
    pub fn nodes_at_start(&self) -> Option<usize> {
        match self {
            Sessions::Replayed(rows) => Some(rows.iter().filter(|(start, _)| *start <= 0.0).count()),
            _ => None,
        }
    }

    /// How long nodes stay on average, if what lies beyond `end_s` seconds does not count.
    pub(super) fn mean_within(&self, end_s: f64) -> f64 {
        match self {
            Sessions::Exponential { mean_s } => -mean_s * (-end_s / mean_s).exp_m1(),
            Sessions::Pareto { shortest_s, .. } if *shortest_s >= end_s => end_s,
            Sessions::Pareto { shape, shortest_s } => {
                // The integral of (shortest / t)^shape from the shortest to the end.
                let (power, ratio) = (1.0 - shape, end_s / shortest_s);
                let beyond = if power.abs() < 1e-9 { ratio.ln() } else { (ratio.powf(power) - 1.0) / power };
                shortest_s * (1.0 + beyond)
            }
            Sessions::Measured(lengths) => {
                lengths.iter().map(|length| length.min(end_s)).sum::<f64>() / lengths.len() as f64
            }
            Sessions::Replayed(_) => end_s,
        }
    }

    /// How long a node stays that has just come.
    pub(super) fn draw(&self, rng: &mut Rng) -> Micros {
        // From (0, 1]: its logarithm is finite.
        let chance = 1.0 - rng.random::<f64>();
        micros_of_s(match self {
            Sessions::Exponential { mean_s } => -mean_s * chance.ln(),
            Sessions::Pareto { shape, shortest_s } => shortest_s * chance.powf(-1.0 / shape),
            Sessions::Measured(lengths) => lengths[rng.random_range(0..lengths.len())],
            Sessions::Replayed(_) => FOR_EVER_S,
        })
    }
}

/// Seconds as microseconds, at most for ever.
pub(super) fn micros_of_s(seconds: f64) -> Micros {
    (seconds.clamp(0.0, FOR_EVER_S) * 1e6).round() as Micros
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::rng::{Use, stream};

    fn sorted(sessions: &Sessions) -> Vec<f64> {
        let mut rng = stream(3, Use::Churn, 0);
        let mut drawn: Vec<f64> = (0..50_000).map(|_| sessions.draw(&mut rng) as f64 / 1e6).collect();
        drawn.sort_by(f64::total_cmp);
        drawn
    }

    #[test]
    fn sessions_are_as_long_as_their_distribution_says() {
        let exponential = sorted(&Sessions::exponential(600.0).unwrap());
        let mean = exponential.iter().sum::<f64>() / 50_000.0;
        assert!((mean / 600.0 - 1.0).abs() < 0.02, "{mean}");
        assert!((exponential[25_000] / (600.0 * 2f64.ln()) - 1.0).abs() < 0.03, "the median is the mean times ln 2");
        let pareto = sorted(&Sessions::pareto(2.0, 60.0).unwrap());
        assert!((60.0..60.1).contains(&pareto[0]));
        assert!((pareto[25_000] / (60.0 * 2f64.sqrt()) - 1.0).abs() < 0.02, "{}", pareto[25_000]);
        assert!((pareto[49_500] / 600.0 - 1.0).abs() < 0.1, "one in a hundred is longer than ten times the shortest");
        let measured = sorted(&Sessions::Measured(vec![1.0, 1.0, 5.0]));
        assert_eq!((measured[0], measured[49_999]), (1.0, 5.0));
        let fives = measured.iter().filter(|it| **it == 5.0).count() as f64 / 50_000.0;
        assert!((fives - 1.0 / 3.0).abs() < 0.01);
    }

    #[test]
    fn means_are_those_of_what_is_drawn() {
        let measured = Sessions::Measured(vec![1.0, 50.0, 5000.0]);
        for sessions in [
            Sessions::exponential(600.0).unwrap(),
            Sessions::pareto(2.0, 60.0).unwrap(),
            Sessions::pareto(1.0, 60.0).unwrap(),
            Sessions::pareto(0.5, 60.0).unwrap(),
            measured,
        ] {
            for end_s in [30.0, 1000.0] {
                let drawn = sorted(&sessions).iter().map(|it| it.min(end_s)).sum::<f64>() / 50_000.0;
                let mean = sessions.mean_within(end_s);
                assert!((mean / drawn - 1.0).abs() < 0.02, "{sessions:?} within {end_s}: {mean} {drawn}");
            }
        }
    }

    #[test]
    fn traces_are_read() {
        let measured = Sessions::from_csv("node,session_s\na, 1.5\nb,20\n\n").unwrap();
        assert_eq!(measured, Sessions::Measured(vec![1.5, 20.0]));
        let replayed = Sessions::from_csv("start_s,end_s\n0,10\n-5,\n3,4\n").unwrap();
        assert_eq!(replayed, Sessions::Replayed(vec![(0.0, 10.0), (-5.0, FOR_EVER_S), (3.0, 4.0)]));
        assert_eq!(replayed.nodes_at_start(), Some(2));
        assert_eq!(measured.nodes_at_start(), None);
    }

    #[test]
    fn traces_that_make_no_sense_are_refused_with_the_line() {
        for (text, says) in [
            ("", "empty"),
            ("session_s\n", "no session"),
            ("length\n5\n", "head needs"),
            ("session_s\n5\nx\n", "line 3: `x`"),
            ("session_s\n0\n", "line 2"),
            ("session_s\nnan\n", "line 2"),
            ("a,session_s\n5\n", "line 2 has an empty cell"),
            ("start_s,end_s\n0,5\n7,7\n", "line 3: the session ends before"),
            ("start_s,end_s\n1,5\n", "nobody to join"),
        ] {
            let error = Sessions::from_csv(text).expect_err(text).to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
        assert!(Sessions::exponential(0.0).is_err() && Sessions::exponential(f64::NAN).is_err());
        assert!(Sessions::pareto(-1.0, 5.0).is_err() && Sessions::pareto(1.0, f64::INFINITY).is_err());
    }
}
