//! Counts and durations of the answers that the front gives itself.

use std::sync::atomic::{AtomicU64, Ordering};

use hyper::StatusCode;

/// The histogram of one method and status.
#[derive(Debug)]
struct Cells {
    is_head: bool,
    status: StatusCode,
    buckets: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
}

/// What one method and status has counted since it was last taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Whether the method is HEAD, or GET.
    pub is_head: bool,
    /// The status.
    pub status: u16,
    /// Answers by bucket; the last one is beyond all bounds.
    pub buckets: Vec<u64>,
    /// The sum of their durations, seconds.
    pub sum_s: f64,
}

/// Histograms by method and status, and the errors that the table answered. Written by all threads.
///
/// Each count stands alone: no other memory depends on its order.
#[derive(Debug)]
pub struct Recorder {
    /// Upper bounds of the buckets, seconds, ascending.
    bounds: Box<[f64]>,
    /// Of GET, then of HEAD.
    cells: Box<[Cells]>,
    /// As the cells of GET.
    errors: Box<[AtomicU64]>,
    looked_up: Box<[AtomicU64]>,
    missed: AtomicU64,
    stale: AtomicU64,
    late: AtomicU64,
    /// Requests that the control plane did not answer.
    unanswered: AtomicU64,
}

impl Recorder {
    /// A recorder of these statuses. Those of other answers are not counted.
    pub fn new(bounds: Vec<f64>, statuses: impl IntoIterator<Item = StatusCode>) -> Self {
        let zeros = |number: usize| (0..number).map(|_| AtomicU64::new(0)).collect();
        let statuses: Vec<_> = statuses.into_iter().collect();
        let cells: Box<[Cells]> = [false, true]
            .into_iter()
            .flat_map(|is_head| statuses.iter().map(move |status| (is_head, *status)))
            .map(|(is_head, status)| Cells {
                is_head,
                status,
                buckets: zeros(bounds.len() + 1),
                sum_ns: AtomicU64::new(0),
            })
            .collect();
        Self {
            errors: zeros(statuses.len()),
            looked_up: zeros(statuses.len()),
            missed: AtomicU64::new(0),
            stale: AtomicU64::new(0),
            late: AtomicU64::new(0),
            bounds: bounds.into(),
            cells,
            unanswered: AtomicU64::new(0),
        }
    }

    /// Counts an answer that took `seconds`.
    pub fn observe(&self, is_head: bool, status: StatusCode, seconds: f64) {
        let mut cells = self.cells.iter();
        let Some(cells) = cells.find(|one| one.status == status && one.is_head == is_head) else {
            return;
        };
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        cells.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        // Negative and too large values become the nearest bound.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let ns = (seconds * 1e9) as u64;
        cells.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Counts an answer of the table to an admitted request that is no redirect.
    pub fn count_error(&self, status: StatusCode) {
        self.count(&self.errors, status);
    }

    /// Counts an admitted request that the table has no answer for.
    pub fn count_missed(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the answer to such a request.
    pub fn count_looked_up(&self, status: StatusCode) {
        self.count(&self.looked_up, status);
    }

    /// Counts a stale entry that was sent since the control plane was late.
    pub fn count_stale(&self) {
        self.stale.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that the control plane was too late for.
    pub fn count_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self, counts: &[AtomicU64], status: StatusCode) {
        if let Some(index) = self.cells.iter().position(|cells| cells.status == status) {
            counts[index].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a request that the control plane did not answer.
    pub fn count_unanswered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    /// The histograms since the last call, without the empty ones.
    pub fn take(&self) -> Vec<Recorded> {
        let taken = |cell: &AtomicU64| cell.swap(0, Ordering::Relaxed);
        let recorded = self.cells.iter().map(|cells| Recorded {
            is_head: cells.is_head,
            status: cells.status.as_u16(),
            buckets: cells.buckets.iter().map(taken).collect(),
            sum_s: taken(&cells.sum_ns) as f64 / 1e9,
        });
        recorded
            .filter(|one| one.buckets.iter().any(|count| *count > 0))
            .collect()
    }

    /// The errors of the table since the last call, by status.
    pub fn take_errors(&self) -> Vec<(u16, u64)> {
        self.take_counts(&self.errors)
    }

    /// The answers after a look-up since the last call, by status.
    pub fn take_looked_up(&self) -> Vec<(u16, u64)> {
        self.take_counts(&self.looked_up)
    }

    fn take_counts(&self, counts: &[AtomicU64]) -> Vec<(u16, u64)> {
        let counted = self.cells.iter().zip(counts);
        let taken = counted.map(|(cells, count)| {
            let count = count.swap(0, Ordering::Relaxed);
            (cells.status.as_u16(), count)
        });
        taken.filter(|(_, count)| *count > 0).collect()
    }

    /// Admitted requests since the last call that the table had no answer for.
    pub fn take_missed(&self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }

    /// Stale entries sent, and requests refused, since the last call, as the control plane was late.
    pub fn take_late(&self) -> (u64, u64) {
        let taken = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        (taken(&self.stale), taken(&self.late))
    }

    /// Requests since the start that the control plane did not answer.
    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_belongs_to_its_bucket() {
        let recorder = Recorder::new(vec![0.001, 0.01], [StatusCode::FOUND, StatusCode::GONE]);

        for seconds in [0.0005, 0.001, 0.0011, 5.0] {
            recorder.observe(false, StatusCode::FOUND, seconds);
        }

        let taken = recorder.take();
        assert_eq!(taken.len(), 1);
        assert_eq!((taken[0].status, &*taken[0].buckets), (302, &[2, 1, 1][..]));
        assert!((taken[0].sum_s - 5.0026).abs() < 1e-6);
        assert_eq!(recorder.take(), []);
    }

    #[test]
    fn errors_are_taken_once() {
        let recorder = Recorder::new(vec![], [StatusCode::FOUND, StatusCode::GONE]);

        recorder.count_error(StatusCode::GONE);
        recorder.count_error(StatusCode::GONE);

        assert_eq!(recorder.take_errors(), [(410, 2)]);
        assert_eq!(recorder.take_errors(), []);
    }
}
