//! The recorded requests that look-ups are done for, so that these are a part of their traces.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::quality::RandomState;
use parking_lot::Mutex;

/// The span of a request that may begin a look-up.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// Its trace.
    pub trace: u128,
    /// Its id.
    pub span: u64,
    /// When it began, seconds on the clock of the control plane.
    pub began: f64,
    /// What its caller passes on.
    pub tracestate: String,
    /// Likewise.
    pub baggage: String,
}

/// The first recorded request of each slug that is under way.
#[derive(Debug, Default)]
pub struct Origins {
    by_slug: Mutex<HashMap<Box<[u8]>, Origin, RandomState>>,
    /// Recorded requests under way, so that none costs no lock.
    under_way: AtomicUsize,
}

impl Origins {
    /// Those of the look-ups of `slugs`.
    pub fn of(&self, slugs: &[Box<[u8]>]) -> Vec<Option<Origin>> {
        let by_slug = self.by_slug.lock();
        let found = slugs.iter().map(|slug| by_slug.get(slug).cloned());
        found.collect()
    }

    /// Whether there is none. A request is here before its slug is to be looked up: ask after the slugs are taken.
    pub fn is_empty(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }
}

/// A request that is an origin until this is dropped.
#[derive(Debug)]
pub(crate) struct Originated {
    origins: Arc<Origins>,
    slug: Box<[u8]>,
    span: u64,
}

impl Originated {
    /// Makes `origin` that of the look-up of `slug`, unless it has another.
    pub(crate) fn new(origins: &Arc<Origins>, slug: &[u8], origin: Origin) -> Self {
        origins.under_way.fetch_add(1, Ordering::Release);
        let span = origin.span;
        origins.by_slug.lock().entry(slug.into()).or_insert(origin);
        Self {
            origins: Arc::clone(origins),
            slug: slug.into(),
            span,
        }
    }
}

impl Drop for Originated {
    fn drop(&mut self) {
        let mut by_slug = self.origins.by_slug.lock();
        if by_slug
            .get(&self.slug)
            .is_some_and(|origin| origin.span == self.span)
        {
            by_slug.remove(&self.slug);
        }
        drop(by_slug);
        self.origins.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}
