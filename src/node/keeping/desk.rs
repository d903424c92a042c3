//! The state of the thread that keeps content, where it works, and where others may look while it does not.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use chordal_protocol::replica::Operation;

use super::line::Line;
use super::{Job, Work};

/// Where the thread works. Others may use it while it is free, to look.
pub(super) struct Desk(pub(super) Mutex<Option<Work>>);

impl Desk {
    /// The thread: does what waits, until it is closed. If somebody has panicked at the desk it ends, for nobody knows what of
    /// the state holds.
    pub(super) fn run(&self, line: &Line) {
        let _left = Left(self);
        // Here and not where the node starts: it may write a large file.
        match self.0.lock() {
            Ok(mut desk) => desk.iter_mut().for_each(Work::put_fenced_aside),
            Err(_) => return,
        }
        let mut gather_until = Instant::now();
        while let Some(jobs) = line.take(gather_until) {
            let Ok(mut desk) = self.0.lock() else { return };
            let Some(work) = desk.as_mut() else { return };
            if !work.all(jobs) {
                return;
            }
            gather_until = work.gather_until;
        }
    }

    /// Does this at once, if it only looks and the desk is free. Otherwise it is given back.
    pub(super) fn look(&self, job: Job) -> Option<Job> {
        if !looks(&job) {
            return Some(job);
        }
        let mut desk = self.0.try_lock().ok();
        match desk.as_mut().and_then(|desk| desk.as_mut()) {
            Some(work) if !work.line.is_closed() => work.look_at_once(job),
            _ => Some(job),
        }
    }
}

/// Clears the desk when the thread ends, however that comes: whoever waits is told.
struct Left<'a>(&'a Desk);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        let work = self.0.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(work);
    }
}

/// Whether a job may be one that only looks.
fn looks(job: &Job) -> bool {
    matches!(job, Job::Operate { operation: Operation::Get(_), .. } | Job::Hear { .. })
}
