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
//! * `shard`: keys under one lock. `inner`: all of them, and the queue.
//! * `courier`: the thread that carries them. `link`: the connections, `slots`: which one for which key.
//!   `waiter`: who waits for a reply.
//!
//! What callers may do is here, in one place: each verb is a few lines on the same lock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::decision::{Decision, Source};
use crate::error::Error;
use crate::limiter::{Config, Key, Stats};
use crate::panel::no_room;
use crate::rate::Rate;

pub(crate) mod config;
mod courier;
mod entry;
mod fork;
mod inner;
mod link;
mod shard;
mod slots;
mod terms;
mod waiter;
mod wire;

pub use config::{Cold, Mode, OnError, Outstanding, SyncConfig};
use courier::Courier;
pub use entry::Ledger;
use entry::{Entry, Need, Verdict};
pub use inner::Parcel;
use inner::{Inner, random_node};
use link::Link;
use shard::{Entries, Shard};
use terms::Terms;
pub use waiter::Mailbox;
use waiter::{Slot, Waiter};
pub use wire::SCRIPT;

const SHARDS: usize = 16;
/// First guess of a round trip, ns.
const FIRST_ROUND_TRIP_NS: u64 = 500_000;

/// The half of a limiter that knows about other processes.
#[derive(Debug)]
pub(crate) struct Shared {
    inner: Arc<Inner>,
    link: Link,
    courier: Mutex<Option<Courier>>,
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
                index,
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

    pub(crate) fn patience(&self) -> Duration {
        self.inner.patience()
    }

    /// What this process decides about somebody who has waited long enough.
    pub(crate) fn decide_alone(&self, fingerprint: u64, cost: u64) -> Decision {
        let inner = &*self.inner;
        let _gate = fork::gate();
        let now = inner.clock.now_ns();
        let mut shard = inner.shard(fingerprint);
        let terms = shard.terms.clone();
        // A key that is not here has waited with those that found no room.
        let fingerprint = if shard.entries.contains_key(&fingerprint) {
            fingerprint
        } else {
            shard.overflow()
        };
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

    /// Gives back what is held, as far as it gets within three timeouts, and stops asking. Calls are
    /// decided as if Redis were away from then on.
    pub(crate) fn close(&self) {
        self.inner.is_closed.store(true, Ordering::SeqCst);
        let gate = fork::gate();
        self.notice_fork();
        let courier = lock(&self.courier).take();
        self.inner.wake();
        drop(gate);
        if let Some(courier) = courier {
            courier.join(self.patience());
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
