//! Delays negative answers when there are very many, which slows down scans.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Delayed answers are sent together, at multiples of this time, seconds. What their clients ask next then comes
/// together as well, and is looked up together.
const TICK_S: f64 = 0.025;

/// How many answers pass undelayed, and how the others are delayed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TarpitConfig {
    /// Undelayed answers a second.
    pub free_per_s: f64,
    /// Undelayed answers at once.
    pub burst: f64,
    /// The shortest delay of the others.
    pub delay: Duration,
    /// The most answers that are delayed at a time; further ones are sent at once.
    pub max_held: usize,
}

/// A tarpit of all connections of a process. Counts by GCRA, in ticks.
#[derive(Debug)]
pub struct Tarpit {
    config: TarpitConfig,
    passing: Mutex<Passing>,
    held: AtomicUsize,
}

/// Seconds on the clock of the calls.
#[derive(Debug)]
struct Passing {
    /// When the next answer is due.
    next_due: f64,
    /// Until when the tarpit counts as delaying.
    is_delaying_until: f64,
}

/// One delayed answer. Dropped when it is sent, or when its connection ends.
#[derive(Debug)]
pub struct Held(Arc<Tarpit>);

impl Tarpit {
    /// A tarpit that delays nothing yet.
    pub fn new(config: TarpitConfig) -> Self {
        Self {
            config,
            passing: Mutex::new(Passing {
                next_due: f64::NEG_INFINITY,
                is_delaying_until: f64::NEG_INFINITY,
            }),
            held: AtomicUsize::new(0),
        }
    }

    /// What the answer at `now`, in seconds, has to wait for; None: it is sent at once.
    pub fn hold(self: &Arc<Self>, now: f64) -> Option<(Held, Duration)> {
        {
            // What may pass grows at ticks alone. Between them, each answer that passes would bring its client's
            // next guess by itself, and that would be looked up by itself.
            let tick = (now / TICK_S).floor() * TICK_S;
            let mut passing = self.passing.lock();
            let due = passing.next_due.max(tick);
            if due - tick <= (self.config.burst - 1.0) / self.config.free_per_s {
                passing.next_due = due + 1.0 / self.config.free_per_s;
                return None;
            }
            passing.is_delaying_until = now + 2.0 * self.config.delay.as_secs_f64();
        }
        // The count bounds memory alone, so no other memory depends on its order.
        let before = self.held.fetch_add(1, Ordering::Relaxed);
        let held = Held(Arc::clone(self));
        (before < self.config.max_held).then(|| (held, self.delay(now)))
    }

    fn delay(&self, now: f64) -> Duration {
        let end = now + self.config.delay.as_secs_f64();
        let tick = (end / TICK_S).ceil() * TICK_S;
        Duration::from_secs_f64((tick - now).max(0.0))
    }

    /// Whether an answer is delayed, or was until lately: a scan is under way.
    pub fn is_delaying(&self, now: f64) -> bool {
        now < self.passing.lock().is_delaying_until
    }

    /// How many answers are delayed at present.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tarpit() -> Arc<Tarpit> {
        Arc::new(Tarpit::new(TarpitConfig {
            free_per_s: 10.0,
            burst: 3.0,
            delay: Duration::from_millis(100),
            max_held: 2,
        }))
    }

    #[test]
    fn burst_passes_and_the_rest_is_held() {
        let tarpit = tarpit();

        let held: Vec<_> = (0..5).map(|_| tarpit.hold(100.0)).collect();

        let is_held: Vec<_> = held.iter().map(Option::is_some).collect();
        assert_eq!(is_held, [false, false, false, true, true]);
        assert_eq!(tarpit.held(), 2);
        assert!(tarpit.hold(100.0).is_none(), "no more than two are held");
        assert!(tarpit.hold(100.2).is_none(), "0.2 s later two more pass");
    }

    #[test]
    fn what_may_pass_grows_at_ticks() {
        let config = TarpitConfig {
            free_per_s: 500.0,
            burst: 25.0,
            delay: Duration::from_millis(100),
            max_held: 1000,
        };
        let tarpit = Arc::new(Tarpit::new(config));
        let mut held = Vec::new();
        let mut passed = |now: f64, asked: usize| {
            let answers: Vec<_> = (0..asked).map(|_| tarpit.hold(now)).collect();
            let passed = answers.iter().filter(|answer| answer.is_none()).count();
            held.extend(answers);
            passed
        };

        // A burst, to the last bit of a float or one less.
        assert!((24..=25).contains(&passed(50.001, 40)));
        assert_eq!(passed(50.024, 10), 0, "the same tick");
        assert_eq!(passed(50.026, 10), 10);
        assert!((2..=3).contains(&passed(50.045, 10)));
        assert_eq!(passed(50.049, 10), 0);
        assert!((24..=25).contains(&passed(51.001, 40)));
    }

    #[test]
    fn delayed_answers_are_sent_together() {
        let tarpit = tarpit();
        let sent = [50.001, 50.002, 50.013].map(|now| {
            let end = now + tarpit.delay(now).as_secs_f64();
            assert!((0.1..0.125).contains(&(end - now)));
            format!("{end:.3}")
        });

        assert_eq!(sent, ["50.125"; 3]);
    }

    #[test]
    fn tarpit_is_delaying_until_a_while_after_the_last_delay() {
        let tarpit = tarpit();
        for _ in 0..3 {
            assert!(tarpit.hold(100.0).is_none());
            assert!(!tarpit.is_delaying(100.0));
        }

        assert!(tarpit.hold(100.0).is_some());

        let asked = [100.0, 100.1, 100.19, 100.21].map(|now| tarpit.is_delaying(now));
        assert_eq!(asked, [true, true, true, false]);
    }

    #[test]
    fn ended_wait_makes_room() {
        let tarpit = tarpit();
        let held: Vec<_> = (0..5).map(|_| tarpit.hold(100.0)).collect();

        drop(held);

        assert_eq!(tarpit.held(), 0);
        assert!(tarpit.hold(100.0).is_some());
    }
}
