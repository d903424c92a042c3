//! A counter that several tasks raise at once, by compare-and-set: `cargo run --example counter`.

use chordal::{Client, Node, OperationError, Outcome};
use tokio::task::JoinSet;

const TASKS: u64 = 4;
const EACH: u64 = 25;

/// Adds one to the counter, and gives how often somebody else was faster.
async fn raise(client: &Client) -> Result<u64, OperationError> {
    let mut collisions = 0;
    loop {
        let value = client.get("counter").await?;
        let count = value.as_ref().map_or(0, |value| read(&value.bytes));
        let tag = value.map(|value| value.etag);
        if let Outcome::Done(_) = client.compare_and_set("counter", tag, (count + 1).to_string()).await? {
            return Ok(collisions);
        }
        collisions += 1;
    }
}

fn read(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).expect("only numbers are stored there")
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let first = Node::builder().start().await?;
    let second = Node::builder().bootstrap([first.addr()]).start().await?;
    let third = Node::builder().bootstrap([first.addr()]).start().await?;

    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let client = Client::new([first.addr(), second.addr(), third.addr()])?;
        tasks.spawn(async move {
            let mut collisions = 0;
            for _ in 0..EACH {
                collisions += raise(&client).await?;
            }
            Ok::<u64, OperationError>(collisions)
        });
    }
    let mut collisions = 0;
    while let Some(done) = tasks.join_next().await {
        collisions += done??;
    }

    let counter = second.get("counter").await?.ok_or("it was raised above")?;
    println!("{TASKS} tasks raised the counter {EACH} times each: it is {}", read(&counter.bytes));
    println!("{collisions} times a task had to try again because another was faster");
    assert_eq!(read(&counter.bytes), TASKS * EACH);
    Ok(())
}
