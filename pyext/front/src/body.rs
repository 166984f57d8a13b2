//! The bodies of answers: at hand, or passed through.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::pool::Lease;

/// The body of an answer.
#[derive(Debug)]
pub enum AnswerBody {
    /// Bytes at hand; None once they are sent, or if there are none.
    Fixed(Option<Bytes>),
    /// Passed through from the control plane.
    Streamed(Download),
}

impl AnswerBody {
    /// A body of these bytes.
    pub fn of(bytes: Bytes) -> Self {
        Self::Fixed((!bytes.is_empty()).then_some(bytes))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Fixed(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Streamed(download) => Pin::new(download).poll_frame(context),
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
}

impl Download {
    /// The body `inner`, of an answer over the connection in `lease`.
    pub fn new(inner: Incoming, lease: Lease) -> Self {
        let mut download = Self {
            inner,
            lease: Some(lease),
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

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        match &frame {
            Some(Ok(_)) => self.give_back_at_the_end(),
            Some(Err(_)) => self.lease = None,
            None => {
                if let Some(lease) = self.lease.take() {
                    lease.give_back();
                }
            }
        }
        Poll::Ready(frame)
    }
}
