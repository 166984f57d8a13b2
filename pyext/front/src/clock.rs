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
    pub fn new(now_s: f64) -> Self {
        Self {
            started: Instant::now(),
            started_s: now_s,
        }
    }

    /// What it shows.
    pub fn now(&self) -> f64 {
        self.started_s + self.started.elapsed().as_secs_f64()
    }
}
