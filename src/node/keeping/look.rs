//! What only looks: reads, and the answers that confirm them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chordal_protocol::Time;
use chordal_protocol::keeper::Step;
use chordal_protocol::replica::Operation;

use super::{Job, Work};

/// From when on a look has taken long: its content was not in memory, and the disk is slow.
const LONG: Duration = Duration::from_millis(5);

/// For how long reads are left to the thread then.
const PAUSE: Duration = Duration::from_millis(100);

impl Work {
    /// Does this for somebody who must not wait for the disk, or gives it back.
    pub(super) fn look_at_once(&mut self, job: Job) -> Option<Job> {
        let begun = Instant::now();
        let reads = matches!(job, Job::Operate { .. });
        if reads && self.asks_the_thread_until.is_some_and(|until| begun < until) {
            return Some(job);
        }
        let left = self.look(vec![job]).pop();
        if reads && begun.elapsed() > LONG {
            self.asks_the_thread_until = Some(begun + LONG + PAUSE);
        }
        left
    }

    /// Does those of these, from the first on, that only look, and lets go at once what comes of it: it rests on what is durable
    /// already. What is left is given back.
    pub(super) fn look(&mut self, jobs: Vec<Job>) -> Vec<Job> {
        let rests_on_the_disk = !self.must_persist && self.doubt.is_none() && self.steps_down.is_empty();
        if !rests_on_the_disk || !jobs.first().is_some_and(|job| self.only_looks(job)) {
            return jobs;
        }
        let now = self.time();
        let (mut jobs, mut step, mut begun) = (jobs.into_iter().peekable(), Step::default(), Vec::new());
        let looked = Arc::clone(&self.store).look(&mut |content| {
            while let Some(job) = jobs.next_if(|job| self.only_looks(job)) {
                let more = match job {
                    Job::Operate { operation: Operation::Get(id), answer } => {
                        let token = self.waiting.begin(id, answer);
                        begun.push(token);
                        self.keeper.read(&content, now, token, &id)
                    }
                    Job::Hear { from, reply } => self.keeper.hear_acknowledgements(&content, now, &from, &reply),
                    _ => Step::default(),
                };
                step.calls.extend(more.calls);
                step.answers.extend(more.answers);
            }
        });
        if let Err(error) = looked {
            for token in begun {
                if let Some((_, answer)) = self.waiting.end(token) {
                    // Who has stopped waiting need not be told.
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
        self.deliver(step.calls, step.answers);
        jobs.collect()
    }

    fn only_looks(&self, job: &Job) -> bool {
        match job {
            Job::Operate { operation: Operation::Get(_), .. } => true,
            Job::Hear { from, reply } => self.keeper.only_acknowledges(from, reply),
            _ => false,
        }
    }

    pub(super) fn time(&self) -> Time {
        Time(self.started.elapsed().as_millis() as u64)
    }
}
