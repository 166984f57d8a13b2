//! The thread that carries requests to Redis and replies back, and notices when Redis is away.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::shared::fork;
use crate::shared::inner::Inner;
use crate::shared::link::{Lines, Link, Lost};

/// Most requests in one pipeline: both directions then fit into the buffers of a socket.
const MAX_BATCH: usize = 256;
/// After Redis came back, leases start again only when every node has had time to say what it owes. At
/// least this long, and as long as a lease: one that is only spent is not spoken of until it ends.
const PROBATION_NS: u64 = 1_000_000_000;
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Pause before Redis is tried again: at first, and at most (below the probation, so that all nodes are
/// back within it).
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);
/// The set of nodes; no key looks like it.
const NODES_KEY: &[u8] = b"\0nodes";

/// The running thread.
#[derive(Debug)]
pub(crate) struct Courier {
    thread: JoinHandle<()>,
    /// Hangs up when the thread is about to end.
    end: Receiver<()>,
}

impl Courier {
    /// None if the system has no thread left; then somebody will try again.
    pub(crate) fn start(inner: Arc<Inner>, link: Link) -> Option<Self> {
        let (is_running, end) = channel();
        let run = move || {
            let _is_running = is_running;
            inner.carried_by(Some(thread::current()));
            let mut rounds = Rounds::new(&inner, &link);
            while !rounds.is_over {
                // A panic is a bug in this crate. The next round starts with new connections.
                if catch_unwind(AssertUnwindSafe(|| rounds.next())).is_err() {
                    rounds.lines = link.open();
                    rounds.fall();
                }
            }
            inner.carried_by(None);
        };
        let thread = thread::Builder::new()
            .name("hopgate-limiter".into())
            .spawn(run);
        thread.ok().map(|thread| Self { thread, end })
    }

    /// Waits until it has said what it had to say. If it is still at it after `patience`, it ends by itself.
    pub(crate) fn join(self, patience: Duration) {
        if self.end.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected) {
            let _ = self.thread.join();
        }
    }
}

struct Rounds<'a> {
    inner: &'a Inner,
    lines: Lines,
    pause: Duration,
    next_heartbeat: Instant,
    /// Known once it is told to close: nothing is sent from then on.
    last_call: Option<Instant>,
    is_over: bool,
}

impl<'a> Rounds<'a> {
    fn new(inner: &'a Inner, link: &Link) -> Self {
        Self {
            inner,
            lines: link.open(),
            pause: FIRST_PAUSE,
            next_heartbeat: Instant::now(),
            last_call: None,
            is_over: false,
        }
    }

    /// One round: everything that waits is sent, or Redis is tried, or there is nothing to do.
    fn next(&mut self) {
        let is_closing = self.inner.is_closed.load(Ordering::SeqCst);
        let is_down = self.inner.is_down.load(Ordering::Relaxed);
        if is_closing && (is_down || self.is_late()) {
            self.is_over = true;
            self.inner.refuse_waiting();
            return;
        }
        if is_down {
            self.inner.refuse_waiting();
            thread::park_timeout(self.jittered_pause());
            if self.beat() {
                self.rise();
            }
            return;
        }
        if !is_closing && Instant::now() >= self.next_heartbeat && !self.beat() {
            self.fall();
            return;
        }
        let parcels = self.inner.collect(MAX_BATCH);
        if parcels.is_empty() {
            self.is_over = is_closing;
            if !is_closing {
                let idle = self
                    .next_heartbeat
                    .saturating_duration_since(Instant::now());
                thread::park_timeout(idle.min(self.inner.next_lease_due()));
            }
            return;
        }
        let started = Instant::now();
        let (mut delivered, mut silent) = (0_usize, 0_usize);
        let pause_ns = u64::try_from(self.pause.as_nanos()).unwrap_or(u64::MAX);
        let inner = self.inner;
        self.lines
            .exchange(&parcels, &mut |parcel, reply| match reply {
                Ok(numbers) => {
                    delivered += 1;
                    inner.deliver(parcel, numbers);
                }
                Err(why) => {
                    silent += usize::from(why == Lost::Silent);
                    inner.give_up(parcel, pause_ns);
                }
            });
        if delivered > 0 {
            self.inner.note_round_trip(started.elapsed());
        }
        // A key that Redis cannot serve is that key's trouble, and so is a node of a cluster that is gone.
        if silent == parcels.len() && !self.lines.is_anybody_there() {
            self.fall();
        }
    }

    /// Whether the time for closing is over, which starts at the first call.
    fn is_late(&mut self) -> bool {
        let patience = self.inner.patience();
        let last_call = self
            .last_call
            .get_or_insert_with(|| Instant::now() + patience);
        Instant::now() >= *last_call
    }

    /// Says that this node lives. False if Redis did not hear it.
    fn beat(&mut self) -> bool {
        self.next_heartbeat = Instant::now() + HEARTBEAT;
        let key = [&self.inner.config.prefix[..], NODES_KEY].concat();
        let node = self.inner.node.load(Ordering::Relaxed);
        let Ok(nodes) = self.lines.count_nodes(&key, node) else {
            return self.lines.is_anybody_there();
        };
        let now = self.inner.clock.now_ns();
        let is_settled = !self.inner.is_down.load(Ordering::Relaxed)
            && now >= self.inner.probation_until.load(Ordering::Relaxed);
        if is_settled {
            self.inner.nodes.store(nodes.max(1), Ordering::Relaxed);
        } else {
            // Redis may have come back empty, with the others still to say that they live. Shares that
            // are in use until then are shares of all of them.
            self.inner.nodes.fetch_max(nodes, Ordering::Relaxed);
        }
        true
    }

    fn fall(&mut self) {
        self.inner.is_down.store(true, Ordering::SeqCst);
        self.inner.redis_errors.fetch_add(1, Ordering::Relaxed);
        self.inner.refuse_waiting();
    }

    fn rise(&mut self) {
        self.pause = FIRST_PAUSE;
        let probation_ns = PROBATION_NS.max(self.inner.config.lease_ttl_ns);
        let until = self.inner.clock.now_ns() + probation_ns;
        self.inner.probation_until.store(until, Ordering::Relaxed);
        self.inner.is_down.store(false, Ordering::SeqCst);
    }

    /// Doubles from one attempt to the next; a random part of it keeps nodes from coming back together.
    fn jittered_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause.mul_f64(0.5 + 0.5 * f64::from(random() % 1024) / 1024.0)
    }
}

/// A number nobody can foresee.
#[allow(clippy::cast_possible_truncation)] // any bits will do
fn random() -> u32 {
    use std::hash::BuildHasher;
    foldhash::quality::RandomState::default().hash_one((Instant::now(), fork::count())) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::limiter::{Config, Key};
    use crate::rate::Rate;
    use crate::shared::config::{Cold, Mode, OnError, Outstanding, SyncConfig};
    use crate::shared::{Asker, Shared};

    /// A limiter whose Redis nobody has started.
    fn shared(lease_ttl_ns: u64) -> Shared {
        let sync = SyncConfig {
            url: "redis://127.0.0.1:1".into(),
            prefix: b"rl:".into(),
            mode: Mode::Strict,
            max_outstanding: Outstanding::Part(0.25),
            lease_ttl_ns,
            max_lease: None,
            cold: Cold::Sync,
            on_error: OnError::Deny,
            timeout_ns: 50_000_000,
            starts_empty: false,
        };
        let config = Config {
            clock: Clock::manual(ManualClock::new(0)),
            ..Config::default()
        };
        let rate = Rate::new(10, 1_000_000_000, None, "r").expect("a rate");
        Shared::new(&[rate], &config, &sync).expect("a configuration")
    }

    #[test]
    fn whoever_closes_does_not_wait_for_a_redis_that_is_away() {
        let shared = shared(500_000_000);
        let mut rounds = Rounds::new(&shared.inner, &shared.link);
        rounds.fall();
        shared.close();
        rounds.next();
        assert!(rounds.is_over);
        assert_eq!(rounds.pause, FIRST_PAUSE, "it has slept");
        assert!(shared.inner.is_down.load(Ordering::Relaxed));
    }

    #[test]
    fn whoever_closes_stops_in_time_and_leaves_nobody_waiting() {
        let shared = shared(500_000_000);
        let pending = shared.hit(1, Key::Int(1), 0, 1, Asker::Thread);
        shared.close();
        let mut rounds = Rounds::new(&shared.inner, &shared.link);
        rounds.last_call = Some(Instant::now());
        rounds.next();
        assert!(rounds.is_over);
        assert_eq!(shared.inner.remote_calls.load(Ordering::Relaxed), 0);
        let decision = pending.expect_err("asks Redis").slot.take(Duration::ZERO);
        assert!(!decision.expect("an answer").allowed);
    }

    #[test]
    fn leases_start_again_when_none_of_before_can_be_left() {
        for (lease_ttl_ns, probation_ns) in [
            (500_000_000, 1_000_000_000),
            (60_000_000_000, 60_000_000_000),
        ] {
            let shared = shared(lease_ttl_ns);
            let mut rounds = Rounds::new(&shared.inner, &shared.link);
            rounds.fall();
            rounds.rise();
            let until = shared.inner.probation_until.load(Ordering::Relaxed);
            assert_eq!(until, probation_ns);
        }
    }
}
