//! Properties of every algorithm through the public API, on a manual clock.
//! The fuller models (exact rationals, lists of hits) are in the Python suite.

use hopgate_limiter::{Algorithm, Clock, Config, Limiter, ManualClock, Rate};
use proptest::prelude::*;

const ALGORITHMS: [Algorithm; 3] = [
    Algorithm::Gcra,
    Algorithm::SlidingLog,
    Algorithm::SlidingWindow,
];

fn limiter(algorithm: Algorithm, rate: &Rate, start: u64) -> (Limiter, ManualClock) {
    let clock = ManualClock::new(start);
    let config = Config {
        algorithm,
        clock: Clock::manual(clock.clone()),
        ..Config::default()
    };
    let limiter = Limiter::new(std::slice::from_ref(rate), config).expect("the rate has no burst");
    (limiter, clock)
}

prop_compose! {
    fn histories()(
        limit in 1_u64..40,
        period_ns in prop_oneof![1_u64..100, Just(999_999_937)],
        start in prop_oneof![Just(0_u64), Just(1 << 62)],
        steps in prop::collection::vec((0_u64..200, 0_u64..45), 1..60),
    ) -> (Rate, u64, Vec<(u64, u64)>) {
        // Waits in hundredths of a period.
        let steps = steps.into_iter().map(|(w, c)| (w * period_ns / 100, c)).collect();
        (Rate::new(limit, period_ns, None, "r").expect("in range"), start, steps)
    }
}

proptest! {
    /// No admitted run of hits carries more than the algorithm's bound for its length.
    #[test]
    fn admissions_never_exceed_the_bound((rate, start, steps) in histories()) {
        for algorithm in ALGORITHMS {
            let (limiter, clock) = limiter(algorithm, &rate, start);
            let mut admitted: Vec<(u64, u64)> = Vec::new();
            for (wait, cost) in &steps {
                clock.advance(*wait);
                if limiter.allow("k".into(), *cost) {
                    admitted.push((clock.now_ns(), *cost));
                }
            }
            for (first, (from, _)) in admitted.iter().enumerate() {
                let mut total = 0_u128;
                for (to, cost) in &admitted[first..] {
                    total += u128::from(*cost);
                    let (span, limit) = (u128::from(to - from), u128::from(rate.limit()));
                    let period = u128::from(rate.period_ns());
                    if algorithm == Algorithm::Gcra {
                        prop_assert!((total - total.min(limit)) * period <= span * limit);
                    } else if span < period {
                        prop_assert!(total <= limit);
                    }
                }
            }
        }
    }

    /// A refused call changes nothing; its wait is sufficient, and one nanosecond less is not.
    #[test]
    fn refusals_are_exact_and_change_nothing((rate, start, steps) in histories()) {
        for algorithm in ALGORITHMS {
            let (limiter, clock) = limiter(algorithm, &rate, start);
            for (wait, cost) in &steps {
                clock.advance(*wait);
                let before = format!("{:?}", limiter.peek("k".into(), 1));
                let decision = limiter.hit("k".into(), *cost);
                if decision.allowed {
                    continue;
                }
                prop_assert_eq!(&before, &format!("{:?}", limiter.peek("k".into(), 1)));
                prop_assert_eq!(decision.retry_after_ns.is_none(), *cost > rate.burst());
                if let Some(wait_ns) = decision.retry_after_ns {
                    clock.advance(wait_ns - 1);
                    prop_assert!(!limiter.peek("k".into(), *cost).allowed);
                    clock.advance(1);
                    prop_assert!(limiter.peek("k".into(), *cost).allowed);
                }
            }
        }
    }

    /// Slots never go back, and cancelling the last one leaves no trace.
    #[test]
    fn slots_are_in_order((rate, start, steps) in histories()) {
        for algorithm in [Algorithm::Gcra, Algorithm::SlidingLog] {
            let (limiter, clock) = limiter(algorithm, &rate, start);
            let mut latest = 0;
            for (wait, cost) in &steps {
                clock.advance(*wait);
                let before = format!("{:?}", limiter.peek("k".into(), 1));
                let (_, reservation) = limiter.reserve("k".into(), *cost, u64::MAX).unwrap();
                let Some(reservation) = reservation.filter(|_| *cost > 0) else { continue };
                if *cost % 3 == 0 {
                    limiter.cancel(&reservation);
                    prop_assert_eq!(&before, &format!("{:?}", limiter.peek("k".into(), 1)));
                    continue;
                }
                let slot = clock.now_ns() + limiter.delay_ns(&reservation);
                prop_assert!(slot >= latest);
                latest = slot;
            }
        }
    }
}
