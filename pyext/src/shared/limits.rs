//! The engine of shared limits: each method is a few lines under the lock of one shard. They are those of one trait,
//! so they stand together; what is more than a few lines is in the modules beside this one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;

use super::completion::{Outcome, ReplyTo};
use super::config::{Cold, Mode, SyncConfig};
use super::connections::Connections;
use super::endpoint::RedisEndpoint;
use super::entries::EntryShard;
use super::entry::{Entry, LocalVerdict};
use super::fork;
use super::ledger::Ledger;
use super::state::SyncState;
use super::sync_thread::{self, NODES_KEY, SyncThread};
use super::terms::Terms;
use super::wire::{Ask, Request};
use crate::config::{Config, check_memory};
use crate::decision::{Decision, Source};
use crate::engine::Engine;
use crate::error::Error;
use crate::key::Key;
use crate::panel::no_room;
use crate::rate::Rate;
use crate::shard::UndoToken;
use crate::stats::Stats;

/// The keys of one limiter, shared with other processes through Redis.
#[derive(Debug)]
pub(crate) struct SharedLimits {
    pub(super) state: Arc<SyncState>,
    pub(super) endpoint: RedisEndpoint,
    /// Most bytes that a key may take.
    most_bytes: u64,
    /// Started by the first request.
    sync_thread: Mutex<Option<SyncThread>>,
}

impl SharedLimits {
    /// # Errors
    /// [`Error::Invalid`] if a number of `sync` is out of range, its URL cannot be read or the algorithm
    /// cannot be shared; [`Error::TooLarge`] if a rate does not fit the script's numbers.
    pub(crate) fn new(rates: &[Rate], config: &Config, sync: &SyncConfig) -> Result<Self, Error> {
        sync.check()?;
        let terms = Terms::new(rates, config.algorithm, config.precision, sync)?;
        let endpoint = RedisEndpoint::new(&sync.url, Duration::from_nanos(sync.timeout_ns))?;
        fork::watch();
        let (max_keys, most_bytes) = config.room(Entry::most_bytes(rates.len()))?;
        let config = &Config {
            max_keys: max_keys as u64,
            ..config.clone()
        };
        Ok(Self {
            state: Arc::new(SyncState::new(config, sync, &Arc::new(terms))),
            most_bytes,
            endpoint,
            sync_thread: Mutex::new(None),
        })
    }

    /// Decides a call for which this node holds too few tokens and remembers no refusal.
    pub(super) fn decide_unknown(
        &self,
        entry: &mut Entry,
        fingerprint: u64,
        now: u64,
        cost: u64,
        reply_to: ReplyTo<'_>,
        terms: &Terms,
    ) -> Outcome<Decision> {
        let state = &*self.state;
        entry.count(now, cost);
        if cost > terms.capacity {
            return Outcome::Ready(entry.never(now, cost, terms));
        }
        if state.is_fallback(entry, now) {
            if now >= entry.unreachable_until {
                self.request(entry, fingerprint);
            }
            return Outcome::Ready(state.decide_fallback(entry, now, cost, terms));
        }
        match state.config.cold {
            Cold::Optimistic(allowance) => {
                self.request(entry, fingerprint);
                Outcome::Ready(if entry.is_denied(now, cost) {
                    entry.refuse_from_cache(now, cost, terms)
                } else if entry.spend_optimistic(cost, allowance) {
                    entry.describe(now, cost, terms, Source::Local)
                } else {
                    state.hasten(entry, fingerprint);
                    let wait = state.round_trip_ns.load(Ordering::Relaxed);
                    entry.refuse(now, cost, terms, wait, Source::Local)
                })
            }
            Cold::Sync => Outcome::Pending(self.ask(entry, fingerprint, Ask::Take(cost), reply_to)),
        }
    }

    /// Queues a request for the key, for the sync thread to send. Starts that if there is none.
    pub(super) fn request(&self, entry: &mut Entry, fingerprint: u64) {
        self.request_by(entry, fingerprint, true);
    }

    /// Queues a request for the key. Without `wakes` the caller sends it, see [`Engine::help`].
    pub(super) fn request_by(&self, entry: &mut Entry, fingerprint: u64, wakes: bool) {
        if self.state.is_closed.load(Ordering::Relaxed) {
            return;
        }
        self.state.enqueue(entry, fingerprint, wakes);
        if self.state.clock.is_real_time() {
            let mut thread = self.sync_thread.lock();
            if thread.is_none() {
                *thread = SyncThread::start(self.state.clone(), &self.endpoint);
            }
        }
    }

    /// Whether a caller that waits sends its request itself. Leases need the sync thread afterwards, the servers of a
    /// cluster are asked at the same time, and callers that come during a round share the next one.
    pub(super) fn callers_send(&self) -> bool {
        self.state.config.mode == Mode::EveryHit
            && !self.endpoint.is_cluster
            && !self.state.is_in_round.load(Ordering::Relaxed)
    }

    #[inline]
    fn is_forked(&self) -> bool {
        self.state.fork_count.load(Ordering::Relaxed) != fork::count()
    }

    /// Starts over in a child after `fork()`: the leases are the parent's, and it has the sync thread.
    fn check_fork(&self) {
        if !self.is_forked() {
            return;
        }
        let mut thread = self.sync_thread.lock();
        if self.is_forked() {
            // The thread does not exist here, so there is nothing to join.
            std::mem::forget(thread.take());
            self.state.reset_after_fork();
        }
    }
}

impl Engine for SharedLimits {
    #[inline]
    fn allow(&self, fingerprint: u64, now: u64, cost: u64) -> Option<bool> {
        if self.is_forked() {
            return None;
        }
        let mut shard = self.state.shard(fingerprint);
        let shard = &mut *shard;
        if cost == 0 {
            shard.stats.allowed += 1;
            return Some(true);
        }
        let entry = shard.entries.get_mut(&fingerprint)?;
        if entry.own_terms().is_some() {
            return None;
        }
        match entry.spend(now, cost) {
            LocalVerdict::Allowed => {
                shard.stats.allowed += 1;
                shard.stats.lease_hits += 1;
                if entry.wants_more(now) {
                    self.request(entry, fingerprint);
                }
                Some(true)
            }
            LocalVerdict::Refused => {
                shard.stats.denied += 1;
                Some(false)
            }
            LocalVerdict::Unknown => None,
        }
    }

    fn hit(
        &self,
        fingerprint: u64,
        key: Key<'_>,
        now: u64,
        cost: u64,
        reply_to: ReplyTo<'_>,
    ) -> Outcome<Decision> {
        self.check_fork();
        let mut shard = self.state.shard(fingerprint);
        match shard.place_under(None, fingerprint, key, now) {
            Some(placed) => self.hit_placed(&mut shard, placed, now, cost, reply_to),
            None => refuse_without_room(&mut shard, cost),
        }
    }

    fn hit_many(
        &self,
        _calls: &mut dyn Iterator<Item = (u64, u64)>,
        _now: u64,
        _rates: Option<&[Rate]>,
    ) -> Result<Vec<Decision>, Error> {
        Err(not_shared("hit_many with prepared keys"))
    }

    fn hit_with(
        &self,
        fingerprint: u64,
        key: Key<'_>,
        now: u64,
        cost: u64,
        rates: &[Rate],
        reply_to: ReplyTo<'_>,
    ) -> Result<Outcome<Decision>, Error> {
        self.check_fork();
        let mut shard = self.state.shard(fingerprint);
        let placed = self.place_with(&mut shard, rates, fingerprint, key, now)?;
        Ok(match placed {
            Some(placed) => self.hit_placed(&mut shard, placed, now, cost, reply_to),
            None => refuse_without_room(&mut shard, cost),
        })
    }

    fn peek_with(
        &self,
        fingerprint: u64,
        key: Key<'_>,
        now: u64,
        cost: u64,
        rates: &[Rate],
        reply_to: ReplyTo<'_>,
    ) -> Result<Outcome<Decision>, Error> {
        self.check_fork();
        let mut shard = self.state.shard(fingerprint);
        let placed = self.place_with(&mut shard, rates, fingerprint, key, now)?;
        Ok(self.peek_placed(&mut shard, placed, now, cost, reply_to))
    }

    fn refund_with(
        &self,
        fingerprint: u64,
        key: Key<'_>,
        now: u64,
        cost: u64,
        rates: &[Rate],
        reply_to: ReplyTo<'_>,
    ) -> Result<Outcome<Option<u64>>, Error> {
        self.check_fork();
        let mut shard = self.state.shard(fingerprint);
        let placed = self.place_with(&mut shard, rates, fingerprint, key, now)?;
        self.refund_placed(&mut shard, placed, now, cost, reply_to)
    }

    fn decide_fallback(&self, fingerprint: u64, now: u64, cost: u64, takes: bool) -> Decision {
        let _gate = fork::gate();
        let mut shard = self.state.shard(fingerprint);
        let terms = shard.terms.clone();
        // A key without an entry has waited in the overflow bucket.
        let fingerprint = if shard.entries.contains_key(&fingerprint) {
            fingerprint
        } else {
            shard.overflow()
        };
        let state = &self.state;
        let decision = match shard.entries.get_mut(&fingerprint) {
            Some(entry) if takes => {
                let terms = entry.terms(&terms);
                state.decide_fallback(entry, now, cost, &terms)
            }
            Some(entry) => state.look_fallback(entry, now, cost, &entry.terms(&terms)),
            None => no_room(terms.rates.clone(), cost),
        };
        if takes {
            shard.stats.count(decision.allowed);
        }
        decision
    }

    fn peek(
        &self,
        fingerprint: u64,
        key: Key<'_>,
        now: u64,
        cost: u64,
        reply_to: ReplyTo<'_>,
    ) -> Outcome<Decision> {
        self.check_fork();
        let mut shard = self.state.shard(fingerprint);
        let placed = shard.place_under(None, fingerprint, key, now);
        self.peek_placed(&mut shard, placed, now, cost, reply_to)
    }

    fn reserve(
        &self,
        _fingerprint: u64,
        _now: u64,
        _cost: u64,
        _max_wait_ns: u64,
        _is_waiting: bool,
        _rates: Option<&[Rate]>,
    ) -> Result<(Decision, Option<UndoToken>), Error> {
        Err(not_shared("reserving a slot"))
    }

    fn starts_at(&self, _token: &UndoToken, now: u64) -> u64 {
        now
    }

    fn wait_for(&self, _token: &mut UndoToken) {}

    fn serve(&self, _token: &UndoToken, _now: u64) -> Option<u64> {
        None
    }

    fn cancel(&self, _token: &UndoToken, _now: u64) -> Option<u64> {
        None
    }

    fn refund(
        &self,
        fingerprint: u64,
        key: Key<'_>,
        now: u64,
        cost: u64,
        reply_to: ReplyTo<'_>,
    ) -> Result<Outcome<Option<u64>>, Error> {
        self.check_fork();
        let mut shard = self.state.shard(fingerprint);
        let placed = shard.place_under(None, fingerprint, key, now);
        self.refund_placed(&mut shard, placed, now, cost, reply_to)
    }

    fn reset(&self, fingerprint: u64, key: Key<'_>, now: u64) -> Option<u64> {
        self.check_fork();
        let mut shard = self.state.shard(fingerprint);
        if let Some(fingerprint) = shard.place(fingerprint, key, now) {
            let entry = shard.entries.get_mut(&fingerprint).expect("just placed");
            entry.reset();
            self.request(entry, fingerprint);
        }
        None
    }

    fn configure(&self, rates: &[Rate], _now: u64) -> Result<Vec<u64>, Error> {
        check_memory(Entry::most_bytes(rates.len()), self.most_bytes)?;
        let state = &*self.state;
        let mut terms = Terms::new(rates, state.algorithm, state.precision, &state.config)?;
        terms.replace(&state.shards[0].lock().terms);
        let terms = Arc::new(terms);
        let mut shards: Vec<_> = state.shards.iter().map(Mutex::lock).collect();
        for shard in &mut shards {
            shard.terms = terms.clone();
            for entry in shard.entries.values_mut() {
                entry.configure();
                entry.use_terms(None);
            }
        }
        Ok(Vec::new())
    }

    fn rates(&self) -> Arc<[Rate]> {
        self.state.shards[0].lock().terms.rates.clone()
    }

    fn stats(&self) -> Stats {
        self.state.stats()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn reply_timeout(&self) -> Duration {
        self.state.reply_timeout()
    }

    fn is_replying(&self, waited: Duration) -> bool {
        self.state.is_replying(waited)
    }

    fn help(&self) {
        let rounds = {
            let _gate = fork::gate();
            self.sync_thread.lock().as_ref().map(SyncThread::rounds)
        };
        if let Some(rounds) = rounds {
            sync_thread::help(&rounds, &self.state);
        }
    }

    /// Over a connection of its own: that of the sync thread may be busy.
    fn ping(&self) -> Result<(), Error> {
        let state = &self.state;
        let key = [&state.config.prefix[..], NODES_KEY].concat();
        let mut connections = Connections::new(self.endpoint.clone());
        let counted = connections.count_nodes(&key, state.node.load(Ordering::Relaxed));
        counted.map(drop).map_err(|_| {
            let reason = connections.take_error();
            let reason = reason.as_deref().unwrap_or("no reply");
            Error::Unreachable(format!("Redis does not serve these limits: {reason}"))
        })
    }

    /// Gives back the tokens on lease, as far as that takes no longer than three timeouts.
    fn close(&self) {
        self.state.is_closed.store(true, Ordering::SeqCst);
        let gate = fork::gate();
        self.check_fork();
        let thread = self.sync_thread.lock().take();
        self.state.wake();
        drop(gate);
        if let Some(thread) = thread {
            thread.join(self.reply_timeout());
        }
    }

    fn ledger(&self) -> Ledger {
        self.state.ledger()
    }

    fn collect(&self, limit: usize) -> Vec<Request> {
        self.check_fork();
        self.state.collect(limit)
    }

    fn complete(&self, request: &Request, reply: Option<&[i64]>) {
        match reply {
            Some(numbers) => self.state.complete(request, numbers),
            None => self.state.give_up(request, 0),
        }
    }
}

impl Drop for SharedLimits {
    fn drop(&mut self) {
        self.state.is_closed.store(true, Ordering::SeqCst);
        self.state.wake();
    }
}

/// The answer for a key without an entry.
fn refuse_without_room(shard: &mut EntryShard, cost: u64) -> Outcome<Decision> {
    shard.stats.count(cost == 0);
    Outcome::Ready(no_room(shard.terms.rates.clone(), cost))
}

fn not_shared(what: &str) -> Error {
    Error::invalid(format!("{what}: not for limits shared through Redis"))
}
