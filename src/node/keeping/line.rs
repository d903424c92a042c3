//! The jobs that wait for the thread, and how many of them become one transaction.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use chordal_protocol::replica::Operation;

use super::Job;
use crate::store::StoreError;

/// How many jobs may wait, and how many bytes of content in them, but one job in any case.
pub(super) const WAITING_JOBS: usize = 8_192;
pub(super) const WAITING_BYTES: usize = 64 << 20;

/// How many jobs, and how many bytes, become one transaction at most.
pub(super) const GROUP_JOBS: usize = 1_024;
pub(super) const GROUP_BYTES: usize = 8 << 20;

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
        jobs.waiting.push_back((weight, job));
        drop(jobs);
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for jobs, and takes those that become the next transaction. `None` once it is closed and empty.
    pub(super) fn take(&self) -> Option<Vec<Job>> {
        let mut jobs = self.lock();
        while jobs.waiting.is_empty() {
            if jobs.closed {
                return None;
            }
            jobs = self.arrived.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut group, mut room) = (Vec::new(), GROUP_BYTES);
        while let Some((weight, _)) = jobs.waiting.front() {
            if !group.is_empty() && (*weight > room || group.len() >= GROUP_JOBS) {
                break;
            }
            room = room.saturating_sub(*weight);
            if let Some((weight, job)) = jobs.waiting.pop_front() {
                jobs.bytes -= weight;
                jobs.ticks -= usize::from(matches!(job, Job::Tick(_)));
                group.push(job);
            }
        }
        Some(group)
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
