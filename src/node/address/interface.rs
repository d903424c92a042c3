//! The address of this machine's own interface.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Addresses of documentation (RFC 5737, RFC 3849), which lie where everything else does. Nothing is sent there.
const FAR: [IpAddr; 2] =
    [IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))];

/// The address from which the kernel would send to other networks, of the kinds that somebody who listens at `listens` has.
pub(super) fn source_address(listens: IpAddr) -> io::Result<IpAddr> {
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
