//! Letters on their way to other keepers: what waits for a node travels together.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use chordal_protocol::{Contact, Reply, Request, keeper};
use tokio::runtime::Handle;

use super::driver::Driver;
use super::keeping::{Job, Moved, Outside};

/// How many messages may be under way to a node at the same time.
const UNDER_WAY: usize = 2;

/// How many bytes of letters travel in one message, but one letter in any case.
const MESSAGE_BYTES: usize = 192 << 10;

/// From how many bytes on a message is large: one such at a time is enough for a node.
const LARGE: usize = 256 << 10;

/// How many bytes may wait for a node. What does not fit is dropped, and asked again with a later beat.
const WAITING_BYTES: usize = 32 << 20;

/// How many letters may wait for a node.
const WAITING_LETTERS: usize = 16_384;

/// Letters that wait, by the address of their receiver.
pub(crate) struct Outbox {
    lines: Mutex<HashMap<String, Line>>,
    driver: OnceLock<Weak<Driver>>,
    runtime: Handle,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<(usize, keeper::Request)>,
    bytes: usize,
    under_way: usize,
    /// How many large messages wait or are under way.
    large: usize,
}

impl Outbox {
    /// To be called within a runtime, which sends the letters.
    pub(crate) fn new() -> Arc<Outbox> {
        Arc::new(Outbox { lines: Mutex::default(), driver: OnceLock::new(), runtime: Handle::current() })
    }

    /// From now on letters are sent by this driver.
    pub(crate) fn connect(&self, driver: &Arc<Driver>) {
        // It is connected once, when the driver is made.
        let _ = self.driver.set(Arc::downgrade(driver));
    }

    fn large_one_arrived(&self, addr: &str) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get_mut(addr) {
            line.large = line.large.saturating_sub(1);
        }
    }

    /// The next message to a node. Without one the line is free.
    fn next(&self, addr: &str) -> Option<keeper::Request> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.get_mut(addr)?;
        let mut together: Option<keeper::Request> = None;
        let mut room = MESSAGE_BYTES;
        while let Some((weight, request)) = line.waiting.pop_front() {
            let fits = weight <= room;
            match (&mut together, request) {
                (None, request) => together = Some(request),
                (
                    Some(keeper::Request::Letters { letters, contacts, .. }),
                    keeper::Request::Letters { letters: more, contacts: others, .. },
                ) if fits => {
                    letters.extend(more);
                    contacts
                        .extend(others.into_iter().filter(|contact| !contacts.contains(contact)).collect::<Vec<_>>());
                }
                (Some(_), request) => {
                    line.waiting.push_front((weight, request));
                    break;
                }
            }
            line.bytes -= weight;
            room = room.saturating_sub(weight);
        }
        if together.is_none() {
            line.under_way -= 1;
            if line.under_way == 0 {
                lines.remove(addr);
            }
        }
        together
    }
}

impl Outside for Arc<Outbox> {
    fn send(&self, to: Contact, request: keeper::Request) {
        let weight = request.weight();
        let begins = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let line = lines.entry(to.addr.clone()).or_default();
            // What is asked again while it is under way, and takes long because it is large, would only take longer.
            let is_large = weight > LARGE;
            if is_large && line.large > 0 {
                return;
            }
            line.large += usize::from(is_large);
            let is_full = line.bytes + weight > WAITING_BYTES || line.waiting.len() >= WAITING_LETTERS;
            if is_full && !line.waiting.is_empty() {
                line.large -= usize::from(is_large);
                return;
            }
            line.bytes += weight;
            line.waiting.push_back((weight, request));
            let begins = line.under_way < UNDER_WAY;
            line.under_way += usize::from(begins);
            begins
        };
        if begins {
            let outbox = Arc::clone(self);
            self.runtime.spawn(async move {
                while let Some(mut request) = outbox.next(&to.addr) {
                    let Some(driver) = outbox.driver.get().and_then(Weak::upgrade) else { return };
                    request.leave_at(driver.keeping.age());
                    let is_large = request.weight() > LARGE;
                    let outcome = driver.ask(&to, Request::Keep(request)).await;
                    // First, for what is heard now may want the next large one sent.
                    if is_large {
                        outbox.large_one_arrived(&to.addr);
                    }
                    if let Ok(Reply::Kept(reply)) = outcome {
                        // Where too much waits it is asked again with a later beat.
                        let _ = driver.keeping.submit(Job::Hear { from: to.clone(), reply });
                    }
                }
            });
        }
    }

    fn moved(&self, moved: Moved) {
        if let Some(driver) = self.driver.get().and_then(Weak::upgrade) {
            driver.happenings.moved(moved);
        }
    }
}
