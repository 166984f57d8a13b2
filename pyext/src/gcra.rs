//! Token bucket by the Generic Cell Rate Algorithm (ITU-T I.371, virtual scheduling form).
//!
//! No tokens are counted. One number per key is the time at which the bucket is full again, the *theoretical
//! arrival time* (TAT): a unit costs `T`, the time in which one token is refilled, and a call is admitted
//! while the TAT stays within `burst · T` of now. So no fraction is lost and no refill is computed.
//!
//! Time is counted in ticks of 2⁻³² ns held in 128 bits. Rounding `T` up to a whole tick therefore
//! slows a rate of one million per second by less than 10⁻¹² of itself, never speeds it up, and no sum
//! can wrap: `now < 2⁹⁶` and `burst · T < 2⁹⁶`, both guaranteed by [`Rate::new`].

use crate::error::Error;
use crate::meter::Meter;
use crate::rate::Rate;

/// log₂ of the ticks in a nanosecond.
const TICK_BITS: u32 = 32;

/// A rate in ticks.
#[derive(Debug, Clone)]
pub(crate) struct Gcra {
    /// `T`: ticks in which one token is refilled, rounded up.
    interval: u128,
    /// Most tokens in the bucket.
    burst: u64,
    /// `burst · T`: ticks in which an empty bucket fills up.
    capacity: u128,
}

impl Gcra {
    /// The state of a bucket that is empty at `now`.
    pub(crate) fn empty_at(&self, now: u64) -> u128 {
        ticks(now) + self.capacity
    }

    /// Most tokens in the bucket.
    pub(crate) fn burst(&self) -> u64 {
        self.burst
    }
}

/// Ticks at `ns` nanoseconds.
const fn ticks(ns: u64) -> u128 {
    (ns as u128) << TICK_BITS
}

/// Nanoseconds until `ticks` have passed: rounded up, so that the wait is sufficient.
fn ns_ceil(ticks: u128) -> Option<u64> {
    u64::try_from(ticks.div_ceil(1 << TICK_BITS)).ok()
}

impl Meter for Gcra {
    /// The TAT in ticks. Any time up to now means "full".
    type State = u128;

    fn new(rate: &Rate, _precision: u32) -> Result<Self, Error> {
        let interval = ticks(rate.period_ns()).div_ceil(u128::from(rate.limit()));
        Ok(Self {
            interval,
            burst: rate.burst(),
            capacity: interval * u128::from(rate.burst()),
        })
    }

    #[inline]
    fn admits(&self, &tat: &u128, now: u64, cost: u64) -> bool {
        let now = ticks(now);
        cost <= self.burst && tat.max(now) + self.interval * u128::from(cost) <= now + self.capacity
    }

    fn earliest(&self, &tat: &u128, now: u64, cost: u64) -> Option<u64> {
        if cost > self.burst {
            return None;
        }
        let full_at = tat.max(ticks(now)) + self.interval * u128::from(cost);
        ns_ceil(full_at.saturating_sub(self.capacity)).map(|slot| slot.max(now))
    }

    #[inline]
    fn spend(&self, tat: &mut u128, at: u64, cost: u64) {
        *tat = (*tat).max(ticks(at)) + self.interval * u128::from(cost);
    }

    fn mark(&self, &tat: &u128) -> u128 {
        tat
    }

    fn keep_promise(&self, tat: &mut u128, mark: u128) {
        *tat = (*tat).max(mark);
    }

    /// Only the last hit can be taken back. The times of later slots include its cost; giving it back would
    /// admit a new call into one of them.
    fn undo(&self, tat: &mut u128, at: u64, cost: u64, mark: u128) {
        let mut after = mark;
        self.spend(&mut after, at, cost);
        if *tat == after {
            *tat = mark;
        }
    }

    fn most_heap_bytes(&self) -> u64 {
        0
    }

    fn refund(&self, tat: &mut u128, now: u64, cost: u64) {
        let now = ticks(now);
        // While slots are reserved, a refund would admit a new call into one of them.
        let is_reserved = *tat > now + self.capacity;
        if *tat > now && !is_reserved {
            let credit = self.interval * u128::from(cost.min(self.burst));
            *tat = tat.saturating_sub(credit).max(now);
        }
    }

    fn remaining(&self, &tat: &u128, now: u64) -> u64 {
        let owed = tat.saturating_sub(ticks(now));
        let free = self.capacity.saturating_sub(owed) / self.interval;
        u64::try_from(free).expect("at most the burst")
    }

    fn reset_after(&self, &tat: &u128, now: u64) -> u64 {
        ns_ceil(tat.saturating_sub(ticks(now))).unwrap_or(u64::MAX)
    }

    fn is_idle(&self, &tat: &u128, now: u64) -> bool {
        tat <= ticks(now)
    }

    fn shares_states_with(&self, _other: &Self) -> bool {
        true // a TAT is a time, under any rate
    }

    fn clamp(&self, tat: &mut u128, now: u64) {
        *tat = (*tat).min(ticks(now) + self.capacity);
    }

    fn adopt(&self, tat: &mut u128, now: u64, old: &Self) {
        let owed = tat.saturating_sub(ticks(now));
        if owed > old.capacity {
            // Slots are reserved; at the last one the bucket is empty.
            *tat = *tat - old.capacity + self.capacity;
            return;
        }
        // The debt is carried over in tokens, not in time: a key that had spent 5 of 10 has spent 5 of the
        // new burst.
        let (whole, part) = (owed / old.interval, owed % old.interval);
        let whole = whole.min(u128::from(self.burst));
        let part = match part.checked_mul(self.interval) {
            Some(product) => product.div_ceil(old.interval),
            // Intervals of decades: a part of a token counts as a whole one.
            None => self.interval,
        };
        *tat = ticks(now) + (whole * self.interval + part).min(self.capacity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(spec: &str) -> Gcra {
        Gcra::new(&spec.parse().unwrap(), 0).unwrap()
    }

    #[test]
    fn interval_is_rounded_up_by_one_tick() {
        for (limit, period) in [
            (3_u64, 1_u64),
            (1_000_003, 1_000_000_000),
            (4_000_000_000_001, 1_000_000_000),
        ] {
            let rate = Rate::new(limit, period, None, "r").unwrap();
            let gcra = Gcra::new(&rate, 0).unwrap();
            let exact_times_limit = ticks(period);
            let ours_times_limit = gcra.interval * u128::from(limit);

            assert!(ours_times_limit >= exact_times_limit);
            assert!((ours_times_limit - exact_times_limit) * 1_000_000 < exact_times_limit);
        }
    }

    #[test]
    fn extremes_do_not_wrap() {
        let now = u64::MAX;
        let biggest = i64::MAX as u64;
        for (limit, period, burst) in [
            (1, biggest, 1),
            (biggest, biggest, biggest),
            (1, 1, biggest),
        ] {
            let gcra = Gcra::new(&Rate::new(limit, period, Some(burst), "r").unwrap(), 0).unwrap();
            let mut tat = 0;
            assert!(gcra.admits(&tat, now, burst));
            gcra.spend(&mut tat, now, burst);
            assert_eq!(gcra.remaining(&tat, now), 0);
            assert!(!gcra.admits(&tat, now, 1));
            assert!(!gcra.admits(&tat, now, u64::MAX));
            assert_eq!(gcra.earliest(&tat, now, u64::MAX), None);
            gcra.refund(&mut tat, now, u64::MAX);
            assert_eq!(gcra.remaining(&tat, now), burst);
        }
    }

    #[test]
    fn adopting_keeps_spent_units() {
        let (slow, fast, tight) = (
            meter("1/s burst 10"),
            meter("10/s burst 10"),
            meter("1/s burst 3"),
        );
        let mut tat = 0;
        slow.spend(&mut tat, 0, 5);
        fast.adopt(&mut tat, 0, &slow);
        assert_eq!(fast.remaining(&tat, 0), 5);
        tight.adopt(&mut tat, 0, &fast);
        assert_eq!(tight.remaining(&tat, 0), 0);
        assert_eq!(tight.reset_after(&tat, 0), 3_000_000_000);
    }
}
