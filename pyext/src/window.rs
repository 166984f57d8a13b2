//! Strict sliding window in a fixed number of buckets: constant memory, and the limit is never exceeded.
//!
//! The window is cut into `precision` buckets of `q` nanoseconds. A bucket that overlaps the
//! window `(t − W, t]` counts in full, even if its oldest hits have left. So the limit holds in every
//! window, and every call that the exact log over `W + q` admits is admitted.

use crate::config::MAX_PRECISION;
use crate::error::Error;
use crate::log::refuse_burst;
use crate::meter::Meter;
use crate::rate::Rate;

/// A rate measured in buckets.
#[derive(Debug, Clone)]
pub(crate) struct SlidingWindow {
    limit: u64,
    window_ns: u64,
    /// `q`, the width of a bucket.
    bucket_ns: u64,
    /// Buckets that can overlap one window: `precision + 1`.
    ring_len: usize,
}

/// Units admitted per bucket. Bucket `i` covers `[i·q, (i+1)·q)` and lives at `counts[i % ring_len]`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Buckets {
    /// Lowest bucket not yet dropped.
    first: u64,
    /// Time of the latest hit, ns; its bucket is the highest. No call is admitted before this time: a slot
    /// taken in the future may have dropped buckets that count earlier.
    last_ns: u64,
    /// Sum of `counts`.
    total: u64,
    /// Empty until the first hit.
    counts: Box<[u64]>,
}

impl SlidingWindow {
    fn bucket(&self, ns: u64) -> u64 {
        ns / self.bucket_ns
    }

    /// The lowest bucket with a nanosecond inside `(now − W, now]`.
    fn oldest_live(&self, now: u64) -> u64 {
        // now − W + 1 is the oldest nanosecond that counts.
        self.bucket((now - now.min(self.window_ns - 1)).min(now))
    }

    fn slot(&self, bucket: u64) -> usize {
        usize::try_from(bucket % self.ring_len as u64).expect("below ring_len")
    }

    fn used(&self, buckets: &Buckets, now: u64) -> u64 {
        let oldest = self.oldest_live(now);
        if oldest <= buckets.first {
            return buckets.total;
        }
        let live = oldest..=self.bucket(buckets.last_ns);
        live.map(|bucket| buckets.counts[self.slot(bucket)]).sum()
    }

    /// When the bucket stops counting: its last nanosecond is one window old.
    fn leaves_at(&self, bucket: u64) -> Option<u64> {
        (bucket + 1)
            .checked_mul(self.bucket_ns)?
            .checked_add(self.window_ns - 1)
    }
}

impl Meter for SlidingWindow {
    type State = Buckets;

    fn new(rate: &Rate, precision: u32) -> Result<Self, Error> {
        refuse_burst(rate)?;
        if !(1..=MAX_PRECISION).contains(&precision) {
            return Err(Error::invalid(format!(
                "precision must be 1 to {MAX_PRECISION} buckets, got {precision}"
            )));
        }
        let window_ns = rate.period_ns();
        let bucket_ns = window_ns.div_ceil(u64::from(precision));
        let ring_len = (window_ns - 1).div_ceil(bucket_ns) + 1;
        Ok(Self {
            limit: rate.limit(),
            window_ns,
            bucket_ns,
            ring_len: usize::try_from(ring_len).expect("at most precision + 1"),
        })
    }

    fn settle(&self, buckets: &mut Buckets, now: u64) {
        let oldest = self.oldest_live(now);
        if oldest <= buckets.first {
            return;
        }
        if buckets.total > 0 {
            let end = oldest.min(self.bucket(buckets.last_ns) + 1);
            for bucket in buckets.first..end {
                buckets.total -= std::mem::take(&mut buckets.counts[self.slot(bucket)]);
            }
        }
        buckets.first = oldest;
    }

    fn admits(&self, buckets: &Buckets, now: u64, cost: u64) -> bool {
        cost <= self.remaining(buckets, now)
    }

    fn earliest(&self, buckets: &Buckets, now: u64, cost: u64) -> Option<u64> {
        if cost > self.limit {
            return None;
        }
        let from = buckets.last_ns.max(now);
        let used = self.used(buckets, from);
        let Some(mut excess) = (used + cost).checked_sub(self.limit).filter(|e| *e > 0) else {
            return Some(from);
        };
        for bucket in self.oldest_live(from).max(buckets.first)..=self.bucket(buckets.last_ns) {
            excess = excess.saturating_sub(buckets.counts[self.slot(bucket)]);
            if excess == 0 {
                return self.leaves_at(bucket);
            }
        }
        unreachable!("the live buckets weigh at least the excess")
    }

    fn spend(&self, buckets: &mut Buckets, at: u64, cost: u64) {
        self.settle(buckets, at);
        if buckets.counts.is_empty() {
            buckets.counts = vec![0; self.ring_len].into_boxed_slice();
        }
        buckets.last_ns = at;
        buckets.total += cost;
        buckets.counts[self.slot(self.bucket(at))] += cost;
    }

    /// The lowest bucket, and the time of the latest hit.
    fn mark(&self, buckets: &Buckets) -> u128 {
        u128::from(buckets.first) << 64 | u128::from(buckets.last_ns)
    }

    fn undo(&self, buckets: &mut Buckets, at: u64, cost: u64, mark: u128) {
        let bucket = self.bucket(at);
        if buckets.counts.is_empty() || bucket < buckets.first {
            return;
        }
        let slot = self.slot(bucket);
        let credit = buckets.counts[slot].min(cost);
        buckets.counts[slot] -= credit;
        buckets.total -= credit;
        // If this was the latest hit, and no bucket was dropped for it, the hit before it is the latest
        // again.
        #[allow(clippy::cast_possible_truncation)] // takes the halves apart again
        let (first, last_ns) = ((mark >> 64) as u64, mark as u64);
        let is_alone = buckets.counts[slot] == 0 || self.bucket(last_ns) == bucket;
        if buckets.last_ns == at && buckets.first == first && is_alone {
            buckets.last_ns = last_ns;
        }
    }

    /// The oldest hits are given back first: the remaining ones are younger, and block longer.
    fn most_heap_bytes(&self) -> u64 {
        (self.ring_len * size_of::<u64>()) as u64
    }

    fn refund(&self, buckets: &mut Buckets, now: u64, mut cost: u64) {
        self.settle(buckets, now);
        // With a slot reserved, buckets in use may be dropped already; the slot must not be refunded instead.
        if buckets.total == 0 || buckets.last_ns > now {
            return;
        }
        for bucket in buckets.first..=self.bucket(buckets.last_ns) {
            let slot = self.slot(bucket);
            let credit = buckets.counts[slot].min(cost);
            buckets.counts[slot] -= credit;
            buckets.total -= credit;
            cost -= credit;
        }
    }

    fn remaining(&self, buckets: &Buckets, now: u64) -> u64 {
        if buckets.last_ns > now {
            return 0;
        }
        self.limit.saturating_sub(self.used(buckets, now))
    }

    fn reset_after(&self, buckets: &Buckets, now: u64) -> u64 {
        if self.is_idle(buckets, now) {
            return 0;
        }
        let leaves_at = self.leaves_at(self.bucket(buckets.last_ns));
        leaves_at.unwrap_or(u64::MAX).saturating_sub(now)
    }

    fn is_idle(&self, buckets: &Buckets, now: u64) -> bool {
        let is_empty = buckets.total == 0 && buckets.last_ns <= now;
        is_empty || self.bucket(buckets.last_ns) < self.oldest_live(now)
    }

    fn shares_states_with(&self, other: &Self) -> bool {
        (self.window_ns, self.bucket_ns) == (other.window_ns, other.bucket_ns)
    }

    /// Each old bucket is added to the new bucket of its latest possible hit.
    fn adopt(&self, buckets: &mut Buckets, now: u64, old: &Self) {
        old.settle(buckets, now);
        let before = std::mem::take(buckets);
        if before.total > 0 {
            for bucket in before.first..=old.bucket(before.last_ns) {
                let cost = before.counts[old.slot(bucket)];
                let latest = (bucket + 1).saturating_mul(old.bucket_ns) - 1;
                if cost > 0 {
                    self.spend(buckets, latest.min(before.last_ns), cost);
                }
            }
        }
        buckets.last_ns = before.last_ns;
        self.settle(buckets, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_holds_every_bucket_of_a_window() {
        for window_ns in 1..200 {
            for precision in 1..40 {
                let rate = Rate::new(1, window_ns, None, "r").unwrap();
                let meter = SlidingWindow::new(&rate, precision).unwrap();
                assert!(meter.ring_len <= precision as usize + 1);
                for now in 0..400 {
                    let live = meter.bucket(now) - meter.oldest_live(now) + 1;
                    assert!(
                        live <= meter.ring_len as u64,
                        "W={window_ns} m={precision} t={now}"
                    );
                }
            }
        }
    }

    #[test]
    fn end_of_time_does_not_wrap() {
        let meter = SlidingWindow::new(&"2/s".parse().unwrap(), 16).unwrap();
        let mut buckets = Buckets::default();
        meter.spend(&mut buckets, u64::MAX, 2);
        assert_eq!(meter.remaining(&buckets, u64::MAX), 0);
        assert_eq!(meter.earliest(&buckets, u64::MAX, 1), None);
    }
}
