//! Does to the ring what is planned, and looks whether all is served when it is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chordal_sim::history::check;

use crate::clients::{Client, KEYS, Nodes, key};
use crate::common::namespaces::Side;
use crate::history::History;
use crate::plan::{AT_FIRST, Plan, Step};
use crate::report::Faults;
use crate::ring::{PATIENCE, Ring};

/// How long one answer is waited for when all is well. A node gives up after 10 s.
const ANSWER: Duration = Duration::from_secs(15);

/// Whoever does all that, and asks the ring as a client of its own.
pub(crate) struct Nemesis {
    pub(crate) ring: Ring,
    pub(crate) faults: Faults,
    plan: Plan,
    probe: Client,
    history: Arc<History>,
}

impl Nemesis {
    /// A ring, and a plan of what will be done to it.
    pub(crate) fn new(seed: u64, nodes: &Nodes, history: &Arc<History>) -> Result<Nemesis, String> {
        let ring = Ring::start(Arc::clone(nodes), AT_FIRST)?;
        let probe = Client::new(0, seed, Side::Left, Arc::clone(nodes), Arc::clone(history));
        Ok(Nemesis { ring, faults: Faults::default(), plan: Plan::new(seed), probe, history: Arc::clone(history) })
    }

    /// Goes on for so long, and until each kind of round has come equally often.
    pub(crate) fn run(&mut self, duration: Duration) -> Result<(), String> {
        let began = Instant::now();
        while began.elapsed() < duration || !self.plan.is_even() {
            let (round, steps) = self.plan.round();
            self.faults.rounds += 1;
            println!("{:>6.1} s: {round:?}, {steps:?}", began.elapsed().as_secs_f64());
            for step in &steps {
                self.take(step).map_err(|error| format!("round {} ({round:?}): {error}", self.faults.rounds))?;
            }
            // While the logs and the data of what went wrong are still there.
            if self.plan.is_even() {
                check(&self.history.operations()).map_err(|violation| format!("not linearizable: {violation}"))?;
            }
        }
        Ok(())
    }

    fn take(&mut self, step: &Step) -> Result<(), String> {
        let (ring, faults) = (&mut self.ring, &mut self.faults);
        match step {
            Step::Kill(victims) => faults.kills += victims.iter().filter(|victim| ring.kill(**victim)).count(),
            Step::Start(number) => {
                ring.start_again(*number);
                faults.restarts += 1;
            }
            Step::Pause(number) => faults.pauses += usize::from(ring.pause(*number)),
            Step::Resume(number) => ring.resume(*number),
            Step::Cut(cut) => faults.partitions += usize::from(ring.cut(*cut)),
            Step::Mend => ring.mend(),
            Step::Join(number) => {
                ring.join(*number);
                faults.joins += 1;
            }
            Step::Leave(number) => {
                ring.leave(*number);
                faults.leaves += 1;
            }
            Step::LoseDisk(number) => {
                ring.lose_disk(*number)?;
                faults.disks += 1;
            }
            Step::Rest(time) => std::thread::sleep(*time),
            Step::Heal => {
                let began = Instant::now();
                faults.restarts += ring.heal()?;
                let ready = began.elapsed();
                self.all_is_served()?;
                let served = began.elapsed();
                println!(
                    "          ready after {:.1} s, served after {:.1} s",
                    ready.as_secs_f64(),
                    served.as_secs_f64()
                );
                self.faults.longest_healing = self.faults.longest_healing.max(served);
            }
        }
        Ok(())
    }

    /// Waits until each key was read and written.
    fn all_is_served(&mut self) -> Result<(), String> {
        let began = Instant::now();
        let Nemesis { ring, probe, .. } = self;
        let addrs = ring.addrs();
        ring.on(Side::Left, || {
            for number in 0..KEYS {
                let mut tries = addrs.iter().cycle().skip(number);
                let mut until = |what: &str, mut is_done: Box<dyn FnMut(&str) -> bool + '_>| {
                    while !is_done(tries.next().expect("there are nodes")) {
                        if began.elapsed() > PATIENCE {
                            return Err(format!("{PATIENCE:?} after all are ready {:?} is not {what}", key(number)));
                        }
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    Ok(())
                };
                until("read", Box::new(|addr| probe.read(number, addr, ANSWER)))?;
                until("written", Box::new(|addr| probe.put(number, addr, ANSWER)))?;
            }
            Ok(())
        })
    }

    /// Reads each key through each node, when nobody writes any more. Returns from where on these reads stand in the history.
    pub(crate) fn read_all(&mut self) -> Result<usize, String> {
        let first = self.history.len();
        let Nemesis { ring, probe, .. } = self;
        let addrs = ring.addrs();
        ring.on(Side::Left, || {
            for addr in &addrs {
                if let Some(unread) = (0..KEYS).find(|number| !probe.read(*number, addr, ANSWER)) {
                    return Err(format!("{:?} cannot be read through {addr} in the end", key(unread)));
                }
            }
            Ok(first)
        })
    }
}
