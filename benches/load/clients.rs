//! Operations of the library's clients, back to back.

use std::time::Instant;

use super::{Load, Measured};

/// Runs operations back to back on so many workers, each with so many keys of its own, and tells how long those took that succeeded.
pub(crate) async fn measure<F, Doing>(load: Load, keys: usize, operation: F) -> Measured
where
    F: Fn(String) -> Doing + Clone + Send + 'static,
    Doing: Future<Output = bool> + Send,
{
    let began = Instant::now();
    let workers: Vec<_> = (0..load.concurrency)
        .map(|worker| {
            let operation = operation.clone();
            tokio::spawn(async move {
                let (mut times, mut errors) = (Vec::new(), 0);
                while began.elapsed() < load.time {
                    let sent = Instant::now();
                    match operation(format!("key-{worker}-{}", (times.len() + errors) % keys)).await {
                        true => times.push(sent.elapsed()),
                        false => errors += 1,
                    }
                }
                (times, errors)
            })
        })
        .collect();
    let (mut times, mut errors) = (Vec::new(), 0);
    for worker in workers {
        let (its_times, its_errors) = worker.await.expect("a worker");
        times.extend(its_times);
        errors += its_errors;
    }
    Measured::of(times, errors, began)
}
