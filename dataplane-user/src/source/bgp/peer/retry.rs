//! When a peer is tried again.

use std::time::Duration;

use tokio::time::Instant;

use crate::source::bgp::shared::Timing;

/// A session that lasted this long was a good one: the next failure is the first again.
pub const GOOD_SESSION: Duration = Duration::from_secs(10);

/// When a peer is tried again.
#[derive(Debug)]
pub struct Retry {
    /// Nothing is done before.
    pub idle_until: Instant,
    /// No connection is made before.
    pub dial_at: Instant,
    /// How long the next failure is slept off.
    wait: Duration,
    /// How long the next excess of prefixes is.
    excess_wait: Duration,
}

impl Retry {
    /// At once.
    pub fn new(timing: &Timing) -> Self {
        let now = Instant::now();
        Self { idle_until: now, dial_at: now, wait: timing.retry, excess_wait: timing.excess }
    }

    /// Three quarters to all of the time: peers that failed together do not come back together (RFC 4271
    /// section 10).
    pub fn jittered(time: Duration) -> Duration {
        use std::hash::{BuildHasher as _, RandomState};
        let random = RandomState::new().hash_one(0) % 1024;
        time * 3 / 4 + time * random as u32 / 4096
    }

    /// After a failure; `idle`: the peer's connections wait, too.
    pub fn fail(&mut self, limit: Duration, idle: bool) {
        let until = Instant::now() + Self::jittered(self.wait);
        self.wait = (self.wait * 2).min(limit);
        self.dial_at = until;
        if idle {
            self.idle_until = until;
        }
    }

    /// Leaves the peer alone for longer: until when. With the same prefixes the next session would end as this one.
    pub fn exclude(&mut self, limit: Duration) -> Instant {
        let until = Instant::now() + Self::jittered(self.excess_wait);
        self.excess_wait = (self.excess_wait * 2).min(limit);
        (self.dial_at, self.idle_until) = (until, until);
        until
    }

    /// A session ended that had lasted so long.
    pub fn lasted(&mut self, time: Duration, timing: &Timing) {
        if time >= GOOD_SESSION {
            self.wait = timing.retry;
        }
        if time >= timing.excess_limit {
            self.excess_wait = timing.excess;
        }
    }

    /// The peer is tried at once.
    pub fn end(&mut self) {
        let now = Instant::now();
        (self.dial_at, self.idle_until) = (now, now);
    }
}
