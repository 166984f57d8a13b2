//! What is reported of single requests, until the control plane takes it: a list that is bounded for spans, and less
//! tightly for lines of the access log.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// One request that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its trace.
    pub trace: u128,
    /// Its span.
    pub span: u64,
    /// The span of its caller; 0: none.
    pub parent: u64,
    /// The trace state of its caller.
    pub tracestate: String,
    /// When it began, seconds on the clock of the control plane.
    pub began: f64,
    /// How long it took, seconds.
    pub took_s: f64,
    /// Its status; 0: the connection ended first.
    pub status: u16,
    /// What becomes of it.
    pub is: Is,
    /// Whether its route is that of links.
    pub is_redirect: bool,
    /// Its method.
    pub method: &'static str,
    /// The version of HTTP, as the control plane writes it.
    pub version: &'static str,
    /// The client's address, or its IPv6 network; empty if none is wanted, or it cannot be read.
    pub client: Box<str>,
    /// The client's id of the request; empty if it has none.
    pub request_id: Box<str>,
}

/// What becomes of a request that is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Is {
    /// Its span.
    pub span: Span,
    /// It has a line in the access log.
    pub logged: bool,
    /// The table had no answer.
    pub missed: bool,
}

impl Is {
    /// Whether anything is reported of it.
    pub fn is_reported(self) -> bool {
        self.logged || self.span != Span::None
    }
}

/// Whether a request has a span, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Span {
    /// It has none.
    #[default]
    None,
    /// As was decided when it began.
    Recorded,
    /// Since it failed, or took long.
    Late,
}

/// The records that the control plane has not taken yet.
///
/// One lock for all threads: only what is reported comes here.
#[derive(Debug)]
pub struct Records {
    kept: Mutex<VecDeque<Record>>,
    capacity: usize,
    max_lines: usize,
    dropped_spans: AtomicU64,
    dropped_lines: AtomicU64,
}

impl Records {
    /// An empty list of this capacity, and room for the lines of as many requests as are `under_way` at most.
    pub fn new(capacity: usize, under_way: usize) -> Self {
        Self {
            kept: Mutex::default(),
            capacity,
            max_lines: capacity + under_way,
            dropped_spans: AtomicU64::new(0),
            dropped_lines: AtomicU64::new(0),
        }
    }

    /// Whether another one fits.
    pub fn has_room(&self) -> bool {
        self.kept.lock().len() < self.capacity
    }

    /// Keeps `record`. If the list is full, its span is dropped, and counted.
    ///
    /// Its line has more room: a request that shall have one asks for room before it begins, and goes to the control
    /// plane if there is none, so those under way fit. But a request that fails has a line as well, and so has one that
    /// the control plane does not answer: while it stands still they are any number, and lines are dropped too.
    pub fn push(&self, mut record: Record) {
        let mut kept = self.kept.lock();
        if kept.len() >= self.capacity {
            if record.is.span != Span::None {
                self.dropped_spans.fetch_add(1, Ordering::Relaxed);
                record.is.span = Span::None;
            }
            if !record.is.logged {
                return;
            }
            if kept.len() >= self.max_lines {
                self.dropped_lines.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        kept.push_back(record);
    }

    /// The oldest records, `limit` at most.
    pub fn take(&self, limit: usize) -> Vec<Record> {
        let mut kept = self.kept.lock();
        let count = kept.len().min(limit);
        kept.drain(..count).collect()
    }

    /// Spans, and lines, since the start that did not fit.
    pub fn dropped(&self) -> (u64, u64) {
        let count = |dropped: &AtomicU64| dropped.load(Ordering::Relaxed);
        (count(&self.dropped_spans), count(&self.dropped_lines))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(is: Is) -> Record {
        Record {
            trace: 1,
            span: 2,
            parent: 0,
            tracestate: String::new(),
            began: 0.0,
            took_s: 0.0,
            status: 302,
            is,
            is_redirect: true,
            method: "GET",
            version: "1.1",
            client: "".into(),
            request_id: "".into(),
        }
    }

    #[test]
    fn spans_beyond_the_capacity_are_dropped_and_lines_later() {
        let records = Records::new(2, 1);
        let span = Is {
            span: Span::Recorded,
            ..Is::default()
        };
        let both = Is {
            logged: true,
            ..span
        };
        let late = Is {
            span: Span::Late,
            ..Is::default()
        };
        for is in [span, both, span, late, both, both, span] {
            records.push(record(is));
        }

        let line = Is {
            span: Span::None,
            ..both
        };
        let taken = |limit| -> Vec<Is> { records.take(limit).iter().map(|one| one.is).collect() };
        assert_eq!(records.dropped(), (5, 1));
        assert_eq!((taken(1), records.has_room()), (vec![span], false));
        assert_eq!((taken(9), records.has_room()), (vec![both, line], true));
        assert_eq!(taken(9), []);
    }
}
