//! The calls beside hits: descriptions of a key and refunds, by Redis or by what this process has.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::completion::{DecisionCell, Outcome, Pending, ReplyTo, Waiter};
use super::config::Cold;
use super::entry::{Entry, LocalVerdict, WaitingCall, share_of};
use super::limits::SharedLimits;
use super::terms::Terms;
use super::wire::Ask;
use crate::decision::Decision;
use crate::error::Error;

impl SharedLimits {
    /// Lets Redis decide.
    pub(super) fn ask(
        &self,
        entry: &mut Entry,
        fingerprint: u64,
        ask: Ask,
        reply_to: ReplyTo<'_>,
    ) -> Pending {
        let cell = Arc::new(DecisionCell::default());
        let waiter = match reply_to {
            ReplyTo::Thread => Waiter::Thread(cell.clone()),
            ReplyTo::Queue(queue, call_id) => Waiter::Queue {
                queue: queue.clone(),
                call_id,
                is_shadow: self.state.is_shadow && !matches!(ask, Ask::GiveBack(_)),
            },
        };
        entry.wait(WaitingCall {
            ask,
            waiter,
            tries: 0,
        });
        let sends_itself = matches!(reply_to, ReplyTo::Thread) && self.callers_send();
        self.request_by(entry, fingerprint, !sends_itself);
        Pending {
            cell,
            fingerprint,
            ask,
            sends_itself,
        }
    }

    /// Describes a key as a call of `cost` would find it, without asking Redis.
    fn describe_known(&self, entry: &Entry, now: u64, cost: u64, terms: &Terms) -> Decision {
        let source = entry.known_source(now);
        match self.state.config.cold {
            _ if cost > terms.capacity => entry.never(now, cost, terms),
            _ if entry.would_spend(now, cost) == LocalVerdict::Refused => {
                entry.refuse_from_cache(now, cost, terms)
            }
            Cold::Optimistic(allowance)
                if entry.would_spend(now, cost) == LocalVerdict::Unknown
                    && entry.owed.saturating_add(cost) > allowance =>
            {
                let wait = self.state.round_trip_ns.load(Ordering::Relaxed);
                entry.refuse(now, cost, terms, wait, source)
            }
            Cold::Optimistic(_) | Cold::Sync => entry.describe(now, cost, terms, source),
        }
    }

    /// Describes a key, by Redis if calls may wait for it.
    pub(super) fn look(
        &self,
        entry: &mut Entry,
        fingerprint: u64,
        now: u64,
        ask: Ask,
        reply_to: ReplyTo<'_>,
        terms: &Terms,
    ) -> Outcome<Decision> {
        let (state, cost) = (&*self.state, ask.units());
        if cost > terms.capacity
            || matches!(state.config.cold, Cold::Optimistic(_))
            || entry.would_spend(now, cost) == LocalVerdict::Refused
        {
            return Outcome::Ready(self.describe_known(entry, now, cost, terms));
        }
        if state.is_fallback(entry, now) {
            return Outcome::Ready(state.look_fallback(entry, now, cost, terms));
        }
        Outcome::Pending(self.ask(entry, fingerprint, ask, reply_to))
    }

    /// Gives units back: here as far as they are here, else in Redis.
    pub(super) fn give_back(
        &self,
        entry: &mut Entry,
        fingerprint: u64,
        now: u64,
        cost: u64,
        reply_to: ReplyTo<'_>,
        terms: &Terms,
    ) -> Result<Outcome<Option<u64>>, Error> {
        let state = &*self.state;
        let meters = share_of(terms, state.nodes.load(Ordering::Relaxed));
        let rest = entry.refund(now, cost, &meters);
        if rest == 0 {
            return Ok(Outcome::Ready(None));
        }
        if state.is_down.load(Ordering::Relaxed)
            || state.is_closed.load(Ordering::Relaxed)
            || now < entry.unreachable_until
        {
            return Err(Error::Unreachable(format!(
                "{rest} of {cost} units are not given back: Redis does not serve these limits"
            )));
        }
        Ok(match state.config.cold {
            Cold::Optimistic(_) => {
                entry.wait(WaitingCall {
                    ask: Ask::GiveBack(rest),
                    waiter: Waiter::Nothing,
                    tries: 0,
                });
                self.request(entry, fingerprint);
                Outcome::Ready(None)
            }
            Cold::Sync => {
                Outcome::Pending(self.ask(entry, fingerprint, Ask::GiveBack(rest), reply_to))
            }
        })
    }
}
