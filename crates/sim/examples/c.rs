#![allow(missing_docs)]
use chordal_sim::protocol::*;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let from: u64 = args[1].parse().unwrap();
    let to: u64 = args[2].parse().unwrap();
    let mut setup = Setup { nodes: (1, 24), faults: args[3].parse().unwrap(), content: Some(Default::default()), ..Setup::default() };
    if let Some(n) = args.get(4) { let n: usize = n.parse().unwrap(); setup.nodes = (n, n); }
    if args.get(5).is_some() {
        let o = run(&setup, from, Some(&mut |e: &Entry| if !e.changes.is_empty() || !matches!(e.about, About::Message) { println!("{e}") }));
        println!("{:?}", o.violation);
        return;
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    let s = simulate(&setup, from..to, |_| (), &stop);
    for (seed, v) in s.failures.iter().take(12) { println!("seed {seed}: {v:?}"); }
    println!("unknown {} histories {} lost {} stale {}", s.unknown, s.histories_checked, s.writes_lost, s.stale_reads); println!("runs {} passed {} outside {} failed {} ops {} unav {} ideal {:?} ready {:?} steps {}", s.runs, s.passed, s.assumption_broken, s.failures.len(), s.operations, s.unavailable, s.rounds_to_ideal.spread(), s.rounds_to_ready.spread(), s.steps);
}
