//! Measures this crate's limiter and governor's keyed ones in alternation, and prints a line of JSON for each
//! number of threads and keys: nanoseconds of wall-clock time per decision and thread.
//!
//! Every call is admitted. Keys are addresses as text, in random order.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use governor::clock::DefaultClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::{DashMapStateStore, HashMapStateStore, KeyedStateStore};
use governor::{Quota, RateLimiter};
use hopgate_limiter::{Config, Limiter, Rate};

const THREADS: [usize; 3] = [1, 2, 8];
const KEYS: [usize; 3] = [1, 1_000, 1_000_000];
const BURST: u32 = 1_000_000_000;

/// A bucket that is never short.
const fn quota() -> Quota {
    let most = NonZeroU32::new(BURST).expect("not zero");
    Quota::per_second(most).allow_burst(most)
}

fn names(count: usize) -> Vec<String> {
    let name = |n: usize| format!("198.51.{}.{}-{}", n >> 8 & 255, n & 255, n >> 16);
    (0..count).map(name).collect()
}

/// The key of each of `calls` calls, in random order.
fn order(keys: usize, calls: usize) -> Vec<usize> {
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    let next = |_| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed >> 32).expect("32 bits") % keys
    };
    (0..calls).map(next).collect()
}

/// Calls for all of `order` in every thread; returns ns per decision of one thread.
fn measure(
    ask: &(impl Fn(&String) -> bool + Sync),
    names: &[String],
    order: &[usize],
    threads: usize,
) -> f64 {
    let ready = Barrier::new(threads + 1);
    let started = thread::scope(|scope| {
        for number in 0..threads {
            let ready = &ready;
            scope.spawn(move || {
                let (late, early) = order.split_at(order.len() * number / threads);
                ready.wait();
                for index in early.iter().chain(late) {
                    assert!(
                        black_box(ask(&names[*index])),
                        "a limiter that is never short refused"
                    );
                }
            });
        }
        ready.wait();
        Instant::now()
    });
    started.elapsed().as_secs_f64() * 1e9 / order.len() as f64
}

fn governor<S: KeyedStateStore<String> + Default + Sync>() -> impl Fn(&String) -> bool + Sync
where
    S: Send,
{
    let limiter: RateLimiter<String, S, DefaultClock, NoOpMiddleware<_>> =
        RateLimiter::new(quota(), S::default(), DefaultClock::default());
    move |key| limiter.check_key(key).is_ok()
}

fn ours() -> impl Fn(&String) -> bool + Sync {
    let rates = Rate::parse(&format!("{BURST}/s burst {BURST}")).expect("a rate");
    let config = Config {
        max_keys: 2_000_000,
        ..Config::default()
    };
    let limiter = Limiter::new(&rates, config).expect("a limiter");
    move |key| limiter.allow(key.as_str().into(), 1)
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|argument| argument.parse::<usize>());
    let calls = arguments
        .next()
        .map_or(1_000_000, |calls| calls.expect("a number of calls"));
    let rounds = arguments
        .next()
        .map_or(5, |rounds| rounds.expect("a number of rounds"));
    for keys in KEYS {
        let (names, order) = (names(keys), order(keys, calls));
        for threads in THREADS {
            let ours = ours();
            let dash = governor::<DashMapStateStore<String>>();
            let hash = governor::<HashMapStateStore<String>>();
            let mut best = [f64::INFINITY; 3];
            for round in 0..=rounds {
                let figures = [
                    measure(&ours, &names, &order, threads),
                    measure(&dash, &names, &order, threads),
                    measure(&hash, &names, &order, threads),
                ];
                // The first round adds the keys.
                if round > 0 {
                    for (best, figure) in best.iter_mut().zip(figures) {
                        *best = best.min(figure);
                    }
                }
            }
            let [ours, dash, hash] = best;
            println!(
                "{{\"keys\": {keys}, \"threads\": {threads}, \"ours\": {ours:.1}, \"dashmap\": {dash:.1}, \"hashmap\": {hash:.1}}}"
            );
        }
    }
}
