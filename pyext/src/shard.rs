//! One part of a limiter's keys: what is done under one lock.

use std::sync::Arc;

use crate::decision::Decision;
use crate::limiter::{OnFull, Stats};
use crate::meter::Meter;
use crate::panel::{admits_all, all_idle, no_room, report, slot, spend_all};
use crate::rate::Rate;
use crate::table::Table;

/// Slots looked at for idle keys whenever a key is new. More than one, so the hand outruns the newcomers.
const SWEEP_STEPS: usize = 4;
/// Slots looked at when the table is full and the policy is to evict.
const FULL_SWEEP_STEPS: usize = 64;

/// Keys, their states, and the meters that read them. `now` is nanoseconds on the limiter's clock,
/// `fingerprint` is never 0.
pub(crate) struct Shard<M: Meter> {
    pub(crate) meters: Box<[M]>,
    pub(crate) rates: Arc<[Rate]>,
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

/// What a reservation took, so that it can be taken back.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) fingerprint: u64,
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
    pub(crate) fn new(
        meters: Box<[M]>,
        rates: Arc<[Rate]>,
        max_keys: usize,
        on_full: OnFull,
    ) -> Self {
        let fresh = vec![M::State::default(); rates.len()].into_boxed_slice();
        Self {
            meters,
            table: Table::new(rates.len(), max_keys),
            rates,
            overflow: fresh.clone(),
            newcomer: fresh,
            on_full,
            stats: Stats::default(),
            generation: 0,
        }
    }

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

    fn count(&mut self, place: Place, allowed: bool) {
        if matches!(place, Place::Overflow) {
            self.stats.overflowed += 1;
        }
        if allowed {
            self.stats.allowed += 1;
        } else {
            self.stats.denied += 1;
        }
    }

    /// Decides, spends and counts. A refusal leaves every state as it was.
    #[inline]
    fn consume(&mut self, fingerprint: u64, now: u64, cost: u64) -> (bool, Place) {
        let mut place = self.place(fingerprint, now);
        let allowed = self.admits(place, now, cost);
        if allowed && cost > 0 {
            let (meters, states) = self.parts(place);
            spend_all(meters, states, now, cost);
            if matches!(place, Place::Newcomer) {
                place = Place::Slot(self.table.insert(fingerprint, &mut self.newcomer));
            }
        }
        self.count(place, allowed);
        (allowed, place)
    }

    #[inline]
    fn admits(&mut self, place: Place, now: u64, cost: u64) -> bool {
        if matches!(place, Place::Nowhere) {
            return cost == 0;
        }
        let (meters, states) = self.parts(place);
        admits_all(meters, states, now, cost)
    }

    fn report(&mut self, place: Place, now: u64, cost: u64, allowed: bool) -> Decision {
        let rates = self.rates.clone();
        if matches!(place, Place::Nowhere) {
            return no_room(rates, cost);
        }
        let (meters, states) = self.parts(place);
        report(meters, states, rates, now, cost, allowed)
    }

    #[inline]
    pub(crate) fn allow(&mut self, fingerprint: u64, now: u64, cost: u64) -> bool {
        self.consume(fingerprint, now, cost).0
    }

    pub(crate) fn hit(&mut self, fingerprint: u64, now: u64, cost: u64) -> Decision {
        let (allowed, place) = self.consume(fingerprint, now, cost);
        self.report(place, now, cost, allowed)
    }

    pub(crate) fn peek(&mut self, fingerprint: u64, now: u64, cost: u64) -> Decision {
        let place = self.place(fingerprint, now);
        let allowed = self.admits(place, now, cost);
        self.report(place, now, cost, allowed)
    }

    /// Like [`Self::hit`], but measured by other meters.
    pub(crate) fn hit_with(
        &mut self,
        fingerprint: u64,
        now: u64,
        cost: u64,
        meters: &[M],
        rates: Arc<[Rate]>,
    ) -> Decision {
        let place = self.place(fingerprint, now);
        if matches!(place, Place::Nowhere) {
            self.count(place, cost == 0);
            return no_room(rates, cost);
        }
        let mut states = self.parts(place).1.to_vec();
        for (meter, state) in meters.iter().zip(&mut states) {
            meter.clamp(state, now);
        }
        let allowed = admits_all(meters, &mut states, now, cost);
        if allowed {
            spend_all(meters, &mut states, now, cost);
        }
        self.count(place, allowed);
        let decision = report(meters, &states, rates, now, cost, allowed);
        if allowed && cost > 0 {
            if matches!(place, Place::Newcomer) {
                self.table.insert(fingerprint, &mut states);
            } else {
                self.parts(place).1.swap_with_slice(&mut states);
            }
        }
        decision
    }

    /// Takes the first slot that starts within `max_wait_ns`.
    pub(crate) fn reserve(
        &mut self,
        fingerprint: u64,
        now: u64,
        cost: u64,
        max_wait_ns: u64,
    ) -> (Decision, Option<Ticket>) {
        let place = self.place(fingerprint, now);
        if matches!(place, Place::Nowhere) {
            self.count(place, cost == 0);
            return (no_room(self.rates.clone(), cost), None);
        }
        let generation = self.generation;
        let (meters, states) = self.parts(place);
        let Some(at) = slot(meters, states, now, cost).filter(|at| at - now <= max_wait_ns) else {
            self.count(place, false);
            return (self.report(place, now, cost, false), None);
        };
        let marks = meters
            .iter()
            .zip(&*states)
            .map(|(meter, state)| meter.mark(state))
            .collect();
        spend_all(meters, states, at, cost);
        self.count(place, true);
        let decision = self.report(place, now, cost, true);
        if cost == 0 {
            return (decision, None);
        }
        if matches!(place, Place::Newcomer) {
            self.table.insert(fingerprint, &mut self.newcomer);
        }
        let ticket = Ticket {
            fingerprint,
            at,
            cost,
            marks,
            generation,
            is_shared: matches!(place, Place::Overflow),
        };
        (decision, Some(ticket))
    }

    pub(crate) fn cancel(&mut self, ticket: &Ticket) {
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

    pub(crate) fn refund(&mut self, fingerprint: u64, now: u64, cost: u64) {
        // A key without a slot has spent from the shared bucket, if at all. Giving that back could
        // give the same units back twice, so it keeps them.
        if let Some(slot) = self.table.find(fingerprint) {
            let (meters, states) = self.parts(Place::Slot(slot));
            for (meter, state) in meters.iter().zip(states) {
                meter.refund(state, now, cost);
            }
        }
    }

    pub(crate) fn reset(&mut self, fingerprint: u64) {
        if let Some(slot) = self.table.find(fingerprint) {
            self.table.remove(slot);
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            keys: self.table.len() as u64,
            ..self.stats
        }
    }

    pub(crate) fn configure(&mut self, meters: Box<[M]>, rates: Arc<[Rate]>, now: u64) {
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
