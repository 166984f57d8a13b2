//! The counters of a limiter.

/// The counters of a limiter since it was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// Calls admitted.
    pub allowed: u64,
    /// Calls refused; in shadow mode, calls that would have been refused.
    pub denied: u64,
    /// Keys remembered now.
    pub keys: u64,
    /// Idle keys evicted, which changes no decision.
    pub evicted_idle: u64,
    /// Keys evicted in debt. The engine never does that, so this is 0.
    pub evicted_live: u64,
    /// Calls decided by a shared bucket because the table was full.
    pub overflowed: u64,
    /// Calls decided from tokens held on lease.
    pub lease_hits: u64,
    /// Requests sent to Redis, each for one key.
    pub remote_calls: u64,
    /// Requests without a reply, and failed attempts to reach Redis.
    pub redis_errors: u64,
    /// Tokens held on lease now.
    pub held: u64,
    /// By how much all processes together can exceed the rates, see [`crate::SyncConfig::overshoot_bound`].
    pub max_overshoot: u64,
    /// The reason of the last failure to reach Redis, None if there was none.
    pub last_error: Option<String>,
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Self) {
        self.allowed += other.allowed;
        self.denied += other.denied;
        self.keys += other.keys;
        self.evicted_idle += other.evicted_idle;
        self.evicted_live += other.evicted_live;
        self.overflowed += other.overflowed;
        self.lease_hits += other.lease_hits;
    }

    pub(crate) fn count(&mut self, allowed: bool) {
        if allowed {
            self.allowed += 1;
        } else {
            self.denied += 1;
        }
    }
}
