//! The state that callers and the sync thread share: the shards, and the queue of keys to send requests for.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::config::SyncConfig;
use super::entries::{Entries, EntryShard};
use super::entry::{Entry, Queued, Timing, share_of};
use super::fork;
use super::health::HealthListener;
use super::ledger::Ledger;
use super::terms::Terms;
use super::wire::{Reply, Request, Sender};
use crate::clock::Clock;
use crate::config::{Algorithm, Config};
use crate::stats::Stats;

const SHARDS: usize = 16;
/// A caller waits at most this many timeouts, while Redis replies to others.
const MOST_TIMEOUTS: u32 = 20;
/// First guess of a round trip, ns.
const FIRST_ROUND_TRIP_NS: u64 = 500_000;

/// The state that callers and the sync thread share.
#[derive(Debug)]
pub(crate) struct SyncState {
    pub(super) config: SyncConfig,
    pub(super) algorithm: Algorithm,
    pub(super) precision: u32,
    pub(super) clock: Clock,
    pub(super) shards: Box<[Mutex<EntryShard>]>,
    queue: Mutex<Queue>,
    /// The handle that wakes the sync thread.
    sync_thread: Mutex<Option<Thread>>,
    /// The identity of this process: random, below 2⁵³.
    pub(super) node: AtomicU64,
    /// The fork that made this process, see `fork`.
    pub(super) fork_count: AtomicU64,
    /// Number of the last request.
    number: AtomicU64,
    /// Processes that share the limits, as of the last heartbeat.
    pub(super) nodes: AtomicU64,
    pub(super) round_trip_ns: AtomicU64,
    /// Redis cannot be reached.
    pub(super) is_down: AtomicBool,
    /// Until then every node reports its debts and leases nothing.
    pub(super) recovery_until: AtomicU64,
    /// When Redis last replied to a request, ns on the limiter's clock.
    pub(super) replied_at: AtomicU64,
    pub(super) remote_calls: AtomicU64,
    pub(super) redis_errors: AtomicU64,
    pub(super) is_closed: AtomicBool,
    /// Requests are being exchanged.
    pub(super) is_in_round: AtomicBool,
    /// The reason of the last failure to reach Redis, or to be served by it.
    pub(super) last_error: Mutex<Option<String>>,
    /// What the sync thread still has to report.
    pub(super) notice: Mutex<Option<String>>,
    pub(super) on_health: Option<HealthListener>,
    /// Refusals that come later are let through.
    pub(super) is_shadow: bool,
}

#[derive(Debug, Default)]
struct Queue {
    /// Keys to send requests for: those that Redis has answered for, and those that calls are refused or wait for.
    first: VecDeque<u64>,
    /// Keys that only have a first debt to report: a flood of them would keep all others waiting. Those that have come
    /// to be among the first since are still here, and passed by.
    last: VecDeque<u64>,
    /// Leases to check once they have been idle for half their life: (due, fingerprint), earliest first.
    lease_checks: VecDeque<(u64, u64)>,
    /// The sync thread has been woken for what is queued.
    is_woken: bool,
}

/// Keys whose turn it is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Turn {
    first: Vec<u64>,
    last: Vec<u64>,
    checks: Vec<u64>,
}

impl Queue {
    /// Removes at most `limit` keys; of leases those that are due at `now`, or all. A quarter is left to new keys and to
    /// leases each: neither waits for ever, and leases that are given back make room for other keys.
    fn take(&mut self, limit: usize, now: u64, is_closing: bool) -> Turn {
        let due = self
            .lease_checks
            .iter()
            .take(limit)
            .take_while(|(due, _)| is_closing || *due <= now)
            .count();
        let kept_for = |waiting: usize| waiting.min(limit / 4);
        let room = limit - kept_for(due) - kept_for(self.last.len());
        let first = self.first.len().min(room);
        let last = self.last.len().min(limit - kept_for(due) - first);
        let checks = due.min(limit - first - last);
        Turn {
            first: self.first.drain(..first).collect(),
            last: self.last.drain(..last).collect(),
            checks: self
                .lease_checks
                .drain(..checks)
                .map(|(_, fingerprint)| fingerprint)
                .collect(),
        }
    }

    fn put(&mut self, entry: &mut Entry, fingerprint: u64, place: Queued) {
        entry.queued = place;
        match place {
            Queued::No => {}
            Queued::Last => self.last.push_back(fingerprint),
            Queued::First => self.first.push_back(fingerprint),
        }
    }

    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.last.is_empty() && self.lease_checks.is_empty()
    }
}

impl SyncState {
    pub(super) fn new(config: &Config, sync: &SyncConfig, terms: &Arc<Terms>) -> Self {
        let max_keys = usize::try_from(config.max_keys).unwrap_or(usize::MAX);
        let shards = SHARDS.min(max_keys);
        let shard = |index: usize| {
            Mutex::new(EntryShard {
                index,
                entries: Entries::default(),
                sweep_order: VecDeque::new(),
                terms: terms.clone(),
                stats: Stats::default(),
                ledger: Ledger::default(),
                room: max_keys / shards + usize::from(index < max_keys % shards),
                on_full: config.on_full,
            })
        };
        Self {
            config: sync.clone(),
            algorithm: config.algorithm,
            precision: config.precision,
            clock: config.clock.clone(),
            shards: (0..shards).map(shard).collect(),
            queue: Mutex::default(),
            sync_thread: Mutex::default(),
            node: AtomicU64::new(random_node()),
            fork_count: AtomicU64::new(fork::count()),
            number: AtomicU64::new(0),
            nodes: AtomicU64::new(1),
            round_trip_ns: AtomicU64::new(FIRST_ROUND_TRIP_NS),
            is_down: AtomicBool::new(false),
            recovery_until: AtomicU64::new(0),
            replied_at: AtomicU64::new(0),
            remote_calls: AtomicU64::new(0),
            redis_errors: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            is_in_round: AtomicBool::new(false),
            last_error: Mutex::default(),
            notice: Mutex::default(),
            on_health: config.on_health.clone(),
            is_shadow: config.shadow,
        }
    }

    pub(super) fn shard(&self, fingerprint: u64) -> MutexGuard<'_, EntryShard> {
        let index = (fingerprint >> 32) as usize % self.shards.len();
        self.shards[index].lock()
    }

    /// Puts a key into the queue of keys to send requests for, unless it is there. With `wakes` the sync thread sends it,
    /// else the caller.
    pub(super) fn enqueue(&self, entry: &mut Entry, fingerprint: u64, wakes: bool) {
        let place = if entry.is_known() || entry.has_waiting() {
            Queued::First
        } else {
            Queued::Last
        };
        let is_there = entry.queued == place || entry.queued == Queued::First;
        if is_there && !wakes {
            return;
        }
        let mut queue = self.queue.lock();
        if !is_there {
            queue.put(entry, fingerprint, place);
        }
        let must_wake = wakes && !std::mem::replace(&mut queue.is_woken, true);
        drop(queue);
        if must_wake {
            self.wake();
        }
    }

    /// Has a queued key come among the first: a call of it is refused until then.
    pub(super) fn hasten(&self, entry: &mut Entry, fingerprint: u64) {
        if entry.queued == Queued::Last {
            self.queue.lock().put(entry, fingerprint, Queued::First);
        }
    }

    /// Whether there is anything to send, now or later.
    pub(super) fn has_queued(&self) -> bool {
        let _gate = fork::gate();
        !self.queue.lock().is_empty()
    }

    pub(super) fn set_sync_thread(&self, thread: Option<Thread>) {
        let _gate = fork::gate();
        *self.sync_thread.lock() = thread;
    }

    pub(super) fn wake(&self) {
        if let Some(thread) = &*self.sync_thread.lock() {
            thread.unpark();
        }
    }

    /// How long a caller waits for Redis. A request is answered or given up within two timeouts: one is
    /// for the request that is in flight already.
    pub(super) fn reply_timeout(&self) -> Duration {
        Duration::from_nanos(self.config.timeout_ns) * 3
    }

    /// Whether a caller who has waited this long should wait on: Redis replies, and is busy with the calls before.
    pub(super) fn is_replying(&self, waited: Duration) -> bool {
        let timeout = Duration::from_nanos(self.config.timeout_ns);
        let silent_ns = self
            .clock
            .now_ns()
            .saturating_sub(self.replied_at.load(Ordering::Relaxed));
        self.clock.is_real_time()
            && !self.is_down.load(Ordering::Relaxed)
            && waited < MOST_TIMEOUTS * timeout
            && silent_ns < 2 * self.config.timeout_ns
    }

    fn timing(&self) -> Timing {
        Timing {
            round_trip_ns: self.round_trip_ns.load(Ordering::Relaxed),
            lease_ttl_ns: self.config.lease_ttl_ns,
        }
    }

    /// Whether this node decides about the key without Redis.
    pub(super) fn is_fallback(&self, entry: &Entry, now: u64) -> bool {
        self.is_down.load(Ordering::Relaxed)
            || now < entry.unreachable_until
            || now < self.recovery_until.load(Ordering::Relaxed)
            || self.is_closed.load(Ordering::Relaxed)
    }

    // --- called by the sync thread, and by tests with a manual clock --------------------------

    /// Requests for all queued keys and for idle leases, at most `limit`.
    pub(crate) fn collect(&self, limit: usize) -> Vec<Request> {
        let _gate = fork::gate();
        let now = self.clock.now_ns();
        let is_closing = self.is_closed.load(Ordering::SeqCst);
        let mut queue = self.queue.lock();
        queue.is_woken = false;
        let turn = queue.take(limit, now, is_closing);
        drop(queue);
        let mut requests = Vec::with_capacity(turn.first.len() + turn.last.len());
        for fingerprint in turn.first {
            requests.extend(self.request(fingerprint, now, is_closing));
        }
        for fingerprint in turn.last {
            if self.is_last(fingerprint) {
                requests.extend(self.request(fingerprint, now, is_closing));
            }
        }
        for fingerprint in turn.checks {
            let half_life = self.config.lease_ttl_ns / 2;
            let mut shard = self.shard(fingerprint);
            let Some(entry) = shard.entries.get_mut(&fingerprint) else {
                continue;
            };
            entry.is_check_scheduled = false;
            let is_idle = entry.held(now) > 0 && (is_closing || entry.last_used + half_life <= now);
            if is_idle || entry.has_unreported() || entry.is_ending(now) {
                drop(shard);
                requests.extend(self.request(fingerprint, now, is_idle));
            } else {
                self.schedule_check(entry, fingerprint, now);
            }
        }
        requests
    }

    fn is_last(&self, fingerprint: u64) -> bool {
        let shard = self.shard(fingerprint);
        let entry = shard.entries.get(&fingerprint);
        entry.is_some_and(|entry| entry.queued == Queued::Last)
    }

    fn request(&self, fingerprint: u64, now: u64, gives_back: bool) -> Option<Request> {
        let mut shard = self.shard(fingerprint);
        let of_limiter = shard.terms.clone();
        let entry = shard.entries.get_mut(&fingerprint)?;
        let terms = entry.terms(&of_limiter);
        let is_recovering = now < self.recovery_until.load(Ordering::Relaxed);
        if entry.is_sharing() && !self.is_down.load(Ordering::Relaxed) && !is_recovering {
            entry.leave_share(&share_of(&terms, self.nodes.load(Ordering::Relaxed)), now);
        }
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let body = entry.request(
            number,
            now,
            &terms,
            self.timing(),
            gives_back || is_recovering,
        )?;
        let sender = Sender {
            node: self.node.load(Ordering::Relaxed),
            lease_ttl_ns: self.config.lease_ttl_ns,
            starts_empty: self.config.starts_empty,
            prefix_len: self.config.prefix.len(),
            now_ns: (!self.clock.is_real_time()).then_some(now),
        };
        self.remote_calls.fetch_add(1, Ordering::Relaxed);
        Some(Request {
            fingerprint,
            number,
            key: [&self.config.prefix[..], &entry.key].concat(),
            short: body.encode_short(&terms),
            body: body.encode(sender, &terms),
        })
    }

    /// Applies the script's reply to a request.
    pub(crate) fn complete(&self, request: &Request, numbers: &[i64]) {
        let Some(reply) = Reply::decode(numbers) else {
            self.give_up(request, 0);
            return;
        };
        let _gate = fork::gate();
        let now = self.clock.now_ns();
        self.replied_at.store(now, Ordering::Relaxed);
        if reply.is_taken_over {
            self.note_taken_over(request);
        }
        let mut shard = self.shard(request.fingerprint);
        let shard = &mut *shard;
        let Some(entry) = shard.entries.get_mut(&request.fingerprint) else {
            return;
        };
        if !entry.expects(&reply) {
            self.give_up_locked(request, 0, now, shard);
            return;
        }
        let (terms, stats) = (entry.terms(&shard.terms), &mut shard.stats);
        let is_settled = entry.apply(request.number, &reply, now, &terms, self.timing(), stats);
        let is_closed = self.is_closed.load(Ordering::SeqCst);
        if is_settled || !is_closed || entry.held(now) > 0 {
            self.schedule_check(entry, request.fingerprint, now);
        }
        // A debt that does not fit yet is reported again by the scheduled check, not at once.
        if entry.has_waiting() || entry.has_unreported() && is_settled {
            self.enqueue(entry, request.fingerprint, true);
        }
    }

    /// Gives a request up, whose outcome is unknown, and decides its calls without Redis. The key sends no
    /// request for `pause_ns`.
    pub(crate) fn give_up(&self, request: &Request, pause_ns: u64) {
        let _gate = fork::gate();
        let now = self.clock.now_ns();
        self.give_up_locked(request, pause_ns, now, &mut self.shard(request.fingerprint));
    }

    fn give_up_locked(&self, request: &Request, pause_ns: u64, now: u64, shard: &mut EntryShard) {
        self.redis_errors.fetch_add(1, Ordering::Relaxed);
        let Some(entry) = shard.entries.get_mut(&request.fingerprint) else {
            return;
        };
        let calls = entry.fail(request.number, now.saturating_add(pause_ns));
        let terms = entry.terms(&shard.terms);
        self.decide_calls(calls, entry, now, &terms, &mut shard.stats);
        // A closing limiter sends everything once: tokens that a failing Redis does not take back expire
        // with their lease.
        if !self.is_closed.load(Ordering::SeqCst) {
            self.schedule_check(entry, request.fingerprint, now);
        }
    }

    /// Schedules a check of the key: in time to give back idle tokens, to renew the lease of others, and to
    /// report debts of a key that gets no calls any more.
    fn schedule_check(&self, entry: &mut Entry, fingerprint: u64, now: u64) {
        let is_needed = entry.held(now) > 0 || entry.has_unreported();
        if !is_needed || entry.is_check_scheduled {
            return;
        }
        entry.is_check_scheduled = true;
        // Often enough that one comes in the last quarter of a lease.
        let due = now + self.config.lease_ttl_ns / 4;
        self.queue.lock().lease_checks.push_back((due, fingerprint));
    }

    /// Decides all calls that wait for Redis, while Redis is down.
    pub(super) fn decide_waiting(&self) {
        let _gate = fork::gate();
        let queue = self.queue.lock();
        let queued: Vec<u64> = queue.first.iter().chain(&queue.last).copied().collect();
        drop(queue);
        let now = self.clock.now_ns();
        for fingerprint in queued {
            let mut shard = self.shard(fingerprint);
            let shard = &mut *shard;
            if let Some(entry) = shard.entries.get_mut(&fingerprint) {
                let calls = entry.take_waiting();
                let terms = entry.terms(&shard.terms);
                self.decide_calls(calls, entry, now, &terms, &mut shard.stats);
            }
        }
    }

    /// Time until the next lease check.
    pub(super) fn next_lease_check(&self) -> Duration {
        let _gate = fork::gate();
        let due = self.queue.lock().lease_checks.front().map(|(due, _)| *due);
        due.map_or(Duration::MAX, |due| {
            Duration::from_nanos(due.saturating_sub(self.clock.now_ns()).max(1_000_000))
        })
    }

    /// Drops the parent's leases and requests, in a child after `fork()`.
    pub(super) fn reset_after_fork(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.ledger = Ledger::default();
            for entry in shard.entries.values_mut() {
                entry.forget_lease();
            }
        }
        *self.queue.lock() = Queue::default();
        *self.sync_thread.lock() = None;
        self.is_in_round.store(false, Ordering::Relaxed);
        self.node.store(random_node(), Ordering::Relaxed);
        self.fork_count.store(fork::count(), Ordering::Relaxed);
    }
}

/// A number that no other node is likely to have.
fn random_node() -> u64 {
    // Seeded by the system, and by the address and the time.
    let hash =
        foldhash::quality::RandomState::default().hash_one((std::process::id(), fork::count()));
    (hash >> 11).max(1)
}

#[cfg(test)]
mod tests {
    use super::{Queue, Turn};

    #[test]
    fn new_keys_and_leases_have_a_quarter_of_each_turn() {
        let mut queue = Queue {
            first: (100..110).collect(),
            last: (200..220).collect(),
            lease_checks: (0..5).map(|n| (n, 300 + n)).collect(),
            is_woken: false,
        };
        let turn = |first: std::ops::Range<u64>, last: std::ops::Range<u64>, checks: &[u64]| Turn {
            first: first.collect(),
            last: last.collect(),
            checks: checks.to_vec(),
        };

        assert_eq!(
            queue.take(8, 3, false),
            turn(100..104, 200..202, &[300, 301])
        );
        assert_eq!(
            queue.take(12, 3, false),
            turn(104..110, 202..206, &[302, 303])
        );
        assert_eq!(queue.take(100, 3, false), turn(0..0, 206..220, &[]));
        assert_eq!(queue.take(8, 3, false), Turn::default());
        assert!(!queue.is_empty());
        assert_eq!(queue.take(8, 3, true), turn(0..0, 0..0, &[304]));
        assert!(queue.is_empty());
    }
}
