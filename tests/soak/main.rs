//! A ring of real processes under fire for a minute, or, with `make soak`, for an hour: clients put, get, compare and set, and delete a few
//! keys through any node while nodes are killed, started again, paused, cut off, added and removed. All that clients asked and
//! heard is written down and judged: each key must have been one register, whatever happened, and in the end every
//! acknowledged write must be there. docs/soak.md tells how to run it and what came of it.
//!
//! - [`plan`]: what will be done, decided by a seed
//! - [`ring`]: the processes, and what can be done to them
//! - [`nemesis`]: does what is planned
//! - [`clients`] and [`asking`]: who reads and writes, and what answers mean
//! - [`history`], [`judge`] and [`report`]: what was asked and heard, whether it may be, and what people are told
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "../common/mod.rs"]
mod common;

mod asking;
mod clients;
mod history;
mod judge;
mod nemesis;
mod plan;
mod report;
mod ring;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clients::{Client, Nodes};
use common::Place;
use common::namespaces::{Namespaces, Side};
use history::History;
use nemesis::Nemesis;
use report::{Faults, Report};

/// How many clients there are on each side of the wire.
const CLIENTS: u64 = 4;

#[test]
fn a_ring_under_fire_tells_no_lies_and_loses_nothing() {
    let duration = Duration::from_secs(setting("SOAK_SECONDS").unwrap_or(60));
    let seed = setting("SOAK_SEED").unwrap_or_else(|| rand::random::<u32>().into());
    println!("SOAK_SECONDS={} SOAK_SEED={seed}", duration.as_secs());
    let _place = Place::take();
    let (nodes, history) = (Nodes::default(), Arc::new(History::new()));
    let mut nemesis = Nemesis::new(seed, &nodes, &history).unwrap();
    match soak(&mut nemesis, duration, seed, &nodes, &history) {
        Ok(report) => println!("{report}"),
        Err(reason) => {
            let dir = nemesis.ring.keep();
            let file = dir.join("history.ndjson");
            history.save(&file).unwrap();
            panic!("SOAK_SEED={seed}: {reason}\nhistory: {}; logs and data beside it", file.display());
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a whole number, not {text:?}")))
}

/// Has clients read and write while the nemesis does what it has planned, and judges.
fn soak(
    nemesis: &mut Nemesis,
    duration: Duration,
    seed: u64,
    nodes: &Nodes,
    history: &Arc<History>,
) -> Result<Report, String> {
    let over = Arc::new(AtomicBool::new(false));
    let client = |number: u64| {
        let side = if number.is_multiple_of(2) { Side::Left } else { Side::Right };
        let (nodes, history, over) = (Arc::clone(nodes), Arc::clone(history), Arc::clone(&over));
        let run = move || Client::new(number, seed, side, nodes, history).run(&over);
        nemesis.ring.on(side, || std::thread::spawn(run))
    };
    let clients: Vec<_> = (1..=2 * CLIENTS).map(client).collect();
    let ran = nemesis.run(duration);
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().map_err(|_| "a client has panicked".to_owned())?;
    }
    ran?;
    let finals = nemesis.read_all()?;
    if let Some(wrong) = history.wrongs().first() {
        return Err(format!("{} answers that no node may give, the first: {wrong}", history.wrongs().len()));
    }
    let verdict = judge::judge(&history.operations(), finals)?;
    let faults = std::mem::take(&mut nemesis.faults);
    all_has_happened(&faults, nemesis.ring.can_be_cut())?;
    Ok(Report::of(history, faults, verdict))
}

/// A run in which nothing was hurt proves nothing.
fn all_has_happened(faults: &Faults, can_be_cut: bool) -> Result<(), String> {
    let Faults { kills, restarts, pauses, partitions, joins, leaves, disks, .. } = *faults;
    let counts = [kills, restarts, pauses, joins, leaves, disks, if can_be_cut { partitions } else { 1 }];
    if counts.contains(&0) { Err(format!("not every kind of fault has happened: {faults:?}")) } else { Ok(()) }
}

/// Whether a byte comes from one side to a host of the other, and one comes back.
fn gets_through(namespaces: &Namespaces, from: Side, host: u8) -> bool {
    let to = from.other();
    let listener = namespaces.inside(to, || TcpListener::bind((to.host(host), 0)).unwrap());
    let addr = listener.local_addr().unwrap();
    namespaces.inside(from, || {
        let Ok(mut there) = TcpStream::connect_timeout(&addr, Duration::from_millis(500)) else { return false };
        let (mut here, _) = listener.accept().unwrap();
        there.write_all(b"?").unwrap();
        here.write_all(b"!").unwrap();
        there.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        there.read_exact(&mut [0]).is_ok()
    })
}

#[test]
fn what_is_cut_loses_what_it_says_and_nothing_else() {
    let Some(namespaces) = Namespaces::or_skip("what cuts lose") else { return };
    let through = |expected: [bool; 4]| {
        let ways = [(Side::Left, 1), (Side::Left, 2), (Side::Right, 1), (Side::Right, 2)];
        assert_eq!(ways.map(|(from, host)| gets_through(&namespaces, from, host)), expected);
    };
    through([true; 4]);
    namespaces.cut();
    through([false; 4]);
    namespaces.mend();
    // What comes from the right has the right's first address, so that answers go there.
    namespaces.lose(Side::Left, 2, true);
    through([true, false, true, true]);
    namespaces.lose(Side::Left, 1, true);
    through([false; 4]);
    namespaces.lose(Side::Left, 1, false);
    namespaces.lose(Side::Left, 2, false);
    through([true; 4]);
}
