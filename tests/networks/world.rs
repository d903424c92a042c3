//! Networks around a router, and nodes and clients in them.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::bad_wire::BadWire;
use crate::common::namespace::Namespace;
use crate::common::{Daemon, Lab, Ran, eventually, try_exchange};

/// How long a ring over networks may take to be what it should be.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The port that nodes have, each on a host of its own.
pub(crate) const PORT: u16 = 4000;

/// A router, and the directory with the secrets and the data of all nodes.
pub(crate) struct World {
    router: Namespace,
    lab: Lab,
}

/// A machine of a network of its own.
pub(crate) struct Host {
    /// Dropped first: it holds sockets in a namespace of its own.
    wire: Option<BadWire>,
    namespace: Namespace,
    /// Where others reach it, or what stands in front of it.
    pub(crate) address: String,
}

impl World {
    /// Networks for this test, as it makes them; if there can be none, a word on standard error that nobody can miss: the output
    /// of a test that succeeds is not shown.
    pub(crate) fn or_skip<T>(test: &str, make: impl FnOnce(&World) -> Result<T, String>) -> Option<(World, T)> {
        let made = World::new().and_then(|world| {
            let networks = make(&world)?;
            Ok((world, networks))
        });
        made.inspect_err(|reason| {
            let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: no networks of its own for the test: {reason}");
        })
        .ok()
    }

    fn new() -> Result<World, String> {
        let lab = Lab::empty();
        let router = Namespace::new("router")?;
        router.set("ip_forward", "1")?;
        lab.ok(&["secret", "new", "ring.secret", "--client", "client.secret"]);
        Ok(World { router, lab })
    }

    /// A host at 10.N.0.2 behind the router.
    pub(crate) fn subnet(&self, number: u8) -> Result<Host, String> {
        let namespace = Namespace::new(&format!("host{number}"))?;
        self.router.ip(&[
            "link",
            "add",
            &format!("net{number}"),
            "type",
            "veth",
            "peer",
            "name",
            "port",
            "netns",
            namespace.name(),
        ])?;
        self.attach(number, &namespace)?;
        Ok(Host { wire: None, namespace, address: format!("10.{number}.0.2") })
    }

    /// Hosts on one wire, 10.100.0.1 and so on: what one sends to all, all get.
    pub(crate) fn lan(&self, count: u8) -> Result<Vec<Host>, String> {
        self.router.ip(&["link", "add", "lan", "type", "bridge", "mcast_snooping", "0"])?;
        self.router.ip(&["link", "set", "lan", "up"])?;
        let host = |number: u8| {
            let (namespace, plug) = (Namespace::new(&format!("lan{number}"))?, format!("plug{number}"));
            let peer = ["peer", "name", "port", "netns", namespace.name()];
            self.router.ip(&[&["link", "add", &plug, "type", "veth"][..], &peer].concat())?;
            self.router.ip(&["link", "set", &plug, "master", "lan", "up"])?;
            let address = format!("10.100.0.{number}");
            namespace.ip(&["address", "add", &format!("{address}/24"), "dev", "port"])?;
            namespace.ip(&["link", "set", "port", "up"])?;
            namespace.ip(&["link", "set", "lo", "up"])?;
            Ok(Host { wire: None, namespace, address })
        };
        (1..=count).map(host).collect()
    }

    /// The same at the end of a wire that delivers late and loses some.
    pub(crate) fn far_subnet(&self, number: u8) -> Result<Host, String> {
        let namespace = Namespace::new(&format!("host{number}"))?;
        let wire = BadWire::between((&self.router, &format!("net{number}")), (&namespace, "port"))?;
        self.attach(number, &namespace)?;
        Ok(Host { wire: Some(wire), namespace, address: format!("10.{number}.0.2") })
    }

    /// A host at 192.168.7.2, of which the world knows nothing: the gate in front of it has the address 10.N.0.2, lets it out under
    /// that, and forwards these ports of it to others of the host, also if they are used from inside.
    pub(crate) fn translated(&self, number: u8, ports: &[(u16, u16)]) -> Result<(Namespace, Host), String> {
        let Host { namespace: gate, address, .. } = self.subnet(number)?;
        let inside = Namespace::new(&format!("inside{number}"))?;
        gate.set("ip_forward", "1")?;
        gate.ip(&["link", "add", "home", "type", "veth", "peer", "name", "port", "netns", inside.name()])?;
        wire((&gate, "home", "192.168.7.1/24"), (&inside, "port", "192.168.7.2/24"))?;
        inside.ip(&["route", "add", "default", "via", "192.168.7.1"])?;
        let forward =
            |(from, to): &(u16, u16)| format!("ip daddr {address} tcp dport {from} dnat to 192.168.7.2:{to}\n");
        let forwards: String = ports.iter().map(forward).collect();
        let rules = format!(
            "table ip translation {{
                chain in {{ type nat hook prerouting priority dstnat; {forwards} }}
                chain out {{ type nat hook postrouting priority srcnat; ip saddr 192.168.7.0/24 masquerade; }}
            }}"
        );
        gate.run("nft", &["-f", "-"], &rules)?;
        Ok((gate, Host { wire: None, namespace: inside, address }))
    }

    fn attach(&self, number: u8, namespace: &Namespace) -> Result<(), String> {
        let (ours, theirs) = (format!("10.{number}.0.1"), format!("10.{number}.0.2/24"));
        wire((&self.router, &format!("net{number}"), &format!("{ours}/24")), (namespace, "port", &theirs))?;
        namespace.ip(&["route", "add", "default", "via", &ours])
    }

    /// The router loses whatever comes from this subnet or goes there, without a word.
    pub(crate) fn cut(&self, number: u8) {
        self.lose("add", number);
    }

    /// It does so no more.
    pub(crate) fn mend(&self, number: u8) {
        self.lose("del", number);
    }

    fn lose(&self, verb: &str, number: u8) {
        for direction in ["from", "to"] {
            let net = format!("10.{number}.0.0/24");
            self.router
                .ip(&["rule", verb, direction, &net, "pref", "10", "blackhole"])
                .expect("the router's rules change");
        }
    }

    /// A node on a host; on the host's own address if no other is named.
    pub(crate) fn node(&self, host: &Host, more: &[&str]) -> Daemon {
        self.try_node(host, more)
            .unwrap_or_else(|ran| panic!("a node at {} with {more:?} failed: {ran:#?}", host.address))
    }

    /// The same; if it ends instead, how it did.
    pub(crate) fn try_node(&self, host: &Host, more: &[&str]) -> Result<Daemon, Ran> {
        let port = PORT.to_string();
        let place: &[&str] = if more.contains(&"--host") { &[] } else { &["--host", &host.address, "--port", &port] };
        let secret: &[&str] = if more.contains(&"--secret-file") { &[] } else { &["--secret-file", "ring.secret"] };
        let args = [place, secret, more].concat();
        host.namespace.inside(|| Daemon::try_start(self.lab.path(), &args))
    }

    /// Writes a secret file of another ring.
    pub(crate) fn other_secret(&self, name: &str) {
        self.lab.ok(&["secret", "new", name]);
    }

    /// Waits until this node, asked from this host, says that it is ready.
    #[track_caller]
    pub(crate) fn is_ready(&self, from: &Host, addr: &str) {
        let ready = || try_exchange("GET", addr, "/health/ready", None).is_ok_and(|answer| answer.status == 200);
        from.namespace.inside(|| eventually(&format!("{addr} is ready"), PATIENCE, || ready().then_some(())));
    }

    /// `chordal VERB` on this host, with the key of a client, at a node there or elsewhere.
    pub(crate) fn chordal(&self, from: &Host, at: &str, verb: &str, args: &[&str]) -> Ran {
        let (host, port) = at.rsplit_once(':').expect("host:port");
        let mut command = Command::new(env!("CARGO_BIN_EXE_chordal"));
        command.args([verb, "--host", host, "--port", port, "--secret-file", "client.secret"]).args(args);
        command.current_dir(self.lab.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHORDAL_")) {
            command.env_remove(name);
        }
        from.namespace.inside(|| Ran::of(command.output().expect("chordal can be run")))
    }

    /// Puts a value for each of these keys.
    #[track_caller]
    pub(crate) fn put_all(&self, from: &Host, at: &str, keys: &[String], value: &str) {
        for key in keys {
            let put = self.chordal(from, at, "put", &[key, &format!("{key} {value}"), "--timeout", "60s"]);
            assert!(put.ok, "put {key} through {at}: {put:#?}");
        }
    }

    /// Each of these keys has that value.
    #[track_caller]
    pub(crate) fn finds_all(&self, from: &Host, at: &str, keys: &[String], value: &str) {
        for key in keys {
            let found = self.chordal(from, at, "get", &[key, "--timeout", "60s"]);
            assert_eq!(
                (found.ok, found.stdout.as_str()),
                (true, &*format!("{key} {value}")),
                "through {at}: {found:#?}"
            );
        }
    }
}

/// Names of so many keys.
pub(crate) fn keys(called: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{called}/{number}")).collect()
}

impl Host {
    /// How many frames its wire has lost.
    pub(crate) fn lost(&self) -> u64 {
        self.wire.as_ref().map_or(0, BadWire::lost)
    }

    /// Where its node is reached.
    pub(crate) fn addr(&self) -> String {
        format!("{}:{PORT}", self.address)
    }
}

/// Gives both ends of a wire their addresses.
fn wire(one: (&Namespace, &str, &str), other: (&Namespace, &str, &str)) -> Result<(), String> {
    for (namespace, device, address) in [one, other] {
        namespace.ip(&["address", "add", address, "dev", device])?;
        namespace.ip(&["link", "set", device, "up"])?;
        namespace.ip(&["link", "set", "lo", "up"])?;
    }
    Ok(())
}
