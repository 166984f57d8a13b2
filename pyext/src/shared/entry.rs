//! What one node knows of one key: the tokens it holds, what it owes, and what it has asked for.
//!
//! A plain state machine. Time is an argument (ns on the limiter's clock) and nothing here does I/O. It is one
//! file because every rule of the safety argument in the parent module is about these fields together.

use crate::decision::{Decision, Source};
use crate::gcra::Gcra;
use crate::limiter::Stats;
use crate::meter::Meter;
use crate::panel::{admits_all, spend_all};
use crate::rate::Rate;
use crate::shared::terms::Terms;
use crate::shared::waiter::Waiter;
use crate::shared::wire::{Answer, Reply, Request};

/// The first guess of a key's demand is made over this time, ns.
const FIRST_GUESS_NS: u64 = 5_000_000;
/// Where there is plenty, a lease is to cover this part of its life: Redis is asked seldom, and may be
/// slow for a while before anybody notices.
const PLENTY_OF_LIFE: u64 = 4;
/// Plenty is this many times what is asked for.
const PLENTY: u64 = 4;
/// How much of a new estimate of the demand counts.
const SMOOTHING: f64 = 0.5;

/// What an entry can say by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allowed,
    Refused,
    /// Only Redis knows.
    Unknown,
}

/// Somebody who waits for Redis to decide.
#[derive(Debug)]
pub(crate) struct Need {
    pub(crate) cost: u64,
    pub(crate) waiter: Waiter,
}

/// A request on its way.
#[derive(Debug)]
struct Flight {
    number: u64,
    sent_at: u64,
    paid: u64,
    owed: u64,
    want: u64,
    needs: Vec<Need>,
}

/// The newest central state this node has seen: generation, sequence, two numbers per rate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen(pub(crate) Vec<u64>);

/// One key on one node.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Box<[u8]>,
    /// Tokens held and not spent; void from `deadline` on.
    pub(crate) tokens: u64,
    pub(crate) deadline: u64,
    /// With fewer tokens than this, or from `renew_at` on, whoever spends asks for more.
    low_water: u64,
    renew_at: u64,
    /// Units asked for since `asked_since`.
    asked: u64,
    asked_since: u64,
    /// Units per second that are asked for.
    demand: f64,
    /// Most tokens Redis reckons with; a refund must not lift `tokens` above it.
    ceiling: u64,
    last_grant: u64,
    pub(crate) last_used: u64,
    /// Refused until then, for at least `denied_cost` units, as far as Redis knew.
    denied_until: u64,
    denied_cost: u64,
    /// From then on Redis is asked again all the same: another node may have given back what it held.
    ask_again_at: u64,
    /// What Redis last said: units left, when the key is as good as new, which rate is the tightest.
    left: u64,
    reset_at: u64,
    tightest: usize,
    /// Admitted without having been debited: just now (`owed`), and so long ago that it has flowed in
    /// again since (`paid`).
    pub(crate) owed: u64,
    paid: u64,
    /// Waits in the queue of keys to be asked about.
    pub(crate) is_queued: bool,
    /// Waits in the queue of leases to be looked at.
    pub(crate) is_watched: bool,
    is_reset: bool,
    /// Until when Redis is taken to be out of reach for this key.
    pub(crate) unreachable_until: u64,
    waiting: Vec<Need>,
    flight: Option<Flight>,
    seen: Seen,
    /// One bucket per rate while this node decides alone; empty otherwise.
    share: Box<[u128]>,
    ledger: Ledger,
}

/// Where the tokens that were granted have gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Tokens received.
    pub granted: u64,
    /// Tokens spent by calls, less those refunded.
    pub spent: u64,
    /// Tokens given back to Redis.
    pub returned: u64,
    /// Tokens that nobody used in time.
    pub expired: u64,
}

impl Ledger {
    pub(crate) fn add(&mut self, other: &Self) {
        self.granted += other.granted;
        self.spent += other.spent;
        self.returned += other.returned;
        self.expired += other.expired;
    }
}

/// What of the surroundings bears on a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Time Redis takes to answer nearly always, ns.
    pub(crate) round_trip_ns: u64,
    /// How long a lease lasts, ns.
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
            ask_again_at: 0,
            left: 0,
            reset_at: 0,
            tightest: 0,
            owed: 0,
            paid: 0,
            is_queued: false,
            is_watched: false,
            is_reset: false,
            unreachable_until: 0,
            waiting: Vec::new(),
            flight: None,
            seen: Seen::default(),
            share: Box::default(),
            ledger: Ledger::default(),
        }
    }

    /// Decides from what is held. Spends if it says so.
    #[inline]
    pub(crate) fn spend(&mut self, now: u64, cost: u64) -> Verdict {
        let verdict = self.would_spend(now, cost);
        if verdict == Verdict::Allowed {
            self.tokens -= cost;
            self.ledger.spent += cost;
        }
        if verdict != Verdict::Unknown {
            self.count(now, cost);
        }
        verdict
    }

    /// Notes that somebody asked for `cost` units.
    #[inline]
    pub(crate) fn count(&mut self, now: u64, cost: u64) {
        self.last_used = now;
        self.asked = self.asked.saturating_add(cost);
    }

    /// Whether more should be asked for, now that somebody has spent.
    #[inline]
    pub(crate) fn wants_more(&self, now: u64) -> bool {
        !self.is_queued
            && self.flight.is_none()
            && (self.tokens < self.low_water || now >= self.renew_at)
            && now >= self.ask_again_at
    }

    /// As [`Entry::spend`], changing nothing.
    #[inline]
    pub(crate) fn would_spend(&self, now: u64, cost: u64) -> Verdict {
        if now < self.deadline && cost <= self.tokens {
            Verdict::Allowed
        } else if now < self.ask_again_at && self.is_denied(now, cost) {
            Verdict::Refused
        } else {
            Verdict::Unknown
        }
    }

    /// Whether Redis has refused as much, and for longer than until now.
    pub(crate) fn is_denied(&self, now: u64, cost: u64) -> bool {
        now < self.denied_until && cost >= self.denied_cost
    }

    /// Admits without asking, up to `allowance` units not yet debited.
    pub(crate) fn spend_unasked(&mut self, cost: u64, allowance: u64) -> bool {
        let fits = self.owed.saturating_add(cost) <= allowance;
        if fits {
            self.owed += cost;
        }
        fits
    }

    /// Decides alone, at this node's share of the rates.
    pub(crate) fn spend_share(&mut self, meters: &[Gcra], now: u64, cost: u64) -> bool {
        if self.share.len() != meters.len() {
            // The share starts empty: what it would have held may have been spent by others.
            self.share = meters.iter().map(|meter| meter.empty_at(now)).collect();
        }
        for (meter, tat) in meters.iter().zip(&mut self.share) {
            meter.clamp(tat, now);
        }
        let allowed = admits_all(meters, &mut self.share, now, cost);
        if allowed {
            spend_all(meters, &mut self.share, now, cost);
            self.paid = self.paid.saturating_add(cost);
        }
        allowed
    }

    /// Ends deciding alone. What has not flowed in again by now is owed.
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

    /// Admits whatever comes; it is debited later.
    pub(crate) fn spend_regardless(&mut self, cost: u64) {
        self.paid = self.paid.saturating_add(cost);
    }

    pub(crate) fn wait(&mut self, need: Need) {
        self.waiting.push(need);
    }

    /// Gives back units just spent here, as far as Redis still reckons with them.
    pub(crate) fn refund(&mut self, now: u64, cost: u64) {
        // First what has not been debited. If that is under way, more is debited than was used.
        let unasked = cost.min(self.owed);
        self.owed -= unasked;
        let cost = cost - unasked;
        if now < self.deadline {
            let credit = cost.min(self.ceiling.saturating_sub(self.tokens));
            let credit = credit.min(self.ledger.spent);
            self.tokens += credit;
            self.ledger.spent -= credit;
        }
    }

    pub(crate) fn reset(&mut self) {
        self.is_reset = true;
        self.denied_until = 0;
        self.ask_again_at = 0;
    }

    /// Tokens that can be spent.
    pub(crate) fn held(&self, now: u64) -> u64 {
        if now < self.deadline { self.tokens } else { 0 }
    }

    pub(crate) fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether there is something to tell Redis that it would act on by itself.
    pub(crate) fn has_news(&self) -> bool {
        self.owed > 0 || self.paid > 0 || self.is_reset
    }

    pub(crate) fn take_waiting(&mut self) -> Vec<Need> {
        std::mem::take(&mut self.waiting)
    }

    /// Other rates are in force: what is known of the old ones no longer helps.
    pub(crate) fn configure(&mut self) {
        self.denied_until = 0;
        self.ask_again_at = 0;
        self.left = 0;
        self.seen = Seen::default();
        self.share = Box::default();
    }

    /// Where its tokens have gone by now.
    pub(crate) fn ledger(&self, now: u64) -> Ledger {
        Ledger {
            expired: self.ledger.expired + self.tokens - self.held(now),
            ..self.ledger
        }
    }

    /// Whether forgetting this key loses nothing but what Redis also knows.
    pub(crate) fn is_forgettable(&self, now: u64) -> bool {
        now >= self.deadline
            && now >= self.denied_until
            && now >= self.reset_at
            && !self.has_news()
            && !self.is_queued
            && self.waiting.is_empty()
            && self.flight.is_none()
    }

    fn lapse(&mut self, now: u64) {
        if now >= self.deadline {
            self.ledger.expired += std::mem::take(&mut self.tokens);
            self.ceiling = 0;
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
        // Rising demand is believed at once: asking for too little costs another round trip.
        self.demand = if measured > self.demand {
            measured
        } else {
            self.demand + SMOOTHING * (measured - self.demand)
        };
        self.asked = 0;
        self.asked_since = now;
    }

    /// Units that will be asked for in so long, as far as one can tell.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
    fn demand_in(&self, ns: u64) -> u64 {
        (self.demand * ns as f64 / 1e9).ceil() as u64
    }

    /// Tokens to ask for beside those held.
    fn wanted(&self, terms: &Terms, pace: Pace) -> u64 {
        let horizon_ns = (4 * pace.round_trip_ns).max(FIRST_GUESS_NS);
        let needed = self.demand_in(horizon_ns.min(pace.lease_ttl_ns));
        let comfortable = self.demand_in(pace.lease_ttl_ns / PLENTY_OF_LIFE);
        let needed = needed.max(comfortable.min(self.left / PLENTY));
        // All of the last lease is gone already: the demand was cut short by what was granted.
        let starved = if self.tokens == 0 {
            2 * self.last_grant
        } else {
            0
        };
        let target = needed.max(starved).clamp(1, terms.max_lease.max(1));
        target.saturating_sub(self.tokens).min(terms.max_lease)
    }

    /// Starts a request; None if one is on its way. With `gives_back`, the tokens held go back.
    pub(crate) fn request(
        &mut self,
        number: u64,
        now: u64,
        terms: &Terms,
        pace: Pace,
        gives_back: bool,
    ) -> Option<Request> {
        self.is_queued = false;
        if self.flight.is_some() {
            return None;
        }
        self.lapse(now);
        let has_demand = self.asked > 0 || !self.waiting.is_empty();
        self.estimate_demand(now, pace.round_trip_ns);
        // Redis has the whole picture only of what it holds. A call that needs more than is held here is
        // not to be refused because of what is.
        let back = if gives_back || !self.waiting.is_empty() {
            std::mem::take(&mut self.tokens)
        } else {
            0
        };
        self.ledger.returned += back;
        let want = if has_demand && !gives_back && terms.most_outstanding > 0 {
            self.wanted(terms, pace)
        } else {
            0
        };
        self.ceiling = self.tokens;
        let needs = std::mem::take(&mut self.waiting);
        let request = Request {
            number,
            is_reset: std::mem::take(&mut self.is_reset),
            want,
            held: self.tokens,
            back,
            paid: self.paid,
            owed: self.owed,
            needs: needs.iter().map(|need| need.cost).collect(),
            seen: self.seen.clone(),
        };
        self.flight = Some(Flight {
            number,
            sent_at: now,
            paid: self.paid,
            owed: self.owed,
            want,
            needs,
        });
        Some(request)
    }

    /// Whether this can be the reply to what is on its way.
    pub(crate) fn expects(&self, reply: &Reply) -> bool {
        let needs = self.flight.as_ref().map_or(0, |flight| flight.needs.len());
        self.flight.is_none() || needs == reply.answers.len()
    }

    /// Takes in the reply to request `number`, and hands out the decisions. Replies to other requests
    /// are ignored: those have been given up. True if Redis has debited all that it was told of; what it has
    /// not cannot be debited before some of it has flowed in.
    pub(crate) fn apply(
        &mut self,
        number: u64,
        reply: &Reply,
        now: u64,
        terms: &Terms,
        pace: Pace,
        stats: &mut Stats,
    ) -> bool {
        let Some(flight) = self.flight.take_if(|flight| flight.number == number) else {
            return true;
        };
        self.unreachable_until = 0;
        self.lapse(now);
        self.paid = self.paid.saturating_sub(flight.paid);
        let debited = reply.debited.min(flight.owed);
        self.owed = self.owed.saturating_sub(debited);
        self.ledger.granted += reply.grant;
        self.last_grant = reply.grant;
        self.ceiling += reply.grant;
        self.tokens += reply.grant;
        // Counted from the sending, and a little less: it ends here before it ends in Redis, though
        // the clocks differ by one part in a thousand.
        self.deadline = flight.sent_at + (pace.lease_ttl_ns - pace.lease_ttl_ns / 1000);
        self.renew_at = self
            .deadline
            .saturating_sub((pace.lease_ttl_ns / 4).max(2 * pace.round_trip_ns));
        // Half of what is held, so that Redis may suddenly be as slow as it takes to use the other half.
        let used_meanwhile = self.demand_in(2 * pace.round_trip_ns);
        self.low_water = used_meanwhile.max(self.tokens / 2).min(terms.max_lease / 2);
        if self.tokens == 0 {
            self.lapse(u64::MAX);
            self.deadline = 0;
        }
        if reply.rates_seen.len() == 2 * terms.rates.len() && reply.generation > 0 {
            self.seen.0.clear();
            self.seen.0.extend([reply.generation, reply.sequence]);
            self.seen.0.extend(&reply.rates_seen);
        }
        self.left = reply.left;
        self.reset_at = now.saturating_add(reply.reset_ns);
        self.tightest = reply.tightest.min(terms.rates.len() - 1);

        self.denied_until = 0;
        if reply.left == 0 && self.tokens == 0 {
            let poll_ns = if flight.want > 0 {
                terms.poll_ns.max(pace.round_trip_ns)
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
        for (need, answer) in flight.needs.into_iter().zip(&reply.answers) {
            let decision = match *answer {
                Answer::Allowed => self.describe(now, need.cost, terms, Source::Redis),
                Answer::RetryAfter(ns) => {
                    self.deny(need.cost, now.saturating_add(ns.max(poll_ns)));
                    self.refuse(now, need.cost, terms, ns, Source::Redis)
                }
                Answer::Never => self.never(now, need.cost, terms),
            };
            stats.count(decision.allowed);
            need.waiter.answer(decision);
        }
        self.ask_again_at = self.denied_until.min(now.saturating_add(pace.lease_ttl_ns));
        debited == flight.owed
    }

    /// The cheapest refusal is the one to remember: it refuses the most.
    fn deny(&mut self, cost: u64, until: u64) {
        if self.denied_until == 0 || cost < self.denied_cost {
            (self.denied_cost, self.denied_until) = (cost, until);
        } else if cost == self.denied_cost {
            self.denied_until = self.denied_until.max(until);
        }
    }

    /// Gives up request `number`: what it did in Redis is unknown. What it was to debit stays owed, what
    /// it was to give back is gone. Returns those who wait, also those not yet sent.
    pub(crate) fn fail(&mut self, number: u64, until: u64) -> Vec<Need> {
        let Some(flight) = self.flight.take_if(|flight| flight.number == number) else {
            return Vec::new();
        };
        self.unreachable_until = until;
        let mut needs = flight.needs;
        needs.append(&mut self.waiting);
        needs
    }

    /// "Yes", with what is known here.
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

    /// "No, not for `wait_ns`."
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

    /// "No, and it never will be."
    pub(crate) fn never(&self, now: u64, cost: u64, terms: &Terms) -> Decision {
        Decision {
            allowed: false,
            retry_after_ns: None,
            ..self.describe(now, cost, terms, Source::Local)
        }
    }

    pub(crate) fn denied_for(&self, now: u64) -> u64 {
        self.denied_until.saturating_sub(now)
    }

    /// A child after `fork()` holds nothing: the tokens are its parent's.
    pub(crate) fn forget_lease(&mut self) {
        self.tokens = 0;
        self.ceiling = 0;
        self.deadline = 0;
        self.owed = 0;
        self.paid = 0;
        self.is_queued = false;
        self.is_watched = false;
        self.flight = None;
        self.waiting.clear();
        self.share = Box::default();
        self.ledger = Ledger::default();
    }
}

/// The share of each rate that one of `nodes` nodes may use while it decides alone.
///
/// Their bursts add up to what is held back for leases (at least one token each), so that with a bucket
/// that starts empty, all shares together stay within the rate.
pub(crate) fn share_of(terms: &Terms, nodes: u64) -> Vec<Gcra> {
    let nodes = nodes.max(1);
    let share = |rate: &Rate| {
        let burst = (terms.most_outstanding / nodes).clamp(1, rate.burst());
        let period_ns = rate.period_ns().saturating_mul(nodes).min(i64::MAX as u64);
        let slowed = Rate::new(rate.limit(), period_ns, Some(burst), rate.name());
        // A share so slow that it cannot be written is no share; the slowest there is comes close.
        slowed.unwrap_or_else(|_| {
            Rate::new(1, i64::MAX as u64, Some(1), rate.name()).expect("one unit in 292 years")
        })
    };
    let meter = |rate: &Rate| Gcra::new(&share(rate), 0).expect("a token bucket takes every rate");
    terms.rates.iter().map(meter).collect()
}
