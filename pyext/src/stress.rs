//! Threads against one key: exactly the burst is admitted, in a test that has seen them contend.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::OnFull;
use crate::engine::Engine;
use crate::gcra::Gcra;
use crate::meter::Meter;
use crate::rate::Rate;
use crate::store::Store;
use crate::window::SlidingWindow;

const THREADS: u64 = 8;
const HITS_PER_ROUND: u64 = 5_000;
const BURST: u64 = 30_000;

/// Rounds at a frozen clock until one has seen a locked lock.
fn stress<M: Meter + Clone + Sync>() {
    let rate = Rate::new(BURST, 3_600_000_000_000, None, "r").unwrap();
    let gave_up_at = Instant::now() + Duration::from_secs(30);
    let collisions = AtomicU64::new(0);
    while collisions.load(Ordering::Relaxed) == 0 {
        assert!(Instant::now() < gave_up_at, "the threads never contended");
        let store = Store::<M>::new(std::slice::from_ref(&rate), 16, 4, OnFull::Deny).unwrap();
        let start = AtomicBool::new(false);
        let admitted: u64 = thread::scope(|scope| {
            let hammer = || {
                while !start.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                let mut admitted = 0;
                for _ in 0..HITS_PER_ROUND {
                    if store.is_busy(1) {
                        collisions.fetch_add(1, Ordering::Relaxed);
                    }
                    admitted += u64::from(store.allow(1, 7, 1).unwrap());
                }
                admitted
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(hammer)).collect();
            start.store(true, Ordering::Release);
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });

        assert_eq!(admitted, BURST.min(THREADS * HITS_PER_ROUND));
        let stats = store.stats();
        assert_eq!(stats.allowed + stats.denied, THREADS * HITS_PER_ROUND);
    }
}

#[test]
fn colliding_threads_share_one_bucket() {
    stress::<Gcra>();
}

#[test]
fn colliding_threads_share_one_window() {
    stress::<SlidingWindow>();
}

/// Reconfiguration under traffic: no deadlock, and no unit is admitted twice.
#[test]
fn reconfiguration_meets_traffic() {
    let rates: Vec<Rate> = (0..2)
        .map(|n| Rate::new(1000 + n, 3_600_000_000_000, None, "r").unwrap())
        .collect();
    let store = Store::<Gcra>::new(&rates[..1], 16, 1 << 20, OnFull::Deny).unwrap();
    let admitted: u64 = thread::scope(|scope| {
        let traffic = || {
            (0..4000)
                .map(|n| u64::from(store.allow(n << 52 | 1, 7, 1).unwrap()))
                .sum::<u64>()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(traffic)).collect();
        for n in 0..50 {
            store.configure(&rates[n % 2..=n % 2], 7).unwrap();
        }
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });

    assert_eq!(admitted, 4 * 4000);
    assert_eq!(store.stats().keys, 4000);
}
