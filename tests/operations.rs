//! docs/operations.md keeps to the truth: its command lines are understood, its tables of errors have what the sources say, and
//! the sources have no typed error that the tables lack.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::Ran;

const PAGE: &str = include_str!("../docs/operations.md");
const UNIT: &str = include_str!("../docs/systemd/chordal-node.service");

/// What stands in for whatever differs from one error to the next.
const DIFFERS: char = '…';

/// The fixed parts of each message in the tables of errors.
fn messages() -> Vec<Vec<&'static str>> {
    let tables = PAGE.split_once("\n## Error messages\n").expect("the page has tables of errors").1;
    let messages = tables.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let parts = |message: &'static str| message.split(DIFFERS).map(str::trim).filter(|part| part.len() > 1).collect();
    messages.map(|(message, _)| parts(message)).collect()
}

/// All that programs say: the sources without their tests, texts that go over several lines put together.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Vec<_> = ["src", "tasks", "crates/protocol/src"]
        .iter()
        .map(|directory| Path::new(env!("CARGO_MANIFEST_DIR")).join(directory))
        .collect();
    while let Some(path) = open.pop() {
        let name = path.display().to_string();
        if path.is_dir() {
            open.extend(path.read_dir().expect("a directory").map(|entry| entry.expect("an entry").path()));
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") && !name.contains("/tests/") {
            let text = std::fs::read_to_string(&path).expect("a source");
            let code = text.split("#[cfg(test)]\nmod tests {").next().expect("there is a first part");
            let joined: Vec<&str> = code.split("\\\n").map(str::trim_start).collect();
            found.push((name, joined.concat()));
        }
    }
    found
}

/// Whether the text has all of these parts, in this order.
fn has(text: &str, parts: &[&str]) -> bool {
    let mut rest = text;
    parts.iter().all(|part| rest.split_once(part).map(|(_, after)| rest = after).is_some())
}

/// The texts of the typed errors.
fn typed(source: &str) -> Vec<String> {
    let literal = |after: &str| {
        let mut text = String::new();
        let mut characters = after.trim_start().strip_prefix('"')?.chars();
        loop {
            match characters.next()? {
                '"' => return Some(text),
                '\\' => text.push(characters.next()?),
                other => text.push(other),
            }
        }
    };
    source.split("#[error(").skip(1).filter_map(literal).collect()
}

/// How many letters are always there.
fn fixed_letters(text: &str) -> usize {
    let outside = text.split('{').flat_map(|part| part.rsplit('}').next());
    outside.flat_map(str::chars).filter(|letter| letter.is_alphabetic()).count()
}

#[test]
fn each_error_that_is_explained_is_in_the_sources() {
    let (messages, sources) = (messages(), sources());
    assert!(messages.len() > 100, "few were found: {}", messages.len());
    for parts in messages {
        assert!(!parts.is_empty(), "a message without anything fixed");
        assert!(sources.iter().any(|(_, text)| has(text, &parts)), "no source says {parts:?}");
    }
}

#[test]
fn each_typed_error_is_explained() {
    let messages = messages();
    let mut seen = 0;
    for (name, text) in sources() {
        for error in typed(&text).into_iter().filter(|error| fixed_letters(error) > 0) {
            seen += 1;
            assert!(messages.iter().any(|parts| has(&error, parts)), "{name}: nothing explains {error:?}");
        }
    }
    assert!(seen > 50, "few were found: {seen}");
}

#[test]
fn its_command_lines_and_that_of_the_unit_are_understood() {
    let blocks = PAGE.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    let in_unit = UNIT.lines().filter_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/"));
    let mut understood = 0;
    for line in blocks.flat_map(str::lines).chain(in_unit) {
        let mut words = line.split(' ');
        let program = match words.next() {
            Some("tasks") => env!("CARGO_BIN_EXE_tasks"),
            Some("chordal") => env!("CARGO_BIN_EXE_chordal"),
            _ => continue,
        };
        let mut command = Command::new(program);
        let ran = Ran::of(command.args(words).arg("--help").stdin(Stdio::null()).output().expect("it can be run"));
        assert!(ran.ok, "`{line}` is not understood: {ran:#?}");
        understood += 1;
    }
    assert!(understood >= 12, "few were found: {understood}");
    for line in UNIT.lines().filter_map(|line| line.split_once("Options go into").map(|(_, rest)| rest)) {
        for name in line.split([' ', ',', ':']).filter(|word| word.starts_with("CHORDAL_")) {
            let mut command = Command::new(env!("CARGO_BIN_EXE_chordal"));
            let help = Ran::of(command.args(["start", "--help"]).output().expect("it can be run")).stdout;
            assert!(help.contains(name), "{name} is no variable of `chordal start`");
        }
    }
}
