//! The README keeps to the truth: its command lines parse, and its tables are those of the programs.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use common::{Daemon, Lab, Place, Ran, Raw, get_json, raw};
use serde_json::{Value, json};

const README: &str = include_str!("../README.md");

/// The programs that the README may call by name.
const PROGRAMS: [(&str, &str); 2] =
    [("tasks", env!("CARGO_BIN_EXE_tasks")), ("chordal", env!("CARGO_BIN_EXE_chordal"))];

/// How the README runs `tasks` without having installed it.
const BY_CARGO: [&str; 4] = ["cargo", "run", "--release", "--"];

fn run(program: &str, arguments: &[&str]) -> Ran {
    let path = PROGRAMS.iter().find(|(name, _)| *name == program).expect("one of our programs").1;
    let mut command = Command::new(path);
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHORDAL_")) {
        command.env_remove(name);
    }
    Ran::of(command.output().expect("it can be run"))
}

fn help_of(program: &str, arguments: &[&str]) -> String {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--help"]).collect();
    let ran = run(program, &arguments);
    assert!(ran.ok, "`{program} {}` is not understood:\n{}", arguments.join(" "), ran.stderr);
    ran.stdout
}

/// The text under a heading, up to the next one.
fn section(heading: &str) -> &'static str {
    let start = README.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section `{heading}`"));
    let text = &README[start + 1..];
    text[1..].find("\n## ").map_or(text, |end| &text[..end + 1])
}

/// The rows of the table in a section, without its head: cells as they stand, code marks taken off.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let rows: Vec<_> = section(heading).lines().filter(|line| line.starts_with('|')).skip(2).map(cells).collect();
    assert!(!rows.is_empty(), "no table in `{heading}`");
    rows
}

/// The command lines in code blocks: in `console` blocks what follows a `$`, in `sh` blocks every line.
fn command_lines() -> Vec<&'static str> {
    let mut lines = Vec::new();
    let mut block = None;
    for line in README.lines() {
        match (line.strip_prefix("```"), block) {
            (Some(kind), None) => block = Some(kind),
            (Some(_), Some(_)) => block = None,
            (None, Some("console")) => lines.extend(line.strip_prefix("$ ")),
            (None, Some("sh")) => lines.push(line),
            (None, _) => {}
        }
    }
    lines
}

/// The simple commands of a line of shell, each as its words: separated by `;`, `|` and `&`, substitutions apart, quotes
/// and comments understood.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands: Vec<Vec<String>> = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ' | ';' | '|' | '&' | '(' | ')') => {
                let command = commands.last_mut().expect("there is always one");
                command.extend(word.take());
                if c != ' ' {
                    commands.push(Vec::new());
                }
            }
            (None, _) => word.get_or_insert_default().push(c),
        }
    }
    commands.last_mut().expect("there is always one").extend(word);
    commands.retain(|command| !command.is_empty());
    commands
}

#[test]
fn every_command_line_is_understood() {
    let mut understood: BTreeMap<&str, usize> = BTreeMap::new();
    for command in command_lines().into_iter().flat_map(commands) {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let words = match words.strip_prefix(&BY_CARGO) {
            Some(rest) => [&["tasks"], rest].concat(),
            None => words,
        };
        if let Some((program, _)) = PROGRAMS.iter().find(|(name, _)| *name == words[0]) {
            help_of(program, &words[1..]);
            *understood.entry(program).or_default() += 1;
        }
    }
    assert!(understood["tasks"] >= 15 && understood["chordal"] >= 2, "few were found: {understood:?}");
}

#[test]
fn the_two_commands_stand_where_newcomers_look() {
    let section = section("The two commands");
    for command in ["cargo run --release -- demo", "cargo test --workspace"] {
        assert!(section.lines().any(|line| line == command), "{command}");
    }
}

#[test]
fn the_table_of_tasks_is_that_of_the_program() {
    let help = help_of("tasks", &[]);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let listed = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let is: BTreeSet<&str> =
        listed.filter_map(|line| line.split_whitespace().next()).filter(|it| *it != "help").collect();
    let told = rows("Tasks");
    let told: BTreeSet<&str> = told.iter().filter_map(|row| row[0].split(' ').nth(1)).collect();
    assert_eq!(told, is);
    for row in rows("Tasks") {
        let name = row[0].split(' ').nth(1).expect("a task");
        let help = help_of("tasks", &[name]);
        let options = row[1].split(|c: char| !(c.is_alphanumeric() || c == '-')).filter(|word| word.starts_with("--"));
        for option in options {
            assert!(help.contains(&format!("{option} ")) || help.contains(&format!("{option}\n")), "{name} {option}");
        }
    }
}

#[test]
fn the_table_of_options_is_that_of_the_daemon() {
    // An option is told over several lines: its name, what it does, [env: NAME=], [default: …].
    let help = help_of("chordal", &["start"]);
    let mut is: BTreeMap<String, (String, Option<String>)> = BTreeMap::new();
    let mut option = String::new();
    for line in help.lines().map(str::trim) {
        let bracketed = |name: &str| line.strip_prefix(&format!("[{name}: ")).and_then(|it| it.strip_suffix(']'));
        if line.starts_with("--") {
            option = line.split([' ', '[']).next().expect("a name").to_owned();
        } else if let Some(variable) = bracketed("env") {
            is.entry(option.clone()).or_default().0 = variable.trim_end_matches('=').to_owned();
        } else if let Some(default) = bracketed("default") {
            is.entry(option.clone()).or_default().1 = Some(default.to_owned());
        }
    }
    let told: BTreeMap<String, Vec<String>> =
        rows("A node by hand").into_iter().map(|row| (row[0].clone(), row)).collect();
    assert_eq!(told.keys().collect::<Vec<_>>(), is.keys().collect::<Vec<_>>());
    for (option, (variable, default)) in is {
        assert_eq!(told[&option][1], variable, "{option}");
        if let Some(default) = default {
            assert_eq!(told[&option][2], default, "{option}");
        }
    }
}

#[test]
fn the_table_of_routes_is_the_map_of_a_node() {
    let _place = Place::take();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let node = Daemon::start(dir.path(), &["--memory"]);
    let map = get_json(&node.addr, "/");
    let path = |text: &str| text.split(['?', ' ']).next().unwrap_or_default().to_owned();
    let routes = map["routes"].as_array().expect("a list of routes").iter();
    let text = |route: &serde_json::Value, field: &str| route[field].as_str().expect("a text").to_owned();
    let find_by_key = ("GET".to_owned(), "/find".to_owned());
    let is: BTreeSet<_> = routes.map(|route| (text(route, "method"), path(&text(route, "path")))).collect();
    let told: BTreeSet<_> = rows("HTTP interface").iter().map(|row| (row[0].clone(), path(&row[1]))).collect();
    assert_eq!(told, is);
    assert!(is.contains(&find_by_key), "{is:?}");
}

/// A command of a `console` block, and what the README says that it prints.
struct Shown {
    command: Vec<String>,
    output: String,
}

/// The commands in the `console` blocks of a section.
fn shown(heading: &str) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    let mut is_inside = false;
    for line in section(heading).lines() {
        match (line.strip_prefix("```"), line.strip_prefix("$ ")) {
            (Some(kind), _) => is_inside = kind == "console",
            (None, Some(command)) if is_inside => {
                let mut commands = commands(command);
                assert_eq!(commands.len(), 1, "one command a line: {line}");
                all.push(Shown { command: commands.remove(0), output: String::new() });
            }
            (None, None) if is_inside => all.last_mut().expect("a command comes first").output += &format!("{line}\n"),
            (None, _) => {}
        }
    }
    all
}

/// Does what curl would do with these words, through this node; whether it would print the head, too.
fn curl(words: &[String], addr: &str) -> (Raw, bool) {
    let (mut method, mut headers, mut body, mut path, mut with_head) = ("GET", Vec::new(), "", "", false);
    let mut words = words.iter().map(String::as_str);
    assert_eq!(words.next(), Some("curl"));
    while let Some(word) = words.next() {
        let mut next = || words.next().unwrap_or_else(|| panic!("{word} needs something"));
        match word {
            "-X" => method = next(),
            "-H" => headers.push(next().split_once(": ").expect("a header")),
            "-d" => body = next(),
            "-i" => with_head = true,
            "-I" => (method, with_head) = ("HEAD", true),
            url => path = url.strip_prefix("127.0.0.1:4000").unwrap_or_else(|| panic!("{url} is no address of node-1")),
        }
    }
    if !body.is_empty() {
        method = if method == "GET" { "POST" } else { method };
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            headers.push(("Content-Type", "application/x-www-form-urlencoded"));
        }
    }
    (raw(method, addr, path, &headers, body.as_bytes()), with_head)
}

/// The tags that stand in a text, in order.
fn tags(text: &str) -> Vec<String> {
    let is_tag = |word: &&str| {
        let halves = word.split_once('-');
        halves.is_some_and(|(epoch, sequence)| epoch.parse::<u64>().is_ok() && sequence.parse::<u64>().is_ok())
    };
    text.split(['"', '\\']).filter(is_tag).map(str::to_owned).collect()
}

/// A text of the README with the tags that it has here.
fn translated(text: &str, here: &BTreeMap<String, String>) -> String {
    // In two steps, for a tag that is one thing there may be another one here.
    let marked = here.keys().enumerate().fold(text.to_owned(), |text, (place, told)| {
        let plain = text.replace(&format!("\"{told}\""), &format!("\"@{place}@\""));
        plain.replace(&format!("\"{told}\\\""), &format!("\"@{place}@\\\""))
    });
    here.values().enumerate().fold(marked, |text, (place, is)| text.replace(&format!("@{place}@"), is))
}

/// The body without what differs from run to run.
fn lasting(body: &str) -> Value {
    let Ok(mut json) = serde_json::from_str::<Value>(body) else { return json!(body.trim_end()) };
    for answer in json.as_array_mut().into_iter().flatten() {
        if let Some(hops) = answer.get_mut("hops") {
            *hops = json!("some");
        }
    }
    json
}

#[test]
fn what_is_said_of_values_over_http_is_what_happens() {
    let lab = Lab::with_nodes(3);
    let addr = lab.addr("node-1");
    // What the README prints as a tag, and what it is here.
    let mut here: BTreeMap<String, String> = BTreeMap::new();
    let examples = shown("Values over HTTP");
    assert!(examples.len() >= 9, "few were found");
    for Shown { command, output } in examples {
        let words: Vec<String> = command.iter().map(|word| translated(word, &here)).collect();
        let (answer, with_head) = curl(&words, &addr);
        let body = String::from_utf8(answer.body.clone()).expect("text");
        let printed = if with_head { format!("{}\n\n{body}", answer.head) } else { body.clone() };
        let (told, is) = (tags(&output), tags(&printed));
        assert_eq!(told.len(), is.len(), "{command:?}: {printed}");
        here.extend(told.into_iter().zip(is));
        let output = translated(&output, &here);
        let expected = if with_head {
            let (head, body) = output.split_once("\n\n").unwrap_or((output.trim_end(), ""));
            let mut lines = head.lines();
            assert_eq!(lines.next(), answer.head.lines().next(), "{command:?}");
            let told: BTreeMap<&str, &str> = lines.map(|line| line.split_once(": ").expect("a header")).collect();
            for (name, value) in &told {
                match *name {
                    "request-id" => assert_eq!(answer.header(name).len(), value.len(), "{command:?}"),
                    // The detail has a tag in it, which may be longer here.
                    "content-length" if body.contains("problems") => assert!(!answer.header(name).is_empty()),
                    name => assert_eq!(answer.header(name), *value, "{command:?}: {name}"),
                }
            }
            let is: BTreeSet<&str> =
                answer.head.lines().skip(1).filter_map(|line| Some(line.split_once(": ")?.0)).collect();
            let all: BTreeSet<&str> = told.keys().copied().chain(["date", "connection"]).collect();
            assert_eq!(is, all, "{command:?}");
            body.to_owned()
        } else {
            output
        };
        assert_eq!(lasting(&body), lasting(&expected), "{command:?}");
    }
}

#[test]
fn what_the_readme_points_to_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let links: Vec<&str> = README
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|link| !link.contains("://"))
        .collect();
    assert!(links.len() >= 10, "{links:?}");
    for link in links {
        let path = link.split('#').next().unwrap_or(link);
        assert!(root.join(path).exists(), "{link}");
    }
}

#[test]
fn shell_lines_are_taken_apart() {
    let line = r#"a "b c" 'd;e' && f $(g --h | i) ; j  # k"#;
    let expected = [vec!["a", "b c", "d;e"], vec!["f", "$"], vec!["g", "--h"], vec!["i"], vec!["j"]];
    assert_eq!(commands(line), expected);
}
