//! docs/bootstrap.md keeps to the truth: its options and routes are those of the program.

use std::collections::BTreeSet;
use std::process::Command;

use crate::common::{Lab, Ran, get};
use crate::support::Service;

const PAGE: &str = include_str!("../../docs/bootstrap.md");

/// The first cells of the rows of all tables, with what stands beside them.
fn rows() -> Vec<Vec<&'static str>> {
    let cells =
        |line: &'static str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`')).collect();
    PAGE.lines().filter(|line| line.starts_with("| `")).map(cells).collect()
}

#[test]
fn the_options_are_those_of_the_program() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chordal"));
    let ran = Ran::of(command.args(["bootstrap-service", "--help"]).output().expect("chordal can be run"));
    assert!(ran.ok, "{ran:?}");
    let options = ran.stdout.lines().map(str::trim).filter(|line| line.starts_with("--"));
    let is: BTreeSet<&str> = options.filter_map(|line| line.split(' ').next()).collect();
    let told: BTreeSet<&str> = rows().into_iter().map(|row| row[0]).filter(|it| it.starts_with("--")).collect();
    assert_eq!(told, is);
    for row in rows().into_iter().filter(|row| row[0].starts_with("--")) {
        let defaults = ["5000", "127.0.0.1", "10", "100s", "text"];
        let default = format!("[default: {}]", row[1]);
        assert_eq!(ran.stdout.contains(&default), defaults.contains(&row[1]), "{row:?}");
    }
}

#[test]
fn the_routes_are_served() {
    let lab = Lab::empty();
    let service = Service::start(&lab, &["--pool", "1"]);
    let routes: Vec<&str> = rows().into_iter().filter_map(|row| row[0].strip_prefix("GET ")).collect();
    assert_eq!(routes.len(), 4);
    for route in routes {
        assert_eq!(get(&service.addr, route).status, 200, "{route}");
    }
}
