//! Keys and their states: sharded, capped, and decided under one lock per shard.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::decision::Decision;
use crate::error::Error;
use crate::limiter::{OnFull, Stats};
use crate::meter::Meter;
use crate::panel::meters;
use crate::rate::Rate;
use crate::shard::{Shard, Ticket};

/// A shard grows by copying itself, so it should stay small enough to copy in well under a millisecond.
const KEYS_PER_SHARD: usize = 4096;
/// The six highest bits of a fingerprint choose the shard.
const MAX_SHARDS: usize = 64;
/// What a limiter needs from its keys; hides which algorithm measures them.
/// `now` is nanoseconds on the limiter's clock, `fingerprint` is never 0.
pub(crate) trait Engine: Send + Sync + fmt::Debug {
    fn allow(&self, fingerprint: u64, now: u64, cost: u64) -> bool;
    fn hit(&self, fingerprint: u64, now: u64, cost: u64) -> Decision;
    fn hit_with(
        &self,
        fingerprint: u64,
        now: u64,
        cost: u64,
        rates: &[Rate],
    ) -> Result<Decision, Error>;
    fn peek(&self, fingerprint: u64, now: u64, cost: u64) -> Decision;
    fn reserve(
        &self,
        fingerprint: u64,
        now: u64,
        cost: u64,
        max_wait_ns: u64,
    ) -> (Decision, Option<Ticket>);
    fn cancel(&self, ticket: &Ticket);
    fn refund(&self, fingerprint: u64, now: u64, cost: u64);
    fn reset(&self, fingerprint: u64);
    fn configure(&self, rates: &[Rate], now: u64) -> Result<(), Error>;
    fn rates(&self) -> Arc<[Rate]>;
    fn stats(&self) -> Stats;
}

/// All keys of one limiter.
pub(crate) struct Store<M: Meter> {
    shards: Box<[Padded<Mutex<Shard<M>>>]>,
    /// Buckets per window, for the algorithm that has them.
    precision: u32,
}

/// Keeps two shards off one cache line, so that threads on different shards do not slow each other down.
#[repr(align(64))]
struct Padded<T>(T);

impl<M: Meter + Clone> Store<M> {
    pub(crate) fn new(
        rates: &[Rate],
        precision: u32,
        max_keys: usize,
        on_full: OnFull,
    ) -> Result<Self, Error> {
        let meters = meters::<M>(rates, precision)?;
        let count = (max_keys / KEYS_PER_SHARD)
            .next_power_of_two()
            .clamp(1, MAX_SHARDS);
        let rates: Arc<[Rate]> = rates.into();
        let shard = |index: usize| {
            let room = max_keys / count + usize::from(index < max_keys % count);
            Padded(Mutex::new(Shard::new(
                meters.clone(),
                rates.clone(),
                room,
                on_full,
            )))
        };
        Ok(Self {
            shards: (0..count).map(shard).collect(),
            precision,
        })
    }

    /// The shard of a key, locked. Python calls come here holding the interpreter lock; nothing under
    /// this lock ever waits for another one, so the two cannot deadlock.
    #[inline]
    fn shard(&self, fingerprint: u64) -> MutexGuard<'_, Shard<M>> {
        let index = (fingerprint >> 58) as usize & (self.shards.len() - 1);
        lock(&self.shards[index].0)
    }
}

#[cfg(test)]
impl<M: Meter> Store<M> {
    /// Whether another thread holds the lock of this key's shard right now.
    pub(crate) fn is_busy(&self, fingerprint: u64) -> bool {
        let index = (fingerprint >> 58) as usize & (self.shards.len() - 1);
        self.shards[index].0.try_lock().is_err()
    }
}

/// A panic under the lock is a bug in this crate. Every later call still works on states that are
/// each whole, so refusing them all would make it worse.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<M: Meter> fmt::Debug for Store<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

impl<M: Meter + Clone + Sync> Engine for Store<M> {
    fn allow(&self, fingerprint: u64, now: u64, cost: u64) -> bool {
        self.shard(fingerprint).allow(fingerprint, now, cost)
    }

    fn hit(&self, fingerprint: u64, now: u64, cost: u64) -> Decision {
        self.shard(fingerprint).hit(fingerprint, now, cost)
    }

    fn hit_with(
        &self,
        fingerprint: u64,
        now: u64,
        cost: u64,
        rates: &[Rate],
    ) -> Result<Decision, Error> {
        let meters = meters::<M>(rates, self.precision)?;
        let mut shard = self.shard(fingerprint);
        if meters.len() != shard.meters.len() {
            return Err(Error::invalid(format!(
                "rates must be as many as the limiter has, {}, got {}",
                shard.meters.len(),
                meters.len()
            )));
        }
        let readable = |(meter, own): (&M, &M)| meter.shares_states_with(own);
        if !meters.iter().zip(&shard.meters).all(readable) {
            return Err(Error::invalid(
                "rates given to one call of a sliding window must keep the limiter's periods",
            ));
        }
        Ok(shard.hit_with(fingerprint, now, cost, &meters, rates.into()))
    }

    fn peek(&self, fingerprint: u64, now: u64, cost: u64) -> Decision {
        self.shard(fingerprint).peek(fingerprint, now, cost)
    }

    fn reserve(
        &self,
        fingerprint: u64,
        now: u64,
        cost: u64,
        max_wait_ns: u64,
    ) -> (Decision, Option<Ticket>) {
        self.shard(fingerprint)
            .reserve(fingerprint, now, cost, max_wait_ns)
    }

    fn cancel(&self, ticket: &Ticket) {
        self.shard(ticket.fingerprint).cancel(ticket);
    }

    fn refund(&self, fingerprint: u64, now: u64, cost: u64) {
        self.shard(fingerprint).refund(fingerprint, now, cost);
    }

    fn reset(&self, fingerprint: u64) {
        self.shard(fingerprint).reset(fingerprint);
    }

    fn configure(&self, rates: &[Rate], now: u64) -> Result<(), Error> {
        let meters = meters::<M>(rates, self.precision)?;
        let rates: Arc<[Rate]> = rates.into();
        // All shards at once and always in this order: no call sees half of the change.
        let mut shards: Vec<_> = self.shards.iter().map(|shard| lock(&shard.0)).collect();
        for shard in &mut shards {
            shard.configure(meters.clone(), rates.clone(), now);
        }
        Ok(())
    }

    fn rates(&self) -> Arc<[Rate]> {
        lock(&self.shards[0].0).rates.clone()
    }

    fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        for shard in &self.shards {
            sum.add(&lock(&shard.0).stats());
        }
        sum
    }
}
