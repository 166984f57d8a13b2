//! The counters of shared limits, summed over the shards.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::health::Health;
use super::ledger::Ledger;
use super::state::SyncState;
use crate::rate::Rate;
use crate::stats::Stats;

impl SyncState {
    pub(super) fn stats(&self) -> Stats {
        let mut sum = Stats {
            remote_calls: self.remote_calls.load(Ordering::Relaxed),
            redis_errors: self.redis_errors.load(Ordering::Relaxed),
            last_error: self.last_error.lock().clone(),
            ..Stats::default()
        };
        let now = self.clock.now_ns();
        for shard in &self.shards {
            let shard = shard.lock();
            sum.add(&shard.stats);
            sum.keys += shard.entries.len() as u64;
            sum.held += shard
                .entries
                .values()
                .map(|entry| entry.held(now))
                .sum::<u64>();
        }
        let nodes = self.nodes.load(Ordering::Relaxed);
        let rates = self.shards[0].lock().terms.rates.clone();
        let bound = |rate: &Rate| {
            self.config
                .overshoot_bound(rate.burst(), nodes)
                .unwrap_or(0)
        };
        sum.max_overshoot = rates.iter().map(bound).max().unwrap_or(0);
        sum
    }

    pub(super) fn ledger(&self) -> Ledger {
        let mut sum = Ledger::default();
        let now = self.clock.now_ns();
        for shard in &self.shards {
            let shard = shard.lock();
            sum.add(&shard.ledger);
            for entry in shard.entries.values() {
                sum.add(&entry.ledger(now));
            }
        }
        sum
    }

    /// Keeps an upper estimate of the round trip: the longest of late, decaying slowly.
    pub(super) fn record_round_trip(&self, elapsed: Duration) {
        let ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let before = self.round_trip_ns.load(Ordering::Relaxed);
        let after = if ns > before {
            ns
        } else {
            before - (before - ns) / 16
        };
        self.round_trip_ns.store(after, Ordering::Relaxed);
    }

    /// Tells the listener, if there is one.
    pub(super) fn report(&self, health: Health<'_>) {
        if let Some(listener) = &self.on_health {
            listener.0(health);
        }
    }
}
