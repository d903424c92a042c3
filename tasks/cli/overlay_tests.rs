//! What is understood about overlays, and what is not.

use clap::Parser as _;

use super::super::Cli;

fn exit_code(line: &str) -> i32 {
    let words = format!("tasks simulate overlay {line}");
    Cli::try_parse_from(words.split(' ')).map_or_else(|error| error.exit_code(), |_| 0)
}

#[test]
fn overlays_are_understood() {
    let lines = [
        "kademlia",
        "kademlia --nodes 1000 --k 8 --alpha 3 --beta 4 --steps-to-stop 2 --fast-error 1.5 --slow-error 100",
        "kademlia --delay 10..50 --fast-delay 1 --slow-delay 0.5..0.5 --gamma 0.25 --reset-every 10 --timeout 200",
        "chord --mode cached --initiators 3 --successors 1 --virtual 20 --cache 10 --tries 2 --seed 7 --threads 2",
        "chord --churn exponential:60s --duration 10s --refresh 5s --stabilize 500ms --join-rate 2 --leave-rate 0.5",
        "kademlia --churn pareto:1.5:10s --json",
        "kademlia --churn trace:a:b.csv --csv a.csv --plot b.svg",
        "compare --nodes 1_000 --dead 30 --values --lookups 5 --network 3",
        "sweep chord --over nodes --at 256,1024,4096",
        "sweep kademlia --over dead --at 0,10,20.5",
        "bench --sizes 500,1000 --rounds 2 --k 20 --threads 2 --csv a.csv",
        "availability kademlia --blocks 2 --rows 8 --columns 8 --samplers 5 --samples 3 --parallel 4 --withheld 1",
    ];
    for line in lines {
        assert_eq!(exit_code(line), 0, "{line}");
    }
}

#[test]
fn nonsense_about_overlays_is_a_usage_error() {
    let lines = [
        "",
        "pastry",
        "kademlia --k 0",
        "kademlia --nodes 0",
        "kademlia --nodes -5",
        "kademlia --nodes 1e6",
        "kademlia --alpha 0",
        "kademlia --steps-to-stop 0",
        "kademlia --fast-error 101",
        "kademlia --fast-error -1",
        "kademlia --slow-error x",
        "kademlia --delay 50..10",
        "kademlia --delay a..b",
        "kademlia --gamma -1",
        "kademlia --dead 100.1",
        "kademlia --lookups 0",
        "kademlia --threads -1",
        "kademlia --threads 5000",
        "chord --mode flooding",
        "chord --virtual 0",
        "chord --churn forever",
        "chord --churn exponential:0s",
        "chord --churn pareto:1.5",
        "chord --churn pareto:0:10s",
        "chord --churn trace:",
        "chord --join-rate 1",
        "chord --duration 5s",
        "sweep chord --over nodes",
        "sweep chord --at 1",
        "sweep --over nodes --at 1",
        "sweep chord --over colour --at 1",
        "bench --sizes 0",
        "bench --rounds 0",
        "availability",
        "availability kademlia --rows 0",
    ];
    for line in lines {
        assert_eq!(exit_code(line), 2, "{line}");
    }
}
