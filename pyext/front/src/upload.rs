//! The bodies of requests that are passed on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

/// How far the body of a request is.
#[derive(Debug)]
pub struct Progress(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    state: State,
    /// When it became [`State::Sent`] or [`State::CutOff`].
    ended: Instant,
    /// What the client sends. None: it is withheld.
    body: Option<Incoming>,
    /// Of the connection that waits for [`State::Expected`] to end.
    waiting: Option<Waker>,
}

impl Inner {
    fn end(&mut self, state: State) {
        // hyper may ask on after the last part.
        if self.state != state {
            (self.state, self.ended) = (state, Instant::now());
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The client sends it once the control plane asks for it (RFC 9110, 10.1.1).
    Expected,
    UnderWay,
    Sent,
    CutOff,
}

impl Progress {
    /// Whether all of it is sent: before that, its connection has no place for another request.
    pub fn is_sent(&self) -> bool {
        self.0.lock().state == State::Sent
    }

    /// Whether the client ended it early, or sent something else.
    pub fn is_cut_off(&self) -> bool {
        self.0.lock().state == State::CutOff
    }

    /// The end of the control plane's time of `limit`, which begins when the client has sent all.
    pub fn end_of(&self, limit: Duration) -> Instant {
        let inner = self.0.lock();
        let begins = match inner.state {
            State::Expected | State::UnderWay => Instant::now(),
            State::Sent | State::CutOff => inner.ended,
        };
        begins + limit
    }

    /// Lets the client send what it has announced.
    pub fn ask(&self) {
        let mut inner = self.0.lock();
        if inner.state == State::Expected {
            inner.state = State::UnderWay;
            if let Some(waker) = inner.waiting.take() {
                waker.wake();
            }
        }
    }

    /// Reads no more of what the client sends: the answer is there.
    pub fn give_up(&self) {
        self.0.lock().body = None;
    }
}

/// The body of a request on its way to the control plane.
#[derive(Debug)]
pub struct Upload(Arc<Progress>);

impl Upload {
    /// The body `inner`, and how far it is. If it `is_expected`, it waits for [`Progress::ask`].
    pub fn new(inner: Incoming, is_expected: bool) -> (Self, Arc<Progress>) {
        let state = match (inner.is_end_stream(), is_expected) {
            (true, _) => State::Sent,
            (false, true) => State::Expected,
            (false, false) => State::UnderWay,
        };
        Self::at(state, Some(inner))
    }

    /// A body that never comes: the head alone is sent, and decides the answer.
    pub fn withheld() -> (Self, Arc<Progress>) {
        Self::at(State::UnderWay, None)
    }

    fn at(state: State, body: Option<Incoming>) -> (Self, Arc<Progress>) {
        let progress = Arc::new(Progress(Mutex::new(Inner {
            state,
            ended: Instant::now(),
            body,
            waiting: None,
        })));
        (Self(Arc::clone(&progress)), progress)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut inner = self.0.0.lock();
        if inner.state == State::Expected {
            inner.waiting = Some(context.waker().clone());
            return Poll::Pending;
        }
        let Some(body) = inner.body.as_mut() else {
            return Poll::Pending;
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(context));
        let is_end = body.is_end_stream();
        match &frame {
            Some(Err(_)) => inner.end(State::CutOff),
            Some(Ok(_)) if !is_end => {}
            Some(Ok(_)) | None => inner.end(State::Sent),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let inner = self.0.0.lock();
        inner.body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.0.0.lock();
        inner
            .body
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}
