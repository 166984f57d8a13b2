//! All meters of a limiter together: one meter per rate, one state per key and meter.

use std::sync::Arc;

use crate::decision::{Decision, Source};
use crate::error::Error;
use crate::meter::Meter;
use crate::rate::Rate;

/// One meter per rate.
pub(crate) fn meters<M: Meter>(rates: &[Rate], precision: u32) -> Result<Box<[M]>, Error> {
    if rates.is_empty() {
        return Err(Error::invalid("a limiter needs at least one rate, got 0"));
    }
    for (index, rate) in rates.iter().enumerate() {
        if rates[..index]
            .iter()
            .any(|other| other.name() == rate.name())
        {
            return Err(Error::invalid(format!(
                "two rates are named '{}'; give each its own name",
                rate.name()
            )));
        }
    }
    rates.iter().map(|rate| M::new(rate, precision)).collect()
}

/// Whether states kept under the `other` rates can be read under these as they are.
pub(crate) fn share_states<M: Meter>(meters: &[M], other: &[M]) -> bool {
    meters.len() == other.len()
        && meters
            .iter()
            .zip(other)
            .all(|(meter, other)| meter.shares_states_with(other))
}

/// Whether dropping the states changes no later decision.
pub(crate) fn all_idle<M: Meter>(meters: &[M], states: &[M::State], now: u64) -> bool {
    meters
        .iter()
        .zip(states)
        .all(|(meter, state)| meter.is_idle(state, now))
}

/// Whether every meter admits `cost` now.
#[inline]
pub(crate) fn admits_all<M: Meter>(
    meters: &[M],
    states: &mut [M::State],
    now: u64,
    cost: u64,
) -> bool {
    // A cost of 0 is always admitted, even while others wait.
    cost == 0
        || meters.iter().zip(states).all(|(meter, state)| {
            meter.settle(state, now);
            meter.admits(state, now, cost)
        })
}

/// The first time at which all meters admit `cost`. Each goes on admitting once it does, so this is the
/// latest of their first times.
pub(crate) fn slot<M: Meter>(
    meters: &[M],
    states: &mut [M::State],
    now: u64,
    cost: u64,
) -> Option<u64> {
    let mut slot = now;
    if cost > 0 {
        for (meter, state) in meters.iter().zip(states) {
            meter.settle(state, now);
            slot = slot.max(meter.earliest(state, now, cost)?);
        }
    }
    Some(slot)
}

/// Records `cost` with every meter.
#[inline]
pub(crate) fn spend_all<M: Meter>(meters: &[M], states: &mut [M::State], at: u64, cost: u64) {
    if cost > 0 {
        for (meter, state) in meters.iter().zip(states) {
            meter.spend(state, at, cost);
        }
    }
}

/// The full decision, given the states after the call.
pub(crate) fn report<M: Meter>(
    meters: &[M],
    states: &[M::State],
    rates: Arc<[Rate]>,
    now: u64,
    cost: u64,
    allowed: bool,
) -> Decision {
    let mut tightest = 0;
    // The tightest rate has the longest wait, then the least left, then the last name, so that the order
    // of the rates does not matter.
    let mut tightest_rank = None;
    let mut remaining = u64::MAX;
    let mut reset_after_ns = 0;
    for (index, (meter, state)) in meters.iter().zip(states).enumerate() {
        let left = meter.remaining(state, now);
        let wait_ns = if allowed {
            0
        } else {
            meter
                .earliest(state, now, cost)
                .map_or(u64::MAX, |at| at - now)
        };
        let rank = (wait_ns, u64::MAX - left, rates[index].name());
        if tightest_rank.is_none_or(|best| rank > best) {
            (tightest, tightest_rank) = (index, Some(rank));
        }
        remaining = remaining.min(left);
        reset_after_ns = meter.reset_after(state, now).max(reset_after_ns);
    }
    let longest_wait_ns = tightest_rank.map_or(0, |(wait_ns, _, _)| wait_ns);
    Decision {
        allowed,
        cost,
        remaining,
        retry_after_ns: (longest_wait_ns < u64::MAX).then_some(longest_wait_ns),
        reset_after_ns,
        source: Source::Local,
        rates,
        tightest,
    }
}

/// The decision when there is no room for the key. The wait depends on the other keys; the shortest refill
/// time is an estimate.
pub(crate) fn no_room(rates: Arc<[Rate]>, cost: u64) -> Decision {
    let allowed = cost == 0;
    let guess_ns = rates.iter().map(Rate::refill_ns).min().unwrap_or(0);
    Decision {
        allowed,
        cost,
        remaining: 0,
        retry_after_ns: Some(if allowed { 0 } else { guess_ns }),
        reset_after_ns: guess_ns,
        source: Source::Local,
        rates,
        tightest: 0,
    }
}
