//! The engine of a single process: states of keys in shards, capped, with one lock per shard.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::config::{Algorithm, Config, OnFull, check_memory};
use crate::decision::Decision;
use crate::engine::Engine;
use crate::error::Error;
use crate::gcra::Gcra;
use crate::key::Key;
use crate::log::SlidingLog;
use crate::meter::Meter;
use crate::panel::{meters, share_states};
use crate::rate::Rate;
use crate::shard::{Shard, UndoToken, Wanted};
use crate::shared::completion::{Outcome, ReplyTo};
use crate::shared::ledger::Ledger;
use crate::shared::wire::Request;
use crate::stats::Stats;
use crate::window::SlidingWindow;

/// A shard grows by copying itself, so it should stay small enough to copy in well under a millisecond.
const KEYS_PER_SHARD: usize = 4096;
/// The six highest bits of a fingerprint choose the shard.
const MAX_SHARDS: usize = 64;

/// The engine of limits that this process keeps alone.
///
/// # Errors
/// As [`crate::Limiter::new`].
pub(crate) fn local_engine(rates: &[Rate], config: &Config) -> Result<Box<dyn Engine>, Error> {
    Ok(match config.algorithm {
        Algorithm::Gcra => bounded::<Gcra>(rates, config)?,
        Algorithm::SlidingLog => bounded::<SlidingLog>(rates, config)?,
        Algorithm::SlidingWindow => bounded::<SlidingWindow>(rates, config)?,
    })
}

fn bounded<M: Meter + Clone + Sync>(
    rates: &[Rate],
    config: &Config,
) -> Result<Box<dyn Engine>, Error> {
    let meters = meters::<M>(rates, config.precision)?;
    let (max_keys, most_bytes) = config.room(bytes_per_key(&meters))?;
    let mut store = Store::<M>::new(rates, config.precision, max_keys, config.on_full)?;
    store.most_bytes = most_bytes;
    Ok(Box::new(store))
}

/// Most bytes that a key takes: its slot at the highest load of the table, and what its states allocate.
fn bytes_per_key<M: Meter>(meters: &[M]) -> u64 {
    let slot = size_of::<u64>() + meters.len() * size_of::<M::State>();
    let heap = meters.iter().map(M::most_heap_bytes);
    heap.fold((slot as u64 * 4).div_ceil(3), u64::saturating_add)
}

/// The meters of rates given to one call, and the shard of its key, locked.
type Measured<'a, M> = (Box<[M]>, MutexGuard<'a, Shard<M>>);

/// All keys of one limiter.
pub(crate) struct Store<M: Meter> {
    shards: Box<[Padded<Mutex<Shard<M>>>]>,
    /// Buckets per window, for the algorithm that has them.
    precision: u32,
    /// Most bytes that a key may take.
    most_bytes: u64,
}

/// Puts each shard on a cache line of its own, so that threads on different shards share none.
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
            most_bytes: u64::MAX,
        })
    }

    /// The shard of a key, locked. Python calls hold the interpreter lock here; no code under this lock waits
    /// for another lock, so the two cannot deadlock.
    #[inline]
    fn shard(&self, fingerprint: u64) -> MutexGuard<'_, Shard<M>> {
        let index = (fingerprint >> 58) as usize & (self.shards.len() - 1);
        self.shards[index].0.lock()
    }

    /// Reads the rates given to one call.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the states cannot be read by them.
    fn measured_by(&self, fingerprint: u64, rates: &[Rate]) -> Result<Measured<'_, M>, Error> {
        let meters = meters::<M>(rates, self.precision)?;
        let shard = self.shard(fingerprint);
        if meters.len() != shard.meters.len() {
            return Err(Error::invalid(format!(
                "rates must be as many as the limiter has, {}, got {}",
                shard.meters.len(),
                meters.len()
            )));
        }
        check_memory(bytes_per_key(&meters), self.most_bytes)?;
        if !share_states(&meters, &shard.meters) {
            return Err(Error::invalid(
                "rates given to one call of a sliding window must keep the limiter's periods",
            ));
        }
        Ok((meters, shard))
    }
}

#[cfg(test)]
impl<M: Meter> Store<M> {
    /// Whether another thread holds the lock of this key's shard right now.
    pub(crate) fn is_busy(&self, fingerprint: u64) -> bool {
        let index = (fingerprint >> 58) as usize & (self.shards.len() - 1);
        self.shards[index].0.is_locked()
    }
}

impl<M: Meter> fmt::Debug for Store<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

impl<M: Meter + Clone + Sync> Engine for Store<M> {
    fn allow(&self, fingerprint: u64, now: u64, cost: u64) -> Option<bool> {
        Some(self.shard(fingerprint).allow(fingerprint, now, cost))
    }

    fn hit(
        &self,
        fingerprint: u64,
        _key: Key<'_>,
        now: u64,
        cost: u64,
        _reply_to: ReplyTo<'_>,
    ) -> Outcome<Decision> {
        Outcome::Ready(self.shard(fingerprint).hit(fingerprint, now, cost))
    }

    fn hit_many(
        &self,
        calls: &mut dyn Iterator<Item = (u64, u64)>,
        now: u64,
        rates: Option<&[Rate]>,
    ) -> Result<Vec<Decision>, Error> {
        let Some(rates) = rates else {
            let decide = |(fingerprint, cost)| self.shard(fingerprint).hit(fingerprint, now, cost);
            return Ok(calls.map(decide).collect());
        };
        let decide = |(fingerprint, cost)| {
            let (meters, mut shard) = self.measured_by(fingerprint, rates)?;
            Ok(shard.hit_with(fingerprint, now, cost, &meters, rates.into()))
        };
        calls.map(decide).collect()
    }

    fn hit_with(
        &self,
        fingerprint: u64,
        _key: Key<'_>,
        now: u64,
        cost: u64,
        rates: &[Rate],
        _reply_to: ReplyTo<'_>,
    ) -> Result<Outcome<Decision>, Error> {
        let (meters, mut shard) = self.measured_by(fingerprint, rates)?;
        let decision = shard.hit_with(fingerprint, now, cost, &meters, rates.into());
        Ok(Outcome::Ready(decision))
    }

    fn peek_with(
        &self,
        fingerprint: u64,
        _key: Key<'_>,
        now: u64,
        cost: u64,
        rates: &[Rate],
        _reply_to: ReplyTo<'_>,
    ) -> Result<Outcome<Decision>, Error> {
        let (meters, mut shard) = self.measured_by(fingerprint, rates)?;
        let decision = shard.peek_with(fingerprint, now, cost, &meters, rates.into());
        Ok(Outcome::Ready(decision))
    }

    fn refund_with(
        &self,
        fingerprint: u64,
        _key: Key<'_>,
        now: u64,
        cost: u64,
        rates: &[Rate],
        _reply_to: ReplyTo<'_>,
    ) -> Result<Outcome<Option<u64>>, Error> {
        let (meters, mut shard) = self.measured_by(fingerprint, rates)?;
        let woken = shard.refund_by(Some(&meters), fingerprint, now, cost);
        Ok(Outcome::Ready(woken))
    }

    fn decide_fallback(&self, fingerprint: u64, now: u64, cost: u64, takes: bool) -> Decision {
        let mut shard = self.shard(fingerprint);
        if takes {
            shard.hit(fingerprint, now, cost)
        } else {
            shard.peek(fingerprint, now, cost)
        }
    }

    fn peek(
        &self,
        fingerprint: u64,
        _key: Key<'_>,
        now: u64,
        cost: u64,
        _reply_to: ReplyTo<'_>,
    ) -> Outcome<Decision> {
        Outcome::Ready(self.shard(fingerprint).peek(fingerprint, now, cost))
    }

    fn reserve(
        &self,
        fingerprint: u64,
        now: u64,
        cost: u64,
        max_wait_ns: u64,
        is_waiting: bool,
        rates: Option<&[Rate]>,
    ) -> Result<(Decision, Option<UndoToken>), Error> {
        let wanted = Wanted {
            fingerprint,
            cost,
            max_wait_ns,
            is_waiting,
        };
        let Some(rates) = rates else {
            return Ok(self.shard(fingerprint).reserve(wanted, now, None));
        };
        let (meters, mut shard) = self.measured_by(fingerprint, rates)?;
        Ok(shard.reserve(wanted, now, Some((meters, rates.into()))))
    }

    fn starts_at(&self, token: &UndoToken, now: u64) -> u64 {
        self.shard(token.fingerprint).starts_at(token, now)
    }

    fn wait_for(&self, token: &mut UndoToken) {
        self.shard(token.fingerprint).wait_for(token);
    }

    fn serve(&self, token: &UndoToken, now: u64) -> Option<u64> {
        self.shard(token.fingerprint).serve(token, now)
    }

    fn cancel(&self, token: &UndoToken, now: u64) -> Option<u64> {
        let own = token
            .rates()
            .map(|rates| meters::<M>(rates, self.precision));
        let own = own.and_then(Result::ok);
        self.shard(token.fingerprint)
            .cancel(token, now, own.as_deref())
    }

    fn refund(
        &self,
        fingerprint: u64,
        _key: Key<'_>,
        now: u64,
        cost: u64,
        _reply_to: ReplyTo<'_>,
    ) -> Result<Outcome<Option<u64>>, Error> {
        let woken = self.shard(fingerprint).refund(fingerprint, now, cost);
        Ok(Outcome::Ready(woken))
    }

    fn reset(&self, fingerprint: u64, _key: Key<'_>, now: u64) -> Option<u64> {
        self.shard(fingerprint).reset(fingerprint, now)
    }

    fn configure(&self, rates: &[Rate], now: u64) -> Result<Vec<u64>, Error> {
        let meters = meters::<M>(rates, self.precision)?;
        check_memory(bytes_per_key(&meters), self.most_bytes)?;
        let rates: Arc<[Rate]> = rates.into();
        // Locks all shards, always in this order: no call sees half of the change.
        let mut shards: Vec<_> = self.shards.iter().map(|shard| shard.0.lock()).collect();
        let mut woken = Vec::new();
        for shard in &mut shards {
            woken.extend(shard.configure(meters.clone(), rates.clone(), now));
        }
        Ok(woken)
    }

    fn rates(&self) -> Arc<[Rate]> {
        self.shards[0].0.lock().rates.clone()
    }

    fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        for shard in &self.shards {
            sum.add(&shard.0.lock().stats());
        }
        sum
    }
    fn is_shared(&self) -> bool {
        false
    }

    fn reply_timeout(&self) -> Duration {
        Duration::ZERO
    }

    fn is_replying(&self, _waited: Duration) -> bool {
        false
    }

    fn help(&self) {}

    fn ping(&self) -> Result<(), Error> {
        Ok(())
    }

    fn close(&self) {}

    fn ledger(&self) -> Ledger {
        Ledger::default()
    }

    fn collect(&self, _limit: usize) -> Vec<Request> {
        Vec::new()
    }

    fn complete(&self, _request: &Request, _reply: Option<&[i64]>) {}
}
