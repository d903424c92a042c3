//! The writes of the last moments, so that a request that comes twice is done once.
//!
//! A request that was sent again, because its answer was late, may reach its owner twice, and between the two somebody else
//! may have written. The record remembers only the last request that wrote it; this remembers the ones before.

use std::collections::{HashMap, VecDeque};

use chordal_protocol::{RequestId, Written};

/// How many requests are remembered.
const REMEMBERED: usize = 8192;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It is on its way to the disk.
    UnderWay,
    /// It has ended like this.
    Ended(Written),
}

#[derive(Debug, Default)]
pub(crate) struct Recent {
    progress: HashMap<RequestId, Progress>,
    order: VecDeque<RequestId>,
}

impl Recent {
    /// What is known of a request.
    pub(crate) fn progress(&self, request: RequestId) -> Option<Progress> {
        self.progress.get(&request).copied()
    }

    /// A request has been taken on.
    pub(crate) fn began(&mut self, request: RequestId) {
        self.progress.insert(request, Progress::UnderWay);
        self.order.push_back(request);
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.progress.remove(&oldest);
            }
        }
    }

    /// A request has ended; without an outcome it has failed, and may be tried again.
    pub(crate) fn ended(&mut self, request: RequestId, outcome: Option<Written>) {
        match outcome {
            Some(written) => {
                if let Some(progress) = self.progress.get_mut(&request) {
                    *progress = Progress::Ended(written);
                }
            }
            None => {
                self.progress.remove(&request);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chordal_protocol::Version;

    use super::*;

    #[test]
    fn a_request_is_known_until_newer_ones_push_it_out() {
        let mut recent = Recent::default();
        let done = Written::Done(Version { epoch: 1, sequence: 1 });
        recent.began(RequestId(0));
        assert_eq!(recent.progress(RequestId(0)), Some(Progress::UnderWay));
        recent.ended(RequestId(0), Some(done));
        assert_eq!(recent.progress(RequestId(0)), Some(Progress::Ended(done)));
        for i in 1..=REMEMBERED as u128 {
            recent.began(RequestId(i));
        }
        assert_eq!(recent.progress(RequestId(0)), None);
        recent.ended(RequestId(1), None);
        assert_eq!(recent.progress(RequestId(1)), None, "a failure may be tried again");
        assert!(recent.progress.len() <= REMEMBERED && recent.order.len() <= REMEMBERED);
    }
}
