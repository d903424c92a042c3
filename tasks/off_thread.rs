//! Work that may block for as long as somebody likes, such as reading what a person types.

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;

/// Does it on a thread of its own. Whoever waits for it may stop waiting; the thread then ends with the process.
pub(crate) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (done, outcome) = oneshot::channel();
    std::thread::Builder::new().spawn(move || {
        let _ = done.send(work());
    })?;
    outcome.await.context("a thread of tasks itself failed")
}
