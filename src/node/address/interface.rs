//! The address of this machine's own interface.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::AddressError;
use crate::auth::{Reach, reach};

/// Addresses of documentation (RFC 5737, RFC 3849), which lie where everything else does. Nothing is sent there.
const FAR: [IpAddr; 2] =
    [IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))];

/// The address of this machine that others are told by somebody who listens at `listens`: the one from which the kernel would send to
/// other networks, or, where it knows no way there, the only one that leads to other machines.
pub(super) fn own_address(listens: IpAddr) -> Result<IpAddr, AddressError> {
    let no_route = match source_address(listens) {
        Ok(ip) => return Ok(ip),
        Err(error) => error,
    };
    let interfaces = if_addrs::get_if_addrs().map_err(|error| AddressError::System(error.to_string()))?;
    only_one(interfaces.iter().map(if_addrs::Interface::ip), listens, &no_route)
}

/// The only one of these addresses that leads to other machines.
fn only_one(
    found: impl IntoIterator<Item = IpAddr>,
    listens: IpAddr,
    no_route: &io::Error,
) -> Result<IpAddr, AddressError> {
    let is_told = |ip: &IpAddr| reach(*ip) >= Reach::Private && (ip.is_ipv4() || listens.is_ipv6());
    let mut leading: Vec<IpAddr> = found.into_iter().filter(is_told).collect();
    leading.sort_unstable();
    leading.dedup();
    match leading[..] {
        [] => Err(AddressError::NoInterface { reason: no_route.to_string() }),
        [ip] => Ok(ip),
        _ => {
            let addrs = leading.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" and ");
            Err(AddressError::Several { addrs })
        }
    }
}

/// The address from which the kernel would send to other networks, of the kinds that somebody who listens at `listens` has.
fn source_address(listens: IpAddr) -> io::Result<IpAddr> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for far in FAR.into_iter().filter(|far| far.is_ipv4() || listens.is_ipv6()) {
        match source_towards(far) {
            Ok(ip) => return Ok(ip),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The address from which the kernel would send there. Connecting a socket for datagrams chooses it, and sends nothing.
pub(crate) fn source_towards(far: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if far.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(SocketAddr::new(far, 9))?;
    Ok(socket.local_addr()?.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(found: &[&str], listens: &str) -> Result<String, String> {
        let found = found.iter().map(|ip| ip.parse().expect("an address"));
        let no_route = io::Error::from(io::ErrorKind::NetworkUnreachable);
        let chosen = only_one(found, listens.parse().expect("an address"), &no_route);
        chosen.map(|ip| ip.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_route_the_only_address_that_leads_to_other_machines_is_told() {
        let found = ["127.0.0.1", "::1", "169.254.3.4", "fe80::1", "10.0.0.6"];
        assert_eq!(chosen(&found, "0.0.0.0"), Ok("10.0.0.6".to_owned()));
        assert_eq!(chosen(&["10.0.0.6", "fd00::6"], "0.0.0.0"), Ok("10.0.0.6".to_owned()));
        assert_eq!(chosen(&["::1", "2001:db8::6"], "::"), Ok("2001:db8::6".to_owned()));
    }

    #[test]
    fn of_several_a_person_names_one() {
        let several = chosen(&["203.0.113.7", "127.0.0.1", "10.0.0.6"], "0.0.0.0").expect_err("there are two");
        assert!(several.contains("10.0.0.6 and 203.0.113.7") && several.contains("--advertise"), "{several}");
        let none = chosen(&["127.0.0.1", "fd00::6"], "0.0.0.0").expect_err("there is none for IPv4");
        assert!(none.contains("no address that others could be told"), "{none}");
    }
}
