//! What the front reports of single requests: to and from Python.

use crate::config::WatchConfig;
use crate::records::{Record, Span};
use crate::sampling::Sampling;

/// Sampling of traces (bound, whether it follows the parent, what is slow), bound of the access log, capacity.
pub(super) type Watched = (Option<(u128, bool, f64)>, Option<u128>, usize);
/// Trace, span, when it began, trace state, baggage.
pub(super) type OriginParts = (u128, u64, f64, String, String);
/// Of a record: its trace, span, parent and trace state; began, took and status; recorded, late, logged, missed, of
/// links; method and version; client and id.
pub(super) type RecordParts = (
    (u128, u64, u64, String),
    (f64, f64, u16),
    (bool, bool, bool, bool, bool),
    (&'static str, &'static str),
    (String, String),
);

/// What a front reports of single requests, as Python says it.
pub(super) fn watch_config((traced, logged, capacity): Watched) -> WatchConfig {
    let traced = traced.map(|(bound, follows_parent, slow_s)| {
        let sampling = Sampling {
            bound,
            follows_parent,
        };
        (sampling, slow_s)
    });
    WatchConfig {
        traced,
        logged,
        capacity,
    }
}

/// A record as Python takes it.
pub(super) fn parts(record: Record) -> RecordParts {
    let is = record.is;
    (
        (record.trace, record.span, record.parent, record.tracestate),
        (record.began, record.took_s, record.status),
        (
            is.span == Span::Recorded,
            is.span == Span::Late,
            is.logged,
            is.missed,
            record.is_redirect,
        ),
        (record.method, record.version),
        (record.client.into(), record.request_id.into()),
    )
}
