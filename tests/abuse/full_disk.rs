//! Disks without room: what is refused is said to be refused, what was acknowledged is kept, and with room it goes on.
//!
//! Needs to mount a tmpfs, which is root's. Where that cannot be done the tests say so and pass over.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::common::{Daemon, Lab, eventually, get_json};
use crate::support::{PATIENCE, get, post, still_works};

/// A small disk; unmounted when this is dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf, size: &str) -> Option<Disk> {
        std::fs::create_dir(&at).expect("a directory to mount on");
        let mounted = run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", &shown(&at)]);
        if !mounted {
            println!("SKIPPED: a tmpfs cannot be mounted here (that takes root), so full disks are not tested");
            return None;
        }
        Some(Disk(at))
    }

    fn remount(&self, option: &str) {
        assert!(run("mount", &["-o", &format!("remount,{option}"), &shown(&self.0)]), "remount {option}");
    }
}

/// Makes room when it is dropped, so that nobody waits for it where a test fails.
struct Room<'a>(&'a Disk);

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.remount("size=8m");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the node may be about to end.
        run("umount", &["-l", &shown(&self.0)]);
    }
}

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Stores values of decreasing size until not even small ones are taken; returns the keys of those that were.
fn fill(addr: &str) -> Vec<String> {
    let mut kept = Vec::new();
    for size in [50_000, 5_000, 500] {
        for i in 0.. {
            let key = format!("{size}-{i}");
            let answer = post(addr, "/dht/store", &json!({ "key": key, "value": "x".repeat(size) }));
            if answer.status == 200 {
                kept.push(key);
                assert!(i < 1000, "the disk does not get full");
            } else {
                let detail = answer.problem(507);
                assert!(detail.contains("full") && detail.contains("Free some space"), "{detail}");
                break;
            }
        }
    }
    kept
}

#[track_caller]
fn all_there(addr: &str, keys: &[String]) {
    let of = |key: &String| get(addr, &format!("/dht/lookup?key={key}"));
    let missing: Vec<_> = keys.iter().map(|key| (key, of(key))).filter(|(_, answer)| answer.status != 200).collect();
    let what: Vec<_> = missing.iter().map(|(key, answer)| (key, answer.status)).collect();
    let first = missing.first().map(|(_, answer)| answer);
    assert!(missing.is_empty(), "not there through {addr}: {what:?} of {}, the first one: {first:?}", keys.len());
}

#[test]
fn a_full_disk_refuses_loses_nothing_and_goes_on_with_room() {
    let lab = Lab::empty();
    let Some(disk) = Disk::mount(lab.path().join("disk"), "3m") else { return };
    let node = Daemon::start(lab.path(), &["--data-dir", "disk/d"]);
    let kept = fill(&node.addr);
    assert!(kept.len() > 10, "{}", kept.len());
    all_there(&node.addr, &kept);
    let big = json!({ "key": "big", "value": "x".repeat(200_000) });
    for _ in 0..5 {
        post(&node.addr, "/insert", &big).problem(507);
        post(&node.addr, "/dht/store", &big).problem(507);
        get(&node.addr, "/dht/lookup?key=big").problem(404);
    }
    for path in ["/health/ready", "/nodeinfo", "/db"] {
        assert_eq!(get(&node.addr, path).status, 200, "{path}");
    }
    all_there(&node.addr, &kept);
    // With room it goes on by itself.
    disk.remount("size=8m");
    eventually("it stores again", Duration::from_secs(10), || {
        (post(&node.addr, "/dht/store", &big).status == 200).then_some(())
    });
    all_there(&node.addr, &kept);
    still_works(&node.addr);
    // And all is there after a crash.
    let port = node.addr.rsplit_once(':').unwrap().1.to_owned();
    drop(node);
    let again = Daemon::start(lab.path(), &["--data-dir", "disk/d", "--port", &port]);
    all_there(&again.addr, &kept);
    still_works(&again.addr);
}

#[test]
fn a_ring_with_one_full_disk_serves_the_other_keys() {
    let lab = Lab::empty();
    let Some(_disk) = Disk::mount(lab.path().join("disk"), "3m") else { return };
    // Half of the circle is its.
    let poor = Daemon::start(lab.path(), &["--data-dir", "disk/d", "--lab", "--id", "00"]);
    let rich = ["80", "c0"]
        .map(|id| Daemon::start(lab.path(), &["--data-dir", id, "--lab", "--id", id, "--bootstrap", &poor.addr]));
    // Each of them keeps everything. Until then what two keep needs both.
    let all_keep_all = |addr: &String| {
        let views = get_json(addr, "/nodeinfo")["views"].as_array().cloned().unwrap_or_default();
        views.len() == 3 && views.iter().all(|view| view["members"].as_array().map(Vec::len) == Some(3))
    };
    let addrs = [&poor.addr, &rich[0].addr, &rich[1].addr];
    eventually("all three keep everything", PATIENCE, || addrs.iter().all(|addr| all_keep_all(addr)).then_some(()));
    let owner = |key: &str| get(&rich[0].addr, &format!("/find?key={key}")).json()["owner"]["port"].to_string();
    let its_port = poor.addr.rsplit_once(':').unwrap().1;
    let (mut kept, mut full) = (Vec::new(), 0);
    for i in 0..2000 {
        let key = format!("k{i}");
        let is_its = owner(&key) == its_port;
        let answer = post(&rich[i % 2].addr, "/dht/store", &json!({ "key": key, "value": "x".repeat(40_000) }));
        match answer.status {
            200 => kept.push(key),
            _ => {
                assert!(is_its, "the others have room: {answer:?}");
                let detail = answer.problem(507);
                assert!(detail.contains(&poor.addr), "{detail}");
                full += 1;
            }
        }
        if full >= 5 && !is_its {
            break;
        }
    }
    assert!(full >= 5, "its disk did not get full");
    // A read that stands in one group with a write that does not fit is refused with it, and has to be asked again.
    for (addr, key) in addrs.into_iter().flat_map(|addr| kept.iter().map(move |key| (addr, key))) {
        eventually(&format!("{key} is read through {addr}"), PATIENCE, || {
            let answer = get(addr, &format!("/dht/lookup?key={key}"));
            assert!(matches!(answer.status, 200 | 503 | 507), "{answer:?}");
            (answer.status == 200).then_some(())
        });
    }
    let elsewhere = (0..).map(|i| format!("e{i}")).find(|key| owner(key) != its_port).unwrap();
    let answer = post(&poor.addr, "/dht/store", &json!({ "key": elsewhere, "value": "x".repeat(40_000) }));
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn a_ring_that_changes_while_a_disk_is_full_is_whole_when_there_is_room() {
    let lab = Lab::empty();
    let Some(disk) = Disk::mount(lab.path().join("disk"), "3m") else { return };
    let node = Daemon::start(lab.path(), &["--data-dir", "disk/d"]);
    let kept = fill(&node.addr);
    // Who comes is told when it is to keep something, and that has to be written down: it waits until there is room.
    let other = std::thread::scope(|scope| {
        let room = Room(&disk);
        let other = scope.spawn(|| Daemon::start(lab.path(), &["--memory", "--bootstrap", &node.addr]));
        eventually("somebody comes", PATIENCE, || (get(&node.addr, "/pred").status == 200).then_some(()));
        for key in kept.iter().take(10) {
            eventually("it is read from a full disk", PATIENCE, || {
                let answer = get(&node.addr, &format!("/dht/lookup?key={key}"));
                assert!(matches!(answer.status, 200 | 503 | 507), "{answer:?}");
                (answer.status == 200).then_some(())
            });
        }
        drop(room);
        other.join().expect("it has come")
    });
    eventually("both are ready", PATIENCE, || {
        [&node, &other].iter().all(|node| get(&node.addr, "/health/ready").status == 200).then_some(())
    });
    for addr in [&node.addr, &other.addr] {
        all_there(addr, &kept);
        still_works(addr);
    }
}

#[test]
fn a_disk_that_cannot_be_written_is_named_and_left_alone() {
    let lab = Lab::empty();
    let Some(disk) = Disk::mount(lab.path().join("disk"), "4m") else { return };
    let node = Daemon::start(lab.path(), &["--data-dir", "disk/d"]);
    let key = vec!["kept".to_owned()];
    assert_eq!(post(&node.addr, "/dht/store", &json!({ "key": "kept", "value": "v" })).status, 200);
    let port = node.addr.rsplit_once(':').unwrap().1.to_owned();
    drop(node);
    disk.remount("ro");
    for dir in ["disk/d", "disk/new"] {
        let ran = Daemon::try_start(lab.path(), &["--data-dir", dir]).err().expect("it must not start");
        assert!(!ran.ok && ran.stderr.lines().count() == 1, "{ran:?}");
        assert!(ran.stderr.starts_with("chordal: ") && ran.stderr.contains("Read-only file system"), "{ran:?}");
    }
    disk.remount("rw");
    let again = Daemon::start(lab.path(), &["--data-dir", "disk/d", "--port", &port]);
    all_there(&again.addr, &key);
}

/// A disk of its own in a file, which becomes read-only when its file system finds an error: so a disk that fails looks to a node.
struct Failing {
    at: PathBuf,
    device: String,
}

impl Failing {
    fn mount(lab: &Lab) -> Option<Failing> {
        let (file, at) = (lab.path().join("disk.img"), lab.path().join("disk"));
        std::fs::create_dir(&at).expect("a directory to mount on");
        std::fs::File::create(&file).and_then(|file| file.set_len(16 << 20)).expect("a file for the disk");
        let made = run("mkfs.ext4", &["-q", &shown(&file)])
            && run("mount", &["-o", "loop,errors=remount-ro", &shown(&file), &shown(&at)]);
        if !made {
            println!(
                "SKIPPED: no ext4 can be mounted here (that takes root and a loop device), so failing disks are not tested"
            );
            return None;
        }
        let mounts = std::fs::read_to_string("/proc/mounts").expect("there are mounts");
        let of =
            |line: &str| line.contains(&*shown(&at)).then(|| line.split(' ').next().unwrap_or_default().to_owned());
        let device = mounts.lines().find_map(of).expect("it is mounted");
        Some(Failing { at, device })
    }

    /// From now on nothing can be written to it.
    fn fail(&self) {
        let name = self.device.trim_start_matches("/dev/");
        std::fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "1").expect("an error can be triggered");
        let written = std::fs::write(self.at.join("probe"), b"x");
        assert!(written.is_err(), "it is read-only now");
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        run("umount", &["-l", &shown(&self.at)]);
    }
}

#[test]
fn a_disk_that_becomes_read_only_under_a_node_acknowledges_nothing_and_loses_nothing() {
    let lab = Lab::empty();
    let Some(disk) = Failing::mount(&lab) else { return };
    let node = Daemon::start(lab.path(), &["--data-dir", "disk/d"]);
    let store = |key: &str| post(&node.addr, "/dht/store", &json!({ "key": key, "value": format!("value of {key}") }));
    let kept: Vec<String> = (0..20).map(|i| format!("k{i}")).collect();
    kept.iter().for_each(|key| assert_eq!(store(key).status, 200, "{key}"));
    disk.fail();
    let refused = store("new");
    assert!(matches!(refused.status, 500 | 503 | 504), "{refused:?}");
    // What was there is served, or is said not to be available; it is never said to be gone.
    let read = get(&node.addr, "/dht/lookup?key=k1");
    assert!(matches!(read.status, 200 | 500 | 503), "{read:?}");
    assert_eq!(get(&node.addr, "/health/live").status, 200);
    // It is mended, and the node started again.
    let port = node.addr.rsplit_once(':').unwrap().1.to_owned();
    drop(node);
    assert!(run("umount", &[&shown(&disk.at)]), "nobody uses it");
    let file = shown(&lab.path().join("disk.img"));
    run("e2fsck", &["-p", "-f", &file]);
    assert!(run("mount", &["-o", "loop", &file, &shown(&disk.at)]), "it can be mounted again");
    let again = Daemon::start(lab.path(), &["--data-dir", "disk/d", "--port", &port]);
    all_there(&again.addr, &kept);
    get(&again.addr, "/dht/lookup?key=new").problem(404);
    still_works(&again.addr);
}

#[test]
fn a_disk_too_small_to_begin_on_is_said_to_be_full() {
    let lab = Lab::empty();
    let Some(_disk) = Disk::mount(lab.path().join("disk"), "16k") else { return };
    let ran = Daemon::try_start(lab.path(), &["--data-dir", "disk/d"]).err().expect("it must not start");
    assert!(!ran.ok && ran.stderr.lines().count() == 1, "{ran:?}");
    assert!(ran.stderr.contains("the disk of disk/d is full") && ran.stderr.starts_with("chordal: "), "{ran:?}");
}

#[test]
fn tasks_on_a_full_disk_keep_the_state_that_they_have() {
    let lab = Lab::empty();
    let Some(disk) = Disk::mount(lab.path().join("disk"), "16m") else { return };
    let state = shown(&disk.0.join("network_state.json"));
    let on_disk = |args: &[&str]| -> Vec<String> {
        args.iter().chain(&["--state", &state]).map(|arg| (*arg).to_owned()).collect()
    };
    let tasks = |args: &[&str]| {
        let args = on_disk(args);
        lab.tasks(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let end = Ended(&tasks);
    assert!(tasks(&["boot"]).ok);
    assert!(tasks(&["store", "kept"]).ok);
    let before = std::fs::read(&state).unwrap();
    // Something else takes what is left.
    let hog = disk.0.join("hog");
    let mut size = 16 << 20;
    let mut bytes = Vec::new();
    while size > 0 {
        bytes.resize(bytes.len() + size, 0);
        if std::fs::write(&hog, &bytes).is_err() {
            bytes.truncate(bytes.len() - size);
            size /= 2;
        }
    }
    let added = tasks(&["add"]);
    let last = added.stderr.lines().last().unwrap_or_default();
    assert!(!added.ok && last.starts_with("tasks: ") && last.to_lowercase().contains("space"), "{added:#?}");
    assert_eq!(std::fs::read(&state).unwrap(), before);
    assert!(tasks(&["lookup", "kept"]).ok);
    std::fs::remove_file(&hog).unwrap();
    assert!(tasks(&["add"]).ok);
    assert!(tasks(&["doctor", "--wait", "20s"]).ok);
    assert!(tasks(&["lookup", "kept"]).ok);
    drop(end);
}

/// Ends the ring also where a test fails.
struct Ended<'a, R>(&'a dyn Fn(&[&str]) -> R);

impl<R> Drop for Ended<'_, R> {
    fn drop(&mut self) {
        (self.0)(&["killall"]);
    }
}
