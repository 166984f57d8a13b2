//! The clock of the control plane, read without it.

use std::time::Instant;

/// Seconds that never go back, as the control plane reads them.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    started_s: f64,
}

impl Clock {
    /// A clock that shows `now_s` now.
    #[cfg(test)]
    pub(crate) fn new(now_s: f64) -> Self {
        Self {
            started: Instant::now(),
            started_s: now_s,
        }
    }

    /// A clock that shows what `read` does, or more: as much as this call of it takes.
    ///
    /// So it is never behind, and nothing is sent for longer than the control plane allows.
    ///
    /// # Errors
    /// That of `read`.
    pub fn like<E>(read: impl FnOnce() -> Result<f64, E>) -> Result<Self, E> {
        let started = Instant::now();
        Ok(Self {
            started,
            started_s: read()?,
        })
    }

    /// What it shows.
    pub fn now(&self) -> f64 {
        self.started_s + self.started.elapsed().as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::thread::sleep;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_is_never_behind_the_one_it_was_read_from() {
        let other = Instant::now();
        let clock = Clock::like(|| {
            let read = other.elapsed().as_secs_f64();
            sleep(Duration::from_millis(5)); // the thread is preempted after the read
            Ok::<_, Infallible>(read)
        });

        let read = other.elapsed().as_secs_f64();
        assert!(clock.unwrap().now() >= read);
    }
}
