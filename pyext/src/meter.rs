//! The interface of an algorithm: questions and changes to one key's state under one rate.

use crate::error::Error;
use crate::rate::Rate;

/// One rate, measured by one algorithm.
///
/// `now` and `at` are nanoseconds on the limiter's clock and never go back for a given state.
/// `State::default()` is a key never seen.
pub(crate) trait Meter: Sized + Send + 'static {
    /// The state of one key.
    type State: Default + Clone + Send + 'static;

    /// # Errors
    /// [`Error::Invalid`] for a rate that this algorithm cannot keep.
    fn new(rate: &Rate, precision: u32) -> Result<Self, Error>;

    /// Most bytes that a state takes beside its own size.
    fn most_heap_bytes(&self) -> u64;

    /// Drops hits that no longer count at `now`. Changes no decision, only its cost.
    fn settle(&self, _state: &mut Self::State, _now: u64) {}

    /// Whether `cost` fits at `now`. The hot path.
    fn admits(&self, state: &Self::State, now: u64, cost: u64) -> bool;

    /// The first time, not before `now`, at which `cost` fits if nothing else happens; `None` if it
    /// never fits. Once it fits it keeps fitting: composite rates rely on that.
    fn earliest(&self, state: &Self::State, now: u64, cost: u64) -> Option<u64>;

    /// Records `cost` at `at`, which [`Meter::earliest`] must have offered. `at` may lie in the future;
    /// nothing is admitted before it from then on.
    fn spend(&self, state: &mut Self::State, at: u64, cost: u64);

    /// The part of the state before a [`Meter::spend`] that [`Meter::undo`] needs.
    fn mark(&self, state: &Self::State) -> u128;

    /// Admits no later call before the slot whose [`Meter::spend`] left `mark`, though slots before it were
    /// given up since.
    fn keep_promise(&self, _state: &mut Self::State, _mark: u128) {}

    /// Takes back `spend(state, at, cost)`, made on the state that gave `mark`. If later hits build on it
    /// and it can no longer be separated, it stays: then less is admitted, never more.
    fn undo(&self, state: &mut Self::State, at: u64, cost: u64, mark: u128);

    /// Gives back up to `cost` units, never raising the key above a new one. Does nothing while
    /// slots in the future are reserved.
    fn refund(&self, state: &mut Self::State, now: u64, cost: u64);

    /// The largest cost that fits at `now`.
    fn remaining(&self, state: &Self::State, now: u64) -> u64;

    /// Nanoseconds until the state equals that of a new key.
    fn reset_after(&self, state: &Self::State, now: u64) -> u64;

    /// Whether the state equals that of a new key: dropping it changes no later decision.
    fn is_idle(&self, state: &Self::State, now: u64) -> bool;

    /// Whether states kept under `other` can be read under this rate as they are.
    fn shares_states_with(&self, other: &Self) -> bool;

    /// Cuts a state kept under such a rate down to the most this rate could have admitted.
    fn clamp(&self, _state: &mut Self::State, _now: u64) {}

    /// Translates a state kept under the rate `old` so that it can be continued under this one.
    /// Units spent stay spent, and the debt is at most what this rate could have admitted.
    fn adopt(&self, state: &mut Self::State, now: u64, old: &Self);
}
