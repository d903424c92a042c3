//! A wire between two namespaces that delivers each frame late, and some not at all.
//!
//! Not every kernel has netem, so this is done by hand: in a namespace in the middle the frames of each side are read and, a while
//! later, written to the other.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg32;

use crate::common::namespace::Namespace;

/// How late a frame arrives, on each of the two ways.
const DELAY: Duration = Duration::from_millis(100);

/// How many of a hundred are lost, on each of the two ways.
const LOST: u32 = 5;

/// How many frames may be on one way; what comes then is lost too.
const ON_THE_WAY: usize = 4096;

/// How often those who read look whether the wire is still wanted.
const LOOK: i64 = 50_000;

/// Such a wire, gone when this is dropped.
pub(crate) struct BadWire {
    middle: Namespace,
    is_gone: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl BadWire {
    /// Between new devices of these names in these two namespaces.
    pub(crate) fn between(near: (&Namespace, &str), far: (&Namespace, &str)) -> Result<BadWire, String> {
        let middle = Namespace::new("wire")?;
        for (ours, (namespace, theirs)) in [("near", near), ("far", far)] {
            middle.ip(&["link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", namespace.name()])?;
            // A frame is what a card would send, no longer.
            namespace.ip(&["link", "set", "dev", theirs, "gso_max_segs", "1"])?;
            middle.ip(&["link", "set", "dev", ours, "addrgenmode", "none"])?;
            middle.ip(&["link", "set", ours, "up"])?;
        }
        let open = |device| {
            let end = middle.inside(|| end_of(device));
            end.map(Arc::new).map_err(|error| format!("the wire's end `{device}` cannot be used: {error}"))
        };
        let (near, far) = (open("near")?, open("far")?);
        let mut wire = BadWire { middle, is_gone: Arc::default(), lost: Arc::default(), threads: Vec::new() };
        wire.carry(Arc::clone(&near), Arc::clone(&far), 1);
        wire.carry(far, near, 2);
        Ok(wire)
    }

    fn carry(&mut self, from: Arc<OwnedFd>, to: Arc<OwnedFd>, seed: u64) {
        let (sender, receiver) = sync_channel(ON_THE_WAY);
        let (is_gone, lost) = (Arc::clone(&self.is_gone), Arc::clone(&self.lost));
        self.threads
            .push(std::thread::spawn(move || take(&from, &sender, &is_gone, &lost, Pcg32::seed_from_u64(seed))));
        self.threads.push(std::thread::spawn(move || deliver(&to, &receiver)));
    }

    /// How many frames it has lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for BadWire {
    fn drop(&mut self) {
        self.is_gone.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                println!("a thread of the wire {} has panicked", self.middle.name());
            }
        }
    }
}

/// All that arrives at this device of the namespace in which this is asked.
fn end_of(device: &str) -> nix::Result<OwnedFd> {
    let is_it = |address: nix::ifaddrs::InterfaceAddress| -> Option<LinkAddr> {
        address.address?.as_link_addr().copied().filter(|_| address.interface_name == device)
    };
    let address = nix::ifaddrs::getifaddrs()?.find_map(is_it).ok_or(nix::Error::ENODEV)?;
    let end = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    bind(end.as_raw_fd(), &address)?;
    setsockopt(&end, sockopt::ReceiveTimeout, &TimeVal::new(0, LOOK))?;
    Ok(end)
}

fn take(
    from: &OwnedFd,
    sender: &SyncSender<(Instant, Vec<u8>)>,
    is_gone: &AtomicBool,
    lost: &AtomicU64,
    mut random: Pcg32,
) {
    let mut frame = vec![0; 1 << 16];
    while !is_gone.load(Ordering::Relaxed) {
        // Nothing within the time, or an end that is gone: both are seen by who asks for the end of this.
        let Ok(length) = recv(from.as_raw_fd(), &mut frame, MsgFlags::empty()) else { continue };
        let mut taken = frame[..length].to_vec();
        finish_checksum(&mut taken);
        if random.random_range(0..100) < LOST || sender.try_send((Instant::now() + DELAY, taken)).is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn deliver(to: &OwnedFd, receiver: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((due, frame)) = receiver.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // A device that is down takes none; that is a loss like any other.
        let _ = send(to.as_raw_fd(), &frame, MsgFlags::empty());
    }
}

/// The kernel leaves TCP's checksum to the card, of which there is none here.
fn finish_checksum(frame: &mut [u8]) {
    const ETHERNET: usize = 14;
    let is_tcp = frame.len() > ETHERNET + 20 && frame[12..14] == [8, 0] && frame[ETHERNET + 9] == 6;
    if !is_tcp {
        return;
    }
    let packet = &mut frame[ETHERNET..];
    let (header, length) = (usize::from(packet[0] & 15) * 4, usize::from(u16::from_be_bytes([packet[2], packet[3]])));
    let address = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]).octets();
    let pseudo = [&address(12)[..], &address(16), &[0, 6], &((length - header) as u16).to_be_bytes()].concat();
    let segment = &mut packet[header..length];
    segment[16..18].fill(0);
    let sum = ones_complement(&pseudo) + ones_complement(segment);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    segment[16..18].copy_from_slice(&(!(folded as u16)).to_be_bytes());
}

/// The sum of 16-bit words (RFC 1071), not folded yet.
fn ones_complement(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|word| u64::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]))).sum()
}
