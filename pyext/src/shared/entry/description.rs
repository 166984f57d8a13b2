//! Decisions, described from what this node knows of a key.

use super::Entry;
use crate::decision::{Decision, Source};
use crate::shared::terms::Terms;

impl Entry {
    /// An admission, described from this node's state.
    pub(crate) fn describe(&self, now: u64, cost: u64, terms: &Terms, source: Source) -> Decision {
        let left = match source {
            Source::Fallback => 0,
            _ if now >= self.reset_at => terms.capacity.saturating_sub(self.owed),
            _ => self.left,
        };
        Decision {
            allowed: true,
            cost,
            remaining: self.held(now).saturating_add(left).min(terms.capacity),
            retry_after_ns: Some(0),
            reset_after_ns: self.reset_at.saturating_sub(now),
            source,
            rates: terms.rates.clone(),
            tightest: self.tightest.min(terms.rates.len() - 1),
        }
    }

    /// A refusal that ends after `wait_ns`.
    pub(crate) fn refuse(
        &self,
        now: u64,
        cost: u64,
        terms: &Terms,
        wait_ns: u64,
        source: Source,
    ) -> Decision {
        let described = self.describe(now, cost, terms, source);
        Decision {
            allowed: false,
            retry_after_ns: Some(wait_ns),
            remaining: described.remaining.min(cost.saturating_sub(1)),
            ..described
        }
    }

    /// A refusal that never ends: the cost exceeds the capacity.
    pub(crate) fn never(&self, now: u64, cost: u64, terms: &Terms) -> Decision {
        Decision {
            allowed: false,
            retry_after_ns: None,
            ..self.describe(now, cost, terms, Source::Local)
        }
    }

    /// The refusal that Redis decided last, repeated.
    pub(crate) fn refuse_from_cache(&self, now: u64, cost: u64, terms: &Terms) -> Decision {
        if cost > terms.capacity {
            return self.never(now, cost, terms);
        }
        let wait_ns = self.denied_until.saturating_sub(now);
        self.refuse(now, cost, terms, wait_ns, Source::NegativeCache)
    }

    /// The origin of a description that asks no other process: the tokens on lease, or what this process remembers.
    pub(crate) fn known_source(&self, now: u64) -> Source {
        if self.held(now) > 0 {
            Source::Lease
        } else {
            Source::Local
        }
    }
}
