//! What `chordal start` is told: one line that says what is wrong and what to do, a non-zero exit, and nothing touched.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{Daemon, Lab, Ran};
use crate::support::{dead_address, get, lone, post, ring_of, still_works};

/// The start must fail; returns the line that says why. What the log says is not counted.
#[track_caller]
fn refused(dir: &Path, args: &[&str]) -> String {
    let ran: Ran = match Daemon::try_start(dir, args) {
        Ok(node) => panic!("{args:?} started {}", node.addr),
        Err(ran) => ran,
    };
    assert!(!ran.ok && ran.code.is_some_and(|code| code == 1 || code == 2), "{args:?}: {ran:?}");
    assert_eq!(ran.stdout, "", "{args:?}");
    let lines: Vec<&str> = ran.stderr.lines().collect();
    let own: Vec<&&str> = lines.iter().filter(|line| line.starts_with("chordal: ")).collect();
    assert_eq!(own.len(), 1, "{args:?}: {ran:?}");
    assert_eq!(lines.last(), Some(own[0]), "{args:?}");
    let is_log = |line: &&str| [" ERROR ", " WARN ", " INFO "].iter().any(|level| line.contains(level));
    assert!(lines[..lines.len() - 1].iter().all(is_log), "{args:?}: {ran:?}");
    (*own[0]).to_owned()
}

#[test]
fn settings_that_make_no_sense_are_refused_in_one_line() {
    let lab = Lab::empty();
    let dir = lab.path();
    let cases: [(&[&str], &str); 22] = [
        (&["--id", "zz", "--lab"], "hex digits"),
        (&["--id", "", "--lab"], "--id"),
        (&["--id", "80"], "--lab"),
        (&["--pred", "127.0.0.1:1"], "--lab"),
        (&["--succ", "127.0.0.1:1"], "--lab"),
        (&["--lab", "--succ", "127.0.0.1:1", "--bootstrap", "127.0.0.1:1"], "not both"),
        (&["--host", "0.0.0.0"], "127.0.0.1"),
        (&["--host", "::"], "127.0.0.1"),
        (&["--host", "192.0.2.1"], "127.0.0.1"),
        (&["--host", "nowhere.invalid"], "cannot listen"),
        (&["--port", "99999"], "0..=65535"),
        (&["--port", "-1"], "-1"),
        (&["--bootstrap", "junk"], "127.0.0.1:9000"),
        (&["--bootstrap", ""], "127.0.0.1:9000"),
        (&["--bootstrap", "127.0.0.1:0"], "127.0.0.1:9000"),
        (&["--value-limit", "0"], "from 1 to"),
        (&["--value-limit", "18446744073709551615"], "from 1 to"),
        (&["--value-limit", "many"], "from 1 to"),
        (&["--stabilize-interval", "1"], "10..=60000"),
        (&["--routing", "fast"], "linear, fingers and cached"),
        (&["--name", "two\nlines"], "line breaks"),
        (&["--data-dir", "d"], "cannot be used with"),
    ];
    for (args, says) in cases {
        let args: Vec<&str> = ["--memory"].iter().chain(args).copied().collect();
        let line = refused(dir, &args);
        assert!(line.contains(says), "{args:?}: {line}");
    }
    assert!(!dir.join("data").exists() && !dir.join("d").exists(), "nothing was begun");
}

#[test]
fn a_taken_port_is_said_to_be_taken() {
    let lab = Lab::empty();
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = lone(lab.path());
    let taken = [stranger.local_addr().unwrap().port().to_string(), node.addr.rsplit_once(':').unwrap().1.to_owned()];
    for port in taken {
        for place in [["--memory", "--memory"].as_slice(), &["--data-dir", "d"]] {
            let args: Vec<&str> = ["--port", &port].into_iter().chain(place[..].iter().copied()).collect();
            let args: Vec<&str> = if place[0] == "--memory" { vec!["--port", &port, "--memory"] } else { args };
            let line = refused(lab.path(), &args);
            assert!(line.contains("Another program has that port") && line.contains("--port"), "{line}");
        }
    }
    still_works(&node.addr);
}

#[test]
fn a_data_directory_is_one_nodes() {
    let lab = Lab::empty();
    let node = Daemon::start(lab.path(), &["--data-dir", "d"]);
    still_works(&node.addr);
    let line = refused(lab.path(), &["--data-dir", "d"]);
    assert!(line.contains("in use by another node"), "{line}");
    still_works(&node.addr);
    let values = |addr: &str| get(addr, "/db").json()["items"].clone();
    let (before, addr) = (values(&node.addr), node.addr.clone());
    drop(node);
    let port = addr.rsplit_once(':').unwrap().1;
    for other in [["--port", "1"], ["--advertise", "127.0.0.1:1"], ["--id", "80"], ["--host", "localhost"]] {
        let args: Vec<&str> = ["--data-dir", "d", "--lab"].into_iter().chain(other).collect();
        let line = refused(lab.path(), &args);
        assert!(line.contains("belongs to") && line.contains(&addr), "{args:?}: {line}");
    }
    // Nothing of it was touched: it goes on where it belongs.
    let again = Daemon::start(lab.path(), &["--data-dir", "d", "--port", port]);
    assert_eq!(again.addr, addr);
    assert_eq!(values(&addr), before);
}

#[test]
fn data_that_is_damaged_newer_or_something_else_is_left_alone() {
    let lab = Lab::empty();
    let path = |name: &str| lab.path().join(name);
    let node = Daemon::start(lab.path(), &["--data-dir", "good"]);
    still_works(&node.addr);
    drop(node);
    let good = std::fs::read(path("good/store.redb")).unwrap();
    let damaged = |name: &str, bytes: &[u8]| {
        std::fs::create_dir(path(name)).unwrap();
        std::fs::write(path(name).join("store.redb"), bytes).unwrap();
    };
    damaged("empty", b"");
    damaged("text", b"this is a text");
    damaged("zeros", &vec![0; 1 << 20]);
    // A file has room to grow at its end, so that what is cut off there may be nothing: a few pages cannot be all.
    damaged("cut", &good[..5 * 4096]);
    damaged("short", &good[..100]);
    let mut no_pages = good.clone();
    no_pages[4096..].fill(0xa5);
    damaged("no-pages", &no_pages);
    newer(&path("newer"), &path("good"));
    std::fs::create_dir_all(path("directory/store.redb")).unwrap();
    std::fs::write(path("file"), b"x").unwrap();
    let cases = [
        ("empty", "damaged"),
        ("text", "damaged"),
        ("zeros", "damaged"),
        ("cut", "damaged"),
        ("short", "damaged"),
        ("no-pages", "damaged"),
        ("newer", "newer version"),
        ("directory", "cannot be opened"),
        ("file", "cannot be used"),
        ("/proc/nowhere", "cannot be used"),
    ];
    for (name, says) in cases {
        // The second time must not be any different: the first has not tried to repair what it does not understand.
        for _ in 0..2 {
            let line = refused(lab.path(), &["--data-dir", name]);
            assert!(line.contains(says), "{name}: {line}");
        }
    }
    assert_eq!(std::fs::read(path("file")).unwrap(), b"x");
}

/// A copy of a good store that says that it has a format of the future.
fn newer(to: &Path, from: &Path) {
    std::fs::create_dir(to).expect("a store can be edited");
    std::fs::copy(from.join("store.redb"), to.join("store.redb")).expect("a store can be edited");
    let database = redb::Database::open(to.join("store.redb")).expect("a store can be edited");
    let transaction = database.begin_write().expect("a store can be edited");
    let about = redb::TableDefinition::<&str, u64>::new("about");
    transaction
        .open_table(about)
        .expect("a store can be edited")
        .insert("format", 1000)
        .expect("a store can be edited");
    transaction.commit().expect("a store can be edited");
}

#[test]
fn joining_nobody_ends_in_time_and_says_so() {
    let lab = Lab::empty();
    let (dead, began) = (dead_address(), Instant::now());
    let line = refused(lab.path(), &["--memory", "--bootstrap", &dead]);
    assert!(line.contains("could not join") && line.contains(&dead) && line.contains("running there"), "{line}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_node_does_not_join_itself() {
    let lab = Lab::empty();
    let addr = dead_address();
    let port = addr.rsplit_once(':').unwrap().1;
    let line = refused(lab.path(), &["--memory", "--port", port, "--bootstrap", &addr]);
    assert!(line.contains("through itself"), "{line}");
}

#[test]
fn a_placed_node_is_not_taken_by_a_ring_that_places_nobody() {
    let lab = Lab::empty();
    let node = lone(lab.path());
    let line = refused(lab.path(), &["--memory", "--id", "80", "--bootstrap", &node.addr]);
    assert!(line.contains("--lab"), "{line}");
    still_works(&node.addr);
    // And a place that is taken is not given twice.
    let school = Daemon::start(lab.path(), &["--memory", "--lab", "--id", "80"]);
    let line = refused(lab.path(), &["--memory", "--lab", "--id", "80", "--bootstrap", &school.addr]);
    assert!(line.contains("already stands at this id"), "{line}");
    still_works(&school.addr);
    let _pupil = Daemon::start(lab.path(), &["--memory", "--lab", "--id", "40", "--bootstrap", &school.addr]);
    let line = refused(lab.path(), &["--memory", "--lab", "--id", "40", "--bootstrap", &school.addr]);
    assert!(line.contains("already stands at this id"), "{line}");
    still_works(&school.addr);
}

#[test]
fn contacts_of_two_rings_make_a_member_of_one_and_merge_nothing() {
    let lab = Lab::empty();
    let (one, two) = (lone(lab.path()), lone(lab.path()));
    for node in [&one, &two] {
        assert_eq!(post(&node.addr, "/dht/store", &json!({ "value": node.addr })).status, 200);
    }
    let (first, second) = (ring_of(&one.addr), ring_of(&two.addr));
    let both = format!("{},{}", one.addr, two.addr);
    let joiner = Daemon::start(lab.path(), &["--memory", "--bootstrap", &both]);
    assert_eq!(ring_of(&joiner.addr), first);
    assert_eq!((ring_of(&one.addr), ring_of(&two.addr)), (first, second));
    get(&joiner.addr, &format!("/dht/lookup?value={}", two.addr)).problem(404);
    assert_eq!(get(&joiner.addr, &format!("/dht/lookup?value={}", one.addr)).status, 200);
    assert_eq!(get(&two.addr, "/succ").status, 404, "it is alone");
    still_works(&two.addr);
}
