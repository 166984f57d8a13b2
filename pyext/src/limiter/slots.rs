//! Slots in the future of a key.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Limiter;
use crate::decision::Decision;
use crate::error::Error;
use crate::key::Key;
use crate::rate::Rate;
use crate::shard::UndoToken;

/// A slot taken in advance. Belongs to the limiter that made it.
#[derive(Debug)]
pub struct Reservation {
    /// When the slot started as of the last answer, on the limiter's clock.
    at_ns: AtomicU64,
    /// None once cancelled, and if nothing was taken.
    token: Mutex<Option<UndoToken>>,
}

impl Reservation {
    /// Identifies the slot among all of this process; 0 once it is cancelled, and if nothing was taken.
    pub fn id(&self) -> u64 {
        self.token.lock().as_ref().map_or(0, UndoToken::id)
    }
}

impl Limiter {
    /// Takes the first slot for `cost` units that starts within `max_wait_ns`, after all slots already
    /// taken for this key. The caller waits until [`Limiter::delay_ns`] is 0, or cancels.
    ///
    /// A refusal has no reservation: the slot would start too late, or never.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the limits are shared: Redis keeps no slots in the future.
    pub fn reserve(
        &self,
        key: Key<'_>,
        cost: u64,
        max_wait_ns: u64,
    ) -> Result<(Decision, Option<Reservation>), Error> {
        self.take_slot(key, cost, max_wait_ns, false, None)
    }

    /// As [`Limiter::reserve`], measured by other rates for this slot.
    ///
    /// # Errors
    /// As [`Limiter::reserve`] and [`Limiter::hit_with`].
    pub fn reserve_with(
        &self,
        key: Key<'_>,
        cost: u64,
        max_wait_ns: u64,
        rates: &[Rate],
    ) -> Result<(Decision, Option<Reservation>), Error> {
        self.take_slot(key, cost, max_wait_ns, false, Some(rates))
    }

    /// As [`Limiter::reserve`], for a caller that asks for [`Limiter::delay_ns`] until it is 0 and then calls
    /// [`Limiter::serve`]: its slot moves up if others before it are cancelled.
    ///
    /// # Errors
    /// As [`Limiter::reserve`].
    pub fn queue(
        &self,
        key: Key<'_>,
        cost: u64,
        max_wait_ns: u64,
    ) -> Result<(Decision, Option<Reservation>), Error> {
        self.take_slot(key, cost, max_wait_ns, true, None)
    }

    pub(crate) fn take_slot(
        &self,
        key: Key<'_>,
        cost: u64,
        max_wait_ns: u64,
        is_waiting: bool,
        rates: Option<&[Rate]>,
    ) -> Result<(Decision, Option<Reservation>), Error> {
        // In shadow mode no caller waits.
        let max_wait_ns = if self.shadow { 0 } else { max_wait_ns };
        let (fingerprint, now) = (key.fingerprint(&self.seed), self.clock.now_ns());
        let (decision, token) =
            self.engine
                .reserve(fingerprint, now, cost, max_wait_ns, is_waiting, rates)?;
        let reserved = decision.allowed || self.shadow;
        let reservation = reserved.then(|| Reservation {
            at_ns: AtomicU64::new(token.as_ref().map_or(now, |token| token.at)),
            token: Mutex::new(token),
        });
        Ok((self.overrule(decision), reservation))
    }

    /// Nanoseconds until the reserved slot; 0 once it has come.
    pub fn delay_ns(&self, reservation: &Reservation) -> u64 {
        let now = self.clock.now_ns();
        if let Some(token) = &*reservation.token.lock() {
            let at = self.engine.starts_at(token, now);
            reservation.at_ns.store(at, Ordering::Relaxed);
        }
        reservation
            .at_ns
            .load(Ordering::Relaxed)
            .saturating_sub(now)
    }

    /// Makes a slot of [`Limiter::reserve`] one of [`Limiter::queue`].
    pub fn wait_for(&self, reservation: &Reservation) {
        if let Some(token) = &mut *reservation.token.lock() {
            self.engine.wait_for(token);
        }
    }

    /// The caller has come to its slot. This and the following methods return the [`Reservation::id`] of
    /// the slot in [`Limiter::queue`] that now starts earlier than its caller knows; the others follow when
    /// that one is served.
    pub fn serve(&self, reservation: &Reservation) -> Option<u64> {
        let now = self.clock.now_ns();
        let token = reservation.token.lock();
        token
            .as_ref()
            .and_then(|token| self.engine.serve(token, now))
    }

    /// Gives the slot back. Slots behind it move up if their callers wait in [`Limiter::queue`]; the times
    /// of others have been given out and stay. The second call does nothing.
    pub fn cancel(&self, reservation: &Reservation) -> Option<u64> {
        let now = self.clock.now_ns();
        let token = reservation.token.lock().take();
        token.and_then(|token| self.engine.cancel(&token, now))
    }
}
