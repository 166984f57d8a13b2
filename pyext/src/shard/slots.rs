//! The slots of a shard's keys: taken for the future, given back, moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Place, Shard};
use crate::book::{Book, Holder, Slot, marks};
use crate::decision::Decision;
use crate::meter::Meter;
use crate::panel::{no_room, report, slot, spend_all};
use crate::rate::Rate;

/// The book of the shared bucket; no fingerprint is 0.
pub(super) const OVERFLOW: u64 = 0;

/// The id of the next slot of any limiter.
static NEXT_SLOT: AtomicU64 = AtomicU64::new(1);

/// Rates given to one call, and what measures them.
type OwnRates<M> = (Box<[M]>, Arc<[Rate]>);

/// The slot that a caller asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) fingerprint: u64,
    pub(crate) cost: u64,
    pub(crate) max_wait_ns: u64,
    /// Its caller asks for its time until it has come, and can be woken.
    pub(crate) is_waiting: bool,
}

/// Identifies what a reservation took, to take it back.
#[derive(Debug)]
pub(crate) struct UndoToken {
    pub(crate) fingerprint: u64,
    /// The slot, ns on the limiter's clock.
    pub(crate) at: u64,
    cost: u64,
    /// One per rate, see [`Meter::mark`].
    marks: Box<[u128]>,
    /// The generation of the rates it was made under.
    generation: u64,
    /// Whether it was taken from the shared bucket.
    is_shared: bool,
    /// The slot in the key's book, if it was taken for the future.
    id: u64,
    /// Its caller waits: it may have moved.
    is_waiting: bool,
    /// Those of the call, if it had some.
    rates: Option<Arc<[Rate]>>,
}

impl UndoToken {
    /// Identifies the slot, among all of this process.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The rates by which the slot was taken, if they were its own.
    pub(crate) fn rates(&self) -> Option<&[Rate]> {
        self.rates.as_deref()
    }

    fn book(&self) -> u64 {
        if self.is_shared {
            OVERFLOW
        } else {
            self.fingerprint
        }
    }
}

impl<M: Meter> Shard<M> {
    /// Takes the first slot that starts within the longest wait, behind those that are taken, measured by
    /// rates of the call's own if it has some.
    pub(crate) fn reserve(
        &mut self,
        wanted: Wanted,
        now: u64,
        own: Option<OwnRates<M>>,
    ) -> (Decision, Option<UndoToken>) {
        let Wanted {
            fingerprint, cost, ..
        } = wanted;
        let place = self.place(fingerprint, now);
        let (own, own_rates) = own.unzip();
        let rates = own_rates.as_ref().unwrap_or(&self.rates).clone();
        if matches!(place, Place::Nowhere) {
            self.count(place, cost == 0);
            return (no_room(rates, cost), None);
        }
        let generation = self.generation;
        let book = self.books.get(&Self::book_at(place, fingerprint));
        let last_at = book.map_or(0, Book::last_start);
        let mut copied = own
            .as_deref()
            .map(|meters| self.states_by(meters, place, fingerprint, now));
        let (meters, states) = match (&own, &mut copied) {
            (Some(meters), Some(states)) => (&meters[..], &mut states[..]),
            _ => self.parts(place),
        };
        let at =
            slot(meters, states, now, cost).map(|at| if cost > 0 { at.max(last_at) } else { at });
        let Some(at) = at.filter(|at| at - now <= wanted.max_wait_ns) else {
            let decision = report(meters, states, rates, now, cost, false);
            self.count(place, false);
            return (decision, None);
        };
        let before = marks(meters, states);
        let base = (at > now).then(|| states.to_vec().into_boxed_slice());
        spend_all(meters, states, at, cost);
        let holder = if wanted.is_waiting {
            Holder::Waiting
        } else {
            Holder::Promised(marks(meters, states))
        };
        let decision = report(meters, states, rates, now, cost, true);
        self.count(place, true);
        if cost == 0 {
            return (decision, None);
        }
        if let Some(mut states) = copied {
            self.parts(place).1.swap_with_slice(&mut states);
        }
        if matches!(place, Place::NewKey) {
            self.table.insert(fingerprint, &mut self.new_key);
        }
        let token = UndoToken {
            fingerprint,
            at,
            cost,
            marks: before,
            generation,
            is_shared: matches!(place, Place::Overflow),
            id: NEXT_SLOT.fetch_add(1, Ordering::Relaxed),
            is_waiting: wanted.is_waiting,
            rates: own_rates,
        };
        let entered = Slot {
            id: token.id,
            at,
            cost,
            told_at: at,
            holder,
            own,
        };
        match (self.books.get_mut(&token.book()), base) {
            (Some(book), _) => book.push(entered),
            (None, Some(base)) => {
                let mut book = Book::new(base);
                book.push(entered);
                self.books.insert(token.book(), book);
            }
            (None, None) => {} // it starts now, behind no other
        }
        (decision, Some(token))
    }

    /// When the slot starts, ns.
    pub(crate) fn starts_at(&mut self, token: &UndoToken, now: u64) -> u64 {
        if let Some(book) = self.books.get_mut(&token.book())
            && let Some(slot) = book.find(token.id)
        {
            slot.told_at = slot.at;
            return slot.at;
        }
        token.at.min(now) // only a slot that has started leaves the book
    }

    /// From now on the caller waits for the slot and can be woken.
    pub(crate) fn wait_for(&mut self, token: &mut UndoToken) {
        if let Some(book) = self.books.get_mut(&token.book())
            && let Some(slot) = book.find(token.id)
            && let Holder::Promised(_) = slot.holder
        {
            slot.holder = Holder::Waiting;
            token.is_waiting = true;
        }
    }

    /// The caller has come to its slot. Returns the id of the slot whose caller is to be woken.
    pub(crate) fn serve(&mut self, token: &UndoToken, now: u64) -> Option<u64> {
        let book = self.books.get_mut(&token.book())?;
        book.find(token.id)?.holder = Holder::Served;
        let woken = book.move_up(&self.meters, now);
        if book.is_empty() && !book.is_stale() {
            self.books.remove(&token.book());
        }
        woken
    }

    /// Gives the slot back, which was measured by its `own` rates if they are given. Returns the id of the slot
    /// whose caller is to be woken.
    pub(crate) fn cancel(&mut self, token: &UndoToken, now: u64, own: Option<&[M]>) -> Option<u64> {
        if let Some(book) = self.books.get_mut(&token.book()) {
            if !book.give_up(token.id) {
                self.undo(token, own);
                return None;
            }
            let woken = book.move_up(&self.meters, now);
            if book.is_empty() {
                self.refresh(token.book(), now);
            }
            return woken;
        }
        self.undo(token, own);
        None
    }

    /// Takes a slot back that started as soon as it was taken, if that can be separated from what came since.
    fn undo(&mut self, token: &UndoToken, own: Option<&[M]>) {
        if token.generation != self.generation || token.is_waiting {
            return; // the states have been translated, or it has moved: its hit cannot be identified
        }
        let place = match self.table.find(token.fingerprint) {
            _ if token.is_shared => Place::Overflow,
            Some(slot) => Place::Slot(slot),
            None => return, // reset, or idle and evicted
        };
        if let Some(book) = self.books.get_mut(&token.book()) {
            let base = book.base_mut();
            undo_all(own.unwrap_or(&self.meters), base, token);
            return;
        }
        let (meters, states) = self.parts(place);
        undo_all(own.unwrap_or(meters), states, token);
    }

    /// Returns the id of the slot whose caller is to be woken.
    pub(crate) fn refund(&mut self, fingerprint: u64, now: u64, cost: u64) -> Option<u64> {
        self.refund_by(None, fingerprint, now, cost)
    }

    /// Like [`Self::refund`], but measured by other meters if they are given.
    pub(crate) fn refund_by(
        &mut self,
        given: Option<&[M]>,
        fingerprint: u64,
        now: u64,
        cost: u64,
    ) -> Option<u64> {
        if let Some(book) = self.books.get_mut(&fingerprint) {
            book.settle(&self.meters, now);
            let meters = given.unwrap_or(&self.meters);
            for (meter, state) in meters.iter().zip(book.base_mut()) {
                meter.refund(state, now, cost);
            }
            return book.move_up(&self.meters, now);
        }
        // A key without a slot has spent from the shared bucket, if at all. A refund there could give the
        // same units back twice, so there is none.
        if let Some(slot) = self.table.find(fingerprint) {
            let (own, states) = self.parts(Place::Slot(slot));
            for (meter, state) in given.unwrap_or(own).iter().zip(states) {
                meter.refund(state, now, cost);
            }
        }
        None
    }

    /// Slots that are taken start as on a new key. Returns the id of the slot whose caller is to be woken.
    pub(crate) fn reset(&mut self, fingerprint: u64, now: u64) -> Option<u64> {
        let slot = self.table.find(fingerprint)?;
        let Some(book) = self.books.get_mut(&fingerprint) else {
            self.table.remove(slot);
            return None;
        };
        book.settle(&self.meters, now);
        book.base_mut().fill(M::State::default());
        let mut states = book.replay(&self.meters, now, true);
        self.table.states_mut(slot).swap_with_slice(&mut states);
        book.move_up(&self.meters, now)
    }

    /// Brings the states of a key with a book up to date.
    #[cold]
    pub(super) fn refresh(&mut self, fingerprint: u64, now: u64) {
        for key in [fingerprint, OVERFLOW] {
            let Some(book) = self.books.get_mut(&key) else {
                continue;
            };
            let slot = self.table.find(key);
            if slot.is_none() && key != OVERFLOW {
                self.books.remove(&key); // evicted, long after its last slot
                continue;
            }
            book.settle(&self.meters, now);
            if book.is_stale() {
                let mut states = book.replay(&self.meters, now, false);
                match slot {
                    Some(slot) => self.table.states_mut(slot).swap_with_slice(&mut states),
                    None => self.overflow = states,
                }
            }
            if book.is_empty() {
                self.books.remove(&key);
            }
        }
    }

    /// The key of the book for the states at `place`.
    pub(super) fn book_at(place: Place, fingerprint: u64) -> u64 {
        match place {
            Place::Overflow => OVERFLOW,
            Place::Slot(_) | Place::NewKey | Place::Nowhere => fingerprint,
        }
    }

    /// Forgets the slots of a key, after all of which a call was admitted. Slots measured by rates of their own
    /// may still lie ahead of it: then it counts before them.
    #[cold]
    pub(super) fn admitted_beside_slots(
        &mut self,
        place: Place,
        fingerprint: u64,
        now: u64,
        cost: u64,
    ) {
        let key = Self::book_at(place, fingerprint);
        if let Some(book) = self.books.get_mut(&key)
            && book.last_start() > now
        {
            spend_all(&self.meters, book.base_mut(), now, cost);
        } else {
            self.books.remove(&key);
        }
    }
}

fn undo_all<M: Meter>(meters: &[M], states: &mut [M::State], token: &UndoToken) {
    for ((meter, state), mark) in meters.iter().zip(states).zip(&token.marks) {
        meter.undo(state, token.at, token.cost, *mark);
    }
}
