//! Exact sliding window: every admitted hit is kept until it leaves the window.
//!
//! In any half-open window `(t − W, t]` at most `limit` units are admitted, and no call is refused
//! that fits. The price is memory: up to `limit` entries of 16 bytes per key.

use std::collections::VecDeque;

use crate::error::Error;
use crate::meter::Meter;
use crate::rate::Rate;

/// A rate measured by the exact log.
#[derive(Debug, Clone)]
pub(crate) struct SlidingLog {
    limit: u64,
    window_ns: u64,
}

/// The admitted hits that still count, oldest first; hits of the same nanosecond are one entry.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    hits: VecDeque<Hit>,
    /// Sum of all costs in `hits`.
    total: u64,
}

#[derive(Debug, Clone, Copy)]
struct Hit {
    at: u64,
    cost: u64,
}

impl SlidingLog {
    /// A hit exactly one window old no longer counts.
    fn is_expired(&self, hit: Hit, now: u64) -> bool {
        now.checked_sub(self.window_ns)
            .is_some_and(|cutoff| hit.at <= cutoff)
    }

    fn used(&self, history: &History, now: u64) -> u64 {
        let expired = history
            .hits
            .iter()
            .take_while(|hit| self.is_expired(**hit, now));
        history.total - expired.map(|hit| hit.cost).sum::<u64>()
    }
}

/// Windows take no separate burst: `limit` is the most that fits at once.
pub(crate) fn refuse_burst(rate: &Rate) -> Result<(), Error> {
    if rate.burst() == rate.limit() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "a sliding window takes no burst, but the rate '{}' has limit {} and burst {}",
        rate.name(),
        rate.limit(),
        rate.burst()
    )))
}

impl Meter for SlidingLog {
    type State = History;

    fn new(rate: &Rate, _precision: u32) -> Result<Self, Error> {
        refuse_burst(rate)?;
        Ok(Self {
            limit: rate.limit(),
            window_ns: rate.period_ns(),
        })
    }

    fn settle(&self, history: &mut History, now: u64) {
        while let Some(&oldest) = history.hits.front() {
            if !self.is_expired(oldest, now) {
                break;
            }
            history.total -= oldest.cost;
            history.hits.pop_front();
        }
    }

    fn admits(&self, history: &History, now: u64, cost: u64) -> bool {
        cost <= self.remaining(history, now)
    }

    fn earliest(&self, history: &History, now: u64, cost: u64) -> Option<u64> {
        if cost > self.limit {
            return None;
        }
        // A reserved hit lies in the future; later calls wait behind it.
        let from = history.hits.back().map_or(now, |last| last.at.max(now));
        let used = self.used(history, from);
        let Some(mut excess) = (used + cost).checked_sub(self.limit).filter(|e| *e > 0) else {
            return Some(from);
        };
        for hit in &history.hits {
            if self.is_expired(*hit, from) {
                continue;
            }
            excess = excess.saturating_sub(hit.cost);
            if excess == 0 {
                return hit.at.checked_add(self.window_ns);
            }
        }
        unreachable!("the whole history weighs at least the excess")
    }

    fn spend(&self, history: &mut History, at: u64, cost: u64) {
        // Drops nothing: a slot in the future may still be cancelled.
        history.total += cost;
        match history.hits.back_mut() {
            Some(last) if last.at == at => last.cost += cost,
            _ => history.hits.push_back(Hit { at, cost }),
        }
    }

    fn mark(&self, _history: &History) -> u128 {
        0 // a hit is found by its time
    }

    fn undo(&self, history: &mut History, at: u64, cost: u64, _mark: u128) {
        let Some(index) = history.hits.iter().rposition(|hit| hit.at == at) else {
            return;
        };
        let credit = history.hits[index].cost.min(cost);
        history.hits[index].cost -= credit;
        history.total -= credit;
        if history.hits[index].cost == 0 {
            history.hits.remove(index);
        }
    }

    /// The oldest hits are given back first: the remaining ones are younger, and block longer.
    fn most_heap_bytes(&self) -> u64 {
        // A queue grows by doubling.
        self.limit.saturating_mul(2 * size_of::<Hit>() as u64)
    }

    fn refund(&self, history: &mut History, now: u64, mut cost: u64) {
        self.settle(history, now);
        if history.hits.back().is_some_and(|last| last.at > now) {
            return; // as the other algorithms: no refund while slots are reserved
        }
        while cost > 0 {
            let Some(oldest) = history.hits.front_mut() else {
                break;
            };
            let credit = oldest.cost.min(cost);
            oldest.cost -= credit;
            cost -= credit;
            history.total -= credit;
            if oldest.cost == 0 {
                history.hits.pop_front();
            }
        }
    }

    fn remaining(&self, history: &History, now: u64) -> u64 {
        match history.hits.back() {
            Some(last) if last.at > now => 0,
            _ => self.limit.saturating_sub(self.used(history, now)),
        }
    }

    fn reset_after(&self, history: &History, now: u64) -> u64 {
        history.hits.back().map_or(0, |last| {
            let leaves_at = last.at.saturating_add(self.window_ns);
            leaves_at.saturating_sub(now)
        })
    }

    fn is_idle(&self, history: &History, now: u64) -> bool {
        history
            .hits
            .back()
            .is_none_or(|last| self.is_expired(*last, now))
    }

    fn shares_states_with(&self, other: &Self) -> bool {
        self.window_ns == other.window_ns
    }

    fn adopt(&self, history: &mut History, now: u64, _old: &Self) {
        self.settle(history, now);
    }
}
