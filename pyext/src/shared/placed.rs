//! Calls of a key whose entry and terms are known, and rates that a call brings.

use std::sync::Arc;

use super::completion::{Outcome, ReplyTo};
use super::entries::EntryShard;
use super::entry::{Entry, LocalVerdict};
use super::limits::SharedLimits;
use super::terms::Terms;
use super::wire::Ask;
use crate::decision::{Decision, Source};
use crate::error::Error;
use crate::key::Key;
use crate::panel::no_room;
use crate::rate::Rate;

impl SharedLimits {
    /// A hit of a key that has an entry.
    pub(super) fn hit_placed(
        &self,
        shard: &mut EntryShard,
        (fingerprint, terms): (u64, Arc<Terms>),
        now: u64,
        cost: u64,
        reply_to: ReplyTo<'_>,
    ) -> Outcome<Decision> {
        let entry = shard.entries.get_mut(&fingerprint).expect("just placed");
        if cost == 0 {
            let outcome = self.look(entry, fingerprint, now, Ask::Take(0), reply_to, &terms);
            shard.stats.allowed += u64::from(matches!(outcome, Outcome::Ready(_)));
            return outcome;
        }
        let outcome = match entry.spend(now, cost) {
            LocalVerdict::Allowed => {
                shard.stats.lease_hits += 1;
                if entry.wants_more(now) {
                    self.request(entry, fingerprint);
                }
                Outcome::Ready(entry.describe(now, cost, &terms, Source::Lease))
            }
            LocalVerdict::Refused => Outcome::Ready(entry.refuse_from_cache(now, cost, &terms)),
            LocalVerdict::Unknown => {
                self.decide_unknown(entry, fingerprint, now, cost, reply_to, &terms)
            }
        };
        if let Outcome::Ready(decision) = &outcome {
            shard.stats.count(decision.allowed);
        }
        outcome
    }

    /// The key's entry and terms under rates of the call. None if there is no room for it.
    pub(super) fn place_with(
        &self,
        shard: &mut EntryShard,
        rates: &[Rate],
        fingerprint: u64,
        key: Key<'_>,
        now: u64,
    ) -> Result<Option<(u64, Arc<Terms>)>, Error> {
        let known = shard.entries.get(&fingerprint).and_then(Entry::own_terms);
        let terms = match known {
            Some(terms) if *terms.rates == *rates => terms.clone(),
            _ => {
                let state = &self.state;
                let of_limiter = &shard.terms;
                Arc::new(of_limiter.of_call(
                    rates,
                    state.algorithm,
                    state.precision,
                    &state.config,
                )?)
            }
        };
        Ok(shard.place_under(Some(terms), fingerprint, key, now))
    }

    /// A peek at a key that has an entry, unless there is no room for it.
    pub(super) fn peek_placed(
        &self,
        shard: &mut EntryShard,
        placed: Option<(u64, Arc<Terms>)>,
        now: u64,
        cost: u64,
        reply_to: ReplyTo<'_>,
    ) -> Outcome<Decision> {
        let Some((fingerprint, terms)) = placed else {
            return Outcome::Ready(no_room(shard.terms.rates.clone(), cost));
        };
        let entry = shard.entries.get_mut(&fingerprint).expect("just placed");
        self.look(entry, fingerprint, now, Ask::Look(cost), reply_to, &terms)
    }

    /// A refund of a key that has an entry, unless there is no room for it.
    pub(super) fn refund_placed(
        &self,
        shard: &mut EntryShard,
        placed: Option<(u64, Arc<Terms>)>,
        now: u64,
        cost: u64,
        reply_to: ReplyTo<'_>,
    ) -> Result<Outcome<Option<u64>>, Error> {
        // Without room every call of the key was refused.
        let Some((fingerprint, terms)) = placed else {
            return Ok(Outcome::Ready(None));
        };
        let entry = shard.entries.get_mut(&fingerprint).expect("just placed");
        self.give_back(entry, fingerprint, now, cost, reply_to, &terms)
    }
}
