//! The thread that exchanges requests and replies with Redis, and detects when Redis is down.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex as StdMutex, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::shared::connections::Connections;
use crate::shared::endpoint::{Failure, RedisEndpoint};
use crate::shared::fork;
use crate::shared::health::Health;
use crate::shared::state::SyncState;

/// Most requests in one pipeline: both directions then fit into the buffers of a socket.
const MAX_BATCH: usize = 256;
/// After Redis came back, nodes report their debts and lease nothing, at least for this long and for the
/// time of a lease: by then every node has reported, and the leases of before have expired.
const MIN_RECOVERY_NS: u64 = 1_000_000_000;
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Backoff between attempts to reach Redis: at first, and at most (below the recovery time, so that all
/// nodes are back within it).
pub(super) const MIN_BACKOFF: Duration = Duration::from_millis(25);
const MAX_BACKOFF: Duration = Duration::from_millis(400);
/// The shortest time between two reports of the same kind of trouble.
const REPORT_AGAIN: Duration = Duration::from_secs(60);
/// The set of nodes; no key maps to it.
pub(super) const NODES_KEY: &[u8] = b"\0nodes";

/// The running thread.
#[derive(Debug)]
pub(crate) struct SyncThread {
    thread: JoinHandle<()>,
    /// Disconnects when the thread is about to end.
    end: Receiver<()>,
    /// The lock is the standard library's: threads sleep in it, see `fork`.
    rounds: Arc<StdMutex<SyncLoop>>,
}

impl SyncThread {
    /// None if the system has no thread left; the next request tries again.
    pub(crate) fn start(state: Arc<SyncState>, endpoint: &RedisEndpoint) -> Option<Self> {
        let (is_running, end) = channel();
        let rounds = Arc::new(StdMutex::new(SyncLoop::new(&state, endpoint)));
        let of_thread = rounds.clone();
        let run = move || {
            let _is_running = is_running;
            state.set_sync_thread(Some(thread::current()));
            loop {
                let pause = {
                    let mut rounds = of_thread.lock().unwrap_or_else(PoisonError::into_inner);
                    if rounds.is_over {
                        break;
                    }
                    rounds.supervise(SyncLoop::run_once)
                };
                if let Some(pause) = pause {
                    thread::park_timeout(pause);
                }
            }
            state.set_sync_thread(None);
        };
        let thread = thread::Builder::new()
            .name("hopgate-limiter".into())
            .spawn(run);
        thread.ok().map(|thread| Self {
            thread,
            end,
            rounds,
        })
    }

    /// The rounds, for a caller that sends its own request.
    pub(crate) fn rounds(&self) -> Arc<StdMutex<SyncLoop>> {
        self.rounds.clone()
    }

    /// Waits until the last requests are sent. A thread that takes longer than `timeout` ends by itself.
    pub(crate) fn join(self, timeout: Duration) {
        if self.end.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected) {
            let _ = self.thread.join();
        }
    }
}

/// The loop of the thread, one round at a time. Callers run rounds, too, while the thread sleeps.
pub(crate) struct SyncLoop {
    state: Arc<SyncState>,
    endpoint: RedisEndpoint,
    connections: Connections,
    pub(super) backoff: Duration,
    next_heartbeat: Instant,
    /// The pause before the next attempt to reach Redis is over.
    has_backed_off: bool,
    /// What the thread still has to report: that Redis is lost, and trouble with single keys. Callers report nothing.
    is_loss_unreported: bool,
    trouble: Option<String>,
    /// When each kind of trouble with single keys was last reported.
    reported: HashMap<String, Instant>,
    /// Set by the first round after `close`: nothing is sent from then on.
    pub(super) close_deadline: Option<Instant>,
    pub(super) is_over: bool,
}

impl fmt::Debug for SyncLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncLoop").finish_non_exhaustive()
    }
}

impl SyncLoop {
    pub(super) fn new(state: &Arc<SyncState>, endpoint: &RedisEndpoint) -> Self {
        Self {
            state: state.clone(),
            endpoint: endpoint.clone(),
            connections: Connections::new(endpoint.clone()),
            has_backed_off: false,
            is_loss_unreported: false,
            trouble: None,
            backoff: MIN_BACKOFF,
            next_heartbeat: Instant::now(),
            reported: HashMap::new(),
            close_deadline: None,
            is_over: false,
        }
    }

    /// A panic is a bug in this crate. The next round starts with new connections.
    fn supervise<T: Default>(&mut self, round: impl FnOnce(&mut Self) -> T) -> T {
        let result = catch_unwind(AssertUnwindSafe(|| round(self)));
        self.state.is_in_round.store(false, Ordering::Relaxed);
        result.unwrap_or_else(|_| {
            self.connections = Connections::new(self.endpoint.clone());
            self.mark_down();
            T::default()
        })
    }

    /// One round of the thread: sends everything that is queued, or tries to reach Redis. Returns how long the thread
    /// sleeps before the next one, unless it is woken.
    pub(super) fn run_once(&mut self) -> Option<Duration> {
        self.report();
        let is_closing = self.state.is_closed.load(Ordering::SeqCst);
        let is_down = self.state.is_down.load(Ordering::Relaxed);
        if is_closing && (is_down || self.is_past_close_deadline()) {
            self.is_over = true;
            self.state.decide_waiting();
            return None;
        }
        if is_down {
            self.state.decide_waiting();
            if !std::mem::replace(&mut self.has_backed_off, true) {
                return Some(self.next_backoff());
            }
            self.has_backed_off = false;
            if self.heartbeat() {
                self.mark_up();
            } else {
                self.state.redis_errors.fetch_add(1, Ordering::Relaxed);
            }
            return None;
        }
        if !is_closing && Instant::now() >= self.next_heartbeat && !self.heartbeat() {
            self.mark_down();
            return None;
        }
        if self.exchange_queued() {
            return None;
        }
        self.is_over = is_closing;
        if is_closing {
            return None;
        }
        let idle = self
            .next_heartbeat
            .saturating_duration_since(Instant::now());
        Some(idle.min(self.state.next_lease_check()))
    }

    /// Reports what the rounds since the last one of the thread have found.
    fn report(&mut self) {
        if std::mem::take(&mut self.is_loss_unreported) {
            let reason = {
                let _gate = fork::gate();
                self.state.last_error.lock().clone()
            };
            let reason = reason.as_deref().unwrap_or("no reply");
            self.state.report(Health::Down(reason));
        }
        let notice = {
            let _gate = fork::gate();
            self.state.notice.lock().take()
        };
        for trouble in [notice, self.trouble.take()].into_iter().flatten() {
            self.report_trouble(&trouble);
        }
    }

    /// Sends what is queued, and applies the replies. False if nothing is.
    fn exchange_queued(&mut self) -> bool {
        let state = self.state.clone();
        let requests = state.collect(MAX_BATCH);
        if requests.is_empty() {
            return false;
        }
        state.is_in_round.store(true, Ordering::Relaxed);
        let started = Instant::now();
        let (mut replies, mut without_reply, mut refused) = (0_usize, 0_usize, 0_usize);
        let pause_ns = u64::try_from(self.backoff.as_nanos()).unwrap_or(u64::MAX);
        self.connections
            .exchange(&requests, &mut |request, reply| match reply {
                Ok(numbers) => {
                    replies += 1;
                    state.complete(request, numbers);
                }
                Err(failure) => {
                    without_reply += usize::from(failure == Failure::NoReply);
                    refused += usize::from(failure == Failure::Refused);
                    state.give_up(request, pause_ns);
                }
            });
        self.keep_error();
        if refused > 0 {
            let _gate = fork::gate();
            let reason = state.last_error.lock().clone();
            self.trouble = Some(reason.unwrap_or_else(|| "no reason given".into()));
        }
        if replies > 0 {
            state.record_round_trip(started.elapsed());
        }
        // A key that Redis cannot serve concerns that key only, and so does one lost server of a cluster.
        if without_reply == requests.len() && !self.connections.is_any_server_reachable() {
            self.mark_down();
        }
        true
    }

    /// A round in the thread of a caller, which would otherwise wait until two threads have woken up. Does nothing if a
    /// connection has to be made: that takes longer than a caller may wait. True if the sync thread has to follow.
    fn help(&mut self) -> bool {
        let is_ready = self.connections.is_open()
            && !self.state.is_down.load(Ordering::Relaxed)
            && !self.state.is_closed.load(Ordering::Relaxed);
        if !is_ready {
            return true;
        }
        self.supervise(Self::exchange_queued);
        self.is_loss_unreported || self.trouble.is_some() || self.state.has_queued()
    }

    /// Whether the time for closing, which starts at the first call, is over.
    fn is_past_close_deadline(&mut self) -> bool {
        let timeout = self.state.reply_timeout();
        let deadline = self
            .close_deadline
            .get_or_insert_with(|| Instant::now() + timeout);
        Instant::now() >= *deadline
    }

    /// Reports that this node is alive. False if Redis cannot be reached.
    fn heartbeat(&mut self) -> bool {
        self.next_heartbeat = Instant::now() + HEARTBEAT;
        let key = [&self.state.config.prefix[..], NODES_KEY].concat();
        let node = self.state.node.load(Ordering::Relaxed);
        let counted = self.connections.count_nodes(&key, node);
        self.keep_error();
        let Ok(nodes) = counted else {
            return self.connections.is_any_server_reachable();
        };
        let now = self.state.clock.now_ns();
        let is_settled = !self.state.is_down.load(Ordering::Relaxed)
            && now >= self.state.recovery_until.load(Ordering::Relaxed);
        if is_settled {
            self.state.nodes.store(nodes.max(1), Ordering::Relaxed);
        } else {
            // Redis may have come back empty, before the other nodes have sent a heartbeat. Until they
            // have, shares are still those of all nodes.
            self.state.nodes.fetch_max(nodes, Ordering::Relaxed);
        }
        true
    }

    pub(super) fn mark_down(&mut self) {
        self.state.is_down.store(true, Ordering::SeqCst);
        self.state.redis_errors.fetch_add(1, Ordering::Relaxed);
        self.state.decide_waiting();
        self.has_backed_off = false;
        self.is_loss_unreported = true;
    }

    /// Reports trouble with single keys, the same kind once in a while. The first word is the kind.
    fn report_trouble(&mut self, reason: &str) {
        let kind = reason.split(' ').next().unwrap_or_default();
        let now = Instant::now();
        let is_due = |at: &Instant| now.duration_since(*at) >= REPORT_AGAIN;
        if self.reported.get(kind).is_none_or(is_due) {
            self.reported.insert(kind.to_owned(), now);
            self.state.report(Health::Partly(reason));
        }
    }

    /// Keeps the reason of a failure for the counters.
    fn keep_error(&mut self) {
        if let Some(error) = self.connections.take_error() {
            let _gate = fork::gate();
            *self.state.last_error.lock() = Some(error);
        }
    }

    pub(super) fn mark_up(&mut self) {
        self.backoff = MIN_BACKOFF;
        let recovery_ns = MIN_RECOVERY_NS.max(self.state.config.lease_ttl_ns);
        let until = self.state.clock.now_ns() + recovery_ns;
        self.state.recovery_until.store(until, Ordering::Relaxed);
        self.state.is_down.store(false, Ordering::SeqCst);
        self.state.report(Health::Up);
    }

    /// The pause before the next attempt: doubles each time; the jitter keeps nodes from returning together.
    fn next_backoff(&mut self) -> Duration {
        let backoff = self.backoff;
        self.backoff = (backoff * 2).min(MAX_BACKOFF);
        backoff.mul_f64(0.5 + 0.5 * f64::from(random() % 1024) / 1024.0)
    }
}

/// Sends what is queued, unless another thread does so now; that one, or the sync thread, then sends the rest.
pub(super) fn help(rounds: &StdMutex<SyncLoop>, state: &SyncState) {
    let must_wake = match rounds.try_lock() {
        Ok(mut rounds) => rounds.help(),
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().help(),
        Err(TryLockError::WouldBlock) => true,
    };
    if must_wake {
        let _gate = fork::gate();
        state.wake();
    }
}

/// A random number, another one at each call.
#[allow(clippy::cast_possible_truncation)] // any bits will do
fn random() -> u32 {
    use std::hash::BuildHasher;
    foldhash::quality::RandomState::default().hash_one((Instant::now(), fork::count())) as u32
}
