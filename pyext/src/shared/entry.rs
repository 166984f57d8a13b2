//! One key on one node: its tokens on lease, its debts, and its request in flight.
//!
//! A plain state machine. Time is an argument (ns on the limiter's clock) and nothing here does I/O. The rules of
//! the safety argument in the parent module stand together, because each is about all of these fields.
//!
//! * `own_terms`: keys whose calls bring rates of their own.
//! * `share`: decisions without Redis. `refund`: units given back. `description`: what a decision says.

use std::sync::Arc;

use crate::decision::Source;
use crate::shared::completion::Waiter;
use crate::shared::ledger::Ledger;
use crate::shared::terms::Terms;
use crate::shared::wire::{Ask, RemoteVerdict, Reply, RequestBody, SeenState};
use crate::stats::Stats;

mod description;
mod own_terms;
mod refund;
mod share;

pub(crate) use share::share_of;

/// The first guess of a key's demand is made over this time, ns.
const FIRST_GUESS_NS: u64 = 5_000_000;
/// If Redis has enough left, a lease covers the demand of this part of its life: requests are rare, and a
/// slow Redis delays no call for a while.
const LIFE_PARTS: u64 = 4;
/// Enough is this many times the tokens requested.
const ENOUGH: u64 = 4;
/// Tokens beyond this many times those that the demand needs go back.
const MOST_HELD: u64 = 2;
/// Weight of a new estimate of the demand.
const SMOOTHING: f64 = 0.5;

/// Bytes of the longest key that is kept as it is.
pub(super) const LONGEST_KEY: usize = 256;
/// A refund is tried this often: each time another node's came first. Its caller waits for `timeout` at most anyway.
const MAX_TRIES: u8 = u8::MAX;

/// The decision of this node alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LocalVerdict {
    Allowed,
    Refused,
    /// Redis has to decide.
    Unknown,
}

/// A call that waits for Redis to decide.
#[derive(Debug)]
pub(crate) struct WaitingCall {
    pub(crate) ask: Ask,
    pub(crate) waiter: Waiter,
    /// Times that Redis has answered that it must be asked again.
    pub(crate) tries: u8,
}

/// A request that is sent and not answered.
#[derive(Debug)]
struct InFlight {
    number: u64,
    sent_at: u64,
    paid: u64,
    owed: u64,
    want: u64,
    calls: Vec<WaitingCall>,
}

/// Where a key waits for its request to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queued {
    No,
    /// Among those that only have a first debt to report.
    Last,
    /// Among those that calls are refused or wait for, or soon will.
    First,
}

/// One key on one node.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Box<[u8]>,
    /// Tokens held and not spent; void from `deadline` on.
    pub(crate) tokens: u64,
    pub(crate) deadline: u64,
    /// A call that leaves fewer tokens than this, or comes at `renew_at` or later, queues a request.
    low_water: u64,
    renew_at: u64,
    /// Units that callers have asked for since `asked_since`.
    asked: u64,
    asked_since: u64,
    /// Estimate of the units per second that callers ask for.
    demand: f64,
    /// Most tokens that Redis counts as leased; a refund must not raise `tokens` above it.
    ceiling: u64,
    last_grant: u64,
    pub(crate) last_used: u64,
    /// Calls of `denied_cost` units or more are refused until then, by the last decision of Redis.
    denied_until: u64,
    denied_cost: u64,
    /// From then on Redis decides again nevertheless: another node may have given back its tokens.
    recheck_at: u64,
    /// From the last reply: units left, when the key is as good as new, which rate is the tightest.
    left: u64,
    reset_at: u64,
    tightest: usize,
    /// Units admitted without a debit: lately (`owed`), and so long ago that the bucket would have refilled
    /// them since (`paid`).
    pub(crate) owed: u64,
    paid: u64,
    /// Where the queue of keys to send requests for holds this key.
    pub(crate) queued: Queued,
    /// The queue of lease checks holds this key.
    pub(crate) is_check_scheduled: bool,
    is_reset: bool,
    /// Until then Redis counts as unreachable for this key.
    pub(crate) unreachable_until: u64,
    waiting: Vec<WaitingCall>,
    in_flight: Option<InFlight>,
    seen: SeenState,
    /// One bucket per rate while this node decides by its share of the rates; empty otherwise.
    share: Box<[u128]>,
    /// Those of the last call, if it brought rates of its own.
    own_terms: Option<Arc<Terms>>,
    ledger: Ledger,
}

/// The times that determine the size of a lease.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Time in which nearly all replies come, ns.
    pub(crate) round_trip_ns: u64,
    /// Lifetime of a lease, ns.
    pub(crate) lease_ttl_ns: u64,
}

impl Entry {
    pub(crate) fn new(key: Box<[u8]>, now: u64) -> Self {
        Self {
            key,
            tokens: 0,
            deadline: 0,
            low_water: 0,
            renew_at: 0,
            asked: 0,
            asked_since: now,
            demand: 0.0,
            ceiling: 0,
            last_grant: 0,
            last_used: now,
            denied_until: 0,
            denied_cost: 0,
            recheck_at: 0,
            left: 0,
            reset_at: 0,
            tightest: 0,
            owed: 0,
            paid: 0,
            queued: Queued::No,
            is_check_scheduled: false,
            is_reset: false,
            unreachable_until: 0,
            waiting: Vec::new(),
            in_flight: None,
            seen: SeenState::default(),
            share: Box::default(),
            own_terms: None,
            ledger: Ledger::default(),
        }
    }

    /// Most bytes that a key takes under so many rates, without the calls that wait: its place in a table at the
    /// lowest load, its key, what it has seen and its share.
    pub(crate) fn most_bytes(rates: usize) -> u64 {
        let slot = (size_of::<(u64, Self)>() + 1) * 16 / 7;
        let seen = 2 * (3 + 2 * rates) * size_of::<u64>();
        (slot + 2 * size_of::<u64>() + LONGEST_KEY + seen + rates * size_of::<u128>()) as u64
    }

    /// Decides from the tokens on lease and the last refusal. Spends if the call is allowed.
    #[inline]
    pub(crate) fn spend(&mut self, now: u64, cost: u64) -> LocalVerdict {
        let verdict = self.would_spend(now, cost);
        if verdict == LocalVerdict::Allowed {
            self.tokens -= cost;
            self.ledger.spent += cost;
        }
        if verdict != LocalVerdict::Unknown {
            self.count(now, cost);
        }
        verdict
    }

    /// Counts the demand of a call.
    #[inline]
    pub(crate) fn count(&mut self, now: u64, cost: u64) {
        self.last_used = now;
        self.asked = self.asked.saturating_add(cost);
    }

    /// Whether to request more tokens, after a call has spent some.
    #[inline]
    pub(crate) fn wants_more(&self, now: u64) -> bool {
        self.queued == Queued::No
            && self.in_flight.is_none()
            && (self.tokens < self.low_water || now >= self.renew_at)
            && now >= self.recheck_at
    }

    /// As [`Entry::spend`], changing nothing.
    #[inline]
    pub(crate) fn would_spend(&self, now: u64, cost: u64) -> LocalVerdict {
        if now < self.deadline && cost <= self.tokens {
            LocalVerdict::Allowed
        } else if now < self.recheck_at && self.is_denied(now, cost) {
            LocalVerdict::Refused
        } else {
            LocalVerdict::Unknown
        }
    }

    /// Whether the last refusal of Redis covers `cost` and has not ended.
    pub(crate) fn is_denied(&self, now: u64, cost: u64) -> bool {
        now < self.denied_until && cost >= self.denied_cost
    }

    /// Admits without tokens, up to `allowance` units not yet debited.
    pub(crate) fn spend_optimistic(&mut self, cost: u64, allowance: u64) -> bool {
        let fits = self.owed.saturating_add(cost) <= allowance;
        if fits {
            self.owed += cost;
        }
        fits
    }

    pub(crate) fn wait(&mut self, call: WaitingCall) {
        self.waiting.push(call);
    }

    pub(crate) fn reset(&mut self) {
        self.is_reset = true;
        self.denied_until = 0;
        self.recheck_at = 0;
    }

    /// Tokens that calls can spend.
    pub(crate) fn held(&self, now: u64) -> u64 {
        if now < self.deadline { self.tokens } else { 0 }
    }

    /// Whether tokens held would soon expire.
    pub(crate) fn is_ending(&self, now: u64) -> bool {
        self.held(now) > 0 && now >= self.renew_at
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether Redis has answered for this key.
    pub(crate) fn is_known(&self) -> bool {
        self.reset_at > 0
    }

    /// Whether there is a debt or a reset to report to Redis.
    pub(crate) fn has_unreported(&self) -> bool {
        self.owed > 0 || self.paid > 0 || self.is_reset
    }

    pub(crate) fn take_waiting(&mut self) -> Vec<WaitingCall> {
        std::mem::take(&mut self.waiting)
    }

    /// Drops everything that depends on the old rates.
    pub(crate) fn configure(&mut self) {
        self.denied_until = 0;
        self.recheck_at = 0;
        self.left = 0;
        self.seen = SeenState::default();
        self.share = Box::default();
    }

    /// Where the tokens have gone by now.
    pub(crate) fn ledger(&self, now: u64) -> Ledger {
        Ledger {
            expired: self.ledger.expired + self.tokens - self.held(now),
            ..self.ledger
        }
    }

    /// Whether this key can be evicted: Redis has everything that is lost with it.
    pub(crate) fn is_evictable(&self, now: u64) -> bool {
        now >= self.deadline
            && now >= self.denied_until
            && now >= self.reset_at
            && !self.has_unreported()
            && self.queued == Queued::No
            && self.waiting.is_empty()
            && self.in_flight.is_none()
    }

    fn expire_lease(&mut self, now: u64) {
        if now >= self.deadline {
            let expired = std::mem::take(&mut self.tokens);
            self.ledger.expired += expired;
            self.note_unused(expired);
            self.ceiling = 0;
        }
    }

    /// Notes that the last lease has not been used up: its size says nothing about the demand.
    fn note_unused(&mut self, tokens: u64) {
        if tokens > 0 {
            self.last_grant = 0;
        }
    }

    fn estimate_demand(&mut self, now: u64, round_trip_ns: u64) {
        let shortest = if self.demand > 0.0 {
            round_trip_ns
        } else {
            FIRST_GUESS_NS
        };
        let elapsed = now.saturating_sub(self.asked_since).max(shortest);
        let measured = self.asked as f64 * 1e9 / elapsed as f64;
        // A rise counts at once: requesting too little costs another round trip.
        self.demand = if measured > self.demand {
            measured
        } else {
            self.demand + SMOOTHING * (measured - self.demand)
        };
        self.asked = 0;
        self.asked_since = now;
    }

    /// Estimate of the units that callers ask for in `ns`.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
    fn demand_in(&self, ns: u64) -> u64 {
        (self.demand * ns as f64 / 1e9).ceil() as u64
    }

    /// Tokens to hold.
    fn target(&self, terms: &Terms, timing: Timing) -> u64 {
        let horizon_ns = (4 * timing.round_trip_ns).max(FIRST_GUESS_NS);
        let needed = self.demand_in(horizon_ns.min(timing.lease_ttl_ns));
        let comfortable = self.demand_in(timing.lease_ttl_ns / LIFE_PARTS);
        let needed = needed.max(comfortable.min(self.left / ENOUGH));
        // With the last lease used up, the grant has limited the measured demand.
        let starved = if self.tokens == 0 {
            2 * self.last_grant
        } else {
            0
        };
        needed.max(starved).clamp(1, terms.max_lease.max(1))
    }

    /// Starts a request; None if one is in flight. With `gives_back`, it gives back the tokens held.
    pub(crate) fn request(
        &mut self,
        number: u64,
        now: u64,
        terms: &Terms,
        timing: Timing,
        gives_back: bool,
    ) -> Option<RequestBody> {
        self.queued = Queued::No;
        if self.in_flight.is_some() {
            return None;
        }
        self.expire_lease(now);
        let takes = self.waiting.iter().any(|call| call.ask.takes());
        let has_demand = self.asked > 0 || takes;
        self.estimate_demand(now, timing.round_trip_ns);
        // Redis decides waiting calls by its own tokens alone. This node's tokens go back first, so that
        // they are no reason to refuse.
        let back = if gives_back || takes {
            self.tokens
        } else {
            // A lease is renewed whole. What the demand has not used would be held from others, and lost with Redis.
            self.tokens
                .saturating_sub(MOST_HELD * self.target(terms, timing))
        };
        self.tokens -= back;
        self.note_unused(back);
        self.ledger.returned += back;
        let want = if has_demand && !gives_back && terms.most_outstanding > 0 {
            let missing = self.target(terms, timing).saturating_sub(self.tokens);
            missing.min(terms.max_lease)
        } else {
            0
        };
        self.ceiling = self.tokens;
        let calls = std::mem::take(&mut self.waiting);
        let request = RequestBody {
            number,
            is_reset: std::mem::take(&mut self.is_reset),
            want,
            held: self.tokens,
            back,
            paid: self.paid,
            owed: self.owed,
            asks: calls.iter().map(|call| call.ask).collect(),
            seen: self.seen.clone(),
        };
        self.in_flight = Some(InFlight {
            number,
            sent_at: now,
            paid: self.paid,
            owed: self.owed,
            want,
            calls,
        });
        Some(request)
    }

    /// Whether the reply fits the request in flight.
    pub(crate) fn expects(&self, reply: &Reply) -> bool {
        let calls = self
            .in_flight
            .as_ref()
            .map_or(0, |in_flight| in_flight.calls.len());
        self.in_flight.is_none() || calls == reply.verdicts.len()
    }

    /// Applies the reply to request `number` and completes its calls. Ignores replies to other requests:
    /// those have been given up. True if Redis has debited everything owed; the rest cannot be debited
    /// before the bucket has refilled in part.
    pub(crate) fn apply(
        &mut self,
        number: u64,
        reply: &Reply,
        now: u64,
        terms: &Terms,
        timing: Timing,
        stats: &mut Stats,
    ) -> bool {
        let Some(in_flight) = self
            .in_flight
            .take_if(|in_flight| in_flight.number == number)
        else {
            return true;
        };
        self.unreachable_until = 0;
        self.expire_lease(now);
        self.paid = self.paid.saturating_sub(in_flight.paid);
        let debited = reply.debited.min(in_flight.owed);
        self.owed = self.owed.saturating_sub(debited);
        self.ledger.granted += reply.grant;
        if in_flight.want > 0 {
            self.last_grant = reply.grant;
        }
        self.ceiling += reply.grant;
        self.tokens += reply.grant;
        // Counted from the sending, less one part in a thousand: so the lease ends here before it ends in
        // Redis, even if the clocks differ by that much.
        self.deadline = in_flight.sent_at + (timing.lease_ttl_ns - timing.lease_ttl_ns / 1000);
        self.renew_at = self
            .deadline
            .saturating_sub((timing.lease_ttl_ns / 4).max(2 * timing.round_trip_ns));
        // At half of the tokens, so that a reply may take as long as calls need for the other half.
        let used_meanwhile = self.demand_in(2 * timing.round_trip_ns);
        self.low_water = used_meanwhile.max(self.tokens / 2).min(terms.max_lease / 2);
        if self.tokens == 0 {
            self.expire_lease(u64::MAX);
            self.deadline = 0;
        }
        if reply.rates_seen.len() == 2 * terms.rates.len() + 1 && reply.generation > 0 {
            self.seen.0.clear();
            self.seen.0.extend([reply.generation, reply.sequence]);
            self.seen.0.extend(&reply.rates_seen);
        }
        self.left = reply.left;
        self.reset_at = now.saturating_add(reply.reset_ns);
        self.tightest = reply.tightest.min(terms.rates.len() - 1);

        self.denied_until = 0;
        if reply.left == 0 && self.tokens == 0 {
            let poll_ns = if in_flight.want > 0 {
                terms.poll_ns.max(timing.round_trip_ns)
            } else {
                0
            };
            self.deny(1, now.saturating_add(reply.next_ns.max(poll_ns)));
        }
        let poll_ns = if terms.most_outstanding > 0 {
            terms.poll_ns
        } else {
            0
        };
        for (mut call, verdict) in in_flight.calls.into_iter().zip(&reply.verdicts) {
            let cost = call.ask.units();
            let decision = match *verdict {
                RemoteVerdict::Allowed | RemoteVerdict::GivenBack => {
                    self.describe(now, cost, terms, Source::Redis)
                }
                RemoteVerdict::RetryAfter(ns) => {
                    if call.ask.takes() {
                        self.deny(cost, now.saturating_add(ns.max(poll_ns)));
                    }
                    self.refuse(now, cost, terms, ns, Source::Redis)
                }
                RemoteVerdict::Never => self.never(now, cost, terms),
                RemoteVerdict::Outdated if call.tries < MAX_TRIES => {
                    call.tries += 1;
                    self.waiting.push(call);
                    continue;
                }
                RemoteVerdict::Outdated => self.refuse(now, cost, terms, 0, Source::Redis),
            };
            if matches!(call.ask, Ask::Take(_)) {
                stats.count(decision.allowed);
            }
            call.waiter.complete(decision);
        }
        self.recheck_at = self
            .denied_until
            .min(now.saturating_add(timing.lease_ttl_ns));
        debited == in_flight.owed
    }

    /// Remembers the refusal with the lowest cost, which covers the most calls.
    fn deny(&mut self, cost: u64, until: u64) {
        if self.denied_until == 0 || cost < self.denied_cost {
            (self.denied_cost, self.denied_until) = (cost, until);
        } else if cost == self.denied_cost {
            self.denied_until = self.denied_until.max(until);
        }
    }

    /// Gives up request `number`, whose outcome in Redis is unknown: debts stay owed, tokens it gave back
    /// are gone. Returns the waiting calls, including those not yet sent.
    pub(crate) fn fail(&mut self, number: u64, until: u64) -> Vec<WaitingCall> {
        let Some(in_flight) = self
            .in_flight
            .take_if(|in_flight| in_flight.number == number)
        else {
            return Vec::new();
        };
        self.unreachable_until = until;
        let mut calls = in_flight.calls;
        calls.append(&mut self.waiting);
        calls
    }

    /// Drops the parent's tokens, debts and waiting calls, in a child after `fork()`.
    pub(crate) fn forget_lease(&mut self) {
        self.tokens = 0;
        self.ceiling = 0;
        self.deadline = 0;
        self.owed = 0;
        self.paid = 0;
        self.queued = Queued::No;
        self.is_check_scheduled = false;
        self.in_flight = None;
        self.waiting.clear();
        self.share = Box::default();
        self.ledger = Ledger::default();
    }
}
