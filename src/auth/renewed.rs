//! What is made with the certificates of a ring, and made anew when they change.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::Tls;
use super::tls::Certificates;

/// HTTP clients with the certificates as they are now. When those change, new clients take the place of the old ones, whose
/// connections end with what is under way on them: none outlives its certificate by being in use.
pub(crate) enum Renewed<T> {
    /// Without certificates there is nothing to renew.
    Fixed(T),
    /// With them.
    Renewing(Box<Renewing<T>>),
}

/// What makes them, and those that were made last.
pub(crate) struct Renewing<T> {
    tls: Tls,
    make: Make<T>,
    made: Mutex<(Arc<Certificates>, T)>,
}

type Make<T> = Box<dyn Fn(Option<&Certificates>) -> Result<T, reqwest::Error> + Send + Sync>;

impl<T> fmt::Debug for Renewed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewed").finish_non_exhaustive()
    }
}

impl<T: Clone> Renewed<T> {
    /// What `make` makes, now and whenever the certificates have changed.
    pub(crate) fn new(
        tls: Option<&Tls>,
        make: impl Fn(Option<&Certificates>) -> Result<T, reqwest::Error> + Send + Sync + 'static,
    ) -> Result<Renewed<T>, reqwest::Error> {
        let Some(tls) = tls else { return make(None).map(Renewed::Fixed) };
        let now = tls.now();
        let first = make(Some(&now))?;
        Ok(Renewed::Renewing(Box::new(Renewing {
            tls: tls.clone(),
            make: Box::new(make),
            made: Mutex::new((now, first)),
        })))
    }

    /// What goes with the certificates as they are now.
    pub(crate) fn now(&self) -> T {
        let renewing = match self {
            Renewed::Fixed(made) => return made.clone(),
            Renewed::Renewing(renewing) => renewing,
        };
        let now = renewing.tls.now();
        let mut made = renewing.made.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&made.0, &now) {
            match (renewing.make)(Some(&now)) {
                Ok(new) => *made = (now, new),
                // It is tried again with the next question.
                Err(error) => tracing::warn!(%error, "no HTTP client can be made with the new certificates"),
            }
        }
        made.1.clone()
    }
}
