//! The settings of a limiter.

use crate::clock::Clock;
use crate::error::Error;
use crate::shared::config::SyncConfig;
use crate::shared::health::HealthListener;

/// How units are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// Token bucket (see [`crate::gcra`]): 16 bytes per key and rate.
    #[default]
    Gcra,
    /// Exact sliding window (see [`crate::log`]): up to 16 bytes per admitted unit.
    SlidingLog,
    /// Strict sliding window in buckets (see [`crate::window`]): 8 bytes per bucket.
    SlidingWindow,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 3] = [Self::Gcra, Self::SlidingLog, Self::SlidingWindow];

    /// The word used in the Python API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gcra => "gcra",
            Self::SlidingLog => "sliding_log",
            Self::SlidingWindow => "sliding_window",
        }
    }
}

/// The policy for a new key when the table holds `max_keys` keys and none is idle.
/// A key in debt is never evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFull {
    /// The call is refused.
    Deny,
    /// The key shares one bucket with all other keys without room (one per shard of the table).
    SharedBucket,
    /// As `SharedBucket`, after examining 68 slots instead of 4 for an idle key to evict.
    #[default]
    EvictIdle,
}

impl OnFull {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Deny, Self::SharedBucket, Self::EvictIdle];

    /// The word used in the Python API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::SharedBucket => "shared_bucket",
            Self::EvictIdle => "evict_idle",
        }
    }
}

/// The settings of a limiter. `Default` is a token bucket for a million keys.
#[derive(Debug, Clone)]
pub struct Config {
    /// How units are counted.
    pub algorithm: Algorithm,
    /// Most keys remembered, 1 to 2³².
    pub max_keys: u64,
    /// Most bytes of memory for keys and their states, None for no bound but `max_keys`.
    pub max_bytes: Option<u64>,
    /// The policy for a new key without room.
    pub on_full: OnFull,
    /// Buckets per window of [`Algorithm::SlidingWindow`], 1 to 1024.
    pub precision: u32,
    /// Decides and counts as usual, but admits every call.
    pub shadow: bool,
    /// The time source.
    pub clock: Clock,
    /// How the limits are shared with other processes; None keeps them in this process.
    pub sync: Option<SyncConfig>,
    /// Told when shared limits lose Redis and find it again.
    pub on_health: Option<HealthListener>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            max_keys: 1_000_000,
            max_bytes: None,
            on_full: OnFull::default(),
            precision: 16,
            shadow: false,
            clock: Clock::monotonic(),
            sync: None,
            on_health: None,
        }
    }
}

/// Most buckets a window may be cut into: 8 KiB per key.
pub(crate) const MAX_PRECISION: u32 = 1024;

impl Config {
    /// # Errors
    /// [`Error::Invalid`] if a number is out of range, whether the algorithm uses it or not.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !(1..=1 << 32).contains(&self.max_keys) {
            return Err(Error::invalid(format!(
                "max_keys must be 1 to 2**32, got {}",
                self.max_keys
            )));
        }
        if !(1..=MAX_PRECISION).contains(&self.precision) {
            return Err(Error::invalid(format!(
                "precision must be 1 to {MAX_PRECISION} buckets, got {}",
                self.precision
            )));
        }
        Ok(())
    }

    /// Most keys that `max_keys` and `max_bytes` admit, and most bytes that each may take, if each takes at most
    /// `bytes_per_key` now.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no room for one key.
    pub(crate) fn room(&self, bytes_per_key: u64) -> Result<(usize, u64), Error> {
        let (mut keys, mut bytes) = (self.max_keys, u64::MAX);
        if let Some(max_bytes) = self.max_bytes {
            keys = keys.min(max_bytes / bytes_per_key);
            if keys == 0 {
                return Err(Error::invalid(format!(
                    "max_bytes must be at least {bytes_per_key}, the most that one key takes, got {max_bytes}"
                )));
            }
            bytes = max_bytes / keys;
        }
        let keys = usize::try_from(keys)
            .map_err(|_| Error::too_large(format!("max_keys {keys} does not fit")))?;
        Ok((keys, bytes))
    }
}

/// # Errors
/// [`Error::Invalid`] if a key under new rates could take more than `max_bytes` admits.
pub(crate) fn check_memory(bytes_per_key: u64, most: u64) -> Result<(), Error> {
    if bytes_per_key > most {
        return Err(Error::invalid(format!(
            "max_bytes has room for {most} bytes per key, these rates may take {bytes_per_key}"
        )));
    }
    Ok(())
}
