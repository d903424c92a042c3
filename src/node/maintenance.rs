//! What a node does at intervals.
//!
//! A lane runs the procedures of the ring one after the other. It is bounded; what does not fit comes again. The keeper has a
//! quicker beat of its own, by which members of views hear their primary.
//!
//! tokio-cron-scheduler gives the slow beat: once a second it has a finger looked up, and looks whether the stabilizing loop,
//! which is too quick for it, still beats. Its jobs do nothing but put a word into a channel of one, because they overlap and
//! all fire on the same second; one task drains that channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chordal_protocol::{Contact, Membership, Procedure};
use rand::RngExt;
use rand::seq::IndexedRandom;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::driver::Driver;

/// When the slow beat comes: every second.
const EVERY_SECOND: &str = "* * * * * *";

/// For how many beats after its start a node looks up its whole finger table, and not one finger.
const WHOLE_TABLE_BEATS: u32 = 3;

/// How long two beats of the keeper are apart at most: well below the time after which a primary is suspected.
const BEAT: Duration = Duration::from_millis(200);

/// After how many missed beats the stabilizing loop is taken for dead.
const MISSED_BEATS: u32 = 20;

/// How many stabilizing rounds pass between two looks for rings that were split off.
const REUNITE_EVERY: u64 = 8;

/// Starts all that runs at intervals. It ends with the token.
pub(crate) async fn start(
    driver: Arc<Driver>,
    lane: mpsc::Receiver<Procedure>,
    interval: Duration,
    stop: CancellationToken,
) -> Result<(), JobSchedulerError> {
    tokio::spawn(stop.clone().run_until_cancelled_owned(drain(Arc::clone(&driver), lane)));
    tokio::spawn(stop.clone().run_until_cancelled_owned(beat_at(Arc::clone(&driver))));

    let (beat, beats) = mpsc::channel(1);
    let mut scheduler = JobScheduler::new().await?;
    scheduler
        .add(Job::new(EVERY_SECOND, move |_, _| {
            // A beat that is still waiting to be heard is as good as this one.
            let _ = beat.try_send(());
        })?)
        .await?;
    scheduler.start().await?;
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = on_each_beat(driver, beats, interval, stop.clone()) => {}
        }
        if let Err(error) = scheduler.shutdown().await {
            tracing::debug!(%error, "the scheduler did not stop in order");
        }
    });
    Ok(())
}

/// Runs the procedures of a lane one after the other. Of those that are the same and wait together one is enough.
async fn drain(driver: Arc<Driver>, mut lane: mpsc::Receiver<Procedure>) {
    while let Some(first) = lane.recv().await {
        let mut waiting = vec![first];
        while let Ok(next) = lane.try_recv() {
            if !waiting.contains(&next) {
                waiting.push(next);
            }
        }
        for procedure in waiting {
            run(&driver, procedure).await;
        }
    }
}

/// Runs a procedure such that a fault in it does not end the others of its lane.
async fn run(driver: &Arc<Driver>, procedure: Procedure) {
    let own = Arc::clone(driver);
    let work = AbortOnDropHandle::new(tokio::spawn(async move { own.run(procedure).await }));
    if let Err(error) = work.await {
        tracing::error!(%error, "a procedure has failed");
    }
}

/// The slow beat: one finger, and a look at the stabilizing loop.
async fn on_each_beat(driver: Arc<Driver>, mut beats: mpsc::Receiver<()>, interval: Duration, stop: CancellationToken) {
    let mut loops = Stabilizing::start(&driver, interval, &stop);
    let mut beat = 0;
    while beats.recv().await.is_some() {
        beat += 1;
        loops = loops.supervise(&driver, interval, &stop);
        // All nodes of a machine hear the beat at the same moment; they need not act on it at the same moment.
        let jitter = rand::rng().random_range(0..300);
        tokio::time::sleep(Duration::from_millis(jitter)).await;
        run(&driver, Procedure::FixFingers { all: beat <= WHOLE_TABLE_BEATS }).await;
        driver.write_pointers();
    }
}

/// The stabilizing loop, and how often it has gone round.
struct Stabilizing {
    task: JoinHandle<()>,
    rounds: Arc<AtomicU64>,
    seen: u64,
    silent_beats: u32,
}

impl Stabilizing {
    fn start(driver: &Arc<Driver>, interval: Duration, stop: &CancellationToken) -> Stabilizing {
        let rounds = Arc::new(AtomicU64::new(0));
        let work = stabilize_at(Arc::clone(driver), interval, Arc::clone(&rounds));
        let stop = stop.clone();
        let task = tokio::spawn(async move {
            stop.run_until_cancelled_owned(work).await;
        });
        Stabilizing { task, rounds, seen: 0, silent_beats: 0 }
    }

    /// Starts the loop again if it has ended or stands still.
    fn supervise(mut self, driver: &Arc<Driver>, interval: Duration, stop: &CancellationToken) -> Stabilizing {
        let rounds = self.rounds.load(Ordering::Relaxed);
        self.silent_beats = if rounds == self.seen { self.silent_beats + 1 } else { 0 };
        self.seen = rounds;
        let patience = MISSED_BEATS.max(2 * interval.as_secs() as u32);
        if !self.task.is_finished() && self.silent_beats < patience {
            return self;
        }
        tracing::error!(rounds, "the stabilizing loop has stopped; it is started again");
        self.task.abort();
        Stabilizing::start(driver, interval, stop)
    }
}

/// The keeper's beat.
async fn beat_at(driver: Arc<Driver>) {
    loop {
        driver.beat();
        driver.found_by_hand();
        let pause = BEAT.mul_f64(rand::rng().random_range(0.6..1.0));
        tokio::time::sleep(pause).await;
    }
}

async fn stabilize_at(driver: Arc<Driver>, interval: Duration, rounds: Arc<AtomicU64>) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let jitter = rand::rng().random_range(0.0..0.2);
        tokio::time::sleep(interval.mul_f64(jitter)).await;
        let round = rounds.fetch_add(1, Ordering::Relaxed);
        driver.begin_soon(Procedure::Stabilize);
        driver.begin_soon(Procedure::CheckPredecessor { candidate: None });
        if let Some(contact) = contact_to_reunite_with(&driver, round) {
            driver.begin_soon(Procedure::Reunite { contact });
        }
    }
}

/// Now and then any contact that is remembered; in every round one, where the ring is lost.
fn contact_to_reunite_with(driver: &Driver, round: u64) -> Option<Contact> {
    let core = driver.lock();
    let isolated = core.chord.membership() == Membership::Isolated;
    if !isolated && !round.is_multiple_of(REUNITE_EVERY) {
        return None;
    }
    let known: Vec<&Contact> = core.chord.contacts().collect();
    known.choose(&mut rand::rng()).map(|contact| (*contact).clone())
}
