//! How much one client may ask.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

/// How many clients are counted each for itself; what comes from others counts as one.
const MOST: usize = 16 << 10;

/// How often clients that have been quiet are looked for once there are so many.
const SWEEP: Duration = Duration::from_secs(1);

/// The requests of each client, counted.
pub(crate) struct Rates {
    limiter: RateLimiter<IpAddr, HashMapStateStore<IpAddr>, DefaultClock>,
    most: usize,
    swept: Mutex<Option<Instant>>,
}

impl Rates {
    /// At most so many requests a second from each client, and as many at once.
    pub(crate) fn new(per_second: NonZeroU32) -> Rates {
        Rates::bounded(per_second, MOST)
    }

    fn bounded(per_second: NonZeroU32, most: usize) -> Rates {
        let quota = Quota::per_second(per_second);
        Rates { limiter: RateLimiter::hashmap(quota), most, swept: Mutex::new(None) }
    }

    /// Counts a request; an error says when the next will be taken.
    pub(crate) fn take(&self, from: IpAddr) -> Result<(), Duration> {
        let counted = self.limiter.check_key(&self.counted_as(client_of(from)));
        counted.map_err(|not_until| not_until.wait_time_from(self.limiter.clock().now()))
    }

    fn counted_as(&self, client: IpAddr) -> IpAddr {
        if self.limiter.len() < self.most {
            return client;
        }
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_none_or(|swept| swept.elapsed() >= SWEEP) {
            *swept = Some(Instant::now());
            self.limiter.retain_recent();
        }
        if self.limiter.len() < self.most { client } else { Ipv6Addr::UNSPECIFIED.into() }
    }
}

/// Who is one client: an IPv4 address, or a /64 of IPv6, of which each machine may have as many as it likes.
pub(super) fn client_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_client_is_counted_for_itself() {
        let rates = Rates::new(NonZeroU32::new(2).unwrap());
        for client in ["192.0.2.1", "192.0.2.2"] {
            assert_eq!(rates.take(ip(client)), Ok(()));
            assert_eq!(rates.take(ip(client)), Ok(()));
            let wait = rates.take(ip(client)).unwrap_err();
            assert!(wait <= Duration::from_millis(500), "{wait:?}");
        }
    }

    #[test]
    fn who_is_one_client() {
        assert_eq!(client_of(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
        assert_eq!(client_of(ip("2001:db8:1:2:3:4:5:6")), ip("2001:db8:1:2::"));
    }

    #[test]
    fn too_many_clients_share_what_one_may() {
        let rates = Rates::bounded(NonZeroU32::new(2).unwrap(), 3);
        for last in 1..=3 {
            assert_eq!(rates.take(ip(&format!("192.0.2.{last}"))), Ok(()));
        }
        let taken = (4..=20).filter(|last| rates.take(ip(&format!("192.0.2.{last}"))).is_ok()).count();
        assert!((2..=4).contains(&taken), "{taken}");
        assert!(rates.limiter.len() <= 4);
    }
}
