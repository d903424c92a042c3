//! A node in this program, a value in it, and a client that uses it from elsewhere: `cargo run --example basic`.

use chordal::{Client, Node, Outcome};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // On 127.0.0.1, on a free port, in memory, with a ring of its own.
    let node = Node::builder().start().await?;
    println!("{} runs", node.contact());

    let tag = node.put("greeting", "hello").await?;
    println!("stored as version {tag}");
    let value = node.get("greeting").await?.ok_or("it was stored above")?;
    assert_eq!((value.bytes.as_slice(), value.etag), (&b"hello"[..], tag));

    // Another program knows no more than an address.
    let client = Client::new([node.addr()])?;
    match client.compare_and_set("greeting", Some(tag), "hello, ring").await? {
        Outcome::Done(tag) => println!("changed to version {tag}"),
        Outcome::Refused(now) => println!("somebody was faster: {now:?}"),
    }
    // The tag is that of the first version, and the value has changed since.
    let refused = client.compare_and_set("greeting", Some(tag), "too late").await?;
    assert!(matches!(refused, Outcome::Refused(Some(now)) if now != tag));

    assert!(client.delete("greeting").await?);
    assert!(client.get("greeting").await?.is_none());
    node.stop().await;
    Ok(())
}
