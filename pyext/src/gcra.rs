//! Token bucket by the Generic Cell Rate Algorithm (ITU-T I.371, virtual scheduling form).
//!
//! The bucket is not counted. One number per key says when it will be full again, the *theoretical
//! arrival time* (TAT): a unit costs `T`, the time one token takes to flow in, and a call is admitted
//! while the TAT stays within `burst · T` of now. So there are no fractions to lose and nothing to refill.
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
    /// `T`: ticks in which one token flows in, rounded up.
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

/// Nanoseconds until `ticks` have passed: rounded up, so that waiting that long is enough.
fn ns_ceil(ticks: u128) -> Option<u64> {
    u64::try_from(ticks.div_ceil(1 << TICK_BITS)).ok()
}

impl Meter for Gcra {
    /// The TAT in ticks. Anything up to now means "full".
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

    /// Only the last hit can be taken back. Those behind it have been told their times by what it
    /// added; giving it back under them would let a newcomer into a slot that is taken.
    fn undo(&self, tat: &mut u128, at: u64, cost: u64, mark: u128) {
        let mut after = mark;
        self.spend(&mut after, at, cost);
        if *tat == after {
            *tat = mark;
        }
    }

    fn refund(&self, tat: &mut u128, now: u64, cost: u64) {
        let now = ticks(now);
        // While slots are reserved, giving back would let a newcomer into one of them.
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
        true // a TAT is a time, whatever the rate
    }

    fn clamp(&self, tat: &mut u128, now: u64) {
        *tat = (*tat).min(ticks(now) + self.capacity);
    }

    fn adopt(&self, tat: &mut u128, now: u64, old: &Self) {
        let owed = tat.saturating_sub(ticks(now));
        if owed > old.capacity {
            // Slots are reserved; when the last one comes, the bucket is empty.
            *tat = *tat - old.capacity + self.capacity;
            return;
        }
        // The debt is carried over in tokens, not in time: a key that had spent 5 of 10 has spent 5
        // of whatever the new burst is.
        let (whole, part) = (owed / old.interval, owed % old.interval);
        let whole = whole.min(u128::from(self.burst));
        let part = match part.checked_mul(self.interval) {
            Some(product) => product.div_ceil(old.interval),
            // Intervals of decades; a whole token is a safe answer for a part of one.
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
    fn interval_is_rounded_up_and_hardly_at_all() {
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
    fn adopting_keeps_what_was_spent() {
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
