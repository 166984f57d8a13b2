//! The slots of a shard's keys: taken for the future, given back, moved.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Place, Shard};
use crate::book::{Book, Holder, Slot, marks};
use crate::decision::Decision;
use crate::meter::Meter;
use crate::panel::{no_room, slot, spend_all};

/// The book of the shared bucket; no fingerprint is 0.
pub(super) const OVERFLOW: u64 = 0;

/// The id of the next slot of any limiter.
static NEXT_SLOT: AtomicU64 = AtomicU64::new(1);

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
}

impl UndoToken {
    /// Identifies the slot, among all of this process.
    pub(crate) fn id(&self) -> u64 {
        self.id
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
    /// Takes the first slot that starts within `max_wait_ns`. With `is_waiting` its caller asks for its time
    /// until it has come, and can be woken.
    pub(crate) fn reserve(
        &mut self,
        fingerprint: u64,
        now: u64,
        cost: u64,
        max_wait_ns: u64,
        is_waiting: bool,
    ) -> (Decision, Option<UndoToken>) {
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
        let before = marks(meters, states);
        let base = (at > now).then(|| states.to_vec().into_boxed_slice());
        spend_all(meters, states, at, cost);
        let holder = if is_waiting {
            Holder::Waiting
        } else {
            Holder::Promised(marks(meters, states))
        };
        self.count(place, true);
        let decision = self.report(place, now, cost, true);
        if cost == 0 {
            return (decision, None);
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
            is_waiting,
        };
        let entered = Slot {
            id: token.id,
            at,
            cost,
            told_at: at,
            holder,
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

    /// Gives the slot back. Returns the id of the slot whose caller is to be woken.
    pub(crate) fn cancel(&mut self, token: &UndoToken, now: u64) -> Option<u64> {
        if let Some(book) = self.books.get_mut(&token.book()) {
            if !book.give_up(token.id) {
                self.undo(token);
                return None;
            }
            let woken = book.move_up(&self.meters, now);
            if book.is_empty() {
                self.refresh(token.book(), now);
            }
            return woken;
        }
        self.undo(token);
        None
    }

    /// Takes a slot back that started as soon as it was taken, if that can be separated from what came since.
    fn undo(&mut self, token: &UndoToken) {
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
            undo_all(&self.meters, base, token);
            return;
        }
        let (meters, states) = self.parts(place);
        undo_all(meters, states, token);
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

    /// Forgets the slots of a key: a call was admitted after all of them.
    #[cold]
    pub(super) fn close_book(&mut self, place: Place, fingerprint: u64) {
        self.books.remove(&Self::book_at(place, fingerprint));
    }
}

fn undo_all<M: Meter>(meters: &[M], states: &mut [M::State], token: &UndoToken) {
    for ((meter, state), mark) in meters.iter().zip(states).zip(&token.marks) {
        meter.undo(state, token.at, token.cost, *mark);
    }
}
