//! The interface between a limiter and the engine that keeps the states of its keys.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::decision::Decision;
use crate::error::Error;
use crate::key::Key;
use crate::rate::Rate;
use crate::shard::UndoToken;
use crate::shared::completion::{Outcome, ReplyTo};
use crate::shared::ledger::Ledger;
use crate::shared::wire::Request;
use crate::stats::Stats;

/// Keeps the states of all keys: [`crate::store::Store`] in this process, or
/// [`crate::shared::limits::SharedLimits`] together with other processes through Redis.
///
/// `now` is nanoseconds on the limiter's clock, `fingerprint` the hash of the key, never 0. No method has
/// a default: each engine states its behaviour for every call.
pub(crate) trait Engine: Send + Sync + fmt::Debug {
    /// Takes `cost` units without making a [`Decision`]. None if this engine needs [`Engine::hit`] for it;
    /// then nothing has changed.
    fn allow(&self, fingerprint: u64, now: u64, cost: u64) -> Option<bool>;

    /// Takes `cost` units. A decision that needs Redis is delivered later, to `reply_to`.
    fn hit(
        &self,
        fingerprint: u64,
        key: Key<'_>,
        now: u64,
        cost: u64,
        reply_to: ReplyTo<'_>,
    ) -> Outcome<Decision>;

    /// Several hits in order, each a fingerprint and a cost.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the limits are shared.
    fn hit_many(
        &self,
        calls: &mut dyn Iterator<Item = (u64, u64)>,
        now: u64,
        rates: Option<&[Rate]>,
    ) -> Result<Vec<Decision>, Error>;

    /// A hit measured by other rates. A decision that needs Redis is delivered later, to `reply_to`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the states cannot be read under `rates`; [`Error::TooLarge`] if they cannot be
    /// shared.
    fn hit_with(
        &self,
        fingerprint: u64,
        key: Key<'_>,
        now: u64,
        cost: u64,
        rates: &[Rate],
        reply_to: ReplyTo<'_>,
    ) -> Result<Outcome<Decision>, Error>;

    /// The decision that [`Engine::hit_with`] would make. Changes nothing and is not counted.
    ///
    /// # Errors
    /// As [`Engine::hit_with`].
    fn peek_with(
        &self,
        fingerprint: u64,
        key: Key<'_>,
        now: u64,
        cost: u64,
        rates: &[Rate],
        reply_to: ReplyTo<'_>,
    ) -> Result<Outcome<Decision>, Error>;

    /// Gives back `cost` units just taken by [`Engine::hit_with`].
    ///
    /// # Errors
    /// As [`Engine::hit_with`], and as [`Engine::refund`].
    fn refund_with(
        &self,
        fingerprint: u64,
        key: Key<'_>,
        now: u64,
        cost: u64,
        rates: &[Rate],
        reply_to: ReplyTo<'_>,
    ) -> Result<Outcome<Option<u64>>, Error>;

    /// Decides without Redis, after waiting for it in vain. Counted as a call if it `takes` the units; else
    /// nothing changes.
    fn decide_fallback(&self, fingerprint: u64, now: u64, cost: u64, takes: bool) -> Decision;

    /// The decision that a hit would make. Takes nothing and is not counted. One that needs Redis is delivered
    /// later, to `reply_to`.
    fn peek(
        &self,
        fingerprint: u64,
        key: Key<'_>,
        now: u64,
        cost: u64,
        reply_to: ReplyTo<'_>,
    ) -> Outcome<Decision>;

    /// Takes the first slot that starts within `max_wait_ns`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the limits are shared.
    fn reserve(
        &self,
        fingerprint: u64,
        now: u64,
        cost: u64,
        max_wait_ns: u64,
        is_waiting: bool,
        rates: Option<&[Rate]>,
    ) -> Result<(Decision, Option<UndoToken>), Error>;

    /// When a slot starts, ns.
    fn starts_at(&self, token: &UndoToken, now: u64) -> u64;

    /// The caller of the slot waits from now on, and can be woken.
    fn wait_for(&self, token: &mut UndoToken);

    /// The caller of the slot has come. This and the following return the slot whose caller is to be woken.
    fn serve(&self, token: &UndoToken, now: u64) -> Option<u64>;

    /// Takes back a slot of [`Engine::reserve`].
    fn cancel(&self, token: &UndoToken, now: u64) -> Option<u64>;

    /// Gives back `cost` units just taken. One that needs Redis is confirmed later, to `reply_to`, by a decision
    /// that is allowed; one that is refused has given nothing back, or its outcome is unknown.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if Redis does not serve these limits and no other place has the units.
    fn refund(
        &self,
        fingerprint: u64,
        key: Key<'_>,
        now: u64,
        cost: u64,
        reply_to: ReplyTo<'_>,
    ) -> Result<Outcome<Option<u64>>, Error>;

    /// Makes the key new again.
    fn reset(&self, fingerprint: u64, key: Key<'_>, now: u64) -> Option<u64>;

    /// Changes the rates of all keys. Returns the slots whose callers are to be woken.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::TooLarge`] for rates that this engine cannot keep; then nothing has
    /// changed.
    fn configure(&self, rates: &[Rate], now: u64) -> Result<Vec<u64>, Error>;

    /// The rates in force.
    fn rates(&self) -> Arc<[Rate]>;

    /// Counts since the engine was made.
    fn stats(&self) -> Stats;

    /// Whether other processes share the limits.
    fn is_shared(&self) -> bool;

    /// How long a caller waits for a pending decision before it calls [`Engine::decide_fallback`].
    fn reply_timeout(&self) -> Duration;

    /// Whether a caller who has waited this long should wait on.
    fn is_replying(&self, waited: Duration) -> bool;

    /// Sends the requests of calls that wait, if no other thread does so now.
    fn help(&self);

    /// Asks Redis whether it serves these limits.
    ///
    /// # Errors
    /// [`Error::Unreachable`] with the reason if not.
    fn ping(&self) -> Result<(), Error>;

    /// Stops talking to Redis.
    fn close(&self);

    /// Where leased tokens have gone.
    fn ledger(&self) -> Ledger;

    /// At most `limit` requests for the caller to send to Redis.
    fn collect(&self, limit: usize) -> Vec<Request>;

    /// Applies the script's reply to a request; None if its outcome is unknown.
    fn complete(&self, request: &Request, reply: Option<&[i64]>);
}
