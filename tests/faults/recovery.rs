//! Ranges that lose their majority for good, and what an operator does about them.
//!
//! Nodes stand at places of the test's choice, each range is kept by its owner and the two before it, and those who are killed
//! are chosen so that some ranges lose two of the three, or all.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::clients::{PATIENCE, Stored, all_are_found, fill, overwrite};
use crate::common::{Lab, escape, eventually, get, get_json, send, sha256, signal};

/// A ring whose nodes stand at these places (two hex digits each, in order), with everything at all who keep it.
fn ring(places: &[&str]) -> Lab {
    let lab = Lab::empty();
    let (first, more) = places.split_at(2);
    lab.ok(&["boot", "--lab", "--id", &first.join(",")]);
    for place in more {
        lab.ok(&["add", "--lab", "--id", place]);
    }
    settles(&lab);
    lab
}

#[track_caller]
fn settles(lab: &Lab) {
    let content = || lab.tasks(&["doctor", "--only", "content", "--wait", "60s"]);
    let last = content();
    assert!(last.ok, "{last:#?}\n{}", lab.logs());
    eventually("all writes are at all members", PATIENCE, || {
        let seen = lab.json(&["monitor"]);
        let views = seen["views"]["views"].as_array()?.clone();
        views.iter().all(|view| view["lag"] == 0).then_some(())
    });
}

fn at(lab: &Lab, place: &str) -> Value {
    let stands = |node: &&Value| node["id"].as_str().is_some_and(|id| id.starts_with(place));
    lab.nodes().iter().find(stands).unwrap_or_else(|| panic!("nobody stands at {place}")).clone()
}

fn addr(node: &Value) -> String {
    format!("{}:{}", node["host"].as_str().unwrap(), node["port"])
}

/// Kills the nodes at these places at once, so that no repair comes between, and waits until the pointers have closed over them.
fn kill(lab: &Lab, places: &[&str]) -> Vec<Value> {
    let killed: Vec<Value> = places.iter().map(|place| at(lab, place)).collect();
    for node in &killed {
        signal(node["pid"].as_u64().expect("a pid"), Signal::SIGSTOP);
    }
    for node in &killed {
        lab.ok(&["kill", node["name"].as_str().expect("a name")]);
    }
    lab.ok(&["doctor", "--only", "ring", "--wait", "60s"]);
    killed
}

/// Those whose keys lie in `[lo, hi)`, by two hex digits.
fn within(stored: &[Stored], lo: &str, hi: &str) -> Vec<Stored> {
    let lies = |it: &&Stored| {
        let id = sha256(&it.key);
        *lo <= id[..2] && id[..2] < *hi
    };
    stored.iter().filter(lies).cloned().collect()
}

/// The lines of the files to which this node's content has been put aside.
fn put_aside(node: &Value) -> Vec<Value> {
    let directory = std::fs::read_dir(node["data_dir"].as_str().unwrap()).unwrap();
    let paths = directory.map(|entry| entry.unwrap().path());
    let fenced = paths.filter(|path| path.extension().is_some_and(|extension| extension == "ndjson"));
    let text: String = fenced.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_range_without_a_majority_is_listed_and_brought_back_by_hand_with_what_is_left() {
    let lab = ring(&["10", "40", "70", "a0", "d0"]);
    let stored = fill(&lab.addrs(), 60, "key", "before");
    settles(&lab);
    assert_eq!(lab.json(&["recover"]), json!({ "lost": [], "gaps": [] }));
    assert!(lab.fails(&["recover", "--key", "key 1", "--accept-loss"]).contains("needs no recovery"));

    let killed = kill(&lab, &["40", "70"]);
    // [70, a0) is left to 10, and [a0, d0) to a0.
    let lost = [within(&stored, "70", "a0"), within(&stored, "a0", "d0")];
    assert!(lost.iter().all(|some| !some.is_empty()));
    let listed = eventually("two ranges have no majority", PATIENCE, || {
        let listed = lab.json(&["recover"]);
        (listed["lost"].as_array()?.len() == 2).then_some(listed)
    });
    assert_eq!(listed["gaps"], json!([]));
    let doctor = lab.tasks(&["--json", "doctor", "--only", "content"]);
    let verdicts: Value = serde_json::from_str(&doctor.stdout).unwrap();
    let verdict = verdicts["checks"].as_array().unwrap().iter().find(|it| it["name"] == "majority_alive").unwrap();
    assert!(!doctor.ok && verdict["ok"] == false, "{verdicts}");
    for node in &killed {
        let evidence = verdict["evidence"].as_str().unwrap();
        assert!(evidence.contains(&addr(node)), "{evidence}");
    }
    // Whoever is asked names who is missing.
    let owner = at(&lab, "10");
    let key = &lost[0][0].key;
    for through in lab.addrs() {
        let answer = get(&through, &format!("/kv/{}", escape(key)));
        let detail = answer.problem(503, "unavailable")["detail"].as_str().unwrap().to_owned();
        assert!(killed.iter().all(|node| detail.contains(&addr(node))), "{through}: {detail}");
    }

    // Nothing happens by itself, nor by asking.
    let ran = lab.tasks(&["recover", "--key", key]);
    assert!(!ran.ok && ran.stdout.contains(&addr(&owner)) && ran.stderr.contains("--accept-loss"), "{ran:#?}");
    assert!(killed.iter().all(|node| ran.stdout.contains(&addr(node))), "{ran:#?}");
    let range = |lost: &Value| {
        let short = |id: &Value| id.as_str().unwrap()[..8].to_owned();
        format!("{}..{}", short(&lost["range"]["lo"]), short(&lost["range"]["hi"]))
    };
    for wrong in ["x", "70", "70..", "..a0", "77777777..99999999"] {
        lab.fails(&["recover", wrong, "--accept-loss"]);
    }
    assert!(lab.fails(&["recover", "--accept-loss"]).contains("name it"));
    assert!(!lab.json(&["recover"])["lost"].as_array().unwrap().is_empty());

    let listed = listed["lost"].as_array().unwrap();
    for (lost, how) in listed.iter().zip([Some(range(&listed[0])), None]) {
        let key = lost_key(&stored, lost);
        let which = how.as_deref().map_or_else(|| vec!["--key", key.as_str()], |range| vec![range]);
        let done = lab.json(&[&["recover"], &which[..], &["--accept-loss"]].concat());
        let (epoch, before) = (done["recovered"]["epoch"].as_u64().unwrap(), lost["epoch"].as_u64().unwrap());
        assert!(done["recovered"]["forced"] == true && epoch >= before + (1 << 20), "{done}");
        assert_eq!((&done["recovered"]["range"], done["survivors"].as_array().unwrap().len()), (&lost["range"], 1));
    }
    assert!(lab.logs().contains("made by force"), "it is in the log");
    let found = all_are_found(&stored, &lab.addrs());
    settles(&lab);

    // What has been written since stays, whatever comes back.
    let newer = overwrite(&found, &lab.addrs(), "after the loss");
    lab.ok(&["start", "--all"]);
    settles(&lab);
    all_are_found(&newer, &lab.addrs());
    let aside = put_aside(&killed[1]);
    for it in lost.iter().flatten() {
        assert!(aside.contains(&line(it)), "{it:?} is not in the files of {}: {aside:?}", killed[1]);
    }
}

/// A key of a range as it is listed.
fn lost_key(stored: &[Stored], lost: &Value) -> String {
    let bound = |name: &str| lost["range"][name].as_str().unwrap()[..2].to_owned();
    within(stored, &bound("lo"), &bound("hi"))[0].key.clone()
}

fn line(it: &Stored) -> Value {
    json!({ "key": it.key, "value": it.value, "content_type": "text/plain; charset=utf-8" })
}

#[test]
fn a_range_of_which_nothing_is_left_begins_again_empty_and_what_comes_back_is_put_aside() {
    let lab = ring(&["10", "30", "50", "70", "a0", "d0"]);
    let stored = fill(&lab.addrs(), 60, "key", "before");
    settles(&lab);
    let killed = kill(&lab, &["30", "50", "70"]);
    // [70, a0) was kept by all three of them and by nobody else.
    let gone = within(&stored, "70", "a0");
    let key = &gone[0].key;
    let gaps = eventually("nobody has it", PATIENCE, || {
        let gaps = lab.json(&["recover"])["gaps"].as_array()?.clone();
        (gaps.len() == 1).then_some(gaps)
    });
    assert!(gaps[0]["lo"].as_str().unwrap().starts_with("70") && gaps[0]["hi"].as_str().unwrap().starts_with("a0"));
    assert!(lab.fails(&["recover", "--key", key]).contains("--accept-loss"));
    eventually("who asks is told what brings it back", PATIENCE, || {
        let unavailable = get(&lab.addrs()[0], &format!("/kv/{}", escape(key)));
        let problem = unavailable.problem(503, "unavailable");
        problem["detail"].as_str()?.contains("tasks recover").then_some(())
    });
    // Only the owner founds it, and nobody where something is left.
    let wish = json!({ "lo": gaps[0]["lo"], "hi": gaps[0]["hi"], "accept_loss": true });
    let hint = send("POST", &addr(&at(&lab, "d0")), "/recover", &wish).problem(421, "not-mine")["hint"].clone();
    assert_eq!(hint["id"], at(&lab, "10")["id"]);
    let own = get_json(&addr(&at(&lab, "d0")), "/nodeinfo")["range"].clone();
    let kept = json!({ "lo": own["lo"], "hi": own["hi"], "accept_loss": true });
    send("POST", &addr(&at(&lab, "d0")), "/recover", &kept).problem(409, "conflict");
    let unsaid = json!({ "lo": gaps[0]["lo"], "hi": gaps[0]["hi"] });
    send("POST", &addr(&at(&lab, "10")), "/recover", &unsaid).problem(400, "invalid");

    let done = lab.json(&["recover", "--key", key, "--accept-loss"]);
    assert_eq!((&done["recovered"]["forced"], &done["survivors"]), (&json!(true), &json!([])), "{done}");
    for lost in lab.json(&["recover"])["lost"].as_array().unwrap() {
        lab.ok(&["recover", "--key", &lost_key(&stored, lost), "--accept-loss"]);
    }
    settles(&lab);
    for it in &gone {
        get(&lab.addrs()[0], &format!("/kv/{}", escape(&it.key))).problem(404, "no-such-value");
    }
    let newer = overwrite(&gone, &lab.addrs(), "after the loss");
    // All who kept it come back, a majority of the view that they remember.
    lab.ok(&["start", "--all"]);
    settles(&lab);
    all_are_found(&newer, &lab.addrs());
    for node in &killed {
        let aside = put_aside(node);
        assert!(gone.iter().all(|it| aside.contains(&line(it))), "{aside:?}");
    }
}

#[test]
fn nothing_is_forced_while_a_majority_answers() {
    let lab = ring(&["10", "60", "b0"]);
    let stored = fill(&lab.addrs(), 12, "key", "before");
    let node = at(&lab, "60");
    let led = |info: &Value| info["views"].as_array()?.iter().find(|view| view["primary"] == true).cloned();
    let view = led(&get_json(&addr(&node), "/nodeinfo")).expect("it serves what it owns");
    let wish = |epoch: &Value, survivors: Value| {
        let (lo, hi) = (&view["range"]["lo"], &view["range"]["hi"]);
        json!({ "lo": lo, "hi": hi, "epoch": epoch, "survivors": survivors, "accept_loss": true })
    };
    let ask = |wish: &Value| send("POST", &addr(&node), "/recover", wish);
    ask(&wish(&json!(999_999), json!([node["id"]]))).problem(409, "conflict");
    ask(&wish(&view["epoch"], json!(["77".repeat(32)]))).problem(400, "invalid");
    ask(&wish(&Value::Null, json!([node["id"]]))).problem(400, "invalid");
    let detail = ask(&wish(&view["epoch"], json!([node["id"]]))).problem(409, "conflict")["detail"].clone();
    assert!(detail.as_str().unwrap().contains("majority answers"), "{detail}");
    // It serves as before, and may write.
    all_are_found(&stored, &lab.addrs());
    overwrite(&stored, &lab.addrs(), "after that");
    settles(&lab);
    let seen = lab.json(&["monitor"]);
    assert!(seen["views"]["views"].as_array().unwrap().iter().all(|view| view["forced"] == false), "{seen}");
}
