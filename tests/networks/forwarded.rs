//! Nodes that have the router forward a port to them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use nix::sys::signal::Signal;

use crate::common::{Daemon, eventually, signal};
use crate::igd::{Igd, Manner};
use crate::world::{PATIENCE, World, keys};

/// What they are told.
const UPNP: [&str; 5] = ["--host", "0.0.0.0", "--port", "4000", "--upnp"];

/// Ends it in order.
fn end(mut node: Daemon) {
    signal(node.child.id().into(), Signal::SIGTERM);
    let ended = eventually("it has ended", PATIENCE, || node.child.try_wait().expect("it can be waited for"));
    assert!(ended.success(), "{ended}: {}", std::fs::read_to_string(&node.log).unwrap_or_default());
}

#[test]
fn a_router_forwards_a_port_as_long_as_the_node_runs() {
    let make = |world: &World| Ok((world.subnet(1)?, world.subnet(2)?, world.translated(3, &[])?));
    let Some((world, (one, two, (gate, home)))) = World::or_skip("a router that forwards ports", make) else { return };
    let gate = Arc::new(gate);
    let router = |manner, taken: &[u16]| Igd::start(&gate, &home.address, manner, taken).expect("there is a router");
    let begun = one.addr();
    let first = world.node(&one, &[]);
    let second = world.node(&two, &["--bootstrap", &begun]);
    let join = [&UPNP[..], &["--bootstrap", &begun]].concat();

    // Nobody forwards anything.
    let ran = world.try_node(&home, &join).err().expect("there is no router");
    assert!(ran.code == Some(1) && ran.stderr.contains("no router answers to --upnp within 4 s"), "{ran:#?}");
    let igd = router(Manner::Strict, &[]);
    let ran = world.try_node(&home, &join).err().expect("it is refused");
    assert!(ran.code == Some(1) && ran.stderr.contains("the router at 192.168.7.1:"), "{ran:#?}");
    drop(igd);
    let igd = router(Manner::Mistaken(Ipv4Addr::new(10, 99, 0, 1)), &[]);
    let ran = world.try_node(&home, &join).err().expect("others see it elsewhere");
    let told = ["its outer address is 10.99.0.1", "others see this node at", &home.address];
    assert!(ran.code == Some(1) && told.iter().all(|text| ran.stderr.contains(text)), "{ran:#?}");
    assert!(igd.forwards().is_empty(), "nothing is left behind: {:?}", igd.forwards());
    drop(igd);

    // It does; the lease is short here, so that it can be seen to be renewed.
    let igd = router(Manner::Obliging, &[]);
    let node = world.node(&home, &[&join[..], &["--upnp-lease", "2", "--data-dir", "home"]].concat());
    assert_eq!(node.addr, format!("{}:4000", home.address));
    let asked = igd.asked("AddPortMapping");
    let says = |name| asked[0].says(name);
    assert_eq!(
        (says("NewInternalClient"), says("NewInternalPort"), says("NewProtocol")),
        ("192.168.7.2", "4000", "TCP")
    );
    assert_eq!((says("NewExternalPort"), says("NewLeaseDuration"), says("NewEnabled")), ("4000", "2", "1"));
    world.is_ready(&one, &node.addr);
    let (out, back) = (keys("out", 3), keys("back", 3));
    world.put_all(&home, &node.addr, &out, "put at home");
    world.finds_all(&two, &two.addr(), &out, "put at home");
    world.put_all(&one, &node.addr, &back, "put outside");
    world.finds_all(&home, &node.addr, &back, "put outside");
    eventually("the lease is renewed twice", PATIENCE, || (igd.asked("AddPortMapping").len() >= 3).then_some(()));
    end(node);
    assert_eq!(
        igd.asked("DeletePortMapping").last().map(|asked| asked.says("NewExternalPort").to_owned()),
        Some("4000".to_owned())
    );
    assert!(igd.forwards().is_empty(), "{:?}", igd.forwards());
    drop(igd);

    // Where the port is taken it gets another one, which it keeps: others know it there.
    let igd = router(Manner::ForEver, &[4000]);
    let place = ["--host", "192.168.7.2", "--port", "4000", "--data-dir", "elsewhere"];
    let elsewhere = [&place[..], &["--upnp", "--bootstrap", &begun]].concat();
    let node = world.node(&home, &elsewhere);
    let addr = node.addr.clone();
    assert!(addr.starts_with(&home.address) && !addr.ends_with(":4000"), "{addr}");
    assert_eq!(
        igd.asked("AddPortMapping").last().map(|asked| asked.says("NewLeaseDuration").to_owned()),
        Some("0".to_owned())
    );
    world.is_ready(&one, &addr);
    world.finds_all(&two, &addr, &back, "put outside");
    // Killed, it leaves the port behind, and takes it again.
    drop(node);
    assert_eq!(igd.forwards().len(), 2);
    let node = world.node(&home, &elsewhere);
    assert_eq!(node.addr, addr);
    end(node);
    assert_eq!(igd.forwards().keys().copied().collect::<Vec<_>>(), [4000]);
    drop((first, second));
}

#[test]
fn the_first_node_of_a_ring_takes_the_routers_word() {
    let make = |world: &World| Ok((world.subnet(1)?, world.translated(2, &[])?));
    let Some((world, (one, (gate, home)))) = World::or_skip("a first node behind a router", make) else { return };
    let gate = Arc::new(gate);
    let _igd = Igd::start(&gate, &home.address, Manner::Obliging, &[]).expect("there is a router");
    let first = world.node(&home, &UPNP);
    assert_eq!(first.addr, home.addr());
    let second = world.node(&one, &["--bootstrap", &first.addr]);
    world.is_ready(&home, &second.addr);
    let both = keys("both", 3);
    world.put_all(&one, &second.addr, &both, "put outside");
    world.finds_all(&home, &first.addr, &both, "put outside");
}
