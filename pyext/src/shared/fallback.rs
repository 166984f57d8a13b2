//! Decisions without Redis, and what a log says of single keys that it does not serve.

use std::sync::atomic::Ordering;

use super::config::{Cold, OnError};
use super::entry::{Entry, WaitingCall, share_of};
use super::state::SyncState;
use super::terms::Terms;
use super::wire::{Ask, Request};
use crate::decision::{Decision, Source};
use crate::rate::Rate;
use crate::stats::Stats;

impl SyncState {
    /// Decides without Redis, by `on_error`.
    pub(super) fn decide_fallback(
        &self,
        entry: &mut Entry,
        now: u64,
        cost: u64,
        terms: &Terms,
    ) -> Decision {
        let allowed = match self.config.on_error {
            OnError::Share => {
                let meters = share_of(terms, self.nodes.load(Ordering::Relaxed));
                // The share starts empty; with `cold="optimistic"` a new key still gets its allowance.
                entry.spend_share(&meters, now, cost)
                    || matches!(self.config.cold, Cold::Optimistic(allowance)
                        if entry.spend_optimistic(cost, allowance))
            }
            OnError::Allow => {
                entry.spend_unlimited(cost);
                true
            }
            OnError::Deny => cost == 0,
        };
        describe_fallback(entry, now, cost, terms, allowed)
    }

    /// As [`SyncState::decide_fallback`], changing nothing.
    pub(super) fn look_fallback(
        &self,
        entry: &Entry,
        now: u64,
        cost: u64,
        terms: &Terms,
    ) -> Decision {
        let allowed = match self.config.on_error {
            OnError::Share => {
                let meters = share_of(terms, self.nodes.load(Ordering::Relaxed));
                entry.would_spend_share(&meters, now, cost)
                    || matches!(self.config.cold, Cold::Optimistic(allowance)
                        if entry.owed.saturating_add(cost) <= allowance)
            }
            OnError::Allow => true,
            OnError::Deny => cost == 0,
        };
        describe_fallback(entry, now, cost, terms, allowed)
    }

    pub(super) fn decide_calls(
        &self,
        calls: Vec<WaitingCall>,
        entry: &mut Entry,
        now: u64,
        terms: &Terms,
        stats: &mut Stats,
    ) {
        for call in calls {
            let decision = match call.ask {
                Ask::Take(cost) => {
                    let decision = self.decide_fallback(entry, now, cost, terms);
                    stats.count(decision.allowed);
                    decision
                }
                Ask::Look(cost) => self.look_fallback(entry, now, cost, terms),
                Ask::GiveBack(units) => {
                    self.note_lost_refund(entry, units);
                    describe_fallback(entry, now, units, terms, false)
                }
            };
            call.waiter.complete(decision);
        }
    }

    /// A caller that waits learns it from its outcome as well.
    fn note_lost_refund(&self, entry: &Entry, units: u64) {
        let key = printable(&[&self.config.prefix[..], &entry.key].concat());
        let reason = format!(
            "LOST a refund of {units} units to the key '{key}', which Redis has not confirmed"
        );
        *self.notice.lock() = Some(reason);
    }

    pub(super) fn note_taken_over(&self, request: &Request) {
        let key = printable(&request.key);
        let reason = format!(
            "TAKEOVER the key '{key}' was one of a limiter with other rates, which has not used it lately"
        );
        *self.last_error.lock() = Some(reason.clone());
        *self.notice.lock() = Some(reason);
    }
}

fn describe_fallback(entry: &Entry, now: u64, cost: u64, terms: &Terms, allowed: bool) -> Decision {
    if allowed {
        entry.describe(now, cost, terms, Source::Fallback)
    } else {
        let wait = terms.rates.iter().map(Rate::refill_ns).min().unwrap_or(0);
        entry.refuse(now, cost, terms, wait, Source::Fallback)
    }
}

/// The start of a key, as one line of a log can show it.
fn printable(key: &[u8]) -> String {
    const MOST: usize = 80;
    let shown = |byte: &u8| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => '?',
    };
    key.iter().take(MOST).map(shown).collect()
}
