//! The limiter: rates, an algorithm, a clock and a table of keys.
//!
//! Long, because it is all that a Rust user sees: mostly documentation, over verbs of a few lines.

use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::quality::RandomState;

use crate::clock::Clock;
use crate::decision::Decision;
use crate::error::Error;
use crate::gcra::Gcra;
use crate::log::SlidingLog;
use crate::rate::Rate;
use crate::shard::Ticket;
use crate::shared::{Asker, Ledger, Mailbox, Parcel, Pending, Shared, SyncConfig};
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
#[derive(Debug, Clone)]
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
    /// With whom the limits are shared; only this process if None.
    pub sync: Option<SyncConfig>,
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
            sync: None,
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
    /// Calls decided from tokens held on lease.
    pub lease_hits: u64,
    /// Requests sent to Redis, one for a key.
    pub remote_calls: u64,
    /// Requests that Redis did not answer, and failed attempts to reach it.
    pub redis_errors: u64,
    /// Tokens held on lease now.
    pub held: u64,
    /// By how much all processes together can exceed the rates, see [`SyncConfig::overshoot_bound`].
    pub max_overshoot: u64,
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

/// Who keeps the states.
#[derive(Debug)]
enum Core {
    /// This process.
    Local(Box<dyn Engine>),
    /// Redis; this process holds leases.
    Shared(Box<Shared>),
}

/// A decision, or the promise of one.
#[derive(Debug)]
pub enum Answer<T> {
    /// Decided here and now.
    Now(T),
    /// Redis was asked, see [`Limiter::wait`].
    Later(Pending),
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
    core: Core,
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
        let seed = RandomState::default();
        let shadow = config.shadow;
        if let Some(sync) = &config.sync {
            let mut config = config.clone();
            if let Clock::Monotonic(_) = config.clock {
                config.clock = Clock::boot();
            }
            return Ok(Self {
                core: Core::Shared(Box::new(Shared::new(rates, &config, sync)?)),
                clock: config.clock,
                shadow,
                seed,
            });
        }
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
            core: Core::Local(engine),
            clock: config.clock,
            shadow,
            seed,
        })
    }

    /// Takes `cost` units of `key` if they are there. The fastest question: allocates nothing for a
    /// key that is known. Waits for Redis if the limits are shared and nothing is held here.
    #[inline]
    pub fn allow(&self, key: Key<'_>, cost: u64) -> bool {
        match self.try_allow(key, cost) {
            Answer::Now(allowed) => allowed,
            Answer::Later(pending) => self.wait(&pending).allowed,
        }
    }

    /// As [`Limiter::allow`], for those who want to choose when to wait.
    #[inline]
    pub fn try_allow(&self, key: Key<'_>, cost: u64) -> Answer<bool> {
        let (fingerprint, now) = (self.fingerprint(key), self.clock.now_ns());
        match &self.core {
            Core::Local(engine) => Answer::Now(engine.allow(fingerprint, now, cost) || self.shadow),
            Core::Shared(shared) => match shared.allow(fingerprint, key, now, cost) {
                Ok(allowed) => Answer::Now(allowed || self.shadow),
                Err(pending) => Answer::Later(pending),
            },
        }
    }

    /// As [`Limiter::allow`], with the whole answer.
    #[inline]
    pub fn hit(&self, key: Key<'_>, cost: u64) -> Decision {
        match self.try_hit(key, cost) {
            Answer::Now(decision) => decision,
            Answer::Later(pending) => self.wait(&pending),
        }
    }

    /// As [`Limiter::hit`], for those who want to choose when to wait.
    #[inline]
    pub fn try_hit(&self, key: Key<'_>, cost: u64) -> Answer<Decision> {
        self.ask(key, cost, Asker::Thread)
    }

    /// As [`Limiter::hit`], for those who cannot wait. None: the decision will be in `mailbox`, under
    /// `ticket`. It may be there before this returns.
    pub fn submit(
        &self,
        key: Key<'_>,
        cost: u64,
        mailbox: &Arc<Mailbox>,
        ticket: u64,
    ) -> Option<Decision> {
        match self.ask(key, cost, Asker::Ticket(mailbox.clone(), ticket)) {
            Answer::Now(decision) => Some(decision),
            Answer::Later(_) => None,
        }
    }

    #[inline]
    fn ask(&self, key: Key<'_>, cost: u64, asker: Asker) -> Answer<Decision> {
        let (fingerprint, now) = (self.fingerprint(key), self.clock.now_ns());
        match &self.core {
            Core::Local(engine) => Answer::Now(self.overrule(engine.hit(fingerprint, now, cost))),
            Core::Shared(shared) => match shared.hit(fingerprint, key, now, cost, asker) {
                Ok(decision) => Answer::Now(self.overrule(decision)),
                Err(pending) => Answer::Later(pending),
            },
        }
    }

    /// Sleeps until Redis has decided, no longer than three of its timeouts.
    ///
    /// # Panics
    /// Never, for a `pending` of this limiter.
    pub fn wait(&self, pending: &Pending) -> Decision {
        match &self.core {
            Core::Shared(shared) => self.overrule(shared.wait(pending)),
            Core::Local(_) => unreachable!("a limiter without Redis leaves nothing pending"),
        }
    }

    /// How long anybody should wait for what comes into a mailbox; 0 if nothing does.
    pub fn patience(&self) -> Duration {
        match &self.core {
            Core::Shared(shared) => shared.patience(),
            Core::Local(_) => Duration::ZERO,
        }
    }

    /// As [`Limiter::hit`], decided without Redis, for those who have waited for it in vain.
    pub fn decide_alone(&self, key: Key<'_>, cost: u64) -> Decision {
        match &self.core {
            Core::Shared(shared) => self.overrule(shared.decide_alone(self.fingerprint(key), cost)),
            Core::Local(_) => self.hit(key, cost),
        }
    }

    /// As [`Limiter::hit`], measured by other rates for this call: as many as the limiter has, in the
    /// same order. A key should be given the same rates at every call.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `rates` are not as many, change the period of a window, or the limits are
    /// shared: all processes must reckon with the same ones.
    pub fn hit_with(&self, key: Key<'_>, cost: u64, rates: &[Rate]) -> Result<Decision, Error> {
        let now = self.clock.now_ns();
        let engine = self.local("rates given to one call")?;
        let decision = engine.hit_with(self.fingerprint(key), now, cost, rates)?;
        Ok(self.overrule(decision))
    }

    fn local(&self, what: &str) -> Result<&dyn Engine, Error> {
        match &self.core {
            Core::Local(engine) => Ok(&**engine),
            Core::Shared(_) => Err(Error::invalid(format!(
                "{what}: not for limits shared through Redis"
            ))),
        }
    }

    /// Whether other processes share the limits.
    pub fn is_shared(&self) -> bool {
        matches!(self.core, Core::Shared(_))
    }

    /// A key in the form [`Limiter::hit_many`] of this limiter takes.
    pub fn prepare(&self, key: Key<'_>) -> PreparedKey {
        PreparedKey(self.fingerprint(key))
    }

    /// Several [`Limiter::hit`]s at one instant, one after the other.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the limits are shared.
    pub fn hit_many(
        &self,
        items: impl IntoIterator<Item = (PreparedKey, u64)>,
    ) -> Result<Vec<Decision>, Error> {
        let now = self.clock.now_ns();
        let engine = self.local("hit_many with prepared keys")?;
        let decide = |(key, cost): (PreparedKey, u64)| self.overrule(engine.hit(key.0, now, cost));
        Ok(items.into_iter().map(decide).collect())
    }

    /// What [`Limiter::hit`] would answer now, as far as this process knows. Takes nothing, asks nobody and
    /// is not counted.
    pub fn peek(&self, key: Key<'_>, cost: u64) -> Decision {
        let (fingerprint, now) = (self.fingerprint(key), self.clock.now_ns());
        self.overrule(match &self.core {
            Core::Local(engine) => engine.peek(fingerprint, now, cost),
            Core::Shared(shared) => shared.peek(fingerprint, now, cost),
        })
    }

    /// Takes the first slot for `cost` units that starts within `max_wait_ns`, after all slots already
    /// taken for this key. The caller waits until [`Limiter::delay_ns`] is 0, or cancels.
    ///
    /// No reservation comes with a refusal: the slot would start too late, or never.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the limits are shared: Redis keeps no slots in the future.
    pub fn reserve(
        &self,
        key: Key<'_>,
        cost: u64,
        max_wait_ns: u64,
    ) -> Result<(Decision, Option<Reservation>), Error> {
        // A limiter that only watches makes nobody wait.
        let max_wait_ns = if self.shadow { 0 } else { max_wait_ns };
        let (fingerprint, now) = (self.fingerprint(key), self.clock.now_ns());
        let engine = self.local("reserving a slot")?;
        let (decision, ticket) = engine.reserve(fingerprint, now, cost, max_wait_ns);
        let reserved = decision.allowed || self.shadow;
        let reservation = reserved.then(|| Reservation {
            at_ns: ticket.as_ref().map_or(now, |ticket| ticket.at),
            ticket: Mutex::new(ticket),
        });
        Ok((self.overrule(decision), reservation))
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
        if let (Some(ticket), Core::Local(engine)) = (ticket.take(), &self.core) {
            engine.cancel(&ticket);
        }
    }

    /// Whether time passes by itself, so that waiting makes sense.
    pub fn is_real_time(&self) -> bool {
        self.clock.is_real_time()
    }

    /// Gives back `cost` units just taken. A key never holds more than a fresh one. With shared limits the
    /// units go back into this process's lease, as far as Redis still reckons with them; else they are gone.
    pub fn refund(&self, key: Key<'_>, cost: u64) {
        let (fingerprint, now) = (self.fingerprint(key), self.clock.now_ns());
        match &self.core {
            Core::Local(engine) => engine.refund(fingerprint, now, cost),
            Core::Shared(shared) => shared.refund(fingerprint, now, cost),
        }
    }

    /// Forgets `key`. With shared limits all processes do, as soon as Redis has been told; what they hold
    /// on lease they keep.
    pub fn reset(&self, key: Key<'_>) {
        let fingerprint = self.fingerprint(key);
        match &self.core {
            Core::Local(engine) => engine.reset(fingerprint),
            Core::Shared(shared) => shared.reset(fingerprint, key, self.clock.now_ns()),
        }
    }

    /// Changes the rates for all keys at once. A rate continues the one of the same name, else the one
    /// at the same position (shared limits: the one at the same position): what was spent stays spent.
    /// Takes time proportional to the number of keys.
    ///
    /// # Errors
    /// As [`Limiter::new`]; then nothing has changed.
    pub fn configure(&self, rates: &[Rate]) -> Result<(), Error> {
        match &self.core {
            Core::Local(engine) => engine.configure(rates, self.clock.now_ns()),
            Core::Shared(shared) => shared.configure(rates),
        }
    }

    /// The rates in force.
    pub fn rates(&self) -> Arc<[Rate]> {
        match &self.core {
            Core::Local(engine) => engine.rates(),
            Core::Shared(shared) => shared.rates(),
        }
    }

    /// Counts since the limiter was made.
    pub fn stats(&self) -> Stats {
        match &self.core {
            Core::Local(engine) => engine.stats(),
            Core::Shared(shared) => shared.stats(),
        }
    }

    /// Gives back what is held on lease and stops asking Redis, in at most three of its timeouts. Calls are
    /// then decided as if Redis were away. Does nothing for limits that are not shared.
    pub fn close(&self) {
        if let Core::Shared(shared) = &self.core {
            shared.close();
        }
    }

    /// Where leased tokens have gone; all 0 for limits that are not shared.
    pub fn ledger(&self) -> Ledger {
        match &self.core {
            Core::Local(_) => Ledger::default(),
            Core::Shared(shared) => shared.ledger(),
        }
    }

    /// Requests to carry by hand, at most `limit`: with a manual clock no thread does it.
    pub fn collect(&self, limit: usize) -> Vec<Parcel> {
        match &self.core {
            Core::Local(_) => Vec::new(),
            Core::Shared(shared) => shared.collect(limit),
        }
    }

    /// What the script said about a parcel; None if nobody knows what became of it.
    pub fn deliver(&self, parcel: &Parcel, reply: Option<&[i64]>) {
        if let Core::Shared(shared) = &self.core {
            shared.deliver(parcel, reply);
        }
    }

    fn overrule(&self, decision: Decision) -> Decision {
        if self.shadow {
            decision.overruled()
        } else {
            decision
        }
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
