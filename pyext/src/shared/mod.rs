//! Limits shared by several processes through Redis, decided here.
//!
//! ```text
//!   call ──▶ entry of the key: tokens on lease? ──yes──▶ spend one            (no I/O, no waiting)
//!                  │ no, or few left
//!                  ▼
//!               queue ──▶ courier thread ══ one pipeline ══▶ Redis: exchange.lua, one key each
//!                  ▲                                             │ debits *before* it grants
//!                  └────────────── reply: tokens, decisions ◀────┘
//! ```
//!
//! # Why it is never over
//!
//! Redis debits tokens when it leases them, so a call that spends one has been paid for. What is out on
//! lease is the only thing Redis cannot see being used late; it is capped, for all nodes together, at
//! `max_outstanding`. With O tokens out at the start of a span of length t, no more than
//! O + capacity + rate · t units are admitted in it. In strict mode the capacity is `burst − O`, so this is
//! `burst + rate · t`, whatever the network does.
//!
//! Whenever the outcome of an exchange is unknown, the reading that admits less is taken: tokens that may
//! have been granted are not used, what may have been given back is gone, what may have been debited is
//! debited again. Nothing is ever sent twice, except a script that Redis says it does not know.
//!
//! A request states how many tokens the node still holds, and carries a number. Redis keeps the node's
//! lease at exactly that plus what it grants, and ignores requests older than the last one. So late,
//! lost and repeated messages need no further care.
//!
//! * [`config`]: what users choose. `terms`: the same in the script's units.
//! * `entry`: one key on one node, a state machine. `wire`: its requests and replies.
//! * `courier`: the thread that carries them. `link`: the connections. `waiter`: who waits for a reply.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use crate::clock::Clock;
use crate::decision::{Decision, Source};
use crate::error::Error;
use crate::limiter::{Algorithm, Config, Key, OnFull, Stats};
use crate::panel::no_room;
use crate::rate::Rate;

pub(crate) mod config;
mod courier;
mod entry;
mod fork;
mod link;
mod terms;
mod waiter;
mod wire;

pub use config::{Cold, Mode, OnError, Outstanding, SyncConfig};
use courier::Courier;
pub use entry::Ledger;
use entry::{Entry, Need, Pace, Verdict, share_of};
use link::Link;
use terms::Terms;
pub use waiter::Mailbox;
use waiter::{Slot, Waiter};
pub use wire::SCRIPT;
use wire::{Reply, Sender};

const SHARDS: usize = 16;
/// Entries looked at for forgettable ones whenever a key is new.
const SWEEP_STEPS: usize = 4;
/// The same when there is no room.
const FULL_SWEEP_STEPS: usize = 64;
/// The key in Redis that all keys share which found no room here. No other key looks like it.
const OVERFLOW_KEY: &[u8] = b"\0overflow";
/// Its fingerprint; those of keys are never 0.
const OVERFLOW: u64 = 0;
/// After Redis came back, leases start again only when every node has had time to say what it owes.
const PROBATION_NS: u64 = 1_000_000_000;
/// First guess of a round trip, ns.
const FIRST_ROUND_TRIP_NS: u64 = 500_000;

/// Spreads fingerprints, which are hashes already, over a table.
#[derive(Debug, Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("fingerprints are numbers");
    }

    fn write_u64(&mut self, fingerprint: u64) {
        // The highest bits are the same for all keys of a shard.
        self.0 = fingerprint.rotate_left(32);
    }
}

type Entries = HashMap<u64, Entry, BuildHasherDefault<Spread>>;

#[derive(Debug)]
struct Shard {
    entries: Entries,
    terms: Arc<Terms>,
    stats: Stats,
    /// Keys in the order in which they are looked at for forgetting.
    hands: VecDeque<u64>,
    /// Of keys that have been forgotten.
    ledger: Ledger,
    room: usize,
    on_full: OnFull,
}

/// The half of a limiter that knows about other processes.
#[derive(Debug)]
pub(crate) struct Shared {
    inner: Arc<Inner>,
    link: Link,
    courier: Mutex<Option<Courier>>,
}

/// What callers and the courier share.
#[derive(Debug)]
pub(crate) struct Inner {
    config: SyncConfig,
    algorithm: Algorithm,
    precision: u32,
    clock: Clock,
    shards: Box<[Mutex<Shard>]>,
    queue: Mutex<Queue>,
    /// The thread that empties the queue.
    carrier: Mutex<Option<Thread>>,
    /// Random, below 2⁵³; another one in every process.
    node: AtomicU64,
    /// The fork this process was made by, see `fork`.
    fork_count: AtomicU64,
    /// Number of the last request.
    number: AtomicU64,
    /// Processes that share the limits, as far as is known.
    nodes: AtomicU64,
    round_trip_ns: AtomicU64,
    /// Redis does not decide at the moment.
    is_down: AtomicBool,
    /// Until then every node only says what it owes.
    probation_until: AtomicU64,
    remote_calls: AtomicU64,
    redis_errors: AtomicU64,
    is_closed: AtomicBool,
    /// Refusals that come later are let through.
    is_shadow: bool,
}

#[derive(Debug, Default)]
struct Queue {
    /// Keys to ask Redis about.
    asking: Vec<u64>,
    /// Leases to look at once they have been idle for half their life: (when, whose), earliest first.
    leases: VecDeque<(u64, u64)>,
}

/// A request, ready to be sent.
#[derive(Debug)]
pub struct Parcel {
    fingerprint: u64,
    number: u64,
    /// `KEYS[1]` of the script.
    pub key: Vec<u8>,
    /// `ARGV[1]` of the script.
    pub body: Vec<u8>,
}

/// Who wants to know, and how they can be told later.
#[derive(Debug)]
pub(crate) enum Asker {
    /// A thread that can sleep.
    Thread,
    /// Somebody who looks into a mailbox.
    Ticket(Arc<Mailbox>, u64),
}

/// A decision that Redis has been asked for. Must be waited for, or it was asked in vain.
#[derive(Debug)]
pub struct Pending {
    slot: Arc<Slot>,
    fingerprint: u64,
    cost: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(rates: &[Rate], config: &Config, sync: &SyncConfig) -> Result<Self, Error> {
        sync.check()?;
        let terms = Terms::new(rates, config.algorithm, config.precision, sync)?;
        let link = Link::new(&sync.url, Duration::from_nanos(sync.timeout_ns))?;
        fork::watch();
        let terms = Arc::new(terms);
        let max_keys = usize::try_from(config.max_keys).unwrap_or(usize::MAX);
        let shards = SHARDS.min(max_keys);
        let shard = |index: usize| {
            Mutex::new(Shard {
                entries: Entries::default(),
                hands: VecDeque::new(),
                terms: terms.clone(),
                stats: Stats::default(),
                ledger: Ledger::default(),
                room: max_keys / shards + usize::from(index < max_keys % shards),
                on_full: config.on_full,
            })
        };
        let inner = Inner {
            config: sync.clone(),
            algorithm: config.algorithm,
            precision: config.precision,
            clock: config.clock.clone(),
            shards: (0..shards).map(shard).collect(),
            queue: Mutex::default(),
            carrier: Mutex::default(),
            node: AtomicU64::new(random_node()),
            fork_count: AtomicU64::new(fork::count()),
            number: AtomicU64::new(0),
            nodes: AtomicU64::new(1),
            round_trip_ns: AtomicU64::new(FIRST_ROUND_TRIP_NS),
            is_down: AtomicBool::new(false),
            probation_until: AtomicU64::new(0),
            remote_calls: AtomicU64::new(0),
            redis_errors: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            is_shadow: config.shadow,
        };
        Ok(Self {
            inner: Arc::new(inner),
            link,
            courier: Mutex::new(None),
        })
    }

    /// Takes `cost` units if they are there. What is held here is spent at once; else Redis is asked,
    /// and the answer comes later.
    #[inline]
    pub(crate) fn allow(
        &self,
        fingerprint: u64,
        key: Key<'_>,
        now: u64,
        cost: u64,
    ) -> Result<bool, Pending> {
        if !self.is_forked() {
            let mut shard = self.inner.shard(fingerprint);
            let shard = &mut *shard;
            if let Some(entry) = shard.entries.get_mut(&fingerprint) {
                match entry.spend(now, cost) {
                    Verdict::Allowed => {
                        shard.stats.allowed += 1;
                        shard.stats.lease_hits += 1;
                        if entry.wants_more(now) {
                            self.ask(entry, fingerprint);
                        }
                        return Ok(true);
                    }
                    Verdict::Refused => {
                        shard.stats.denied += 1;
                        return Ok(false);
                    }
                    Verdict::Unknown => {}
                }
            }
        }
        self.hit(fingerprint, key, now, cost, Asker::Thread)
            .map(|decision| decision.allowed)
    }

    /// As [`Shared::allow`], with the whole answer. If `asker` has a ticket, so does the answer that
    /// comes later, and nobody needs to wait for what is pending.
    pub(crate) fn hit(
        &self,
        fingerprint: u64,
        key: Key<'_>,
        now: u64,
        cost: u64,
        asker: Asker,
    ) -> Result<Decision, Pending> {
        self.notice_fork();
        let inner = &*self.inner;
        let mut shard = inner.shard(fingerprint);
        let shard = &mut *shard;
        let terms = shard.terms.clone();
        let Some(fingerprint) = shard.place(fingerprint, key, now) else {
            shard.stats.count(cost == 0);
            return Ok(no_room(terms.rates.clone(), cost));
        };
        let entry = shard.entries.get_mut(&fingerprint).expect("just placed");
        if cost == 0 {
            return Ok(entry.describe(now, 0, &terms, Source::Lease));
        }
        let decision = match entry.spend(now, cost) {
            Verdict::Allowed => {
                shard.stats.lease_hits += 1;
                if entry.wants_more(now) {
                    self.ask(entry, fingerprint);
                }
                entry.describe(now, cost, &terms, Source::Lease)
            }
            Verdict::Refused if cost > terms.capacity => entry.never(now, cost, &terms),
            Verdict::Refused => entry.refuse(
                now,
                cost,
                &terms,
                entry.denied_for(now),
                Source::NegativeCache,
            ),
            Verdict::Unknown => {
                entry.count(now, cost);
                if cost > terms.capacity {
                    entry.never(now, cost, &terms)
                } else if inner.is_alone(entry, now) {
                    if now >= entry.unreachable_until {
                        self.ask(entry, fingerprint);
                    }
                    inner.decide_alone(entry, now, cost, &terms)
                } else if let Cold::Optimistic(allowance) = inner.config.cold {
                    self.ask(entry, fingerprint);
                    if entry.is_denied(now, cost) {
                        let wait = entry.denied_for(now);
                        entry.refuse(now, cost, &terms, wait, Source::NegativeCache)
                    } else if entry.spend_unasked(cost, allowance) {
                        entry.describe(now, cost, &terms, Source::Local)
                    } else {
                        let wait = inner.round_trip_ns.load(Ordering::Relaxed);
                        entry.refuse(now, cost, &terms, wait, Source::Local)
                    }
                } else {
                    let slot = Arc::new(Slot::default());
                    let waiter = match asker {
                        Asker::Thread => Waiter::Thread(slot.clone()),
                        Asker::Ticket(mailbox, ticket) => Waiter::Ticket {
                            mailbox,
                            ticket,
                            is_shadow: inner.is_shadow,
                        },
                    };
                    entry.wait(Need { cost, waiter });
                    self.ask(entry, fingerprint);
                    return Err(Pending {
                        slot,
                        fingerprint,
                        cost,
                    });
                }
            }
        };
        shard.stats.count(decision.allowed);
        Ok(decision)
    }

    /// Sleeps until Redis has decided. If it does not in time, this node decides alone.
    pub(crate) fn wait(&self, pending: &Pending) -> Decision {
        match pending.slot.take(self.patience()) {
            Some(decision) => decision,
            None => self.decide_alone(pending.fingerprint, pending.cost),
        }
    }

    /// How long anybody waits for Redis to decide. What is asked is answered or given up within two
    /// timeouts: one for what is on its way already.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_nanos(self.inner.config.timeout_ns) * 3
    }

    /// What this process decides about somebody who has waited long enough.
    pub(crate) fn decide_alone(&self, fingerprint: u64, cost: u64) -> Decision {
        let inner = &*self.inner;
        let _gate = fork::gate();
        let now = inner.clock.now_ns();
        let mut shard = inner.shard(fingerprint);
        let terms = shard.terms.clone();
        let decision = match shard.entries.get_mut(&fingerprint) {
            Some(entry) => inner.decide_alone(entry, now, cost, &terms),
            None => no_room(terms.rates.clone(), cost),
        };
        shard.stats.count(decision.allowed);
        decision
    }

    /// What is known here, without asking anybody. A key nobody knows is taken to be new.
    pub(crate) fn peek(&self, fingerprint: u64, now: u64, cost: u64) -> Decision {
        self.notice_fork();
        let shard = self.inner.shard(fingerprint);
        let stranger = Entry::new(Box::default(), now);
        let (entry, terms) = (
            shard.entries.get(&fingerprint).unwrap_or(&stranger),
            &shard.terms,
        );
        match entry.would_spend(now, cost) {
            _ if cost == 0 => entry.describe(now, 0, terms, Source::Lease),
            _ if cost > terms.capacity => entry.never(now, cost, terms),
            Verdict::Refused => entry.refuse(
                now,
                cost,
                terms,
                entry.denied_for(now),
                Source::NegativeCache,
            ),
            Verdict::Allowed | Verdict::Unknown => entry.describe(now, cost, terms, Source::Lease),
        }
    }

    pub(crate) fn refund(&self, fingerprint: u64, now: u64, cost: u64) {
        self.notice_fork();
        if let Some(entry) = self.inner.shard(fingerprint).entries.get_mut(&fingerprint) {
            entry.refund(now, cost);
        }
    }

    pub(crate) fn reset(&self, fingerprint: u64, key: Key<'_>, now: u64) {
        self.notice_fork();
        let mut shard = self.inner.shard(fingerprint);
        if let Some(fingerprint) = shard.place(fingerprint, key, now) {
            let entry = shard.entries.get_mut(&fingerprint).expect("just placed");
            entry.reset();
            self.ask(entry, fingerprint);
        }
    }

    pub(crate) fn configure(&self, rates: &[Rate]) -> Result<(), Error> {
        let inner = &*self.inner;
        let terms = Terms::new(rates, inner.algorithm, inner.precision, &inner.config)?;
        let terms = Arc::new(terms);
        let mut shards: Vec<_> = inner.shards.iter().map(lock).collect();
        for shard in &mut shards {
            shard.terms = terms.clone();
            for entry in shard.entries.values_mut() {
                entry.configure();
            }
        }
        Ok(())
    }

    pub(crate) fn rates(&self) -> Arc<[Rate]> {
        lock(&self.inner.shards[0]).terms.rates.clone()
    }

    pub(crate) fn stats(&self) -> Stats {
        let inner = &*self.inner;
        let mut sum = Stats {
            remote_calls: inner.remote_calls.load(Ordering::Relaxed),
            redis_errors: inner.redis_errors.load(Ordering::Relaxed),
            ..Stats::default()
        };
        let now = inner.clock.now_ns();
        for shard in &inner.shards {
            let shard = lock(shard);
            sum.add(&shard.stats);
            sum.keys += shard.entries.len() as u64;
            sum.held += shard
                .entries
                .values()
                .map(|entry| entry.held(now))
                .sum::<u64>();
        }
        let nodes = inner.nodes.load(Ordering::Relaxed);
        let rates = self.rates();
        let bound = |rate: &Rate| {
            inner
                .config
                .overshoot_bound(rate.burst(), nodes)
                .unwrap_or(0)
        };
        sum.max_overshoot = rates.iter().map(bound).max().unwrap_or(0);
        sum
    }

    /// Where the tokens of all keys have gone.
    pub(crate) fn ledger(&self) -> Ledger {
        let mut sum = Ledger::default();
        let now = self.inner.clock.now_ns();
        for shard in &self.inner.shards {
            let shard = lock(shard);
            sum.add(&shard.ledger);
            for entry in shard.entries.values() {
                sum.add(&entry.ledger(now));
            }
        }
        sum
    }

    pub(crate) fn collect(&self, limit: usize) -> Vec<Parcel> {
        self.notice_fork();
        self.inner.collect(limit)
    }

    pub(crate) fn deliver(&self, parcel: &Parcel, reply: Option<&[i64]>) {
        match reply {
            Some(numbers) => self.inner.deliver(parcel, numbers),
            None => self.inner.give_up(parcel, 0),
        }
    }

    /// Gives back what is held, and stops asking. Calls are decided as if Redis were away from then on.
    pub(crate) fn close(&self) {
        self.inner.is_closed.store(true, Ordering::SeqCst);
        let gate = fork::gate();
        let courier = lock(&self.courier).take();
        self.inner.wake();
        drop(gate);
        if let Some(courier) = courier {
            courier.join();
        }
    }

    /// Puts the key on the list of those to ask about, and sees that somebody does.
    fn ask(&self, entry: &mut Entry, fingerprint: u64) {
        if entry.is_queued || self.inner.is_closed.load(Ordering::Relaxed) {
            return;
        }
        entry.is_queued = true;
        self.inner.enqueue(fingerprint);
        if self.inner.clock.is_real_time() {
            let mut courier = lock(&self.courier);
            if courier.is_none() {
                *courier = Courier::start(self.inner.clone(), self.link.clone());
            }
        }
    }

    #[inline]
    fn is_forked(&self) -> bool {
        self.inner.fork_count.load(Ordering::Relaxed) != fork::count()
    }

    /// In a child after `fork()`: the leases are the parent's, and its courier has stayed behind.
    fn notice_fork(&self) {
        if !self.is_forked() {
            return;
        }
        let mut courier = lock(&self.courier);
        if self.is_forked() {
            // Its thread does not exist here, so there is nothing to join.
            std::mem::forget(courier.take());
            self.inner.start_over();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.inner.is_closed.store(true, Ordering::SeqCst);
        self.inner.wake();
    }
}

impl Shard {
    /// The fingerprint under which the key is kept. None if there is no room, and the policy is to refuse.
    fn place(&mut self, fingerprint: u64, key: Key<'_>, now: u64) -> Option<u64> {
        if self.entries.contains_key(&fingerprint) {
            return Some(fingerprint);
        }
        self.sweep(now);
        if self.entries.len() < self.room {
            self.insert(fingerprint, redis_key(key), now);
            return Some(fingerprint);
        }
        if self.on_full == OnFull::Deny {
            return None;
        }
        self.stats.overflowed += 1;
        if !self.entries.contains_key(&OVERFLOW) {
            self.insert(OVERFLOW, OVERFLOW_KEY.into(), now);
        }
        Some(OVERFLOW)
    }

    fn insert(&mut self, fingerprint: u64, key: Box<[u8]>, now: u64) {
        self.entries.insert(fingerprint, Entry::new(key, now));
        self.hands.push_back(fingerprint);
    }

    /// Drops keys that have nothing to lose. Looks at more than one for each newcomer, so it keeps up.
    fn sweep(&mut self, now: u64) {
        let steps = if self.entries.len() < self.room {
            SWEEP_STEPS
        } else {
            FULL_SWEEP_STEPS
        };
        for _ in 0..steps.min(self.hands.len()) {
            let Some(fingerprint) = self.hands.pop_front() else {
                return;
            };
            let forgettable = self
                .entries
                .get(&fingerprint)
                .is_some_and(|entry| entry.is_forgettable(now));
            if forgettable && let Some(entry) = self.entries.remove(&fingerprint) {
                self.ledger.add(&entry.ledger(now));
                self.stats.evicted_idle += 1;
            } else {
                self.hands.push_back(fingerprint);
            }
        }
    }
}

impl Inner {
    fn shard(&self, fingerprint: u64) -> MutexGuard<'_, Shard> {
        let index = (fingerprint >> 32) as usize % self.shards.len();
        lock(&self.shards[index])
    }

    fn enqueue(&self, fingerprint: u64) {
        let mut queue = lock(&self.queue);
        queue.asking.push(fingerprint);
        let is_first = queue.asking.len() == 1;
        drop(queue);
        if is_first {
            self.wake();
        }
    }

    fn carried_by(&self, carrier: Option<Thread>) {
        let _gate = fork::gate();
        *lock(&self.carrier) = carrier;
    }

    fn wake(&self) {
        if let Some(carrier) = &*lock(&self.carrier) {
            carrier.unpark();
        }
    }

    fn pace(&self) -> Pace {
        Pace {
            round_trip_ns: self.round_trip_ns.load(Ordering::Relaxed),
            lease_ttl_ns: self.config.lease_ttl_ns,
        }
    }

    /// Whether this node must decide about the key without Redis.
    fn is_alone(&self, entry: &Entry, now: u64) -> bool {
        self.is_down.load(Ordering::Relaxed)
            || now < entry.unreachable_until
            || now < self.probation_until.load(Ordering::Relaxed)
            || self.is_closed.load(Ordering::Relaxed)
    }

    fn decide_alone(&self, entry: &mut Entry, now: u64, cost: u64, terms: &Terms) -> Decision {
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
        entry.apply(parcel.number, &reply, now, terms, self.pace(), stats);
        self.watch(entry, parcel.fingerprint, now);
        if (entry.is_waited_for() || entry.has_news()) && !entry.is_queued {
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
    fn watch(&self, entry: &mut Entry, fingerprint: u64, now: u64) {
        let is_dull = entry.held(now) == 0 && !entry.has_news();
        if is_dull || entry.is_watched {
            return;
        }
        entry.is_watched = true;
        let due = now + self.config.lease_ttl_ns / 2;
        lock(&self.queue).leases.push_back((due, fingerprint));
    }

    /// While Redis is away: decides about those who still wait for it.
    fn refuse_waiting(&self) {
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
    fn next_lease_due(&self) -> Duration {
        let _gate = fork::gate();
        let due = lock(&self.queue).leases.front().map(|(due, _)| *due);
        due.map_or(Duration::MAX, |due| {
            Duration::from_nanos(due.saturating_sub(self.clock.now_ns()).max(1_000_000))
        })
    }

    /// Keeps a figure that nearly all round trips stay below: the longest of late, fading slowly.
    fn note_round_trip(&self, elapsed: Duration) {
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
    fn start_over(&self) {
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

/// What follows the prefix in Redis. Keys of different kinds stay different; text stays readable.
fn redis_key(key: Key<'_>) -> Box<[u8]> {
    match key {
        Key::Text(bytes) => bytes.into(),
        Key::Bytes(bytes) => [b"\0b", bytes].concat().into(),
        Key::Int(number) => format!("\0i{number}").into_bytes().into(),
        Key::BigInt(bytes) => [b"\0I", bytes].concat().into(),
    }
}

/// A number that no other node is likely to have.
fn random_node() -> u64 {
    // Seeded by the system, and by the address and the time.
    let hash =
        foldhash::quality::RandomState::default().hash_one((std::process::id(), fork::count()));
    (hash >> 11).max(1)
}
