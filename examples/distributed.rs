//! Five nodes that keep a hundred values, of which one leaves and one dies: `cargo run --example distributed`.

use chordal::{Client, Node};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let first = Node::builder().name("node-1").start().await?;
    let mut nodes = vec![first];
    for number in 2..=5 {
        let contact = nodes[0].addr();
        nodes.push(Node::builder().name(format!("node-{number}")).bootstrap([contact]).start().await?);
    }
    for node in &nodes {
        node.ready().await?;
    }

    let client = Client::new(nodes.iter().map(Node::addr))?;
    for number in 0..100 {
        client.put(format!("key {number}"), format!("value {number}")).await?;
    }
    for node in &nodes {
        let info = node.info().await?;
        println!("{} serves {} of 100 values and knows {} successors", info.name, info.keys, info.successors.len());
    }

    // It hands over what it has.
    let leaver = nodes.remove(1);
    println!("{} leaves", leaver.contact());
    leaver.leave().await?;
    // This one is gone at once, as if it had crashed. Each value is kept by three nodes, so none is lost.
    println!("{} dies", nodes[1].contact());
    drop(nodes.remove(1));

    for number in 0..100 {
        let value = client.get(format!("key {number}")).await?.ok_or("it was stored above")?;
        assert_eq!(value.bytes, format!("value {number}").into_bytes());
    }
    println!("all 100 values are there; the client knows {} nodes by now", client.nodes().len());
    for node in nodes {
        node.stop().await;
    }
    Ok(())
}
