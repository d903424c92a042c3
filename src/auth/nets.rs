//! Which addresses a node may call: a join names an address, and whoever may ask for one could else have a node call any
//! service of its network.

use std::net::IpAddr;

use ipnet::IpNet;

/// The addresses that a node may call.
#[derive(Debug, Clone)]
pub(crate) enum Nets {
    /// Those in these nets.
    Named(Vec<IpNet>),
    /// Those of the same kinds as the node's own.
    Like(Vec<Reach>),
}

/// From where an address can be reached: the further, the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// Nowhere, or many places at once.
    Nowhere,
    /// This machine.
    Loopback,
    /// The wire; services of clouds for their machines are there too.
    LinkLocal,
    /// A private network.
    Private,
    /// Everywhere.
    Global,
}

impl Nets {
    /// The nets that were named, else what is like the node's own addresses.
    pub(crate) fn new(named: &[IpNet], own: &[IpAddr]) -> Nets {
        if named.is_empty() {
            Nets::Like(own.iter().map(|ip| reach(*ip)).collect())
        } else {
            Nets::Named(named.to_vec())
        }
    }

    /// The nets that were named, else what a node may ask that knows no more of its own address than where it listens: on loopback
    /// others there, elsewhere what is private or global, for it may stand behind a translation.
    pub(crate) fn before_it_knows(named: &[IpNet], listens: IpAddr) -> Nets {
        let listens = listens.to_canonical();
        match (named.is_empty(), listens.is_loopback(), listens.is_unspecified()) {
            (false, ..) => Nets::Named(named.to_vec()),
            (true, true, _) => Nets::Like(vec![Reach::Loopback]),
            (true, false, false) => Nets::Like(vec![Reach::Private, Reach::Global]),
            (true, false, true) => Nets::Like(vec![Reach::Loopback, Reach::Private, Reach::Global]),
        }
    }

    /// Whether the node may call this address.
    pub(crate) fn allow(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        match self {
            Nets::Named(nets) => nets.iter().any(|net| net.contains(&ip)),
            Nets::Like(own) => reach(ip) != Reach::Nowhere && own.contains(&reach(ip)),
        }
    }

    /// Why nothing that this `host:port` leads to may be called. `None` if something may, or if it leads nowhere.
    pub(crate) async fn refused(&self, addr: &str) -> Option<String> {
        let mut found = tokio::net::lookup_host(addr).await.ok()?.map(|addr| addr.ip()).peekable();
        let first = *found.peek()?;
        found.all(|ip| !self.allow(ip)).then(|| self.refusal(first))
    }

    /// Why an address is not called.
    pub(crate) fn refusal(&self, ip: IpAddr) -> String {
        let own = match self {
            Nets::Named(nets) => {
                let nets: Vec<String> = nets.iter().map(IpNet::to_string).collect();
                return format!(
                    "{ip} is not in the nets that this node calls, {}: --allow-net names them",
                    nets.join(" and ")
                );
            }
            Nets::Like(own) => own,
        };
        if own.iter().all(|own| *own == Reach::Loopback) {
            return format!(
                "{ip} is not on this machine, and this node listens on loopback only, so nobody on another machine can call it: \
                 start it with --host and an address of this machine, and with --secret-file or --tls-cert, which such a node needs"
            );
        }
        if reach(ip) == Reach::Loopback {
            return format!(
                "{ip} leads no further than this machine, and this node tells others an address that does: name the other by an \
                 address that all can reach, or start this one with --host {ip} for a ring of this machine alone"
            );
        }
        let own: Vec<&str> = own.iter().map(|own| own.name()).collect();
        format!(
            "{ip} is {}, and this node calls only what is like its own address, {}: --allow-net names other nets",
            reach(ip).name(),
            own.join(" or ")
        )
    }
}

impl Reach {
    fn name(self) -> &'static str {
        match self {
            Reach::Nowhere => "no address of one machine",
            Reach::Loopback => "loopback",
            Reach::LinkLocal => "link-local",
            Reach::Private => "private",
            Reach::Global => "public",
        }
    }
}

/// From where this address can be reached.
pub(crate) fn reach(ip: IpAddr) -> Reach {
    match ip.to_canonical() {
        ip if ip.is_loopback() => Reach::Loopback,
        ip if ip.is_unspecified() || ip.is_multicast() => Reach::Nowhere,
        IpAddr::V4(ip) if ip.is_broadcast() => Reach::Nowhere,
        IpAddr::V4(ip) if ip.is_link_local() => Reach::LinkLocal,
        // 100.64.0.0/10 is what providers keep behind their own translation (RFC 6598).
        IpAddr::V4(ip) if ip.is_private() || matches!(ip.octets(), [100, 64..128, ..]) => Reach::Private,
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Reach::LinkLocal,
        IpAddr::V6(ip) if ip.is_unique_local() => Reach::Private,
        _ => Reach::Global,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_node_calls_what_is_like_itself() {
        let kinds: [&[&str]; 4] = [
            &["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"],
            &["10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd00::1"],
            &["169.254.169.254", "fe80::1", "::ffff:169.254.1.1"],
            &["203.0.113.7", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2001:db8::1"],
        ];
        for (own, mine) in kinds.iter().enumerate() {
            let nets = Nets::new(&[], &[ip(mine[0])]);
            for (other, addresses) in kinds.iter().enumerate() {
                addresses
                    .iter()
                    .for_each(|text| assert_eq!(nets.allow(ip(text)), own == other, "{text} from {}", mine[0]));
            }
            for nowhere in ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "ff02::1"] {
                assert!(!nets.allow(ip(nowhere)));
            }
        }
        assert!(!Nets::new(&[], &[ip("0.0.0.0")]).allow(ip("0.0.0.0")));
    }

    #[test]
    fn a_node_that_knows_no_address_of_its_own_asks_no_services_of_the_wire() {
        let may = |listens: &str, other: &str| Nets::before_it_knows(&[], ip(listens)).allow(ip(other));
        for (listens, asks, never) in [
            ("127.0.0.1", &["127.0.0.1", "::1"][..], &["10.0.0.1", "203.0.113.7", "169.254.169.254"][..]),
            ("192.168.7.2", &["10.0.0.1", "203.0.113.7"], &["127.0.0.1", "169.254.169.254", "fe80::1"]),
            ("0.0.0.0", &["127.0.0.1", "10.0.0.1", "203.0.113.7"], &["169.254.169.254", "0.0.0.0", "224.0.0.1"]),
        ] {
            assert!(asks.iter().all(|other| may(listens, other)), "{listens}");
            assert!(!never.iter().any(|other| may(listens, other)), "{listens}");
        }
        assert!(!Nets::before_it_knows(&["10.1.0.0/16".parse().unwrap()], ip("::")).allow(ip("10.2.0.1")));
    }

    #[test]
    fn who_is_refused_hears_what_to_do() {
        for (own, other, told) in [
            ("127.0.0.1", "10.0.0.6", "listens on loopback only"),
            ("10.0.0.7", "127.0.0.1", "with --host 127.0.0.1"),
            (
                "10.0.0.7",
                "203.0.113.7",
                "203.0.113.7 is public, and this node calls only what is like its own address, private",
            ),
            ("203.0.113.7", "169.254.169.254", "is link-local"),
        ] {
            let refusal = Nets::new(&[], &[ip(own)]).refusal(ip(other));
            assert!(refusal.contains(told), "{refusal}");
        }
    }

    #[test]
    fn nets_that_are_named_are_all() {
        let nets = Nets::new(&["10.1.0.0/16".parse().unwrap()], &[ip("127.0.0.1")]);
        assert!(nets.allow(ip("10.1.2.3")) && nets.allow(ip("::ffff:10.1.2.3")));
        assert!(!nets.allow(ip("10.2.0.1")) && !nets.allow(ip("127.0.0.1")));
        assert!(nets.refusal(ip("127.0.0.1")).contains("10.1.0.0/16"));
    }
}
