//! How often a caller may ask, and how often an address may give a wrong key.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::error::{ApiError, Result};

/// Wrong keys of an address in a minute.
const FAILURES: NonZeroU32 = NonZeroU32::new(10).unwrap();

type Limiter<K> = RateLimiter<K, HashMapStateStore<K>, DefaultClock, NoOpMiddleware>;

/// Both.
pub struct Rates {
    requests: Limiter<Arc<str>>,
    failures: Limiter<IpAddr>,
    clock: DefaultClock,
}

impl Rates {
    /// So many requests of a caller in a minute.
    pub fn new(requests: u32) -> Self {
        let requests = NonZeroU32::new(requests).unwrap_or(NonZeroU32::MIN);
        Self {
            requests: RateLimiter::hashmap(Quota::per_minute(requests)),
            failures: RateLimiter::hashmap(Quota::per_minute(FAILURES)),
            clock: DefaultClock::default(),
        }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn request(&self, caller: &Arc<str>) -> Result<()> {
        self.requests.check_key(caller).map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            too_many(
                "too many requests; ask again in a while",
                wait.as_secs_f64(),
            )
        })
    }

    /// Counts a wrong key.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn failure(&self, address: IpAddr) -> Result<()> {
        self.failures.check_key(&address).map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            too_many(
                "too many wrong keys; ask again in a while",
                wait.as_secs_f64(),
            )
        })
    }

    /// Forgets those that have not asked for long.
    pub fn sweep(&self) {
        self.requests.retain_recent();
        self.failures.retain_recent();
    }
}

impl std::fmt::Debug for Rates {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Rates").finish_non_exhaustive()
    }
}

fn too_many(message: &str, seconds: f64) -> ApiError {
    ApiError::too_many("rate_limited", message, seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_do_not_use_up_each_others_share() {
        let rates = Rates::new(3);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        assert!((0..3).all(|_| rates.request(&a).is_ok()));
        let error = rates.request(&a).unwrap_err();
        assert_eq!((error.code, error.status.as_u16()), ("rate_limited", 429));
        assert!(
            error
                .retry_after
                .is_some_and(|seconds| (1..=60).contains(&seconds))
        );
        assert!(rates.request(&b).is_ok());
        let address = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(
            (0..20).filter(|_| rates.failure(address).is_ok()).count(),
            10
        );
    }
}
