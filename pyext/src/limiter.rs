//! The limiter: rates, a clock, and the engine that keeps the states of the keys.

use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::RandomState;

use crate::clock::Clock;
use crate::config::Config;
use crate::decision::Decision;
use crate::engine::Engine;
use crate::error::Error;
use crate::key::{Key, PreparedKey};
use crate::rate::Rate;
use crate::shared::completion::{CompletionQueue, Outcome, Pending, ReplyTo};
use crate::shared::ledger::Ledger;
use crate::shared::limits::SharedLimits;
use crate::shared::wire::{Ask, Request};
use crate::stats::Stats;
use crate::store::local_engine;

mod rates_of_call;
mod refunds;
mod slots;

pub use slots::Reservation;

/// Decides whether a call may go ahead. Shared by reference between threads.
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
    /// Keys are remembered as 64-bit keyed hashes. The seed is random for each limiter, so that clients
    /// cannot choose keys that collide.
    seed: RandomState,
}

impl Limiter {
    /// A limiter that admits a call if all of `rates` admit it.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no rate, two share a name, a window has a burst, or a number of
    /// `config` is out of range; [`Error::Unreachable`] if Redis is required and does not serve.
    pub fn new(rates: &[Rate], mut config: Config) -> Result<Self, Error> {
        config.check()?;
        let engine: Box<dyn Engine> = match config.sync.take() {
            None => local_engine(rates, &config)?,
            Some(sync) => {
                match config.clock {
                    // A lease must also expire while the machine sleeps.
                    Clock::Monotonic(_) => config.clock = Clock::boot(),
                    Clock::Boot(_) | Clock::Manual { .. } => {}
                    Clock::Foreign { .. } => {
                        return Err(Error::invalid(
                            "clock: limits shared through Redis follow the time of the system",
                        ));
                    }
                }
                let limits = SharedLimits::new(rates, &config, &sync)?;
                if sync.is_required {
                    limits.ping()?;
                }
                Box::new(limits)
            }
        };
        Ok(Self {
            engine,
            clock: config.clock,
            shadow: config.shadow,
            seed: RandomState::default(),
        })
    }

    /// Takes `cost` units of `key` if they are there. The fastest call: allocates nothing for a known
    /// key. If the limits are shared and this process holds too few tokens, it waits for Redis.
    #[inline]
    pub fn allow(&self, key: Key<'_>, cost: u64) -> bool {
        match self.try_allow(key, cost) {
            Outcome::Ready(allowed) => allowed,
            Outcome::Pending(pending) => self.wait(&pending).allowed,
        }
    }

    /// As [`Limiter::allow`], without waiting.
    #[inline]
    pub fn try_allow(&self, key: Key<'_>, cost: u64) -> Outcome<bool> {
        let (fingerprint, now) = (key.fingerprint(&self.seed), self.clock.now_ns());
        if let Some(allowed) = self.engine.allow(fingerprint, now, cost) {
            return Outcome::Ready(allowed || self.shadow);
        }
        let outcome = self
            .engine
            .hit(fingerprint, key, now, cost, ReplyTo::Thread);
        outcome.map(|decision| decision.allowed || self.shadow)
    }

    /// As [`Limiter::allow`], with the full decision.
    #[inline]
    pub fn hit(&self, key: Key<'_>, cost: u64) -> Decision {
        match self.try_hit(key, cost) {
            Outcome::Ready(decision) => decision,
            Outcome::Pending(pending) => self.wait(&pending),
        }
    }

    /// As [`Limiter::hit`], without waiting.
    #[inline]
    pub fn try_hit(&self, key: Key<'_>, cost: u64) -> Outcome<Decision> {
        self.hit_as(key, cost, ReplyTo::Thread)
    }

    /// As [`Limiter::hit`], for callers that cannot sleep. None: the decision comes through `queue`, under
    /// `call_id`, possibly before this returns.
    pub fn submit(
        &self,
        key: Key<'_>,
        cost: u64,
        queue: &Arc<CompletionQueue>,
        call_id: u64,
    ) -> Option<Decision> {
        self.hit_as(key, cost, ReplyTo::Queue(queue, call_id))
            .ready()
    }

    #[inline]
    fn hit_as(&self, key: Key<'_>, cost: u64, reply_to: ReplyTo<'_>) -> Outcome<Decision> {
        let (fingerprint, now) = (key.fingerprint(&self.seed), self.clock.now_ns());
        let outcome = self.engine.hit(fingerprint, key, now, cost, reply_to);
        outcome.map(|decision| self.overrule(decision))
    }

    /// Sleeps until Redis has decided, at most for [`Limiter::reply_timeout`], or longer while
    /// [`Limiter::is_replying`]; then decides without it.
    pub fn wait(&self, pending: &Pending) -> Decision {
        let decision = self.reply(pending).unwrap_or_else(|| {
            let (now, cost) = (self.clock.now_ns(), pending.ask.units());
            let takes = matches!(pending.ask, Ask::Take(_));
            self.engine
                .decide_fallback(pending.fingerprint, now, cost, takes)
        });
        self.overrule(decision)
    }

    fn reply(&self, pending: &Pending) -> Option<Decision> {
        let timeout = self.reply_timeout();
        let mut waited = Duration::ZERO;
        if pending.sends_itself && !pending.cell.is_filled() {
            self.engine.help();
        }
        loop {
            let decision = pending.cell.take(timeout);
            waited += timeout;
            if decision.is_some() || !self.is_replying(waited) {
                return decision;
            }
        }
    }

    /// Whether a caller who has waited this long should wait on: Redis replies, but more calls than it can
    /// decide in [`Limiter::reply_timeout`] came at once. Never true beyond twenty of its timeouts.
    pub fn is_replying(&self, waited: Duration) -> bool {
        self.engine.is_replying(waited)
    }

    /// How long to wait for a decision through a [`CompletionQueue`]: three timeouts of Redis, or 0 if the
    /// limits are not shared.
    pub fn reply_timeout(&self) -> Duration {
        self.engine.reply_timeout()
    }

    /// As [`Limiter::hit`], decided without Redis, after [`Limiter::reply_timeout`] has passed.
    pub fn decide_fallback(&self, key: Key<'_>, cost: u64) -> Decision {
        let (fingerprint, now) = (key.fingerprint(&self.seed), self.clock.now_ns());
        let decision = self.engine.decide_fallback(fingerprint, now, cost, true);
        self.overrule(decision)
    }

    /// As [`Limiter::peek`], decided without Redis.
    pub fn peek_fallback(&self, key: Key<'_>, cost: u64) -> Decision {
        let (fingerprint, now) = (key.fingerprint(&self.seed), self.clock.now_ns());
        let decision = self.engine.decide_fallback(fingerprint, now, cost, false);
        self.overrule(decision)
    }

    /// Whether other processes share the limits.
    pub fn is_shared(&self) -> bool {
        self.engine.is_shared()
    }

    /// A key in the form that [`Limiter::hit_many`] of this limiter takes.
    pub fn prepare(&self, key: Key<'_>) -> PreparedKey {
        PreparedKey(key.fingerprint(&self.seed))
    }

    /// Several [`Limiter::hit`]s at one instant, in order.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the limits are shared.
    pub fn hit_many(
        &self,
        items: impl IntoIterator<Item = (PreparedKey, u64)>,
    ) -> Result<Vec<Decision>, Error> {
        self.hit_many_by(items, None)
    }

    /// As [`Limiter::hit_many`], by the rates of the call if it has some.
    pub(crate) fn hit_many_by(
        &self,
        items: impl IntoIterator<Item = (PreparedKey, u64)>,
        rates: Option<&[Rate]>,
    ) -> Result<Vec<Decision>, Error> {
        let now = self.clock.now_ns();
        let mut calls = items.into_iter().map(|(key, cost)| (key.0, cost));
        let mut decisions = self.engine.hit_many(&mut calls, now, rates)?;
        if self.shadow {
            decisions = decisions.into_iter().map(Decision::overruled).collect();
        }
        Ok(decisions)
    }

    /// The decision that [`Limiter::hit`] would make now. Takes nothing and is not counted. Shared limits ask
    /// Redis, unless [`crate::Cold::Optimistic`] lets no call wait.
    pub fn peek(&self, key: Key<'_>, cost: u64) -> Decision {
        match self.peek_as(key, cost, ReplyTo::Thread) {
            Outcome::Ready(decision) => decision,
            Outcome::Pending(pending) => self.wait(&pending),
        }
    }

    /// As [`Limiter::peek`], without waiting.
    pub fn try_peek(&self, key: Key<'_>, cost: u64) -> Outcome<Decision> {
        self.peek_as(key, cost, ReplyTo::Thread)
    }

    /// As [`Limiter::peek`], for callers that cannot sleep, see [`Limiter::submit`].
    pub fn submit_peek(
        &self,
        key: Key<'_>,
        cost: u64,
        queue: &Arc<CompletionQueue>,
        call_id: u64,
    ) -> Option<Decision> {
        self.peek_as(key, cost, ReplyTo::Queue(queue, call_id))
            .ready()
    }

    fn peek_as(&self, key: Key<'_>, cost: u64, reply_to: ReplyTo<'_>) -> Outcome<Decision> {
        let (fingerprint, now) = (key.fingerprint(&self.seed), self.clock.now_ns());
        let outcome = self.engine.peek(fingerprint, key, now, cost, reply_to);
        outcome.map(|decision| self.overrule(decision))
    }

    /// The time on the limiter's clock, ns.
    pub fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// See [`Clock::longest_sleep`].
    pub fn longest_sleep(&self) -> Option<Duration> {
        self.clock.longest_sleep()
    }

    /// Forgets `key`. Shared limits forget it in all processes once Redis has the request; tokens on lease
    /// stay.
    pub fn reset(&self, key: Key<'_>) -> Option<u64> {
        let (fingerprint, now) = (key.fingerprint(&self.seed), self.clock.now_ns());
        self.engine.reset(fingerprint, key, now)
    }

    /// Changes the rates for all keys at once. A rate continues the one of the same name, else the one
    /// at the same position (shared limits: the one at the same position): units spent stay spent.
    /// Takes time proportional to the number of keys. Returns the slots whose callers are to be woken.
    ///
    /// # Errors
    /// As [`Limiter::new`]; then nothing has changed.
    pub fn configure(&self, rates: &[Rate]) -> Result<Vec<u64>, Error> {
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

    /// Asks Redis whether it serves these limits: reachable, permitted, writable. Waits for its reply, a few
    /// of its timeouts at most. Does nothing for limits that are not shared.
    ///
    /// # Errors
    /// [`Error::Unreachable`] with the reason.
    pub fn ping(&self) -> Result<(), Error> {
        self.engine.ping()
    }

    /// Gives back the tokens on lease and stops sending requests, within three timeouts of Redis. Later
    /// calls are decided as if Redis were down. Does nothing for limits that are not shared.
    pub fn close(&self) {
        self.engine.close();
    }

    /// Where leased tokens have gone; all 0 for limits that are not shared.
    pub fn ledger(&self) -> Ledger {
        self.engine.ledger()
    }

    /// At most `limit` requests for the caller to send: with a manual clock there is no sync thread.
    pub fn collect(&self, limit: usize) -> Vec<Request> {
        self.engine.collect(limit)
    }

    /// Applies the script's reply to a request; None if its outcome is unknown.
    pub fn complete(&self, request: &Request, reply: Option<&[i64]>) {
        self.engine.complete(request, reply);
    }

    fn overrule(&self, decision: Decision) -> Decision {
        if self.shadow {
            decision.overruled()
        } else {
            decision
        }
    }
}
