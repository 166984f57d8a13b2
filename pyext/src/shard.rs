//! One part of a limiter's keys, under one lock.

use std::collections::HashMap;
use std::sync::Arc;

use crate::book::Book;
use crate::config::OnFull;
use crate::decision::Decision;
use crate::meter::Meter;
use crate::panel::{admits_all, all_idle, no_room, report, spend_all};
use crate::rate::Rate;
use crate::stats::Stats;
use crate::table::Table;

mod slots;

use slots::OVERFLOW;
pub(crate) use slots::{UndoToken, Wanted};

/// Slots examined for idle keys whenever a key is new. More than one, so the sweep outruns the new keys.
const SWEEP_STEPS: usize = 4;
/// Slots examined when the table is full and `on_full` evicts.
const FULL_SWEEP_STEPS: usize = 64;
/// Keys, their states, and the meters that read them. `now` is nanoseconds on the limiter's clock,
/// `fingerprint` is never 0.
pub(crate) struct Shard<M: Meter> {
    pub(crate) meters: Box<[M]>,
    pub(crate) rates: Arc<[Rate]>,
    table: Table<M::State>,
    /// The state that all keys without a slot share.
    overflow: Box<[M::State]>,
    /// The state of a new key before it gets a slot.
    new_key: Box<[M::State]>,
    on_full: OnFull,
    stats: Stats,
    /// The number of changes of the rates.
    generation: u64,
    /// The keys with slots that are taken and not used yet.
    books: HashMap<u64, Book<M>>,
}

/// The place of a key's state.
#[derive(Clone, Copy)]
enum Place {
    Slot(usize),
    NewKey,
    Overflow,
    /// No room, and `on_full` refuses.
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
            new_key: fresh,
            on_full,
            stats: Stats::default(),
            generation: 0,
            books: HashMap::new(),
        }
    }

    /// Finds the key's state. Makes room for a new key by evicting idle ones.
    #[inline]
    fn place(&mut self, fingerprint: u64, now: u64) -> Place {
        if !self.books.is_empty() {
            self.refresh(fingerprint, now);
        }
        match self.table.find(fingerprint) {
            Some(slot) => Place::Slot(slot),
            None => self.place_new_key(now),
        }
    }

    #[cold]
    fn place_new_key(&mut self, now: u64) -> Place {
        self.sweep(SWEEP_STEPS, now);
        if self.table.is_full() {
            match self.on_full {
                OnFull::EvictIdle => self.sweep(FULL_SWEEP_STEPS, now),
                OnFull::Deny | OnFull::SharedBucket => {}
            }
        }
        if !self.table.is_full() {
            if all_idle(&self.meters, &self.overflow, now) {
                self.new_key.fill(M::State::default());
            } else {
                // This key may have spent from the shared bucket. Its part is unknown, so it starts with
                // the whole debt: a key never gains by having had no room.
                self.new_key.clone_from_slice(&self.overflow);
            }
            return Place::NewKey;
        }
        match self.on_full {
            OnFull::Deny => Place::Nowhere,
            OnFull::SharedBucket | OnFull::EvictIdle => Place::Overflow,
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
            Place::NewKey => &mut self.new_key[..],
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
            if !self.books.is_empty() {
                self.admitted_beside_slots(place, fingerprint, now, cost);
            }
            if matches!(place, Place::NewKey) {
                place = Place::Slot(self.table.insert(fingerprint, &mut self.new_key));
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
        let mut states = self.states_by(meters, place, fingerprint, now);
        let allowed = admits_all(meters, &mut states, now, cost);
        if allowed {
            spend_all(meters, &mut states, now, cost);
        }
        self.count(place, allowed);
        let decision = report(meters, &states, rates, now, cost, allowed);
        if let Some(book) = self.books.get_mut(&Self::book_at(place, fingerprint)) {
            if allowed && cost > 0 {
                // These rates admit it before the slots that are taken, so it counts before them.
                spend_all(meters, book.base_mut(), now, cost);
            }
        } else if matches!(place, Place::NewKey) {
            if allowed && cost > 0 {
                self.table.insert(fingerprint, &mut states);
            }
        } else if cost > 0 {
            // A refusal is kept, too: its wait holds only for the debt as these rates have cut it.
            self.parts(place).1.swap_with_slice(&mut states);
        }
        decision
    }

    /// Like [`Self::peek`], but measured by other meters.
    pub(crate) fn peek_with(
        &mut self,
        fingerprint: u64,
        now: u64,
        cost: u64,
        meters: &[M],
        rates: Arc<[Rate]>,
    ) -> Decision {
        let place = self.place(fingerprint, now);
        if matches!(place, Place::Nowhere) {
            return no_room(rates, cost);
        }
        let mut states = self.states_by(meters, place, fingerprint, now);
        let allowed = admits_all(meters, &mut states, now, cost);
        report(meters, &states, rates, now, cost, allowed)
    }

    /// A copy of the states at `place`, as far as these meters could have admitted them. Slots in the future are
    /// more than they admit now, and stay.
    fn states_by(
        &mut self,
        meters: &[M],
        place: Place,
        fingerprint: u64,
        now: u64,
    ) -> Box<[M::State]> {
        let has_slots = self.books.contains_key(&Self::book_at(place, fingerprint));
        let mut states = self.parts(place).1.to_vec().into_boxed_slice();
        if !has_slots {
            for (meter, state) in meters.iter().zip(&mut states) {
                meter.clamp(state, now);
            }
        }
        states
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            keys: self.table.len() as u64,
            ..self.stats.clone()
        }
    }

    /// Slots that are taken start as early as the new rates allow, none later than before. Returns the ids of
    /// the slots whose callers are to be woken.
    pub(crate) fn configure(&mut self, meters: Box<[M]>, rates: Arc<[Rate]>, now: u64) -> Vec<u64> {
        for book in self.books.values_mut() {
            book.settle(&self.meters, now);
            book.forget_unreadable(&meters);
        }
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
        for book in self.books.values_mut() {
            let base = book.base_mut();
            let mut before = std::mem::replace(
                base,
                vec![M::State::default(); rates.len()].into_boxed_slice(),
            );
            continue_states(&mut before, base);
        }
        let mut woken = Vec::new();
        for (key, book) in &mut self.books {
            let mut states = book.replay(&self.meters, now, true);
            match self.table.find(*key) {
                Some(slot) => self.table.states_mut(slot).swap_with_slice(&mut states),
                None if *key == OVERFLOW => self.overflow = states,
                None => continue,
            }
            woken.extend(book.move_up(&self.meters, now));
        }
        self.new_key = vec![M::State::default(); rates.len()].into_boxed_slice();
        self.rates = rates;
        self.generation += 1;
        woken
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
