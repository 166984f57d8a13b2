//! Connections on which no request is under way, and the end of those that stay so for too long.
//!
//! A timer for each request, as hyper has it, costs as much as the rest of the front's own work on a redirect. Here a
//! request only notes when it was answered, and one task for each thread looks at all connections in turn.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use foldhash::quality::RandomState;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::clock::Clock;

/// How much longer than the limit a connection may be idle: a share of it.
const LATE: u32 = 10;

/// Whether a connection is in use, and since when it is not.
#[derive(Debug)]
pub(crate) struct Activity {
    /// Requests and answers under way.
    under_way: AtomicU32,
    /// When the last of them ended, seconds on the clock, as bits.
    since: AtomicU64,
    clock: Clock,
}

// One thread serves a connection and looks at its times; the atomics only make them shareable.
impl Activity {
    /// A connection that has just been accepted: it waits for its first request.
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        let since = AtomicU64::new(clock.now().to_bits());
        Arc::new(Self {
            under_way: AtomicU32::new(0),
            since,
            clock,
        })
    }

    /// Notes an answer that was given at once, at `now`.
    pub(crate) fn answered(&self, now: f64) {
        self.since.store(now.to_bits(), Ordering::Relaxed);
    }

    /// Something is under way until the returned value is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Whether nothing has been under way for longer than `limit_s`.
    fn is_idle(&self, now: f64, limit_s: f64) -> bool {
        let since = f64::from_bits(self.since.load(Ordering::Relaxed));
        self.under_way.load(Ordering::Relaxed) == 0 && now - since >= limit_s
    }
}

/// A request or an answer under way.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.answered(self.0.clock.now());
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections of one thread.
#[derive(Debug, Default)]
pub(crate) struct OpenConnections {
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    next: u64,
    open: HashMap<u64, (Arc<Activity>, AbortHandle), RandomState>,
}

impl OpenConnections {
    /// Names a connection that is about to be served.
    pub(crate) fn name(&self) -> u64 {
        let mut connections = self.connections.lock();
        connections.next += 1;
        connections.next
    }

    /// Watches the connection `name`, which `task` serves. Before the task runs, or it is watched for ever.
    pub(crate) fn watch(&self, name: u64, activity: Arc<Activity>, task: AbortHandle) {
        let mut connections = self.connections.lock();
        connections.open.insert(name, (activity, task));
    }

    /// Forgets the connection `name`, which has ended.
    pub(crate) fn forget(&self, name: u64) {
        let ended = self.connections.lock().open.remove(&name);
        drop(ended);
    }

    /// Closes connections that are idle for `limit`, or up to a tenth longer. Never returns.
    pub(crate) async fn close_idle(&self, clock: Clock, limit: Duration) {
        let mut ticks = tokio::time::interval(limit / LATE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = clock.now();
            let connections = self.connections.lock();
            let open = connections.open.values();
            for (_, task) in open.filter(|(one, _)| one.is_idle(now, limit.as_secs_f64())) {
                // Drops the connection, which closes its socket; hyper does no more.
                task.abort();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_is_idle_once_nothing_is_under_way() {
        let activity = Activity::new(Clock::new(0.0));
        activity.answered(100.0);

        assert!(!activity.is_idle(104.9, 5.0));
        assert!(activity.is_idle(105.0, 5.0));
        let (first, second) = (activity.begin(), activity.begin());
        assert!(!activity.is_idle(200.0, 5.0));
        drop(first);
        assert!(!activity.is_idle(f64::MAX, 5.0));
        drop(second);
        let now = activity.clock.now();
        assert!(!activity.is_idle(now, 5.0));
        assert!(activity.is_idle(now + 5.0, 5.0));
    }

    #[test]
    fn idle_connections_are_closed_and_others_are_not() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let clock = Clock::new(0.0);
            let all = Arc::new(OpenConnections::default());
            let [idle, used] = [(), ()].map(|()| {
                let activity = Activity::new(clock);
                let task = tokio::spawn(std::future::pending::<()>());
                all.watch(all.name(), Arc::clone(&activity), task.abort_handle());
                (activity, task)
            });
            let busy = used.0.begin();
            let limit = Duration::from_millis(20);

            tokio::spawn(async move { all.close_idle(clock, limit).await });
            assert!(idle.1.await.unwrap_err().is_cancelled());

            assert!(!used.1.is_finished());
            drop(busy);
        });
    }
}
