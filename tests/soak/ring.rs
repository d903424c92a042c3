//! The ring: processes on two sides of a wire, and what can be done to them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::clients::Nodes;
use crate::common::namespaces::{Namespaces, Side};
use crate::common::{addr_of, signal, try_exchange};
use crate::plan::Cut;

/// Within this all must be well again once everything runs and is reached: on a machine that has much else to do. On one that has
/// not, it takes some seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// The first node's port. Below those that the system gives to connections, so that none of them takes it meanwhile.
const FIRST_PORT: u16 = 9000;

/// How many nodes keep each key.
const COPIES: usize = 3;

/// Nodes and the wire between them. All end when this is dropped.
pub(crate) struct Ring {
    dir: Option<tempfile::TempDir>,
    /// None where the machine allows none: then nothing is ever cut.
    namespaces: Option<Namespaces>,
    nodes: Nodes,
    members: Vec<Member>,
    lost: Vec<(Side, u8)>,
}

struct Member {
    number: usize,
    side: Side,
    addr: String,
    child: Child,
    log: PathBuf,
    /// Whether it was killed and not started again.
    is_dead: bool,
    is_paused: bool,
    /// Whether it was a member of the ring at some moment at which all was well.
    was_member: bool,
    leaving: Option<Leaving>,
}

/// It was asked to leave, and perhaps again.
struct Leaving(Option<JoinHandle<()>>);

impl Ring {
    /// So many nodes, once all of them are ready.
    pub(crate) fn start(nodes: Nodes, count: usize) -> Result<Ring, String> {
        let namespaces = Namespaces::or_skip("partitions between processes");
        let dir = tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))?;
        let mut ring = Ring { dir: Some(dir), namespaces, nodes, members: Vec::new(), lost: Vec::new() };
        for number in 0..count {
            ring.join(number);
            if number == 0 {
                ring.is_well()?;
            }
        }
        ring.is_well()?;
        Ok(ring)
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.as_ref().expect("it is there until the end").path()
    }

    /// Leaves the directory behind, and says where it is.
    pub(crate) fn keep(&mut self) -> PathBuf {
        let path = self.dir().to_owned();
        self.dir.as_mut().expect("it is there until the end").disable_cleanup(true);
        path
    }

    pub(crate) fn can_be_cut(&self) -> bool {
        self.namespaces.is_some()
    }

    /// Runs this on one side, where only that side can be reached while the wire is cut.
    pub(crate) fn on<T: Send>(&self, side: Side, act: impl FnOnce() -> T + Send) -> T {
        match &self.namespaces {
            Some(namespaces) => namespaces.inside(side, act),
            None => act(),
        }
    }

    /// Where all nodes are.
    pub(crate) fn addrs(&self) -> Vec<String> {
        self.members.iter().map(|member| member.addr.clone()).collect()
    }

    /// A new node, which joins through all others.
    pub(crate) fn join(&mut self, number: usize) {
        let (side, host) = place(number);
        let ip = match &self.namespaces {
            Some(_) => side.host(host),
            // An address of the loopback net that is this test's own.
            None => {
                let pid = std::process::id();
                format!("127.{}.{}.{}", 64 + (pid >> 16) % 64, (pid >> 8) % 256, pid % 256)
            }
        };
        let addr = format!("{ip}:{}", FIRST_PORT + number as u16);
        let log = self.dir().join(format!("node-{number}.log"));
        let child = self.spawn(number, side, &addr, &log);
        let member = Member {
            number,
            side,
            addr,
            child,
            log,
            is_dead: false,
            is_paused: false,
            was_member: false,
            leaving: None,
        };
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).push((member.side, member.addr.clone()));
        self.members.push(member);
    }

    fn data_dir(&self, number: usize) -> PathBuf {
        self.dir().join(format!("node-{number}"))
    }

    fn spawn(&self, number: usize, side: Side, addr: &str, log: &Path) -> Child {
        let (host, port) = addr.rsplit_once(':').expect("an address");
        let others: Vec<String> = self.addrs().into_iter().filter(|other| other != addr).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_chordal"));
        command.args(["start", "--host", host, "--port", port, "--name", &format!("node-{number}")]);
        command.arg("--data-dir").arg(self.data_dir(number)).current_dir(self.dir());
        if !others.is_empty() {
            command.args(["--bootstrap", &others.join(",")]);
        }
        let log = File::options().create(true).append(true).open(log).expect("a log can be written");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.on(side, move || command.spawn()).expect("chordal can be run")
    }

    fn member(&mut self, number: usize) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.number == number)
    }

    /// `kill -9`; whether it ran.
    pub(crate) fn kill(&mut self, number: usize) -> bool {
        let Some(member) = self.member(number).filter(|member| !member.is_dead) else { return false };
        let ran = member.child.try_wait().is_ok_and(|ended| ended.is_none());
        member.end();
        // One that has left by itself stays gone.
        member.is_dead = ran || member.leaving.is_none();
        member.is_paused = false;
        ran
    }

    /// Starts a dead node on its disk.
    pub(crate) fn start_again(&mut self, number: usize) {
        let Some(at) = self.members.iter().position(|member| member.number == number && member.is_dead) else { return };
        let Member { side, addr, log, .. } = &self.members[at];
        self.members[at].child = self.spawn(number, *side, addr, log);
        self.members[at].is_dead = false;
    }

    /// SIGSTOP; whether it ran.
    pub(crate) fn pause(&mut self, number: usize) -> bool {
        let Some(member) = self.member(number).filter(|member| !member.is_dead && !member.is_paused) else {
            return false;
        };
        member.is_paused = member.signal(Signal::SIGSTOP);
        member.is_paused
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self, number: usize) {
        if let Some(member) = self.member(number).filter(|member| member.is_paused) {
            member.signal(Signal::SIGCONT);
            member.is_paused = false;
        }
    }

    /// Asks a node to leave, and does not wait for what comes of it.
    pub(crate) fn leave(&mut self, number: usize) {
        let Some(at) = self.members.iter().position(|member| member.number == number) else { return };
        let (side, addr) = (self.members[at].side, self.members[at].addr.clone());
        let ask = move || drop(try_exchange("POST", &addr, "/dht/leave", None));
        self.members[at].leaving = Some(Leaving(Some(self.on(side, || std::thread::spawn(ask)))));
    }

    /// Ends a node and takes its disk away, once all others keep what it keeps.
    pub(crate) fn lose_disk(&mut self, number: usize) -> Result<(), String> {
        self.has_all_copies()?;
        self.kill(number);
        let data = self.data_dir(number);
        std::fs::remove_dir_all(&data).map_err(|error| format!("{}: {error}", data.display()))?;
        self.forget(number);
        Ok(())
    }

    fn forget(&mut self, number: usize) {
        let Some(at) = self.members.iter().position(|member| member.number == number) else { return };
        let gone = self.members.remove(at);
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, addr)| *addr != gone.addr);
    }

    /// Cuts the wire; whether there is one.
    pub(crate) fn cut(&mut self, cut: Cut) -> bool {
        let Some(namespaces) = &self.namespaces else { return false };
        match cut {
            Cut::Whole => namespaces.cut(),
            Cut::From(side) => self.lost.extend([(side, 1), (side, 2)]),
            Cut::FromTo(side, host) => self.lost.push((side, host)),
        }
        for (side, host) in &self.lost {
            namespaces.lose(*side, *host, true);
        }
        true
    }

    pub(crate) fn mend(&mut self) {
        let Some(namespaces) = &self.namespaces else { return };
        namespaces.mend();
        for (side, host) in self.lost.drain(..) {
            namespaces.lose(side, host, false);
        }
    }

    /// Lets everything run and be reached, and waits until who was asked to leave has left and all others are ready. Returns
    /// how many were started again.
    pub(crate) fn heal(&mut self) -> Result<usize, String> {
        self.mend();
        let numbers: Vec<usize> = self.members.iter().map(|member| member.number).collect();
        numbers.iter().for_each(|number| self.resume(*number));
        let dead: Vec<usize> = self.members.iter().filter(|it| it.is_dead).map(|it| it.number).collect();
        dead.iter().for_each(|number| self.start_again(*number));
        self.is_well()?;
        Ok(dead.len())
    }

    fn is_well(&mut self) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let waiting = self.look()?;
            if waiting.is_empty() {
                self.members.iter_mut().for_each(|member| member.was_member = true);
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("{PATIENCE:?} after everything runs: {}", waiting.join("; ")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What is still to come. Fails if a node has ended that nobody has ended.
    fn look(&mut self) -> Result<Vec<String>, String> {
        let mut waiting = Vec::new();
        let numbers: Vec<usize> = self.members.iter().map(|member| member.number).collect();
        for number in numbers {
            let Some(member) = self.member(number) else { continue };
            let is_leaving = member.leaving.is_some();
            match member.child.try_wait() {
                Ok(None) if is_leaving => {
                    waiting.push(format!("node {number} was asked to leave and still runs"));
                    if member.leaving.as_ref().is_some_and(Leaving::was_answered) {
                        self.leave(number);
                    }
                }
                Ok(None) => {
                    let addr = member.addr.clone();
                    let side = member.side;
                    if let Err(reason) = self.on(side, || is_ready(&addr)) {
                        waiting.push(format!("node {number} is not ready: {reason}"));
                    }
                }
                Ok(Some(_)) if is_leaving => self.forget(number),
                Ok(Some(status)) if member.was_member => {
                    let log = std::fs::read_to_string(&member.log).unwrap_or_default();
                    let last: Vec<&str> = log.lines().rev().take(5).collect();
                    return Err(format!("node {number} has ended by itself, {status}; its log ends with {last:#?}"));
                }
                // It could not join while others were hurt, and gave up.
                Ok(Some(_)) => {
                    waiting.push(format!("node {number} has not joined"));
                    member.is_dead = true;
                    self.start_again(number);
                }
                Err(error) => return Err(format!("node {number} cannot be waited for: {error}")),
            }
        }
        Ok(waiting)
    }

    /// Waits until everything is kept by as many as it should be, all of which live.
    fn has_all_copies(&self) -> Result<(), String> {
        let began = Instant::now();
        let addrs = self.addrs();
        loop {
            let lacks = |member: &Member| self.on(member.side, || lacks_copies(&member.addr, &addrs));
            let Some(lacking) = self.members.iter().find_map(lacks) else { return Ok(()) };
            if began.elapsed() > PATIENCE {
                return Err(format!("{PATIENCE:?} after everything runs, not all that should keep it do: {lacking}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.members.iter_mut().for_each(Member::end);
        if std::thread::panicking() {
            println!("logs and data: {}", self.keep().display());
        }
    }
}

impl Member {
    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it ran and has got it.
    fn signal(&mut self, which: Signal) -> bool {
        let runs = self.child.try_wait().is_ok_and(|ended| ended.is_none());
        if runs {
            signal(self.child.id().into(), which);
        }
        runs
    }
}

impl Leaving {
    fn was_answered(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

/// On which side a node stands, and at which of its addresses.
fn place(number: usize) -> (Side, u8) {
    (if number.is_multiple_of(2) { Side::Left } else { Side::Right }, 1 + (number / 2 % 2) as u8)
}

fn is_ready(addr: &str) -> Result<(), String> {
    match try_exchange("GET", addr, "/health/ready", None) {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(answer.body),
        Err(error) => Err(error.to_string()),
    }
}

/// What this node serves with fewer members than there should be, or with other ones than these nodes.
fn lacks_copies(addr: &str, nodes: &[String]) -> Option<String> {
    let answer = try_exchange("GET", addr, "/nodeinfo", None).map_err(|error| error.to_string());
    let info = match answer {
        Ok(answer) if answer.status == 200 => answer.json(),
        answer => return Some(format!("{addr} answers {answer:?}")),
    };
    let whole = |view: &&Value| {
        let members = view["members"].as_array().into_iter().flatten().map(addr_of);
        let live = members.filter(|member| nodes.contains(member)).count();
        view["status"] == "serving" && live == COPIES.min(nodes.len())
    };
    let mut views = info["views"].as_array().into_iter().flatten().filter(|view| view["primary"] == true);
    views.find(|view| !whole(view)).map(|view| format!("{addr} serves {view}"))
}
