//! Who listens on a port of this machine, from /proc: for the message to whoever wants that port too.

use std::fmt;
use std::fs;
use std::io;

/// A process that listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortHolder {
    /// The process.
    pub pid: u32,
    /// What the system calls it.
    pub name: String,
}

impl fmt::Display for PortHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, pid {}", self.name, self.pid)
    }
}

/// The state of a socket that listens, in /proc/net/tcp.
const LISTENS: &str = "0A";

impl PortHolder {
    /// Who is behind this failure to listen on a port, if it is taken and that can be seen.
    pub(crate) fn behind(failure: &io::Error, port: u16) -> Option<PortHolder> {
        if failure.kind() == io::ErrorKind::AddrInUse { PortHolder::of(port) } else { None }
    }

    /// Whoever listens on this port, on any address; `None` if that cannot be seen, as for processes of other users.
    fn of(port: u16) -> Option<PortHolder> {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
        let sockets: Vec<String> = tables.iter().flat_map(|table| listeners(table, port)).collect();
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let mut pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
        let pid = pids.find(|pid| has_any(*pid, &sockets))?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let name: String = name.trim_end().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        Some(PortHolder { pid, name })
    }
}

/// What the descriptors of sockets that listen on this port are called. A line has: number, local address as
/// `0100007F:1F90`, remote address, state, queues, timer, retransmissions, user, timeout, inode.
fn listeners(table: &str, port: u16) -> Vec<String> {
    let ending = format!(":{port:04X}");
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let listens = fields.get(1)?.ends_with(&ending) && *fields.get(3)? == LISTENS;
        let inode = *fields.get(9)?;
        listens.then(|| format!("socket:[{inode}]"))
    };
    table.lines().skip(1).filter_map(socket).collect()
}

fn has_any(pid: u32, sockets: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let targets = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    targets.into_iter().any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(PortHolder::of(port).map(|holder| holder.pid), Some(std::process::id()));
    }

    #[test]
    fn only_listeners_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 11 1 0 100\n   \
                     1: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 22 1 0 100\n   \
                     2: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 33 1 0 100\n   \
                     torn";
        assert_eq!(listeners(table, 8080), ["socket:[11]"]);
        assert_eq!(listeners(table, 8081), ["socket:[33]"]);
        assert!(listeners(table, 1).is_empty());
    }
}
