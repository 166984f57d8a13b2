//! The bodies of requests that are passed on.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// How far the body of a request is.
#[derive(Debug, Default)]
pub struct Progress(AtomicU8);

const UNDER_WAY: u8 = 0;
const SENT: u8 = 1;
const CUT_OFF: u8 = 2;

// Both sides run on one thread, so no memory depends on the order.
impl Progress {
    /// Whether all of it is sent: before that, its connection has no place for another request.
    pub fn is_sent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == SENT
    }

    /// Whether the client ended it early, or sent something else.
    pub fn is_cut_off(&self) -> bool {
        self.0.load(Ordering::Relaxed) == CUT_OFF
    }

    fn set(&self, to: u8) {
        self.0.store(to, Ordering::Relaxed);
    }
}

/// The body of a request on its way to the control plane.
#[derive(Debug)]
pub struct Upload {
    /// None: it is withheld.
    inner: Option<Incoming>,
    progress: Arc<Progress>,
}

impl Upload {
    /// The body `inner`, and how far it is.
    pub fn new(inner: Incoming) -> (Self, Arc<Progress>) {
        let progress = if inner.is_end_stream() {
            SENT
        } else {
            UNDER_WAY
        };
        Self::at(progress, Some(inner))
    }

    /// A body that never comes: the head alone is sent, and decides the answer.
    pub fn withheld() -> (Self, Arc<Progress>) {
        Self::at(UNDER_WAY, None)
    }

    fn at(progress: u8, inner: Option<Incoming>) -> (Self, Arc<Progress>) {
        let progress = Arc::new(Progress(AtomicU8::new(progress)));
        let upload = Self {
            inner,
            progress: Arc::clone(&progress),
        };
        (upload, progress)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(inner) = self.inner.as_mut() else {
            return Poll::Pending;
        };
        let frame = ready!(Pin::new(&mut *inner).poll_frame(context));
        let is_end = inner.is_end_stream();
        match &frame {
            Some(Err(_)) => self.progress.set(CUT_OFF),
            Some(Ok(_)) if !is_end => {}
            Some(Ok(_)) | None => self.progress.set(SENT),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.as_ref();
        inner.map_or_else(SizeHint::default, Body::size_hint)
    }
}
