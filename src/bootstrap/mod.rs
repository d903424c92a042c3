//! The bootstrap service: a pool of nodes that always has a live address to join by.
//!
//! A [`Pool`] keeps so many nodes on one ring: it checks each by a lookup through it, brings up another for each that is lost,
//! and knows at any moment which of them may be named to a client. It starts nothing by itself; that is what a [`Spawner`] is
//! for. [`InProcess`] runs the nodes in this process; `chordal bootstrap-service` has one that starts processes. [`router`] is
//! the HTTP interface of a pool. docs/bootstrap.md tells how it decides.
//!
//! ```no_run
//! use chordal::bootstrap::{InProcess, Pool, Settings, router};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = Pool::start(Settings { size: 3, ..Settings::default() }, InProcess::in_memory()).await?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:5000").await?;
//! let stop = tokio_util::sync::CancellationToken::new();
//! chordal::http::serve(listener, router(pool.clone()), chordal::http::Limits::default(), stop).await?;
//! pool.stop().await;
//! # Ok(())
//! # }
//! ```

mod board;
mod check;
mod in_process;
mod keeper;
mod metrics;
mod page;
mod pool;
mod service;
mod settings;
mod spawner;
#[cfg(test)]
mod tests;

pub use board::{Slot, Snapshot, Status};
pub use in_process::{Here, InProcess};
pub use pool::{NoAddress, Pool, PoolError, Stopped};
pub use service::router;
pub use settings::{Settings, SettingsError};
pub use spawner::{Departure, Member, Order, Recalled, RingNote, SetAside, SpawnError, Spawner};
