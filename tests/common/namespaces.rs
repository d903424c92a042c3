//! Two networks of the test's own, joined by a wire that can be cut, or lose what goes one way. Each is a network namespace with loopback addresses of
//! its own, which the kernel is told to route to the other; nothing of it can be seen or reached from outside.
//!
//! Only iproute2 is needed, and the right to make namespaces.

use std::io::Write as _;

use super::namespace::Namespace;

/// The two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

impl Side {
    /// Its addresses are 127.0.1.x and 127.0.2.x.
    fn net(self) -> &'static str {
        match self {
            Side::Left => "127.0.1",
            Side::Right => "127.0.2",
        }
    }

    pub(crate) fn other(self) -> Side {
        match self {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }

    /// One of its two addresses.
    pub(crate) fn host(self, number: u8) -> String {
        assert!((1..=2).contains(&number), "each side has two addresses");
        format!("{}.{number}", self.net())
    }

    /// The device towards the other side, and its address on the wire.
    fn device(self) -> (&'static str, &'static str) {
        match self {
            Side::Left => ("bridge", "02:00:00:00:00:01"),
            Side::Right => ("wire", "02:00:00:00:00:02"),
        }
    }
}

/// Two namespaces and the wire between them. Both go when this is dropped.
pub(crate) struct Namespaces {
    made: [Namespace; 2],
}

/// An address on the wire that nobody has.
const NOBODY: &str = "02:00:00:00:00:ff";

impl Namespaces {
    /// Two sides; if there can be none, a word on standard error that nobody can miss: the output of a test that succeeds is not
    /// shown.
    pub(crate) fn or_skip(test: &str) -> Option<Namespaces> {
        match Namespaces::new() {
            Ok(namespaces) => Some(namespaces),
            Err(reason) => {
                let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: no networks of its own for the test: {reason}");
                None
            }
        }
    }

    /// Two sides that reach each other; if this machine does not allow it, why.
    pub(crate) fn new() -> Result<Namespaces, String> {
        let namespaces = Namespaces { made: [Namespace::new("left")?, Namespace::new("right")?] };
        namespaces.wire()?;
        Ok(namespaces)
    }

    /// Runs this on one side: what it starts and whom it asks is there.
    pub(crate) fn inside<T: Send>(&self, side: Side, act: impl FnOnce() -> T + Send) -> T {
        self.of(side).inside(act)
    }

    /// Cuts the wire: whatever is sent from one side to the other is lost without a word.
    pub(crate) fn cut(&self) {
        self.ip(Side::Left, &["link", "set", "port", "nomaster"]).expect("the wire is cut");
    }

    /// Mends it.
    pub(crate) fn mend(&self) {
        self.ip(Side::Left, &["link", "set", "port", "master", "bridge"]).expect("the wire is mended");
    }

    /// Whatever is sent to this host of the other side is lost without a word, or is not any more. What comes from there arrives.
    pub(crate) fn lose(&self, from: Side, host: u8, is_lost: bool) {
        let address = if is_lost { NOBODY } else { from.other().device().1 };
        self.neighbour("replace", from, host, address).expect("the address on the wire is changed");
    }

    fn neighbour(&self, verb: &str, side: Side, host: u8, address: &str) -> Result<(), String> {
        let (host, device) = (side.other().host(host), side.device().0);
        self.ip(side, &["neighbour", verb, &host, "lladdr", address, "dev", device, "nud", "permanent"])
    }

    fn of(&self, side: Side) -> &Namespace {
        match side {
            Side::Left => &self.made[0],
            Side::Right => &self.made[1],
        }
    }

    fn ip(&self, side: Side, args: &[&str]) -> Result<(), String> {
        self.of(side).ip(args)
    }

    /// A bridge on the left whose only port is the wire to the right: without its port the bridge swallows what it is given,
    /// which is a cut that nobody is told of.
    fn wire(&self) -> Result<(), String> {
        for side in [Side::Left, Side::Right] {
            // Addresses of the loopback net may travel here, and come from where they come from.
            self.of(side).set("conf/all/route_localnet", "1")?;
            self.of(side).set("conf/all/rp_filter", "0")?;
            self.ip(side, &["link", "set", "lo", "up"])?;
            // The whole net would be this side's own; it gets two addresses of it.
            self.ip(side, &["address", "del", "127.0.0.1/8", "dev", "lo"])?;
            for number in [1, 2] {
                self.ip(side, &["address", "add", &format!("{}/32", side.host(number)), "dev", "lo"])?;
            }
        }
        let ((bridge, left), (wire, right)) = (Side::Left.device(), Side::Right.device());
        self.ip(Side::Left, &["link", "add", bridge, "address", left, "type", "bridge"])?;
        let peer = ["peer", "name", wire, "address", right, "netns", self.of(Side::Right).name()];
        self.ip(Side::Left, &[&["link", "add", "port", "type", "veth"][..], &peer].concat())?;
        self.ip(Side::Left, &["link", "set", "port", "master", bridge])?;
        self.ip(Side::Left, &["link", "set", "port", "up"])?;
        for side in [Side::Left, Side::Right] {
            let (device, _) = side.device();
            self.ip(side, &["link", "set", device, "up"])?;
            let there = format!("{}.0/24", side.other().net());
            self.ip(side, &["route", "add", &there, "dev", device, "src", &side.host(1)])?;
            for number in [1, 2] {
                // Known for good, so that nobody notices a cut by not finding the neighbour.
                self.neighbour("add", side, number, side.other().device().1)?;
            }
        }
        Ok(())
    }
}
