//! Decisions without Redis: by this node's share of the rates, or without a limit.

use super::Entry;
use crate::gcra::Gcra;
use crate::meter::Meter;
use crate::panel::{admits_all, spend_all};
use crate::rate::Rate;
use crate::shared::terms::Terms;

impl Entry {
    /// Decides by this node's share of the rates.
    pub(crate) fn spend_share(&mut self, meters: &[Gcra], now: u64, cost: u64) -> bool {
        self.share = self.share_at(meters, now);
        let allowed = admits_all(meters, &mut self.share, now, cost);
        if allowed {
            spend_all(meters, &mut self.share, now, cost);
            self.paid = self.paid.saturating_add(cost);
        }
        allowed
    }

    /// Ends deciding by share. Units not refilled by now are owed.
    pub(crate) fn leave_share(&mut self, meters: &[Gcra], now: u64) {
        let share = std::mem::take(&mut self.share);
        let lacking = |(meter, tat): (&Gcra, &u128)| meter.burst() - meter.remaining(tat, now);
        let recent = meters.iter().zip(&share).map(lacking).max().unwrap_or(0);
        let recent = recent.min(self.paid);
        self.paid -= recent;
        self.owed = self.owed.saturating_add(recent);
    }

    pub(crate) fn is_sharing(&self) -> bool {
        !self.share.is_empty()
    }

    /// Admits every call; the units are debited later.
    pub(crate) fn spend_unlimited(&mut self, cost: u64) {
        self.paid = self.paid.saturating_add(cost);
    }

    /// As [`Entry::spend_share`], changing nothing.
    pub(crate) fn would_spend_share(&self, meters: &[Gcra], now: u64, cost: u64) -> bool {
        let mut share = self.share_at(meters, now);
        admits_all(meters, &mut share, now, cost)
    }

    fn share_at(&self, meters: &[Gcra], now: u64) -> Box<[u128]> {
        if self.share.len() != meters.len() {
            // The share starts empty: other nodes may have spent the tokens it would have held.
            return meters.iter().map(|meter| meter.empty_at(now)).collect();
        }
        let mut share = self.share.clone();
        for (meter, tat) in meters.iter().zip(&mut share) {
            meter.clamp(tat, now);
        }
        share
    }
}

/// The share of each rate for one of `nodes` nodes while Redis is down.
///
/// The bursts of all shares add up to the tokens held back for leases (at least one token each), so that
/// with buckets that start empty, all shares together stay within the rate.
pub(crate) fn share_of(terms: &Terms, nodes: u64) -> Vec<Gcra> {
    let nodes = nodes.max(1);
    let share = |rate: &Rate| {
        let burst = (terms.most_outstanding / nodes).clamp(1, rate.burst());
        let period_ns = rate.period_ns().saturating_mul(nodes).min(i64::MAX as u64);
        let slowed = Rate::new(rate.limit(), period_ns, Some(burst), rate.name());
        // A share too slow to be represented becomes the slowest rate there is.
        slowed.unwrap_or_else(|_| {
            Rate::new(1, i64::MAX as u64, Some(1), rate.name()).expect("one unit in 292 years")
        })
    };
    let meter = |rate: &Rate| Gcra::new(&share(rate), 0).expect("a token bucket takes every rate");
    terms.rates.iter().map(meter).collect()
}
