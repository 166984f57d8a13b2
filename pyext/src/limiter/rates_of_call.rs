//! Calls that are measured by rates of their own.

use super::Limiter;
use crate::decision::Decision;
use crate::error::Error;
use crate::key::{Key, PreparedKey};
use crate::rate::Rate;
use crate::shared::completion::{Outcome, ReplyTo};

impl Limiter {
    /// As [`Limiter::hit`], measured by other rates for this call: as many as the limiter has, in the
    /// same order. Every call for a key should use the same rates.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `rates` are not as many, or change the period of a window; [`Error::TooLarge`] if
    /// they cannot be shared.
    pub fn hit_with(&self, key: Key<'_>, cost: u64, rates: &[Rate]) -> Result<Decision, Error> {
        let outcome = self.hit_by(key, cost, Some(rates), ReplyTo::Thread)?;
        Ok(self.decision(outcome))
    }

    /// As [`Limiter::peek`], measured by other rates for this call.
    ///
    /// # Errors
    /// As [`Limiter::hit_with`].
    pub fn peek_with(&self, key: Key<'_>, cost: u64, rates: &[Rate]) -> Result<Decision, Error> {
        let outcome = self.peek_by(key, cost, Some(rates), ReplyTo::Thread)?;
        Ok(self.decision(outcome))
    }

    /// As [`Limiter::hit_many`], measured by other rates for these calls.
    ///
    /// # Errors
    /// As [`Limiter::hit_many`] and [`Limiter::hit_with`].
    pub fn hit_many_with(
        &self,
        items: impl IntoIterator<Item = (PreparedKey, u64)>,
        rates: &[Rate],
    ) -> Result<Vec<Decision>, Error> {
        self.hit_many_by(items, Some(rates))
    }

    /// As [`Limiter::refund`], for units that [`Limiter::hit_with`] has taken by these rates.
    ///
    /// # Errors
    /// As [`Limiter::hit_with`], and as [`Limiter::refund`].
    pub fn refund_with(
        &self,
        key: Key<'_>,
        cost: u64,
        rates: &[Rate],
    ) -> Result<Option<u64>, Error> {
        match self.refund_by(key, cost, Some(rates), ReplyTo::Thread)? {
            Outcome::Ready(woken) => Ok(woken),
            Outcome::Pending(pending) => self.wait_for_refund(&pending),
        }
    }

    fn decision(&self, outcome: Outcome<Decision>) -> Decision {
        match outcome {
            Outcome::Ready(decision) => decision,
            Outcome::Pending(pending) => self.wait(&pending),
        }
    }

    /// A hit, by the rates of the call if it has some.
    pub(crate) fn hit_by(
        &self,
        key: Key<'_>,
        cost: u64,
        rates: Option<&[Rate]>,
        reply_to: ReplyTo<'_>,
    ) -> Result<Outcome<Decision>, Error> {
        let Some(rates) = rates else {
            return Ok(self.hit_as(key, cost, reply_to));
        };
        let (fingerprint, now) = (key.fingerprint(&self.seed), self.clock.now_ns());
        let outcome = self
            .engine
            .hit_with(fingerprint, key, now, cost, rates, reply_to)?;
        Ok(outcome.map(|decision| self.overrule(decision)))
    }

    /// A peek, by the rates of the call if it has some.
    pub(crate) fn peek_by(
        &self,
        key: Key<'_>,
        cost: u64,
        rates: Option<&[Rate]>,
        reply_to: ReplyTo<'_>,
    ) -> Result<Outcome<Decision>, Error> {
        let Some(rates) = rates else {
            return Ok(self.peek_as(key, cost, reply_to));
        };
        let (fingerprint, now) = (key.fingerprint(&self.seed), self.clock.now_ns());
        let outcome = self
            .engine
            .peek_with(fingerprint, key, now, cost, rates, reply_to)?;
        Ok(outcome.map(|decision| self.overrule(decision)))
    }

    /// A refund, by the rates of the call if it has some.
    pub(crate) fn refund_by(
        &self,
        key: Key<'_>,
        cost: u64,
        rates: Option<&[Rate]>,
        reply_to: ReplyTo<'_>,
    ) -> Result<Outcome<Option<u64>>, Error> {
        let Some(rates) = rates else {
            return self.refund_as(key, cost, reply_to);
        };
        let (fingerprint, now) = (key.fingerprint(&self.seed), self.clock.now_ns());
        self.engine
            .refund_with(fingerprint, key, now, cost, rates, reply_to)
    }
}
