//! Keys and their states: sharded, capped, and decided under one lock per shard.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::decision::{Decision, Source};
use crate::error::Error;
use crate::limiter::{OnFull, Stats};
use crate::meter::Meter;
use crate::rate::Rate;
use crate::table::Table;

/// A shard grows by copying itself, so it should stay small enough to copy in well under a millisecond.
const KEYS_PER_SHARD: usize = 4096;
/// The six highest bits of a fingerprint choose the shard.
const MAX_SHARDS: usize = 64;
/// Slots looked at for idle keys whenever a key is new. More than one, so the hand outruns the newcomers.
const SWEEP_STEPS: usize = 4;
/// Slots looked at when the table is full and the policy is to evict.
const FULL_SWEEP_STEPS: usize = 64;

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

/// What a reservation took, so that it can be taken back.
#[derive(Debug)]
pub(crate) struct Ticket {
    fingerprint: u64,
    /// The slot, ns on the limiter's clock.
    pub(crate) at: u64,
    cost: u64,
    /// One per rate, see [`Meter::mark`].
    marks: Box<[u128]>,
    /// The configuration it was made under.
    generation: u64,
    /// Whether it was taken from the shared bucket.
    is_shared: bool,
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

struct Shard<M: Meter> {
    meters: Box<[M]>,
    rates: Arc<[Rate]>,
    table: Table<M::State>,
    /// What all keys without a slot share.
    overflow: Box<[M::State]>,
    /// The state of a key that may be about to get a slot.
    newcomer: Box<[M::State]>,
    on_full: OnFull,
    stats: Stats,
    /// How often the rates have changed.
    generation: u64,
}

/// Where the state of a key lies.
#[derive(Clone, Copy)]
enum Place {
    Slot(usize),
    Newcomer,
    Overflow,
    /// No room, and the policy is to refuse.
    Nowhere,
}

impl<M: Meter> Shard<M> {
    /// Finds the key's state. Makes room for a new key if that can be done without forgetting anything.
    #[inline]
    fn place(&mut self, fingerprint: u64, now: u64) -> Place {
        match self.table.find(fingerprint) {
            Some(slot) => Place::Slot(slot),
            None => self.place_newcomer(now),
        }
    }

    #[cold]
    fn place_newcomer(&mut self, now: u64) -> Place {
        self.sweep(SWEEP_STEPS, now);
        if self.table.is_full() && self.on_full == OnFull::EvictIdle {
            self.sweep(FULL_SWEEP_STEPS, now);
        }
        if !self.table.is_full() {
            if all_idle(&self.meters, &self.overflow, now) {
                self.newcomer.fill(M::State::default());
            } else {
                // This key may have spent from the shared bucket. Its own share is unknown, so it
                // starts with all of it: a key can never gain by having been squeezed out.
                self.newcomer.clone_from_slice(&self.overflow);
            }
            Place::Newcomer
        } else if self.on_full == OnFull::Deny {
            Place::Nowhere
        } else {
            Place::Overflow
        }
    }

    fn sweep(&mut self, steps: usize, now: u64) {
        let meters = &self.meters;
        let evicted = self
            .table
            .sweep(steps, |states| all_idle(meters, states, now));
        self.stats.evicted_idle += evicted as u64;
    }

    /// The meters, and the states at `place`, which must not be `Nowhere`.
    #[inline]
    fn parts(&mut self, place: Place) -> (&[M], &mut [M::State]) {
        let states = match place {
            Place::Slot(slot) => self.table.states_mut(slot),
            Place::Newcomer => &mut self.newcomer[..],
            Place::Overflow => &mut self.overflow[..],
            Place::Nowhere => unreachable!("a refused key has no state"),
        };
        (&self.meters, states)
    }

    /// Decides, spends and counts. A refusal leaves every state as it was.
    #[inline]
    fn consume(&mut self, fingerprint: u64, now: u64, cost: u64) -> (bool, Place) {
        let place = self.place(fingerprint, now);
        if matches!(place, Place::Nowhere) {
            self.stats.denied += 1;
            return (false, place);
        }
        if matches!(place, Place::Overflow) {
            self.stats.overflowed += 1;
        }
        let (meters, states) = self.parts(place);
        let allowed = admits_all(meters, states, now, cost);
        if !allowed {
            self.stats.denied += 1;
            return (false, place);
        }
        if cost > 0 {
            for (meter, state) in meters.iter().zip(states) {
                meter.spend(state, now, cost);
            }
        }
        self.stats.allowed += 1;
        if matches!(place, Place::Newcomer) && cost > 0 {
            let slot = self.table.insert(fingerprint, &mut self.newcomer);
            return (true, Place::Slot(slot));
        }
        (true, place)
    }

    fn report(&mut self, place: Place, now: u64, cost: u64, allowed: bool) -> Decision {
        let rates = self.rates.clone();
        if matches!(place, Place::Nowhere) {
            return refused_for_room(rates, cost);
        }
        let (meters, states) = self.parts(place);
        report(meters, states, rates, now, cost, allowed)
    }

    /// Like [`Self::consume`] and [`Self::report`], but measured by other meters.
    fn hit_with(
        &mut self,
        fingerprint: u64,
        now: u64,
        cost: u64,
        meters: &[M],
        rates: Arc<[Rate]>,
    ) -> Decision {
        let place = self.place(fingerprint, now);
        if matches!(place, Place::Nowhere) {
            self.stats.denied += 1;
            return refused_for_room(rates, cost);
        }
        let mut states = self.parts(place).1.to_vec();
        for (meter, state) in meters.iter().zip(&mut states) {
            meter.clamp(state, now);
        }
        let allowed = admits_all(meters, &mut states, now, cost);
        if allowed && cost > 0 {
            for (meter, state) in meters.iter().zip(&mut states) {
                meter.spend(state, now, cost);
            }
        }
        let decision = report(meters, &states, rates, now, cost, allowed);
        if allowed {
            self.stats.allowed += 1;
        } else {
            self.stats.denied += 1;
        }
        if allowed && cost > 0 {
            if matches!(place, Place::Newcomer) {
                self.table.insert(fingerprint, &mut states);
            } else {
                self.parts(place).1.swap_with_slice(&mut states);
            }
        }
        decision
    }

    fn configure(&mut self, meters: Box<[M]>, rates: Arc<[Rate]>, now: u64) {
        let ancestors = ancestors(&self.rates, &rates);
        let old_meters = std::mem::replace(&mut self.meters, meters);
        let continue_states = |old: &mut [M::State], new: &mut [M::State]| {
            for (index, ancestor) in ancestors.iter().enumerate() {
                if let Some(ancestor) = *ancestor {
                    new[index] = std::mem::take(&mut old[ancestor]);
                    self.meters[index].adopt(&mut new[index], now, &old_meters[ancestor]);
                }
            }
        };
        self.table.convert(rates.len(), continue_states);
        let mut overflow = vec![M::State::default(); rates.len()].into_boxed_slice();
        continue_states(&mut self.overflow, &mut overflow);
        self.overflow = overflow;
        self.newcomer = vec![M::State::default(); rates.len()].into_boxed_slice();
        self.rates = rates;
        self.generation += 1;
    }

    /// Takes the first slot that starts within `max_wait_ns`.
    fn reserve(
        &mut self,
        fingerprint: u64,
        now: u64,
        cost: u64,
        max_wait_ns: u64,
    ) -> (Decision, Option<Ticket>) {
        let place = self.place(fingerprint, now);
        if matches!(place, Place::Nowhere) {
            self.stats.denied += 1;
            return (refused_for_room(self.rates.clone(), cost), None);
        }
        let generation = self.generation;
        let (meters, states) = self.parts(place);
        let Some(at) = slot(meters, states, now, cost).filter(|at| at - now <= max_wait_ns) else {
            self.stats.denied += 1;
            return (self.report(place, now, cost, false), None);
        };
        let mut ticket = None;
        if cost > 0 {
            let marks = meters
                .iter()
                .zip(&*states)
                .map(|(meter, state)| meter.mark(state))
                .collect();
            for (meter, state) in meters.iter().zip(states) {
                meter.spend(state, at, cost);
            }
            ticket = Some(Ticket {
                fingerprint,
                at,
                cost,
                marks,
                generation,
                is_shared: matches!(place, Place::Overflow),
            });
        }
        self.stats.allowed += 1;
        let decision = self.report(place, now, cost, true);
        if matches!(place, Place::Newcomer) && cost > 0 {
            self.table.insert(fingerprint, &mut self.newcomer);
        }
        (decision, ticket)
    }

    fn cancel(&mut self, ticket: &Ticket) {
        if ticket.generation != self.generation {
            return; // the states have been translated; what it took cannot be recognised
        }
        let place = match self.table.find(ticket.fingerprint) {
            _ if ticket.is_shared => Place::Overflow,
            Some(slot) => Place::Slot(slot),
            None => return, // reset, or so long ago that it no longer counts
        };
        let (meters, states) = self.parts(place);
        for ((meter, state), mark) in meters.iter().zip(states).zip(&ticket.marks) {
            meter.undo(state, ticket.at, ticket.cost, *mark);
        }
    }
}

fn all_idle<M: Meter>(meters: &[M], states: &[M::State], now: u64) -> bool {
    meters
        .iter()
        .zip(states)
        .all(|(meter, state)| meter.is_idle(state, now))
}

#[inline]
fn admits_all<M: Meter>(meters: &[M], states: &mut [M::State], now: u64, cost: u64) -> bool {
    // Asking for nothing is always granted, even while others wait.
    cost == 0
        || meters.iter().zip(states).all(|(meter, state)| {
            meter.settle(state, now);
            meter.admits(state, now, cost)
        })
}

/// The first time at which all meters admit `cost`. Each goes on admitting once it does, so this is the
/// latest of their first times.
fn slot<M: Meter>(meters: &[M], states: &mut [M::State], now: u64, cost: u64) -> Option<u64> {
    let mut slot = now;
    if cost > 0 {
        for (meter, state) in meters.iter().zip(states) {
            meter.settle(state, now);
            slot = slot.max(meter.earliest(state, now, cost)?);
        }
    }
    Some(slot)
}

fn report<M: Meter>(
    meters: &[M],
    states: &[M::State],
    rates: Arc<[Rate]>,
    now: u64,
    cost: u64,
    allowed: bool,
) -> Decision {
    let mut tightest = 0;
    // What makes a rate the tightest: the longest wait, then the least left, then its name, so that
    // the order of the rates does not matter.
    let mut tightest_rank = None;
    let mut remaining = u64::MAX;
    let mut reset_after_ns = 0;
    for (index, (meter, state)) in meters.iter().zip(states).enumerate() {
        let left = meter.remaining(state, now);
        let wait_ns = if allowed {
            0
        } else {
            meter
                .earliest(state, now, cost)
                .map_or(u64::MAX, |at| at - now)
        };
        let rank = (wait_ns, u64::MAX - left, rates[index].name());
        if tightest_rank.is_none_or(|best| rank > best) {
            (tightest, tightest_rank) = (index, Some(rank));
        }
        remaining = remaining.min(left);
        reset_after_ns = meter.reset_after(state, now).max(reset_after_ns);
    }
    let longest_wait_ns = tightest_rank.map_or(0, |(wait_ns, _, _)| wait_ns);
    Decision {
        allowed,
        cost,
        remaining,
        retry_after_ns: (longest_wait_ns < u64::MAX).then_some(longest_wait_ns),
        reset_after_ns,
        source: Source::Local,
        rates,
        tightest,
    }
}

/// When room will appear depends on the other keys; the shortest refill time is a sensible guess.
fn refused_for_room(rates: Arc<[Rate]>, cost: u64) -> Decision {
    let guess_ns = rates.iter().map(Rate::refill_ns).min().unwrap_or(0);
    Decision {
        allowed: false,
        cost,
        remaining: 0,
        retry_after_ns: Some(guess_ns),
        reset_after_ns: guess_ns,
        source: Source::Local,
        rates,
        tightest: 0,
    }
}

/// For each new rate, the old one it continues: the one of the same name, else the one in the same
/// position unless that goes on under its own name.
fn ancestors(old: &[Rate], new: &[Rate]) -> Vec<Option<usize>> {
    let continues = |rate: &Rate| new.iter().any(|other| other.name() == rate.name());
    new.iter()
        .enumerate()
        .map(|(index, rate)| {
            old.iter()
                .position(|other| other.name() == rate.name())
                .or_else(|| {
                    old.get(index)
                        .filter(|other| !continues(other))
                        .map(|_| index)
                })
        })
        .collect()
}

fn meters<M: Meter>(rates: &[Rate], precision: u32) -> Result<Box<[M]>, Error> {
    if rates.is_empty() {
        return Err(Error::invalid("a limiter needs at least one rate, got 0"));
    }
    for (index, rate) in rates.iter().enumerate() {
        if rates[..index]
            .iter()
            .any(|other| other.name() == rate.name())
        {
            return Err(Error::invalid(format!(
                "two rates are named '{}'; give each its own name",
                rate.name()
            )));
        }
    }
    rates.iter().map(|rate| M::new(rate, precision)).collect()
}

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
            let fresh = vec![M::State::default(); rates.len()].into_boxed_slice();
            Padded(Mutex::new(Shard {
                meters: meters.clone(),
                rates: rates.clone(),
                table: Table::new(rates.len(), room),
                overflow: fresh.clone(),
                newcomer: fresh,
                on_full,
                stats: Stats::default(),
                generation: 0,
            }))
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
        self.shard(fingerprint).consume(fingerprint, now, cost).0
    }

    fn hit(&self, fingerprint: u64, now: u64, cost: u64) -> Decision {
        let mut shard = self.shard(fingerprint);
        let (allowed, place) = shard.consume(fingerprint, now, cost);
        shard.report(place, now, cost, allowed)
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
        let mut shard = self.shard(fingerprint);
        let place = shard.place(fingerprint, now);
        if matches!(place, Place::Nowhere) {
            return shard.report(place, now, cost, false);
        }
        let (meters, states) = shard.parts(place);
        let allowed = admits_all(meters, states, now, cost);
        shard.report(place, now, cost, allowed)
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
        let mut shard = self.shard(fingerprint);
        // A key without a slot has spent from the shared bucket, if at all. Giving that back could
        // give the same units back twice, so it keeps them.
        if let Some(slot) = shard.table.find(fingerprint) {
            let (meters, states) = shard.parts(Place::Slot(slot));
            for (meter, state) in meters.iter().zip(states) {
                meter.refund(state, now, cost);
            }
        }
    }

    fn reset(&self, fingerprint: u64) {
        let mut shard = self.shard(fingerprint);
        if let Some(slot) = shard.table.find(fingerprint) {
            shard.table.remove(slot);
        }
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
            let shard = lock(&shard.0);
            sum.add(&shard.stats);
            sum.keys += shard.table.len() as u64;
        }
        sum
    }
}
