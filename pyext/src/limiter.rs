//! The limiter: rates, an algorithm, a clock and a table of keys.

use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::quality::RandomState;

use crate::clock::Clock;
use crate::decision::{Decision, Source};
use crate::error::Error;
use crate::gcra::Gcra;
use crate::log::SlidingLog;
use crate::rate::Rate;
use crate::shard::Ticket;
use crate::store::{Engine, Store};
use crate::window::SlidingWindow;

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

/// What happens to a new key when `max_keys` keys are in the table and not idle.
/// A key that still owes something is never dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFull {
    /// It is refused.
    Deny,
    /// It shares one bucket with all other keys that found no room (one per shard of the table).
    SharedBucket,
    /// As `SharedBucket`, after looking harder for an idle key to replace: 68 slots instead of 4.
    #[default]
    EvictIdle,
}

/// How a limiter is set up. `Default` is a token bucket for a million keys.
#[derive(Debug)]
pub struct Config {
    /// How units are counted.
    pub algorithm: Algorithm,
    /// Most keys remembered, 1 to 2³².
    pub max_keys: u64,
    /// What happens to a new key when there is no room.
    pub on_full: OnFull,
    /// Buckets per window, 1 to 1024; only [`Algorithm::SlidingWindow`] has them.
    pub precision: u32,
    /// Decide and count as usual, but let every call through.
    pub shadow: bool,
    /// Where time comes from.
    pub clock: Clock,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            max_keys: 1_000_000,
            on_full: OnFull::default(),
            precision: 16,
            shadow: false,
            clock: Clock::monotonic(),
        }
    }
}

/// Who is limited. Keys of different kinds are different keys: `"1"`, `b"1"` and `1` do not meet.
#[derive(Debug, Clone, Copy)]
pub enum Key<'a> {
    /// The UTF-8 bytes of a text.
    Text(&'a [u8]),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A number.
    Int(i64),
    /// A number that does not fit 64 bits, as its shortest two's complement, little endian.
    BigInt(&'a [u8]),
}

impl<'a> From<&'a str> for Key<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.as_bytes())
    }
}

impl<'a> From<&'a [u8]> for Key<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<i64> for Key<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

/// A [`Key`] as one limiter remembers it. Means nothing to another limiter.
#[derive(Debug, Clone, Copy)]
pub struct PreparedKey(u64);

/// A slot taken in advance. Belongs to the limiter that made it.
#[derive(Debug)]
pub struct Reservation {
    /// When the slot starts, on the limiter's clock.
    at_ns: u64,
    /// Gone once cancelled, and if nothing was taken.
    ticket: Mutex<Option<Ticket>>,
}

/// What a limiter has done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Calls admitted.
    pub allowed: u64,
    /// Calls refused (in shadow mode: that would have been).
    pub denied: u64,
    /// Keys remembered now.
    pub keys: u64,
    /// Keys dropped because they owed nothing.
    pub evicted_idle: u64,
    /// Keys dropped although they owed something. The engine has no way to do that, so this is 0.
    pub evicted_live: u64,
    /// Calls decided by a shared bucket because the table was full.
    pub overflowed: u64,
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Self) {
        self.allowed += other.allowed;
        self.denied += other.denied;
        self.keys += other.keys;
        self.evicted_idle += other.evicted_idle;
        self.evicted_live += other.evicted_live;
        self.overflowed += other.overflowed;
    }
}

/// Decides who may go ahead. Shared by reference between threads.
///
/// ```
/// use hopgate_limiter::{Config, Limiter, Rate};
///
/// let limiter = Limiter::new(&Rate::parse("2/min")?, Config::default())?;
/// assert!(limiter.allow("alice".into(), 1));
/// assert!(limiter.allow("alice".into(), 1));
/// assert!(!limiter.allow("alice".into(), 1));
/// # Ok::<(), hopgate_limiter::Error>(())
/// ```
#[derive(Debug)]
pub struct Limiter {
    engine: Box<dyn Engine>,
    clock: Clock,
    shadow: bool,
    /// Keys are remembered as 64-bit keyed hashes. The seed is random per limiter, so nobody outside
    /// can choose keys that collide.
    seed: RandomState,
}

impl Limiter {
    /// A limiter that admits what all of `rates` admit.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no rate, two share a name, a window has a burst, or a number of
    /// `config` is outside its range.
    pub fn new(rates: &[Rate], config: Config) -> Result<Self, Error> {
        if !(1..=1 << 32).contains(&config.max_keys) {
            return Err(Error::invalid(format!(
                "max_keys must be 1 to 2**32, got {}",
                config.max_keys
            )));
        }
        let max_keys = usize::try_from(config.max_keys)
            .map_err(|_| Error::too_large(format!("max_keys {} does not fit", config.max_keys)))?;
        let (precision, on_full) = (config.precision, config.on_full);
        let engine: Box<dyn Engine> = match config.algorithm {
            Algorithm::Gcra => Box::new(Store::<Gcra>::new(rates, precision, max_keys, on_full)?),
            Algorithm::SlidingLog => Box::new(Store::<SlidingLog>::new(
                rates, precision, max_keys, on_full,
            )?),
            Algorithm::SlidingWindow => Box::new(Store::<SlidingWindow>::new(
                rates, precision, max_keys, on_full,
            )?),
        };
        Ok(Self {
            engine,
            clock: config.clock,
            shadow: config.shadow,
            seed: RandomState::default(),
        })
    }

    /// Takes `cost` units of `key` if they are there. The fastest question: allocates nothing for a
    /// key that is known.
    #[inline]
    pub fn allow(&self, key: Key<'_>, cost: u64) -> bool {
        let allowed = self
            .engine
            .allow(self.fingerprint(key), self.clock.now_ns(), cost);
        allowed || self.shadow
    }

    /// As [`Limiter::allow`], with the whole answer.
    #[inline]
    pub fn hit(&self, key: Key<'_>, cost: u64) -> Decision {
        self.overrule(
            self.engine
                .hit(self.fingerprint(key), self.clock.now_ns(), cost),
        )
    }

    /// As [`Limiter::hit`], measured by other rates for this call: as many as the limiter has, in the
    /// same order. A key should be given the same rates at every call.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `rates` are not as many, or change the period of a window.
    pub fn hit_with(&self, key: Key<'_>, cost: u64, rates: &[Rate]) -> Result<Decision, Error> {
        let now = self.clock.now_ns();
        let decision = self
            .engine
            .hit_with(self.fingerprint(key), now, cost, rates)?;
        Ok(self.overrule(decision))
    }

    /// A key in the form [`Limiter::hit_many`] of this limiter takes.
    pub fn prepare(&self, key: Key<'_>) -> PreparedKey {
        PreparedKey(self.fingerprint(key))
    }

    /// Several [`Limiter::hit`]s at one instant, one after the other.
    pub fn hit_many(&self, items: impl IntoIterator<Item = (PreparedKey, u64)>) -> Vec<Decision> {
        let now = self.clock.now_ns();
        let decide =
            |(key, cost): (PreparedKey, u64)| self.overrule(self.engine.hit(key.0, now, cost));
        items.into_iter().map(decide).collect()
    }

    /// What [`Limiter::hit`] would answer now. Takes nothing and is not counted.
    pub fn peek(&self, key: Key<'_>, cost: u64) -> Decision {
        self.overrule(
            self.engine
                .peek(self.fingerprint(key), self.clock.now_ns(), cost),
        )
    }

    /// Takes the first slot for `cost` units that starts within `max_wait_ns`, after all slots already
    /// taken for this key. The caller waits until [`Limiter::delay_ns`] is 0, or cancels.
    ///
    /// No reservation comes with a refusal: the slot would start too late, or never.
    pub fn reserve(
        &self,
        key: Key<'_>,
        cost: u64,
        max_wait_ns: u64,
    ) -> (Decision, Option<Reservation>) {
        // A limiter that only watches makes nobody wait.
        let max_wait_ns = if self.shadow { 0 } else { max_wait_ns };
        let (fingerprint, now) = (self.fingerprint(key), self.clock.now_ns());
        let (decision, ticket) = self.engine.reserve(fingerprint, now, cost, max_wait_ns);
        let reserved = decision.allowed || self.shadow;
        let reservation = reserved.then(|| Reservation {
            at_ns: ticket.as_ref().map_or(now, |ticket| ticket.at),
            ticket: Mutex::new(ticket),
        });
        (self.overrule(decision), reservation)
    }

    /// Nanoseconds until the reserved slot; 0 once it has come.
    pub fn delay_ns(&self, reservation: &Reservation) -> u64 {
        reservation.at_ns.saturating_sub(self.clock.now_ns())
    }

    /// Gives the slot back if nobody has reserved behind it. (A slot in the middle of a queue stays
    /// empty: those behind it have been told their times.) Does nothing the second time.
    pub fn cancel(&self, reservation: &Reservation) {
        let mut ticket = reservation
            .ticket
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(ticket) = ticket.take() {
            self.engine.cancel(&ticket);
        }
    }

    /// Whether time passes by itself, so that waiting makes sense.
    pub fn is_real_time(&self) -> bool {
        matches!(self.clock, Clock::Monotonic(_))
    }

    /// Gives back `cost` units just taken. A key never holds more than a fresh one.
    pub fn refund(&self, key: Key<'_>, cost: u64) {
        self.engine
            .refund(self.fingerprint(key), self.clock.now_ns(), cost);
    }

    /// Forgets `key`.
    pub fn reset(&self, key: Key<'_>) {
        self.engine.reset(self.fingerprint(key));
    }

    /// Changes the rates for all keys at once. A rate continues the one of the same name, else the one
    /// at the same position: what was spent stays spent. Takes time proportional to the number of keys.
    ///
    /// # Errors
    /// As [`Limiter::new`]; then nothing has changed.
    pub fn configure(&self, rates: &[Rate]) -> Result<(), Error> {
        self.engine.configure(rates, self.clock.now_ns())
    }

    /// The rates in force.
    pub fn rates(&self) -> Arc<[Rate]> {
        self.engine.rates()
    }

    /// Counts since the limiter was made.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    fn overrule(&self, mut decision: Decision) -> Decision {
        if self.shadow && !decision.allowed {
            decision.allowed = true;
            decision.retry_after_ns = Some(0);
            decision.source = Source::Shadow;
        }
        decision
    }

    #[inline]
    fn fingerprint(&self, key: Key<'_>) -> u64 {
        let mut hasher = self.seed.build_hasher();
        // The kind comes last: a write of known small size after one of unknown size is nearly free.
        match key {
            Key::Text(bytes) => {
                hasher.write(bytes);
                hasher.write_u8(0);
            }
            Key::Bytes(bytes) => {
                hasher.write(bytes);
                hasher.write_u8(1);
            }
            Key::Int(number) => {
                hasher.write_i64(number);
                hasher.write_u8(2);
            }
            Key::BigInt(bytes) => {
                hasher.write(bytes);
                hasher.write_u8(3);
            }
        }
        // 0 marks an empty slot of the table.
        hasher.finish().max(1)
    }
}
