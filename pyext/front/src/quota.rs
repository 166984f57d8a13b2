//! The visits of links with `max_visits` that this process has leased and not spent yet.
//!
//! The control plane leases them, one lease of a link at a time, and returns what is not used; both sides spend
//! from here. The store has debited every visit in here, so none is spent twice by two processes.

use std::collections::HashMap;

use foldhash::quality::RandomState;
use parking_lot::Mutex;

/// The visits `left` of the leases of a link, made for `version` of it or a later one.
#[derive(Debug, Clone, Copy)]
struct Lease {
    version: u64,
    left: u64,
    used_at: f64,
    /// Until then the quota is known to be exhausted.
    exhausted_until: f64,
}

impl Lease {
    fn is_idle(&self, used_before: f64, now: f64) -> bool {
        // What is left goes back at once; that nothing is, is kept in mind.
        self.used_at <= used_before && (self.left > 0 || self.exhausted_until <= now)
    }
}

/// What became of a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// It may take place.
    Yes,
    /// No visit is left.
    Exhausted,
    /// A lease for this version is needed first.
    NeedsLease(u64),
}

/// Leases by slug. Written by all threads; a lock is held for one visit or one change.
///
/// Times are seconds on the clock of the calls.
#[derive(Debug, Default)]
pub struct Leases {
    by_slug: Mutex<HashMap<Box<[u8]>, Lease, RandomState>>,
}

impl Leases {
    /// Spends a visit of `slug`, which is at `version` or later; if not `spend`, only looks for one.
    ///
    /// A lease of an earlier version is not spent: the limit may have changed since.
    pub fn take(&self, slug: &[u8], version: u64, spend: bool, now: f64) -> Spent {
        let mut leases = self.by_slug.lock();
        let Some(lease) = leases.get_mut(slug) else {
            return Spent::NeedsLease(version);
        };
        if lease.version < version {
            return Spent::NeedsLease(version);
        }
        if lease.left > 0 {
            lease.left -= u64::from(spend);
            lease.used_at = now;
            return Spent::Yes;
        }
        if now < lease.exhausted_until {
            return Spent::Exhausted;
        }
        Spent::NeedsLease(lease.version)
    }

    /// Adds `visits`, leased for `version`. False: a lease for a later version is held, and nothing was added.
    pub fn add(
        &self,
        slug: &[u8],
        version: u64,
        visits: u64,
        now: f64,
        exhausted_until: f64,
    ) -> bool {
        let mut leases = self.by_slug.lock();
        let left = match leases.get(slug) {
            Some(held) if held.version > version => return false,
            Some(held) => held.left,
            None => 0,
        };
        let lease = Lease {
            version,
            left: left + visits,
            used_at: now,
            exhausted_until,
        };
        leases.insert(slug.into(), lease);
        true
    }

    /// Drops a lease that was made before `version`, and returns what was left of it.
    pub fn drop_older(&self, slug: &[u8], version: u64) -> Option<u64> {
        let mut leases = self.by_slug.lock();
        if leases.get(slug)?.version >= version {
            return None;
        }
        leases.remove(slug).map(|lease| lease.left)
    }

    /// The slugs whose lease was last used at `used_before` or earlier, and that have visits left or may be asked for
    /// again at `now`.
    pub fn idle(&self, used_before: f64, now: f64) -> Vec<Box<[u8]>> {
        let leases = self.by_slug.lock();
        let idle = leases
            .iter()
            .filter(|(_, lease)| lease.is_idle(used_before, now));
        idle.map(|(slug, _)| slug.clone()).collect()
    }

    /// Drops the lease of `slug` if it is idle, and returns what was left of it.
    pub fn drop_idle(&self, slug: &[u8], used_before: f64, now: f64) -> Option<u64> {
        let mut leases = self.by_slug.lock();
        if !leases.get(slug)?.is_idle(used_before, now) {
            return None;
        }
        leases.remove(slug).map(|lease| lease.left)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn visits_are_spent_down_to_none() {
        let leases = Leases::default();
        assert_eq!(leases.take(b"aaa", 3, true, 0.0), Spent::NeedsLease(3));
        assert!(leases.add(b"aaa", 3, 2, 0.0, 0.0));

        assert_eq!(
            leases.take(b"aaa", 3, false, 0.0),
            Spent::Yes,
            "only looked for"
        );
        assert_eq!(leases.take(b"aaa", 2, true, 0.0), Spent::Yes);
        assert_eq!(leases.take(b"aaa", 3, true, 0.0), Spent::Yes);
        assert_eq!(leases.take(b"aaa", 2, true, 0.0), Spent::NeedsLease(3));
        assert_eq!(leases.take(b"aaa", 3, false, 0.0), Spent::NeedsLease(3));
    }

    #[test]
    fn exhausted_quota_is_asked_for_again_later() {
        let leases = Leases::default();
        leases.add(b"aaa", 1, 0, 5.0, 6.0);

        assert_eq!(leases.take(b"aaa", 1, true, 5.9), Spent::Exhausted);
        assert_eq!(leases.take(b"aaa", 1, true, 6.0), Spent::NeedsLease(1));
    }

    #[test]
    fn what_is_left_of_an_exhausted_quota_goes_back() {
        let leases = Leases::default();
        leases.add(b"spent", 1, 0, 0.0, 6.0);
        leases.add(b"left", 1, 2, 0.0, 0.0);
        leases.add(b"left", 1, 0, 0.0, 6.0);

        assert_eq!(leases.idle(5.0, 5.0), [Box::from(&b"left"[..])]);
        assert_eq!(leases.drop_idle(b"left", 5.0, 5.0), Some(2));
        assert_eq!(leases.drop_idle(b"spent", 5.0, 5.0), None);
        assert_eq!(leases.drop_idle(b"spent", 5.0, 6.0), Some(0));
    }

    #[test]
    fn lease_of_an_earlier_version_is_not_spent() {
        let leases = Leases::default();
        leases.add(b"aaa", 1, 5, 0.0, 0.0);

        assert_eq!(leases.take(b"aaa", 2, true, 0.0), Spent::NeedsLease(2));
        assert_eq!(leases.drop_older(b"aaa", 1), None);
        assert_eq!(leases.drop_older(b"aaa", 2), Some(5));
        leases.add(b"aaa", 2, 1, 0.0, 0.0);
        assert!(!leases.add(b"aaa", 1, 7, 0.0, 0.0));
        assert_eq!(leases.idle(0.0, 0.0), [Box::from(&b"aaa"[..])]);
        assert_eq!(leases.idle(-1.0, 0.0), []);
        assert_eq!(leases.drop_idle(b"aaa", -1.0, 0.0), None);
        assert_eq!(leases.drop_idle(b"aaa", 0.0, 0.0), Some(1));
    }

    #[test]
    fn no_visit_is_spent_twice_between_threads() {
        let leases = Leases::default();
        let spent = AtomicU64::new(0);
        leases.add(b"aaa", 1, 10_000, 0.0, f64::INFINITY);

        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while leases.take(b"aaa", 1, true, 0.0) == Spent::Yes {
                        spent.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });

        assert_eq!(spent.into_inner(), 10_000);
    }
}
