//! What one algorithm must be able to say about one key's state under one rate.

use crate::error::Error;
use crate::rate::Rate;

/// One rate, measured by one algorithm.
///
/// `now` and `at` are nanoseconds on the limiter's clock and never go back for a given state.
/// `State::default()` is a key never seen.
pub(crate) trait Meter: Sized + Send + 'static {
    /// What is remembered per key.
    type State: Default + Clone + Send + 'static;

    /// Refuses rates this algorithm cannot honour.
    fn new(rate: &Rate, precision: u32) -> Result<Self, Error>;

    /// Forgets what no longer counts at `now`. Changes no answer, only the work of giving it.
    fn settle(&self, _state: &mut Self::State, _now: u64) {}

    /// Whether `cost` fits at `now`. The hot question.
    fn admits(&self, state: &Self::State, now: u64, cost: u64) -> bool;

    /// The first time, not before `now`, at which `cost` fits if nothing else happens; `None` if it
    /// never fits. Once it fits it keeps fitting: composite rates rely on that.
    fn earliest(&self, state: &Self::State, now: u64, cost: u64) -> Option<u64>;

    /// Records `cost` at `at`, which [`Meter::earliest`] must have offered. `at` may lie in the future;
    /// nothing is admitted before it from then on.
    fn spend(&self, state: &mut Self::State, at: u64, cost: u64);

    /// What [`Meter::undo`] needs to know of the state before a [`Meter::spend`].
    fn mark(&self, state: &Self::State) -> u128;

    /// Takes back `spend(state, at, cost)`, which came upon the state that gave `mark`, as if it had
    /// never happened. If later hits have built on it and it cannot be told apart any more, it stays:
    /// then less is admitted, never more.
    fn undo(&self, state: &mut Self::State, at: u64, cost: u64, mark: u128);

    /// Gives back up to `cost` units, never lifting the key above "never seen". Does nothing while
    /// slots in the future are reserved.
    fn refund(&self, state: &mut Self::State, now: u64, cost: u64);

    /// The largest cost that fits at `now`.
    fn remaining(&self, state: &Self::State, now: u64) -> u64;

    /// Nanoseconds until the state is as good as never seen.
    fn reset_after(&self, state: &Self::State, now: u64) -> u64;

    /// Whether the state is as good as never seen: dropping it changes no later decision.
    fn is_idle(&self, state: &Self::State, now: u64) -> bool;

    /// Whether states kept under `other` can be read under this rate as they are.
    fn shares_states_with(&self, other: &Self) -> bool;

    /// Cuts a state kept under such a rate down to the most this rate could have admitted.
    fn clamp(&self, _state: &mut Self::State, _now: u64) {}

    /// Translates a state kept under the rate `old` so that it can be continued under this one.
    /// What was spent stays spent, and nothing is owed that this rate could not have admitted.
    fn adopt(&self, state: &mut Self::State, now: u64, old: &Self);
}
