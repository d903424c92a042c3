//! Watches a ring from outside while a node joins and leaves: `cargo run --example watch`.

use std::collections::BTreeMap;
use std::time::Duration;

use chordal::api::NodeInfo;
use chordal::{Client, Node};

const INTERVAL: Duration = Duration::from_millis(100);

/// What nodes tell of themselves, by their addresses.
type Members = BTreeMap<String, NodeInfo>;

/// The members of the ring, found from successor to successor.
async fn members(client: &Client) -> Members {
    let mut members = Members::new();
    let mut to_ask: Vec<String> = client.nodes().iter().map(|node| node.addr()).collect();
    while let Some(addr) = to_ask.pop() {
        if members.contains_key(&addr) {
            continue;
        }
        // Who does not answer is no member as far as can be seen.
        if let Ok(info) = client.info(&addr).await {
            to_ask.extend(info.successors.iter().map(|node| node.addr()));
            members.insert(addr, info);
        }
    }
    members
}

/// Looks until so many members are ready and nobody else is there, and tells what has changed since it was last here.
async fn watch(client: &Client, before: &mut Members, until: usize) {
    loop {
        let now = members(client).await;
        for (addr, info) in &now {
            let (keys, ready) = (info.keys, if info.ready { "ready" } else { "not ready yet" });
            match before.get(addr) {
                None => println!("+ {} at {addr}, {:.0} % of the ring, {ready}", info.name, info.range.share * 100.0),
                Some(old) if (old.keys, old.ready) != (keys, info.ready) => {
                    println!("  {} at {addr} serves {keys} keys, {ready}", info.name);
                }
                Some(_) => {}
            }
        }
        for (addr, info) in before.iter().filter(|(addr, _)| !now.contains_key(*addr)) {
            println!("- {} at {addr}", info.name);
        }
        *before = now;
        if before.len() == until && before.values().all(|info| info.ready) {
            return;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let first = Node::builder().name("first").start().await?;
    let second = Node::builder().name("second").bootstrap([first.addr()]).start().await?;
    let client = Client::new([first.addr()])?.with_deadline(Duration::from_secs(1));
    let mut seen = Members::new();
    watch(&client, &mut seen, 2).await;

    let third = Node::builder().name("third").bootstrap([second.addr()]).start().await?;
    watch(&client, &mut seen, 3).await;

    third.leave().await?;
    watch(&client, &mut seen, 2).await;
    Ok(())
}
