//! The jobs that wait for the thread, and how many of them become one transaction.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use chordal_protocol::keeper;
use chordal_protocol::replica::{self, Operation};

use super::Job;
use crate::store::StoreError;

/// How many jobs may wait, and how many bytes of content in them, but one job in any case.
pub(super) const WAITING_JOBS: usize = 8_192;
pub(super) const WAITING_BYTES: usize = 64 << 20;

/// How many jobs, and how many bytes, become one transaction at most.
pub(super) const GROUP_JOBS: usize = 1_024;
pub(super) const GROUP_BYTES: usize = 8 << 20;

/// How many writes are enough to go at once.
const ENOUGH: usize = 64;

/// The jobs that wait. A queue of our own, because channels count messages, and what has to be bounded here is memory.
#[derive(Default)]
pub(super) struct Line {
    jobs: Mutex<Jobs>,
    arrived: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<(usize, Job)>,
    bytes: usize,
    ticks: usize,
    closed: bool,
    awaited: Awaited,
}

/// For what the thread is to be woken. To wake it for nothing costs more than to write something down.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Awaited {
    /// Nothing: it is at work, and looks for itself when it has done that.
    #[default]
    Nothing,
    /// What does not wait for others, or enough of what does.
    NoDelay,
    Anything,
}

impl Line {
    pub(super) fn push(&self, job: Job) -> Result<(), StoreError> {
        let weight = weight(&job);
        let mut jobs = self.lock();
        if jobs.closed {
            return Err(StoreError::Closed);
        }
        let is_tick = matches!(job, Job::Tick(_));
        // One that waits already is as good.
        if is_tick && jobs.ticks > 0 {
            return Ok(());
        }
        let too_heavy = jobs.bytes + weight > WAITING_BYTES && !jobs.waiting.is_empty();
        if too_heavy || jobs.waiting.len() >= WAITING_JOBS {
            return Err(StoreError::Overloaded);
        }
        jobs.bytes += weight;
        jobs.ticks += usize::from(is_tick);
        let wakes = match jobs.awaited {
            Awaited::Nothing => false,
            Awaited::NoDelay => kind(&job) != Kind::Writes || jobs.waiting.len() + 1 >= ENOUGH,
            Awaited::Anything => true,
        };
        jobs.waiting.push_back((weight, job));
        if wakes {
            jobs.awaited = Awaited::Nothing;
            drop(jobs);
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Waits for jobs, and takes those that become the next transaction. `None` once it is closed and empty.
    ///
    /// Before this time, writes of clients are left in line for others to join them, unless there are [`ENOUGH`] or something
    /// else is to be written that somebody waits for; what only reads does not wait for them.
    pub(super) fn take(&self, gather_until: Instant) -> Option<Vec<Job>> {
        let mut jobs = self.lock();
        loop {
            jobs.awaited = Awaited::Nothing;
            if jobs.waiting.is_empty() {
                if jobs.closed {
                    return None;
                }
                jobs.awaited = Awaited::Anything;
                jobs = self.arrived.wait(jobs).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let left = gather_until.saturating_duration_since(Instant::now());
            if left.is_zero() || jobs.closed || jobs.is_urgent() {
                return Some(jobs.all());
            }
            let reads = jobs.reads();
            if !reads.is_empty() {
                return Some(reads);
            }
            jobs.awaited = Awaited::NoDelay;
            jobs = self.arrived.wait_timeout(jobs, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a job does, as far as can be told from outside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It writes nothing that somebody waits for.
    Reads,
    /// It is a client's write, here or at its primary: others like it can share its way to the disk.
    Writes,
    /// Something that the ring waits for.
    Urgent,
}

impl Jobs {
    /// What waits, the first first, as far as it fits into one transaction.
    fn all(&mut self) -> Vec<Job> {
        let (mut group, mut room) = (Vec::new(), GROUP_BYTES);
        while let Some((weight, job)) = self.waiting.pop_front() {
            if !group.is_empty() && (weight > room || group.len() >= GROUP_JOBS) {
                self.waiting.push_front((weight, job));
                break;
            }
            room = room.saturating_sub(weight);
            self.left(weight, &job);
            group.push(job);
        }
        group
    }

    /// Those that only read, the first first.
    fn reads(&mut self) -> Vec<Job> {
        let (waiting, mut reads) = (std::mem::take(&mut self.waiting), Vec::new());
        for (weight, job) in waiting {
            if kind(&job) == Kind::Reads {
                self.left(weight, &job);
                reads.push(job);
            } else {
                self.waiting.push_back((weight, job));
            }
        }
        reads
    }

    /// Whether something should not wait for others like it. All that comes before it goes with it.
    fn is_urgent(&self) -> bool {
        let writes = |kind: Kind| kind == Kind::Writes;
        let kinds = || self.waiting.iter().map(|(_, job)| kind(job));
        kinds().any(|kind| kind == Kind::Urgent) || kinds().filter(|kind| writes(*kind)).count() >= ENOUGH
    }

    fn left(&mut self, weight: usize, job: &Job) {
        self.bytes -= weight;
        self.ticks -= usize::from(matches!(job, Job::Tick(_)));
    }
}

/// Whether it is a client's write, here or at its primary.
pub(super) fn is_write(job: &Job) -> bool {
    kind(job) == Kind::Writes
}

fn kind(job: &Job) -> Kind {
    match job {
        Job::Operate { operation: Operation::Get(_), .. } | Job::Hear { .. } | Job::Tick(_) => Kind::Reads,
        Job::Operate { operation: Operation::Write(_), .. } => Kind::Writes,
        Job::Serve { request: keeper::Request::Letters { letters, .. }, .. } => {
            let is = |wanted: fn(&replica::Request) -> bool| letters.iter().all(|letter| wanted(&letter.body));
            if is(|it| matches!(it, replica::Request::Confirm { .. })) {
                Kind::Reads
            } else if is(|it| matches!(it, replica::Request::Confirm { .. } | replica::Request::Store { .. })) {
                Kind::Writes
            } else {
                Kind::Urgent
            }
        }
        _ => Kind::Urgent,
    }
}

/// About how many bytes it has.
pub(super) fn weight(job: &Job) -> usize {
    const JOB: usize = 256;
    JOB + match job {
        Job::Serve { request, .. } => request.weight(),
        Job::Hear { reply, .. } => reply.weight(),
        Job::Operate { operation: Operation::Write(write), .. } => {
            write.content.len() + write.key.as_ref().map_or(0, Vec::len)
        }
        Job::State { bytes, .. } => bytes.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use chordal_protocol::keeper::Around;
    use chordal_protocol::{Condition, Content, Id, RequestId, Write};
    use tokio::sync::oneshot;

    use super::*;

    fn get() -> Job {
        Job::Operate { operation: Operation::Get(Id::ZERO), answer: oneshot::channel().0 }
    }

    fn write() -> Job {
        let (id, content) = (Id::ZERO, Content::Tombstone);
        let write = Write { id, key: None, content, condition: Condition::Always, request: RequestId(1) };
        Job::Operate { operation: Operation::Write(write), answer: oneshot::channel().0 }
    }

    fn kinds(jobs: Option<Vec<Job>>) -> Vec<Kind> {
        jobs.into_iter().flatten().map(|job| kind(&job)).collect()
    }

    fn line(jobs: impl IntoIterator<Item = Job>) -> Line {
        let line = Line::default();
        jobs.into_iter().for_each(|job| line.push(job).unwrap());
        line
    }

    #[test]
    fn reads_go_ahead_of_writes_that_wait_for_others() {
        let (line, later) = (line([write(), get(), write()]), Instant::now() + Duration::from_millis(20));
        assert!(kinds(line.take(later)) == [Kind::Reads]);
        assert!(kinds(line.take(later)) == [Kind::Writes, Kind::Writes], "once it is time");
        assert!(Instant::now() >= later);
    }

    #[test]
    fn without_time_to_gather_all_goes_in_its_order() {
        let line = line([write(), get(), write()]);
        assert!(kinds(line.take(Instant::now())) == [Kind::Writes, Kind::Reads, Kind::Writes]);
    }

    #[test]
    fn what_is_urgent_and_what_is_enough_takes_all_with_it() {
        let never = Instant::now() + Duration::from_secs(3600);
        let urgent = line([write(), Job::Leave(true)]);
        assert!(kinds(urgent.take(never)) == [Kind::Writes, Kind::Urgent]);
        let enough = line((0..ENOUGH).map(|_| write()));
        assert_eq!(kinds(enough.take(never)).len(), ENOUGH);
        let closed = line([write()]);
        closed.close();
        assert_eq!(kinds(closed.take(never)).len(), 1);
        assert!(closed.take(never).is_none());
    }

    /// What the thread takes of a line in which it waits already, so, when these come.
    fn woken(line: Line, awaits: Awaited, pushed: impl IntoIterator<Item = Job>) -> Vec<Kind> {
        let never = Instant::now() + Duration::from_secs(3600);
        let (line, (tell, taken)) = (Arc::new(line), mpsc::channel());
        let thread = Arc::clone(&line);
        std::thread::spawn(move || tell.send(kinds(thread.take(never))));
        while line.lock().awaited != awaits {
            std::thread::yield_now();
        }
        pushed.into_iter().for_each(|job| line.push(job).unwrap());
        taken.recv_timeout(Duration::from_secs(20)).expect("it is woken")
    }

    #[test]
    fn the_thread_is_woken_for_what_does_not_wait_for_others() {
        let gathering = |pushed: Vec<Job>| woken(line([write()]), Awaited::NoDelay, pushed);
        assert!(gathering(vec![write(), get()]) == [Kind::Reads]);
        assert!(gathering(vec![write(), Job::Leave(true)]) == [Kind::Writes, Kind::Writes, Kind::Urgent]);
        assert_eq!(gathering((1..ENOUGH).map(|_| write()).collect()).len(), ENOUGH);
        assert!(woken(line([]), Awaited::Anything, [get()]) == [Kind::Reads]);
    }

    #[test]
    fn one_beat_waits_at_a_time_wherever_it_leaves_the_line() {
        let (line, later) = (line([]), Instant::now() + Duration::from_secs(3600));
        for _ in 0..2 {
            line.push(Job::Tick(Around::default())).unwrap();
            line.push(Job::Tick(Around::default())).unwrap();
            assert_eq!(kinds(line.take(later)).len(), 1);
        }
    }
}
