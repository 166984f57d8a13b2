//! Units given back.

use std::sync::Arc;

use super::Limiter;
use crate::error::Error;
use crate::key::Key;
use crate::shared::completion::{CompletionQueue, Outcome, Pending, ReplyTo};

impl Limiter {
    /// Gives back `cost` units just taken. A key never holds more than a new one. Shared limits give them back
    /// in Redis, and wait for its confirmation, if the lease of this process has no place for them; with
    /// [`crate::Cold::Optimistic`] they do not wait, and a refund that is lost is logged.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if Redis does not confirm it: nothing was given back, or its reply was lost.
    pub fn refund(&self, key: Key<'_>, cost: u64) -> Result<Option<u64>, Error> {
        match self.try_refund(key, cost)? {
            Outcome::Ready(woken) => Ok(woken),
            Outcome::Pending(pending) => self.wait_for_refund(&pending),
        }
    }

    /// As [`Limiter::refund`], without waiting: [`Limiter::wait_for_refund`] does.
    ///
    /// # Errors
    /// As [`Limiter::refund`].
    pub fn try_refund(&self, key: Key<'_>, cost: u64) -> Result<Outcome<Option<u64>>, Error> {
        self.refund_as(key, cost, ReplyTo::Thread)
    }

    /// As [`Limiter::refund`], for callers that cannot sleep, see [`Limiter::submit`]. None: the outcome comes
    /// through `queue`, a decision that is allowed if the units are given back.
    ///
    /// # Errors
    /// As [`Limiter::refund`].
    pub fn submit_refund(
        &self,
        key: Key<'_>,
        cost: u64,
        queue: &Arc<CompletionQueue>,
        call_id: u64,
    ) -> Result<Option<Option<u64>>, Error> {
        let outcome = self.refund_as(key, cost, ReplyTo::Queue(queue, call_id))?;
        Ok(outcome.ready())
    }

    pub(super) fn refund_as(
        &self,
        key: Key<'_>,
        cost: u64,
        reply_to: ReplyTo<'_>,
    ) -> Result<Outcome<Option<u64>>, Error> {
        let (fingerprint, now) = (key.fingerprint(&self.seed), self.clock.now_ns());
        self.engine.refund(fingerprint, key, now, cost, reply_to)
    }

    /// Sleeps until Redis has confirmed a refund.
    ///
    /// # Errors
    /// As [`Limiter::refund`].
    pub fn wait_for_refund(&self, pending: &Pending) -> Result<Option<u64>, Error> {
        match self.reply(pending) {
            Some(decision) if decision.allowed => Ok(None),
            _ => Err(unconfirmed(pending.ask.units())),
        }
    }
}

/// The refund of these units has no confirmation.
fn unconfirmed(units: u64) -> Error {
    Error::Unreachable(format!(
        "{units} units are not given back, or Redis did not confirm it in time"
    ))
}
