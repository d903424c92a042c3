use chordal_sim::protocol::*;
use rayon::prelude::*;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (lo, hi): (usize, usize) = {
        let (a, b) = args[1].split_once("..").unwrap();
        (a.parse().unwrap(), b.parse().unwrap())
    };
    let (a, b): (u64, u64) = {
        let (a, b) = args[2].split_once("..").unwrap();
        (a.parse().unwrap(), b.parse().unwrap())
    };
    let faults: Faults = args[3].parse().unwrap();
    let r: usize = args.get(4).map_or(8, |x| x.parse().unwrap());
    let variant = match args.get(5).map(|x| x.as_str()) {
        Some("2001") => Variant::Stoica2001,
        Some(x) if x.parse::<usize>().is_ok() => {
            Variant::Flawed(chordal_protocol::Flaw::ALL[x.parse::<usize>().unwrap()])
        }
        _ => Variant::Zave,
    };
    let strangers = args.get(6).map_or(0, |x| x.parse().unwrap());
    let mut setup = Setup { nodes: (lo, hi), faults, variant, strangers, ..Setup::default() };
    setup.settings.successors = r;
    if std::env::var("ALL").is_ok() {
        let mut sink = |e: &Entry| println!("{e}");
        let out = run(&setup, a, Some(&mut sink));
        println!("{:?}", out.violation);
        return;
    }
    let t = std::time::Instant::now();
    let outs: Vec<Outcome> = (a..b).into_par_iter().map(|s| run(&setup, s, None)).collect();
    let mut kinds = std::collections::BTreeMap::new();
    let mut broken = 0;
    let mut fine = 0;
    let mut steps = 0;
    let mut sim = 0;
    let mut looks = 0;
    let mut ideal: Vec<u64> = vec![];
    let mut ready: Vec<u64> = vec![];
    let mut ops = (0, 0);
    let mut forked = 0;
    let mut counts = FaultCounts::default();
    for o in &outs {
        steps += o.steps;
        sim += o.simulated;
        looks += o.looks;
        counts.add(&o.faults);
        ops.0 += o.operations.0;
        ops.1 += o.operations.1;
        forked += o.forked;
        if let Some(v) = &o.violation {
            kinds.entry((v.invariant, o.outside.is_some())).or_insert_with(Vec::new).push((
                o.seed,
                o.nodes,
                v.at,
                v.text.clone(),
            ));
        } else if o.outside.is_some() {
            broken += 1
        } else {
            fine += 1;
            if let Some(x) = o.rounds_to_ideal {
                ideal.push(x);
                ready.push(o.rounds_to_ready.unwrap())
            }
        }
    }
    ideal.sort();
    ready.sort();
    let p = |v: &Vec<u64>, q: f64| v.get(((v.len() as f64 * q) as usize).min(v.len().saturating_sub(1))).copied();
    println!(
        "fine {fine} outside {broken} steps {steps} looks {looks} sim {:.0}s real {:.1}s ideal p50 {:?} p99 {:?} max {:?} ready p99 {:?} max {:?} ops {ops:?} forked {forked}",
        sim as f64 / 1e3,
        t.elapsed().as_secs_f64(),
        p(&ideal, 0.5),
        p(&ideal, 0.99),
        ideal.last(),
        p(&ready, 0.99),
        ready.last()
    );
    println!("{:?}", counts.each().collect::<Vec<_>>());
    for (k, v) in kinds {
        println!("{k:?}: {} seeds", v.len());
        for x in v.iter().take(4) {
            println!("    {x:?}");
        }
    }
}
