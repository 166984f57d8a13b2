//! The bodies of answers: at hand, or passed through.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::idle::Busy;
use crate::pool::Lease;
use crate::upload::Progress;

/// Why an answer cannot be sent to its end.
type Failure = Box<dyn Error + Send + Sync>;

/// The body of an answer.
#[derive(Debug)]
pub enum AnswerBody {
    /// Bytes at hand; None once they are sent, or if there are none.
    Fixed(Option<Bytes>),
    /// Passed through from the control plane.
    Streamed(Box<Download>),
}

impl AnswerBody {
    /// A body of these bytes.
    pub fn of(bytes: Bytes) -> Self {
        Self::Fixed((!bytes.is_empty()).then_some(bytes))
    }

    /// This body, of an answer that keeps its connection `busy` until it has passed.
    pub(crate) fn during(mut self, busy: Busy) -> Self {
        if let Self::Streamed(download) = &mut self {
            download.busy = Some(busy);
        }
        self
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Fixed(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed(download) => Pin::new(&mut **download).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Fixed(bytes) => bytes.is_none(),
            Self::Streamed(download) => download.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Fixed(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Streamed(download) => download.inner.size_hint(),
        }
    }
}

/// The body of an answer of the control plane. Gives its connection back at the end, and closes it if the end is
/// never reached.
#[derive(Debug)]
pub struct Download {
    inner: Incoming,
    lease: Option<Lease>,
    limit: Duration,
    /// The body of the request, if the client may go on with it during the answer.
    upload: Option<Arc<Progress>>,
    /// Until when the next part has to come.
    waiting: Option<Pin<Box<Sleep>>>,
    busy: Option<Busy>,
}

impl Download {
    /// The body `inner`, of an answer over the connection in `lease`. It fails if a part takes longer than `limit`;
    /// parts that answer an `upload` wait for the client as well, and for its end.
    pub fn new(
        inner: Incoming,
        lease: Lease,
        limit: Duration,
        upload: Option<Arc<Progress>>,
    ) -> Self {
        let mut download = Self {
            inner,
            lease: Some(lease),
            limit,
            upload,
            waiting: None,
            busy: None,
        };
        download.give_back_at_the_end();
        download
    }

    fn give_back_at_the_end(&mut self) {
        if self.inner.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }

    /// Waits until the next part is late.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let timer = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        loop {
            ready!(timer.as_mut().poll(context));
            let end = self.upload.as_ref().map(|upload| upload.end_of(limit));
            match end.filter(|end| *end > timer.deadline()) {
                Some(end) => timer.as_mut().reset(end),
                None => return Poll::Ready(()),
            }
        }
    }

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) else {
            ready!(self.poll_late(context));
            self.lease = None;
            let late = io::Error::from(io::ErrorKind::TimedOut);
            return Poll::Ready(Some(Err(late.into())));
        };
        self.waiting = None;
        match &frame {
            Some(Ok(_)) => self.give_back_at_the_end(),
            Some(Err(_)) => self.lease = None,
            None => {
                if let Some(lease) = self.lease.take() {
                    lease.give_back();
                }
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }
}
