//! Time sources: nanoseconds since a fixed start, never going back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest single sleep of a caller by a clock of the system, far below what the system accepts.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// The same by a clock of the caller's own, which may run at any speed and wakes no caller.
const LONGEST_SLEEP_FOREIGN: Duration = Duration::from_millis(20);

/// A clock that the caller has made.
pub trait TimeSource: Send + Sync + fmt::Debug {
    /// Nanoseconds since a fixed start; None if it cannot be read: then time stands still.
    fn now_ns(&self) -> Option<u64>;
}

/// The time source of one limiter.
#[derive(Debug)]
pub enum Clock {
    /// The operating system's monotonic clock, counted from the given instant.
    Monotonic(Instant),
    /// The time since the machine started, which also passes while it sleeps; ns when the clock was made.
    /// A lease must also expire while a laptop is closed.
    Boot(u64),
    /// A clock moved by the caller, for tests.
    Manual {
        /// The clock that the caller moves.
        source: ManualClock,
        /// Largest time read so far, ns. A limiter ignores a manual clock that is set back.
        high_water_ns: AtomicU64,
    },
    /// A clock of the caller's own.
    Foreign {
        /// The clock.
        source: Arc<dyn TimeSource>,
        /// Largest time read so far, ns. A limiter ignores a clock that goes back.
        high_water_ns: AtomicU64,
    },
}

impl Clock {
    /// The operating system's monotonic clock, starting at 0 now.
    pub fn monotonic() -> Self {
        Self::Monotonic(Instant::now())
    }

    /// Time that also passes while the machine sleeps, starting at 0 now. On a system without such a clock,
    /// as [`Clock::monotonic`].
    pub fn boot() -> Self {
        boot_ns().map_or_else(Self::monotonic, Self::Boot)
    }

    /// Whether this is a clock of the system.
    pub fn is_real_time(&self) -> bool {
        matches!(self, Self::Monotonic(_) | Self::Boot(_))
    }

    /// How long a caller may sleep before it reads the time again; None until the clock wakes it.
    pub fn longest_sleep(&self) -> Option<Duration> {
        match self {
            Self::Monotonic(_) | Self::Boot(_) => Some(LONGEST_SLEEP),
            Self::Foreign { .. } => Some(LONGEST_SLEEP_FOREIGN),
            Self::Manual { .. } => None,
        }
    }

    /// A limiter's view of a clock of the caller's own.
    pub fn foreign(source: Arc<dyn TimeSource>) -> Self {
        Self::Foreign {
            source,
            high_water_ns: AtomicU64::new(0),
        }
    }

    /// A limiter's view of `source`.
    pub fn manual(source: ManualClock) -> Self {
        Self::Manual {
            source,
            high_water_ns: AtomicU64::new(0),
        }
    }

    /// Nanoseconds since the start of this clock; never less than an earlier reading.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        match self {
            Self::Monotonic(start) => {
                let elapsed = start.elapsed();
                // Wraps after 584 years of uptime.
                elapsed.as_secs() * 1_000_000_000 + u64::from(elapsed.subsec_nanos())
            }
            Self::Boot(start) => boot_ns().unwrap_or(*start) - start,
            Self::Manual {
                source,
                high_water_ns,
            } => {
                let now = source.now_ns();
                // Relaxed: only this value matters, it publishes no other memory.
                high_water_ns.fetch_max(now, Ordering::Relaxed).max(now)
            }
            Self::Foreign {
                source,
                high_water_ns,
            } => {
                let now = source.now_ns().unwrap_or(0);
                high_water_ns.fetch_max(now, Ordering::Relaxed).max(now)
            }
        }
    }
}

impl Clone for Clock {
    fn clone(&self) -> Self {
        match self {
            Self::Monotonic(start) => Self::Monotonic(*start),
            Self::Boot(start) => Self::Boot(*start),
            Self::Manual {
                source,
                high_water_ns,
            } => Self::Manual {
                source: source.clone(),
                high_water_ns: AtomicU64::new(high_water_ns.load(Ordering::Relaxed)),
            },
            Self::Foreign {
                source,
                high_water_ns,
            } => Self::Foreign {
                source: source.clone(),
                high_water_ns: AtomicU64::new(high_water_ns.load(Ordering::Relaxed)),
            },
        }
    }
}

#[cfg(target_os = "linux")]
#[inline]
fn boot_ns() -> Option<u64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for one timespec, for the length of the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    let (s, ns) = (
        u64::try_from(time.tv_sec).ok()?,
        u64::try_from(time.tv_nsec).ok()?,
    );
    (failed == 0).then_some(s * 1_000_000_000 + ns)
}

#[cfg(not(target_os = "linux"))]
fn boot_ns() -> Option<u64> {
    None
}

/// A clock that moves only by [`ManualClock::advance`] and [`ManualClock::set`]. Clones share the time.
#[derive(Debug, Clone, Default)]
pub struct ManualClock {
    now_ns: Arc<AtomicU64>,
}

impl ManualClock {
    /// A clock showing `now_ns` nanoseconds.
    pub fn new(now_ns: u64) -> Self {
        Self {
            now_ns: Arc::new(AtomicU64::new(now_ns)),
        }
    }

    /// The time of the clock, ns.
    pub fn now_ns(&self) -> u64 {
        self.now_ns.load(Ordering::SeqCst)
    }

    /// Moves the clock forward; stops at `u64::MAX`, 584 years from zero.
    pub fn advance(&self, by_ns: u64) {
        let moved = self.now_ns().saturating_add(by_ns);
        self.set(moved);
    }

    /// Moves the clock to `now_ns`, forward or back.
    pub fn set(&self, now_ns: u64) {
        self.now_ns.store(now_ns, Ordering::SeqCst);
    }
}
