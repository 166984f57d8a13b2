//! What callers and the courier share: the shards, and the queue of keys to ask Redis about.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::Thread;
use std::time::Duration;

use super::config::{Cold, OnError, SyncConfig};
use super::entry::{Entry, Ledger, Need, Pace, share_of};
use super::shard::Shard;
use super::terms::Terms;
use super::wire::{Reply, Sender};
use super::{fork, lock};
use crate::clock::Clock;
use crate::decision::{Decision, Source};
use crate::limiter::{Algorithm, Stats};
use crate::rate::Rate;

/// What callers and the courier share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(super) config: SyncConfig,
    pub(super) algorithm: Algorithm,
    pub(super) precision: u32,
    pub(super) clock: Clock,
    pub(super) shards: Box<[Mutex<Shard>]>,
    pub(super) queue: Mutex<Queue>,
    /// The thread that empties the queue.
    pub(super) carrier: Mutex<Option<Thread>>,
    /// Random, below 2⁵³; another one in every process.
    pub(super) node: AtomicU64,
    /// The fork this process was made by, see `fork`.
    pub(super) fork_count: AtomicU64,
    /// Number of the last request.
    pub(super) number: AtomicU64,
    /// Processes that share the limits, as far as is known.
    pub(super) nodes: AtomicU64,
    pub(super) round_trip_ns: AtomicU64,
    /// Redis does not decide at the moment.
    pub(super) is_down: AtomicBool,
    /// Until then every node only says what it owes.
    pub(super) probation_until: AtomicU64,
    pub(super) remote_calls: AtomicU64,
    pub(super) redis_errors: AtomicU64,
    pub(super) is_closed: AtomicBool,
    /// Refusals that come later are let through.
    pub(super) is_shadow: bool,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Keys to ask Redis about.
    asking: Vec<u64>,
    /// Leases to look at once they have been idle for half their life: (when, whose), earliest first.
    leases: VecDeque<(u64, u64)>,
}

/// A request, ready to be sent.
#[derive(Debug)]
pub struct Parcel {
    fingerprint: u64,
    pub(super) number: u64,
    /// `KEYS[1]` of the script.
    pub key: Vec<u8>,
    /// `ARGV[1]` of the script.
    pub body: Vec<u8>,
}

impl Inner {
    pub(super) fn shard(&self, fingerprint: u64) -> MutexGuard<'_, Shard> {
        let index = (fingerprint >> 32) as usize % self.shards.len();
        lock(&self.shards[index])
    }

    pub(super) fn enqueue(&self, fingerprint: u64) {
        let mut queue = lock(&self.queue);
        queue.asking.push(fingerprint);
        let is_first = queue.asking.len() == 1;
        drop(queue);
        if is_first {
            self.wake();
        }
    }

    pub(super) fn carried_by(&self, carrier: Option<Thread>) {
        let _gate = fork::gate();
        *lock(&self.carrier) = carrier;
    }

    pub(super) fn wake(&self) {
        if let Some(carrier) = &*lock(&self.carrier) {
            carrier.unpark();
        }
    }

    /// How long anybody waits for Redis. What is asked is answered or given up within two timeouts: one
    /// for what is on its way already.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_nanos(self.config.timeout_ns) * 3
    }

    pub(super) fn pace(&self) -> Pace {
        Pace {
            round_trip_ns: self.round_trip_ns.load(Ordering::Relaxed),
            lease_ttl_ns: self.config.lease_ttl_ns,
        }
    }

    /// Whether this node must decide about the key without Redis.
    pub(super) fn is_alone(&self, entry: &Entry, now: u64) -> bool {
        self.is_down.load(Ordering::Relaxed)
            || now < entry.unreachable_until
            || now < self.probation_until.load(Ordering::Relaxed)
            || self.is_closed.load(Ordering::Relaxed)
    }

    pub(super) fn decide_alone(
        &self,
        entry: &mut Entry,
        now: u64,
        cost: u64,
        terms: &Terms,
    ) -> Decision {
        let allowed = match self.config.on_error {
            OnError::Share => {
                let meters = share_of(terms, self.nodes.load(Ordering::Relaxed));
                // The share starts empty; where calls may go ahead unasked, a newcomer does so.
                entry.spend_share(&meters, now, cost)
                    || matches!(self.config.cold, Cold::Optimistic(allowance)
                        if entry.spend_unasked(cost, allowance))
            }
            OnError::Allow => {
                entry.spend_regardless(cost);
                true
            }
            OnError::Deny => false,
        };
        if allowed {
            entry.describe(now, cost, terms, Source::Fallback)
        } else {
            let wait = terms.rates.iter().map(Rate::refill_ns).min().unwrap_or(0);
            entry.refuse(now, cost, terms, wait, Source::Fallback)
        }
    }

    // --- what the courier does, and tests by hand ---------------------------------------------

    /// Requests for all keys that are queued, and for leases that lie idle. At most `limit`.
    pub(crate) fn collect(&self, limit: usize) -> Vec<Parcel> {
        let _gate = fork::gate();
        let now = self.clock.now_ns();
        let is_closing = self.is_closed.load(Ordering::SeqCst);
        let mut queue = lock(&self.queue);
        let take = queue.asking.len().min(limit);
        let asking: Vec<u64> = queue.asking.drain(..take).collect();
        let mut idle = Vec::new();
        while let Some((due, fingerprint)) = queue.leases.front().copied() {
            if !is_closing && due > now || take + idle.len() >= limit {
                break;
            }
            queue.leases.pop_front();
            idle.push(fingerprint);
        }
        drop(queue);
        let mut parcels = Vec::with_capacity(asking.len());
        for fingerprint in asking {
            parcels.extend(self.parcel(fingerprint, now, is_closing));
        }
        for fingerprint in idle {
            let half_life = self.config.lease_ttl_ns / 2;
            let mut shard = self.shard(fingerprint);
            let Some(entry) = shard.entries.get_mut(&fingerprint) else {
                continue;
            };
            entry.is_watched = false;
            let is_idle = entry.held(now) > 0 && (is_closing || entry.last_used + half_life <= now);
            if is_idle || entry.has_news() {
                drop(shard);
                parcels.extend(self.parcel(fingerprint, now, is_idle));
            } else {
                self.watch(entry, fingerprint, now);
            }
        }
        parcels
    }

    fn parcel(&self, fingerprint: u64, now: u64, gives_back: bool) -> Option<Parcel> {
        let mut shard = self.shard(fingerprint);
        let terms = shard.terms.clone();
        let entry = shard.entries.get_mut(&fingerprint)?;
        let in_probation = now < self.probation_until.load(Ordering::Relaxed);
        if entry.is_sharing() && !self.is_down.load(Ordering::Relaxed) && !in_probation {
            entry.leave_share(&share_of(&terms, self.nodes.load(Ordering::Relaxed)), now);
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let request =
            entry.request(number, now, &terms, self.pace(), gives_back || in_probation)?;
        let sender = Sender {
            node: self.node.load(Ordering::Relaxed),
            lease_ttl_ns: self.config.lease_ttl_ns,
            starts_empty: self.config.starts_empty,
            now_ns: (!self.clock.is_real_time()).then_some(now),
        };
        self.remote_calls.fetch_add(1, Ordering::Relaxed);
        Some(Parcel {
            fingerprint,
            number,
            key: [&self.config.prefix[..], &entry.key].concat(),
            body: request.encode(sender, &terms),
        })
    }

    /// Takes in what Redis said about a parcel.
    pub(crate) fn deliver(&self, parcel: &Parcel, numbers: &[i64]) {
        let Some(reply) = Reply::decode(numbers) else {
            self.give_up(parcel, 0);
            return;
        };
        let _gate = fork::gate();
        let now = self.clock.now_ns();
        let mut shard = self.shard(parcel.fingerprint);
        let shard = &mut *shard;
        let Some(entry) = shard.entries.get_mut(&parcel.fingerprint) else {
            return;
        };
        if !entry.expects(&reply) {
            self.give_up_locked(parcel, 0, now, shard);
            return;
        }
        let (terms, stats) = (&shard.terms, &mut shard.stats);
        let is_settled = entry.apply(parcel.number, &reply, now, terms, self.pace(), stats);
        let is_closed = self.is_closed.load(Ordering::SeqCst);
        if is_settled || !is_closed || entry.held(now) > 0 {
            self.watch(entry, parcel.fingerprint, now);
        }
        // A debt that has to wait is told again when its key is looked at, not at once.
        let has_news = entry.has_news() && is_settled;
        if (entry.is_waited_for() || has_news) && !entry.is_queued {
            entry.is_queued = true;
            self.enqueue(parcel.fingerprint);
        }
    }

    /// Gives a parcel up: nobody knows what it did. Whoever waits is decided about here. The key is not
    /// asked about again for `pause_ns`.
    pub(crate) fn give_up(&self, parcel: &Parcel, pause_ns: u64) {
        let _gate = fork::gate();
        let now = self.clock.now_ns();
        self.give_up_locked(parcel, pause_ns, now, &mut self.shard(parcel.fingerprint));
    }

    fn give_up_locked(&self, parcel: &Parcel, pause_ns: u64, now: u64, shard: &mut Shard) {
        self.redis_errors.fetch_add(1, Ordering::Relaxed);
        let Some(entry) = shard.entries.get_mut(&parcel.fingerprint) else {
            return;
        };
        let needs = entry.fail(parcel.number, now.saturating_add(pause_ns));
        self.decide_needs(needs, entry, now, &shard.terms, &mut shard.stats);
        // Who closes says everything once: what a Redis in trouble does not take, ends with its lease.
        if !self.is_closed.load(Ordering::SeqCst) {
            self.watch(entry, parcel.fingerprint, now);
        }
    }

    /// Sees that a key is looked at again: in time to give back what is held, and to say what is owed
    /// though nobody asks for the key any more.
    pub(super) fn watch(&self, entry: &mut Entry, fingerprint: u64, now: u64) {
        let is_dull = entry.held(now) == 0 && !entry.has_news();
        if is_dull || entry.is_watched {
            return;
        }
        entry.is_watched = true;
        let due = now + self.config.lease_ttl_ns / 2;
        lock(&self.queue).leases.push_back((due, fingerprint));
    }

    /// While Redis is away: decides about those who still wait for it.
    pub(super) fn refuse_waiting(&self) {
        let _gate = fork::gate();
        let waiting = lock(&self.queue).asking.clone();
        let now = self.clock.now_ns();
        for fingerprint in waiting {
            let mut shard = self.shard(fingerprint);
            let shard = &mut *shard;
            if let Some(entry) = shard.entries.get_mut(&fingerprint) {
                let needs = entry.take_waiting();
                self.decide_needs(needs, entry, now, &shard.terms, &mut shard.stats);
            }
        }
    }

    fn decide_needs(
        &self,
        needs: Vec<Need>,
        entry: &mut Entry,
        now: u64,
        terms: &Terms,
        stats: &mut Stats,
    ) {
        for need in needs {
            let decision = self.decide_alone(entry, now, need.cost, terms);
            stats.count(decision.allowed);
            need.waiter.answer(decision);
        }
    }

    /// Time until a lease has to be looked at.
    pub(super) fn next_lease_due(&self) -> Duration {
        let _gate = fork::gate();
        let due = lock(&self.queue).leases.front().map(|(due, _)| *due);
        due.map_or(Duration::MAX, |due| {
            Duration::from_nanos(due.saturating_sub(self.clock.now_ns()).max(1_000_000))
        })
    }

    /// Keeps a figure that nearly all round trips stay below: the longest of late, fading slowly.
    pub(super) fn note_round_trip(&self, elapsed: Duration) {
        let ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let before = self.round_trip_ns.load(Ordering::Relaxed);
        let after = if ns > before {
            ns
        } else {
            before - (before - ns) / 16
        };
        self.round_trip_ns.store(after, Ordering::Relaxed);
    }

    /// In a child after `fork()`.
    pub(super) fn start_over(&self) {
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.ledger = Ledger::default();
            for entry in shard.entries.values_mut() {
                entry.forget_lease();
            }
        }
        *lock(&self.queue) = Queue::default();
        *lock(&self.carrier) = None;
        self.node.store(random_node(), Ordering::Relaxed);
        self.fork_count.store(fork::count(), Ordering::Relaxed);
    }
}

/// A number that no other node is likely to have.
pub(super) fn random_node() -> u64 {
    // Seeded by the system, and by the address and the time.
    let hash =
        foldhash::quality::RandomState::default().hash_one((std::process::id(), fork::count()));
    (hash >> 11).max(1)
}
