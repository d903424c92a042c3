//! Filler text to store: lines of a file, picked at random, no two the same.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use rand::seq::SliceRandom as _;

/// The copy that is always there.
const COMPILED_IN: &str = include_str!("../lipsum.txt");

/// Where lines are looked for if no file is named.
const BESIDE: &str = "lipsum.txt";

/// `count` different values: the file's lines in random order, and when all have been taken, the same again with a number
/// behind them, as in `dolor sit #2`. (Line `x` and a line `x #2` of the file would still clash; such repeats are left out.)
pub(crate) fn pick(named: Option<&Path>, count: usize) -> Result<Vec<String>> {
    let text = match named {
        Some(path) => {
            read(path)?.with_context(|| format!("there is no file {}; name one with --lipsum", path.display()))?
        }
        None => read(Path::new(BESIDE))?.unwrap_or_else(|| COMPILED_IN.to_owned()),
    };
    pick_from(&text, count)
}

fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(error).with_context(|| format!("cannot read {}; name a text file with --lipsum", path.display()))
        }
    }
}

fn pick_from(text: &str, count: usize) -> Result<Vec<String>> {
    let mut seen = HashSet::new();
    let mut lines: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && seen.insert(*line)).collect();
    ensure!(!lines.is_empty(), "the file to take lines from has none; name another with --lipsum");
    let mut picked = Vec::with_capacity(count);
    for round in 1..=count + 1 {
        lines.shuffle(&mut rand::rng());
        for line in &lines {
            if picked.len() == count {
                return Ok(picked);
            }
            match round {
                1 => picked.push((*line).to_owned()),
                _ => {
                    let repeated = format!("{line} #{round}");
                    if !seen.contains(repeated.as_str()) {
                        picked.push(repeated);
                    }
                }
            }
        }
    }
    bail!("the file to take lines from does not yield {count} different ones; name another with --lipsum")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distinct(values: &[String]) -> usize {
        values.iter().collect::<HashSet<_>>().len()
    }

    #[test]
    fn the_copy_compiled_in_is_good_filler() {
        let lines: Vec<&str> = COMPILED_IN.lines().collect();
        assert!(lines.len() >= 120, "{}", lines.len());
        assert_eq!(lines.iter().collect::<HashSet<_>>().len(), lines.len());
        for line in lines {
            assert!((40..=100).contains(&line.len()) && line == line.trim(), "{line}");
        }
    }

    #[test]
    fn all_values_differ_and_lines_come_first() {
        let few = pick_from(COMPILED_IN, 100).unwrap();
        assert!(few.iter().all(|value| COMPILED_IN.lines().any(|line| line == value)));
        assert_eq!((few.len(), distinct(&few)), (100, 100));
        let many = pick_from(COMPILED_IN, 1000).unwrap();
        assert_eq!((many.len(), distinct(&many)), (1000, 1000));
        assert_eq!(pick_from("b\n\n a \nb\n", 2).unwrap().len(), 2);
        let clash = pick_from("x\nx #2", 7).unwrap();
        assert_eq!(distinct(&clash), 7);
        assert!(pick_from(" \n\n", 1).is_err());
    }

    #[test]
    fn only_a_named_file_must_be_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mine.txt");
        let error = pick(Some(&path), 1).unwrap_err();
        assert!(format!("{error:#}").contains("mine.txt"), "{error:#}");
        assert!(pick(Some(directory.path()), 1).is_err());
        std::fs::write(&path, "one\r\ntwo\r\n").unwrap();
        let mut picked = pick(Some(&path), 2).unwrap();
        picked.sort();
        assert_eq!(picked, ["one", "two"]);
    }
}
